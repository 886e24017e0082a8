"""W_V by head, found by what it does: no architecture's layout needs to be known."""

from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from atlaskit.models.hook import Call, hooked
from atlaskit.models.intervene import check_changeable
from atlaskit.models.model import Model
from atlaskit.models.proof import accepted
from atlaskit.models.tokenize import Text


def value_weights(model: Model, text: Text) -> Float[Tensor, "layer head d_model d_value"]:
    """The derivative of every head's values by what its layer's attention reads (after a norm, if one comes first).

    That is W_V where values are an affine function of it, token by token, and elsewhere a TypeError says so: it is
    taken at two tokens of `text`, which must agree. Heads on one KV head have the same.
    """
    check_changeable(model)
    tokens = model.tokens(text, max_tokens=4)
    shape = (1, len(tokens), model.geometry.d_model)
    modules = _attending(model, tokens)
    leaves: list[Tensor] = []
    found: list[Tensor] = []

    def cut(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Let the layer read a leaf, so that derivatives end there."""
        everything: dict[Any, Any] = {**dict(enumerate(args)), **given}
        read = [name for name, part in everything.items() if isinstance(part, Tensor) and part.shape == shape]
        if not read:
            raise TypeError(f"{model.name}: no input of its attention has the residual stream's shape {shape}")
        name = read[0]  # what comes after it, if anything, are positions
        leaves.append(everything[name].detach().requires_grad_())
        everything[name] = leaves[-1]
        return tuple(everything[i] for i in range(len(args))), {n: everything[n] for n in given}

    def listen(call: Call) -> Tensor:
        layer = len(found)
        at = [_derivative(call.v, leaves[-1], token) for token in (0, len(tokens) - 1)]
        if not torch.allclose(at[0], at[1], rtol=1e-4, atol=1e-5 * float(at[0].abs().max())):
            raise TypeError(
                f"values of layer {layer} of {model.name} are no affine function of what it reads, token by token; "
                "it has no W_V"
            )
        found.append(at[0].repeat_interleave(call.q.shape[1] // call.v.shape[1], dim=0))
        return call.attend().output

    with torch.enable_grad(), ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(cut, with_kwargs=True).remove)
        stack.enter_context(hooked(model.net, listen, lazy=model.proof.lazy))
        model.net.base_model(**accepted(model.net.base_model, model.inputs(tokens, tokens) | {"use_cache": False}))
    return torch.stack(found)


def _attending(model: Model, tokens: Any) -> list[nn.Module]:
    modules: dict[int, nn.Module] = {}

    def listen(call: Call) -> Tensor:
        modules[id(call.module)] = call.module
        return call.attend().output

    trunk = model.net.base_model
    with torch.no_grad(), hooked(model.net, listen, lazy=model.proof.lazy):
        trunk(**accepted(trunk, model.inputs(tokens, tokens) | {"use_cache": False}))
    return list(modules.values())


def _derivative(
    values: Float[Tensor, "1 kv_head key d_value"], leaf: Float[Tensor, "1 key d_model"], token: int
) -> Float[Tensor, "kv_head d_model d_value"]:
    """Of one token's values by what was read at all tokens, summed: a value that mixes tokens shows by its sum."""
    own = values[0, :, token]
    unit = torch.eye(own.numel(), dtype=own.dtype, device=own.device)
    (slope,) = torch.autograd.grad(own.flatten(), leaf, unit, retain_graph=True, is_grads_batched=True)
    return slope[:, 0].sum(1).unflatten(0, own.shape).transpose(1, 2).float()
