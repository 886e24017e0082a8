"""Every head at a glance: a small picture of each, and each measure beside what ignorance gives."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from atlaskit.records import Rows, Score
from atlaskit.show import levels
from atlaskit.show.heads import Source
from atlaskit.show.pictures import Colour, Pictures

Measures: TypeAlias = Mapping[str, tuple[Score, str]]
"""What is said of each head: {"entropy": (measure.entropy, "bits")}."""

ACROSS = 480  # cells across the heads of a layer
LARGEST_TILE = 40


@dataclass(eq=False)
class Overview:
    """One text's heads; layers that have not been read yet are blank and nan."""

    tiles: UInt8[np.ndarray, "layer head row column"]
    values: Float[np.ndarray, "series layer head"]
    chance: Float[np.ndarray, "series layer"]

    def add(self, effects: Mapping[str, Float[np.ndarray, "layer head"]]) -> None:
        """Numbers found elsewhere, one a head, after the measures; nothing is known of their chance."""
        for name, numbers in effects.items():
            if numbers.shape != self.values.shape[1:]:
                raise ValueError(
                    f"{name!r} is {numbers.shape[0]} layers × {numbers.shape[1]} heads; this text was read by "
                    f"{self.values.shape[1]} × {self.values.shape[2]}"
                )
            self.values = np.concatenate([self.values, numbers[None].astype(np.float32)])
            self.chance = np.concatenate([self.chance, np.full((1, len(numbers)), np.nan, np.float32)])


def blank(source: Source, measures: Measures) -> Overview:
    """An overview of a text of which nothing has been read yet."""
    n_layer, n_head = len(source.layers), source.n_head
    high, wide = (
        _small(_small(n, levels.LARGEST_SIDE), tile_side(n_head)) for n in map(len, (source.tokens, source.source))
    )
    values = np.full((len(measures), n_layer, n_head), np.nan, np.float32)
    return Overview(np.zeros((n_layer, n_head, high, wide), np.uint8), values, values[:, :, 0].copy())


def fill(overview: Overview, pictures: Pictures, measures: Measures) -> Iterator[int]:
    """Read a layer at a time into the overview; says how many are done, so that one can look, or stop, in between."""
    source = pictures.source
    for i, layer in enumerate(source.layers):
        meters = [Meter(source, layer, score) for score, _ in measures.values()]

        def look(units: slice, meters: list[Meter] = meters) -> None:
            for meter in meters:
                meter.add(units)

        for head, picture in enumerate(pictures.layer(layer, look=look)):
            overview.tiles[i, head] = _tile(picture.levels, pictures)
        for m, meter in enumerate(meters):
            values, chance = meter.means()
            overview.values[m, i, : len(values)], overview.chance[m, i] = values, chance
        yield i + 1


def tile_side(n_head: int) -> int:
    """Cells along a small picture: so many heads fit side by side."""
    return max(6, min(LARGEST_TILE, ACROSS // n_head))


def tiles(
    pictures: Pictures, colour: Colour, *, words: bool, sinks: bool
) -> UInt8[np.ndarray, "layer head row column"]:
    """The small pictures of every head in another colour or other units, or without sinks."""
    small = [
        [_tile(picture.levels, pictures) for picture in pictures.layer(layer, colour, words=words, sinks=sinks)]
        for layer in pictures.source.layers
    ]
    nothing = np.zeros_like(small[0][0])
    return np.stack([np.stack(one + [nothing] * (pictures.source.n_head - len(one))) for one in small])


def _small(n: int, largest: int) -> int:
    """Cells that are left when as many neighbours share one as it takes."""
    return -(-n // levels.block(n, largest))


def _tile(picture: UInt8[np.ndarray, "row column"], pictures: Pictures) -> UInt8[np.ndarray, "query key"]:
    side = tile_side(pictures.source.n_head)
    return levels.max_pool(picture, blocks=[levels.block(n, side) for n in picture.shape])


class Meter:
    """Mean of a score over the rows where it is defined, of each head of a layer and of the ignorant one."""

    def __init__(self, source: Source, layer: int, score: Score) -> None:
        self.source, self.layer, self.score = source, layer, score
        self.total: Tensor = torch.zeros(0)
        self.count: Tensor = torch.zeros(0)

    def add(self, rows: slice) -> None:
        """Some more rows, of queries by token."""
        pattern, support = self.source.rows(self.layer, rows)
        allowed = support.float()
        ignorant = torch.where(support, allowed / allowed.sum(-1, keepdim=True), 0.0)[None]
        queries = torch.arange(rows.start, rows.stop)
        both = [
            _called(self.score, Rows(self.layer, one, support, queries, self.source.source))
            for one in (pattern.float(), ignorant)
        ]
        values = torch.cat(both)
        if len(self.total) == 0:
            self.total, self.count = torch.zeros(2, len(values), dtype=torch.float64)
        self.total += values.nansum(-1)
        self.count += (~values.isnan()).sum(-1)

    def means(self) -> tuple[Float[np.ndarray, " head"], float]:
        """Of the heads, and of ignorance; nan where no row was defined."""
        means = torch.where(self.count > 0, self.total / self.count, torch.nan)
        return means[:-1].float().numpy(), float(means[-1])


def _called(score: Score, rows: Rows) -> Tensor:
    """A score is handed those fields of a tile that its parameters name, as `survey` does."""
    asked = inspect.signature(score).parameters
    return score(**{field.name: getattr(rows, field.name) for field in fields(rows) if field.name in asked})
