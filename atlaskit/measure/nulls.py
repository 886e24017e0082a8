"""What no structure looks like: patterns that keep one property of a head and randomise the rest.

The first null of every measure is ignorance, `support.uniform`. The two surrogates ask for less than ignorance does.
"""

import inspect
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit.measure.support import uniform
from atlaskit.records import Score


def ignorant(score: Score) -> Score:
    """The same score of the ignorant head, to survey beside it: ``{"bits": entropy, "chance": ignorant(entropy)}``."""
    asked = inspect.signature(score).parameters

    def null(**tile: Any) -> Float[Tensor, "head query"]:
        known_nothing = uniform(tile["support"]).expand_as(tile["pattern"])
        return score(**{name: value for name, value in (tile | {"pattern": known_nothing}).items() if name in asked})

    # survey hands over what a score's parameters name, and ignorance needs these two whatever the score needs
    needs = dict.fromkeys(["pattern", "support", *asked])
    null.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [asked.get(name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)) for name in needs]
    )
    return null


def permuted_rows(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"], *, seed: int
) -> Float[Tensor, "head query key"]:
    """Each row's weights dealt out anew among the keys it may see: keeps sharpness, forgets places."""
    generator = torch.Generator(pattern.device).manual_seed(seed)
    noise = torch.rand(pattern.shape, generator=generator, device=pattern.device)
    # forbidden cells sort last in both orders, so that allowed weights land on allowed cells only
    source = noise.masked_fill(~support, 2.0).argsort(-1)
    target = support.expand_as(pattern).to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(pattern).scatter(-1, target, pattern.gather(-1, source))


def toeplitz(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query key"]:
    """Every row replaced by the head's preference among distances: keeps habits of position, forgets content.

    A distance's preference is its weight over what the ignorant head would give it, averaged over the cells at that
    distance; so the ignorant head is its own null, where a mean of plain weights would lean on the short first rows.
    Rows are scaled to sum to one over the keys they may see.
    """
    n_query, n_key = support.shape
    device = pattern.device
    lag = torch.arange(n_query, device=device)[:, None] - torch.arange(n_key, device=device) + n_key - 1
    cells = lag[support]  # lags of the allowed cells, shifted to start at zero
    size = n_query + n_key - 1
    count = torch.zeros(size, device=device).index_add(0, cells, torch.ones(len(cells), device=device))
    lift = (pattern.float() * support.sum(-1, keepdim=True))[:, support]
    total = torch.zeros(len(pattern), size, device=device).index_add(1, cells, lift)
    profile = torch.where(count > 0, total / count, 0.0)
    rows = torch.where(support, profile[:, lag], 0.0)
    return rows / rows.sum(-1, keepdim=True)
