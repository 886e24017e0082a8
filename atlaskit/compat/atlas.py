"""The measures of ATLAS (jpcpol, 2025) by their own definitions, each beside its null.

For comparing with published numbers only. Every call warns once, with the flaw and the measure that replaces it.
Written afresh from the published formulas.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.measure.dimension import gaussian_surrogate
from atlaskit.measure.geometry import principal_cosines
from atlaskit.measure.neighbours import neighbours
from atlaskit.measure.subspace_nulls import Chance, haar_cosines, over_pairs, random_gauge

from .flaws import FlawedQuantity

INFLATION = 1.344
"""1 / (1 − 0.1 ln 10 / 0.9): what dropping the largest tenth of exponential variables does to their rate."""

Definition = Literal["normalised", "tail", "theory", "code"]


@dataclass(frozen=True, eq=False)
class Legacy:
    """A number by an earlier tool's definition, and the same definition where there is nothing to find."""

    value: Float[Tensor, "*head"]
    null: Chance


def o_h(z: Float[Tensor, "head point d_head"], *, rank: int = 7, draws: int = 2000, seed: int = 0) -> Legacy:
    """O_h: mean principal cosine between the main subspaces of a layer's heads, each in its own coordinates.

    The null is that of random subspaces, for the mean over as many pairs. Pairs that share a KV head share
    coordinates and lie above it.
    """
    _warn(
        "O_h compares heads in coordinates that can be chosen freely: any value from 0 to 1 belongs to the same model "
        "(steering_gauge), and 0.28 at d_head 64 is chance; use measure.overlap of measure.write_axes"
    )
    upper = torch.ones(len(z), len(z), dtype=torch.bool, device=z.device).triu(1)
    cosines = haar_cosines(z.shape[-1], rank, draws=draws, seed=seed).mean(-1)
    null = over_pairs(Chance(cosines.mean(), cosines.std()), int(upper.sum()))
    return Legacy(principal_cosines(_own_axes(z)[..., :rank]).mean(-1)[upper].mean(), null)


def steering_gauge(
    z: Float[Tensor, "head point d_head"], *, shared: int, rank: int = 7
) -> Float[Tensor, "head d_head d_head"]:
    """The rotation of each head's coordinates that makes O_h equal to ``shared / rank`` and changes no output.

    The first `shared` main directions of every head move to the same axes, the others up to `rank` to axes of
    their own. Apply it with `measure.regauged`; heads that share a KV head cannot be turned apart.
    """
    n_head, _, d_head = z.shape
    own = rank - shared
    if not 0 <= shared <= rank <= d_head or shared + n_head * own > d_head:
        raise ValueError(
            f"{n_head} heads with {shared} shared and {own} own axes each need {shared + n_head * own} coordinates; "
            f"they have {d_head}. Share more of the {rank} axes or take fewer heads"
        )
    free = torch.arange(d_head - shared, device=z.device)
    turned = shared + (free + own * torch.arange(n_head, device=z.device)[:, None]) % len(free) if len(free) else free
    place = torch.cat([torch.arange(shared, device=z.device).expand(n_head, -1), turned.expand(n_head, -1)], -1)
    axes = _own_axes(z)
    return torch.zeros_like(axes).scatter_(-1, place[:, None].expand_as(axes), axes)


def residual(
    pattern: Float[Tensor, "head query key"],
    values: Float[Tensor, "head key d_head"],
    support: Bool[Tensor, "query key"],
    *,
    definition: Definition,
) -> Legacy:
    """What attention leaves beside its best key, by each of the four definitions in use there.

    With a the largest weight, V* its value and A the head's output: ``normalised`` (A − aV*) / (1 − a), nan at
    a = 1; ``tail`` A − aV*; ``theory`` the same, read as A = V* + residual, which it is not; ``code`` A − V*, what
    every published number used and partly −(1 − a)V*. The null spreads each row evenly over its support and keeps V*.
    """
    _warn(
        f"the residual has four definitions that disagree, and this is one ({definition}); use z itself, or "
        "the tail with the largest weight beside it: measure.max_weight"
    )
    best = pattern.argmax(-1)
    even = (support / support.sum(-1, keepdim=True)).to(pattern).expand_as(pattern)
    null = _residual(even, values, best, definition)
    return Legacy(_residual(pattern, values, best, definition), Chance(null, torch.zeros_like(null)))


