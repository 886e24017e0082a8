"""What a head knows of grammar: how often its most attended word is the right one, beside rules that look at nothing.

After Clark et al. (2019): each head is asked, for each relation and direction, and a fixed offset is asked the same.
Head and rule are chosen on one half of the documents and compared on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit.measure.estimate import estimate, paired_p
from atlaskit.measure.words import by_word, word_of
from atlaskit.records import Capture, Estimate, Head, Words

Direction = Literal["to head", "to dependent"]

OFFSETS: tuple[int, ...] = tuple(offset for offset in range(-8, 9) if offset)
"""The fixed offsets that a relation is compared with: the word so many places later."""
MENTION_RULES = ("nearest mention", "nearest mention with the same word")


@dataclass(frozen=True)
class Relation:
    """A question: from each word to the one that governs it by this relation, or from a word to its dependents."""

    relation: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.relation} {self.direction}"


@dataclass(frozen=True)
class Coreference:
    """A question: from each mention to an earlier mention of the same, among all earlier mentions."""

    def __str__(self) -> str:
        return "coreference"


@dataclass(frozen=True, eq=False)
class Answers:
    """Shares of right answers in one document, by each head and by each rule; nan where nothing was asked."""

    heads: Float[Tensor, "layer head"]
    rules: Float[Tensor, " rule"]
    rule_names: tuple[str, ...]
    asked: int


@dataclass(frozen=True)
class Probe:
    """The head and the rule that were best on one half of the documents, compared on the other half.

    The estimate's null is the rule on the same documents; `p` is of the paired comparison. `asked` counts words.
    """

    head: Head
    rule: str
    accuracy: Estimate
    p: float
    asked: int


def ask(seen: Capture, words: Words, question: Relation | Coreference) -> Answers:
    """How every head of one captured text answers, and every rule.

    A head's answer is the most attended word among those it may see, itself left out; ties share. A word is asked about
    where a right answer lies within reach and there are at least two words to choose from. As Clark et al. leave out
    [CLS] and [SEP], where sinks live, a decoder's first word is nobody's answer.
    """
    kind = seen.layers[0].kind
    layers = [layer for layer in seen.layers if layer.kind == kind]
    owner, n = word_of(seen.tokens, words), len(words)
    reachable = by_word(layers[0].support[None].float(), owner, n_words=n)[0] > 0
    right, candidates = _right_and_possible(words, question)
    candidates = candidates & reachable & ~torch.eye(n, dtype=torch.bool)
    if kind == "decoder":
        candidates[:, 0] = False
    right = right & candidates
    rows = right.any(-1) & (candidates.sum(-1) >= 2)
    names, rules = _rules(words, question, candidates)
    count = int(rows.sum())
    if count == 0:
        nan = torch.full((len(layers), layers[0].pattern.shape[0]), float("nan"))
        return Answers(nan, torch.full((len(names),), float("nan")), names, 0)
    heads = torch.stack(
        [_share_right(by_word(one.pattern, owner, n_words=n)[:, rows], right[rows], candidates[rows]) for one in layers]
    )
    hits = (rules[:, rows] & right[rows]).any(-1).float().mean(-1)
    return Answers(heads, hits, names, count)


def questions(relations: Iterable[str]) -> list[Relation | Coreference]:
    """Both directions of each relation; "coreference" asks for antecedents."""
    made: list[Relation | Coreference] = []
    for name in relations:
        made += (
            [Coreference()] if name == "coreference" else [Relation(name, "to head"), Relation(name, "to dependent")]
        )
    return made


def probe(answers: Sequence[Answers], *, seed: int = 0) -> Probe:
    """The best head against the best rule, both chosen on every other document and compared on the rest.

    Raises ValueError where a question was asked in too few documents for that.
    """
    told = [one for one in answers if one.asked]
    if len(told) < 4:
        raise ValueError(
            f"the question was asked in {len(told)} of {len(answers)} documents; choosing on one half and comparing on "
            "the other takes at least 4. Give more texts, or ask for a commoner relation"
        )
    heads, rules = torch.stack([one.heads for one in told]), torch.stack([one.rules for one in told])
    best, rule = int(heads[::2].mean(0).argmax()), int(rules[::2].mean(0).argmax())
    layer, head = divmod(best, heads.shape[2])
    value, null = heads[1::2, layer, head], rules[1::2, rule]
    return Probe(
        (layer, head),
        told[0].rule_names[rule],
        estimate(value, null, unit="share of words", seed=seed),
        float(paired_p(value, null, seed=seed)),
        sum(one.asked for one in told[1::2]),
    )


def _right_and_possible(
    words: Words, question: Relation | Coreference
) -> tuple[Bool[Tensor, "word word"], Bool[Tensor, "word word"]]:
    n = len(words)
    right = torch.zeros(n, n, dtype=torch.bool)
    if isinstance(question, Coreference):
        mention = words.coreference >= 0
        earlier = torch.ones(n, n, dtype=torch.bool).tril(-1)
        possible = mention[:, None] & mention & earlier
        return possible & (words.coreference[:, None] == words.coreference), possible
    named = torch.tensor([relation == question.relation for relation in words.relation], dtype=torch.bool)
    child = (named & (words.head >= 0)).nonzero().flatten()
    right[child, words.head[child]] = True
    return (right if question.direction == "to head" else right.T), torch.ones(n, n, dtype=torch.bool)


def _rules(
    words: Words, question: Relation | Coreference, candidates: Bool[Tensor, "word word"]
) -> tuple[tuple[str, ...], Bool[Tensor, "rule word word"]]:
    """What each rule answers: at most one word a row."""
    n = len(words)
    if isinstance(question, Coreference):
        forms = [form.lower() for form in words.strings]
        ids = torch.tensor([forms.index(form) for form in forms])
        same = candidates & (ids[:, None] == ids)
        same = torch.where(same.any(-1, keepdim=True), same, candidates)
        return MENTION_RULES, torch.stack([_nearest(candidates), _nearest(same)])
    lag = torch.arange(n) - torch.arange(n)[:, None]
    return tuple(f"{offset:+d}" for offset in OFFSETS), torch.stack([lag == offset for offset in OFFSETS])


def _nearest(candidates: Bool[Tensor, "word word"]) -> Bool[Tensor, "word word"]:
    """The last of the candidates in each row; they all lie before the row's word."""
    place = torch.arange(candidates.shape[1])
    last = torch.where(candidates, place, -1).amax(-1, keepdim=True)
    return candidates & (place == last)


def _share_right(
    attention: Float[Tensor, "head word other"],
    right: Bool[Tensor, "word other"],
    candidates: Bool[Tensor, "word other"],
) -> Float[Tensor, " head"]:
    """Mean over rows of the share of the most attended candidates that are right."""
    among = attention.masked_fill(~candidates, -1.0)
    top = (among == among.amax(-1, keepdim=True)) & candidates
    return ((top & right).sum(-1) / top.sum(-1)).mean(-1)
