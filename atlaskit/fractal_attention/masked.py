"""Dense attention with a mask: the simplest kernel, and the fastest for short texts. Time and memory n^2."""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

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
) -> tuple[Float[Tensor, "doc head query d_value"], Float[Tensor, "doc head query"]]:
    """Output and log-sum-exp of queries, the last of the keys, with every cell outside the pattern closed.

    A mask saves no time; it only says which cells count. A query with nothing to read gives 0 and minus infinity.
    """
    n_query, n_key, kv_heads = q.shape[2], k.shape[2], k.shape[1]
    keys = torch.arange(n_key, device=q.device)
    queries = keys[n_key - n_query :, None]
    allowed = reads(pattern, queries[None], keys[None, None], causal=causal)
    if key_mask is not None:
        allowed = allowed & key_mask[:, None]
    grouped = rearrange(q, "doc (kv group) query d -> doc kv group query d", kv=kv_heads)
    scores = scale * einsum(grouped, k, "doc kv group query d, doc kv key d -> doc kv group query key")
    if bias is not None:
        added = bias.at(queries, keys[None])
        scores = scores + rearrange(added, "(kv group) query key -> kv group query key", kv=kv_heads)
    weights, lse = normalise(scores.masked_fill(~allowed[:, None, None], -torch.inf))
    if dropout:
        weights = weights * kept(weights, dropout, seed)
    output = einsum(weights, v, "doc kv group query key, doc kv key d -> doc kv group query d")
    return output.flatten(1, 2), lse.flatten(1, 2)
