"""The proof that a network's attention can be observed: captured equals eager, on one made-up sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from atlaskit.models.hook import Call, hooked
from atlaskit.records import Kind


@dataclass(frozen=True, eq=False)
class Site:
    """One attention layer, in the order in which the layers speak. `projection` is its W_O, found by proof."""

    kind: Kind
    layer: int
    n_head: int
    projection: nn.Module | None
    projection_missing: str


@dataclass
class Proof:
    """What one forward pass under the hook showed."""

    is_encoder_decoder: bool
    lengths: tuple[int, int]  # tokens of the source and of the target, which differ, so that lengths tell kinds apart
    calls: list[Call] = field(default_factory=list)
    patterns: list[Float[Tensor, "head query key"]] = field(default_factory=list)
    outputs: list[Float[Tensor, "query head d_value"]] = field(default_factory=list)
    projections: dict[int, nn.Module] = field(default_factory=dict)

    def kinds(self) -> list[Kind]:
        """Which attention each call was."""
        if not self.is_encoder_decoder:
            future = any(bool(call.support()[0].triu(1).any()) for call in self.calls)
            return ["encoder" if future else "decoder"] * len(self.calls)
        source, target = self.lengths
        names: dict[tuple[int, int], Kind] = {
            (source, source): "encoder", (target, target): "decoder", (target, source): "cross"
        }  # fmt: skip
        return [names[call.q.shape[2], call.k.shape[2]] for call in self.calls]

    def sites(self) -> Iterator[Site]:
        """The layers in the order in which they spoke."""
        kinds = self.kinds()
        spoken: dict[Kind, list[int]] = {kind: [] for kind in kinds}
        for kind, call in zip(kinds, self.calls, strict=True):
            spoken[kind].append(_own_number(call.module))
        for i, (kind, call) in enumerate(zip(kinds, self.calls, strict=True)):
            earlier = kinds[:i].count(kind)
            # A hybrid's true layer numbers have gaps; trust a module's own number only where they all rise.
            rises = all(a < b for a, b in zip([-1, *spoken[kind]], spoken[kind], strict=False))
            found = self.projections.get(i)
            missing = (
                "" if found else f"no linear module of {type(call.module).__name__} reads the heads' output as it is"
            )
            yield Site(kind, spoken[kind][earlier] if rises else earlier, call.q.shape[1], found, missing)


def prove(net: PreTrainedModel) -> Proof:
    """Run one made-up sentence twice, eagerly and under the hook, and compare all that can be compared."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(net.config.get_text_config().vocab_size)
    source, target = (torch.randint(vocabulary, (1, n), generator=generator).to(net.device) for n in (9, 12))
    twofold = bool(net.config.is_encoder_decoder)
    read = source if twofold else target
    inputs: dict[str, Any] = {"input_ids": read, "attention_mask": torch.ones_like(read), "use_cache": False}
    if twofold:
        inputs["decoder_input_ids"] = target

    proof = Proof(twofold, (source.shape[1], target.shape[1]))

    def listen(call: Call) -> Tensor:
        output, pattern = call.attend()
        proof.calls.append(call)
        proof.patterns.append(pattern[0].float())
        proof.outputs.append(output[0])
        return output

    with torch.inference_mode(), hooked(net, listen), _finding_projections(net, proof):
        captured = net(**inputs)[0]
    if not proof.calls:
        raise TypeError(f"{type(net).__name__} never attended: a model without attention has no pattern to show")
    with torch.inference_mode(), _eager(net):
        expected = net(**inputs, output_attentions=True)
    _compare("output", captured, expected[0])
    for kind, names in {
        "encoder": ("encoder_attentions", "attentions"),
        "decoder": ("decoder_attentions", "attentions"),
        "cross": ("cross_attentions",),
    }.items():
        seen = [p for k, p in zip(proof.kinds(), proof.patterns, strict=True) if k == kind]
        told = next((expected[name] for name in names if expected.get(name)), ())
        if seen and len(told) != len(seen):
            raise ValueError(
                f"{type(net).__name__} attends in {len(seen)} {kind} layers and reports {len(told)}; "
                "the capture cannot be proved, so it is refused"
            )
        for layer, (pattern, reference) in enumerate(zip(seen, told, strict=False)):
            _compare(f"pattern of {kind} layer {layer}", pattern, reference[0].float())
    return proof


def _compare(what: str, captured: Tensor, expected: Tensor) -> None:
    tolerance = 1e-5 if captured.dtype in (torch.float32, torch.float64) else 2e-2
    apart = float((captured - expected).abs().max())
    if not apart <= tolerance:  # also when it is nan
        raise ValueError(
            f"the captured {what} differs from eager attention by {apart:.2g} (allowed: {tolerance:.0g}); "
            "nothing measured on this model could be trusted, so it is refused"
        )


@contextmanager
def _finding_projections(net: PreTrainedModel, proof: Proof) -> Iterator[None]:
    """Note, for each attention call, the module that next reads exactly what the heads wrote: its W_O."""

    def look(module: nn.Module, args: tuple[Any, ...], _output: Any) -> None:
        i = len(proof.outputs) - 1
        if i < 0 or i in proof.projections or not args or not isinstance(args[0], Tensor):
            return
        heads = proof.outputs[i].flatten(-2)
        if args[0].shape[1:] == heads.shape and torch.equal(args[0][0], heads):
            proof.projections[i] = module

    linear = [
        module for module in net.modules()
        if not any(module.children()) and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    ]  # fmt: skip
    handles = [module.register_forward_hook(look) for module in linear]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _eager(net: PreTrainedModel) -> Iterator[None]:
    before = net.config._attn_implementation
    net.set_attn_implementation("eager")
    try:
        yield
    finally:
        net.set_attn_implementation(before)


def _own_number(module: nn.Module) -> int:
    number = getattr(module, "layer_idx", None)
    return number if isinstance(number, int) else -1
