"""Attention over a table of keys per query: for few queries, as in decoding. Memory n_query k d."""

from __future__ import annotations

from functools import lru_cache

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
) -> tuple[Float[Tensor, "doc head query d_value"], Float[Tensor, "doc head query"]]:
    """Output and log-sum-exp of queries, the last of the keys, that read exactly the keys of the pattern.

    A decoded token costs as many keys as the pattern has; log2 n for `log_lags`. A query with nothing to read gives
    0 and minus infinity.
    """
    n_query, n_key, kv_heads = q.shape[2], k.shape[2], k.shape[1]
    table, real = _table(pattern, n_key, first=n_key - n_query, causal=causal, device=q.device)

    near_k, near_v = (x.index_select(2, table.flatten()).unflatten(2, table.shape) for x in (k, v))
    grouped = rearrange(q, "doc (kv group) query d -> doc kv group query d", kv=kv_heads)
    scores = scale * einsum(grouped, near_k, "doc kv group query d, doc kv query slot d -> doc kv group query slot")
    if bias is not None:
        queries = torch.arange(n_key - n_query, n_key, device=q.device)[:, None]
        scores = scores + rearrange(
            bias.at(queries, table), "(kv group) query slot -> kv group query slot", kv=kv_heads
        )
    if key_mask is not None:
        inside = key_mask[:, table][:, None, None]
        real = inside if real is None else real & inside
    weights, lse = normalise(scores if real is None else scores.masked_fill(~real, -torch.inf))
    if dropout:
        weights = weights * kept(weights, dropout, seed)
    output = einsum(weights, near_v, "doc kv group query slot, doc kv query slot d -> doc kv group query d")
    return output.flatten(1, 2), lse.flatten(1, 2)


@lru_cache(maxsize=64)
def _table(
    pattern: Pattern, n: int, *, first: int, causal: bool, device: torch.device
) -> tuple[Int[Tensor, "query size"], Bool[Tensor, "query size"] | None]:
    """The keys of queries first ... n-1, and which of them are not filling; None where all are. All layers share it."""
    keys, counts = rows_of_keys(pattern, n, first=first, causal=causal)
    real = torch.arange(int(counts.max())) < counts[:, None]
    if bool(real.all()):
        return keys.view(real.shape).to(device), None
    table = torch.zeros(real.shape, dtype=torch.long)
    table[real] = keys
    return table.to(device), real.to(device)
