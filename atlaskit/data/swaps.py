"""What a sentence of your own would say about another group: counterparts of the words in the bundled pairs."""

from __future__ import annotations

import csv
import re
from functools import cache

from .pair import BUNDLED, CONTROL

SOUNDS_LIKE_A_VOWEL = re.compile(r"(?!uni|us[ei]|eu|one\b)[aeiou]|hour|hono|heir", re.IGNORECASE)
"""How a word begins that takes "an": not "university" or "European", but "heir"."""


START = re.compile(r"(^|[.!?]\s+)[\"'“‘(]*$")
"""Before the first word of a sentence."""


def swaps(sentence: str, own: str = "") -> dict[str, str]:
    """Every exchange of a group that the sentence offers: the other sentence by names such as "woman → man (gender)".

    Words come from the bundled pairs, those of the control pairs among them: what a swap does that means nothing.
    `own` is yours, "woman/man, she/he", and then the only one. All occurrences are exchanged, case is kept, and an "a"
    before a word becomes "an" where it must. Raises ValueError where there is nothing to exchange.
    """
    if own.strip():
        yours = dict(_couple(part) for part in own.split(","))
        offered = {", ".join(f"{word} → {other}" for word, other in yours.items()): yours}
        sought = ", ".join(map(repr, yours))
    else:
        offered = {f"{word} → {other} ({domain})": {word: other} for (word, other), domain in _couples().items()}
        sought = "no listed word"
    found = {
        name: changed for name, couples in offered.items() if (changed := _exchanged(sentence, couples)) != sentence
    }
    if not found:
        raise ValueError(f"{sought} is in {sentence!r}, so nothing is exchanged; write a swap as word/other")
    return found


def _couple(typed: str) -> tuple[str, str]:
    word, slash, other = (part.strip() for part in typed.partition("/"))
    if not (word and slash and other):
        raise ValueError(f"{typed.strip()!r} is no swap; write word/other, such as woman/man")
    return word, other


@cache
def _couples() -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    with BUNDLED.open(newline="", encoding="utf-8") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: row["domain"] == CONTROL):
            one, other = row["group_1"], row["group_2"]
            for couple in ((one, other), (other, one)):
                found.setdefault(couple, row["domain"])
    return found


def _exchanged(sentence: str, couples: dict[str, str]) -> str:
    """In one pass, so that what was put in is not exchanged again. Black is not black; sentences begin as they must."""
    begins = {_raised(word): other for word, other in couples.items()}
    words = "|".join(re.escape(word) for word in sorted({*couples, *begins}, key=len, reverse=True))

    def instead(match: re.Match[str]) -> str:
        word, first = match["word"], START.search(sentence[: match.start("word")]) is not None
        if word not in couples and not (first and word in begins):
            return match[0]
        new = couples.get(word) or begins[word]
        if match["article"] is None:
            return _raised(new) if first and word[:1].isupper() else new
        article = match["article"][0] + ("n" if SOUNDS_LIKE_A_VOWEL.match(new) else "")
        return article + match["gap"] + new

    return re.sub(rf"(?:\b(?P<article>[Aa]n?)(?P<gap>\s+))?(?<!\w)(?P<word>{words})(?!\w)", instead, sentence)


def _raised(word: str) -> str:
    return word[:1].upper() + word[1:]
