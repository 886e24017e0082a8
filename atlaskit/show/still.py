"""The explorer as one picture, drawn without a browser: what a notebook shows where no kernel answers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from atlaskit.show import theme
from atlaskit.show.board import Board

SIDE = 400
MARGIN = 16
PAGE = 880
PLATE, WRITING = "#424242", "#ffffff"  # the caption lies on a ground of its own, as the page may be light or dark


def png(board: Board, state: Mapping[str, Any]) -> bytes:
    """Every head small, the chosen one large, on the page's own ground: what is undefined is clear."""
    pictures = board.pictures(state)
    small = _quilt(board, state)
    wide = MARGIN + small.width + (SIDE + MARGIN) * len(pictures) + MARGIN
    size = min(14 * max(1, wide / PAGE), 24)  # a page shrinks a wide sheet to its own width, and the words with it
    head = MARGIN + 18 + round(size)
    sheet = Image.new("RGBA", (wide, head + max(small.height, SIDE) + MARGIN + 8))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    words, place = _plain(caption(board, state)), (MARGIN, MARGIN - 4)
    left, top, right, bottom = pen.textbbox(place, words, font)
    pen.rounded_rectangle((left - 8, top - 5, right + 8, bottom + 5), 4, fill=PLATE)
    pen.text(place, words, WRITING, font)
    sheet.paste(small, (MARGIN, head))
    for i, (picture, panel) in enumerate(zip(pictures, board.meta["panels"], strict=False)):
        palette = panel["palette"] or _palette(board, state)
        large = Image.fromarray(_coloured(picture.levels, palette)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        left = 2 * MARGIN + small.width + i * (SIDE + MARGIN)
        sheet.paste(large, (left, head))
        pen.rectangle((left - 1, head - 1, left + SIDE, head + SIDE), outline=theme.NEUTRAL)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def caption(board: Board, state: Mapping[str, Any]) -> str:
    """What the picture shows, in words."""
    layer, head = board.meta["layers"][state["layer"]], state["head"]
    what = f"head {layer}.{head}, queries down, keys across" if state["rows"] == "head" else "one query in every head"
    return f"Attention of {board.meta['model']}: every head, and {what}"


def _palette(board: Board, state: Mapping[str, Any]) -> str:
    return next(str(one["palette"]) for one in board.meta["colours"] if one["name"] == state["colour"])


def _quilt(board: Board, state: Mapping[str, Any]) -> Image.Image:
    tiles = board.tiles(state)
    n_layer, n_head, high, wide = tiles.shape
    palette = board.meta["small_palette"] or _palette(board, state)
    framed = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1))).transpose(0, 2, 1, 3)
    cells = _coloured(framed.reshape(n_layer * (high + 1), n_head * (wide + 1)), palette)
    image = Image.fromarray(cells)
    scale = min(SIDE / image.width, SIDE / image.height)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BOX)


def _coloured(levels: UInt8[np.ndarray, "row column"], name: str) -> UInt8[np.ndarray, "row column 4"]:
    """Levels through a palette; what is undefined stays clear."""
    colours = theme.DIVERGING if name == "diverging" else theme.SEQUENTIAL
    table = np.array([[*(int(colour[i : i + 2], 16) for i in (1, 3, 5)), 255] for colour in colours], np.uint8)
    table[0] = 0
    return table[levels]


def _plain(text: str) -> str:
    """Pillow's own font knows no other letters."""
    return text.replace("\N{MINUS SIGN}", "-").encode("latin-1", "replace").decode("latin-1")
