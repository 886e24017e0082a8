"""Attention cut down to its largest weights: how much of what a head reads out is needed?"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from atlaskit.models.hook import Call, hooked
from atlaskit.models.intervene import check_changeable
from atlaskit.models.loss import losses, readable
from atlaskit.models.model import Model
from atlaskit.models.tokenize import Text


@contextmanager
def top_k_attention(model: Model, k: int, *, layers: Collection[int] | None = None) -> Iterator[None]:
    """While the block runs, each row of attention keeps its `k` largest weights, scaled to sum to what all did.

    That is a softmax over the k best scores alone. `layers` counts those that attend, from zero; by default all. Raises
    ValueError for a `k` below one or a layer that is not there, TypeError for models whose z cannot be changed.
    """
    check_changeable(model)
    chosen = set(range(len(model.sites)) if layers is None else layers)
    if k < 1 or not chosen <= set(range(len(model.sites))):
        raise ValueError(
            f"k is {k} and layers are {sorted(chosen)}; keep at least one weight, in layers 0 to {len(model.sites) - 1}"
        )
    spoken = 0

    def restart(*_: object) -> None:
        nonlocal spoken
        spoken = 0

    def listen(call: Call) -> Tensor:
        nonlocal spoken
        spoken += 1
        return _cut(call, k) if spoken - 1 in chosen else call.attend().output

    handle = model.net.base_model.register_forward_pre_hook(restart)
    try:
        with hooked(model.net, listen, lazy=model.proof.lazy):
            yield
    finally:
        handle.remove()


def top_k_costs(
    model: Model, texts: Iterable[Text], k: int, *, seed: int = 0, max_tokens: int | None = None
) -> Float[Tensor, "doc layer"]:
    """Loss with the attention of each layer and all after it cut to its `k` largest weights, minus loss as is.

    In nats per token, as `losses` has it: at layer 0 the whole model is cut, at the last one that layer alone.
    """
    documents = [tokens.ids.tolist() for tokens in readable(model, texts, max_tokens)]
    as_is = losses(model, documents, seed=seed)
    costs = []
    for layer in range(len(model.sites)):
        with top_k_attention(model, k, layers=range(layer, len(model.sites))):
            costs.append(losses(model, documents, seed=seed) - as_is)
    return torch.stack(costs, dim=-1)


def _cut(call: Call, k: int) -> Tensor:
    pattern = call.attend().pattern
    if k < pattern.shape[-1]:
        best = pattern.topk(k, dim=-1)
        # a sink's share is in no key, so the rows of such a model sum to less than one
        share = pattern.sum(-1, keepdim=True) / best.values.sum(-1, keepdim=True)
        pattern = torch.zeros_like(pattern).scatter(-1, best.indices, best.values * share)
    values = call.v.repeat_interleave(call.q.shape[1] // call.v.shape[1], dim=1)
    return (pattern.to(values.dtype) @ values).transpose(1, 2)
