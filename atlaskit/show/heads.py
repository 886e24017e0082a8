"""Where the explorer's numbers come from: patterns a tile of queries at a time, by token or by word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit.records import Capture, Kind, LayerAttention, Tokens
from atlaskit.show.words import Units, by_token, by_word, gathered

TILE = 1 << 23  # bytes of pattern in memory at once: what fits the cache is read three times as fast


@runtime_checkable
class Source(Protocol):
    """One text through one model, its attention to be had a tile of queries at a time."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def tokens(self) -> Tokens:
        """The queries."""

    @property
    def source(self) -> Tokens:
        """The keys."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The numbers of the layers that attend."""

    @property
    def n_head(self) -> int:
        """Heads of the widest layer."""

    def rows(self, layer: int, rows: slice) -> tuple[Float[Tensor, "head query key"], Bool[Tensor, "query key"]]:
        """The pattern of some queries, all heads of a layer, and the cells they may use."""

    def norms(self, layer: int) -> Float[Tensor, "head key"] | None:
        """How long the value vector of each key is, or None where values are not known."""


@dataclass(frozen=True, eq=False)
class Captured:
    """A capture as a source. `kind` chooses among the attentions of an encoder–decoder."""

    capture: Capture
    kind: Kind

    @property
    def model(self) -> str:
        """The captured model's name."""
        return self.capture.model

    @property
    def tokens(self) -> Tokens:
        """The tokens that attend: those read where the encoder attends, those written elsewhere."""
        return self.capture.source if self.kind == "encoder" else self.capture.tokens

    @property
    def source(self) -> Tokens:
        """The tokens attended to."""
        return self.capture.tokens if self.kind == "decoder" else self.capture.source

    @property
    def layers(self) -> tuple[int, ...]:
        """The numbers of the captured layers of this kind."""
        return tuple(one.layer for one in self.capture.layers if one.kind == self.kind)

    @property
    def n_head(self) -> int:
        """Heads of the widest layer."""
        return max(len(one.pattern) for one in self.capture.layers if one.kind == self.kind)

    def layer(self, layer: int) -> LayerAttention:
        """One layer of this kind."""
        return next(one for one in self.capture.layers if (one.layer, one.kind) == (layer, self.kind))

    def rows(self, layer: int, rows: slice) -> tuple[Float[Tensor, "head query key"], Bool[Tensor, "query key"]]:
        """A view, not a copy."""
        one = self.layer(layer)
        return one.pattern[:, rows], one.support[rows]

    def norms(self, layer: int) -> Float[Tensor, "head key"] | None:
        """From the captured values; a KV head serves several heads."""
        one = self.layer(layer)
        if one.v is None:
            return None
        return one.v.norm(dim=-1).repeat_interleave(len(one.pattern) // len(one.v), dim=0)


class Held:
    """A source that remembers the last tile: pictures and measures of it are made from one reading."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._last: tuple[tuple[int, int, int], tuple[Tensor, Tensor]] | None = None
        self.model, self.tokens, self.source = source.model, source.tokens, source.source
        self.layers, self.n_head = source.layers, source.n_head

    def rows(self, layer: int, rows: slice) -> tuple[Float[Tensor, "head query key"], Bool[Tensor, "query key"]]:
        """As the source has them."""
        wanted = (layer, rows.start, rows.stop)
        if self._last is None or self._last[0] != wanted:
            self._last = (wanted, self._source.rows(layer, rows))
        return self._last[1]

    def norms(self, layer: int) -> Float[Tensor, "head key"] | None:
        """As the source has them."""
        return self._source.norms(layer)


class Cells(NamedTuple):
    """Some rows of some heads in the units asked for, the same of the ignorant head, and what is defined."""

    weights: Float[Tensor, "head row column"]
    ignorant: Float[Tensor, "row column"]
    defined: Bool[Tensor, "head row column"]


@dataclass(frozen=True, eq=False)
class Reader:
    """A source read by token or by word, with its sinks or without.

    Sinks are the first token and special tokens (Xiao et al. 2023): keys that take what has nowhere else to go. Without
    them, rows are scaled back to sum to one; a row that had nothing else is undefined.
    """

    source: Source
    words: bool
    sinks: bool
    rows: Units
    columns: Units

    @property
    def n_tile(self) -> int:
        """Tokens of query rows that fit a tile."""
        return max(1, TILE // (4 * self.source.n_head * len(self.source.source)))

    def tiles(self, low: int, high: int) -> Iterator[slice]:
        """Slices of row units, each no more than a tile of tokens where units are that small."""
        start = low
        while start < high:
            stop = start + 1
            while stop < high and int(self.rows.starts[stop + 1] - self.rows.starts[start]) <= self.n_tile:
                stop += 1
            yield slice(start, stop)
            start = stop

    def cells(self, layer: int, units: slice, *, heads: slice = slice(None)) -> Cells:
        """What the heads of a layer give to every column unit from some row units."""
        pattern, support = self.source.rows(layer, self.rows.slice(units))
        weights, allowed = pattern[heads].float(), support.float()
        ignorant = torch.where(support, allowed / allowed.sum(-1, keepdim=True), 0.0)
        if self.words:
            knots = self.rows.starts[units.start : units.stop + 1], self.columns.starts
            weights, ignorant = gathered(weights, *knots), gathered(ignorant[None], *knots)[0]
        defined = (ignorant > 0).expand_as(weights)
        if not self.sinks:
            keep = ~sink_columns(self.columns)
            weights, ignorant = weights * keep, ignorant * keep
            total = weights.sum(-1, keepdim=True)
            weights = torch.where(total > 0, weights / total, 0.0)
            ignorant = torch.where(ignorant > 0, ignorant / ignorant.sum(-1, keepdim=True), 0.0)
            defined = defined & keep & (total > 0)
        return Cells(weights, ignorant, defined)

    def norms(self, layer: int) -> Float[Tensor, "head column"] | None:
        """Length of the value vectors; of a word, the mean over its tokens."""
        norms = self.source.norms(layer)
        if norms is None or not self.words:
            return norms
        return gathered(norms[:, None], torch.tensor([0, 1]), self.columns.starts)[:, 0] / self.columns.starts.diff()


def sink_columns(columns: Units) -> Bool[Tensor, " column"]:
    """The first unit, and special ones."""
    return columns.special | (torch.arange(len(columns)) == 0)


def source_of(text: Capture | Source, kind: Kind | None) -> Source:
    """A capture as a source; what is one already, as it is."""
    return captured(text, kind) if isinstance(text, Capture) else text


def captured(capture: Capture, kind: Kind | None = None) -> Captured:
    """One kind of a capture's attention as a source; the first there is, where none is named."""
    kinds = list(dict.fromkeys(one.kind for one in capture.layers))
    if kind is not None and kind not in kinds:
        raise ValueError(f"{capture.model} has no {kind} attention in this capture; it has {', '.join(kinds)}")
    return Captured(capture, kind or kinds[0])


def reader(source: Source, *, words: bool = False, sinks: bool = True) -> Reader:
    """A source in the units asked for."""
    units = by_word if words else by_token
    return Reader(source, words, sinks, units(source.tokens), units(source.source))
