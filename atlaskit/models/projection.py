"""W_O, the way from a layer's heads to the residual stream: found by an experiment, read by another."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from atlaskit.models.hook import Call, hooked


def find_projections(net: PreTrainedModel, run: Callable[[], object], *, lazy: bool) -> list[nn.Module | None]:
    """For each attention call the module that is its W_O, or None.

    Every other head is silenced. W_O is the first module to read, after the call, numbers that are zero for just those
    heads: gates and norms may stand between, as long as each head's numbers stay its own. It must be affine.
    """
    found: list[tuple[nn.Module, Tensor, Tensor] | None] = []
    sizes: list[tuple[int, int]] = []

    def silence(call: Call) -> Tensor:
        output = call.attend()[0]
        # not the heads' own words: a head that says nothing on this sentence would pass for silenced
        output = torch.linspace(1, 2, output.numel()).view(output.shape).to(output)
        output[:, :, ::2] = 0
        found.append(None)
        sizes.append((output.shape[2], output.shape[3]))
        return output

    def look(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not found or found[-1] or not args or not isinstance(args[0], Tensor):
            return
        n_head, d_value = sizes[-1]
        if args[0].shape[-1] == n_head * d_value:
            heads = args[0].unflatten(-1, (n_head, d_value))
            speak = heads.flatten(0, -3).any(0).any(-1)
            if not speak[::2].any() and speak[1::2].all():
                found[-1] = module, args[0], output

    with torch.inference_mode(), hooked(net, silence, lazy=lazy), ExitStack() as stack:
        for module in net.modules():
            if not any(module.children()) and getattr(getattr(module, "weight", None), "ndim", 0) == 2:
                stack.callback(module.register_forward_hook(look).remove)
        run()
    return [one[0] if one and _is_affine(*one, n_head) else None for one, (n_head, _) in zip(found, sizes, strict=True)]


def _is_affine(module: nn.Module, read: Tensor, wrote: Tensor, n_head: int) -> bool:
    """Whether the heads' writes and the bias make what the module wrote."""
    with torch.inference_mode():
        bias = module(torch.zeros_like(read[:1]))
        parts = torch.einsum("...hv,hvm->...m", read.float().unflatten(-1, (n_head, -1)), write_weights(module, n_head))
        tolerance = 1e-5 if read.dtype in (torch.float32, torch.float64) else 5e-2
        return torch.allclose(parts + bias, wrote.float(), rtol=tolerance, atol=tolerance * float(wrote.abs().max()))


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
    projections: Sequence[nn.Module | None], spoken: Callable[[], int], listener: Callable[[int, Tensor], object]
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
