"""Attention over lists of key blocks: rows with equally long lists are gathered and multiplied together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .bias import PreparedBias
from .patterns import Pattern
from .reach import reads, rows_of_keys
from .softmax import kept

TILE_SCORES = 1 << 19
"""Scores computed in one go on a CPU: two megabytes, so that they are still in cache when they are used."""

TILE_SCORES_ACCELERATOR = 1 << 26


class Bucket(NamedTuple):
    """Query blocks that read equally many key blocks, in ascending order.

    `open_cells` says, alike for all rows, which cells of the last columns may be read; None where that differs by row
    or all may. `by_rule` says that the pattern itself has the last word on each cell.
    """

    rows: Int[Tensor, " query"]
    table: Int[Tensor, "query key"]
    open_cells: Bool[Tensor, "size key"] | None
    by_rule: bool


class _Call(NamedTuple):
    pattern: Pattern
    causal: bool
    buckets: list[Bucket]
    size: int
    n_key: int
    first_row: int
    scale: float
    bias: PreparedBias | None
    key_mask: Tensor | None
    dropout: float
    seed: int


class _Tile(NamedTuple):
    rows: Tensor
    """Flat indices of the query blocks, [doc * head * row]."""
    reads: Tensor
    """Flat indices of the key blocks, [doc * kv head * row * key block], the kv head being that of the query head."""
    closed: Tensor | None
    queries: Tensor
    keys: Tensor
    seed: int


def block_attention(
    q: Float[Tensor, "doc head query d_head"],
    k: Float[Tensor, "doc kv_head key d_head"],
    v: Float[Tensor, "doc kv_head key d_value"],
    *,
    pattern: Pattern,
    scale: float,
    causal: bool = True,
    size: int | None = None,
    bias: PreparedBias | None = None,
    key_mask: Bool[Tensor, "doc key"] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[Float[Tensor, "doc head query d_value"], Float[Tensor, "doc head query"]]:
    """Output and log-sum-exp of queries, the last of the keys, that read the blocks a pattern touches.

    `size` defaults to the pattern's own block; another size computes the touched blocks and closes the cells the
    pattern does not read. Scores are computed again in the backward pass, so memory is that of q, k, v and the output.
    A query with nothing to read gives 0 and minus infinity.
    """
    size = size or pattern.block
    n_query, n_key = q.shape[2], k.shape[2]
    offset = n_key - n_query
    buckets = plan(pattern, n_key, first=offset, size=size, causal=causal, device=q.device)
    if n_key % size and not causal:  # a causal query never sees the padding behind the last key
        key_mask = k.new_ones(k.shape[0], n_key, dtype=torch.bool) if key_mask is None else key_mask
    call = _Call(pattern, causal, buckets, size, n_key, offset // size, scale, bias, key_mask, dropout, seed)
    lead, tail = offset % size, -n_key % size
    if lead or tail:
        q = nn.functional.pad(q, (0, 0, lead, tail))
        k, v = (nn.functional.pad(x, (0, 0, 0, tail)) for x in (k, v))
    output, lse = _BlockAttention.apply(q, k, v, call, *(() if bias is None else bias.tables))
    return output[:, :, lead : lead + n_query], lse[:, :, lead : lead + n_query]


@lru_cache(maxsize=64)
def plan(pattern: Pattern, n_key: int, *, first: int, size: int, causal: bool, device: torch.device) -> list[Bucket]:
    """Buckets for the query blocks from the one that holds query `first`, over n_key keys. Kept: treat as read-only."""
    first_row = first // size
    whole = pattern.coarse is not None and pattern.block == size
    if whole and pattern.coarse is not None:
        keys, lengths = rows_of_keys(pattern.coarse, -(-n_key // size), first=first_row, causal=causal)
    else:
        keys, lengths = _touched(pattern, n_key, first_row * size, size, causal)
    starts = lengths.cumsum(0) - lengths
    buckets = []
    for length in lengths.unique().tolist():
        local = (lengths == length).nonzero()[:, 0]
        rows, table = local + first_row, keys[starts[local, None] + torch.arange(length)]
        open_cells = _whole_cells(size, causal) if whole else _shared_cells(pattern, rows, table, size, causal)
        buckets.append(
            Bucket(rows.to(device), table.to(device), None if open_cells is None else open_cells.to(device), not whole)
        )
    return buckets


def _touched(pattern: Pattern, n_key: int, first: int, size: int, causal: bool) -> tuple[Tensor, Tensor]:
    """Key blocks, with counts, that each query block from position `first` on touches."""
    keys, counts = rows_of_keys(pattern, n_key, first=first, causal=causal)
    count = -(-n_key // size)
    rows = torch.repeat_interleave(torch.arange(first, n_key), counts) // size
    cells = (rows * count + keys // size).unique()  # sorted: by row, then by key block
    return cells % count, (cells // count).bincount(minlength=count)[first // size :]


def _whole_cells(size: int, causal: bool) -> Tensor | None:
    """Blocks are read whole, but for the query's own, which is the last of its list."""
    return torch.ones(size, size, dtype=torch.bool).tril() if causal else None


