"""Patterns as small integers, at most 512 × 512 of them: what crosses from the kernel to a screen."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from atlaskit.show.heads import Cells, Reader, Source, reader
from atlaskit.show.levels import COARSE, LARGEST_SIDE, block

Colour: TypeAlias = Literal["weight", "value", "lift"]
Window: TypeAlias = tuple[int, int, int, int]
"""Units in view: from query, to query, from key, to key."""

KEPT = 96_000_000  # bytes of pictures that need not be made again: 144 heads of a long text


class Picture(NamedTuple):
    """Levels 0 … 255, how many units share a cell on each side, and the units in view."""

    levels: UInt8[np.ndarray, "row column"]
    steps: tuple[int, int]
    window: Window


@dataclass(eq=False)
class Pictures:
    """The pictures of one source; those of whole heads are kept while there is room."""

    source: Source
    kept: OrderedDict[tuple[object, ...], Picture] = field(default_factory=OrderedDict)
    readers: dict[tuple[bool, bool], Reader] = field(default_factory=dict)
    longest: float | None = None

    def reader(self, words: bool, sinks: bool) -> Reader:
        """The source by token or by word, with sinks or without."""
        if (words, sinks) not in self.readers:
            self.readers[words, sinks] = reader(self.source, words=words, sinks=sinks)
        return self.readers[words, sinks]

    def longest_value(self) -> float:
        """The longest value vector of the text: the end of the colour scale for weight × length."""
        if self.longest is None:
            norms = [self.source.norms(layer) for layer in self.source.layers]
            self.longest = max((float(one.max()) for one in norms if one is not None), default=math.nan)
        return self.longest

    def head(
        self,
        layer: int,
        head: int,
        colour: Colour = "weight",
        *,
        words: bool = False,
        sinks: bool = True,
        window: Window | None = None,
    ) -> Picture:
        """One head, or the part of it in the window; neighbours share a cell where there are more than 512."""
        key = (layer, head, colour, words, sinks)
        if window is None and key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        made = self._make(layer, slice(head, head + 1), colour, self.reader(words, sinks), window)
        if not made:  # a layer with fewer heads than the widest
            other = self.head(layer, 0, colour, words=words, sinks=sinks, window=window)
            return other._replace(levels=np.zeros_like(other.levels))
        picture = made[0]
        if window is None:
            self.keep(key, picture)
        return picture

    def layer(
        self,
        layer: int,
        colour: Colour = "weight",
        *,
        words: bool = False,
        sinks: bool = True,
        look: Callable[[slice], None] | None = None,
    ) -> list[Picture]:
        """Every head of a layer, kept. `look` is called for each tile of units while it is at hand."""
        pictures = self._make(layer, slice(None), colour, self.reader(words, sinks), None, look=look)
        for head, picture in enumerate(pictures):
            self.keep((layer, head, colour, words, sinks), picture)
        return pictures

    def keep(self, key: tuple[object, ...], picture: Picture) -> None:
        """Remember a picture; what was not looked at for longest is forgotten."""
        self.kept[key] = picture
        while len(self.kept) > 1 and sum(one.levels.nbytes for one in self.kept.values()) > KEPT:
            self.kept.popitem(last=False)

    def across(self, unit: int, colour: Colour = "weight", *, words: bool = False, sinks: bool = True) -> Picture:
        """What one query unit reads: a row for every head of every layer."""
        read = self.reader(words, sinks)
        step = block(len(read.columns), LARGEST_SIDE)
        rows = []
        for layer in self.source.layers:
            cells = read.cells(layer, slice(unit, unit + 1))
            value = pooled(self._values(layer, cells, colour, read), (1, step))[:, 0]
            rows.append(torch.nn.functional.pad(value, (0, 0, 0, self.source.n_head - len(value)), value=-1.0))
        levels = self._levels(torch.stack(rows), colour, read).reshape(-1, rows[0].shape[-1])
        return Picture(levels, (1, step), (unit, unit + 1, 0, len(read.columns)))

    def row(
        self, layer: int, head: int, unit: int, *, words: bool = False, sinks: bool = True
    ) -> Float[np.ndarray, "2 column"]:
        """Exactly what one query unit gives to each key unit, and what the ignorant head would; nan if undefined."""
        cells = self.reader(words, sinks).cells(layer, slice(unit, unit + 1), heads=slice(head, head + 1))
        if len(cells.weights) == 0:
            return np.full((2, cells.weights.shape[-1]), np.nan, np.float32)
        both = torch.stack([cells.weights[0, 0], cells.ignorant[0]])
        return torch.where(cells.defined[0, 0], both, math.nan).numpy().astype(np.float32)

    def _make(
        self,
        layer: int,
        heads: slice,
        colour: Colour,
        read: Reader,
        window: Window | None,
        *,
        look: Callable[[slice], None] | None = None,
    ) -> list[Picture]:
        low, high, left, right = window = window or (0, len(read.rows), 0, len(read.columns))
        steps = block(high - low, LARGEST_SIDE), block(right - left, LARGEST_SIDE)
        parts = []
        for units in _in_steps(read.tiles(low, high), low, steps[0]):
            cells = read.cells(layer, units, heads=heads)
            if look is not None:
                look(units)
            parts.append(pooled(self._values(layer, cells, colour, read, heads)[:, :, left:right], steps))
        levels = self._levels(torch.cat(parts, dim=1), colour, read)
        return [Picture(one, steps, window) for one in levels]

    def _values(
        self, layer: int, cells: Cells, colour: Colour, read: Reader, heads: slice = slice(None)
    ) -> Float[Tensor, "head row column"]:
        """What is coloured, -1 where it is undefined, so that the largest of a block is a defined one if there is."""
        if colour == "weight":
            values = cells.weights
        elif colour == "lift":
            values = cells.weights / torch.where(cells.ignorant > 0, cells.ignorant, 1.0)
        else:
            norms = read.norms(layer)
            if norms is None:
                raise ValueError(f"{self.source.model} does not tell its value vectors: colour by weight or by lift")
            values = cells.weights * norms[heads][:, None]
        return torch.where(cells.defined, values, -1.0)

    def _levels(
        self, values: Float[Tensor, "*head row column"], colour: Colour, read: Reader
    ) -> UInt8[np.ndarray, "*head row column"]:
        undefined = values < 0
        if colour == "lift":
            widest = lift_limit(read)
            share = (values.log2().clamp(-widest, widest) / widest * 127 + 127) / 254
        else:
            share = (values / (1.0 if colour == "weight" else self.longest_value())).clamp(0, 1).sqrt()
        return torch.where(undefined, 0, 1 + (share * (COARSE - 1)).round()).to(torch.uint8).numpy()


def lift_limit(read: Reader) -> int:
    """Where the colour scale of log2(weight / ignorance) ends: at all of the weight on one of all the keys."""
    return max(1, math.ceil(math.log2(len(read.columns))))


def pooled(values: Float[Tensor, "head row column"], steps: tuple[int, int]) -> Float[Tensor, "head _ _"]:
    """The largest of each block; blocks at the end may be smaller."""
    if steps == (1, 1):
        return values
    return torch.nn.functional.max_pool2d(values, steps, ceil_mode=True)


def _in_steps(tiles: Iterator[slice], low: int, step: int) -> Iterator[slice]:
    """The same rows in slices that end where a block ends."""
    start = stop = low
    for tile in tiles:
        stop = tile.stop
        even = low + (stop - low) // step * step
        if even > start:
            yield slice(start, even)
            start = even
    if start < stop:
        yield slice(start, stop)
