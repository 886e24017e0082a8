"""Which heads carry a preference between two sentences: causal mediation, and what is left without a head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from atlaskit.data import Pair
from atlaskit.models.intervene import all_z, check_changeable, intervene
from atlaskit.models.model import Model
from atlaskit.models.pair_scores import Job, PairScores, Rule, checked_rule, encode, pair_scores, sentence_jobs
from atlaskit.models.patching import patching_effects
from atlaskit.models.proof import accepted
from atlaskit.records import Head


@dataclass(frozen=True, eq=False)
class Mediation:
    """What of each pair's preference goes through each head, in nats (Vig et al. 2020, in logarithms).

    `total` is the preference: score of the stereotype less that of its counter. `indirect` is what is lost when one
    head alone reads the counter sentence, and `direct` when everything else does. Those of layers swap all heads of a
    layer at once: heads that stand in for one another show there. Vig's ratios are ``exp(-x) - 1``.

    Whatever a head reads from another sentence can also do plain harm, as when it was spelling the word that differs.
    That is lost of both sentences, so it counts as preference one way and against it the other: `carried` is the mean
    of the two ways. It changes its sign when stereotype and counter change places, as a preference does.
    """

    pairs: tuple[Pair, ...]
    total: Float[Tensor, " pair"]
    indirect: Float[Tensor, "pair layer head"]
    direct: Float[Tensor, "pair layer head"]
    layer_indirect: Float[Tensor, "pair layer"]
    layer_direct: Float[Tensor, "pair layer"]

    @property
    def carried(self) -> Float[Tensor, "pair layer head"]:
        """Preference that passes through each head: what its swap takes from one side and gives to the other."""
        return (self.indirect + self.total[:, None, None] - self.direct) / 2

    @property
    def layer_carried(self) -> Float[Tensor, "pair layer"]:
        """The same of all heads of a layer together."""
        return (self.layer_indirect + self.total[:, None] - self.layer_direct) / 2


def mediate(model: Model, pairs: Sequence[Pair], *, progress: bool = True) -> Mediation:
    """Causal mediation of pairs by every head and layer: z of the stereotype is swapped for z of its counter.

    The score is the sum over all tokens for a causal model, and ``crows`` for a masked one. Sentences are patched place
    by place: raises ValueError for a pair that does not match token by token; `matching_pairs` leaves those out.
    """
    check_changeable(model)
    rule: Rule = "sum" if model.geometry.causal else "crows"
    checked_rule(model, rule)
    if not pairs:
        raise ValueError("there are no pairs to mediate; see matching_pairs")
    if unlike := [pair.name for pair in pairs if not _match(model, pair)]:
        raise ValueError(
            f"{len(unlike)} of {len(pairs)} pairs do not match token by token, such as {unlike[0]!r}; z is swapped "
            "place by place, so choose with matching_pairs"
        )
    own, other = ([job for i, pair in enumerate(pairs) for job in _side(model, rule, pair, side, i)] for side in (0, 1))
    lost = -_patched(model, own, other, progress)
    regained = _patched(model, other, own, progress)
    owner = torch.tensor([job.owner for job in own])

    def per_pair(of_jobs: Tensor) -> Tensor:
        return torch.zeros(len(pairs), *of_jobs.shape[1:]).index_add(0, owner, of_jobs)

    total = pair_scores(model, pairs, rule=rule).preference
    layers = torch.stack([_layers(model, job, twin) for job, twin in zip(own, other, strict=True)])
    back = -torch.stack([_layers(model, job, twin) for job, twin in zip(other, own, strict=True)])
    return Mediation(
        tuple(pairs), total, per_pair(lost), total[:, None, None] - per_pair(regained),
        layer_indirect=per_pair(layers), layer_direct=total[:, None] - per_pair(back),
    )  # fmt: skip


def matching_pairs(model: Model, pairs: Sequence[Pair]) -> list[Pair]:
    """Those pairs whose sentences match token by token in this model, so that z can be swapped between them."""
    return [pair for pair in pairs if _match(model, pair)]


def scores_without(
    model: Model,
    pairs: Sequence[Pair],
    heads: Sequence[Head],
    *,
    means: Float[Tensor, "layer head d_value"],
    rule: Rule | None = None,
) -> PairScores:
    """Pair scores while some heads say their mean, from `mean_z` of neutral texts, whatever they read."""
    size = model.geometry
    if strangers := [head for head in heads if not (0 <= head[0] < size.n_layer and 0 <= head[1] < size.n_head)]:
        raise IndexError(f"{model.name} has {size.n_layer} layers of {size.n_head} heads; no {strangers}")

    def silence(layer: int, z: Tensor) -> Tensor:
        chosen = [head for at, head in heads if at == layer]
        if not chosen:
            return z
        z = z.clone()
        z[:, chosen] = means[layer, chosen][:, None].to(z)
        return z

    with intervene(model, silence):
        return pair_scores(model, pairs, rule=rule)


def preference_effects(
    model: Model,
    pairs: Sequence[Pair],
    *,
    means: Float[Tensor, "layer head d_value"],
    rule: Rule | None = None,
) -> Float[Tensor, "pair layer head"]:
    """Preference with a head at its mean less preference as is, in nats: below zero, the head feeds the stereotype."""
    plain = [Pair(p.name, p.domain, p.family, p.stereotype, p.counter, p.context) for p in pairs]  # no third sentence
    as_is = pair_scores(model, plain, rule=rule).preference
    size = model.geometry
    without = [
        [
            scores_without(model, plain, [(layer, head)], means=means, rule=rule).preference
            for head in range(size.n_head)
        ]
        for layer in range(size.n_layer)
    ]
    return torch.stack([torch.stack(row, -1) for row in without], 1) - as_is[:, None, None]


def _match(model: Model, pair: Pair) -> bool:
    """As many tokens on both sides, and those scored in both at the same places."""
    own, other = (encode(model, text, pair.context) for text in (pair.stereotype, pair.counter))
    if len(own.ids) != len(other.ids) or not torch.equal(own.own, other.own):
        return False
    if model.geometry.causal:
        return True
    places = [[int(job.places) for job in _side(model, "crows", pair, side, 0)] for side in (0, 1)]
    return places[0] == places[1]


def _side(model: Model, rule: Rule, pair: Pair, side: int, owner: int) -> list[Job]:
    text, other = (pair.stereotype, pair.counter) if side == 0 else (pair.counter, pair.stereotype)
    return list(sentence_jobs(model, rule, text, other=other, context=pair.context, owner=owner))


def _metric(job: Job) -> Callable[[Tensor], Tensor]:
    """The job's score, from logits [batch token vocab]."""

    def score(logits: Tensor) -> Tensor:
        asked = logits[:, job.places.to(logits.device)].log_softmax(-1)
        targets = job.targets.to(logits.device).expand(len(logits), -1)[..., None]
        return asked.gather(-1, targets).sum((-1, -2))

    return score


def _patched(
    model: Model, jobs: Sequence[Job], twins: Sequence[Job], progress: bool
) -> Float[Tensor, "doc layer head"]:
    ids = ([job.ids.tolist() for job in side] for side in (jobs, twins))
    return patching_effects(model, *ids, metric=[_metric(job) for job in jobs], progress=progress)


def _layers(model: Model, job: Job, twin: Job) -> Float[Tensor, " layer"]:
    """What is lost of one job's score when all heads of a layer read the twin, for every layer."""
    instead = all_z(model, model.tokens(twin.ids.tolist()))
    tokens = model.tokens(job.ids.tolist())
    inputs = accepted(model.net, model.inputs(tokens, tokens) | {"use_cache": False})
    score = _metric(job)

    def swapped(which: int | None) -> Tensor:
        def change(layer: int, z: Tensor) -> Tensor:
            return instead[layer] if layer == which else z

        with torch.inference_mode(), intervene(model, change):
            return score(model.net(**inputs).logits.float())[0].cpu()

    base = swapped(None)
    return torch.stack([base - swapped(layer) for layer in range(model.geometry.n_layer)])
