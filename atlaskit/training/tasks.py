"""Small tasks of known difficulty: each batch follows from the seed and the step, so that a resumed run sees the same.

All are next-token tasks: the model at position t is asked for ``labels[t + 1]``, and only where an answer exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .batches import IGNORED, Batch


@dataclass(frozen=True)
class Task:
    """Batches by step. `chance` is the accuracy of the best guess that does not look at the row.

    `vocab` counts token ids, `length` tokens a row. `draw` makes a batch from a generator; `draw_held_out` the others,
    where they come from elsewhere.
    """

    name: str
    vocab: int
    length: int
    chance: float
    seed: int
    draw: Callable[[torch.Generator], Batch]
    draw_held_out: Callable[[torch.Generator], Batch] | None = None

    def batch(self, step: int) -> Batch:
        """The batch of a training step; what `train` asks for."""
        return self.draw(_generator(f"train {self.seed} {step}"))

    def held_out(self, count: int) -> list[Batch]:
        """Batches that no training step sees; the same for every seed, so that runs are compared on the same rows."""
        draw = self.draw_held_out or self.draw
        return [draw(_generator(f"held out {number}")) for number in range(count)]


def copy(lag: int, *, length: int, alphabet: int = 8, rows: int = 16, seed: int = 0) -> Task:
    """Repeat the token of `lag` positions ago, in a row of random ones: one distance has to be read, and no other."""
    _require(lag < length, f"copying from {lag} tokens back needs rows longer than {lag}; these have {length}")

    def draw(generator: torch.Generator) -> Batch:
        ids = torch.randint(alphabet, (rows, length), generator=generator)
        labels = torch.full_like(ids, IGNORED)
        labels[:, lag + 1 :] = ids[:, : length - lag - 1]
        return {"input_ids": ids, "labels": labels}

    return Task(f"copy {lag}", alphabet, length, 1 / alphabet, seed, draw)


def needle(distance: int, *, length: int, keys: int = 8, values: int = 8, rows: int = 16, seed: int = 0) -> Task:
    """A key and its value lie in noise; `distance` after the value the key comes back and the value is asked for.

    The place changes from row to row: the needle has to be found by what it is, `distance` says how far away.
    """
    needed = distance + 3  # key, value, and a token for the answer after the question
    _require(distance >= 1 and needed <= length, f"a needle {distance} back needs rows of {needed}, not of {length}")

    def draw(generator: torch.Generator) -> Batch:
        ids = keys + values + torch.randint(8, (rows, length), generator=generator)
        key = torch.randint(keys, (rows,), generator=generator)
        value = keys + torch.randint(values, (rows,), generator=generator)
        place = torch.randint(length - distance - 2, (rows,), generator=generator)  # of the key
        row = torch.arange(rows)
        ids[row, place], ids[row, place + 1], ids[row, place + 1 + distance] = key, value, key
        return _answers(ids, row, place + 1 + distance, value)

    return Task(f"needle {distance}", keys + values + 8, length, 1 / values, seed, draw)


def selective_copy(items: int, *, length: int, alphabet: int = 8, rows: int = 16, seed: int = 0) -> Task:
    """Tokens scattered among blanks, then as many marks: the tokens are to be told in order (Gu and Dao 2023)."""
    needed = 2 * items + 1
    _require(needed <= length, f"{items} items and their marks need rows of {needed}; these have {length}")
    blank, mark = alphabet, alphabet + 1

    def draw(generator: torch.Generator) -> Batch:
        room = length - items - 1
        told = torch.randint(alphabet, (rows, items), generator=generator)
        places = torch.rand(rows, room, generator=generator).argsort(1)[:, :items].sort(1).values
        ids = torch.full((rows, length), mark)
        ids[:, :room] = torch.full((rows, room), blank).scatter(1, places, told)
        return _answers(ids, torch.arange(rows)[:, None], torch.arange(room, length - 1)[None], told)

    return Task(f"selective copy of {items}", alphabet + 2, length, 1 / alphabet, seed, draw)


def associative_recall(pairs: int, *, length: int, keys: int = 32, rows: int = 16, seed: int = 0) -> Task:
    """Keys with their values, then each key again at a place drawn at random: what was its value? (MQAR, Arora 2023).

    Every distance occurs and content alone tells which: the task that fixed sparse patterns are expected to fail.
    """
    _require(pairs <= keys, f"{pairs} pairs need as many different keys; there are {keys}")
    needed = 3 * pairs + 1
    _require(needed <= length, f"{pairs} pairs and their questions need rows of {needed}; these have {length}")
    blank = 2 * keys

    def draw(generator: torch.Generator) -> Batch:
        key = torch.rand(rows, keys, generator=generator).argsort(1)[:, :pairs]
        value = keys + torch.randint(keys, (rows, pairs), generator=generator)
        room = length - 2 * pairs - 1
        places = 2 * pairs + torch.rand(rows, room, generator=generator).argsort(1)[:, :pairs]
        ids = torch.full((rows, length), blank)
        ids[:, 0 : 2 * pairs : 2], ids[:, 1 : 2 * pairs : 2] = key, value
        ids.scatter_(1, places, key)
        return _answers(ids, torch.arange(rows)[:, None], places, value)

    return Task(f"recall of {pairs} pairs", 2 * keys + 1, length, 1 / keys, seed, draw)


@torch.no_grad()
def accuracy(model: nn.Module, batches: list[Batch]) -> Float[Tensor, " row"]:
    """Share of the answers that the model's likeliest token gets right, for each row, with dropout off."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    found = []
    for given in batches:
        wanted = given["labels"][:, 1:].to(device)
        guess = model(input_ids=given["input_ids"].to(device)).logits[:, :-1].argmax(-1)
        asked = wanted != IGNORED
        found.append(((guess == wanted) & asked).sum(1) / asked.sum(1))
    model.train(was_training)
    return torch.cat(found).cpu()


def _answers(
    ids: Int[Tensor, "row length"], row: Int[Tensor, "*#size"], place: Int[Tensor, "*#size"], answer: Tensor
) -> Batch:
    """The answer is asked for at `place`, so its label stands one further."""
    labels = torch.full_like(ids, IGNORED)
    labels[row, place + 1] = answer
    return {"input_ids": ids, "labels": labels}


def _generator(words: str) -> torch.Generator:
    # torch's generator reads 32 bits of its seed, so seed and step are hashed together instead of put side by side
    return torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(words.encode(), digest_size=4).digest()))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
