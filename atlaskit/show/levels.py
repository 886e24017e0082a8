"""Weights as small integers on a square-root scale; 0 is kept for cells that attention may not use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt

Array: TypeAlias = np.ndarray | torch.Tensor

FINE = 65535  # one head: hover reads weights back to 1.6e-5
COARSE = 255  # all heads at once: a colour has no more to say
LARGEST_SIDE = 512  # more cells than a screen has pixels for only cost time
TICKS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # probabilities named on the colour bar


def as_array(values: Shaped[Array, "*axes"]) -> Shaped[np.ndarray, "*axes"]:
    """A NumPy array of the same numbers; bfloat16, which NumPy lacks, becomes float32."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return values


def quantise(
    weights: Float[np.ndarray, "*head query key"], support: Bool[np.ndarray, "*#head query key"], *, top: int
) -> UInt[np.ndarray, "*head query key"]:
    """Levels 1 … top for weights 0 … 1, evenly spaced in √weight; 0 outside the support.

    Attention over n tokens is of the order 1/n: on a linear scale a long text is simply black.
    """
    allowed = np.broadcast_to(support, weights.shape)
    inside = weights[allowed]
    if not ((inside >= 0) & (inside <= 1 + 1e-3)).all():
        raise ValueError(
            f"attention weights lie between 0 and 1; here they span {inside.min():.3g} … {inside.max():.3g}. "
            "Pass the pattern after softmax, without nan."
        )
    outside = np.where(allowed, 0, weights)
    if not (np.abs(outside) <= 1e-6).all():
        *head, query, key = np.unravel_index(int(np.argmax(np.abs(outside))), weights.shape)
        raise ValueError(
            f"query {query} gives {outside[(*head, query, key)]:.3g} to key {key}, which the support forbids. "
            "Pass the support this pattern was made under."
        )
    levels = 1 + np.rint(np.sqrt(np.clip(np.where(allowed, weights, 0), 0, 1)) * (top - 1))
    return np.where(allowed, levels, 0).astype(np.uint8 if top <= 255 else np.uint16)


def level_of(weight: float, *, top: int) -> float:
    """Where a weight lies among the levels: for the ticks of a colour bar."""
    return 1 + weight**0.5 * (top - 1)


def restore(levels: UInt[np.ndarray, "*head query key"], *, top: int) -> Float[np.ndarray, "*head query key"]:
    """The weights the levels stand for; nan outside the support."""
    return np.where(levels == 0, np.nan, ((levels.astype(np.float64) - 1) / (top - 1)) ** 2)


def block(n: int, largest: int) -> int:
    """How many neighbours must share a cell for n cells to fit."""
    return -(-n // largest)


def max_pool(cells: Shaped[np.ndarray, "*head query key"], *, blocks: Sequence[int]) -> Shaped[np.ndarray, "*head _ _"]:
    """The largest of each block of queries × keys.

    A mean would fade the single bright cell that a reader looks for, a stride would lose it. Level 0 lies below all
    weights, so a block is blank only where it is blank throughout.
    """
    for axis, step in zip((-2, -1), blocks, strict=True):
        if step > 1:
            cells = np.maximum.reduceat(cells, range(0, cells.shape[axis], step), axis=axis)
    return cells
