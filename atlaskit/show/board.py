"""What a page of attention may ask for, and who answers: one text, or two side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8, UInt16
from torch import Tensor

from atlaskit.show import cause, describe, overview
from atlaskit.show.heads import Held, Source
from atlaskit.show.overview import Measures, Overview
from atlaskit.show.pictures import Colour, Picture, Pictures


@runtime_checkable
class Board(Protocol):
    """Answers for a page."""

    meta: dict[str, Any]
    overview: Overview

    def fill(self) -> Iterator[int]:
        """Read a layer at a time, saying how many are done."""

    def pictures(self, asked: Mapping[str, Any]) -> list[Picture]:
        """The large pictures of a state, one for each panel."""

    def row(self, asked: Mapping[str, Any]) -> Float[np.ndarray, "2 column"]:
        """What the chosen query gives to each key, and what it is to be compared with."""

    def tiles(self, asked: Mapping[str, Any]) -> UInt8[np.ndarray, "layer head row column"]:
        """The small pictures of a state."""

    def strongest(self, asked: Mapping[str, Any], each: int) -> Strongest:
        """For every head and query, the keys given most."""

    def table(self, asked: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The numbers of the chosen head, a row for each defined cell."""


class Strongest(NamedTuple):
    """Of every head in turn: the keys, their levels 1 … 255 of the root (0: none); of every layer, what is defined.

    Of a pair, levels are of the signed difference and `beside` of what was given before.
    """

    keys: UInt16[np.ndarray, "head query rank"]
    levels: UInt8[np.ndarray, "head query rank"]
    defined: list[Bool[np.ndarray, "query key"]]
    beside: UInt8[np.ndarray, "head query rank"] | None = None


