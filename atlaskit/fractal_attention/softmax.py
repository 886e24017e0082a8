"""Softmax over rows that may be empty, joined over parts, with dropout that can be drawn again."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def normalise(scores: Float[Tensor, "*size key"]) -> tuple[Float[Tensor, "*size key"], Float[Tensor, "*size"]]:
    """Weights and log-sum-exp of each row. A row of minus infinities gets weights 0, log-sum-exp minus infinity."""
    empty = (scores == -torch.inf).all(-1, keepdim=True)
    filled = scores.masked_fill(empty, 0.0)
    weights = filled.softmax(-1).masked_fill(empty, 0.0)
    return weights, filled.logsumexp(-1).masked_fill(empty[..., 0], -torch.inf)


def merge(
    parts: list[tuple[Float[Tensor, "doc head query d_value"], Float[Tensor, "doc head query"]]],
) -> tuple[Float[Tensor, "doc head query d_value"], Float[Tensor, "doc head query"]]:
    """One softmax over disjoint parts, from each part's output and log-sum-exp; exact, gradients too."""
    weights, lse = normalise(torch.stack([lse for _, lse in parts], -1))
    outputs = torch.stack([output for output, _ in parts], -1)
    return (outputs * weights[..., None, :]).sum(-1), lse


def kept(like: Float[Tensor, "*size"], rate: float, seed: int) -> Float[Tensor, "*size"]:
    """What each weight is multiplied by: 0 with probability `rate`, else 1 / (1 - rate). Equal seeds, equal draws."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.empty_like(like).bernoulli_(1 - rate, generator=generator).div_(1 - rate)
