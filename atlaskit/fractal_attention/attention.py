"""One call for every pattern: chooses the kernel, deals patterns out to heads, and keeps padding from mattering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .bias import PatternBias, PreparedBias
from .block import block_attention
from .flex import flex_block_attention
from .gather import gather_attention
from .lag import lag_attention
from .masked import masked_attention
from .patterns import Pattern, dense, sliding
from .reach import lags
from .softmax import merge

Kernel: TypeAlias = Literal["auto", "masked", "lag", "hybrid", "block", "gather", "flex"]
Part: TypeAlias = tuple[Tensor, Tensor]

FEW_QUERIES = 4
"""Up to so many queries read a gathered table: decoding."""

MASKED_KEYS_PER_LAG = 8
"""One shifted lag costs about as much as this many keys of a masked dense row (measured, two cores of a CPU)."""

BAND_LAGS = 30
"""A band of w near distances, by blocks, costs about as much as this many lags and w/4 more (measured likewise)."""

MASKED_LONGEST = 4096
"""Longest text for which n^2 scores are held: 64 MiB a head and document in float32."""

CELL_BLOCK = 16
"""Block in which a token-level pattern that is no set of distances is computed."""


def attend(
    q: Float[Tensor, "doc head query d_head"],
    k: Float[Tensor, "doc kv_head key d_head"],
    v: Float[Tensor, "doc kv_head key d_value"],
    *,
    patterns: Pattern | Sequence[Pattern],
    causal: bool = True,
    scale: float | None = None,
    bias: PatternBias | PreparedBias | None = None,
    key_mask: Bool[Tensor, "doc key"] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    kernel: Kernel = "auto",
) -> Float[Tensor, "doc head query d_value"]:
    """Attention of queries, the last of the keys, over the keys of their patterns: one for all heads or one a head.

    Fewer key heads than heads are shared (GQA). `key_mask` says which keys are real; positions count from a
    document's first real key, so left padding changes nothing. A query with nothing to read gives 0. Half precision
    is computed in float32. Time and memory depend on the pattern and are those of its kernel; see `choose`.
    """
    heads = [patterns] * q.shape[1] if isinstance(patterns, Pattern) else list(patterns)
    _refuse_impossible(q, k, heads, causal)
    if kernel not in get_args(Kernel):
        raise ValueError(f"no kernel is called {kernel!r}; known are {', '.join(get_args(Kernel))}")
    if q.dtype in (torch.float16, torch.bfloat16):
        whole = partial(attend, patterns=patterns, causal=causal, scale=scale, bias=bias, key_mask=key_mask)
        return whole(q.float(), k.float(), v.float(), dropout=dropout, seed=seed, kernel=kernel).to(q.dtype)
    prepared = bias.prepared() if isinstance(bias, PatternBias) else bias
    run: Callable[..., Tensor] = partial(
        _heads, heads=heads, causal=causal, scale=q.shape[-1] ** -0.5 if scale is None else scale,
        bias=prepared, dropout=dropout, seed=seed, kernel=kernel,
    )  # fmt: skip
    if key_mask is None or bool(key_mask.all()):
        return run(q, k, v, key_mask=None)
    by_place = any(pattern.lag_set is None for pattern in heads) or not (prepared is None or prepared.of_distance)
    first_real = key_mask.int().argmax(1)
    if by_place and bool((first_real > 0).any()):
        return _from_first_real(q, k, v, key_mask, first_real, run)
    return run(q, k, v, key_mask=key_mask)


def choose(pattern: Pattern, *, n_query: int, n_key: int, causal: bool = True) -> Kernel:
    """The kernel for a pattern at a size, by what was cheapest on a CPU.

    masked: very short texts, and sets so large that nothing is gained; n^2. lag: few distances; n |lags|. hybrid: a
    band of near distances by blocks, the others by lags, one softmax over both. block: whole blocks, or small
    ones with the other cells closed; n times keys. gather: few queries; the pattern's keys a token. Never flex.
    """
    if n_query < n_key and n_query <= FEW_QUERIES:
        return "gather"
    if pattern.coarse is not None:
        return "block" if n_key > 2 * pattern.block else "masked"
    if pattern.lag_set is None:
        return "block" if n_key > 4 * CELL_BLOCK else "masked"
    near, far = _band(pattern, n_key, causal)
    by_lags, by_band = near + len(far), BAND_LAGS + near // 4 + len(far)
    if min(by_lags, by_band) * MASKED_KEYS_PER_LAG <= n_key:
        return "hybrid" if near and by_band < by_lags else "lag"
    return "masked" if n_key <= MASKED_LONGEST else "block"


def _refuse_impossible(q: Tensor, k: Tensor, heads: list[Pattern], causal: bool) -> None:
    n_query, n_key = q.shape[2], k.shape[2]
    if n_query > n_key:
        raise ValueError(
            f"{n_query} queries but {n_key} keys: queries are the last of the keys. Pass every key so far."
        )
    if not causal and n_query != n_key:
        raise ValueError(
            f"{n_query} queries and {n_key} keys without causality: a text read in both directions has no cache. "
            "Attention across two texts has no distances; keep it dense."
        )
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} heads cannot share {k.shape[1]} key heads evenly")
    if not all(isinstance(pattern, Pattern) for pattern in heads):
        raise TypeError("patterns are Pattern objects; from_spec makes one of a name or a mapping")
    if len(heads) != q.shape[1]:
        raise ValueError(f"{len(heads)} patterns for {q.shape[1]} heads; give one for all or one for each")


def _from_first_real(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, first_real: Int[Tensor, " doc"], run: Callable[..., Tensor]
) -> Tensor:
    """Documents that begin at the same place are computed together, from there on: position 0 is the first real key."""
    offset = k.shape[2] - q.shape[2]
    output = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
    pieces = []
    for start in first_real.unique().tolist():
        docs = (first_real == start).nonzero()[:, 0]
        skipped = max(start - offset, 0)  # queries that are padding themselves
        mask = key_mask[docs, start:]
        piece = run(
            q[docs, :, skipped:], k[docs, :, start:], v[docs, :, start:], key_mask=None if bool(mask.all()) else mask
        )
        pieces.append((docs, nn.functional.pad(piece, (0, 0, skipped, 0))))
    return output.index_add(0, torch.cat([docs for docs, _ in pieces]), torch.cat([piece for _, piece in pieces]))


def _heads(
    q: Tensor, k: Tensor, v: Tensor, *, heads: list[Pattern], bias: PreparedBias | None, seed: int, **settings: Any
) -> Tensor:
    """Heads of equal pattern are computed together."""
    if all(pattern == heads[0] for pattern in heads):
        return _one_pattern(q, k, v, pattern=heads[0], bias=bias, seed=seed, **settings)
    outputs, order = [], []
    kv_of_head = torch.arange(q.shape[1], device=q.device) * k.shape[1] // q.shape[1]
    for number, pattern in enumerate(dict.fromkeys(heads)):
        mine = [head for head, other in enumerate(heads) if other == pattern]
        index = torch.tensor(mine, device=q.device)
        shared = kv_of_head[index]
        outputs.append(
            _one_pattern(
                q[:, index], k[:, shared], v[:, shared], pattern=pattern, seed=seed + number,
                bias=None if bias is None else bias._replace(heads=index), **settings,
            )
        )  # fmt: skip
        order += mine
    return torch.cat(outputs, 1)[:, torch.tensor(order, device=q.device).argsort()]


def _one_pattern(
    q: Tensor, k: Tensor, v: Tensor, *, pattern: Pattern, kernel: Kernel, causal: bool, scale: float,
    bias: PreparedBias | None, key_mask: Tensor | None, dropout: float, seed: int,
) -> Tensor:  # fmt: skip
    n_query, n_key = q.shape[2], k.shape[2]
    plain = bias is None and key_mask is None and n_query == n_key
    if kernel == "auto" and pattern == dense() and plain:
        return nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, dropout_p=dropout, enable_gqa=q.shape[1] != k.shape[1]
        )
    if kernel == "auto":
        kernel = choose(pattern, n_query=n_query, n_key=n_key, causal=causal)
    if kernel == "flex":
        if not plain or dropout:
            raise ValueError("the flex kernel takes neither bias, padding, dropout nor a cache; use kernel='block'")
        return flex_block_attention(q, k, v, pattern=pattern, scale=scale, causal=causal)
    shared: dict[str, Any] = {"scale": scale, "key_mask": key_mask, "dropout": dropout}
    whole: dict[str, Any] = {"pattern": pattern, "causal": causal, "bias": bias, "seed": seed, **shared}
    if kernel == "masked":
        return masked_attention(q, k, v, **whole)
    if kernel == "gather":
        return gather_attention(q, k, v, **whole)
    if kernel == "block":
        size = pattern.block if pattern.coarse is not None else CELL_BLOCK if pattern.lag_set is None else 64
        return block_attention(q, k, v, size=size, **whole)[0]
    near, far = _band(pattern, n_key, causal) if kernel == "hybrid" else (0, lags(pattern, n_key, causal=causal))
    parts = []
    if near:
        # with blocks up to 64, two blocks a row hold the band; larger blocks waste more than a third one costs
        size = min(64, max(CELL_BLOCK, 1 << (near - 2).bit_length()))
        parts.append(block_attention(q, k, v, size=size, **whole | {"pattern": sliding(near)}))
    if len(far):
        added = None if bias is None else _bias_of_lags(bias, far.to(q.device), n_query, n_key)
        parts.append(lag_attention(q, k, v, lags=tuple(far.tolist()), bias=added, seed=seed + 1, **shared))
    return parts[0][0] if len(parts) == 1 else merge(parts)


def _band(pattern: Pattern, n: int, causal: bool) -> tuple[int, Int[Tensor, " step"]]:
    """How many distances from 0 up follow without a gap, if at least 16, and the distances beyond them."""
    every = lags(pattern, n, causal=causal)
    ahead = lags(pattern, n)
    near = int((ahead == torch.arange(len(ahead))).cumprod(0).sum())
    if near < CELL_BLOCK:
        return 0, every
    return near, every[every.abs() >= near]


def _bias_of_lags(bias: PreparedBias, lag: Tensor, n_query: int, n_key: int) -> Tensor:
    """[head, lag, query], or [head, lag, 1] where distance alone counts."""
    if bias.of_distance:
        return bias.at(lag.clamp(min=0), lag.neg().clamp(min=0))[..., None]
    queries = torch.arange(n_key - n_query, n_key, device=lag.device)
    return bias.at(queries[None], (queries - lag[:, None]).clamp(0, n_key - 1))
