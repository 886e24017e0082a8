"""The deep dive: every number between one token and its prediction, in one layer and one head, and how they connect.

Each step is computed from the one before and compared with what the model itself computed; a model whose own numbers
are not rebuilt to 1e-5 is refused.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from atlaskit.models.head_apart import answering
from atlaskit.models.hook import Call
from atlaskit.models.model import Model
from atlaskit.models.norms import Linearised, linearise
from atlaskit.models.projection import write_weights
from atlaskit.models.proof import accepted
from atlaskit.models.stream import Step, Stream, StreamLayer, stream
from atlaskit.models.suffix import Blocks, common_list, copied, run
from atlaskit.models.tokenize import Text
from atlaskit.records import Tokens

TOP = 10


@dataclass(frozen=True, eq=False)
class Words:
    """Words of the vocabulary, the foremost first, each with its number: a cosine or a probability."""

    ids: Int[Tensor, " rank"]
    strings: tuple[str, ...]
    values: Float[Tensor, " rank"]


@dataclass(frozen=True, eq=False)
class HeadSteps:
    """One head at one query: ``dots = q·k``, ``scaled = dots × scale``, then mask and softmax give `pattern`.

    `z` is the pattern times `v`; `write` is z after W_O, what the head adds to the residual stream (before a norm on
    writes, if the model has one).
    """

    q: Float[Tensor, " d_head"]
    k: Float[Tensor, "key d_head"]
    dots: Float[Tensor, " key"]
    scale: float
    scaled: Float[Tensor, " key"]
    allowed: Bool[Tensor, " key"]
    pattern: Float[Tensor, " key"]
    v: Float[Tensor, "key d_value"]
    z: Float[Tensor, " d_value"]
    write: Float[Tensor, " d_model"]


@dataclass(frozen=True, eq=False)
class NormAt:
    """One norm of the layer at one token: ``scale × (read − mean) + shift = gave``, mean 0 for those that keep it."""

    name: str
    read: Float[Tensor, " d_model"]
    mean: float
    scale: Float[Tensor, " d_model"]
    shift: Float[Tensor, " d_model"]
    gave: Float[Tensor, " d_model"]


@dataclass(frozen=True, eq=False)
class Neurons:
    """The feed-forward neurons that write most at one token: activation times the length of the neuron's output row."""

    ids: Int[Tensor, " rank"]
    activations: Float[Tensor, " rank"]
    lengths: Float[Tensor, " rank"]
    n_neuron: int


@dataclass(frozen=True, eq=False)
class Dissection:
    """One layer, head and token. `lens` and `predictions` are None without a language-model head.

    `embeddings` are what each embedding table gave (words, positions, segments); their sum, after a norm if there is
    one, is what layer 0 read. `lengths` are Euclidean, of all tokens, at the stages of the layer. `lens` reads the
    residual stream after no layer, one, two … as if it were the last. `neurons` is None where `neurons_missing` says
    why.
    """

    tokens: Tokens
    layer: int
    head: int
    query: int
    embeddings: Mapping[str, Float[Tensor, "query d_model"]]
    nearest: Words
    attention: HeadSteps
    lengths: Mapping[str, Float[Tensor, " query"]]
    norms: tuple[NormAt, ...]
    neurons: Neurons | None
    neurons_missing: str
    lens: tuple[Words, ...] | None
    predictions: Words | None


def dissect(model: Model, text: Text, layer: int, *, head: int, query: int = -1, top: int = TOP) -> Dissection:
    """All steps of one token through one layer, each rebuilt from the one before to 1e-5 of the model's own.

    A masked model is asked about a token by writing its mask into the text. Raises IndexError for what is not there,
    TypeError for a model whose residual stream cannot be followed or whose steps are others than these.
    """
    seen = stream(model, text)
    size, n = model.geometry, len(seen.tokens)
    if not (0 <= layer < size.n_layer and 0 <= head < size.n_head and -n <= query < n):
        raise IndexError(
            f"there is no layer {layer}, head {head}, token {query}; {model.name} has layers 0 to {size.n_layer - 1} "
            f"and heads 0 to {size.n_head - 1}, and the text has {n} tokens"
        )
    query, one = query % n, seen.layers[layer]
    blocks = common_list(model.net, [call.module for call in seen.calls])
    assert blocks is not None  # stream has found them
    inside = set(blocks.modules[layer].modules())
    steps = [step for step in seen.steps if step.module in inside]
    names = {module: name for name, module in blocks.modules[layer].named_modules()}
    neurons = _neurons(steps, one, query, top)
    lens = _lens(model, seen, blocks, query)
    stages = {"read": one.read, "attention": one.attention, "middle": one.middle}
    stages |= {"feed-forward": one.feed_forward, "gave": one.gave}
    return Dissection(
        tokens=seen.tokens, layer=layer, head=head, query=query,
        embeddings=_embeddings(model, seen),
        nearest=_nearest(model, int(seen.tokens.ids[query]), top),
        attention=_head(model, seen.calls[layer], one, head=head, query=query),
        lengths={name: stage.norm(dim=-1) for name, stage in stages.items()},
        norms=_norms(steps, names, query),
        neurons=neurons,
        neurons_missing="" if neurons else f"no single linear module of {model.name} writes its feed-forward's output",
        lens=None if lens is None else tuple(_foremost(model, row.softmax(-1), top) for row in lens),
        predictions=None if lens is None else _foremost(model, lens[-1].softmax(-1), top),
    )  # fmt: skip


