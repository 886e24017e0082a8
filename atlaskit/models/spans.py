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
            kinds.append(word_classes(text, seen.tokens.spans[kept]))
            places.append(kept)
            documents += [families[pair.family]] * len(kept)
    place = torch.cat(places)
    return SpanPoints(
        torch.cat(values), torch.cat(chosen), torch.cat(kinds) * (int(place.max()) + 1) + place,
        torch.tensor(documents), tuple(families),
    )  # fmt: skip


def tokens_in(tokens: Tokens, spans: Iterable[Span]) -> Bool[Tensor, " token"]:
    """Which tokens hold a character of the spans; special ones hold none."""
    inside = torch.zeros(len(tokens), dtype=torch.bool)
    for start, end in spans:
        inside |= (tokens.spans[:, 0] < end) & (tokens.spans[:, 1] > start)
    return inside & ~tokens.special


_CLASSES = ("", "PUNCT", "NUM", "function")


def word_classes(text: str, spans: Int[Tensor, "point 2"]) -> Int[Tensor, " point"]:
    """The class of each span's last word, by a closed-class list: 0 open, 1 punctuation, 2 number, 3 function."""
    words = closed_class_words(text)
    ends = words.spans[:, 1].contiguous()
    at = torch.searchsorted(ends, spans[:, 1].contiguous()).clamp(max=len(words) - 1).tolist()
    named = [words.upos[i] if words.upos[i] in _CLASSES else "function" for i in at]
    return torch.tensor([_CLASSES.index(name) for name in named], dtype=torch.long)
