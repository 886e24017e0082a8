"""Attention over a set of distances, by shifted views: no index table, no scatter."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .softmax import kept

TILE_FLOATS = 1 << 19
"""Queries are taken in tiles whose vectors fill about this many floats, so that all shifts of a tile stay in cache."""


class _Call(NamedTuple):
    lags: tuple[int, ...]
    offset: int
    scale: float
    key_mask: Tensor | None
    dropout: float
    seed: int


def lag_attention(
    q: Float[Tensor, "doc head query d_head"],
    k: Float[Tensor, "doc kv_head key d_head"],
    v: Float[Tensor, "doc kv_head key d_value"],
    *,
    lags: tuple[int, ...],
    scale: float,
    bias: Float[Tensor, "head step #query"] | None = None,
    key_mask: Bool[Tensor, "doc key"] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[Float[Tensor, "doc head query d_value"], Float[Tensor, "doc head query"]]:
    """Output and log-sum-exp of queries that read keys at fixed distances query - key; the queries are the last keys.

    Work n |lags| d a head and layer, memory n |lags| a head, |lags| d a decoded token. A query with nothing to read
    gives 0 and minus infinity.
    """
    call = _Call(lags, k.shape[2] - q.shape[2], scale, key_mask, dropout, seed)
    output, lse = _LagAttention.apply(q, k, v, bias, call)
    return output, lse


def _grouped(q: Tensor, kv_heads: int) -> Tensor:
    """Query heads beside the key head they share, as views: [doc, kv head, group, position, d]."""
    return q.unflatten(1, (kv_heads, -1))


def _shifts(call: _Call, first: int, last: int, n_key: int) -> list[tuple[int, slice, slice]]:
    """For each lag that has cells among queries first ... last: its index, those queries, and the keys they read."""
    found = []
    for index, lag in enumerate(call.lags):
        begin = max(first, lag - call.offset)
        end = min(last, n_key + lag - call.offset)
        if begin < end:
            shift = call.offset - lag
            found.append((index, slice(begin, end), slice(begin + shift, end + shift)))
    return found


def _tiles(q: Tensor) -> list[tuple[int, int]]:
    n = q.shape[-2]
    height = max(64, TILE_FLOATS * n // max(q.numel(), 1))
    return [(first, min(first + height, n)) for first in range(0, n, height)]


class _LagAttention(torch.autograd.Function):
    """Saves q, k, v and the probabilities [lag, ...]; every gradient is a sum of shifted products."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, call: _Call) -> tuple[Tensor, Tensor]:
        kv_heads, n_key = k.shape[1], k.shape[2]
        grouped = _grouped(q, kv_heads)
        output = q.new_zeros(*grouped.shape[:-1], v.shape[-1])
        # lag first: each shift then writes one contiguous stretch
        scores = q.new_full((len(call.lags), *grouped.shape[:-1]), -torch.inf)
        keys, values = k.unsqueeze(2), v.unsqueeze(2)
        for first, last in _tiles(q):
            shifts = _shifts(call, first, last, n_key)
            for index, at, read in shifts:
                torch.sum(grouped[..., at, :] * keys[..., read, :], -1, out=scores[index][..., at])
            tile = scores[..., first:last].mul_(call.scale)
            if bias is not None:
                by_lag = _grouped(bias[None], kv_heads).movedim(3, 0)  # [lag, 1, kv head, group, 1 or query]
                tile += by_lag if by_lag.shape[-1] == 1 else by_lag[..., first:last]
            if call.key_mask is not None:
                for index, at, read in shifts:
                    hidden = ~call.key_mask[:, None, None, read]
                    scores[index][..., at].masked_fill_(hidden, -torch.inf)
        top = scores.amax(0)
        finite_top = top.masked_fill(top == -torch.inf, 0.0)  # a row with nothing to read: exp(-inf - 0) = 0
        pattern = scores.sub_(finite_top).exp_()
        total = pattern.sum(0)
        lse = finite_top + total.log()
        pattern /= total.masked_fill(total == 0, 1.0)
        weights = pattern if call.dropout == 0 else pattern * kept(pattern, call.dropout, call.seed)
        for first, last in _tiles(q):
            for index, at, read in _shifts(call, first, last, n_key):
                output[..., at, :].addcmul_(weights[index][..., at, None], values[..., read, :])
        ctx.save_for_backward(q, k, v, bias, pattern)
        ctx.call = call
        return output.flatten(1, 2), lse.flatten(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, pattern = ctx.saved_tensors
        call: _Call = ctx.call
        kv_heads, n_key = k.shape[1], k.shape[2]
        k, v = k.unsqueeze(2), v.unsqueeze(2)
        grouped, upstream = _grouped(q, kv_heads), _grouped(grad_output, kv_heads)
        mask = None if call.dropout == 0 else kept(pattern, call.dropout, call.seed)
        weights = pattern if mask is None else pattern * mask
        grad_q = torch.zeros_like(grouped)
        grad_k = grouped.new_zeros(*grouped.shape[:3], n_key, k.shape[-1])
        grad_v = grouped.new_zeros(*grouped.shape[:3], n_key, v.shape[-1])
        grad_scores = torch.zeros_like(pattern)
        for first, last in _tiles(q):
            shifts = _shifts(call, first, last, n_key)
            for index, at, read in shifts:
                torch.sum(upstream[..., at, :] * v[..., read, :], -1, out=grad_scores[index][..., at])
                grad_v[..., read, :].addcmul_(weights[index][..., at, None], upstream[..., at, :])
            tile, share = grad_scores[..., first:last], pattern[..., first:last]
            if mask is not None:
                tile *= mask[..., first:last]
            tile -= (share * tile).sum(0)
            tile += _grouped(grad_lse, kv_heads)[..., first:last]
            tile *= share
            for index, at, read in shifts:
                by_score = grad_scores[index][..., at, None]
                grad_q[..., at, :].addcmul_(by_score, k[..., read, :], value=call.scale)
                grad_k[..., read, :].addcmul_(by_score, grouped[..., at, :], value=call.scale)
        grad_bias = None
        if bias is not None and ctx.needs_input_grad[3]:
            over_docs = grad_scores.sum(1).flatten(1, 2).movedim(0, 1)  # [head, lag, query]
            grad_bias = over_docs.sum(-1, keepdim=True) if bias.shape[-1] == 1 else over_docs
        if grouped.shape[2] == 1:  # a sum over one head would be a copy
            return grad_q.flatten(1, 2), grad_k.squeeze(2), grad_v.squeeze(2), grad_bias, None
        return grad_q.flatten(1, 2), grad_k.sum(2), grad_v.sum(2), grad_bias, None
