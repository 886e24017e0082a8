"""Marked-up manuals to plain paragraphs: only what reads as prose stays."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\u00a0": " "})


def plain(text: str) -> str:
    """One line of ASCII: typographic signs to their plain twins, accents dropped, spaces single."""
    text = unicodedata.normalize("NFKD", text.translate(_QUOTES)).encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", text).strip()


def is_prose(paragraph: str) -> bool:
    """At least eight words, ended like a sentence, and made of letters more than of signs."""
    letters = sum(c.isalpha() or c == " " for c in paragraph)
    return len(paragraph.split()) >= 8 and paragraph[-1] in ".:?!)" and letters >= 0.88 * len(paragraph)


def prose_of_rst(text: str) -> str:
    """The paragraphs of a reStructuredText file, roles and links reduced to their words."""
    text = re.sub(r":[\w:+-]+:`[!~]?([^`<]*?)(?:\s*<[^`>]*>)?`", r"\1", text)  # :func:`~os.path <target>`
    text = re.sub(r"`([^`<]*?)\s*<[^`>]*>`_{0,2}", r"\1", text)  # `words <address>`_
    text = re.sub(r"``([^`]*)``", r"\1", text).replace("`", "")
    text = re.sub(r"\*\*?(\S[^*]*?)\*\*?", r"\1", text)
    text = re.sub(r"\|(\w+)\|", r"\1", text).replace("\\", "")
    return _join(p for p in re.split(r"\n\s*\n", text) if not p.lstrip().startswith((".. ", ">>>", "|", "+-", "==")))


def _join(paragraphs: Iterable[str]) -> str:
    lines = (re.sub(r"^[-*#] |^\d+[.)] ", "", plain(p)) for p in paragraphs)
    return "\n".join(line for line in lines if is_prose(line))
