"""Rows of token ids to batches for the two objectives: next token, and masked token."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Batch = dict[str, Tensor]
"""What a transformers language model takes by name; labels are -100 where nothing is to be predicted."""

IGNORED = -100


def windows(
    stream: Int[Tensor, " token"], *, rows: int, length: int, generator: torch.Generator
) -> Int[Tensor, "row length"]:
    """Rows of `length` neighbouring tokens, each from a place of the stream drawn at random."""
    last = len(stream) - length
    if last < 0:
        raise ValueError(
            f"The text has {len(stream)} tokens, a row needs {length}. Give more text or train on shorter rows."
        )
    starts = torch.randint(last + 1, (rows, 1), generator=generator)
    return stream[starts + torch.arange(length)]


def causal_batch(rows: Int[Tensor, "row length"], *, skip: Bool[Tensor, "row length"] | None = None) -> Batch:
    """Predict each token from those before it, except tokens marked in `skip`."""
    labels = rows if skip is None else rows.masked_fill(skip, IGNORED)
    return {"input_ids": rows, "labels": labels}


def masked_batch(
    rows: Int[Tensor, "row length"],
    *,
    special: Bool[Tensor, " vocab"],
    mask_id: int,
    rate: float,
    generator: torch.Generator,
) -> Batch:
    """Predict hidden tokens from all others: of those chosen 80 % show [MASK], 10 % a random token, 10 % themselves.

    Special tokens are neither chosen nor put in. Devlin et al. 2019.
    """
    chosen = (torch.rand(rows.shape, generator=generator) < rate) & ~special[rows]
    fate = torch.rand(rows.shape, generator=generator)
    plain_ids = torch.nonzero(~special).squeeze(-1)
    random_ids = plain_ids[torch.randint(len(plain_ids), rows.shape, generator=generator)]
    shown = torch.where(chosen & (fate < 0.8), torch.full_like(rows, mask_id), rows)
    shown = torch.where(chosen & (fate >= 0.9), random_ids, shown)
    return {
        "input_ids": shown,
        "attention_mask": torch.ones_like(rows),
        "labels": rows.masked_fill(~chosen, IGNORED),
    }
