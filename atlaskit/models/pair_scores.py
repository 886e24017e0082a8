"""How much a language model prefers one sentence of a pair to the other: log-probabilities, in nats."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlaskit.data import Pair
from atlaskit.data.pair import differing
from atlaskit.models.model import Model

Rule: TypeAlias = Literal["sum", "pmi", "pll", "crows"]
"""What a sentence's score is. For causal models:

- ``sum``: log P(sentence | context), over all its tokens, from the start token on;
- ``pmi``: the same less log P(the differing words alone), so that a rare word is no handicap.

For masked models:

- ``pll``: pseudo-log-likelihood, each token masked together with the later pieces of its word (Kauf & Ivanova 2023);
- ``crows``: over the tokens that both sentences share, one masked at a time (CrowS-Pairs, Nangia et al. 2020).
"""

CAUSAL: tuple[Rule, ...] = ("sum", "pmi")
MASKED: tuple[Rule, ...] = ("pll", "crows")
LOGITS = 2_000_000
"""Logits in one batch: 8 MB, what a cache may hold; a batch has one sentence at least."""


@dataclass(frozen=True, eq=False)
class PairScores:
    """The scores of pairs under one rule, in nats; `unrelated` is nan where a pair has no third sentence.

    `n_tokens` counts the tokens of the two sentences themselves. `start` is the token that a causal model started from.
    """

    model: str
    rule: Rule
    pairs: tuple[Pair, ...]
    stereotype: Float[Tensor, " pair"]
    counter: Float[Tensor, " pair"]
    unrelated: Float[Tensor, " pair"]
    n_tokens: Int[Tensor, "pair 2"]
    start: str

    @property
    def preference(self) -> Float[Tensor, " pair"]:
        """Score of the stereotype less that of its counter: above zero, the stereotype is preferred."""
        return self.stereotype - self.counter

    @property
    def extra_tokens(self) -> Int[Tensor, " pair"]:
        """How many more tokens the stereotype has than its counter."""
        return self.n_tokens[:, 0] - self.n_tokens[:, 1]


@dataclass(frozen=True, eq=False)
class Job:
    """What a model reads in one pass, and the tokens whose log-probabilities are summed, times `sign`, for `owner`."""

    owner: int
    ids: Int[Tensor, " token"]
    places: Int[Tensor, " point"]
    targets: Int[Tensor, " point"]
    sign: int = 1


@dataclass(frozen=True, eq=False)
class Coded:
    """A sentence after its context, as token ids; `own` are the places of the sentence's own tokens."""

    ids: Int[Tensor, " token"]
    own: Int[Tensor, " point"]
    words: tuple[int | None, ...]
    spans: Int[Tensor, "point 2"]  # of the own tokens, in characters of the sentence

    def in_span(self, start: int, end: int) -> Int[Tensor, " point"]:
        """Places of the own tokens that hold a character of a span of the sentence."""
        return self.own[(self.spans[:, 0] < end) & (self.spans[:, 1] > start)]


def pair_scores(model: Model, pairs: Sequence[Pair], *, rule: Rule | None = None) -> PairScores:
    """Score both sentences of every pair, and the unrelated one where there is one.

    Without a `rule`, ``sum`` for causal models and ``pll`` for masked ones. Sentences may differ in their number of
    tokens; `extra_tokens` keeps by how many. For ``pmi`` and ``crows``, which look at what differs, an unrelated
    sentence is set against the stereotype. Raises TypeError for a model without a language-model head, ValueError for
    a rule of the other kind of model, no pairs, or a sentence longer than the model reads.
    """
    rule = checked_rule(model, rule)
    if not pairs:
        raise ValueError("there are no pairs to score")
    jobs: list[list[Job]] = [[], [], []]
    for i, pair in enumerate(pairs):
        for side, text, other in zip(jobs, *zip(*_readings(pair), strict=True), strict=False):
            side += sentence_jobs(model, rule, text, other=other, context=pair.context, owner=i)
    totals = [log_probs(model, side, len(pairs)) for side in jobs]
    third = torch.tensor([bool(pair.unrelated) for pair in pairs])
    counts = [[len(encode(model, text, pair.context).own) for text, _ in _readings(pair)[:2]] for pair in pairs]
    start = str(model.tokenizer.convert_ids_to_tokens(start_token(model))) if rule in CAUSAL and model.tokenizer else ""
    return PairScores(
        model.name, rule, tuple(pairs), totals[0], totals[1], torch.where(third, totals[2], float("nan")),
        torch.tensor(counts), start,
    )  # fmt: skip


def checked_rule(model: Model, rule: Rule | None) -> Rule:
    """The rule, or the kind's own where none is given, after checking that the model can be scored by it."""
    if model.is_encoder_decoder or model.net.get_output_embeddings() is None:
        raise TypeError(
            f"{model.name} ({type(model.net).__name__}) has no language-model head of its own to score sentences with; "
            "load a causal or a masked language model"
        )
    if model.tokenizer is None or not model.tokenizer.is_fast:
        raise TypeError(f"{model.name} has no fast tokenizer, which tells where in a sentence each token stands")
    allowed = CAUSAL if model.geometry.causal else MASKED
    if rule is not None and rule not in allowed:
        kind = "causal" if model.geometry.causal else "masked"
        raise ValueError(
            f"the rule {rule!r} is not for {kind} models, such as {model.name}; use {' or '.join(allowed)}"
        )
    return rule or allowed[0]


