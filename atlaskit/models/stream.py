"""The residual stream of one text: what each layer read from it and added to it, found by what the modules gave.

No architecture is named here. A block either adds (``x + attention + feed-forward``, with a norm before each or on what
each writes) or adds and normalises (``norm(norm(x + attention) + feed-forward)``); a block of which neither is true to
rounding is refused, so that what is said to add up does.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from atlaskit.models.hook import Call, hooked
from atlaskit.models.intervene import check_changeable
from atlaskit.models.model import Model
from atlaskit.models.norms import Linearised, linearise
from atlaskit.models.projection import write_weights
from atlaskit.models.proof import accepted
from atlaskit.models.suffix import common_list
from atlaskit.models.tokenize import Text
from atlaskit.records import Tokens


@dataclass(frozen=True, eq=False)
class Step:
    """One module's part of a pass: what it gave, and what it read if that has the residual stream's shape, too.

    `hidden` is what it read first if it has one number of whatever width for each token, as a feed-forward's inside.
    """

    module: nn.Module
    hidden: Float[Tensor, "query _"] | None
    read: Float[Tensor, "query d_model"] | None
    gave: Float[Tensor, "query d_model"]


@dataclass(frozen=True, eq=False)
class StreamLayer:
    """One layer. `attention` and `feed_forward` are what was added; a norm after a sum or on a write may be None.

    `result` is each head's write before `on_write`, and `bias` that of W_O; these add up to what W_O gave.
    """

    read: Float[Tensor, "query d_model"]
    pattern: Float[Tensor, "head query key"]
    values: Float[Tensor, "kv_head key d_value"]
    spoken: Float[Tensor, "head query d_value"]
    result: Float[Tensor, "head query d_model"]
    write_weights: Float[Tensor, "head d_value d_model"]
    bias: Float[Tensor, " d_model"]
    on_write: Linearised | None
    attention: Float[Tensor, "query d_model"]
    after_attention: Linearised | None
    middle: Float[Tensor, "query d_model"]
    feed_forward: Float[Tensor, "query d_model"]
    after_feed_forward: Linearised | None
    gave: Float[Tensor, "query d_model"]


@dataclass(frozen=True, eq=False)
class Stream:
    """All layers of one text, the steps of all modules, and the end: what the output layer read (None without one)."""

    tokens: Tokens
    layers: tuple[StreamLayer, ...]
    calls: tuple[Call, ...]
    steps: tuple[Step, ...]
    decoded: Float[Tensor, "query d_model"] | None
    output: Any


def stream(model: Model, text: Text, *, max_tokens: int | None = None) -> Stream:
    """Run one text and follow its residual stream through every layer.

    Raises TypeError, with the reason, for a model whose layers share modules, do not all attend, or add in a way that
    is not known here, and for one that computes in half precision.
    """
    check_changeable(model)
    if model.net.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{model.name} computes in {model.net.dtype}, too coarse to tell what adds up; load it with dtype='float32'"
        )
    tokens = model.tokens(text, max_tokens=max_tokens)
    shape = (1, len(tokens), model.geometry.d_model)
    calls: list[Call] = []
    patterns: list[Tensor] = []
    steps: list[Step] = []
    spoken: dict[nn.Module, Tensor] = {}

    head = model.net.get_output_embeddings()

    def attend(call: Call) -> Tensor:
        done = call.attend()
        calls.append(call)
        patterns.append(done.pattern[0].float())
        return done.output

    def look(module: nn.Module, args: Any, given: dict[str, Any], output: Any) -> None:
        read, gave = _first((*args, *given.values()), shape), _first(output, shape)
        if gave is not None:
            first = next((arg for arg in args if isinstance(arg, Tensor) and arg.is_floating_point()), None)
            wide = first is not None and first.numel() == len(tokens) * first.shape[-1]
            hidden = first.reshape(len(tokens), -1).float() if first is not None and wide else None
            steps.append(Step(module, hidden, read, gave))

    def listen(module: nn.Module, args: Any) -> None:
        spoken[module] = args[0][0].float()

    with torch.no_grad(), ExitStack() as stack:
        for module in model.net.modules():
            stack.callback(module.register_forward_hook(look, with_kwargs=True).remove)
        for site in model.sites:
            if site.projection is None:
                raise TypeError(f"{model.name}: {site.projection_missing}, so what its heads add cannot be told")
            stack.callback(site.projection.register_forward_pre_hook(listen).remove)
        if head is not None:
            stack.callback(head.register_forward_pre_hook(listen).remove)
        stack.enter_context(hooked(model.net, attend, lazy=model.proof.lazy))
        output = model.net(**accepted(model.net, model.inputs(tokens, tokens) | {"use_cache": False}))
    blocks = common_list(model.net, [call.module for call in calls])
    if blocks is None or len(blocks.modules) != len(calls):
        raise TypeError(
            f"the residual stream of {model.name} cannot be followed: its layers share modules, or some do not attend"
        )
    layers = []
    for layer, (block, site) in enumerate(zip(blocks.modules, model.sites, strict=True)):
        projection = site.projection
        assert projection is not None  # checked above
        with torch.no_grad():
            weights = write_weights(projection, site.n_head)
            bias = projection(torch.zeros_like(spoken[projection][:1]).to(calls[0].q.dtype))[0].float()
        heads = spoken[projection].unflatten(-1, (site.n_head, -1)).transpose(0, 1)
        result = torch.einsum("hqv,hvm->hqm", heads, weights)
        inside = set(block.modules())
        own = [step for step in steps if step.module in inside]
        whole = next(step for step in own if step.module is block)
        before = whole.read
        rest = [step for step in own if step.module is not block]
        found = None if before is None else _followed(before, result.sum(0) + bias, whole, rest)
        if before is None or found is None:
            raise TypeError(
                f"the residual stream of {model.name} cannot be followed through layer {layer}: what "
                f"{type(block).__name__} gives is neither the sum of what it read, its attention and its feed-forward, "
                "nor a norm of such sums"
            )
        layers.append(
            StreamLayer(
                before, patterns[layer], calls[layer].v[0].float(), heads, result, weights, bias, *found, whole.gave
            )
        )
    return Stream(tokens, tuple(layers), tuple(calls), tuple(steps), spoken.get(head), output)


def _followed(
    read: Float[Tensor, "query d_model"], wrote: Float[Tensor, "query d_model"], block: Step, inside: list[Step]
) -> tuple[Linearised | None, Tensor, Linearised | None, Tensor, Tensor, Linearised | None] | None:
    """The fields of StreamLayer from `on_write` to `after_feed_forward`; None where nothing adds up."""
    writes: list[tuple[Linearised | None, Tensor]] = [(None, wrote)]
    writes += [(norm, step.gave) for step in inside if (norm := _norm_of(step, wrote))]
    for on_write, attention in writes:
        summed = read + attention
        rest = block.gave - summed
        if any(_same(step.gave, rest, block.gave) for step in inside):
            return on_write, attention, None, summed, rest, None
        for first in inside:
            after_attention = _norm_of(first, summed)
            for last in inside if after_attention else ():
                if last.read is None or not _same(last.gave, block.gave):
                    continue
                fed, after_feed_forward = last.read - first.gave, _norm_of(last, last.read)
                if after_feed_forward and any(_same(step.gave, fed, block.gave) for step in inside):
                    return on_write, attention, after_attention, first.gave, fed, after_feed_forward
    return None


def _norm_of(step: Step, read: Float[Tensor, "query d_model"]) -> Linearised | None:
    """The norm that this step is, if it is one and read this."""
    if step.read is None or any(step.module.children()) or not _same(step.read, read):
        return None
    return linearise(step.module, read)


def _same(one: Tensor, other: Tensor, beside: Tensor | None = None) -> bool:
    """Equal to rounding; of a small difference of large numbers, to the rounding of those."""
    size = float((other if beside is None else beside).abs().max())
    return bool((one - other).abs().max() <= 1e-5 * max(size, float(other.abs().max())))


def _first(values: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The first tensor of this shape, as numbers of one text."""
    for value in values if isinstance(values, tuple | list) else (values,):
        if isinstance(value, Tensor) and value.shape in (shape, shape[1:]):  # some feed-forwards see a list of tokens
            return value.reshape(shape[1:]).float()
    return None
