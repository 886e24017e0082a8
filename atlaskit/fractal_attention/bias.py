"""Learnable biases whose shape is a fractal's and whose gradients are bounded.

A bias is a few small tables and a rule that looks them up for query and key positions. The tables are computed once a
call, by ordinary autograd; kernels look them up tile by tile and hand one gradient back to each table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn
from typing_extensions import override

from . import curves
from .patterns import Pattern
from .reach import lags

Tables = tuple[Tensor, ...]


class PreparedBias(NamedTuple):
    """A bias for one call: tables at hand, heads chosen."""

    tables: Tables
    look_up: Callable[[Tables, Tensor, Tensor], Tensor]
    of_distance: bool
    heads: Tensor | None = None

    def at(self, queries: Int[Tensor, "*#size"], keys: Int[Tensor, "*#size"], tables: Tables | None = None) -> Tensor:
        """What is added to the scaled scores: [head, *broadcast shape of the positions]."""
        found = self.look_up(self.tables if tables is None else tables, queries, keys)
        return found if self.heads is None else found[self.heads]


class PatternBias(nn.Module):
    """A bias on scores: what tables there are, how they are looked up, and whether distance alone counts.

    A bias of distance alone is the same forwards and backwards.
    """

    of_distance = True

    def tables(self) -> Tables:
        """Differentiable tensors that `look_up` reads; computed once a call."""
        raise NotImplementedError

    def look_up(self, tables: Tables, queries: Tensor, keys: Tensor) -> Tensor:
        """[head, *broadcast shape]; a bias of distance looks each distance up once, however many cells share it."""
        lag = (queries - keys).abs()
        longest = int(lag.max()) + 1
        if lag.numel() <= longest:
            return self.at_distance(tables, lag)
        by_distance = self.at_distance(tables, torch.arange(longest, device=lag.device))
        return by_distance.index_select(1, lag.flatten()).unflatten(1, lag.shape)

    def at_distance(self, tables: Tables, lag: Tensor) -> Tensor:
        """[head, *shape of the distances]."""
        raise NotImplementedError

    def prepared(self) -> PreparedBias:
        """The bias with its tables computed."""
        return PreparedBias(self.tables(), self.look_up, self.of_distance)

    def forward(self, queries: Int[Tensor, "*#size"], keys: Int[Tensor, "*#size"]) -> Tensor:
        """[head, *broadcast shape of the positions]."""
        return self.prepared().at(queries, keys)


class LagBias(PatternBias):
    """One number for each head and each distance of a pattern, up to `longest`; 0 for every other distance."""

    def __init__(self, n_head: int, pattern: Pattern, *, longest: int) -> None:
        super().__init__()
        if pattern.lag_set is None:
            raise ValueError(f"LagBias needs a pattern of distances; {pattern.name} is not one. Use another bias.")
        self.pattern, self.longest = pattern, longest
        self.by_lag = nn.Parameter(torch.zeros(n_head, len(self.distances)))

    @property
    def distances(self) -> Int[Tensor, " step"]:
        """The distances that have a number, ascending. Not a buffer: loading would leave it unfilled."""
        return lags(self.pattern, self.longest + 1)

    @override
    def tables(self) -> Tables:
        return (self.by_lag,)

    @override
    def at_distance(self, tables: Tables, lag: Tensor) -> Tensor:
        distances = self.distances.to(lag.device)
        index = torch.searchsorted(distances, lag).clamp(max=len(distances) - 1)
        known = distances[index] == lag
        return torch.where(known, tables[0][:, index], 0.0)


class DragonBias(PatternBias):
    """One number for each head, fold level and turn of the paper-folding sequence; distance 0 has its own.

    `contrast` is how far left and right turns stand apart at the start.
    """

    def __init__(self, n_head: int, *, folds: int, contrast: float = 0.0) -> None:
        super().__init__()
        turn = torch.tensor([contrast, -contrast])
        self.by_turn = nn.Parameter(turn.repeat(n_head, folds, 1))
        self.at_self = nn.Parameter(torch.zeros(n_head, 1))

    @override
    def tables(self) -> Tables:
        return self.by_turn, self.at_self

    @override
    def at_distance(self, tables: Tables, lag: Tensor) -> Tensor:
        by_turn, at_self = tables
        level = curves.fold_levels(lag).clamp(max=by_turn.shape[1] - 1)
        right = (curves.fold_signs(lag) < 0).long()
        own = at_self.unflatten(1, (1,) * lag.ndim)
        return torch.where(lag == 0, own, by_turn[:, level, right])


class CantorDepthBias(PatternBias):
    """One number for each head and number of Cantor levels a distance crosses (its nonzero ternary digits).

    Distances that cross more than `levels` share the last number.
    """

    def __init__(self, n_head: int, *, levels: int) -> None:
        super().__init__()
        self.by_depth = nn.Parameter(torch.zeros(n_head, levels + 1))

    @override
    def tables(self) -> Tables:
        return (self.by_depth,)

    @override
    def at_distance(self, tables: Tables, lag: Tensor) -> Tensor:
        depth = curves.nonzero_digits(lag, 3).clamp(max=tables[0].shape[1] - 1)
        return tables[0][:, depth]


class KochBias(PatternBias):
    """Minus a positive slope times the distance of two tokens along the plane of a Koch curve: about lag^0.79.

    Like a linear bias (Press et al. 2022) but sub-linear: far tokens fade more slowly. Slopes start at 2^(-8h/H).
    """

    of_distance = False

    def __init__(self, n_head: int) -> None:
        super().__init__()
        slopes = 2.0 ** (-8 * torch.arange(1, n_head + 1) / n_head)
        self.raw_slope = nn.Parameter(slopes.expm1().log())

    @override
    def tables(self) -> Tables:
        return (nn.functional.softplus(self.raw_slope),)

    @override
    def look_up(self, tables: Tables, queries: Tensor, keys: Tensor) -> Tensor:
        apart = (curves.koch_points(queries) - curves.koch_points(keys)).abs().to(tables[0].dtype)
        return -tables[0].unflatten(0, (-1, *(1,) * apart.ndim)) * apart


def green_potential(
    z: Complex[Tensor, "*#size"], c: Complex[Tensor, "*#size"], *, iterations: int, escape_radius: float
) -> Float[Tensor, "*size"]:
    """Green's function log|z_k| / 2^k of z -> z^2 + c, frozen where |z_k| passes the escape radius; 0 inside.

    The measure of how fast a point escapes (Douady and Hubbard 1982). Its slope in c is bounded, that of a smoothed
    escape time is not. The larger the radius, the smoother the seam between two escape times.
    """
    if escape_radius < 2:
        raise ValueError(f"escape_radius is {escape_radius}; below 2 a point that passes it may still return")
    z, c = torch.broadcast_tensors(z, c)
    x, y, out = z.real, z.imag, (z.abs() > escape_radius)
    halvings = torch.zeros_like(x)
    for _ in range(iterations):
        # real arithmetic: points that are out stand still, so nothing overflows in either pass
        next_x, next_y = x * x - y * y + c.real, 2 * x * y + c.imag
        x, y = torch.where(out, x, next_x), torch.where(out, y, next_y)
        halvings = torch.where(out, halvings, halvings + 1)
        out = out | (x * x + y * y > escape_radius**2)
    square = torch.where(out, x * x + y * y, 1.0)
    return 0.5 * square.log() * torch.exp2(-halvings)


class PotentialBias(PatternBias):
    """A strength times the potential outside a Julia set (learnable c) or the Mandelbrot set, seen through a window.

    The plane's axes are the logarithm of the distance and the query's position, both over `extent`; each head has a
    window (scale and shift) of its own onto the square [-2, 2]^2. Beyond the square its border goes on. The table is
    kept between calls only while c is frozen.
    """

    of_distance = False

    def __init__(
        self,
        n_head: int,
        kind: Literal["julia", "mandelbrot"] = "julia",
        *,
        c: complex = -0.7 + 0.27j,
        extent: int = 4096,
        iterations: int = 24,
        escape_radius: float = 100.0,
        resolution: int = 64,
        keep_frozen: bool = True,
    ) -> None:
        super().__init__()
        self.kind, self.extent, self.iterations, self.escape_radius = kind, extent, iterations, escape_radius
        self.resolution, self.keep_frozen = resolution, keep_frozen
        self.strength = nn.Parameter(torch.ones(n_head))
        window = [1.5, 1.5, 0.0, 0.0] if kind == "julia" else [1.5, 1.5, -0.5, 0.0]
        self.window = nn.Parameter(torch.tensor(window).repeat(n_head, 1))
        self.c = nn.Parameter(torch.tensor([c.real, c.imag]).repeat(n_head, 1)) if kind == "julia" else None
        self._kept: tuple[tuple[object, ...], Tensor] | None = None

    @override
    def tables(self) -> Tables:
        return self.strength, self.window, self.potential()

    def potential(self) -> Float[Tensor, "head point point"]:
        """The table over the square: rows are imaginary parts, columns real parts, from -2 to 2."""
        learned = self.c is not None and self.c.requires_grad
        source = self.strength if self.c is None else self.c
        version = 0 if self.c is None else self.c._version
        state = (id(source), version, source.device, source.dtype)
        if self._kept is not None and self._kept[0] == state and not learned:
            return self._kept[1]
        line = torch.linspace(-2, 2, self.resolution, device=source.device, dtype=source.dtype)
        square = torch.complex(*torch.meshgrid(line, line, indexing="xy"))[None]
        if self.c is None:
            start, step = torch.zeros_like(square), square.expand(len(self.strength), -1, -1)
        else:
            # |c| <= 2: beyond, the set is dust and the potential carries no shape
            bounded = self.c * (2 / self.c.norm(dim=1, keepdim=True)).clamp(max=1)
            start, step = square, torch.complex(*bounded.unbind(1))[:, None, None]
        field = green_potential(start, step, iterations=self.iterations, escape_radius=self.escape_radius)
        self._kept = (state, field) if self.keep_frozen and not learned else None
        return field

    @override
    def look_up(self, tables: Tables, queries: Tensor, keys: Tensor) -> Tensor:
        strength, window, field = tables
        queries, keys = torch.broadcast_tensors(queries, keys)
        lag = (queries - keys).abs().to(field.dtype)
        across = 2 * torch.log1p(lag) / math.log1p(self.extent) - 1
        along = 2 * queries.to(field.dtype) / self.extent - 1
        place = torch.stack([across, along], -1).reshape(1, 1, -1, 2)  # in the window, -1 to 1
        seen = (place * window[:, None, None, :2] + window[:, None, None, 2:]) / 2  # in the square, -1 to 1
        sampled = nn.functional.grid_sample(
            field[:, None], seen.expand(len(field), -1, -1, -1), padding_mode="border", align_corners=True
        )
        return (strength[:, None] * sampled.flatten(1)).unflatten(1, lag.shape)
