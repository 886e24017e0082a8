"""Attention as a measure on the unit square, summed over ever finer grids of boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .scaling import FEWEST_SCALES


@dataclass(frozen=True, eq=False)
class Boxes:
    """The share of each head's attention in every box, for grids of `sizes` boxes per side, coarse to fine.

    `usable` says which grids a head can fill; a head with fewer than three has a reason in `reasons`, others "".
    """

    sizes: tuple[int, ...]
    masses: tuple[Float[Tensor, "head _ _"], ...]
    usable: Bool[Tensor, "head size"]
    reasons: tuple[str, ...]

    @property
    def log_size(self) -> Float[Tensor, " size"]:
        """Base-2 logarithms of `sizes`: how many octaves finer than the whole square."""
        return torch.tensor(self.sizes, dtype=torch.float32, device=self.usable.device).log2()


def coarse_grain(
    pattern: Float[Tensor, "head query key"], *, sizes: Sequence[int] | None = None, like: Boxes | None = None
) -> Boxes:
    """Sum each head's attention, scaled to a total of one, over nested grids of boxes.

    Cell i of n belongs to box ⌊(i + ½) m / n⌋ of m: no mass is dropped or split at any n, and the diagonal stays on
    the diagonal. `sizes` are powers of two by default. A grid is usable up to a quarter of the tokens (boxes of four
    or more) and up to the square root of the head's perplexity: a head worth 100 cells cannot fill 11 × 11 boxes.
    `like` takes sizes and usability from another head's boxes, so that a null is fitted over the same scales.
    """
    if (pattern < 0).any():
        raise ValueError(
            f"a pattern of {tuple(pattern.shape)} holds weights below zero; pass weights after the softmax"
        )
    weights = pattern if pattern.dtype == torch.float64 else pattern.float()
    n = min(pattern.shape[1:])
    if like is None:
        grids = _octaves(n) if sizes is None else _checked(sizes, n)
        usable, reasons = _usable(weights, grids)
    elif sizes is None:
        grids, usable, reasons = like.sizes, like.usable, like.reasons
    else:
        raise ValueError("give sizes or like, not both: like already says which sizes")
    masses = _sum_boxes(weights, grids[-1]) / weights.sum((1, 2))[:, None, None]
    return Boxes(grids, pyramid(masses.expand(len(usable), -1, -1), grids), usable, reasons)


def box_of(n: int, size: int, device: torch.device) -> Int[Tensor, " token"]:
    """The box, out of `size`, that each of `n` cells has its centre in; exact in integers."""
    return (2 * torch.arange(n, device=device) + 1) * size // (2 * n)


def pyramid(masses: Float[Tensor, "head box box"], sizes: tuple[int, ...]) -> tuple[Float[Tensor, "head _ _"], ...]:
    """The finest grid and all coarser ones: as sizes nest, boxes of boxes are boxes."""
    grids = [masses]
    for coarse, fine in reversed(list(pairwise(sizes))):
        step = fine // coarse
        grids.append(grids[-1].reshape(-1, coarse, step, coarse, step).sum((2, 4)))
    return tuple(reversed(grids))


def _checked(sizes: Sequence[int], n: int) -> tuple[int, ...]:
    """Sizes as a tuple, if they nest: each grid must be a refinement of the one before."""
    nested = all(fine > coarse and fine % coarse == 0 for coarse, fine in pairwise((1, *sizes)))
    if not sizes or not nested or sizes[-1] > n:
        raise ValueError(
            f"sizes {tuple(sizes)} do not nest within {n} tokens; give increasing numbers of boxes per side, each a "
            f"multiple of the one before and at most {n}, such as 2, 4, 8"
        )
    return tuple(sizes)


def _octaves(n: int) -> tuple[int, ...]:
    # below eight tokens nothing is usable; one grid stays, so that every fit has a point to be undefined at
    return (2, *(1 << k for k in range(2, n.bit_length()) if 4 << k <= n))


def _sum_boxes(weights: Float[Tensor, "head query key"], size: int) -> Float[Tensor, "head box box"]:
    n_head, n_query, n_key = weights.shape
    strips = weights.new_zeros(n_head, size, n_key).index_add_(1, box_of(n_query, size, weights.device), weights)
    membership = torch.nn.functional.one_hot(box_of(n_key, size, weights.device), size).to(weights)
    return strips @ membership


def _usable(
    weights: Float[Tensor, "head query key"], sizes: tuple[int, ...]
) -> tuple[Bool[Tensor, "head size"], tuple[str, ...]]:
    total = weights.sum((1, 2))
    # the entropy of the normalised cells, without a normalised copy of them
    nats = torch.special.entr(weights).sum((1, 2)) / total + total.log()
    resolved = torch.exp(nats / 2)  # square root of the perplexity
    n = min(weights.shape[1:])
    grid = torch.tensor(sizes, device=weights.device)
    # a whisker for rounding: uniform attention is worth its cells exactly, its entropy in floats not quite
    usable = (4 * grid <= n) & (grid <= resolved[:, None] * (1 + 1e-5))
    reasons = tuple(
        _reason(count, side, n) if count < FEWEST_SCALES else ""
        for count, side in zip(usable.sum(1).tolist(), resolved.tolist(), strict=True)
    )
    return usable, reasons


def _reason(count: int, side: float, n: int) -> str:
    if side != side:
        return "undefined, because its attention holds nan or no weight at all"
    return (
        f"undefined, because {n} tokens and attention worth {side * side:.0f} cells leave {count} usable scales and a "
        f"line needs {FEWEST_SCALES}: grids end at {n / 4:.0f} boxes per side (a quarter of the tokens) and at "
        f"{side:.0f} (the square root of the cells)"
    )
