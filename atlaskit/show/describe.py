"""What a page has to know before its first question: names, scales, palettes. All of it text and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from atlaskit.show import cause, levels, theme
from atlaskit.show.heads import Source
from atlaskit.show.labels import short, visible
from atlaskit.show.overview import Measures
from atlaskit.show.pictures import Pictures, lift_limit

LONGEST_NAME = 40


def single(
    pictures: Pictures, measures: Measures, effects: Mapping[str, Float[np.ndarray, "layer head"]], *, askable: bool
) -> dict[str, Any]:
    """The page of one text."""
    source = pictures.source
    return {
        "model": source.model,
        "layers": list(source.layers),
        "n_head": source.n_head,
        "head_names": [f"{layer}.{head}" for layer in source.layers for head in range(source.n_head)],
        "units": units(pictures),
        "palettes": palettes(),
        "colours": [*colours(pictures), cause.colour(None, askable=askable)],
        "panels": [{"name": source.model, "palette": None}],
        "small_palette": None,
        "small_title": "Every head, layers down, heads across: …",
        "row_palette": "sequential",
        "row_choices": [["head", "queries of one head"], ["token", "every head, one query"]],
        "can_drop_sinks": len(source.source) > 2,
        "measures": [{"name": name, "unit": unit} for name, (_, unit) in measures.items()]
        + [{"name": name, "unit": "given", "signed": True, "has_null": False} for name in effects]
        + [{"name": cause.NAME, "unit": cause.UNIT, "signed": True, "has_null": False, "asks": True}] * askable,
        "noun": "Head",
        "verb": "reads",
        "far_title": "Largest",
        "far_column": "value",
        "reads_title": "What query … reads most",
        "row_heads": ["key", "weight", "ignorant head"],
    }


def pair(
    source: Source, units: Sequence[tuple[str, str]], sides: tuple[str, str], measures: Measures, *, writes: bool
) -> dict[str, Any]:
    """The page of two texts, between the units that both have; one that was replaced goes by both names.

    `writes`: the last map is how far what a head writes has moved.
    """
    common = names(one if one.strip() == other.strip() else f"{one}/{other.strip()}" for one, other in units)
    before, after = sides
    return {
        "model": f"{after} − {before}",
        "layers": list(source.layers),
        "n_head": source.n_head,
        "head_names": [f"{layer}.{head}" for layer in source.layers for head in range(source.n_head)],
        "units": {"tokens": {"rows": common, "columns": None}},
        "palettes": palettes(),
        "colours": [{"name": "weight", "label": "attention weight", **root_scale(1.0)}],
        "panels": [
            {"name": before, **root_scale(1.0), "label": "attention weight"},
            {"name": after, **root_scale(1.0), "label": "attention weight"},
            {"name": f"{after} − {before}", **signed_scale(), "label": "difference in weight"},
        ],
        "small_palette": "diverging",
        "small_title": "Every head: the difference, layers down, heads across",
        "row_palette": "diverging",
        "row_choices": [["head", "queries of one head"]],
        "can_drop_sinks": False,
        "measures": [{"name": "attention moved", "unit": "share", "has_null": False}]
        + [
            {"name": f"change in {name}", "unit": unit, "signed": True, "has_null": False}
            for name, (_, unit) in measures.items()
        ]
        + [{"name": "writing moved", "unit": "length in the stream", "has_null": False}] * writes,
        "noun": "Head",
        "verb": "changed",
        "far_title": "Most changed",
        "far_column": "change",
        "reads_title": "What changed most for query …",
        "row_heads": ["key", "difference", "before"],
    }


def signed_scale() -> dict[str, Any]:
    """The scale of a difference of weights, even in the root of either sign."""
    shares = (-1.0, -0.2, -0.02, 0.0, 0.02, 0.2, 1.0)
    return {
        "palette": "diverging",
        "scale": {"kind": "signed root", "top": 1.0},
        "ticks": [[128 + 127 * math.copysign(abs(share) ** 0.5, share), theme.number(share)] for share in shares],
    }


def palettes() -> dict[str, str]:
    """256 colours each, as one string of hexadecimal digits."""
    return {
        "sequential": "".join(colour.removeprefix("#").lower() for colour in theme.SEQUENTIAL),
        "diverging": "".join(colour.removeprefix("#").lower() for colour in theme.DIVERGING),
    }


def root_scale(top: float) -> dict[str, Any]:
    """The scale of a weight, even in its root, with its ticks."""
    shares = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
    return {
        "palette": "sequential",
        "scale": {"kind": "root", "top": top},
        "ticks": [[levels.level_of(share, top=levels.COARSE), theme.number(share * top)] for share in shares],
    }


def colours(pictures: Pictures) -> Iterable[dict[str, Any]]:
    """What the large picture may be coloured by."""
    yield {"name": "weight", "label": "attention weight", **root_scale(1.0)}
    longest = pictures.longest_value()
    if np.isfinite(longest):
        yield {"name": "value", "label": "weight × length of value vector", **root_scale(longest)}
    limit = lift_limit(pictures.reader(False, True))
    yield {
        "name": "lift",
        "label": "lift: log₂(weight / ignorant head)",
        "palette": "diverging",
        "scale": {"kind": "even", "top": limit},
        "ticks": [[1, f"−{limit}"], [128, "0"], [255, str(limit)]],
    }


def units(pictures: Pictures) -> dict[str, Any]:
    """Names of rows and columns, by token and by word; columns only where they are another text's."""
    source = pictures.source
    same = source.tokens is source.source
    words = pictures.reader(True, True)
    named: dict[str, Any] = {
        "tokens": {"rows": names(source.tokens.strings), "columns": None if same else names(source.source.strings)}
    }
    if len(words.rows) < len(source.tokens) or len(words.columns) < len(source.source):
        named["words"] = {
            "rows": names(words.rows.names),
            "columns": None if same else names(words.columns.names),
            "starts": words.rows.starts[:-1].tolist(),
        }
    return named


def names(tokens: Iterable[str]) -> list[str]:
    """Every character seen, none acting."""
    return [short(visible(token), LONGEST_NAME) for token in tokens]