def _head(model: Model, call: Call, layer: StreamLayer, *, head: int, query: int) -> HeadSteps:
    own = head * call.k.shape[1] // call.q.shape[1]
    q, k, v = call.q[0, head, query].float(), call.k[0, own].float(), call.v[0, own].float()
    given = call.extra.get("scaling")
    dots, scale = k @ q, q.shape[-1] ** -0.5 if given is None else float(given)
    allowed = call.attend(slice(query, query + 1)).support[0, 0]
    pattern = (dots * scale).masked_fill(~allowed, -torch.inf).softmax(-1)
    extras = sorted(name for name, value in call.extra.items() if value is not None and name != "scaling")
    told = (
        f"the pattern of head {head} from q·k, scale, mask and softmax (it is given {', '.join(extras) or 'no more'})"
    )
    _check(told, pattern, layer.pattern[head, query], model)
    z = pattern @ v
    _check(f"z of head {head}", z, layer.spoken[head, query], model)
    write = z @ layer.write_weights[head]
    _check(f"the write of head {head}", write, layer.result[head, query], model)
    return HeadSteps(q, k, dots, scale, dots * scale, allowed, pattern, v, z, write)


def _embeddings(model: Model, seen: Stream) -> dict[str, Float[Tensor, "query d_model"]]:
    names = {module: name for name, module in model.net.named_modules()}
    begin = [step for step in seen.steps if isinstance(step.module, nn.Embedding)]
    found = {names[step.module]: step.gave for step in begin}
    total = torch.stack(list(found.values())).sum(0)
    read = seen.layers[0].read
    made = [total]
    made += [step.gave for step in seen.steps if step.read is not None and _close(step.read, total)]
    closest = min(made, key=lambda one: float((one - read).abs().max()))
    _check("what layer 0 reads, from the embeddings", closest, read, model)
    return found


def _norms(steps: list[Step], names: Mapping[nn.Module, str], query: int) -> tuple[NormAt, ...]:
    found = []
    for step in steps:
        if step.read is None or any(step.module.children()) or not any(True for _ in step.module.parameters()):
            continue
        norm: Linearised | None = linearise(step.module, step.read)
        if norm is not None:
            x = step.read[query]
            mean = float(x.mean()) if norm.centred else 0.0
            found.append(NormAt(names[step.module], x, mean, norm.scale[query], norm.shift, step.gave[query]))
    return tuple(found)


def _neurons(steps: list[Step], layer: StreamLayer, query: int, top: int) -> Neurons | None:
    """The last linear module of the feed-forward, by what it gave; its rows are the neurons' outputs."""
    for step in steps:
        weight = getattr(step.module, "weight", None)
        if step.hidden is None or weight is None or weight.ndim != 2 or not _close(step.gave, layer.feed_forward):
            continue
        rows = write_weights(step.module, 1)[0]
        with torch.no_grad():
            bias = step.module(torch.zeros_like(step.hidden[:1]))[0]
        if _close(step.hidden @ rows + bias, layer.feed_forward):
            active = step.hidden[query]
            lengths = active.abs() * rows.norm(dim=-1)
            ids = lengths.topk(min(top, len(lengths))).indices
            return Neurons(ids, active[ids], lengths[ids], len(active))
    return None


def _lens(model: Model, seen: Stream, blocks: Blocks, query: int) -> Float[Tensor, "layer vocab"] | None:
    """Logits at the query if each layer were the last: the blocks answer with what that layer gave, in one pass."""
    if model.net.get_output_embeddings() is None or getattr(seen.output, "logits", None) is None:
        return None
    inputs = accepted(model.net, model.inputs(seen.tokens, seen.tokens) | {"use_cache": False})
    stack = torch.stack([seen.layers[0].read, *[layer.gave for layer in seen.layers]]).to(model.net.dtype)
    answer = _refilled(run(model, blocks, inputs).handed_on[-1], stack)
    with torch.no_grad(), ExitStack() as silenced:
        for block in blocks.modules:
            silenced.enter_context(answering(block, answer))
        logits = model.net(**copied(inputs, len(stack))).logits[:, query].float()
    _check("logits, from what the last layer gave", logits[-1], seen.output.logits[0, query].float(), model)
    return logits


def _refilled(output: Any, stack: Tensor) -> Any:
    """What a block hands on, with other hidden states in it."""
    if isinstance(output, tuple):
        return (stack, *output[1:])
    return stack


def _nearest(model: Model, token: int, top: int) -> Words:
    """Cosines between a word's embedding and those of all other words."""
    table = next(model.net.get_input_embeddings().parameters()).detach().float()
    cosines = torch.nn.functional.cosine_similarity(table, table[token][None], dim=-1)
    cosines[token] = -torch.inf
    return _foremost(model, cosines, min(top, len(cosines) - 1))


def _foremost(model: Model, values: Float[Tensor, " vocab"], top: int) -> Words:
    values, ids = values.topk(min(top, len(values)))
    names = [str(i) if model.tokenizer is None else str(model.tokenizer.decode([i])) for i in ids.tolist()]
    return Words(ids.cpu(), tuple(names), values.cpu())


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= 1e-5 * max(1.0, float(other.abs().max())))


def _check(what: str, ours: Tensor, own: Tensor, model: Model) -> None:
    """Raise TypeError where a step does not give what the model has."""
    if not _close(ours, own):
        raise TypeError(
            f"{what}: the steps give other numbers than {model.name} has (apart by up to "
            f"{float((ours - own).abs().max()):.2g}), so they would not be its own"
        )
