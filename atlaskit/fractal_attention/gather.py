"""Attention over a table of keys per query: for few queries, as in decoding. Memory n_query k d."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .bias import PreparedBias
from .patterns import Pattern
from .reach import rows_of_keys
from .softmax import kept, normalise


def gather_attention(
    q: Float[Tensor, "doc head query d_head"],
    k: Float[Tensor, "doc kv_head key d_head"],
    v: Float[Tensor, "doc kv_head key d_value"],
    *,
    pattern: Pattern,
    scale: float,
    causal: bool = True,
    bias: PreparedBias | None = None,
    key_mask: Bool[Tensor, "doc key"] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> Float[Tensor, "doc head query d_value"]:
    """Output of queries, the last of the keys, that read exactly the keys of the pattern.

    A decoded token costs as many keys as the pattern has; log2 n for `log_lags`. A query with nothing to read gives 0.
    """
    docs, heads, n_query = q.shape[:3]
    n_key = k.shape[2]
    table, cells, runs = _table(pattern, n_key, first=n_key - n_query, causal=causal, device=q.device)

    # each query becomes a document of its own, whose keys are those it reads: [doc * query, head, 1 or slot, d]
    own = q.movedim(2, 1).reshape(docs * n_query, heads, 1, -1)
    near_k, near_v = (_read(x, table, runs) for x in (k, v))
    if key_mask is not None:
        inside = key_mask[:, table]
        cells = inside if cells is None else cells & inside
    empty = None
    if cells is not None:
        cells = cells.expand(docs, *table.shape).flatten(0, 1)[:, None, None]
        empty = None if key_mask is None else ~cells.any(-1, keepdim=True)
    added = None
    if bias is not None:
        queries = torch.arange(n_key - n_query, n_key, device=q.device)[:, None]
        by_query = bias.at(queries, table).movedim(1, 0).to(q.dtype)
        added = by_query.expand(docs, n_query, heads, -1).flatten(0, 1)[:, :, None]
    if dropout:
        near_k, near_v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (near_k, near_v))
        scores = scale * own @ near_k.mT + (0.0 if added is None else added)
        weights = normalise(scores if cells is None else scores.masked_fill(~cells, -torch.inf))[0]
        output = weights * kept(weights, dropout, seed) @ near_v
    else:
        if cells is not None and empty is not None:
            cells = cells | empty  # a softmax over nothing is not a number, so read anything there and drop it
        mask = cells if added is None or cells is None else added.masked_fill(~cells, -torch.inf)
        output = nn.functional.scaled_dot_product_attention(
            own, near_k, near_v, attn_mask=added if mask is None else mask, scale=scale, enable_gqa=heads != k.shape[1]
        )
        output = output if empty is None else output.masked_fill(empty, 0.0)
    return output.view(docs, n_query, heads, -1).movedim(1, 2)


def _read(
    x: Tensor, table: Int[Tensor, "query size"], runs: Int[Tensor, " block"] | None
) -> Float[Tensor, "batch kv_head size _"]:
    """The rows of x that the table names, [doc * query, kv head, slot, d]; whole runs of them where they are known."""
    docs, kv_heads, n, d = x.shape
    _, by_head, by_row, by_number = x.stride()
    wants_grad = torch.is_grad_enabled() and x.requires_grad
    if wants_grad or docs > 1 or by_number != 1 or by_row < d or by_head % by_row:
        picked = x.index_select(2, table.flatten()).unflatten(2, table.shape)
        return picked.movedim(2, 1).flatten(0, 1)
    # as rows of one long list they are copied whole, which is three times as fast; a run of them is one longer row
    # that begins at any of them, which is again six times as fast
    together = 1 if runs is None or by_row != d else table.shape[1] // len(runs)
    heads = torch.arange(kv_heads, device=x.device)[:, None] * (by_head // by_row)
    rows = x.as_strided((int(heads[-1]) + n - together + 1, together * d), (by_row, 1))
    first = table if runs is None or together == 1 else runs[None]
    return nn.functional.embedding(first[:, None] + heads, rows).view(len(table), kv_heads, -1, d)


@lru_cache(maxsize=64)
def _table(
    pattern: Pattern, n: int, *, first: int, causal: bool, device: torch.device
) -> tuple[Int[Tensor, "query size"], Bool[Tensor, "query size"] | None, Int[Tensor, " block"] | None]:
    """The keys of queries first ... n-1, which of them are not filling (None where all are), and where runs begin.

    All layers share it. A single query that reads whole blocks reads them in runs of a block's length; the last run
    is moved back until it ends with the text, and what it then reads too early counts as filling.
    """
    keys, counts = rows_of_keys(pattern, n, first=first, causal=causal)
    if pattern.coarse is not None and causal and first == n - 1 and pattern.block <= n:
        runs = keys[:: pattern.block].clone()  # blocks are whole, but for the last
        own, runs[-1] = int(runs[-1]), n - pattern.block
        read = (runs[:, None] + torch.arange(pattern.block)).view(1, -1)
        within = torch.ones_like(read, dtype=torch.bool)
        within[:, -pattern.block :] = read[:, -pattern.block :] >= own
        return read.to(device), None if bool(within.all()) else within.to(device), runs.to(device)
    real = torch.arange(int(counts.max())) < counts[:, None]
    if bool(real.all()):
        return keys.view(real.shape).to(device), None, None
    table = torch.zeros(real.shape, dtype=torch.long)
    table[real] = keys
    return table.to(device), real.to(device), None
