"""Language modelling as a task: texts to one stream of characters or tokens, and random windows of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .batches import Batch, causal_batch, windows
from .tasks import Task

BETWEEN = "\n\n"
"""What separates texts in a stream of characters."""


def character_stream(texts: Sequence[str]) -> tuple[Int[Tensor, " token"], str]:
    """The texts as one stream of character ids, and the alphabet: an id is a place in it."""
    whole = BETWEEN.join(texts)
    alphabet = "".join(sorted(set(whole)))
    places = {character: place for place, character in enumerate(alphabet)}
    return torch.tensor([places[character] for character in whole]), alphabet


def token_stream(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Int[Tensor, " token"]:
    """The texts as one stream of a tokenizer's ids (BPE or whatever it is), each with its special tokens."""
    return torch.tensor([i for text in texts for i in tokenizer(text)["input_ids"]])


def language(
    stream: Int[Tensor, " token"], *, vocab: int, length: int, held_out: float = 0.1, rows: int = 16, seed: int = 0
) -> Task:
    """Next-token prediction on random windows of a stream, whose last `held_out` part is kept for `Task.held_out`.

    `chance` is the share of the commonest token: what a guess that looks at nothing gets right.
    """
    cut = len(stream) - max(round(held_out * len(stream)), length)
    if cut < length:
        raise ValueError(
            f"{len(stream)} tokens do not divide into rows of {length} to train on and one to hold out; give more text"
        )

    def draw(part: Int[Tensor, " token"], generator: torch.Generator) -> Batch:
        return causal_batch(windows(part, rows=rows, length=length, generator=generator))

    unseen = stream[cut:]
    chance = float(unseen.bincount().max()) / len(unseen)
    return Task("language", vocab, length, chance, seed, partial(draw, stream[:cut]), partial(draw, unseen))
