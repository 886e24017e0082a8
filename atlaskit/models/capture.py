"""Two ways to look, of which this is the first: one short text, every layer, everything kept."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from atlaskit.models.ablation import check_heads
from atlaskit.models.documents import pair
from atlaskit.models.finite import check_finite
from atlaskit.models.hook import Attended, Call
from atlaskit.models.intervene import mean_z
from atlaskit.models.model import Model
from atlaskit.models.observe import observe
from atlaskit.models.projection import write_weights
from atlaskit.models.proof import Site
from atlaskit.models.report import Report, Reported
from atlaskit.models.tokenize import Text
from atlaskit.records import Capture, Head, LayerAttention, Tokens

BUDGET = 1_000_000_000


def capture(
    model: Model,
    text: Text,
    *,
    source: Text | None = None,
    max_tokens: int | None = None,
    budget: int = BUDGET,
    without: Sequence[Head] = (),
) -> Capture:
    """Attention of one text in every layer: pattern, support, q, k, v, z and result per head, in float32 on the CPU.

    An encoder–decoder reads `source` and is given `text` as what it writes. Raises MemoryError when the result would
    take more than `budget` bytes, ValueError for a text of fewer than two tokens or a layer whose output is not finite.

    The heads in `without` say their mean over this text in place of z, as in `ablation_effects`, and later layers read
    that: what else changes is seen beside a capture without it.
    """
    tokens, read = pair(model, text, source, max_tokens)
    _check_budget(model, len(tokens), len(read), budget)
    silent = _silenced(model, tokens, without)
    seen: list[tuple[Site, Call | Report, Attended | Reported]] = []
    reads: dict[int, Tensor] = {}

    def listen(site: Site, call: Call | Report) -> Tensor | None:
        tile = call.attend()
        check_finite(site, tile.pattern if tile.output is None else tile.output.transpose(1, 2))
        if tile.output is not None:
            for head, mean in silent.get(len(seen), {}).items():
                tile.output[:, :, head] = mean.to(tile.output)
        seen.append((site, call, tile))
        return tile.output

    observe(model, [(tokens, read)], listen, read=reads.setdefault)
    layers = tuple(_keep(*one, reads.get(i), model.proof.outside) for i, one in enumerate(seen))
    return Capture(model.name, tokens, read, layers)


def _silenced(model: Model, tokens: Tokens, without: Sequence[Head]) -> dict[int, dict[int, Float[Tensor, " d_value"]]]:
    """Of each layer, counted among those that attend, what its silenced heads say."""
    if not without:
        return {}
    check_heads(model, without)
    means = mean_z(model, [tokens.ids.tolist()])
    return {layer: {head: means[layer, head] for at, head in without if at == layer} for layer, _ in without}


def _keep(
    site: Site, call: Call | Report, tile: Attended | Reported, read: Tensor | None, outside: str
) -> LayerAttention:
    q = k = v = z = result = None
    if isinstance(call, Call) and tile.output is not None:
        q, k, v = (part[0].float().cpu() for part in (call.q, call.k, call.v))
        z = tile.output[0].float().transpose(0, 1).cpu()
    if read is not None and site.projection is not None:
        heads = read[0].float().unflatten(-1, (site.n_head, -1))
        result = torch.einsum("qhv,hvm->hqm", heads, write_weights(site.projection, site.n_head)).cpu()
    return LayerAttention(
        site.layer, site.kind, tile.pattern[0].float().cpu(), tile.support[0].cpu(), q, k, v, z,
        result, site.projection_missing, outside,
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
