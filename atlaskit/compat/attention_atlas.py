"""What Attention Atlas (pinthoz, 2026) shows on its cards, under its names, each beside what it was meant to measure.

Values follow that tool's definitions for one text, written afresh; each of them tells its flaw once (`flaws`). A card
holds the same number of a head that knows nothing, and a twin corrected for length and base rate with its own chance
level. One text is an anecdote: `table` takes a corpus and gives intervals over documents.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit import measure
from atlaskit.records import Capture, Estimate, LayerAttention, Tokens, Words

from .flaws import told_once

FUNCTION = ("DET", "ADP", "AUX", "CCONJ", "SCONJ", "PART", "PRON")
CONTENT = ("NOUN", "PROPN", "VERB", "ADJ", "ADV", "NUM")
LONG = 5
TINY = 1e-10  # that tool's own constant; it is part of its numbers


@dataclass(frozen=True, eq=False)
class Card:
    """A number of that tool, what ignorance gives by the same definition, the corrected twin and its chance level."""

    value: Float[Tensor, " head"]
    ignorant: Float[Tensor, " head"]
    twin: Float[Tensor, " head"]
    chance: Float[Tensor, " head"]
    unit: str


Pattern = Float[Tensor, "head query key"]
Number = Callable[[Pattern], Float[Tensor, " head"]]


@told_once
def confidence_max(pattern: Pattern, support: Bool[Tensor, "query key"]) -> Card:
    """Largest cell of the matrix; a decoder's first row is left out. Twin: largest weight of a row, on average."""
    rows = _rows(support)
    return _card(lambda p: p[:, rows].amax((-2, -1)), _mean(measure.max_weight, support), pattern, support, "weight")


@told_once
def confidence_avg(pattern: Pattern, support: Bool[Tensor, "query key"]) -> Card:
    """Largest weight of a row, averaged; a decoder's first row is left out. Twin: the same beside its chance level."""
    rows = _rows(support)
    return _card(lambda p: p[:, rows].amax(-1).mean(-1), _mean(measure.max_weight, support), pattern, support, "weight")


@told_once
def focus(pattern: Pattern, support: Bool[Tensor, "query key"]) -> Card:
    """Entropy of all cells over n ln n, for a decoder over ln n!. Twin: row entropy over that of the row's support."""
    choices = support.sum(-1).float()
    scale = choices.log().sum()  # n ln n without a mask, ln n! with it

    def value(p: Tensor) -> Tensor:
        return torch.where(p > TINY, torch.special.entr(p), 0.0).sum((-2, -1)) / scale

    def twin(p: Tensor) -> Tensor:
        return (measure.entropy(p, support) / choices.log2()).nanmean(-1)

    return _card(value, twin, pattern, support, "share of the row's largest entropy")


@told_once
def sparsity(pattern: Pattern, support: Bool[Tensor, "query key"]) -> Card:
    """Share of cells below 1/n, for a decoder of the lower triangle's. Twin: effective keys."""
    cells = _cells(support)
    twin = _mean(measure.effective_keys, support)
    return _card(lambda p: (p[:, cells] < 1 / len(support)).float().mean(-1), twin, pattern, support, "keys")


@told_once
def distribution(pattern: Pattern, support: Bool[Tensor, "query key"]) -> Card:
    """Median of all cells, masked ones included. Twin: median of the visible cells, each times its row's choices."""
    choices = support.sum(-1, keepdim=True)

    def twin(p: Tensor) -> Tensor:
        return (p * choices)[:, support & (choices > 1)].quantile(0.5, -1)

    return _card(lambda p: p.flatten(1).quantile(0.5, -1), twin, pattern, support, "times an even share")


@told_once
def uniformity(pattern: Pattern, support: Bool[Tensor, "query key"]) -> Card:
    """Standard deviation of cells, for a decoder of the lower triangle's. Twin: sum of squared weights of a row."""
    cells = _cells(support)
    twin = _mean(measure.concentration, support)
    return _card(lambda p: p[:, cells].std(-1, correction=0), twin, pattern, support, "probability")


@told_once
def balance(pattern: Pattern, support: Bool[Tensor, "query key"], tokens: Tokens) -> Card:
    """Share of all attention on the first token; undefined for a decoder. Twin: mass on sinks over its chance.

    Sinks are the first token, special tokens and punctuation (Xiao et al. 2023; Clark et al. 2019).
    """
    sinks = measure.first_token(tokens) | measure.special(tokens) | measure.punctuation(tokens)

    def value(p: Tensor) -> Tensor:
        share = p[:, :, 0].sum(-1) / p.sum((-2, -1))
        return torch.full_like(share, float("nan")) if _decoder(support) else share

    return _card(value, _lift(sinks, support), pattern, support, "times chance")


