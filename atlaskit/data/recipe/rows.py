"""What a training step sees: natural text, and passages that come twice.

Text of this size alone may not teach a small decoder to copy, so some of its rows are random tokens that repeat, and an
eighth are natural text with a passage pasted again further on. The cards say so.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from atlaskit.training import windows


def pasted(rows: Int[Tensor, "row length"], *, generator: torch.Generator) -> Int[Tensor, "row length"]:
    """Natural rows in which a passage of an eighth to almost half the row comes again at a random later place."""
    rows = rows.clone()
    length = rows.shape[1]
    for row in rows:
        size = int(torch.randint(length // 8, length // 2, (), generator=generator))
        start = int(torch.randint(0, length - 2 * size + 1, (), generator=generator))
        again = int(torch.randint(start + size, length - size + 1, (), generator=generator))
        row[again : again + size] = row[start : start + size].clone()
    return rows


def random_repeats(
    ids: Int[Tensor, " id"], *, rows: int, length: int, generator: torch.Generator
) -> tuple[Int[Tensor, "row length"], Bool[Tensor, "row length"]]:
    """Random tokens that repeat with a random period; and where they are in their first round, which none can foresee.

    Each row has its own alphabet, of four tokens up to all of them: copying is found first where the alphabet is small.
    """
    kinds = (4 * (len(ids) / 4) ** torch.rand((rows, 1), generator=generator)).long()
    alphabets = ids[torch.randint(len(ids), (rows, len(ids)), generator=generator)]
    letters = (torch.rand((rows, length), generator=generator) * kinds).long()
    drawn = alphabets.gather(1, letters)
    period = torch.randint(6, length // 4 + 1, (rows, 1), generator=generator)
    place = torch.arange(length)
    return drawn.gather(1, place % period), place < period


def decoder_rows(
    text: Int[Tensor, " token"],
    ids: Int[Tensor, " id"],
    *,
    rows: int,
    random_rows: int,
    length: int,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "row length"], Bool[Tensor, "row length"]]:
    """One step's rows for a decoder, and which of their tokens nobody could foresee."""
    share = rows // 8
    natural = windows(text, rows=rows - random_rows, length=length, generator=generator)
    natural[:share] = pasted(natural[:share], generator=generator)
    noise, unforeseen = random_repeats(ids, rows=random_rows, length=length, generator=generator)
    skip = torch.cat([torch.zeros_like(natural, dtype=torch.bool), unforeseen])
    return torch.cat([natural, noise]), skip


def encoder_rows(
    text: Int[Tensor, " token"], *, rows: int, length: int, ends: tuple[int, int], generator: torch.Generator
) -> Int[Tensor, "row length"]:
    """One step's rows for an encoder: [CLS] text [SEP], a passage pasted again in an eighth of them."""
    natural = windows(text, rows=rows, length=length - 2, generator=generator)
    share = rows // 8
    natural[:share] = pasted(natural[:share], generator=generator)
    first, last = (torch.full((rows, 1), i) for i in ends)
    return torch.cat([first, natural, last], dim=1)
