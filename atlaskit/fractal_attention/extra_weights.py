"""Learnable biases as extra weights of a drop-in model: made, found again in a checkpoint, and taken out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from .bias import CantorDepthBias, DragonBias, KochBias, LagBias, PatternBias, PotentialBias
from .patterns import Pattern, union

WEIGHT = "fractal_bias"
"""The name of the bias inside each attention module, and so in the checkpoint."""

BIASES: dict[str, Callable[[int, Pattern, int], PatternBias]] = {
    "lag": lambda n_head, pattern, longest: LagBias(n_head, pattern, longest=longest),
    "dragon": lambda n_head, _, longest: DragonBias(n_head, folds=longest.bit_length()),
    "cantor_depth": lambda n_head, _, longest: CantorDepthBias(n_head, levels=math.ceil(math.log(longest, 3))),
    "koch": lambda n_head, *_: KochBias(n_head),
    "julia": lambda n_head, _, longest: PotentialBias(n_head, "julia", extent=longest),
    "mandelbrot": lambda n_head, _, longest: PotentialBias(n_head, "mandelbrot", extent=longest),
}
"""Biases by name, from the number of heads, the layer's pattern and the longest text."""


def add_biases(model: PreTrainedModel, kind: str, layers: list[list[Pattern]]) -> None:
    """Give each attention module a bias of its own, in place; one that it has is replaced."""
    if kind not in BIASES:
        raise ValueError(f"no bias is called {kind!r}; known are {', '.join(sorted(BIASES))}")
    n_head, longest = model.config.num_attention_heads, model.config.max_position_embeddings
    for module, patterns in zip(_attending(model), layers, strict=True):
        weight = next(module.parameters())
        with torch.device("cpu"):  # while a checkpoint is read tensors are born without numbers, and lags need theirs
            bias = BIASES[kind](n_head, union(*dict.fromkeys(patterns)), longest)
        module.add_module(WEIGHT, bias.to(weight.device, weight.dtype))


def remove_biases(model: PreTrainedModel) -> None:
    """Take the biases out again, in place."""
    for module in _attending(model):
        if hasattr(module, WEIGHT):
            delattr(module, WEIGHT)


def _attending(model: PreTrainedModel) -> list[nn.Module]:
    """The modules that look their attention up in the library's interface, in the order of the layers."""
    found = []
    for module in model.modules():
        code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
        if code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names:
            found.append(module)
    if len(found) != model.config.num_hidden_layers:
        raise ValueError(
            f"{type(model).__name__} has {len(found)} modules that attend for {model.config.num_hidden_layers} layers; "
            "there is no telling which bias belongs where. Use patterns without a bias."
        )
    return found
