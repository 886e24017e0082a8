"""Run a text again from the layer that is changed on: what comes before it would come out as it did."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.utils import ModelOutput

from atlaskit.models.head_apart import answering, find_head, loss_of_rows
from atlaskit.models.hook import Call, hooked
from atlaskit.models.intervene import Change, apply, check_changeable
from atlaskit.models.loss import loss
from atlaskit.models.model import Model
from atlaskit.models.products import OneDNN
from atlaskit.models.proof import accepted
from atlaskit.records import Tokens

BUDGET = 400_000_000
"""Bytes that the copies of a text in one pass may take."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a network in order, and in which of them each layer attends.

    There are none where skipping some would change what the others do: then every run is a whole one. `handed_on` is
    what the trunk gives to the head, None where the head cannot be run apart.
    """

    modules: tuple[nn.Module, ...]
    place: tuple[int, ...]
    handed_on: type[ModelOutput] | None = None


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
    best = found if found and _holds(model, found, inputs, whole) else whole
    return replace(best, handed_on=find_head(model, inputs))


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
        stack.enter_context(OneDNN())
        logits = model.net(**inputs).logits
    return Run(inputs, tuple(z), tuple(handed_on), logits)


def run_from(model: Model, blocks: Blocks, before: Run, *, layer: int, copies: int, change: Change) -> Tensor:
    """Logits of copies of the text when z goes through `change` from this layer on; all before it is taken over."""
    with _resumed(model, blocks, before, layer, copies, change):
        logits: Tensor = model.net(**copied(before.inputs, copies)).logits
    return logits


def loss_from(
    model: Model,
    blocks: Blocks,
    before: Run,
    targets: Int[Tensor, " token"],
    *,
    layer: int,
    copies: int,
    change: Change,
) -> Float[Tensor, " batch"]:
    """`loss` of what `run_from` gives, without holding the logits of all copies where the head can be run apart."""
    if blocks.handed_on is None:
        return loss(run_from(model, blocks, before, layer=layer, copies=copies, change=change), targets)
    trunk = model.net.base_model
    with _resumed(model, blocks, before, layer, copies, change):
        hidden = trunk(**copied(accepted(trunk, before.inputs), copies)).last_hidden_state
    with torch.no_grad(), OneDNN():
        return loss_of_rows(model, blocks.handed_on, hidden, targets)


@contextmanager
def _resumed(model: Model, blocks: Blocks, before: Run, layer: int, copies: int, change: Change) -> Iterator[None]:
    """While it lasts, a pass of as many copies of the text begins at this layer, and z goes through `change`."""
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
        stack.enter_context(OneDNN())
        yield


def each_head(
    before: Run, *, layer: int, instead: Float[Tensor, "head query d_value"], logits: bool
) -> Iterator[tuple[int, Change]]:
    """As many heads of a layer at once as fit: how many, and the change that puts each aside in a copy of its own.

    `logits` says whether those of all copies will be held.
    """
    n_head = len(instead)
    step = copies_at_once(before, layer, logits=logits)
    for start in range(0, n_head, step):
        heads = torch.arange(start, min(start + step, n_head), device=instead.device)

        def change(at: int, z: Tensor, heads: Tensor = heads) -> Tensor:
            if at != layer:
                return z
            z = z.clone()
            z[torch.arange(len(heads), device=z.device), heads] = instead[heads].to(z.dtype)
            return z

        yield len(heads), change


def copies_at_once(before: Run, layer: int, *, logits: bool) -> int:
    """How many copies of a text one pass takes."""
    row = before.z[layer][0].numel() * 16  # a block's inside
    if logits:
        row += before.logits[0].numel() * 3  # and their softmax
    return max(1, BUDGET // (4 * row))


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
