"""Where a training step stopped being finite: the step is run once more, and every module is listened to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .batches import Batch


def not_finite_in(model: nn.Module, batch: Batch, *, precision: str, seed: int) -> str:
    """The first weight, output or gradient that is not finite, by its module's name, which holds the layer's number.

    The gradients of `model` are lost. "nowhere" is what a step gives that goes well when it is repeated.
    """
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f"the weight {name}"
    spoken: list[str] = []
    broken: list[str] = []

    def listen(name: str, output: Any) -> None:
        spoken.append(name)
        tensors = output if isinstance(output, tuple) else (output,)
        if not all(one.isfinite().all() for one in tensors if isinstance(one, Tensor)):
            broken.append(name)

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: listen(name, output))
        for name, module in model.named_modules()
        if name
    ]
    model.zero_grad()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            device = next(model.parameters()).device
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model(**{name: value.to(device) for name, value in batch.items()}).loss
            if not broken:
                loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    if broken:
        return f"the output of {broken[0]}"  # a module speaks after those inside it, so this is the innermost
    if not loss.isfinite():
        return "the loss alone"
    modules = dict(model.named_modules())
    for name in reversed(spoken):  # gradients break from the loss backwards
        for parameter, weight in modules[name].named_parameters(recurse=False):
            if weight.grad is not None and not weight.grad.isfinite().all():
                return f"the gradient of {name}.{parameter}"
    return "nowhere"
