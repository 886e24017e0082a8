"""Minimal pairs: two sentences that differ in the group they speak of and in nothing else."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTROL = "control"
"""The domain of the bundled pairs that carry no stereotype: what any swap of words does to a score."""

WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
BUNDLED = Path(__file__).parent / "pairs" / "pairs.csv"

Span = tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A sentence that agrees with a stereotype, and the same sentence about another group.

    Pairs of one `family` share words and are not independent: a family, not a pair, is the unit of statistics.
    `context` comes before both sentences, `unrelated` is a third that makes no sense, "" where there is none.
    Raises ValueError for a sentence that is empty, and for two that are the same.
    """

    name: str
    domain: str
    family: str
    stereotype: str
    counter: str
    context: str = ""
    unrelated: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "domain", "family", "stereotype", "counter"):
            if not getattr(self, field).strip():
                raise ValueError(f"pair {self.name!r}: its {field} is empty")
        if self.stereotype.split() == self.counter.split():
            raise ValueError(f"pair {self.name!r}: both sentences are {self.counter!r}, so there is nothing to compare")

    @property
    def spans(self) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """Where the two sentences differ, as character spans of whole words: in the stereotype, in the counter.

        After a context the whole sentence is what differs, as in StereoSet's intersentence setting.
        """
        if self.context:
            return ((0, len(self.stereotype)),), ((0, len(self.counter)),)
        return differing(self.stereotype, self.counter)


def differing(one: str, other: str) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Spans of the words in which two texts differ; neighbours are one span. A side that only lacks words has none."""
    words = [[match.span() for match in WORD.finditer(text)] for text in (one, other)]
    mine, theirs = ([text[start:end] for start, end in spans] for text, spans in zip((one, other), words, strict=True))
    blocks = difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()
    found: tuple[list[Span], list[Span]] = ([], [])
    for kind, first, last, start, stop in blocks:
        if kind != "equal":
            for side, spans, (low, high) in zip(found, words, ((first, last), (start, stop)), strict=True):
                if high > low:
                    side.append((spans[low][0], spans[high - 1][1]))
    return tuple(found[0]), tuple(found[1])


def pairs(domains: Sequence[str] = ()) -> list[Pair]:
    """The bundled minimal pairs, all of them or those of some domains; `CONTROL` is one of the domains.

    Each family crosses two groups with two attributes, so that a group's, or an attribute's, own frequency cancels
    from the family's mean: (woman, nurse) against (man, nurse), and (man, engineer) against (woman, engineer).
    """
    found = []
    with BUNDLED.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            one, other = row["group_1"], row["group_2"]
            for letter, attribute, more, less in (("a", "attribute_1", one, other), ("b", "attribute_2", other, one)):
                say = [row["sentence"].format(group=group, attribute=row[attribute])
                       for group in (more, less, row["unrelated"])]  # fmt: skip
                found.append(
                    Pair(row["family"] + letter, row["domain"], row["family"], say[0], say[1], unrelated=say[2])
                )
    return select_pairs(found, domains)


def groups() -> dict[str, tuple[str, ...]]:
    """The words for groups in the bundled pairs, by domain: lists to label a text with, for want of a better label."""
    found: dict[str, dict[str, None]] = {}
    with BUNDLED.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["domain"] != CONTROL:
                found.setdefault(row["domain"], {}).update(dict.fromkeys((row["group_1"], row["group_2"])))
    return {domain: tuple(words) for domain, words in found.items()}


def select_pairs(pairs: Iterable[Pair], domains: Sequence[str]) -> list[Pair]:
    """The pairs of some domains, all where none is named. Raises ValueError for a domain that has no pair."""
    every = list(pairs)
    there = sorted({pair.domain for pair in every})
    if not every:
        raise ValueError("there are no pairs to choose from")
    if empty := [domain for domain in domains if domain not in there]:
        raise ValueError(f"no pair is of the domain {', '.join(map(repr, empty))}; there are {', '.join(there)}")
    return [pair for pair in every if not domains or pair.domain in domains]
