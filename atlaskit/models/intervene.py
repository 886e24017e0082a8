"""Cause: put something else in place of what heads read out, while the rest of the model runs as it is written."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from atlaskit.models.documents import tokenized
from atlaskit.models.hook import Call, hooked
from atlaskit.models.model import Model
from atlaskit.models.proof import accepted
from atlaskit.models.tokenize import Text
from atlaskit.records import Tokens

Change: TypeAlias = Callable[[int, Tensor], Tensor]
"""Takes a layer and its z [doc head query d_value], and gives what is to stand in its place."""


@contextmanager
def intervene(model: Model, change: Change) -> Iterator[None]:
    """While the block runs, z of every layer goes through `change(layer, z)` before W_O; then all is put back.

    It acts on any forward pass of ``model.net``: batched, cached, generating, or with gradients. `layer` counts the
    layers that attend, from zero, as in ``Geometry.n_layer``. A block inside another replaces it for the while.
    Raises TypeError for models whose z cannot be changed, and RuntimeError in training mode.
    """
    check_changeable(model)
    spoken = 0

    def restart(*_: object) -> None:
        nonlocal spoken
        spoken = 0

    def listen(call: Call) -> Tensor:
        nonlocal spoken
        spoken += 1
        return apply(change, spoken - 1, call.attend().output)

    with ExitStack() as stack:
        stack.callback(model.net.base_model.register_forward_pre_hook(restart).remove)
        stack.enter_context(hooked(model.net, listen, lazy=model.proof.lazy))
        yield


def mean_z(
    model: Model, texts: Iterable[Text], *, max_tokens: int | None = None
) -> Float[Tensor, "layer head d_value"]:
    """Mean of each head's z over all tokens of the texts, in float32 on the model's device: what to ablate with."""
    check_changeable(model)
    total, n = torch.zeros((), device=model.device), 0
    for tokens, _ in tokenized(model, texts, max_tokens):
        total = total + torch.stack([z[0].double().sum(1) for z in all_z(model, tokens)])
        n += len(tokens)
    return (total / n).float()


def all_z(model: Model, tokens: Tokens) -> list[Float[Tensor, "1 head query d_value"]]:
    """z of every layer of one text, run as it is."""
    seen: list[Tensor] = []

    def keep(_layer: int, z: Tensor) -> Tensor:
        seen.append(z)
        return z

    trunk = model.net.base_model
    with torch.no_grad(), intervene(model, keep):
        trunk(**accepted(trunk, model.inputs(tokens, tokens) | {"use_cache": False}))
    return seen


def apply(
    change: Change, layer: int, output: Float[Tensor, "doc query head d_value"]
) -> Float[Tensor, "doc query head d_value"]:
    """What stands in the place of a layer's output. Raises ValueError when its shape is another one."""
    z = output.transpose(1, 2)
    changed = change(layer, z)
    if changed.shape != z.shape:
        raise ValueError(
            f"the change made z of layer {layer} {tuple(changed.shape)}; it must stay {tuple(z.shape)}, "
            "which is [doc head query d_head]"
        )
    return changed.transpose(1, 2)


def check_changeable(model: Model) -> None:
    """Raise TypeError, with the reason, for a model whose z cannot be changed or has no common shape."""
    if model.proof.outside:
        raise TypeError(f"z of {model.name} cannot be changed: {model.proof.outside}")
    if model.is_encoder_decoder:
        raise TypeError(
            f"{model.name} is an encoder–decoder: its three kinds of attention share layer numbers, and interventions "
            "are for models that read one text"
        )
    sizes = sorted({site.n_head for site in model.sites})
    if len(sizes) > 1:
        raise TypeError(f"the layers of {model.name} have {sizes} heads; interventions need as many in each layer")
