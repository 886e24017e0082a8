"""Two texts, models, checkpoints or interventions side by side: aligned by words, with their signed difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from atlaskit.records import Score
from atlaskit.show import describe, levels, overview
from atlaskit.show.board import Strongest, cell_table
from atlaskit.show.heads import Captured, Reader, Source, reader
from atlaskit.show.overview import Measures, Overview
from atlaskit.show.pictures import Picture, pooled
from atlaskit.show.words import Units


def aligned(one: Units, other: Units) -> Int[Tensor, "pair 2"]:
    """Which unit of one text stands where which of the other does: equal units in the longest common order.

    A stretch that was replaced by one of equal length, as a name by a name, is aligned place by place.
    """
    pairs: list[tuple[int, int]] = []
    matcher = SequenceMatcher(None, [name.strip() for name in one.names], [name.strip() for name in other.names], False)
    for kind, low, high, left, right in matcher.get_opcodes():
        if kind == "equal" or (kind == "replace" and high - low == right - left):
            pairs += zip(range(low, high), range(left, right), strict=True)
    if len(pairs) < 2:
        raise ValueError(
            f"the texts share {len(pairs)} places of {len(one)} and {len(other)} words; a comparison needs at least 2"
        )
    return torch.tensor(pairs)


class Side:
    """One of the two: its attention between the units that both texts have."""

    def __init__(self, source: Source, read: Reader, units: Int[Tensor, " pair"]) -> None:
        self.source, self.read, self.units = source, read, units
        self.whole = lru_cache(maxsize=2)(self._whole)

    def _whole(self, layer: int) -> tuple[Float[Tensor, "head pair twin"], Bool[Tensor, "head pair twin"]]:
        """Weights of all heads between aligned units, and where they are defined."""
        weights, defined = [], []
        for tile in self.read.tiles(0, len(self.read.rows)):
            wanted = self.units[(self.units >= tile.start) & (self.units < tile.stop)] - tile.start
            cells = self.read.cells(layer, tile)
            weights.append(cells.weights[:, wanted][:, :, self.units])
            defined.append(cells.defined[:, wanted][:, :, self.units])
        return torch.cat(weights, dim=1), torch.cat(defined, dim=1)


class Pair:
    """Two sources with the same layers and heads, between the units that both have."""

    def __init__(self, one: Source, other: Source, names: tuple[str, str], measures: Measures) -> None:
        if (one.layers, one.n_head) != (other.layers, other.n_head):
            raise ValueError(
                f"{names[0]} has {len(one.layers)} layers × {one.n_head} heads and {names[1]} {len(other.layers)} × "
                f"{other.n_head}: heads are compared one to one, so both must have as many"
            )
        same = one.tokens.strings == other.tokens.strings and one.source.strings == other.source.strings
        reads = [reader(source, words=not same) for source in (one, other)]
        if any(read.rows.names != read.columns.names for read in reads):
            raise ValueError("attention between two texts cannot be compared yet; choose kind='encoder' or 'decoder'")
        pairs = aligned(reads[0].rows, reads[1].rows)
        self.sides = [Side(s, read, pairs[:, i]) for i, (s, read) in enumerate(zip((one, other), reads, strict=True))]
        self.measures, self.n = measures, len(pairs)
        self.writes = _writes(one, other) if same else None
        n_layer = len(one.layers)
        self.block = levels.block(self.n, overview.tile_side(one.n_head))
        cells = -(-self.n // self.block)
        values = np.full((1 + len(measures) + (self.writes is not None), n_layer, one.n_head), np.nan, np.float32)
        self.overview = Overview(
            np.zeros((n_layer, one.n_head, cells, cells), np.uint8), values, values[:, :, 0].copy()
        )
        units = [(reads[0].rows.names[i], reads[1].rows.names[j]) for i, j in pairs.tolist()]
        self.meta = describe.pair(one, units, names, measures, writes=self.writes is not None)

    def fill(self) -> Iterator[int]:
        """Compare a layer at a time, saying how many are done."""
        for i, layer in enumerate(self.sides[0].source.layers):
            before, after, defined = self._both(layer)
            moved = torch.where(defined, (after - before).abs(), 0.0).sum(-1) / 2
            choice = defined.sum(-1) >= 2
            change = torch.where(choice, moved, torch.nan).nanmean(-1)
            self.overview.values[0, i, : len(change)] = change
            for m, (score, _) in enumerate(self.measures.values(), start=1):
                ours = [self._mean(side, layer, score) for side in self.sides]
                self.overview.values[m, i, : len(change)] = ours[1] - ours[0]
            if self.writes is not None:
                apart = self.writes[i].norm(dim=-1).mean(-1)
                self.overview.values[-1, i, : len(apart)] = apart
            small = _signed(after - before, defined, steps=(self.block, self.block))
            self.overview.tiles[i, : len(change)] = small
            yield i + 1

    def _mean(self, side: Side, layer: int, score: Score) -> Float[np.ndarray, " head"]:
        meter = overview.Meter(side.source, layer, score)
        for units in side.read.tiles(0, len(side.read.rows)):
            meter.add(side.read.rows.slice(units))
        return meter.means()[0]

    def pictures(self, asked: Mapping[str, Any]) -> list[Picture]:
        """One, the other, and the other minus the one."""
        before, after, defined = (part[asked["head"]] for part in self._both(self._layer(asked)))
        low, high, left, right = window = tuple(asked["window"] or (0, self.n, 0, self.n))
        steps = levels.block(high - low, levels.LARGEST_SIDE), levels.block(right - left, levels.LARGEST_SIDE)
        view = slice(low, high), slice(left, right)
        plain = [pooled(torch.where(defined, part, -1.0)[view][None], steps)[0] for part in (before, after)]
        weights = [torch.where(part < 0, 0, 1 + (part.clamp(0, 1).sqrt() * 254).round()) for part in plain]
        drawn = [part.to(torch.uint8).numpy() for part in weights]
        drawn.append(_signed((after - before)[view][None], defined[view][None], steps=steps)[0])
        return [Picture(part, steps, window) for part in drawn]

    def row(self, asked: Mapping[str, Any]) -> Float[np.ndarray, "2 column"]:
        """The difference at the chosen query, and what it gave before."""
        before, after, defined = (part[asked["head"], asked["token"]] for part in self._both(self._layer(asked)))
        both = torch.stack([after - before, before])
        return torch.where(defined, both, torch.nan).numpy().astype(np.float32)

    def tiles(self, asked: Mapping[str, Any]) -> UInt8[np.ndarray, "layer head row column"]:
        """Small pictures of the differences."""
        return self.overview.tiles

    def strongest(self, asked: Mapping[str, Any], each: int) -> Strongest:
        """For every head and query, the keys whose weight changed most."""
        each, keys, shades, beside, masks = min(each, self.n), [], [], [], []
        for layer in self.sides[0].source.layers:
            before, after, defined = self._both(layer)
            difference = torch.where(defined, after - before, 0.0)
            at = difference.abs().topk(each, dim=-1).indices
            keys.append(at.numpy().astype(np.uint16))
            shades.append(_signed(difference.gather(-1, at), defined.gather(-1, at)))
            beside.append((1 + (before.gather(-1, at).clamp(0, 1).sqrt() * 254).round()).to(torch.uint8).numpy())
            masks.append(defined.any(0).numpy())
        return Strongest(np.concatenate(keys), np.concatenate(shades), masks, np.concatenate(beside))

    def table(self, asked: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Before, after and the difference of the chosen head, a row for each cell defined in both."""
        before, after, defined = (part[asked["head"]] for part in self._both(self._layer(asked)))
        names = self.meta["units"]["tokens"]["rows"]
        return cell_table(defined, names, names, before=before, after=after, difference=after - before)

    def _both(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        (before, here), (after, there) = (side.whole(layer) for side in self.sides)
        return before, after, here & there

    def _layer(self, asked: Mapping[str, Any]) -> int:
        return self.sides[0].source.layers[asked["layer"]]


def _writes(one: Source, other: Source) -> list[Float[Tensor, "head query d_model"]] | None:
    """How far what each head writes has moved, layer by layer, where both are captures of one model.

    Two models have residual streams of their own, in which a distance between them would mean nothing.
    """
    if one.model != other.model or not (isinstance(one, Captured) and isinstance(other, Captured)):
        return None
    moved = []
    for layer in one.layers:
        before, after = (side.layer(layer).result for side in (one, other))
        if before is None or after is None:
            return None
        moved.append(after - before)
    return moved


def _signed(
    difference: Float[Tensor, "head row column"],
    defined: Bool[Tensor, "head row column"],
    *,
    steps: tuple[int, int] = (1, 1),
) -> UInt8[np.ndarray, "head _ _"]:
    """Levels 1 … 255 for -1 … 1, even in the root of either sign; a block shows what changed most in it."""
    up = pooled(torch.where(defined, difference, -2.0), steps)
    down = pooled(torch.where(defined, -difference, -2.0), steps)
    most = torch.where(up >= down, up, -down)
    shade = 128 + (most.abs().clamp(0, 1).sqrt() * most.sign() * 127).round()
    return torch.where(torch.maximum(up, down) < -1, 0, shade).to(torch.uint8).numpy()
