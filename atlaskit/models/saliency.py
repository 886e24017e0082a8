"""Which tokens a prediction is said to come from: gradients, integrated gradients, Chefer's rule, occlusion.

Each gives one signed number a token; none is the truth, and `erasure` is how they are judged.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlaskit.data.pair import Span
from atlaskit.models.hook import Call, hooked
from atlaskit.models.intervene import check_changeable
from atlaskit.models.model import Model
from atlaskit.models.pair_scores import Job, checked_rule, encode, start_token, target_log_probs
from atlaskit.models.spans import word_classes


@dataclass(frozen=True, eq=False)
class Integrated:
    """Integrated gradients of one prediction. Completeness: `values` should add up to `moved`, and miss it by `missed`.

    `moved` is the score less that of the baseline, in nats.
    """

    values: Float[Tensor, " token"]
    moved: float
    missed: float


def prediction(model: Model, text: str, span: Span) -> Job:
    """The prediction of a stretch of text from the rest: its log-probability, hidden altogether in a masked model.

    Raises ValueError where no token lies in the span, or none is left to predict it from.
    """
    checked_rule(model, None)
    coded = encode(model, text)
    asked = coded.in_span(*span)
    if not 0 < len(asked) < len(coded.own) or (model.geometry.causal and int(asked[0]) == int(coded.own[0])):
        raise ValueError(f"{text[slice(*span)]!r} in {text!r} leaves no token to predict it from, or is none itself")
    if model.geometry.causal:
        return Job(0, coded.ids, asked - 1, coded.ids[asked])
    hidden = coded.ids.clone()
    hidden[asked] = filler(model)
    return Job(0, hidden, asked, coded.ids[asked])


def candidates(model: Model, text: str, span: Span) -> tuple[Int[Tensor, " point"], Int[Tensor, " point"]]:
    """Places of the tokens that the prediction of a span may come from, and the class of the word that each is in.

    They are the sentence's own tokens without the span's, before it if the model is causal. Classes are numbers, from
    the closed-class list.
    """
    coded = encode(model, text)
    asked = coded.in_span(*span)
    kept = ~torch.isin(coded.own, asked)
    if model.geometry.causal:
        kept &= coded.own < asked.min()
    return coded.own[kept], word_classes(text, coded.spans[kept])


def filler(model: Model) -> int:
    """The token that stands for nothing said: the mask of a masked model, the start token of a causal one."""
    mask = None if model.geometry.causal or model.tokenizer is None else model.tokenizer.mask_token_id
    return int(mask) if mask is not None else start_token(model)


def gradient_input(model: Model, job: Job) -> Float[Tensor, " token"]:
    """Gradient of the score by each token's embedding, times the embedding: exact for a linear model."""
    embedded = _embed(model, job.ids)
    return (_gradients(model, job, embedded[None])[0] * embedded).sum(-1).cpu()


def integrated_gradients(model: Model, job: Job, at: Int[Tensor, " point"], *, steps: int = 64) -> Integrated:
    """Gradients along the straight line from a baseline to the text (Sundararajan et al. 2017), midpoint rule.

    In the baseline the tokens `at` some places are the filler, and the rest, such as [CLS] and what is asked, stays.
    """
    emptied = job.ids.clone()
    emptied[at] = filler(model)
    there, here = _embed(model, emptied), _embed(model, job.ids)
    along = (torch.arange(steps, device=here.device) + 0.5) / steps
    path = there + along[:, None, None] * (here - there)
    slope = torch.cat([_gradients(model, job, some) for some in path.split(16)]).mean(0)
    values = (slope * (here - there)).sum(-1).cpu()
    before, after = erased_scores(model, job, torch.stack([emptied, job.ids])).tolist()
    return Integrated(values, after - before, float(values.sum()) - (after - before))


def occlusion(model: Model, job: Job, at: Int[Tensor, " point"]) -> Float[Tensor, " token"]:
    """What the score loses when one token is the filler, for the tokens `at` some places; 0 elsewhere."""
    rows = job.ids.repeat(len(at) + 1, 1)
    rows[torch.arange(len(at)), at] = filler(model)
    scores = erased_scores(model, job, rows)
    values = torch.zeros(len(job.ids))
    values[at] = scores[-1] - scores[:-1]
    return values


def chefer(model: Model, job: Job) -> Float[Tensor, " token"]:
    """Relevance through attention weighed by its gradient, rolled over layers (Chefer et al. 2021).

    R ← R + mean over heads of (A ⊙ ∂score/∂A)⁺ · R, read at the places where the score is taken, not at one fixed row.
    """
    check_changeable(model)
    patterns: list[Tensor] = []

    def listen(call: Call) -> Tensor:
        seen = call.attend()
        patterns.append(seen.pattern)
        return seen.output

    with torch.enable_grad(), hooked(model.net, listen, lazy=model.proof.lazy):
        embedded = _embed(model, job.ids)[None].requires_grad_()
        score = target_log_probs(model.net(inputs_embeds=embedded).logits[0], job).sum()
        slopes = torch.autograd.grad(score, patterns)
    n = len(job.ids)
    relevance = torch.eye(n, device=model.device)
    for pattern, slope in zip(patterns, slopes, strict=True):
        relevance = relevance + (pattern * slope)[0].clamp(min=0).mean(0).float() @ relevance
    return (relevance - torch.eye(n, device=model.device))[job.places.to(model.device)].sum(0).detach().cpu()


def erased_scores(model: Model, job: Job, rows: Int[Tensor, "draw token"]) -> Float[Tensor, " draw"]:
    """The job's score when the model reads other tokens; the tokens that are asked for stay what they are."""
    scores = []
    for part in rows.split(64):
        with torch.inference_mode():
            logits = model.net(input_ids=part.to(model.device)).logits
        scores += [target_log_probs(one, job).sum() for one in logits]
    return torch.stack(scores).cpu()


def _embed(model: Model, ids: Int[Tensor, " token"]) -> Float[Tensor, "token d_model"]:
    with torch.no_grad():
        return model.net.get_input_embeddings()(ids.to(model.device)).detach().float()


def _gradients(
    model: Model, job: Job, embedded: Float[Tensor, "draw token d_model"]
) -> Float[Tensor, "draw token d_model"]:
    with torch.enable_grad():
        embedded = embedded.detach().requires_grad_()
        logits = model.net(inputs_embeds=embedded.to(model.net.dtype)).logits
        return torch.autograd.grad(torch.stack([target_log_probs(one, job).sum() for one in logits]).sum(), embedded)[0]