def encode(model: Model, text: str, context: str = "") -> Coded:
    """Token ids of a sentence after its context; a causal model's begin with its start token.

    Raises ValueError for more tokens than the model reads: a cut sentence has another score.
    """
    whole = f"{context} {text}" if context else text
    coded = model.tokenizer(whole, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)  # type: ignore[misc]
    ids, words = list(coded["input_ids"]), list(coded.word_ids())
    begins = len(context)
    own = [
        i
        for i, ((start, _), added) in enumerate(zip(coded["offset_mapping"], coded["special_tokens_mask"], strict=True))
        if not added and start >= begins
    ]
    spans = torch.tensor([coded["offset_mapping"][i] for i in own]).reshape(-1, 2) - (begins + 1 if context else 0)
    if model.geometry.causal and ids[:1] != [start_token(model)]:
        ids, words, own = [start_token(model), *ids], [None, *words], [i + 1 for i in own]
    if model.context is not None and len(ids) > model.context:
        raise ValueError(f"{whole[:60]!r}… has {len(ids)} tokens and {model.name} reads {model.context}")
    return Coded(torch.tensor(ids), torch.tensor(own, dtype=torch.long), tuple(words), spans)


def sentence_jobs(
    model: Model, rule: Rule, text: str, *, other: str, context: str = "", owner: int = 0
) -> Iterator[Job]:
    """The passes that make up a sentence's score; `other` is the sentence that it is compared with."""
    coded = encode(model, text, context)
    if rule in CAUSAL:
        yield Job(owner, coded.ids, coded.own - 1, coded.ids[coded.own])
        spans = ((0, len(text)),) if context else differing(text, other)[0]
        # with the space before it, as a tokenizer of the GPT-2 kind reads a word within a sentence
        alone = "".join(text[max(0, start - 1) : end] if text[start - 1 : start] == " " else text[start:end]
                        for start, end in spans)  # fmt: skip
        if rule == "pmi" and alone:
            words = encode(model, alone)
            yield Job(owner, words.ids, words.own - 1, words.ids[words.own], sign=-1)
        return
    chosen = coded.own.tolist()
    if rule == "crows":
        chosen = _shared(coded, encode(model, other, context))
    mask = model.tokenizer.mask_token_id  # type: ignore[union-attr]
    if mask is None:
        raise TypeError(f"{model.name} has no mask token to hide words with")
    for place in chosen:
        hidden = coded.ids.clone()
        later = [i for i in coded.own.tolist() if i > place and coded.words[i] == coded.words[place]]
        hidden[[place, *(later if rule == "pll" else [])]] = mask
        yield Job(owner, hidden, torch.tensor([place]), coded.ids[[place]])


def log_probs(model: Model, jobs: Iterable[Job], n_owners: int) -> Float[Tensor, " pair"]:
    """Sum of each owner's jobs, in batches of like length; nothing is kept but the sums."""
    waiting = sorted(jobs, key=lambda job: len(job.ids))
    total = torch.zeros(n_owners, dtype=torch.float64)
    vocabulary = int(model.net.config.get_text_config().vocab_size)
    while waiting:
        n = max(1, LOGITS // (vocabulary * len(waiting[-1].ids)))
        batch, waiting = waiting[-n:], waiting[:-n]
        ids = torch.nn.utils.rnn.pad_sequence([job.ids for job in batch], batch_first=True).to(model.device)
        lengths = torch.tensor([len(job.ids) for job in batch], device=model.device)
        seen = (torch.arange(ids.shape[1], device=model.device) < lengths[:, None]).long()
        with torch.inference_mode():
            logits = model.net(input_ids=ids, attention_mask=seen).logits
        for row, job in zip(logits, batch, strict=True):
            total[job.owner] += job.sign * float(target_log_probs(row, job).sum())
    return total.float()


def target_log_probs(logits: Float[Tensor, "token vocab"], job: Job) -> Float[Tensor, " point"]:
    """log-probabilities of a job's targets at its places."""
    asked = logits[job.places.to(logits.device)].float().log_softmax(-1)
    return asked.gather(-1, job.targets.to(logits.device)[:, None])[:, 0]


def _readings(pair: Pair) -> list[tuple[str, str]]:
    """Each sentence of a pair with the one that it is compared with."""
    both = [(pair.stereotype, pair.counter), (pair.counter, pair.stereotype)]
    return [*both, (pair.unrelated, pair.stereotype)] if pair.unrelated else both


def start_token(model: Model) -> int:
    """The token that a causal model starts from: its own, or the one that ends its documents."""
    for token in ("bos_token_id", "eos_token_id"):
        if (found := getattr(model.tokenizer, token)) is not None:
            return int(found)
    raise ValueError(
        f"the tokenizer of {model.name} has neither a start nor an end token, so a sentence's first token has no "
        "probability; set tokenizer.bos_token"
    )


def _shared(coded: Coded, other: Coded) -> list[int]:
    """Places of a sentence's own tokens that the other sentence has too, in order."""
    mine, theirs = (one.ids[one.own].tolist() for one in (coded, other))
    blocks = difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks()
    return [int(coded.own[block.a + i]) for block in blocks for i in range(block.size)]
