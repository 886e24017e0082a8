"""Two ways to look, of which this is the first: one short text, every layer, everything kept."""

import torch
from torch import Tensor, nn

from atlaskit.models.hook import Call, hooked
from atlaskit.models.model import Model, write_weights
from atlaskit.models.proof import Site
from atlaskit.models.tokenize import Text
from atlaskit.records import Capture, LayerAttention, Tokens

BUDGET = 1_000_000_000


def capture(
    model: Model, text: Text, *, source: Text | None = None, max_tokens: int | None = None, budget: int = BUDGET
) -> Capture:
    """Attention of one text in every layer: pattern, support, q, k, v, z and result per head, in float32 on the CPU.

    An encoder–decoder reads `source` and is given `text` as what it writes. Raises MemoryError when the result would
    take more than `budget` bytes, ValueError for a text of fewer than two tokens or a layer whose output is not finite.
    """
    tokens, read = pair(model, text, source, max_tokens)
    _check_budget(model, len(tokens), len(read), budget)
    layers: list[LayerAttention] = []

    def listen(call: Call) -> Tensor:
        site = model.sites[len(layers)]
        output, pattern = call.attend()
        check_finite(site, output)
        layers.append(_keep(site, call, output, pattern))
        return output

    with torch.inference_mode(), hooked(model.net, listen):
        trunk(model)(**model.inputs(tokens, read), use_cache=False)
    return Capture(model.name, tokens, read, tuple(layers))


def pair(model: Model, text: Text, source: Text | None, max_tokens: int | None) -> tuple[Tokens, Tokens]:
    """Tokens of the text and of what an encoder–decoder reads; for every other model these are the same."""
    if model.is_encoder_decoder and source is None:
        raise ValueError(f"{model.name} is an encoder–decoder: say what it reads too, as source=…")
    if source is not None and not model.is_encoder_decoder:
        raise ValueError(f"{model.name} reads one text only; source=… is for encoder–decoders")
    tokens = model.tokens(text, max_tokens=max_tokens)
    return tokens, tokens if source is None else model.tokens(source, max_tokens=max_tokens)


def trunk(model: Model) -> nn.Module:
    """The network without its language-model head, which costs a third of a small model and is not looked at."""
    return model.net.base_model


def check_finite(site: Site, output: Tensor) -> None:
    """Raise ValueError, naming layer and heads, when attention wrote something that is not a number."""
    if not output.isfinite().all():
        heads = (~output.isfinite()).flatten(0, 1).any(-1).any(0).nonzero().flatten().tolist()
        raise ValueError(
            f"{site.kind} layer {site.layer} wrote NaN or infinity in heads {heads}: a weight is broken, "
            f"or {output.dtype} overflowed; try dtype='float32'"
        )


def _keep(site: Site, call: Call, output: Tensor, pattern: Tensor) -> LayerAttention:
    z = output[0].float().transpose(0, 1)
    result = None
    if site.projection is not None:
        result = torch.einsum("hqv,hvm->hqm", z, write_weights(site.projection, site.n_head)).cpu()
    q, k, v = (part[0].float().cpu() for part in (call.q, call.k, call.v))
    return LayerAttention(
        site.layer, site.kind, pattern[0].float().cpu(), call.support()[0].cpu(), q, k, v, z.cpu(),
        result, site.projection_missing,
    )  # fmt: skip


def _check_budget(model: Model, n_target: int, n_source: int, budget: int) -> None:
    """Raise MemoryError before a capture that would not fit."""
    length = {"encoder": (n_source, n_source), "decoder": (n_target, n_target), "cross": (n_target, n_source)}
    size = model.geometry
    need = 0
    for site in model.sites:
        n_query, n_key = length[site.kind]
        rows = n_query * (2 * size.d_head + (size.d_model if site.projection else 0)) + 2 * n_key * size.d_head
        need += 4 * site.n_head * (n_query * n_key + rows)
    if need > budget:
        raise MemoryError(
            f"capturing {len(model.sites)} layers × {size.n_head} heads at {n_target} tokens needs {need / 1e9:.1f} GB;"
            f" the budget is {budget / 1e9:.1f} GB. Use survey(...) to stream it a tile at a time, a smaller max_tokens"
            ", or a larger budget=…"
        )
