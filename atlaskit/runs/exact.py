"""Sums of float32 numbers without rounding, so that parts merge to the same result whatever the parts and their order.

Every float32 is a whole number of 2⁻¹⁴⁹. Sums and sums of squares are therefore kept as whole numbers, which Python has
in any size; only what is read off at the end is rounded, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from .jsonfile import Json

UNIT = 149
"""Numbers are counted in 2 to the minus this."""

_shift: Callable[..., Any] = np.frompyfunc(lambda whole, by: whole << by if by >= 0 else whole >> -by, 2, 1)


@dataclass(frozen=True)
class ExactSums:
    """How many numbers, their sum in units, and the sum of their squares in units squared, cell by cell."""

    count: tuple[int, ...]
    total: tuple[int, ...]
    squares: tuple[int, ...]

    @classmethod
    def of(cls, values: Float[Tensor, "doc head"], less: Float[Tensor, "doc head"] | None = None) -> ExactSums:
        """Over documents, of the values or of their exact differences, nan left out; ValueError at infinity."""
        numbers = values.double().numpy()
        known = ~np.isnan(numbers)
        whole = _whole(np.where(known, numbers, 0.0))
        if less is not None:
            other = less.double().numpy()
            known &= ~np.isnan(other)
            whole = whole - _whole(np.where(np.isnan(other), 0.0, other))
        whole = np.where(known, whole, 0)
        return cls(tuple(known.sum(0).tolist()), tuple(map(int, whole.sum(0))), tuple(map(int, (whole * whole).sum(0))))

    def __add__(self, other: ExactSums) -> ExactSums:
        return ExactSums(
            *(
                tuple(one + two for one, two in zip(mine, theirs, strict=True))
                for mine, theirs in zip(self._parts, other._parts, strict=True)
            )
        )

    def mean(self) -> list[float]:
        """Rounded once; nan where nothing was counted."""
        return [total / (n << UNIT) if n else math.nan for n, total in zip(self.count, self.total, strict=True)]

    def deviation(self) -> list[float]:
        """The standard deviation over documents; nan below two."""
        return [
            math.sqrt((n * squares - total * total) / ((n * (n - 1)) << 2 * UNIT)) if n > 1 else math.nan
            for n, total, squares in zip(*self._parts, strict=True)
        ]

    def interval(self, level: float = 0.95) -> list[tuple[float, float, float]]:
        """The mean with Student's interval over documents."""
        found = []
        for n, mean, deviation in zip(self.count, self.mean(), self.deviation(), strict=True):
            half = float(stdtrit(n - 1, (1 + level) / 2)) * deviation / math.sqrt(n) if n > 1 else math.nan
            found.append((mean, mean - half, mean + half))
        return found

    def to_json(self) -> Json:
        """Whole numbers as text, for readers whose numbers end at 2⁵³."""
        return [[str(number) for number in part] for part in self._parts]

    @classmethod
    def from_json(cls, content: Json) -> ExactSums:
        """What `to_json` made."""
        return cls(*(tuple(int(number) for number in part) for part in content))

    @property
    def _parts(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        return self.count, self.total, self.squares


def merged(parts: Iterable[ExactSums]) -> ExactSums:
    """The sum of at least one."""
    first, *rest = parts
    for one in rest:
        first += one
    return first


def _whole(numbers: Float[np.ndarray, "doc head"]) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Numbers in units."""
    if not np.isfinite(numbers).all():
        raise ValueError("an infinite number has no place in a sum")
    fraction, exponent = np.frexp(numbers)
    scaled = (fraction * 2**24).astype(np.int64)  # the 24 bits of a float32
    found: np.ndarray[Any, np.dtype[np.object_]] = _shift(scaled.astype(object), (exponent - 24 + UNIT).astype(object))
    return found
