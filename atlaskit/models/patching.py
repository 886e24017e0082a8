"""Patching: one head at a time is given what it read out of another text; what does the model then say?"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from atlaskit.models.documents import tokenized
from atlaskit.models.intervene import all_z, check_changeable, intervene
from atlaskit.models.model import Model
from atlaskit.models.proof import accepted
from atlaskit.models.suffix import each_head, find_blocks, run, run_from
from atlaskit.models.tokenize import Text
from atlaskit.records import Tokens

Metric: TypeAlias = Callable[[Tensor], Tensor]
"""Takes logits [batch query vocab] (or what the net's head gives) and gives one number for each of the batch."""


def patching_effects(
    model: Model,
    clean: Sequence[Text],
    corrupted: Sequence[Text],
    *,
    metric: Metric | Sequence[Metric],
    progress: bool = True,
) -> Float[Tensor, "doc layer head"]:
    """Change of the metric on a clean text when one head's z is taken from its corrupted twin (Vig et al. 2020).

    Twins must have as many tokens as each other. `metric` is one for all pairs or a list with one for each. Swapping
    clean and corrupted asks the other way round which heads restore the clean answer. The layers before a patched one
    are not run again.
    """
    pairs = _pairs(model, clean, corrupted)
    metrics = _metrics(metric, len(pairs))
    blocks = find_blocks(model, pairs[0][0])
    effects = []
    bar = tqdm(total=len(pairs) * model.geometry.n_layer, unit=" layers", disable=not progress, delay=1, leave=False)
    with bar:
        for (own, other), judge in zip(pairs, metrics, strict=True):
            instead = [z[0] for z in all_z(model, other)]
            before = run(model, blocks, accepted(model.net, model.inputs(own, own) | {"use_cache": False}))
            base = _judged(judge, before.logits)
            layers = []
            for layer, z in enumerate(instead):
                parts = each_head(before, layer=layer, instead=z, logits=True)
                told = (
                    run_from(model, blocks, before, layer=layer, copies=copies, change=change)
                    for copies, change in parts
                )
                layers.append(torch.cat([_judged(judge, logits) for logits in told]) - base)
                bar.update()
            effects.append(torch.stack(layers).cpu())
    return torch.stack(effects)


def attribution_patching(
    model: Model, clean: Sequence[Text], corrupted: Sequence[Text], *, metric: Metric | Sequence[Metric]
) -> Float[Tensor, "doc layer head"]:
    """First-order estimate of `patching_effects`, all heads from two forward passes and one backward (Nanda 2023).

    It is (z_corrupted − z_clean) · ∂metric/∂z at the clean text: exact where the metric is linear in z, blind where
    softmax is saturated. Raises TypeError for a metric without a gradient.
    """
    pairs = _pairs(model, clean, corrupted)
    return torch.stack([
        _attributed(model, own, other, judge)
        for (own, other), judge in zip(pairs, _metrics(metric, len(pairs)), strict=True)
    ])  # fmt: skip


def _attributed(model: Model, own: Tokens, other: Tokens, judge: Metric) -> Float[Tensor, "layer head"]:
    instead = all_z(model, other)
    seen: list[Tensor] = []
    nudges: list[Tensor] = []

    def nudge(_layer: int, z: Tensor) -> Tensor:
        # a zero that is added: its gradient is that of z, also where the weights are frozen
        seen.append(z.detach())
        nudges.append(torch.zeros_like(z, requires_grad=True))
        return z + nudges[-1]

    with torch.enable_grad(), intervene(model, nudge):
        logits = model.net(**accepted(model.net, model.inputs(own, own) | {"use_cache": False})).logits
        value = _judged(judge, logits)
        if not value.requires_grad:
            raise TypeError("the metric has no gradient: it must be made of differentiable functions of the logits")
        # of the z alone: the weights' own gradients are neither made nor touched
        slopes = torch.autograd.grad(value.sum(), nudges)
    moved = [there - here for there, here in zip(instead, seen, strict=True)]
    products = [(away.float() * slope.float())[0] for away, slope in zip(moved, slopes, strict=True)]
    return torch.stack([product.sum((-1, -2)) for product in products]).cpu()


def _pairs(model: Model, clean: Sequence[Text], corrupted: Sequence[Text]) -> list[tuple[Tokens, Tokens]]:
    """Tokens of the twins. Raises ValueError for those that do not match token by token."""
    check_changeable(model)
    own, other = ([tokens for tokens, _ in tokenized(model, texts, None)] for texts in (clean, corrupted))
    if len(own) != len(other):
        raise ValueError(f"there are {len(own)} clean and {len(other)} corrupted texts; each needs its twin")
    for i, (here, there) in enumerate(zip(own, other, strict=True)):
        if len(here) != len(there):
            raise ValueError(
                f"pair {i}: {here.text!r} has {len(here)} tokens and {there.text!r} has {len(there)}; z is patched "
                "place by place, so twins need equally many"
            )
    return list(zip(own, other, strict=True))


def _metrics(metric: Metric | Sequence[Metric], n: int) -> Sequence[Metric]:
    if callable(metric):
        return [metric] * n
    if len(metric) != n:
        raise ValueError(f"there are {len(metric)} metrics for {n} pairs; give one for each, or one for all")
    return metric


def _judged(judge: Metric, logits: Tensor) -> Float[Tensor, " batch"]:
    value = judge(logits.float())
    if not isinstance(value, Tensor) or value.shape != logits.shape[:1]:
        given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"the metric gave {given} for a batch of {len(logits)}; it must give one number for each")
    return value
