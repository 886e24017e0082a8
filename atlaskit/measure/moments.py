"""Row measures from moments: the same numbers as from the pattern, in memory that grows with the length alone.

A survey whose scores all come from here forms no pattern. A row is nan where it has fewer than two keys to choose from.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.records import Score, Tokens

from .pattern import LN2, NAN
from .selectors import Selector


def entropy(
    log_normalizer: Float[Tensor, "head query"], mean_score: Float[Tensor, "head query"], choices: Int[Tensor, " query"]
) -> Float[Tensor, "head query"]:
    """Shannon entropy of each row, in bits: the logarithm of its normalizer less its mean score."""
    return torch.where(choices >= 2, (log_normalizer - mean_score) / LN2, NAN)


def effective_keys(
    log_normalizer: Float[Tensor, "head query"], mean_score: Float[Tensor, "head query"], choices: Int[Tensor, " query"]
) -> Float[Tensor, "head query"]:
    """Number of equally weighted keys with the row's entropy."""
    return torch.exp2(entropy(log_normalizer, mean_score, choices))


def concentration(
    log_normalizer: Float[Tensor, "head query"],
    log_normalizer_doubled: Float[Tensor, "head query"],
    choices: Int[Tensor, " query"],
) -> Float[Tensor, "head query"]:
    """Sum of squared weights: the normalizer of the doubled scores over the square of the other (Rényi 1961)."""
    return torch.where(choices >= 2, (log_normalizer_doubled - 2 * log_normalizer).exp(), NAN)


def mean_lag(
    mean: Callable[[Float[Tensor, "key size"]], Float[Tensor, "head query size"]],
    choices: Int[Tensor, " query"],
    queries: Int[Tensor, " query"],
    tokens: Tokens,
) -> Float[Tensor, "head query"]:
    """Expected number of tokens by which a row looks back; of a causal head this is its mean distance."""
    place = torch.arange(len(tokens), dtype=torch.float32, device=tokens.ids.device)[:, None]
    return torch.where(choices >= 2, queries - mean(place)[..., 0], NAN)


def mass_on(selector: Selector) -> Score:
    """The score that surveys the mass on keys which are the same for every query: `first_token`, `special`, `keys(…)`.

    Raises ValueError for a selector that names other keys for the first query of a text than for the last.
    """

    def score(
        mean: Callable[[Float[Tensor, "key size"]], Float[Tensor, "head query size"]],
        choices: Int[Tensor, " query"],
        count: Callable[[Bool[Tensor, " key"]], Int[Tensor, " query"]],
        tokens: Tokens,
    ) -> Float[Tensor, "head query"]:
        first, last = selector(tokens, torch.tensor([0, len(tokens) - 1], device=tokens.ids.device))
        if not torch.equal(first, last):
            raise ValueError(
                "this selector depends on the query, which needs the pattern: use measure.mass_on(selector)"
            )
        reachable = count(last)
        asked = (reachable > 0) & (reachable < choices)
        return torch.where(asked, mean(last.float()[:, None])[..., 0], NAN)

    return score