class Single:
    """One text through one model."""

    def __init__(
        self,
        source: Source,
        measures: Measures,
        effects: Mapping[str, Float[np.ndarray, "layer head"]],
        *,
        askable: bool = False,
    ) -> None:
        self.views, self.measures = Pictures(Held(source)), measures
        self.overview = overview.blank(source, measures)
        self.overview.add(effects)
        self.causes: Float[np.ndarray, "layer head"] | None = None
        if askable:  # a map to be filled once somebody asks
            self.overview.add({cause.NAME: np.full(self.overview.tiles.shape[:2], np.nan, np.float32)})
        self.meta = describe.single(self.views, measures, effects, askable=askable)
        self._tiles: dict[tuple[Any, ...], UInt8[np.ndarray, "layer head row column"]] = {}

    def know(self, causes: Float[np.ndarray, "layer head"]) -> None:
        """What the model loses without each head: the last map, and a colour."""
        if causes.shape != self.overview.tiles.shape[:2]:
            raise ValueError(
                f"the causal effects are {' × '.join(map(str, causes.shape))}; this text was read by "
                f"{' × '.join(map(str, self.overview.tiles.shape[:2]))} layers × heads"
            )
        self.causes = causes.astype(np.float32)
        self.overview.values[-1] = self.causes
        colours = [one for one in self.meta["colours"] if one["name"] != "cause"]
        self.meta = self.meta | {"colours": [*colours, cause.colour(self.causes, askable=True)]}

    def fill(self) -> Iterator[int]:
        """Read a layer at a time, saying how many are done."""
        return overview.fill(self.overview, self.views, self.measures)

    def pictures(self, asked: Mapping[str, Any]) -> list[Picture]:
        """One head, or one query of every head."""
        by_cause = asked["colour"] == "cause"
        colour: Colour = "weight" if by_cause else asked["colour"]
        if asked["rows"] == "token":
            picture = self.views.across(asked["token"], colour, **_units(asked))
            return [self._caused(picture, (slice(None), slice(None)))] if by_cause else [picture]
        window = tuple(asked["window"]) if asked["window"] else None
        layer = self.views.source.layers[asked["layer"]]
        picture = self.views.head(layer, asked["head"], colour, window=window, **_units(asked))
        return [self._caused(picture, (asked["layer"], asked["head"]))] if by_cause else [picture]

    def _known(self) -> Float[np.ndarray, "layer head"]:
        if self.causes is None:
            raise ValueError(cause.HOW)
        return self.causes

    def _caused(self, picture: Picture, which: tuple[Any, Any]) -> Picture:
        effects = self._known()
        one = cause.coloured(picture.levels, effects[which].reshape(-1, 1), cause.limit(effects))
        return picture._replace(levels=one)

    def row(self, asked: Mapping[str, Any]) -> Float[np.ndarray, "2 column"]:
        """What the chosen query gives to each key, and what the ignorant head gives."""
        return self.views.row(self.views.source.layers[asked["layer"]], asked["head"], asked["token"], **_units(asked))

    def tiles(self, asked: Mapping[str, Any]) -> UInt8[np.ndarray, "layer head row column"]:
        """Small pictures of every head; made once for each way of looking."""
        by_cause = asked["colour"] == "cause"
        colour: Colour = "weight" if by_cause else asked["colour"]
        units = _units(asked)
        if (colour, *units.values()) == ("weight", False, True):
            small = self.overview.tiles
        else:
            if (colour, *units.values()) not in self._tiles:
                self._tiles[colour, *units.values()] = overview.tiles(self.views, colour, **units)
            small = self._tiles[colour, *units.values()]
        if not by_cause:
            return small
        effects = self._known()
        return cause.coloured(small, effects[:, :, None, None], cause.limit(effects))

    def strongest(self, asked: Mapping[str, Any], each: int) -> Strongest:
        """For every head and query, the keys given most."""
        return strongest(self.views, each, **_units(asked))

    def table(self, asked: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The numbers of the chosen head, a row for each defined cell."""
        read = self.views.reader(asked["words"], asked["sinks"])
        layer, head = self.views.source.layers[asked["layer"]], asked["head"]
        cells = read.cells(layer, slice(0, len(read.rows)), heads=slice(head, head + 1))
        return cell_table(
            cells.defined[0], read.rows.names, read.columns.names, weight=cells.weights[0], ignorant=cells.ignorant
        )


def start(board: Board) -> dict[str, Any]:
    """What a page shows first: the head furthest from ignorance in the first measure, and what the last token reads."""
    layer = head = 0
    if len(board.overview.values):
        chance = np.nan_to_num(board.overview.chance[0])[:, None]
        away = np.abs(board.overview.values[0] - chance)
        if np.isfinite(away).any():
            layer, head = (int(i) for i in np.unravel_index(int(np.nanargmax(away)), away.shape))
    last = len(board.meta["units"]["tokens"]["rows"]) - 1
    return {
        "layer": layer, "head": head, "token": last, "key": 0, "rows": "head", "colour": "weight", "measure": 0,
        "words": False, "sinks": True, "window": None,
    }  # fmt: skip


def reply(board: Board, asked: Mapping[str, Any]) -> tuple[dict[str, Any], list[memoryview]]:
    """What a page asked for: words and sizes, and the arrays as they lie in memory."""
    need = asked["need"]
    answer: dict[str, Any] = {}
    buffers: list[memoryview] = []
    if need.get("pictures"):
        pictures = board.pictures(asked)
        answer["pictures"] = [{"shape": one.levels.shape, "steps": one.steps, "window": one.window} for one in pictures]
        buffers += [np.ascontiguousarray(one.levels).data for one in pictures]
    if need.get("row"):
        answer["row"] = True
        buffers += [np.ascontiguousarray(row).data for row in board.row(asked)]
    if need.get("tiles"):
        tiles = board.tiles(asked)
        answer["shape"] = tiles.shape
        buffers.append(tiles.data)
    return answer, buffers


def _units(asked: Mapping[str, Any]) -> dict[str, bool]:
    return {"words": asked["words"], "sinks": asked["sinks"]}


def cell_table(
    defined: Bool[Tensor, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    **numbers: Float[Tensor, "row column"],
) -> dict[str, list[Any]]:
    """Cell by cell: where, what stands there, and its numbers."""
    at = defined.nonzero()
    return {
        "query": at[:, 0].tolist(),
        "key": at[:, 1].tolist(),
        "query_token": [rows[i] for i in at[:, 0]],
        "key_token": [columns[i] for i in at[:, 1]],
        **{name: values[defined].tolist() for name, values in numbers.items()},
    }


def strongest(views: Pictures, each: int, *, words: bool, sinks: bool) -> Strongest:
    """The `each` largest weights of every row, however long the text."""
    read, keys, found, masks = views.reader(words, sinks), [], [], []
    each = min(each, len(read.columns))
    for layer in views.source.layers:
        parts, defined = [], []
        for units in read.tiles(0, len(read.rows)):
            cells = read.cells(layer, units)
            weights, at = torch.where(cells.defined, cells.weights, -1.0).topk(each, dim=-1)
            parts.append((weights, at))
            defined.append(cells.defined.any(0))
        weights, at = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        masks.append(torch.cat(defined).numpy())
        found += list(torch.where(weights < 0, 0, 1 + (weights.clamp(0, 1).sqrt() * 254).round()).to(torch.uint8))
        keys += list(at.to(torch.int32))
        for _ in range(views.source.n_head - len(weights)):
            keys.append(torch.zeros_like(keys[-1]))
            found.append(torch.zeros_like(found[-1]))
    return Strongest(torch.stack(keys).numpy().astype(np.uint16), torch.stack(found).numpy(), masks)
