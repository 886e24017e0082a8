"""The proof that a network's attention can be observed: captured equals eager, on one made-up sentence."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from atlaskit.models.hook import Call, eagerly, hooked
from atlaskit.models.projection import find_projections
from atlaskit.models.report import Report, finding_reporters, reporting
from atlaskit.records import Kind

LENGTHS: dict[Kind, tuple[int, int]] = {"encoder": (9, 9), "decoder": (12, 12), "cross": (12, 9)}
"""Queries and keys in the made-up sentences: source and target differ in length, which tells kinds apart."""
OUTPUTS: dict[Kind, str] = {
    "encoder": "encoder_attentions", "decoder": "decoder_attentions", "cross": "cross_attentions"
}  # fmt: skip


class Differs(ValueError):
    """The capture is not what eager attention says."""


@dataclass(frozen=True, eq=False)
class Site:
    """One attention layer, in the order in which the layers speak. `projection` is its W_O, found by experiment.

    For a model outside the interface `reporter` is the module that hands the pattern out, and its place in the output.
    """

    kind: Kind
    layer: int
    n_head: int
    projection: nn.Module | None
    projection_missing: str
    reporter: tuple[nn.Module, int] | None = None


@dataclass(frozen=True, eq=False)
class Proof:
    """What was found out. `outside` says why patterns are what the model reports by itself; "" where the hook works."""

    sites: tuple[Site, ...]
    n_kv_head: int
    d_head: int
    lazy: bool
    outside: str


@dataclass(eq=False)
class _Heard:
    """One run under the hook."""

    lazy: bool
    output: Tensor = field(default_factory=lambda: torch.empty(0))
    calls: list[Call] = field(default_factory=list)
    blocks: list[int | None] = field(default_factory=list)
    patterns: list[Float[Tensor, "head query key"]] = field(default_factory=list)
    supports: list[Bool[Tensor, "query key"]] = field(default_factory=list)


def prove(net: PreTrainedModel) -> Proof:
    """Run one made-up sentence eagerly and under the hook, and compare all that can be compared.

    Raises TypeError with the reason for a network without attention or whose attention cannot be had, ValueError for
    one whose capture differs from eager attention.
    """
    inputs = sentence(net)
    told, made_by = _ask(net, inputs)
    reported = _reported(net, told)
    n_reported = sum(len(patterns) for patterns in reported.values())
    name = type(net).__name__
    try:
        heard = _listen(net, inputs, told)
        n_heard = len(heard.calls)
        reason = (
            f"{name} attends {n_heard} times and reports {n_reported} patterns between tokens"
            if n_heard
            else f"{name} does not look its attention up in transformers' AttentionInterface"
        )
    except Differs:
        raise
    except Exception as error:  # whatever a stranger's forward raises
        n_heard, reason = 0, f"{name} cannot attend through the hook ({type(error).__name__}: {_line(error)})"
    if n_heard == n_reported > 0:
        return _by_hook(net, inputs, heard, reported)
    if n_reported:
        return _by_report(net, inputs, told, reported, made_by, reason)
    raise TypeError(_why_nothing(name, told, reason if n_heard else ""))


def accepted(module: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the inputs that the module's forward has a name for."""
    parameters = inspect.signature(module.forward).parameters
    anything = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    return {name: value for name, value in inputs.items() if anything or name in parameters}


def sentence(net: PreTrainedModel) -> dict[str, Any]:
    """Random token ids, none of which the config gives a special meaning (an image, padding)."""
    config = net.config.to_dict() | net.config.get_text_config().to_dict()
    special = {value for name, value in config.items() if name.endswith(("_token_id", "_token_index"))}
    plain = [i for i in range(int(net.config.get_text_config().vocab_size)) if i not in special]
    generator = torch.Generator().manual_seed(0)
    source, target = (
        torch.tensor(plain)[torch.randint(len(plain), (1, n), generator=generator)].to(net.device)
        for n, _ in (LENGTHS["encoder"], LENGTHS["decoder"])
    )
    read = source if net.config.is_encoder_decoder else target
    inputs = {"input_ids": read, "attention_mask": torch.ones_like(read), "use_cache": False}
    if net.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = target
    return inputs


