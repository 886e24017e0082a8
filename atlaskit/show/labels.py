"""Tokens as labels: every character can be seen, none can act."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from atlaskit.records import Tokens

GLYPHS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}
ZERO_WIDTH_JOINERS = "\u200c\u200d"
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


def strings(tokens: Tokens | Sequence[str]) -> tuple[str, ...]:
    """The strings of a tokenised text, or of a plain sequence of strings."""
    return tokens.strings if isinstance(tokens, Tokens) else tuple(tokens)


def visible(token: str) -> str:
    """The token with every unseen character given a glyph: " the" is "␣the", a direction mark is ⟨202E⟩.

    Whitespace is what tells many tokens apart, and a direction or control mark in a label could reorder or swallow
    its neighbours. Joiners stay where they join, inside emoji and Persian words.
    """
    if not token:
        return "∅"
    shown = [_glyph(token, i) for i in range(len(token))]
    # A combining mark at the start would sit on whatever stands before the label.
    return ("◌" if unicodedata.category(token[0]).startswith("M") else "") + "".join(shown)


def _glyph(token: str, i: int) -> str:
    character = token[i]
    if character in GLYPHS:
        return GLYPHS[character]
    if unicodedata.category(character) not in UNSEEN:
        return character
    if character in ZERO_WIDTH_JOINERS and 0 < i < len(token) - 1:
        return character
    return chr(0x2400 + ord(character)) if ord(character) < 0x20 else f"⟨{ord(character):04X}⟩"


def short(text: str, width: int = 14) -> str:
    """The text cut to a width in columns, with an ellipsis; East Asian characters and emoji are two columns wide."""
    used = 0
    for i, character in enumerate(text):
        used += _columns(character)
        if used > width:
            kept = _fit(text[:i], width - 1)
            return kept.rstrip(ZERO_WIDTH_JOINERS) + "…"
    return text


def _fit(text: str, width: int) -> str:
    while text and sum(map(_columns, text)) > width:
        text = text[:-1]
    return text


def _columns(character: str) -> int:
    if unicodedata.category(character).startswith("M") or character in ZERO_WIDTH_JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def plain(text: str) -> str:
    """Prose for a title or an axis: Bokeh would read $$ … $$, \\( … \\) and \\[ … \\] as TeX."""
    return re.sub(r"\$\$|\\\[|\\\(", lambda found: "\u2060".join(found[0]), text)