def two_nn(cloud: Float[Tensor, "head point dim"], *, draws: int = 5, seed: int = 0) -> Legacy:
    """TwoNN with the largest tenth of ratios dropped and not accounted for: 1.344 times the dimension.

    The null is the same of Gaussian clouds with the heads' covariances. (Of equal points ATLAS dropped all, and this
    all but one.)
    """
    _warn(f"this TwoNN is {INFLATION} times too high and takes successive tokens for neighbours; use measure.two_nn")
    null = _repeat(lambda s: _inflated_two_nn(gaussian_surrogate(cloud, seed=s)), draws, seed)
    return Legacy(_inflated_two_nn(cloud), null)


def centred_pooled_dimension(
    cloud: Float[Tensor, "head point dim"], *, points: int = 2500, draws: int = 5, seed: int = 0
) -> Legacy:
    """`two_nn` of all heads' centred clouds thrown together, at most `points` of them at random.

    The null turns every head by a rotation of its own. It equals the value: nearest neighbours are of one head, aligned
    or not, and the dimension is that of single heads.
    """
    _warn(
        "the pooled dimension is that of single heads, whether or not they are aligned; use measure.two_nn for a head "
        "and measure.overlap for alignment"
    )
    centred = cloud - cloud.mean(1, keepdim=True)

    def pooled(of: Tensor) -> Tensor:
        everyone = of.flatten(0, 1)
        picks = torch.randperm(len(everyone), generator=torch.Generator().manual_seed(seed))[:points]
        return _inflated_two_nn(everyone[picks.to(of.device)][None])[0]

    n_head, _, dim = cloud.shape
    null = _repeat(lambda s: pooled(centred @ random_gauge(n_head, dim, seed=s).to(centred)), draws, seed)
    return Legacy(pooled(centred), null)


def _own_axes(z: Float[Tensor, "head point d_head"]) -> Float[Tensor, "head d_head rank"]:
    centred = z.double() - z.double().mean(1, keepdim=True)
    return torch.linalg.eigh(centred.mT @ centred).eigenvectors.flip(-1)


def _residual(
    pattern: Float[Tensor, "head query key"],
    values: Float[Tensor, "head key d_head"],
    best: Int[Tensor, "head query"],
    definition: Definition,
) -> Float[Tensor, "head query d_head"]:
    weight = pattern.gather(-1, best[..., None])
    star = values.gather(1, best[..., None].expand(-1, -1, values.shape[-1]))
    attended = pattern @ values
    if definition == "normalised":
        return (attended - weight * star) / (1 - weight)
    return attended - star if definition == "code" else attended - weight * star


def _inflated_two_nn(cloud: Float[Tensor, "head point dim"]) -> Float[Tensor, " head"]:
    first, second = neighbours(cloud, 2).distance.unbind(-1)
    ratio = (second / first).log().nan_to_num(nan=torch.inf).sort(-1).values
    kept = (0.9 * ratio.isfinite().sum(-1)).long()
    smallest = torch.arange(ratio.shape[-1], device=ratio.device) < kept[:, None]
    return kept / torch.where(smallest, ratio, 0).sum(-1)


def _repeat(measure: Callable[[int], Tensor], draws: int, seed: int) -> Chance:
    drawn = torch.stack([measure(seed + 1 + draw) for draw in range(draws)])
    return Chance(drawn.mean(0), drawn.std(0))


def _warn(flaw: str) -> None:
    warnings.warn(f"ATLAS: {flaw}", FlawedQuantity, stacklevel=3)
