"""Documents to streams of token ids, split by document once and for all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .packages import Document

Part = Literal["train", "validation", "test"]


def part_of(name: str) -> Part:
    """Which part a document belongs to: 94 % train, 3 % validation, 3 % test, by a hash of its name alone."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.94 else "validation" if share < 0.97 else "test"


def texts_of(documents: Sequence[Document], part: Part) -> list[str]:
    """The texts of one part, in the order of their names."""
    return [d.text for d in documents if part_of(d.name) == part]


def stream(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, *, end: int) -> Int[Tensor, " token"]:
    """All texts as one row of ids, the end token after each."""
    encoded = tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return torch.tensor([i for e in encoded for i in [*e.ids, end]])
