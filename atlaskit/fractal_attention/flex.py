"""FlexAttention over block patterns: compiled, for inference on a CPU and for training on a GPU.

Two traps are guarded here. On a CPU it has no backward pass. And a compiled call that failed once falls back, in
later calls, to a dense one in silence.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .patterns import Pattern
from .reach import blocks


def flex_block_attention(
    q: Float[Tensor, "doc head query d_head"],
    k: Float[Tensor, "doc kv_head query d_head"],
    v: Float[Tensor, "doc kv_head query d_value"],
    *,
    pattern: Pattern,
    scale: float,
    causal: bool = True,
    compiled: bool = True,
) -> Float[Tensor, "doc head query d_value"]:
    """Output of queries that read whole blocks. Compilation takes tens of seconds for each new shape.

    Raises where a gradient is wanted on a CPU, and for float64 when compiled. Not compiled it computes every score.
    """
    if pattern.coarse is None:
        raise ValueError(f"flex reads whole blocks; {pattern.name} is not made of blocks. Use patterns.blocked(...).")
    wants_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if q.device.type == "cpu" and wants_grad:
        raise RuntimeError(
            "FlexAttention has no backward pass on a CPU, and this call wants gradients. "
            "Use kernel='block', or torch.no_grad() where none are needed."
        )
    if compiled and q.dtype == torch.float64:
        raise TypeError("compiled FlexAttention does not take float64; use float32, or compiled=False for checks")
    n, tail = q.shape[2], -q.shape[2] % pattern.block
    if tail:
        q, k, v = (nn.functional.pad(x, (0, 0, 0, tail)) for x in (q, k, v))
    mask = block_mask(pattern, n, causal=causal, device=q.device)
    settings: dict[str, Any] = {"block_mask": mask, "scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
    if compiled:
        return _run_compiled(q, k, v, **settings)[:, :, :n]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")  # asked for
        return flex_attention(q, k, v, **settings)[:, :, :n]


@lru_cache(maxsize=16)
def block_mask(pattern: Pattern, n: int, *, causal: bool, device: torch.device) -> BlockMask:
    """The pattern's blocks as FlexAttention wants them: those read whole, and those whose cells need a look.

    Built from lists of blocks; building it from cells takes seconds and gigabytes at 16,384 tokens.
    """
    touched = blocks(pattern, n, size=pattern.block, causal=causal)
    partial = torch.zeros_like(touched)
    if causal:
        partial.fill_diagonal_(True)
    elif n % pattern.block:
        partial[:, -1] = touched[:, -1]

    read, size = touched.to(device), pattern.block
    partial_counts, partial_lists = _block_lists(partial.to(device))
    whole_counts, whole_lists = _block_lists((touched & ~partial).to(device))
    return BlockMask.from_kv_blocks(
        partial_counts,
        partial_lists,
        whole_counts,
        whole_lists,
        BLOCK_SIZE=pattern.block,
        # Complete by itself, since the uncompiled form looks at no list of blocks. A lambda, because the compiler
        # cannot trace through a function that checks its annotations.
        mask_mod=lambda doc, head, query, key: read[query // size, key // size] & (key <= query if causal else key < n),
    )


def _block_lists(cells: Bool[Tensor, "query key"]) -> tuple[Int[Tensor, "1 1 query"], Int[Tensor, "1 1 query key"]]:
    """How many blocks each row reads, and all blocks of the row with those first."""
    order = cells.int().argsort(dim=1, descending=True, stable=True)
    return cells.sum(1).int()[None, None], order.int()[None, None].contiguous()


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def _run_compiled(*inputs: Tensor, **settings: Any) -> Tensor:
    try:
        return _compiled()(*inputs, **settings)
    except Exception:
        # What failed once would run dense, uncompiled and unannounced, from now on: forget it.
        _compiled.cache_clear()
        torch._dynamo.reset()
        raise
