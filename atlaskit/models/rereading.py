"""One text of any length: q, k and v are kept, and patterns are made again, some rows at a time, when asked for."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit.models.documents import pair
from atlaskit.models.finite import check_finite
from atlaskit.models.hook import Call
from atlaskit.models.model import Model
from atlaskit.models.observe import observe
from atlaskit.models.proof import Site
from atlaskit.models.report import Report
from atlaskit.models.tokenize import Text
from atlaskit.records import Kind, Tokens

TILE = 1 << 23  # bytes of pattern at once, while the text is read: what fits the cache, five times as fast as 2 ** 26


@dataclass(frozen=True, eq=False)
class Reread:
    """What `reread` returns: memory grows with the text's length, not with its square. `layers` are their numbers."""

    model: str
    tokens: Tokens
    source: Tokens
    layers: tuple[int, ...]
    n_head: int
    calls: tuple[Call, ...]

    def rows(self, layer: int, rows: slice) -> tuple[Float[Tensor, "head query key"], Bool[Tensor, "query key"]]:
        """The pattern of some queries, by the model's own attention code, and the cells that its mask allows."""
        call = self.calls[self.layers.index(layer)]
        with torch.inference_mode():
            tile = call.attend(rows)
        return tile.pattern[0].float().cpu(), tile.support[0].cpu()

    def norms(self, layer: int) -> Float[Tensor, "head key"]:
        """How long each head's value vectors are; a KV head serves several heads."""
        call = self.calls[self.layers.index(layer)]
        lengths = call.v[0].float().norm(dim=-1).cpu()
        return lengths.repeat_interleave(call.q.shape[1] // len(lengths), dim=0)


def reread(
    model: Model, text: Text, *, source: Text | None = None, kind: Kind | None = None, max_tokens: int | None = None
) -> Reread:
    """A text whose patterns can be had at any length, for the explorer; `kind` as in `survey`.

    Raises TypeError for a model that shows its patterns alone, of which q and k are not to be had.
    """
    if model.proof.outside:
        raise TypeError(f"{model.name} shows whole patterns only ({model.proof.outside}): use capture(…)")
    tokens, read = pair(model, text, source, max_tokens)
    wanted = kind or model.sites[0].kind
    kept: list[tuple[Site, Call]] = []

    def listen(site: Site, call: Call | Report) -> Tensor:
        assert isinstance(call, Call)
        if site.kind == wanted:
            kept.append((site, call))
        step = max(1, TILE // (4 * site.n_head * call.n_key))
        parts = []
        for start in range(0, call.n_query, step):
            output = call.attend(slice(start, min(start + step, call.n_query))).output
            check_finite(site, output.transpose(1, 2))
            parts.append(output)
        return torch.cat(parts, dim=1)

    observe(model, [(tokens, read)], listen)
    if not kept:
        raise ValueError(f"{model.name} has no {wanted} attention; it has {sorted({s.kind for s in model.sites})}")
    queries = read if wanted == "encoder" else tokens
    keys = tokens if wanted == "decoder" else read
    sites, calls = zip(*kept, strict=True)
    return Reread(model.name, queries, keys, tuple(s.layer for s in sites), max(s.n_head for s in sites), calls)
