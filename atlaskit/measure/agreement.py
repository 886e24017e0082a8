"""Whether two explanations agree, and orders to compare one with: random, but of the same kinds of words."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rank_correlation(one: Float[Tensor, " point"], other: Float[Tensor, " point"]) -> Float[Tensor, ""]:
    """Spearman's correlation, ties sharing their mean rank; nan where one side does not vary (Spearman 1904)."""
    ranks = torch.stack([mean_ranks(one), mean_ranks(other)])
    return ranks.corrcoef()[0, 1] if (ranks.std(-1) > 0).all() else torch.tensor(float("nan"))


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


def mean_ranks(values: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
    """Ranks from one, ties sharing their mean rank."""
    _, place, count = values.double().unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2)[place].double()
