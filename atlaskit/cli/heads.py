"""Everything `analyze` and `compare` measure on a head: dimensions over boxes, and row measures, beside their nulls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from atlaskit import measure
from atlaskit.records import Estimate

NAN = float("nan")

PATTERNS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ignorant": lambda pattern, support: measure.uniform(support).to(pattern).expand_as(pattern),
    "toeplitz": measure.toeplitz,
    "column": measure.column_marginal,
}
"""Nulls that are one pattern each: no knowledge, the profile over distances, the preference among keys."""

NULLS = {
    "ignorant": "the head that spreads evenly",
    "permuted": "each row dealt out anew",
    "toeplitz": "the head's profile over distances",
    "column": "the head's preference among keys",
    "untrained": "the same architecture untrained",
}


@dataclass(frozen=True, eq=False)
class Look:
    """Heads of one text: every quantity, the nulls that were asked for, and the points behind the dimensions.

    `doubt` is the lowest and highest D_q over all places where the grids can begin, and without any one scale.
    """

    values: Float[Tensor, "*head quantity"]
    nulls: Mapping[str, Float[Tensor, "draw *head quantity"]]
    log_size: Float[Tensor, " size"]
    points: Float[Tensor, "*head order size"]
    r_squared: Float[Tensor, "*head order"]
    doubt: Float[Tensor, "*head order 2"]
    reasons: tuple[str, ...]


def quantities(orders: Sequence[float], unit: str = "token") -> list[dict[str, str]]:
    """Name and unit of each quantity, those over boxes first."""
    over_boxes = [
        {"quantity": f"{name}_{order:g}", "unit": of}
        for name, of in (("D", "dimension"), ("relative_D", "dimension"), ("level", "bits"))
        for order in orders
    ]
    rows = {"lacunarity": "exponent", "fluctuation": "exponent", "entropy": "bits", "mean_distance": f"{unit}s"}
    masses = dict.fromkeys((f"{place}_{unit}" for place in ("own", "previous", "next", "first")), "share")
    return [*over_boxes, {"quantity": "self_similarity", "unit": "likeness"}] + [
        {"quantity": name, "unit": of} for name, of in (rows | masses).items()
    ]


def n_over_boxes(orders: Sequence[float]) -> int:
    """How many of `quantities` come from boxes, of which alone permuted rows can be had without their patterns."""
    return 3 * len(orders) + 1


def look(
    pattern: Float[Tensor, "head query key"],
    support: Bool[Tensor, "query key"],
    *,
    orders: Sequence[float],
    nulls: Sequence[str] = (),
    untrained: Float[Tensor, "head query key"] | None = None,
    draws: int = 0,
    seed: int = 0,
) -> Look:
    """Measure heads of one support. Every null is measured over the scales of the head itself."""
    boxes = measure.coarse_grain(pattern)

    def over_boxes(of: measure.Boxes) -> Float[Tensor, "head quantity"]:
        fit = measure.generalized_dimensions(of, orders)
        relative = measure.relative_dimensions(of, support, orders).slope
        return torch.cat([fit.slope, relative, measure.level(fit), measure.self_similarity(of)[:, None]], -1)

    def everything(of: Float[Tensor, "head query key"]) -> Float[Tensor, "head quantity"]:
        return torch.cat([over_boxes(measure.coarse_grain(of, like=boxes)), _rows(of, support)], -1)

    found = {}
    for null in nulls:
        if null == "permuted":
            dealt = measure.surrogates(over_boxes, pattern, support, like=boxes, draws=draws, seed=seed)
            found[null] = torch.nn.functional.pad(dealt, (0, len(quantities(orders)) - dealt.shape[-1]), value=NAN)
        elif null == "untrained" and untrained is not None:
            found[null] = everything(untrained)[None]
        else:
            found[null] = everything(PATTERNS[null](pattern, support))[None]
    fit = measure.generalized_dimensions(boxes, orders)
    doubt = _doubt(boxes, measure.coarse_grain(measure.uniform(support).to(pattern), like=boxes), orders)
    return Look(everything(pattern), found, fit.log_size, fit.log_value, fit.r_squared, doubt, fit.reasons)


def _doubt(boxes: measure.Boxes, ignorant: measure.Boxes, orders: Sequence[float]) -> Float[Tensor, "head order 2"]:
    def slope(of: measure.Boxes) -> Float[Tensor, "head order"]:
        return measure.generalized_dimensions(of, orders).slope

    tried = torch.cat([measure.grid_shifts(slope, boxes, ignorant), measure.without_each_scale(slope, boxes)])
    known = ~tried.isnan()
    low, high = torch.where(known, tried, torch.inf).amin(0), torch.where(known, tried, -torch.inf).amax(0)
    return torch.stack([low, high], -1).masked_fill(~known.any(0)[..., None], NAN)


Layer: TypeAlias = tuple[Tensor, Tensor]
"""Pattern and support of one layer."""


def look_at_layers(layers: Sequence[Layer], untrained: Sequence[Layer] = (), **how: Any) -> Look:
    """`look` at layers of one text; neighbours of one support go through in one call. Its axes begin layer, head."""
    looks = []
    pairs = list(zip_longest(layers, untrained))
    for _, group in groupby(pairs, key=lambda pair: pair[0][1].numpy().tobytes()):
        same = list(group)
        fresh = torch.cat([other[0] for _, other in same]) if untrained else None
        looks.append(look(torch.cat([one[0] for one, _ in same]), same[0][0][1], untrained=fresh, **how))
    sizes = [len(pattern) for pattern, _ in layers]

    def parted(found: list[Tensor]) -> Tensor:
        return by_layer(list(torch.cat(found).split(sizes)))

    return Look(
        parted([one.values for one in looks]),
        {name: parted([one.nulls[name].transpose(0, 1) for one in looks]).movedim(2, 0) for name in looks[0].nulls},
        log_size=looks[0].log_size,
        points=parted([one.points for one in looks]),
        r_squared=parted([one.r_squared for one in looks]),
        doubt=parted([one.doubt for one in looks]),
        reasons=tuple(reason for one in looks for reason in one.reasons),
    )


def by_layer(layers: list[Float[Tensor, "_ *axes"]]) -> Float[Tensor, "layer head *axes"]:
    """Layers as one array; where one has fewer heads than another it ends in nan."""
    return pad_sequence(layers, batch_first=True, padding_value=NAN)


def told(values: Float[Tensor, " doc"], null: Float[Tensor, "draw doc"], *, unit: str, seed: int) -> Estimate:
    """`measure.estimate`, also of a single text, which has no interval; and of none at all, which has no value."""
    known = ~(values.isnan() | null.isnan().any(0))
    if int(known.sum()) >= 2:
        return measure.estimate(values, null if len(null) > 1 else null[0], unit=unit, seed=seed)
    if not known.any():
        return Estimate(NAN, NAN, NAN, NAN, NAN, unit, 0)
    value, drawn = values[known][0], null[:, known][:, 0]
    low, high = drawn.quantile(torch.tensor([0.025, 0.975])).tolist()
    p = float(measure.permutation_p(value, drawn)) if len(drawn) > 1 else NAN
    return Estimate(float(value), NAN, NAN, low, high, unit, 1, p)


def _rows(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head quantity"]:
    query, key = (torch.arange(size) for size in support.shape)
    lag = query[:, None] - key
    places = (lag == 0, lag == 1, lag == -1, (key == 0).expand_as(lag))
    distance = measure.mean_distance(pattern, support)
    choosing = distance[:, support.sum(-1) > 1]  # the first query of a causal text has one key
    found = [measure.entropy(pattern, support), distance]
    found += [measure.mass(pattern, support, at) for at in places]
    rough = [measure.lacunarity(pattern).slope, measure.detrended_fluctuation(choosing).slope.to(pattern.dtype)]
    return torch.stack([*rough, *(one.nanmean(-1) for one in found)], -1)
