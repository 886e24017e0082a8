"""One sentence with some words exchanged, looked at closely: token by token, and head by head."""

import difflib
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.data import Pair
from atlaskit.data.pair import Span
from atlaskit.models.mediation import matching_pairs, mediate
from atlaskit.models.model import Model
from atlaskit.models.pair_scores import Coded, Rule, checked_rule, encode, sentence_jobs, target_log_probs
from atlaskit.records import Counterfactual


def counterfactual(model: Model, pair: Pair) -> Counterfactual:
    """Scores of every token of both sentences, which tokens stand for which, and what passes through each head.

    The rule is that of `pair_scores`: ``sum`` for causal models, ``pll`` for masked ones. Sentences that do not match
    token by token are scored, but not mediated.
    """
    rule = checked_rule(model, None)
    texts = pair.stereotype, pair.counter
    coded = [encode(model, text, pair.context) for text in texts]
    scores = [_token_scores(model, rule, text=text, context=pair.context) for text in texts]
    inside = [_inside(one, spans) for one, spans in zip(coded, pair.spans, strict=True)]
    mediated = mediate(model, [pair], progress=False) if matching_pairs(model, [pair]) else None
    words = [" … ".join(text[slice(*span)] for span in spans) for text, spans in zip(texts, pair.spans, strict=True)]
    return Counterfactual(
        model.name, rule, texts, (words[0], words[1]),
        strings=(_strings(texts[0], coded[0]), _strings(texts[1], coded[1])),
        log_probs=(scores[0], scores[1]), differs=(inside[0], inside[1]), columns=_columns(*coded),
        carried=None if mediated is None else mediated.carried[0],
        not_mediated="" if mediated else "the sentences do not match token by token, so no head can be exchanged",
    )  # fmt: skip


def _inside(coded: Coded, spans: Iterable[Span]) -> Bool[Tensor, " token"]:
    inside = torch.zeros(len(coded.own), dtype=torch.bool)
    for span in spans:
        inside |= torch.isin(coded.own, coded.in_span(*span))
    return inside


def _token_scores(model: Model, rule: Rule, *, text: str, context: str) -> Float[Tensor, " token"]:
    """log-probability of each of a sentence's own tokens, in order."""
    jobs = list(sentence_jobs(model, rule, text, other=text, context=context))
    found = []
    for start in range(0, len(jobs), 64):
        some = jobs[start : start + 64]  # of one sentence, so all of a length
        with torch.inference_mode():
            logits = model.net(input_ids=torch.stack([job.ids for job in some]).to(model.device)).logits
        found += [target_log_probs(one, job).cpu() for one, job in zip(logits, some, strict=True)]
    return torch.cat(found)


def _strings(text: str, coded: Coded) -> tuple[str, ...]:
    """What of the sentence each token holds, with the space before a word: that is where words begin."""
    spans = coded.spans.tolist()
    before = [0, *(end for _, end in spans)]  # the space may be a token by itself, which holds nothing else
    return tuple(text[max(end, start - 1, 0) if text[max(start - 1, 0)] == " " else start : stop]
                 for (start, stop), end in zip(spans, before, strict=False))  # fmt: skip


def _columns(one: Coded, other: Coded) -> Int[Tensor, "column 2"]:
    """Tokens that stand for one another: equal ones in their longest common order, and between them in turn."""
    mine, theirs = one.ids[one.own].tolist(), other.ids[other.own].tolist()
    found = []
    for _, low, high, left, right in difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        for k in range(max(high - low, right - left)):
            found.append((low + k if low + k < high else -1, left + k if left + k < right else -1))
    return torch.tensor(found)
