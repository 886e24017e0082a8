"""Whether two explanations agree, and orders to compare one with: random, but of the same kinds of words."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlaskit.measure.estimate import DRAWS, permutation_p
from atlaskit.records import Estimate


def rank_correlation(one: Float[Tensor, " point"], other: Float[Tensor, " point"]) -> Float[Tensor, ""]:
    """Spearman's correlation, ties sharing their mean rank; nan where one side does not vary (Spearman 1904)."""
    return _correlation(mean_ranks(one), mean_ranks(other))


def rank_agreement(
    score: Float[Tensor, "doc layer head"],
    effect: Float[Tensor, "other layer head"],
    *,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Rank correlation over heads of what they look like and what they do, each a mean over the same documents.

    The interval leaves out one document at a time (Tukey's jackknife): drawing documents anew would add noise to both
    sides, which pulls every correlation towards zero, and the interval would miss the value it is for. The null deals
    the effects out anew among heads. Heads that are undefined on either side throughout are left out; a score that does
    not vary is nan, and fewer than 3 documents or heads raise ValueError.
    """
    if score.shape != effect.shape:
        raise ValueError(f"scores {list(score.shape)} and effects {list(effect.shape)} must be of the same documents")
    sides = [one.double().cpu().flatten(1) for one in (score, effect)]
    known = ~torch.stack([one.isnan().all(0) for one in sides]).any(0)
    n, n_head = len(score), int(known.sum())
    if n < 3 or n_head < 3:
        raise ValueError(f"{n} documents and {n_head} heads with both numbers: a rank correlation needs 3 of each")
    sides = [one[:, known] for one in sides]
    kept = ~torch.eye(n, dtype=torch.bool)
    without = [torch.stack([one[some].nanmean(0) for some in kept]) for one in sides]
    looks, does = (mean_ranks(one.nanmean(0)) for one in sides)
    value, apart = _correlation(looks, does), _correlation(*map(mean_ranks, without))
    generator = torch.Generator().manual_seed(seed)
    dealt = torch.rand(DRAWS, n_head, generator=generator).argsort(-1)
    null = _correlation(looks.expand(DRAWS, -1), does[dealt])
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = jackknife(value, apart, tails).tolist()
    null_low, null_high = null.quantile(tails).tolist()
    p = float("nan") if value.isnan() else float(permutation_p(value, null))
    return Estimate(float(value), low, high, null_low, null_high, "rank correlation", n, p)


def like_orders(
    order: Int[Tensor, " point"], classes: Int[Tensor, " point"], *, draws: int, seed: int
) -> Int[Tensor, "draw point"]:
    """Random orders whose first k tokens have the same classes as the first k of `order`, for every k.

    `classes` are those of the tokens in `order`. Tokens of one class change places among themselves: what an
    explanation gains over these it does not gain by naming, say, nouns before articles.
    """
    generator = torch.Generator().manual_seed(seed)
    found = order.repeat(draws, 1)
    for kind in classes.unique():
        places = (classes == kind).nonzero()[:, 0]
        deal = torch.rand(draws, len(places), generator=generator).argsort(-1)
        found[:, places] = order[places][deal]
    return found


def mean_ranks(values: Float[Tensor, "*draw point"]) -> Float[Tensor, "*draw point"]:
    """Ranks from one along the last axis, ties sharing their mean rank."""
    values = values.double().contiguous()
    ordered = values.sort(-1).values
    return (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True) + 1).double() / 2


def _correlation(one: Float[Tensor, "*draw point"], other: Float[Tensor, "*draw point"]) -> Float[Tensor, "*draw"]:
    one, other = (side - side.mean(-1, keepdim=True) for side in (one, other))
    spread = (one.square().sum(-1) * other.square().sum(-1)).sqrt()
    return torch.where(spread > 0, (one * other).sum(-1) / spread, float("nan"))


def jackknife(
    value: Float[Tensor, ""], without: Float[Tensor, " doc"], tails: Float[Tensor, " point"]
) -> Float[Tensor, " point"]:
    """Bounds of a correlation, from what it is without each document in turn (Tukey 1958)."""
    n = len(without)
    error = ((n - 1) * without.var(correction=0)).sqrt()
    normal = torch.special.ndtri(tails)
    student = normal + (normal**3 + normal) / (4 * (n - 1))  # to the first order in 1 / freedom (Peiser 1943)
    return (value + error * student).clamp(-1, 1)
