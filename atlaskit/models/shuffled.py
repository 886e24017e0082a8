"""Texts without order: each document's own tokens, dealt out anew. The null of whatever order is said to do."""

from collections.abc import Iterable

import torch

from atlaskit.models.documents import tokenized
from atlaskit.models.model import Model
from atlaskit.models.tokenize import Text


def shuffled(model: Model, texts: Iterable[Text], *, seed: int, max_tokens: int | None = None) -> list[list[int]]:
    """Token ids of each text in an order drawn by `seed`; special tokens and the first keep their places.

    Give them in place of the texts. Word counts, lengths and documents stay what they were.
    """
    generator = torch.Generator().manual_seed(seed)
    dealt = []
    for tokens, _ in tokenized(model, texts, max_tokens):
        free = ~tokens.special
        free[0] = False
        places = free.nonzero().flatten()
        ids = tokens.ids.clone()
        ids[places] = tokens.ids[places[torch.randperm(len(places), generator=generator)]]
        dealt.append(ids.tolist())
    return dealt
