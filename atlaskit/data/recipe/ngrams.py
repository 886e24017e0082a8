"""The baselines: what a table of counts predicts on the same held-out tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


@dataclass(frozen=True, eq=False)
class Level:
    """Counts of one order: of each (context, word), and of each context its total and its number of words."""

    keys: Int[ndarray, " pair"]
    counts: Int[ndarray, " pair"]
    contexts: Int[ndarray, " context"]
    totals: Int[ndarray, " context"]
    words: Int[ndarray, " context"]
    discount: float


@dataclass(frozen=True, eq=False)
class NGrams:
    """Interpolated Kneser–Ney up to an order of three (Chen & Goodman 1999, one discount for each order)."""

    vocabulary: int
    levels: tuple[Level, ...]


def fit(stream: Int[ndarray, " token"], *, vocabulary: int, order: int) -> NGrams:
    """Count a training stream."""
    highest = np.zeros(len(stream) - order + 1, dtype=np.int64)
    for place in range(order):
        highest = highest * vocabulary + stream[place : len(stream) - order + 1 + place]
    keys, counts = np.unique(highest, return_counts=True)
    levels = [_level(keys, counts, vocabulary)]
    for shorter in range(order - 1, 0, -1):
        # A lower order asks in how many contexts a word came, not how often: that is Kneser and Ney's idea.
        keys, counts = np.unique(levels[0].keys % vocabulary**shorter, return_counts=True)
        levels.insert(0, _level(keys, counts, vocabulary))
    return NGrams(vocabulary, tuple(levels))


def probability(model: NGrams, context: Int[ndarray, "n back"], word: Int[ndarray, " n"]) -> Float[ndarray, " n"]:
    """The probability of each word after its context; of the context's columns the last ones are used."""
    below = np.full(len(word), 1 / model.vocabulary)
    code = np.zeros(len(word), dtype=np.int64)
    for back, level in enumerate(model.levels):
        if back:
            code = code + context[:, -back].astype(np.int64) * model.vocabulary ** (back - 1)
        count = _look_up(level.keys, level.counts, code * model.vocabulary + word)
        total = _look_up(level.contexts, level.totals, code)
        seen = total > 0
        kept = (
            np.maximum(count - level.discount, 0) + level.discount * _look_up(level.contexts, level.words, code) * below
        )
        below = np.where(seen, kept / np.where(seen, total, 1), below)
    return below


def _level(keys: Int[ndarray, " pair"], counts: Int[ndarray, " pair"], vocabulary: int) -> Level:
    contexts, first = np.unique(keys // vocabulary, return_index=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return Level(
        keys,
        counts,
        contexts,
        totals=np.add.reduceat(counts, first),
        words=np.diff(np.append(first, len(keys))),
        discount=once / (once + 2 * twice) if once else 0.5,
    )


def _look_up(keys: Int[ndarray, " pair"], values: Int[ndarray, " pair"], wanted: Int[ndarray, " n"]) -> ndarray:
    """The value of each wanted key, zero where there is none."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
