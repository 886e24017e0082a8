"""Nulls for the box measures: surrogates dealt out box by box, and the head's habit of favouring certain keys."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .boxes import Boxes, box_of, pyramid
from .nulls import by_preference


def surrogates(
    measure: Callable[[Boxes], Float[Tensor, "head *order"]],
    pattern: Float[Tensor, "head query key"],
    support: Bool[Tensor, "query key"],
    *,
    like: Boxes,
    draws: int,
    seed: int,
) -> Float[Tensor, "draw head *order"]:
    """A measure of boxes on `draws` copies of the heads with each row's weights dealt out anew (`permuted_rows`).

    Within a draw all heads share one deal, so the dependence between heads is kept (Westfall & Young 1993), and only
    the boxes of the deal are ever formed. They take sizes and usability from `like`, the boxes of the heads themselves.
    To beat this null means only that places matter. They do in most untrained heads, too, if very little: whether a
    head has learned anything is a question for the same architecture with random weights.
    """
    if draws < 1:
        raise ValueError(f"{draws} draws make no null; 19 are the fewest that can give p = 0.05")
    return torch.stack([measure(boxes) for boxes in _dealt(pattern, support, like, draws, seed)])


def column_marginal(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head query key"]:
    """Every row replaced by the head's preference among keys: keeps sinks, forgets which query looked where.

    A head whose scores depend on the key alone is nearly its own null, the ignorant one exactly (`by_preference`).
    """
    n_key = support.shape[1]
    return by_preference(pattern, support, torch.arange(n_key, device=pattern.device).expand_as(support), n_key)


def key_preference(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"]
) -> Float[Tensor, "head key"]:
    """Weight of each key over what the ignorant head would give it, averaged over the queries that may see it.

    1 for every key of an ignorant head, at any place; 0 for a key that no query may see. A mean of columns, which is
    often called token importance, instead favours early tokens of a causal text, where there are fewer to choose from.
    """
    allowed = support.to(torch.promote_types(pattern.dtype, torch.float32))
    lift = pattern.to(allowed) * allowed * allowed.sum(-1, keepdim=True)
    seen_by = allowed.sum(0)
    return torch.where(seen_by > 0, lift.sum(1) / seen_by, 0)


def _dealt(
    pattern: Float[Tensor, "head query key"], support: Bool[Tensor, "query key"], like: Boxes, draws: int, seed: int
) -> Iterator[Boxes]:
    n_query, n_key = support.shape
    device, size = pattern.device, like.sizes[-1]
    if (pattern * ~support).any():
        raise ValueError(
            f"some weight lies outside this {tuple(support.shape)} support; rows can only be dealt out anew among the "
            "keys they may see. Pass the support that the pattern was made with."
        )
    weights = pattern if pattern.dtype == torch.float64 else pattern.float()
    # one row a cell, one column a head: summing the cells of a box then reads memory in order, for all heads at once
    cells = weights.flatten(1).T.contiguous()
    box = box_of(n_query, size, device)[:, None] * size + box_of(n_key, size, device)
    by_box = torch.where(support, box, size * size).flatten().argsort(stable=True)[: support.sum()]
    counts = torch.bincount(box[support], minlength=size * size)
    starts = counts.cumsum(0) - counts
    first = torch.arange(n_query, device=device)[:, None] * n_key
    target = support.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    generator = torch.Generator(device).manual_seed(seed)
    total = weights.sum((1, 2))[:, None, None]
    for _ in range(draws):
        noise = torch.rand(support.shape, generator=generator, device=device)
        # as in permuted_rows: forbidden cells sort last in both orders
        source = (noise.masked_fill(~support, 2.0).argsort(-1) + first).expand_as(target)
        deal = torch.empty_like(source).scatter(-1, target, source).flatten()[by_box]
        sums = torch.nn.functional.embedding_bag(deal, cells, starts, mode="sum")
        masses = sums.T.reshape(-1, size, size) / total
        yield Boxes(like.sizes, pyramid(masses, like.sizes), like.usable, like.reasons)
