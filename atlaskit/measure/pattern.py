"""Row measures: one number per head and query, from a pattern and the cells its support allows.

A row is nan where the measure is undefined: with one key to choose from there is no choice to measure.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NAN = float("nan")
LN2 = math.log(2)


def entropy(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query"]:
    """Shannon entropy of each row, in bits; nan where the row has fewer than two keys to choose from."""
    weights = pattern.float()
    # 0 × log of the smallest number is 0, as it should be; this takes half the time of torch.special.entr
    nats = -(weights * weights.clamp_min(torch.finfo(torch.float32).tiny).log()).sum(-1)
    return torch.where(_has_choice(support), nats / LN2, NAN)


def effective_keys(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query"]:
    """Number of equally weighted keys with the row's entropy: 2 to the power of it (perplexity of the row)."""
    return torch.exp2(entropy(pattern, support))


def max_weight(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query"]:
    """Largest weight in each row; nan where the row has fewer than two keys to choose from."""
    return torch.where(_has_choice(support), pattern.float().amax(-1), NAN)


def concentration(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query"]:
    """Collision probability, the sum of squared weights; minus its log2 is the Rényi-2 entropy (Rényi 1961)."""
    return torch.where(_has_choice(support), pattern.float().square().sum(-1), NAN)


def mean_distance(
    pattern: Float[Tensor, "head query key"],
    support: Bool[Tensor, "query key"],
    queries: Int[Tensor, " query"] | None = None,
) -> Float[Tensor, "head query"]:
    """Expected distance between query and key, in tokens; `queries` are the rows' positions, 0, 1, … by default."""
    rows = torch.arange(support.shape[0], device=pattern.device) if queries is None else queries
    distance = (rows[:, None] - torch.arange(support.shape[1], device=pattern.device)).abs().float()
    return torch.where(_has_choice(support), (pattern.float() * distance).sum(-1), NAN)


def mass(
    pattern: Float[Tensor, "head query key"],
    support: Bool[Tensor, "query key"],
    selector: Bool[Tensor, "query key"],
) -> Float[Tensor, "head query"]:
    """Share of each row's attention that lands on `selector`; nan where no selected key is allowed, or all are.

    With the same answer for every pattern such rows would only dilute the mean. The chance level is this
    measure of `uniform(support)`.
    """
    reachable = selector & support
    asked = reachable.any(-1) & (reachable != support).any(-1)
    return torch.where(asked, (pattern.float() * reachable).sum(-1), NAN)


def divergence(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head other"]:
    """Jensen–Shannon divergence between all pairs of heads, in bits, averaged over rows with a choice (Lin 1991)."""
    rows = pattern.float()[:, _has_choice(support)]
    if rows.shape[1] == 0:
        raise ValueError(f"no row of this {tuple(support.shape)} support has a choice of keys; heads cannot differ")
    entropies = torch.special.entr(rows).sum(-1).mean(-1)
    # one head against all others at a time: all pairs at once would hold head × head × query × key numbers
    mixed = torch.stack([torch.special.entr((rows + one) / 2).sum(-1).mean(-1) for one in rows])
    return (mixed - (entropies + entropies[:, None]) / 2).clamp(min=0) / LN2


def _has_choice(support: Bool[Tensor, "query key"]) -> Bool[Tensor, " query"]:
    return support.sum(-1) >= 2
