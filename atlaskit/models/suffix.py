"""Run a text again from the layer that is changed on: what comes before it would come out as it did."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from atlaskit.models.hook import Call, hooked
from atlaskit.models.intervene import Change, apply, check_changeable
from atlaskit.models.model import Model
from atlaskit.models.proof import accepted
from atlaskit.records import Tokens

BUDGET = 400_000_000
"""Bytes that the copies of a text in one pass may take."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a network in order, and in which of them each layer attends.

    There are none where skipping some would change what the others do: then every run is a whole one.
    """

    modules: tuple[nn.Module, ...]
    place: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """One text run as it is: z of every layer, what every block handed on, and the logits."""

    inputs: dict[str, Any]
    z: tuple[Float[Tensor, "1 head query d_value"], ...]
    handed_on: tuple[Any, ...]
    logits: Tensor


def find_blocks(model: Model, tokens: Tokens) -> Blocks:
    """The blocks of a model, after a trial on these tokens that runs from a later block give what whole ones do.

    Raises TypeError for a model that cannot be changed or has no logits to judge a change by.
    """
    check_changeable(model)
    attending: list[nn.Module] = []

    def listen(call: Call) -> Tensor:
        attending.append(call.module)
        return call.attend().output

    inputs = accepted(model.net, model.inputs(tokens, tokens) | {"use_cache": False})
    with torch.no_grad(), hooked(model.net, listen, lazy=model.proof.lazy):
        output = model.net(**inputs)
    if getattr(output, "logits", None) is None:
        raise TypeError(
            f"{model.name} ({type(model.net).__name__}) gives no logits, so there is nothing to judge a change by; "
            "load it with its language-model head"
        )
    whole = Blocks((), (0,) * len(attending))
    found = common_list(model.net, attending)
    return found if found and _holds(model, found, inputs, whole) else whole


def run(model: Model, blocks: Blocks, inputs: dict[str, Any]) -> Run:
    """One pass that keeps what later runs begin from."""
    z: list[Tensor] = []
    handed_on: list[Any] = []

    def listen(call: Call) -> Tensor:
        output = call.attend().output
        z.append(output.transpose(1, 2))
        return output

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        handed_on.append(output)

    with torch.no_grad(), ExitStack() as stack:
        for block in blocks.modules:
            stack.callback(block.register_forward_hook(keep).remove)
        stack.enter_context(hooked(model.net, listen, lazy=model.proof.lazy))
        logits = model.net(**inputs).logits
    return Run(inputs, tuple(z), tuple(handed_on), logits)


def run_from(model: Model, blocks: Blocks, before: Run, *, layer: int, copies: int, change: Change) -> Tensor:
    """Logits of copies of the text when z goes through `change` from this layer on; all before it is taken over."""
    skipped = blocks.place[layer] if blocks.modules else 0
    spoken = sum(place < skipped for place in blocks.place)

    def listen(call: Call) -> Tensor:
        nonlocal spoken
        spoken += 1
        if spoken - 1 < layer:
            return call.attend().output
        # in the first layer to change nothing has happened yet, so it attends as it did
        z = copied(before.z[layer], copies).transpose(1, 2) if spoken - 1 == layer else call.attend().output
        return apply(change, spoken - 1, z)

    with torch.no_grad(), ExitStack() as stack:
        for block, output in zip(blocks.modules[:skipped], before.handed_on, strict=False):
            stack.enter_context(answering(block, copied(output, copies)))
        stack.enter_context(hooked(model.net, listen, lazy=model.proof.lazy))
        return model.net(**copied(before.inputs, copies)).logits


def each_head(
    model: Model, blocks: Blocks, before: Run, *, layer: int, instead: Float[Tensor, "head query d_value"]
) -> Iterator[Tensor]:
    """Logits [head query vocab] with one head's z at a time put aside for `instead`, as many heads at once as fit."""
    n_head = len(instead)
    row = before.logits[0].numel() * 3 + before.z[layer][0].numel() * 16  # logits, their softmax, a block's inside
    step = max(1, BUDGET // (4 * row))
    for start in range(0, n_head, step):
        heads = torch.arange(start, min(start + step, n_head), device=instead.device)

        def change(at: int, z: Tensor, heads: Tensor = heads) -> Tensor:
            if at != layer:
                return z
            z = z.clone()
            z[torch.arange(len(heads), device=z.device), heads] = instead[heads].to(z.dtype)
            return z

        yield run_from(model, blocks, before, layer=layer, copies=len(heads), change=change)


def common_list(net: nn.Module, attending: Sequence[nn.Module]) -> Blocks | None:
    """The list of modules in which each attending module has a place of its own, in the order of attending."""
    names = {module: name for name, module in net.named_modules()}
    for name, blocks in net.named_modules():
        if isinstance(blocks, nn.ModuleList):
            inside = [names[module].removeprefix(f"{name}.").split(".")[0] for module in attending]
            if all(names[module].startswith(f"{name}.") for module in attending):
                place = [int(number) for number in inside]
                rises = all(a < b for a, b in pairwise(place))
                return Blocks(tuple(blocks), tuple(place)) if rises else None
    return None


def _holds(model: Model, blocks: Blocks, inputs: dict[str, Any], whole: Blocks) -> bool:
    """Whether a change in a middle and in the last layer does, from there on, what it does in a whole run."""

    def change(layer: int, z: Tensor, at: int) -> Tensor:
        return z * torch.tensor([1.0, 0.5], device=z.device).to(z.dtype)[:, None, None, None] if layer == at else z

    last = len(blocks.place) - 1
    for layer in {(last + 1) // 2, last}:
        told: list[Tensor] = []
        for way in (blocks, whole):
            try:
                before = run(model, way, inputs)
                halved = partial(change, at=layer)
                told.append(run_from(model, way, before, layer=layer, copies=2, change=halved).float())
            except Exception:  # whatever a stranger's forward raises when it misses a block
                if way is whole:
                    raise
                return False
        tolerance = 1e-4 if before.logits.dtype in (torch.float32, torch.float64) else 5e-2
        if not torch.allclose(told[0], told[1], rtol=tolerance, atol=tolerance * float(told[1].abs().max())):
            return False
    return True


@contextmanager
def answering(block: nn.Module, output: Any) -> Iterator[None]:
    """Let a block hand on `output`, whatever it is asked, without any work."""
    forward: Callable[..., Any] | None = vars(block).get("forward")

    def answer(*_: Any, **__: Any) -> Any:
        return output

    block.forward = answer
    try:
        yield
    finally:
        if forward is None:
            del block.forward
        else:
            block.forward = forward


def copied(value: Any, copies: int) -> Any:
    """Tensors of one text as those of several copies of it, without memory of their own."""
    match value:
        case Tensor() if value.ndim and value.shape[0] == 1:
            return value.expand(copies, *value.shape[1:])
        case dict():
            return {name: copied(one, copies) for name, one in value.items()}
        case tuple() | list():
            return type(value)(copied(one, copies) for one in value)
    return value
