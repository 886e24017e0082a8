"""What the heads of a drop-in model attend to, read from the same kernels that did the attending."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

_heard: ContextVar[list[Tensor] | None] = ContextVar("atlaskit_fractal_heard", default=None)


@torch.no_grad()
def attention_weights(model: PreTrainedModel, **inputs: Tensor) -> list[Float[Tensor, "doc head query key"]]:
    """The pattern of every layer for what the model is given, with dropout off; rows sum to 1.

    Reading the model through another implementation ("eager", and so `models.capture`) would show dense attention.
    Memory is n^2 a head and layer, whatever the pattern. Raises for a model that has no fractal attention.
    """
    was_training = model.training
    heard: list[Tensor] = []
    token = _heard.set(heard)
    try:
        model.eval()(**inputs)
    finally:
        _heard.reset(token)
        model.train(was_training)
    if not heard:
        raise ValueError(f"no layer of this {type(model).__name__} attends fractally; call use_fractal_attention first")
    return heard


def listen(attend_to: Callable[[Tensor], Tensor], key: Tensor) -> None:
    """Note one layer's pattern while somebody watches. Attending to unit vectors for values gives the weights."""
    heard = _heard.get()
    if heard is not None:
        docs, kv_heads, n_key = key.shape[:3]
        unit = torch.eye(n_key, device=key.device, dtype=key.dtype)
        heard.append(attend_to(unit.expand(docs, kv_heads, n_key, n_key)))
