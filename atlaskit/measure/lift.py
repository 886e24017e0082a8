"""Attention to chosen tokens against tokens like them: lift over ignorance, a matched null, corrections over heads."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.measure.estimate import DRAWS
from atlaskit.measure.support import uniform

NAN = float("nan")


def key_lift(pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]) -> Float[Tensor, "head key"]:
    """Attention that each key receives over what it would receive from the ignorant head; 1 everywhere for that head.

    Rows without a choice are left out of both; nan for a key that no other row may see.
    """
    choice = support.sum(-1) >= 2
    chance = uniform(support)[:, choice].sum(1)
    return torch.where(chance > 0, pattern.float()[:, choice].sum(1) / chance, NAN)


def matched(
    values: Float[Tensor, "point *head"],
    chosen: Bool[Tensor, " point"],
    *,
    strata: Int[Tensor, " point"],
    documents: Int[Tensor, " point"],
) -> tuple[Float[Tensor, "doc *head"], Float[Tensor, "doc *head"]]:
    """Per document the mean of its chosen points, and the mean of points like them that nobody chose.

    Points alike share a stratum, such as a word class and a place in the sentence. A chosen point without any
    counterpart takes part on neither side; a document without a chosen point that has one is nan.
    """
    n_stratum, n_doc = int(strata.max()) + 1, int(documents.max()) + 1
    known = ~values.isnan().reshape(len(values), -1).any(-1)
    others, some = ~chosen & known, chosen & known
    alike = _mean_by(values[others], strata[others], n_stratum)[strata]
    pairable = some & ~alike.isnan().reshape(len(values), -1).any(-1)
    return (
        _mean_by(values[pairable], documents[pairable], n_doc),
        _mean_by(alike[pairable], documents[pairable], n_doc),
    )


def familywise_p(values: Float[Tensor, "doc *head"], *, seed: int = 0) -> Float[Tensor, "*head"]:
    """Two-sided p-values that each head's mean is zero, corrected for all heads at once by the largest statistic.

    Signs of whole documents are flipped, so that what heads share stays; each draw's largest mean over root mean square
    is what any head must exceed (Westfall & Young 1993). nan for a head that is zero everywhere or nan anywhere.
    """
    flat = values.double().reshape(len(values), -1)
    scale = flat.square().mean(0).sqrt()
    tested = scale > 0  # False for nan, too
    unit = flat[:, tested] / scale[tested]
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (DRAWS, len(unit)), generator=generator).to(unit) * 2 - 1
    answer = torch.full_like(scale, NAN)
    if tested.any():
        largest = (signs @ unit / len(unit)).abs().amax(-1)
        observed = unit.mean(0).abs() * (1 - 1e-12)  # the sum in another order may differ in its last bit
        answer[tested] = (1 + (largest[:, None] >= observed).sum(0)).double() / (1 + DRAWS)
    return answer.reshape(values.shape[1:]).to(values)


def pareto_front(cost: Float[Tensor, "*head"], gain: Float[Tensor, "*head"]) -> Bool[Tensor, "*head"]:
    """Which heads no other head beats: none costs as little and gains as much, with one of the two strictly better.

    nan is never on the front.
    """
    c, g = cost.flatten(), gain.flatten()
    as_good = (c[:, None] <= c) & (g[:, None] >= g)
    better = as_good & ((c[:, None] < c) | (g[:, None] > g))
    return (~better.any(0) & ~(c.isnan() | g.isnan())).reshape(cost.shape)


def _mean_by(
    values: Float[Tensor, "point *head"], place: Int[Tensor, " point"], n: int
) -> Float[Tensor, "block *head"]:
    place = place.to(values.device)
    total = torch.zeros(n, *values.shape[1:], dtype=values.dtype, device=values.device).index_add(0, place, values)
    return total / torch.bincount(place, minlength=n).to(values).reshape(-1, *[1] * (values.ndim - 1))
