"""A corpus before the model reads it: tokenised whole, so that what cannot be read is named before any work is done."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from atlaskit.models.model import Model
from atlaskit.models.tokenize import Text
from atlaskit.records import Tokens

Document: TypeAlias = Text | tuple[Text, Text]
"""A text; for an encoder–decoder a pair of what it reads and what it writes."""

Read: TypeAlias = tuple[Tokens, Tokens]
"""Tokens of a document, and of what they are read from: for all but encoder–decoders the same."""


def pair(model: Model, text: Text, source: Text | None, max_tokens: int | None) -> tuple[Tokens, Tokens]:
    """Tokens of the text and of what an encoder–decoder reads; for every other model these are the same."""
    if model.is_encoder_decoder and source is None:
        raise ValueError(f"{model.name} is an encoder–decoder: say what it reads too, as source=…")
    if source is not None and not model.is_encoder_decoder:
        raise ValueError(f"{model.name} reads one text only; source=… is for encoder–decoders")
    tokens = model.tokens(text, max_tokens=max_tokens)
    return tokens, tokens if source is None else model.tokens(source, max_tokens=max_tokens)


def tokenized(model: Model, texts: Iterable[Document], max_tokens: int | None) -> list[Read]:
    """Each document's tokens. Raises ValueError, naming the document, for one that cannot be read."""
    if isinstance(texts, str):
        raise TypeError("texts is one string; give a list of texts, or [text] for one")
    documents = []
    for i, document in enumerate(texts):
        text, source = (document[1], document[0]) if isinstance(document, tuple) else (document, None)
        try:
            documents.append(pair(model, text, source, max_tokens))
        except ValueError as error:
            raise ValueError(f"text {i}: {error}") from error
    if not documents:
        raise ValueError("there are no texts")
    return documents


def moved(document: Read, device: torch.device) -> Read:
    """A document whose tensors lie where the patterns are, so that a selector can be made there."""
    tokens, source = (
        replace(part, ids=part.ids.to(device), spans=part.spans.to(device), special=part.special.to(device))
        for part in document
    )
    return tokens, source


def identity(document: Read) -> str:
    """A text that differs wherever what a model or a score sees of a document may differ: not its ids alone."""
    told = [(part.text, part.strings, *(x.tolist() for x in (part.ids, part.spans, part.special))) for part in document]
    return hashlib.sha256(repr(told).encode("utf-8", "surrogatepass")).hexdigest()


def batches(documents: Sequence[Read], places: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """The places in groups of like length, none of which holds more than `batch_tokens` when padded, or one document.

    With `batch_tokens` 0 each stands alone, in the order given.
    """
    if not batch_tokens:
        return [[place] for place in places]
    groups: list[list[int]] = []
    for place in sorted(places, key=lambda i: (_length(documents[i]), i)):
        # the newcomer is the longest, so the whole group is padded to it
        if groups and (len(groups[-1]) + 1) * _length(documents[place]) <= batch_tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _length(document: Read) -> int:
    return max(len(part) for part in document)
