"""What no structure looks like: patterns that keep one property of a head and randomise the rest.

The first null of every measure is ignorance, `support.uniform`. The two surrogates ask for less than ignorance does.
"""

import inspect
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.measure.support import uniform
from atlaskit.records import Score

ROUNDS = 3  # of `by_preference`, which says why neither one nor many


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

    A head whose scores depend on distance alone is nearly its own null, the ignorant one exactly (`by_preference`).
    """
    n_query, n_key = support.shape
    query, key = (torch.arange(n, device=pattern.device) for n in support.shape)
    return by_preference(pattern, support, query[:, None] - key + n_key - 1, n_query + n_key - 1)


def by_preference(
    pattern: Float[Tensor, "head query key"],
    support: Bool[Tensor, "query key"],
    kind: Int[Tensor, "query key"],
    n_kind: int,
) -> Float[Tensor, "head query key"]:
    """Every row replaced by the head's preference among `n_kind` kinds of cells, over the keys that the row may see.

    A cell's preference is its weight, over what its row would give a cell that is preferred by one; a kind's is the
    mean over its cells. What a row would give depends on the preferences in turn, hence rounds, from ignorance on. The
    ignorant head is unchanged by any. With three, heads whose scores depend on the kind alone change by a few
    thousandths in dimension; with many, and likewise if totals were fitted, the growing rows of a causal head would let
    a sink pass for a distance and a previous token for a favoured key.
    """
    weights = pattern.to(torch.promote_types(pattern.dtype, torch.float32))[:, support]
    kinds, row = kind[support], support.nonzero()[:, 0]
    cells = torch.bincount(kinds, minlength=n_kind).clamp_min(1)
    preferred = weights.new_ones(len(pattern), n_kind)
    for _ in range(ROUNDS):
        scale = weights.new_zeros(pattern.shape[:2]).index_add(1, row, preferred[:, kinds])
        total = weights.new_zeros(preferred.shape).index_add(1, kinds, weights * scale[:, row])
        preferred = total / cells
        preferred = preferred / preferred.amax(1, keepdim=True)
    rows = torch.where(support, preferred[:, kind], 0)
    return rows / rows.sum(-1, keepdim=True)