@told_once
def flow_change(first: Pattern, last: Pattern, support: Bool[Tensor, "query key"], *, seed: int = 0) -> Card:
    """Root of the divergence, in nats, between the head averages of the first and last layer, as if one distribution.

    Twin: that of a row, in bits, on average; its chance level deals out the last layer's rows anew.
    """
    means = torch.cat([one.mean(0, keepdim=True) for one in (first, last)])
    dealt = torch.cat([means[:1], measure.permuted_rows(means[1:], support, seed=seed)])
    even = measure.uniform(support).expand(2, -1, -1)
    twin, chance = (measure.divergence(one, support)[0, 1].sqrt()[None] for one in (means, dealt))
    return Card(_flattened_distance(means), _flattened_distance(even), twin, chance, "root bits")


@told_once
def syntax(pattern: Pattern, support: Bool[Tensor, "query key"], tokens: Tokens, words: Words) -> Card:
    """Share of attention on function words. Twin: over their share of what can be seen."""
    return _class(pattern, support, _tagged(tokens, words, FUNCTION))


@told_once
def semantics(pattern: Pattern, support: Bool[Tensor, "query key"], tokens: Tokens, words: Words) -> Card:
    """Share of attention on content words. Twin: over their share of what can be seen."""
    return _class(pattern, support, _tagged(tokens, words, CONTENT))


@told_once
def cls(pattern: Pattern, support: Bool[Tensor, "query key"], tokens: Tokens) -> Card:
    """Mean weight on the first token; a decoder's first row is left out. Twin: over chance."""
    rows, twin = _rows(support), _lift(measure.first_token(tokens), support)
    return _card(lambda p: p[:, rows, 0].mean(-1), twin, pattern, support, "times chance")


@told_once
def punctuation(pattern: Pattern, support: Bool[Tensor, "query key"], tokens: Tokens) -> Card:
    """Share of attention on tokens that are ASCII punctuation. Twin: on punctuation of any script, over chance."""
    texts = [tokens.text[start:end].strip() for start, end in tokens.spans.tolist()]
    ascii_only = torch.tensor([bool(text) and all(c in string.punctuation for c in text) for text in texts])
    return _class(pattern, support, ascii_only & ~tokens.special, twin=measure.punctuation(tokens))


@told_once
def entities(pattern: Pattern, support: Bool[Tensor, "query key"], tokens: Tokens, words: Words) -> Card:
    """Share of attention on names and dates. Twin: over their share of what can be seen."""
    return _class(pattern, support, measure.words_where([words], measure.has_entity)(tokens, None)[0])


@told_once
def long_range(pattern: Pattern, support: Bool[Tensor, "query key"]) -> Card:
    """Mean weight of cells five or more apart, masked ones included; 0 below six tokens. Twin: reach over chance."""
    place = torch.arange(len(support))
    far = (place[:, None] - place).abs() >= LONG
    distance = _mean(measure.mean_distance, support)
    even = distance(measure.uniform(support))

    def value(p: Tensor) -> Tensor:
        return p[:, far].mean(-1) if far.any() else torch.zeros(len(p))

    return _card(value, lambda p: distance(p) / even, pattern, support, "times chance")


@told_once
def self_attention(pattern: Pattern, support: Bool[Tensor, "query key"], tokens: Tokens) -> Card:
    """Mean weight on the own token; a decoder's first row is left out. Twin: over chance."""
    rows, twin = _rows(support), _lift(measure.own_token(tokens), support)
    return _card(lambda p: p.diagonal(dim1=-2, dim2=-1)[:, rows].mean(-1), twin, pattern, support, "times chance")


@told_once
def radar(values: Float[Tensor, "layer head"]) -> Float[Tensor, "layer head"]:
    """A specialization metric as that tool draws it: from 0 to 1 within each layer; nan where heads are equal."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    return (values - low) / (high - low)


def cards(seen: Capture, *, layer: int) -> Mapping[str, Card]:
    """The eight attention cards of every head of one layer; flow change is the model's and stands for all heads."""
    one = _layer(seen, layer)
    given = (one.pattern, one.support)
    made = {
        card.__name__: card(*given)
        for card in (confidence_max, confidence_avg, focus, sparsity, distribution, uniformity)
    }
    ends = [each.pattern for each in seen.layers if each.kind == one.kind]
    return made | {
        "balance": balance(*given, seen.tokens),
        "flow_change": flow_change(ends[0], ends[-1], one.support),
    }


def specialization(seen: Capture, words: Words, *, layer: int) -> Mapping[str, Card]:
    """The seven specialization metrics of every head of one layer."""
    one = _layer(seen, layer)
    given = (one.pattern, one.support)
    return {
        **{card.__name__: card(*given, seen.tokens, words) for card in (syntax, semantics, entities)},
        **{card.__name__: card(*given, seen.tokens) for card in (cls, punctuation, self_attention)},
        "long_range": long_range(*given),
    }