def _shared_cells(pattern: Pattern, rows: Tensor, table: Tensor, size: int, causal: bool) -> Tensor | None:
    """One mask for the whole bucket where the pattern depends on distance alone and every row looks alike."""
    steps = rows[:, None] - table
    if pattern.lag_set is None or not (steps == steps[:1]).all():
        return None
    return _cells(pattern, _places(rows[-1:], size), _places(table[-1:], size), causal)[0]


def _places(blocks: Tensor, size: int) -> Tensor:
    """Positions of the tokens in each row of blocks: [row, block] or [row] -> [row, token]."""
    within = torch.arange(size, device=blocks.device)
    return (blocks.reshape(len(blocks), -1, 1) * size + within).flatten(1)


def _cells(pattern: Pattern, queries: Tensor, keys: Tensor, causal: bool) -> Tensor:
    return reads(pattern, queries[..., None], keys[:, None], causal=causal)


def _tiles(q: Tensor, kv_heads: int, call: _Call) -> Iterator[_Tile]:
    """Stretches of the plan small enough to be computed in one go."""
    docs, heads, n_query = q.shape[:3]
    size = call.size
    query_blocks, key_blocks = n_query // size, -(-call.n_key // size)
    doc, head = torch.arange(docs, device=q.device)[:, None], torch.arange(heads, device=q.device)
    of_query = (doc * heads + head)[..., None] * query_blocks
    of_key = (doc * kv_heads + head * kv_heads // heads)[..., None, None] * key_blocks
    most = TILE_SCORES if q.device.type == "cpu" else TILE_SCORES_ACCELERATOR
    number = 0
    for bucket in call.buckets:
        height = max(1, most // (docs * heads * size * size * bucket.table.shape[1]))
        for rows, table in zip(bucket.rows.split(height), bucket.table.split(height), strict=True):
            queries, keys = _places(rows, size), _places(table, size)
            closed = None
            if bucket.open_cells is not None:
                closed = ~bucket.open_cells
            elif bucket.by_rule:
                closed = ~_cells(call.pattern, queries, keys, call.causal)
            yield _Tile(
                (of_query + rows - call.first_row).flatten(), (of_key + table).flatten(), closed,
                queries[..., None], keys[:, None], call.seed + number,
            )  # fmt: skip
            number += 1


def _scores(tile: _Tile, q: Tensor, k: Tensor, heads: int, call: _Call) -> Tensor:
    """Scores of one tile, [doc * head * row, query in block, key], minus infinity where nothing may be read."""
    scores = torch.bmm(q, k.mT)
    by_head = scores.unflatten(0, (-1, heads, len(tile.queries)))
    if call.bias is not None:
        by_head += call.bias.at(tile.queries, tile.keys)
    if tile.closed is not None:
        by_head[..., -tile.closed.shape[-1] :].masked_fill_(tile.closed, -torch.inf)
    if call.key_mask is not None:
        inside = tile.keys.clamp(max=call.n_key - 1)
        hidden = ~call.key_mask[:, inside] | (tile.keys >= call.n_key)  # [doc, row, 1, key]
        by_head.masked_fill_(hidden[:, None], -torch.inf)
    return scores


def _blocks(x: Tensor, size: int) -> Tensor:
    """[doc, head, position, d] as one flat list of blocks, [doc * head * block, size * d]."""
    return x.reshape(-1, size * x.shape[-1])


class _BlockAttention(torch.autograd.Function):
    """Saves q, k, v and the log-sum-exp; the tables of the bias come along as inputs so that they get gradients."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, call: _Call, *tables: Tensor) -> tuple[Tensor, Tensor]:
        heads, size = q.shape[1], call.size
        output = q.new_zeros(*q.shape[:-1], v.shape[-1])
        lse = q.new_full(q.shape[:-1], -torch.inf)
        flat_q, flat_k, flat_v = _blocks(q * call.scale, size), _blocks(k, size), _blocks(v, size)
        flat_output, flat_lse = output.view(-1, size, v.shape[-1]), lse.view(-1, size)
        for tile in _tiles(q, k.shape[1], call):
            mine = flat_q.index_select(0, tile.rows).view(len(tile.rows), size, -1)
            keys = flat_k.index_select(0, tile.reads).view(len(tile.rows), -1, k.shape[-1])
            values = flat_v.index_select(0, tile.reads).view(len(tile.rows), -1, v.shape[-1])
            scores = _scores(tile, mine, keys, heads, call)
            top = scores.amax(-1, keepdim=True)
            if call.key_mask is not None:
                top = top.masked_fill(top == -torch.inf, 0.0)  # a row with nothing to read: exp(-inf - 0) = 0
            share = scores.sub_(top).exp_()
            total = share.sum(-1)
            flat_lse[tile.rows] = top[..., 0] + total.log()
            if call.dropout:
                share *= kept(share, call.dropout, tile.seed)
            if call.key_mask is not None:
                total = total.masked_fill(total == 0, 1.0)
            flat_output[tile.rows] = torch.bmm(share, values) / total[..., None]
        ctx.save_for_backward(q, k, v, output, lse, *tables)
        ctx.call = call
        return output, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, output, lse, *tables = ctx.saved_tensors
        call: _Call = ctx.call
        heads, size = q.shape[1], call.size
        flat_q, flat_k, flat_v = _blocks(q * call.scale, size), _blocks(k, size), _blocks(v, size)
        upstream = _blocks(grad_output, size)
        # the softmax's own term: sum over keys of p dL/dp equals output . dL/doutput, dropout or not
        shift = ((grad_output * output).sum(-1) - grad_lse).view(-1, size, 1)
        flat_lse = lse.masked_fill(lse == -torch.inf, 0.0).view(-1, size, 1)
        grad_q, grad_k, grad_v = torch.zeros_like(flat_q), torch.zeros_like(flat_k), torch.zeros_like(flat_v)
        grad_tables: list[Tensor | None] = [None] * len(tables)
        for tile in _tiles(q, k.shape[1], call):
            count = len(tile.rows)
            mine, above = (flat.index_select(0, tile.rows).view(count, size, -1) for flat in (flat_q, upstream))
            keys = flat_k.index_select(0, tile.reads).view(count, -1, k.shape[-1])
            values = flat_v.index_select(0, tile.reads).view(count, -1, v.shape[-1])
            share = _scores(tile, mine, keys, heads, call).sub_(flat_lse[tile.rows]).exp_()
            grad_share = torch.bmm(above, values.mT)
            weight = share
            if call.dropout:
                mask = kept(share, call.dropout, tile.seed)
                weight, grad_share = share * mask, grad_share * mask
            grad_v.index_add_(0, tile.reads, torch.bmm(weight.mT, above).view(len(tile.reads), -1))
            grad_scores = grad_share.sub_(shift[tile.rows]).mul_(share)
            grad_q[tile.rows] = torch.bmm(grad_scores, keys).view(count, -1)
            grad_k.index_add_(0, tile.reads, torch.bmm(grad_scores.mT, mine).view(len(tile.reads), -1))
            if any(ctx.needs_input_grad[4:]):
                grad_bias = grad_scores.unflatten(0, (-1, heads, len(tile.queries))).sum(0)
                _accumulate(grad_tables, tables, tile, grad_bias, call)
        grad_q *= call.scale
        return grad_q.view_as(q), grad_k.view_as(k), grad_v.view_as(v), None, *grad_tables


def _accumulate(into: list[Tensor | None], tables: list[Tensor], tile: _Tile, grad_bias: Tensor, call: _Call) -> None:
    """Adds what this tile says about the tables of the bias, which is looked up again, as the scores were."""
    assert call.bias is not None
    leaves = tuple(table.detach().requires_grad_(table.is_floating_point()) for table in tables)
    with torch.enable_grad():
        added = call.bias.at(tile.queries, tile.keys, leaves)
    for index, grad in enumerate(torch.autograd.grad(added, leaves, grad_bias, allow_unused=True)):
        if grad is not None:
            known = into[index]
            into[index] = grad if known is None else known + grad