def _ask(net: PreTrainedModel, inputs: Mapping[str, Any]) -> tuple[Any, dict[int, tuple[nn.Module, int]]]:
    """The net's own eager answer with its patterns, and which module made each."""
    with torch.inference_mode(), eagerly(net), finding_reporters(net) as made_by:
        try:
            return net(**accepted(net, inputs), output_attentions=True), made_by
        except Exception as error:  # whatever a stranger's forward raises
            raise TypeError(
                f"{type(net).__name__} cannot be run on token ids alone: {type(error).__name__}: {_line(error)}"
            ) from error


def _reported(net: PreTrainedModel, told: Mapping[str, Any]) -> dict[Kind, list[tuple[int, Tensor]]]:
    """Reported patterns between tokens, with their places: a hybrid's other layers report None or something else."""
    lengths = LENGTHS
    if net.config.is_encoder_decoder:
        answers = {kind: told.get(name) for kind, name in OUTPUTS.items()}
    else:
        answers = {"decoder": told.get("attentions")}
    found: dict[Kind, list[tuple[int, Tensor]]] = {}
    for kind, patterns in answers.items():
        found[kind] = [
            (place, p) for place, p in enumerate(patterns or ())
            if isinstance(p, Tensor) and p.ndim == 4 and p.shape[0] == 1 and p.shape[2:] == lengths[kind]
        ]  # fmt: skip
    return found


def _listen(net: PreTrainedModel, inputs: Mapping[str, Any], told: Any) -> _Heard:
    """A run under the hook: with a mask written row by row if the model's code lets it pass, or else a whole one."""
    try:
        heard = _run(net, inputs, lazy=True)
        _compare("output", heard.output, told[0])
    except Exception:  # the model looks into its mask
        heard = _run(net, inputs, lazy=False)
        _compare("output", heard.output, told[0])
    return heard


def _run(net: PreTrainedModel, inputs: Mapping[str, Any], *, lazy: bool) -> _Heard:
    heard = _Heard(lazy)

    def listen(call: Call) -> Tensor:
        output, pattern, support = call.attend()
        tiles = [call.attend(rows) for rows in (slice(0, 5), slice(5, None))]
        _compare("output by tiles of queries", torch.cat([tile.output for tile in tiles], dim=1), output)
        _compare("pattern by tiles of queries", torch.cat([tile.pattern for tile in tiles], dim=2), pattern)
        heard.calls.append(call)
        heard.blocks.append(inside[0] if inside else None)
        heard.patterns.append(pattern[0].float())
        heard.supports.append(support[0])
        return output

    with torch.inference_mode(), _places(net) as inside, hooked(net, listen, lazy=lazy):
        heard.output = net(**accepted(net, inputs))[0]
    return heard


@contextmanager
def _places(net: nn.Module) -> Iterator[list[int]]:
    """Places, in their lists, of the listed modules that run at the moment; the outermost, which is a block, first."""
    inside: list[int] = []

    def leave(*_: Any) -> None:
        inside.pop()

    def watch(place: int, module: nn.Module) -> None:
        stack.callback(module.register_forward_pre_hook(lambda *_: inside.append(place)).remove)
        stack.callback(module.register_forward_hook(leave).remove)

    with ExitStack() as stack:
        for listed in net.modules():
            for place, module in enumerate(listed if isinstance(listed, nn.ModuleList) else ()):
                watch(place, module)
        yield inside


def _by_hook(
    net: PreTrainedModel,
    inputs: Mapping[str, Any],
    heard: _Heard,
    reported: Mapping[Kind, Sequence[tuple[int, Tensor]]],
) -> Proof:
    lengths = {LENGTHS[kind]: kind for kind in reported}
    kinds: list[Kind] = [lengths[call.n_query, call.n_key] for call in heard.calls]
    for kind, patterns in reported.items():
        seen = [pattern for k, pattern in zip(kinds, heard.patterns, strict=True) if k == kind]
        for layer, (pattern, (_, reference)) in enumerate(zip(seen, patterns, strict=True)):
            _compare(f"pattern of {kind} layer {layer}", pattern, reference[0].float())
    if kinds and set(kinds) == {"decoder"} and any(support.triu(1).any() for support in heard.supports):
        kinds = ["encoder"] * len(kinds)

    def again() -> None:
        net(**accepted(net, inputs))

    projections = find_projections(net, again, lazy=heard.lazy)
    numbers = _numbers(kinds, [getattr(call.module, "layer_idx", None) for call in heard.calls], heard.blocks)
    sites = tuple(
        Site(
            kind, number, call.q.shape[1], projection,
            "" if projection else f"no linear module after {type(call.module).__name__} reads each head's output apart",
        )
        for kind, number, call, projection in zip(kinds, numbers, heard.calls, projections, strict=True)
    )  # fmt: skip
    n_kv_head = max(call.k.shape[1] for call in heard.calls)
    return Proof(sites, n_kv_head, heard.calls[0].q.shape[-1], heard.lazy, "")


