"""Dense attention with a mask: the simplest kernel, and the fastest for very short texts. Time and memory n^2."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .bias import PreparedBias
from .patterns import Pattern
from .reach import reads
from .softmax import kept, normalise


def masked_attention(
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
    """Output of queries, the last of the keys, with every cell outside the pattern closed.

    A mask saves no time; it only says which cells count. A query with nothing to read gives 0.
    """
    n_query, n_key, heads = q.shape[2], k.shape[2], q.shape[1]
    cells = _cells(pattern, n_key, first=n_key - n_query, causal=causal, device=q.device)
    if key_mask is not None:
        cells = cells & key_mask[:, None, None]
    k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
    added = None
    if bias is not None:
        keys = torch.arange(n_key, device=q.device)
        added = bias.at(keys[n_key - n_query :, None], keys[None])[None].to(q.dtype)
    if dropout:
        scores = scale * q @ k.mT + (0.0 if added is None else added)
        weights = normalise(scores.masked_fill(~cells, -torch.inf))[0]
        return weights * kept(weights, dropout, seed) @ v
    if key_mask is None:  # each query reads at least itself
        mask = cells if added is None else added.masked_fill(~cells, -torch.inf)
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    empty = ~cells.any(-1, keepdim=True)
    cells = cells | empty  # a softmax over nothing is not a number, so read anything there and drop it
    mask = cells if added is None else added.masked_fill(~cells, -torch.inf)
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).masked_fill(empty, 0.0)


@lru_cache(maxsize=32)
def _cells(
    pattern: Pattern, n: int, *, first: int, causal: bool, device: torch.device
) -> Bool[Tensor, "1 1 query key"]:
    keys = torch.arange(n, device=device)
    return reads(pattern, keys[None, first:, None], keys[None, None], causal=causal)[None]
