"""Every token of many sentences as a point: how a head treats it, what it is like, and whether it is what differs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.data import Pair
from atlaskit.data.pair import Span
from atlaskit.models.capture import capture
from atlaskit.models.model import Model
from atlaskit.models.words import closed_class_words
from atlaskit.records import Tokens

KeyScore: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A number for each head and key, from a pattern and its support: ``measure.key_lift``."""


@dataclass(frozen=True, eq=False)
class SpanPoints:
    """Tokens of all sentences one after another. Points of a stratum share word class and place in the sentence.

    `documents` numbers families, which are independent of one another as pairs of a family are not.
    """

    values: Float[Tensor, "point layer head"]
    chosen: Bool[Tensor, " point"]
    strata: Int[Tensor, " point"]
    documents: Int[Tensor, " point"]
    families: tuple[str, ...]


def span_points(model: Model, pairs: Sequence[Pair], *, controls: Sequence[Pair], score: KeyScore) -> SpanPoints:
    """Score every token of both sentences of the pairs, whose spans are chosen, and of the controls, where none is.

    The word class is that of a closed-class list: function word, number, punctuation or none of these. Special tokens
    take no part.
    """
    values, chosen, kinds, places, documents = [], [], [], [], []
    families = {family: i for i, family in enumerate(dict.fromkeys(p.family for p in (*pairs, *controls)))}
    for i, pair in enumerate((*pairs, *controls)):
        for text, spans in zip((pair.stereotype, pair.counter), pair.spans, strict=True):
            seen = capture(model, text)
            kept = (~seen.tokens.special).nonzero()[:, 0]
            scores = torch.stack([score(layer.pattern, layer.support) for layer in seen.layers])
            values.append(scores[..., kept].permute(2, 0, 1))
            chosen.append((tokens_in(seen.tokens, spans) & (i < len(pairs)))[kept])
            kinds += [_CLASSES.index(kind) for kind in _classes(seen.tokens, kept)]
            places.append(kept)
            documents += [families[pair.family]] * len(kept)
    place = torch.cat(places)
    return SpanPoints(
        torch.cat(values), torch.cat(chosen), torch.tensor(kinds) * (int(place.max()) + 1) + place,
        torch.tensor(documents), tuple(families),
    )  # fmt: skip


def tokens_in(tokens: Tokens, spans: Iterable[Span]) -> Bool[Tensor, " token"]:
    """Which tokens hold a character of the spans; special ones hold none."""
    inside = torch.zeros(len(tokens), dtype=torch.bool)
    for start, end in spans:
        inside |= (tokens.spans[:, 0] < end) & (tokens.spans[:, 1] > start)
    return inside & ~tokens.special


_CLASSES = ("", "PUNCT", "NUM", "function")


def _classes(tokens: Tokens, kept: Int[Tensor, " point"]) -> list[str]:
    """The class of the word in which each token ends."""
    words = closed_class_words(tokens.text)
    ends = words.spans[:, 1].contiguous()
    found = []
    for end in tokens.spans[kept, 1].tolist():
        at = min(int(torch.searchsorted(ends, end)), len(words) - 1)
        found.append(words.upos[at] if words.upos[at] in _CLASSES else "function")
    return found