def _by_report(
    net: PreTrainedModel,
    inputs: Mapping[str, Any],
    told: Any,
    reported: Mapping[Kind, Sequence[tuple[int, Tensor]]],
    made_by: Mapping[int, tuple[nn.Module, int]],
    reason: str,
) -> Proof:
    """Sites for the patterns that the model reports, if they are patterns and can be had while it runs."""
    name = type(net).__name__
    every = [(kind, place, pattern) for kind, patterns in reported.items() for place, pattern in patterns]
    for kind, place, pattern in every:
        total = pattern.sum(-1)
        if not (pattern.min() >= 0 and total.max() <= 1 + 1e-3):  # also when it is nan
            raise TypeError(
                f"{reason}, and what it reports of {kind} layer {place} is no pattern: its weights start at "
                f"{float(pattern.min()):.2g} and its rows sum to up to {float(total.max()):.2g}"
            )
    orphans = [place for _, place, pattern in every if id(pattern) not in made_by]
    if orphans:
        raise TypeError(f"{reason}, and no module of it hands out the patterns of layers {orphans}")
    if not net.config.is_encoder_decoder and any(pattern[0].triu(1).any() for _, _, pattern in every):
        every = [("encoder", place, pattern) for _, place, pattern in every]
    order = list(made_by)
    every.sort(key=lambda one: order.index(id(one[2])))
    sites = tuple(
        Site(kind, place, pattern.shape[1], None, reason, made_by[id(pattern)]) for kind, place, pattern in every
    )
    heard: list[Tensor] = []

    def listen(report: Report) -> None:
        heard.append(report.pattern)

    with torch.inference_mode(), eagerly(net), reporting(sites, listen):
        again = net(**accepted(net, inputs), output_attentions=True)
    _compare("output", again[0], told[0])
    if len(heard) != len(every):
        raise TypeError(f"{name} reports {len(every)} patterns and hands out {len(heard)} while it runs")
    for site, pattern, (_, _, reference) in zip(sites, heard, every, strict=True):
        _compare(f"pattern of {site.kind} layer {site.layer}", pattern, reference)
    return Proof(sites, 0, 0, True, reason)


def _numbers(kinds: Sequence[Kind], own: Sequence[Any], blocks: Sequence[int | None]) -> list[int]:
    """Layer numbers, which have gaps in a hybrid: what the modules say, or else the places of the blocks they are in.

    Whichever rises is true of every layer; layers that share one block have the order in which they speak alone.
    """
    numbers = []
    for i, kind in enumerate(kinds):
        before = kinds[:i].count(kind)
        found = before
        for told in (own, blocks):
            same = [number for k, number in zip(kinds, told, strict=True) if k == kind]
            if all(isinstance(b, int) and a < b for a, b in zip([-1, *same], same, strict=False)):
                found = same[before]
                break
        numbers.append(found)
    return numbers


def _why_nothing(name: str, told: Mapping[str, Any], reason: str) -> str:
    shapes = sorted({
        str(tuple(p.shape)) for key in (*OUTPUTS.values(), "attentions") for p in told.get(key) or ()
        if isinstance(p, Tensor)
    })  # fmt: skip
    if shapes:
        return f"{name} reports attention of shape {', '.join(shapes)}, which is not [1, head, token, token]"
    if reason:
        return f"{reason}, so a capture cannot be proved"
    return (
        f"{name} neither looks attention up in transformers' AttentionInterface nor reports any: "
        "it has no attention, or keeps its pattern to itself"
    )


def _compare(what: str, captured: Tensor, expected: Tensor) -> None:
    tolerance = 1e-5 if captured.dtype in (torch.float32, torch.float64) else 2e-2
    apart = float((captured - expected).abs().max()) if captured.shape == expected.shape else float("inf")
    scale = max(1.0, float(expected.abs().max()))
    if not apart <= tolerance * scale:  # also when it is nan
        raise Differs(
            f"the captured {what} differs from eager attention by {apart:.2g} (allowed: {tolerance:.0g}); "
            "nothing measured on this model could be trusted, so it is refused"
        )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no more is said"])[0]
