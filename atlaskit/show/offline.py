"""A board as one page that needs no kernel and no network."""

from __future__ import annotations

import base64
import html as markup
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from atlaskit.show import levels, theme
from atlaskit.show.assets import SCRIPT, STYLE, asset
from atlaskit.show.board import Board
from atlaskit.show.pictures import Picture

LARGEST_PAGE = 5_000_000
ROOM = 3_300_000  # characters for the pictures; the rest is for the strongest keys, names, and the page itself
EACH = 4  # keys of a query that are stored whatever the pictures' resolution …
STRONGEST = 500_000  # … and more of them while there are no more than this in all

# (cells on a side, shades), from the best
RESOLUTIONS = (
    (512, 255),
    (512, 64),
    (512, 24),
    (384, 24),
    (256, 32),
    (256, 16),
    (192, 16),
    (128, 16),
    (96, 16),
    (64, 12),
)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title><style>{style}
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 1220px; padding: 1em; background: var(--ak-paper); color: var(--ak-ink); }}
h1 {{ font: 600 20px/1.3 sans-serif; margin: 0 8px 4px; }} .ak-note {{ font: 13px/1.4 sans-serif; margin: 0 8px 8px; }}
</style></head><body><main><h1>{title}</h1><p class="ak-note">{note}</p>
<div id="atlas">This page draws with a script; allow it to run.</div></main>
<script>{script}
open_stored(document.getElementById("atlas"), {stored}).then(view => {{ window.explorer = view; }});
</script></body></html>
"""


def page(board: Board, state: Mapping[str, Any], *, title: str) -> str:
    """The page of a board in a state; says with what resolution it was stored, and never takes more than 5 MB."""
    known = _known(board)
    at = known.index(state["measure"]) if state["measure"] in known else 0
    asked = dict(state) | {"rows": "head", "colour": "weight", "window": None, "measure": at}
    side, shades = _resolution(board, asked)
    stored = _stored(board, asked, side, shades)
    names = board.meta["units"]["words" if asked["words"] else "tokens"]
    n_row, n_column = stored["size"]
    cells = "every cell" if stored["steps"] == [1, 1] else f"the largest of {stored['steps'][0]} × {stored['steps'][1]}"
    note = (
        f"{n_row} queries × {n_column} keys, stored as {stored['shape'][0]} × {stored['shape'][1]} cells ({cells}) in "
        f"{shades} shades; the {stored['each']} strongest keys of every query as 1/255 steps of the root. "
        + ("Tokens gathered into words. " if asked["words"] else "")
        + ("" if asked["sinks"] else "Without sinks. ")
        + "Made by atlaskit; needs no network."
    )
    measures = board.meta["measures"]
    stored["meta"] = board.meta | {
        "measures": [measures[i] for i in known],
        "units": {"tokens": {"rows": names["rows"], "columns": names["columns"]}},
        "colours": board.meta["colours"][:1],
        "can_drop_sinks": False,
    }
    text = PAGE.format(
        title=markup.escape(title),
        note=markup.escape(note),
        style=theme.palette_css(":root") + STYLE,
        script=SCRIPT + asset("offline.js"),
        stored=json.dumps(stored, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )
    if len(text.encode()) > LARGEST_PAGE:
        raise ValueError(
            f"the page would take {len(text.encode()) / 1e6:.1f} MB, the limit is {LARGEST_PAGE / 1e6:.0f} MB: "
            f"{n_row} tokens × {len(board.meta['head_names'])} heads. Gather words, or take a shorter text"
        )
    return text


def _known(board: Board) -> list[int]:
    """The maps that a page without a kernel can show: what nobody asked for while there was one is left out."""
    maps = zip(board.meta["measures"], board.overview.values, strict=True)
    return [i for i, (told, values) in enumerate(maps) if not told.get("asks") or np.isfinite(values).any()]


def _heads(board: Board, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for layer in range(len(board.meta["layers"])):
        for head in range(board.meta["n_head"]):
            yield asked | {"layer": layer, "head": head}


def _shrunk(picture: Picture, side: int, shades: int) -> UInt8[np.ndarray, "row column"]:
    """Fewer cells, each the largest of a block, in fewer shades; 0 stays what is undefined."""
    small = levels.max_pool(picture.levels, blocks=[levels.block(n, side) for n in picture.levels.shape])
    fewer = np.append(0, 1 + np.rint(np.arange(255) / 254 * (shades - 1))).astype(np.uint8)
    return fewer[small]


def _resolution(board: Board, asked: dict[str, Any]) -> tuple[int, int]:
    """The best that fits, judged by a few heads of every layer."""
    some = list(_heads(board, asked))
    chosen = some[:: max(1, len(some) // 24)]
    pictures = [picture for one in chosen for picture in board.pictures(one)]
    for side, shades in RESOLUTIONS:
        packed = sum(len(_packed(_shrunk(picture, side, shades))) for picture in pictures)
        if packed / len(chosen) * len(some) < ROOM:
            return side, shades
    return RESOLUTIONS[-1]


def _stored(board: Board, asked: dict[str, Any], side: int, shades: int) -> dict[str, Any]:
    heads: list[list[str]] = []
    for one in _heads(board, asked):
        pictures = board.pictures(one)
        heads.append([_packed(_shrunk(picture, side, shades)) for picture in pictures])
    picture = pictures[0]
    small = _shrunk(picture, side, shades)
    blocks = [levels.block(n, side) for n in picture.levels.shape]
    tiles = board.tiles(asked)
    many = STRONGEST // (len(heads) * picture.window[1])
    keys, shown, masks, beside = board.strongest(asked, min(max(EACH, many), picture.window[3]))
    unique: dict[bytes, int] = {}
    of = [unique.setdefault(np.packbits(mask, axis=-1).tobytes(), len(unique)) for mask in masks]
    return {
        "heads": list(zip(*heads, strict=True)),
        "top": shades,
        "shape": list(small.shape),
        "steps": [step * by for step, by in zip(picture.steps, blocks, strict=True)],
        "size": [picture.window[1], picture.window[3]],
        "tiles": _packed(tiles),
        "tiles_shape": list(tiles.shape),
        "values": _packed(board.overview.values[_known(board)]),
        "chance": _packed(board.overview.chance[_known(board)]),
        "each": keys.shape[-1],
        "strongest": {
            "keys": [_packed(one) for one in keys],
            "levels": [_packed(one) for one in shown],
            "beside": None if beside is None else [_packed(one) for one in beside],
        },
        "supports": {"of": of, "packed": [_pack(one) for one in unique]},
        "state": asked,
    }


def _packed(array: np.ndarray) -> str:
    return _pack(np.ascontiguousarray(array).tobytes())


def _pack(data: bytes) -> str:
    """The smaller of two fast ways: repeats from far back, or of one cell only. Level 9 takes ten times as long."""
    both = [zlib.compressobj(6, strategy=strategy) for strategy in (zlib.Z_FILTERED, zlib.Z_RLE)]
    return base64.b64encode(min((one.compress(data) + one.flush() for one in both), key=len)).decode("ascii")
