"""Integer positions on the curves and digit systems that the patterns are made of."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Bool, Complex, Int
from torch import Tensor

HILBERT_ORDER = 16
"""One fixed order, so that a position keeps its cell however long the text grows: 4^16 cells."""


def digits(numbers: Int[Tensor, "*size"], base: int) -> list[Int[Tensor, "*size"]]:
    """Digits from the lowest up, as many as the largest number has."""
    found = []
    while True:
        found.append(numbers % base)
        numbers = numbers // base
        if not numbers.any():
            return found


def digits_within(numbers: Int[Tensor, "*size"], base: int, allowed: tuple[int, ...]) -> Bool[Tensor, "*size"]:
    """Whether every digit is one of the allowed. Leading zeros count as absent, not as zeros that must be allowed."""
    inside = torch.ones_like(numbers, dtype=torch.bool)
    while numbers.any():
        digit = numbers % base
        inside &= torch.isin(digit, torch.tensor(allowed, device=digit.device)) | (numbers == 0)
        numbers = numbers // base
    return inside


def nonzero_digits(numbers: Int[Tensor, "*size"], base: int) -> Int[Tensor, "*size"]:
    """How many digits differ from zero; for base 3 the number of Cantor levels a distance crosses."""
    return torch.stack([digit != 0 for digit in digits(numbers, base)]).sum(0)


def fold_levels(distances: Int[Tensor, "*size"]) -> Int[Tensor, "*size"]:
    """The exponent of two in each distance: the level of paper folding it belongs to; 0 for distance 0."""
    lowest_bit = distances & -distances
    return torch.where(distances > 0, lowest_bit.clamp(min=1).double().log2().round().long(), 0)


def fold_signs(distances: Int[Tensor, "*size"]) -> Int[Tensor, "*size"]:
    """The regular paper-folding sequence: +1 where the odd part is 1 mod 4, else -1; 0 for distance 0."""
    odd = distances >> fold_levels(distances)
    return torch.where(distances > 0, torch.where(odd % 4 == 1, 1, -1), 0)


def hilbert_cells(positions: Int[Tensor, "*size"]) -> Int[Tensor, "*size 2"]:
    """The cell of each position on the Hilbert curve (Hilbert 1891), quadrant by quadrant from the smallest."""
    x, y, rest = torch.zeros_like(positions), torch.zeros_like(positions), positions.clone()
    for level in range(HILBERT_ORDER):
        side = 1 << level
        right = (rest >> 1) & 1
        up = (rest ^ right) & 1
        flip, turn = (up == 0) & (right == 1), up == 0
        x, y = torch.where(flip, side - 1 - x, x), torch.where(flip, side - 1 - y, y)
        x, y = torch.where(turn, y, x), torch.where(turn, x, y)
        x, y = x + side * right, y + side * up
        rest = rest >> 2
    return torch.stack([x, y], -1)


def dragon_points(positions: Int[Tensor, "*size"]) -> Int[Tensor, "*size 2"]:
    """The vertex of each position on the Heighway dragon (Davis and Knuth 1970).

    The second half of the curve is the first, walked backwards and turned: z(m) = z(2^(k+1)) - i z(2^(k+1) - m),
    and z(2^k) = (1+i)^k.
    """
    rest = positions.clone()
    x, y = torch.zeros_like(rest), torch.zeros_like(rest)
    real, imaginary = torch.ones_like(rest), torch.zeros_like(rest)  # the turn so far
    for level in reversed(range(1, int(rest.max()).bit_length())):
        corner = (1 + 1j) ** (level + 1)
        corner_x, corner_y = round(corner.real), round(corner.imag)
        beyond = rest >= 1 << level
        x = torch.where(beyond, x + real * corner_x - imaginary * corner_y, x)
        y = torch.where(beyond, y + real * corner_y + imaginary * corner_x, y)
        real, imaginary = torch.where(beyond, imaginary, real), torch.where(beyond, -real, imaginary)
        rest = torch.where(beyond, (2 << level) - rest, rest)
    first = torch.tensor([[0, 0], [1, 0], [1, 1]], device=rest.device)[rest]  # what is left is 0, 1 or 2
    x = x + real * first[..., 0] - imaginary * first[..., 1]
    y = y + real * first[..., 1] + imaginary * first[..., 0]
    return torch.stack([x, y], -1)


def koch_points(positions: Int[Tensor, "*size"]) -> Complex[Tensor, "*size"]:
    """The vertex of each position on the Koch curve (von Koch 1904) with unit steps; distance grows as lag^0.79."""
    bend = complex(0.5, math.sqrt(3) / 2)
    offsets = torch.tensor([0, 1, 1 + bend, 2], dtype=torch.complex128, device=positions.device)
    turns = torch.tensor([1, bend, 1 / bend, 1], dtype=torch.complex128, device=positions.device)
    point = torch.zeros_like(positions, dtype=torch.complex128)
    turn = torch.ones_like(point)
    base_four = digits(positions, 4)
    for level, digit in reversed(list(enumerate(base_four))):
        point = point + turn * offsets[digit] * 3.0**level
        turn = turn * turns[digit]
    return point


@lru_cache(maxsize=32)
def _table(curve: str, capacity: int) -> Tensor:
    return {"hilbert": hilbert_cells, "dragon": dragon_points}[curve](torch.arange(capacity)).int()


def curve_table(curve: str, largest: int) -> Int[Tensor, "point 2"]:
    """Points of the curve from 0 to at least `largest`, kept in memory: decoding asks for them at every token."""
    return _table(curve, 1 << max(largest, 1).bit_length())
