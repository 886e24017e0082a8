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
) -> Float[Tensor, "doc head query d_value"]:
    """One softmax over disjoint parts, from each part's output and log-sum-exp; exact, gradients too."""
    lse = torch.stack([lse for _, lse in parts])
    nothing = (lse == -torch.inf).all(0)  # then every output is 0, and so is their sum whatever the weights
    weights = lse.masked_fill(nothing, 0.0).softmax(0)[..., None]
    merged = parts[0][0] * weights[0]
    for (output, _), weight in zip(parts[1:], weights[1:], strict=True):
        merged = merged + output * weight
    return merged


def kept(like: Float[Tensor, "*size"], rate: float, seed: int) -> Float[Tensor, "*size"]:
    """What each weight is multiplied by: 0 with probability `rate`, else 1 / (1 - rate). Equal seeds, equal draws."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.empty_like(like).bernoulli_(1 - rate, generator=generator).div_(1 - rate)