def values(captures: Sequence[Capture], words: Sequence[Words]) -> Mapping[str, Float[Tensor, "doc layer head"]]:
    """Every card's own value, document by document, for every head; what is one number for a whole model is left out.

    To hold beside what heads do: ``measure.rank_agreement(values(…)["focus"], effect)``.
    """
    kind = captures[0].layers[0].kind
    layers = [one.layer for one in captures[0].layers if one.kind == kind]
    rows = [
        [{**cards(seen, layer=layer), **specialization(seen, one, layer=layer)} for layer in layers]
        for seen, one in zip(captures, words, strict=True)
    ]
    names = [name for name in rows[0][0] if name != "flow_change"]
    return {name: torch.stack([torch.stack([layer[name].value for layer in row]) for row in rows]) for name in names}


def table(
    captures: Sequence[Capture], words: Sequence[Words], *, layer: int, head: int, seed: int = 0
) -> Mapping[str, tuple[float, float, Estimate]]:
    """Of one head over a corpus: each card's mean value and ignorance's, and the twin as an Estimate beside chance.

    Documents in which a card is undefined are left out of it; a card that is undefined in all but one is missing.
    """
    rows = [
        {**cards(seen, layer=layer), **specialization(seen, one, layer=layer)}
        for seen, one in zip(captures, words, strict=True)
    ]
    found = {}
    for name in rows[0]:
        columns = [[getattr(row[name], field) for row in rows] for field in ("value", "ignorant", "twin", "chance")]
        value, ignorant, twin, chance = (torch.stack([one[min(head, len(one) - 1)] for one in c]) for c in columns)
        if int((~(twin + chance).isnan()).sum()) >= 2:
            told = measure.estimate(twin, chance, unit=rows[0][name].unit, seed=seed)
            found[name] = (float(value.nanmean()), float(ignorant.nanmean()), told)
    return found


def _layer(seen: Capture, layer: int) -> LayerAttention:
    """The layer by its number; raises IndexError in the words of `Capture.pattern`."""
    seen.pattern(layer, 0)
    return next(one for one in seen.layers if one.layer == layer)


def _decoder(support: Bool[Tensor, "query key"]) -> bool:
    """Whether the support is a decoder's. That tool knows no other than this and the full one."""
    n = len(support)
    if torch.equal(support, measure.causal(n)):
        return n > 1
    if torch.equal(support, measure.full(n)):
        return False
    raise ValueError("Attention Atlas knows full and causal attention; this support is neither, such as a window")


def _rows(support: Bool[Tensor, "query key"]) -> slice:
    return slice(int(_decoder(support)), None)


def _cells(support: Bool[Tensor, "query key"]) -> Bool[Tensor, "query key"]:
    return support if _decoder(support) else torch.ones_like(support)


def _mean(score: Callable[..., Tensor], support: Bool[Tensor, "query key"]) -> Number:
    return lambda p: score(p, support).nanmean(-1)


def _card(value: Number, twin: Number, pattern: Pattern, support: Bool[Tensor, "query key"], unit: str) -> Card:
    even, n = measure.uniform(support), len(pattern)
    return Card(value(pattern.float()), value(even).expand(n), twin(pattern.float()), twin(even).expand(n), unit)


def _lift(selector: Bool[Tensor, "query key"], support: Bool[Tensor, "query key"]) -> Number:
    """Mass on the selected cells over what ignorance puts there; 1 is chance."""
    mass = _mean(partial(measure.mass, selector=selector), support)
    even = mass(measure.uniform(support))
    return lambda p: mass(p) / even


def _class(
    pattern: Pattern,
    support: Bool[Tensor, "query key"],
    keys: Bool[Tensor, " key"],
    *,
    twin: Bool[Tensor, "query key"] | None = None,
) -> Card:
    def value(p: Tensor) -> Tensor:
        return p[:, :, keys].sum((-2, -1)) / p.sum((-2, -1))

    lift = _lift(keys.expand_as(support) if twin is None else twin, support)
    return _card(value, lift, pattern, support, "times chance")


def _tagged(tokens: Tokens, words: Words, tags: Sequence[str]) -> Bool[Tensor, " key"]:
    return measure.words_where([words], lambda one: measure.has_upos(one, tags))(tokens, None)[0]


def _flattened_distance(means: Float[Tensor, "2 query key"]) -> Float[Tensor, " head"]:
    p, q = (one.flatten().clamp_min(TINY) for one in means)
    p, q = p / p.sum(), q / q.sum()
    entropy = torch.special.entr
    return (entropy((p + q) / 2).sum() - (entropy(p).sum() + entropy(q).sum()) / 2).clamp_min(0).sqrt()[None]
