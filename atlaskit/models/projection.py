"""W_O, the way from a layer's heads to the residual stream: found by an experiment, read by another."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from atlaskit.models.hook import Call, hooked


def find_projections(
    net: PreTrainedModel, run: Callable[[], object], *, n_call: int, lazy: bool
) -> list[nn.Module | None]:
    """For each attention call the module that is its W_O, or None.

    Every other head is silenced. W_O is the first module to read, after the call, numbers that are zero for just those
    heads: gates and norms may stand between, as long as each head's numbers stay its own.
    """
    found: list[nn.Module | None] = []
    sizes: list[tuple[int, int]] = []

    def silence(call: Call) -> Tensor:
        output = call.attend()[0].clone()
        output[:, :, ::2] = 0
        found.append(None)
        sizes.append(tuple(output.shape[2:]))
        return output

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        if found and found[-1] is None and args and isinstance(args[0], Tensor):
            read = args[0]
            if read.shape[-1] == sizes[-1][0] * sizes[-1][1]:
                heads = read.detach().unflatten(-1, sizes[-1])
                if not heads[..., ::2, :].any() and heads[..., 1::2, :].flatten(0, -3).any(0).any(-1).all():
                    found[-1] = module

    with torch.inference_mode(), hooked(net, silence, lazy=lazy), ExitStack() as stack:
        for module in net.modules():
            if not any(module.children()) and getattr(getattr(module, "weight", None), "ndim", 0) == 2:
                stack.callback(module.register_forward_pre_hook(look).remove)
        run()
    return found


def write_weights(projection: nn.Module, n_head: int) -> Float[Tensor, "head d_value d_model"]:
    """W_O by head, read off an affine module by what it does to unit vectors: no layout needs to be known."""
    weight = next(projection.parameters())
    # nn.Linear names its width; GPT-2's Conv1D has it first
    width = getattr(projection, "in_features", None) or weight.shape[0]
    unit = torch.eye(width, dtype=weight.dtype, device=weight.device)
    with torch.inference_mode():
        moved = projection(unit) - projection(torch.zeros_like(unit[:1]))
    return moved.float().unflatten(0, (n_head, -1))


@contextmanager
def reading(
    projections: Sequence[nn.Module | None], spoken: Callable[[], int], listener: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """Tell `listener` what each layer's W_O reads, with the layer's place in `projections`.

    `spoken` tells how many layers have attended: a module that several layers share reads for the last of them.
    """

    def listen(module: nn.Module, args: tuple[Any, ...]) -> None:
        if spoken() and projections[spoken() - 1] is module:
            listener(spoken() - 1, args[0])

    with ExitStack() as stack:
        for module in {id(module): module for module in projections if module is not None}.values():
            stack.callback(module.register_forward_pre_hook(listen).remove)
        yield
