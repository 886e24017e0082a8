"""ListOps: nested lists of digits with an operator each, to be worked out (after Nangia and Bowman 2018)."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import Any

import torch

from .batches import IGNORED, Batch
from .tasks import Task

DIGITS = 10
OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "MAX": max,
    "MIN": min,
    "MED": lambda numbers: int(statistics.median_low(numbers)),
    "SM": lambda numbers: sum(numbers) % DIGITS,
}
WORDS = [*map(str, range(DIGITS)), *OPERATORS, "]", "=", "blank"]
"""A token id is a place in this list. An operator opens its list, "]" closes it, "=" asks for the answer."""

Tree = int | tuple[str, list[Any]]


def list_ops(*, length: int, depth: int = 3, arguments: int = 4, rows: int = 16, seed: int = 0) -> Task:
    """Expressions and their "=", where the answer is asked for, in rows of `length` tokens; blanks after them."""
    if length < 6:
        raise ValueError(f"the shortest expression, MAX 1 2 ] and = and its answer, has 6 tokens; rows have {length}")

    def draw(generator: torch.Generator) -> Batch:
        luck = random.Random(int(torch.randint(1 << 31, (), generator=generator)))
        ids = torch.full((rows, length), WORDS.index("blank"))
        labels = torch.full_like(ids, IGNORED)
        for row in range(rows):
            words, answer = expression(luck, most=length - 2, depth=depth, arguments=arguments)
            ids[row, : len(words)] = torch.tensor([WORDS.index(word) for word in words])
            ids[row, len(words)] = WORDS.index("=")
            labels[row, len(words) + 1] = answer
        return {"input_ids": ids, "labels": labels}

    return Task("ListOps", len(WORDS), length, 1 / DIGITS, seed, draw)


def expression(luck: random.Random, *, most: int, depth: int, arguments: int) -> tuple[list[str], int]:
    """Words and value of one random expression of at most `most` words."""
    while True:
        tree = _tree(luck, depth, arguments)
        words = _words(tree)
        if 1 < len(words) <= most:
            return words, value(tree)


def value(tree: Tree) -> int:
    """What an expression comes to."""
    return tree if isinstance(tree, int) else OPERATORS[tree[0]]([value(part) for part in tree[1]])


def _tree(luck: random.Random, depth: int, arguments: int) -> Tree:
    if depth == 0:
        return luck.randrange(DIGITS)
    # half of the parts are lists again, as deep as may be
    parts = [_tree(luck, luck.choice((0, depth - 1)), arguments) for _ in range(luck.randint(2, arguments))]
    return luck.choice([*OPERATORS]), parts


def _words(tree: Tree) -> list[str]:
    if isinstance(tree, int):
        return [str(tree)]
    return [tree[0], *(word for part in tree[1] for word in _words(part)), "]"]
