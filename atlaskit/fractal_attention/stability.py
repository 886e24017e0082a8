"""Logarithm, exponential and softmax that neither overflow nor lose their gradient, without an epsilon."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .softmax import normalise


class NumericalStability:
    """The three functions under the name the tutorial gave them."""

    @staticmethod
    def stable_log(x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
        """The logarithm; minus infinity at 0, where the gradient is 0. As an attention weight, 0 then stays 0."""
        zero = x == 0
        return x.masked_fill(zero, 1.0).log().masked_fill(zero, -torch.inf)

    @staticmethod
    def stable_exp(x: Float[Tensor, "*size"], max_val: float = 20.0) -> Float[Tensor, "*size"]:
        """The exponential up to `max_val`, and its tangent beyond: it does not overflow and the gradient lives on."""
        within = x.clamp(max=max_val)
        return within.exp() + (x - within) * math.exp(max_val)

    @staticmethod
    def stable_softmax(
        x: Float[Tensor, "*size"], dim: int = -1, temperature: float | Float[Tensor, ""] = 1.0
    ) -> Float[Tensor, "*size"]:
        """Softmax of x / temperature, whose gradient reaches the temperature. All minus infinity gives zeros."""
        if not temperature > 0:
            raise ValueError(f"temperature is {float(temperature)}; a softmax needs a positive one")
        return normalise((x / temperature).movedim(dim, -1))[0].movedim(-1, dim)
