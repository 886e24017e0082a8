"""Rounding weights to few bits, in coordinates of one's choice: which basis loses least, and of what?

A weight is [row column]: a row for each number that is written, a column for each that is read. `moment` is the second
moment of what is read, Σ a aᵀ / n over real tokens, and a basis holds orthonormal axes of the reading side as columns.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rounded(
    weight: Float[Tensor, "row column"],
    bits: int,
    *,
    basis: Float[Tensor, "column column"] | None = None,
    steps: Float[Tensor, "row column"] | None = None,
) -> Float[Tensor, "row column"]:
    """The weight on a grid of 2^bits − 1 levels for each column, in the coordinates of `basis`: Q(W U) Uᵀ.

    The grid is symmetric and reaches the largest number of its column. `steps` stretches or shrinks it cell by cell;
    what then lies beyond the last level is cut there.
    """
    top = _levels(bits)
    turned = weight if basis is None else weight @ basis.to(weight)
    step = turned.abs().amax(0) / top
    step = torch.where(step > 0, step, torch.ones_like(step))  # a column of zeros stays one, on any grid
    if steps is not None:
        step = step * steps.to(weight)
    grid = (turned / step).round().clamp(-top, top) * step
    return grid if basis is None else grid @ basis.to(weight).T


def fisher_steps(diagonal: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """Finer steps where the loss is more sensitive: F^(-1/2), to a mean of one, within a quarter and four."""
    rough = (diagonal / diagonal.max() + 1e-6).rsqrt()  # a weight that no text has touched would take any step
    return (rough / rough.mean()).clamp(0.25, 4.0)


def write_error(
    weight: Float[Tensor, "row column"], other: Float[Tensor, "row column"], moment: Float[Tensor, "column column"]
) -> Float[Tensor, ""]:
    """E‖(W − Ŵ)a‖² / E‖Wa‖²: how far rounding the weight moves what it writes. In closed form, from the moment."""
    apart = (weight - other).to(moment)
    whole = weight.to(moment)
    return ((apart @ moment) * apart).sum() / ((whole @ moment) * whole).sum()


def read_error(
    weight: Float[Tensor, "row column"],
    read: Float[Tensor, "point column"],
    bits: int,
    *,
    basis: Float[Tensor, "column column"],
) -> Float[Tensor, ""]:
    """E‖W(a − â)‖² / E‖Wa‖² when what is read is rounded instead, axis by axis of the same basis."""
    apart = read - rounded(read, bits, basis=basis)
    return (apart @ weight.T.to(apart)).square().sum() / (read @ weight.T.to(read)).square().sum()


def eigenbasis(moment: Float[Tensor, "column column"]) -> Float[Tensor, "column column"]:
    """Principal axes of a second moment, by falling variance."""
    return torch.linalg.eigh(moment.double()).eigenvectors.flip(-1)


def blended(
    first: Float[Tensor, "column column"], second: Float[Tensor, "column column"], share: float
) -> Float[Tensor, "column column"]:
    """A basis on the way from the first (share 0) to the second (share 1), axis by axis, signs turned to agree."""
    signs = (first * second).sum(0).sign()
    signs = torch.where(signs == 0, torch.ones_like(signs), signs)
    orthogonal, triangle = torch.linalg.qr((1 - share) * first + share * second * signs)
    return orthogonal * triangle.diagonal().sign()


def _levels(bits: int) -> int:
    if bits < 2:
        raise ValueError(f"a symmetric grid with a zero needs at least 2 bits; got {bits}")
    return 2 ** (bits - 1) - 1
