"""The second way to look: a corpus, one number per document, layer and head, in bounded memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from atlaskit.models import moments
from atlaskit.models.cache import Cache
from atlaskit.models.capture import check_finite
from atlaskit.models.documents import Document, Read, batches, tokenized
from atlaskit.models.hook import Attended, Call
from atlaskit.models.model import Model
from atlaskit.models.observe import observe
from atlaskit.models.proof import Site
from atlaskit.models.report import Report, Reported
from atlaskit.models.scoring import Asked, Sums, asked
from atlaskit.records import Kind, Rows, Score, Survey

TILE = 4_000_000
"""Bytes of pattern in a tile on a processor: what its cache holds, so that ten scores read it from there."""

Means = dict[str, Float[Tensor, "layer head"]]
"""All scores of one document."""


def survey(
    model: Model,
    texts: Iterable[Document],
    scores: Mapping[str, Score],
    *,
    kind: Kind | None = None,
    max_tokens: int | None = None,
    batch_tokens: int = 0,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Survey:
    """Mean of each score over the rows where it is defined, per document, layer and head; nan where none is.

    A layer is shown to the scores a tile of queries at a time and then dropped, so memory grows linearly with length;
    where all scores ask for `Moments` alone, no pattern is formed. `kind` chooses among the attentions of an
    encoder–decoder. `batch_tokens` puts texts of like length, padded, into one pass. `cache` is a file that keeps what
    each document gave: a survey killed at any moment goes on from there, and ends in the same bytes. An interrupt
    (Ctrl-C) returns the documents that are done, with ``complete`` False. Raises TypeError for a score that asks for
    what there is not.
    """
    wanted = kind or model.sites[0].kind
    layers = [site for site in model.sites if site.kind == wanted]
    if not layers:
        raise ValueError(f"{model.name} has no {wanted} attention; it has {sorted({s.kind for s in model.sites})}")
    callers = [asked(name, score) for name, score in scores.items()]
    documents = tokenized(model, texts, max_tokens)
    store = None if cache is None else Cache(cache, model, scores, kind=wanted)
    done: dict[int, Means] = {}
    # counted in tokens, so that the speed and the time that remains are right for texts of any length
    bar = tqdm(total=sum(len(tokens) for tokens, _ in documents), unit=" tokens", unit_scale=True,
               disable=not progress, delay=1, leave=False)  # fmt: skip
    complete = True
    try:
        if store is not None:
            done = store.found(documents)
            bar.update(sum(len(documents[i][0]) for i in done))
        rest = [i for i in range(len(documents)) if i not in done]
        # a model outside the interface shows no mask, so its texts stay unpadded
        for group in batches(documents, rest, 0 if model.proof.outside else batch_tokens):
            means = _pass(model, [documents[i] for i in group], callers, wanted)
            for i, one in zip(group, means, strict=True):
                done[i] = one
                if store is not None:
                    store.keep(documents[i], one)
                bar.update(len(documents[i][0]))
    except KeyboardInterrupt:
        complete = False
        tqdm.write(f"interrupted: {len(done)} of {len(documents)} texts are done and kept")
    finally:
        bar.close()
        if store is not None:
            store.close()
    places = sorted(done)
    empty = torch.empty(0, len(layers), max(site.n_head for site in layers))
    stacked = {name: torch.stack([done[i][name] for i in places]) if done else empty for name in scores}
    lengths = torch.tensor([len(documents[i][0]) for i in places], dtype=torch.long)
    return Survey(model.name, stacked, lengths, complete, torch.tensor(places, dtype=torch.long))


def _pass(model: Model, documents: Sequence[Read], scores: list[Asked], wanted: Kind) -> list[Means]:
    """All scores of the documents of one forward pass."""
    n_head = max(site.n_head for site in model.sites if site.kind == wanted)
    means: list[dict[str, list[Tensor]]] = [{one.name: [] for one in scores} for _ in documents]
    fast = len(documents) == 1 and not any(one.needs_pattern for one in scores)

    def listen(site: Site, call: Call | Report) -> Tensor | None:
        if site.kind != wanted:
            return call.attend().output
        sums = [Sums(scores, n_head=site.n_head, device=model.device) for _ in documents]
        output = _by_moments(site, call, documents[0], sums[0]) if fast else None
        if output is None:
            output = _by_tiles(site, call, documents, sums)
        for kept, one in zip(means, sums, strict=True):
            for name, mean in one.means().items():
                kept[name].append(torch.nn.functional.pad(mean, (0, n_head - site.n_head), value=float("nan")))
        return output

    observe(model, documents, listen)
    return [{name: torch.stack(layers) for name, layers in kept.items()} for kept in means]


def _by_moments(site: Site, call: Call | Report, document: Read, sums: Sums) -> Tensor | None:
    """What the heads write, after the scores saw the layer's moments; None where the fused kernel cannot serve."""
    found = moments.of_call(site.layer, call, _keys(site, document)) if isinstance(call, Call) else None
    if found is None:
        return None
    output, known = found
    sums.add(_fields(known), known.queries)
    return output


def _by_tiles(site: Site, call: Call | Report, documents: Sequence[Read], sums: Sequence[Sums]) -> Tensor | None:
    """What the heads write, after the scores have seen the pattern, a tile of queries at a time."""
    outputs: list[Tensor] = []
    for rows in tiles(call, len(documents) * site.n_head):
        part = call.attend(rows)
        if part.output is not None:
            outputs.append(part.output)
        for i, (document, total) in enumerate(zip(documents, sums, strict=True)):
            own = _unpadded(site, part, rows.start, i, document)
            if len(own.queries):
                seen = _fields(own)
                if any(one.needs_moments for one in total.scores):
                    seen = _fields(moments.of_pattern(own)) | seen
                total.add(seen, own.queries)
    return torch.cat(outputs, dim=1) if outputs else None


def _unpadded(site: Site, part: Attended | Reported, start: int, i: int, document: Read) -> Rows:
    """The rows and keys of a tile that belong to one document of a padded pass."""
    keys = _keys(site, document)
    n_query, n_key = len(document[1] if site.kind == "encoder" else document[0]), len(keys)
    rows = slice(0, max(0, min(part.pattern.shape[2], n_query - start)))
    pattern = part.pattern[i, :, rows, :n_key]
    check_finite(site, pattern[None] if part.output is None else part.output[i : i + 1, rows].transpose(1, 2))
    queries = torch.arange(start, start + pattern.shape[1], device=pattern.device)
    return Rows(site.layer, pattern, part.support[i, rows, :n_key], queries, keys)


def _keys(site: Site, document: Read) -> Any:
    """The tokens that a layer's keys stand for, of which a selector speaks."""
    return document[0] if site.kind == "decoder" else document[1]


def tiles(call: Call | Report, n_pattern: int) -> Iterator[slice]:
    """Query rows of a layer, as many at a time as fit a tile: a share of what is free on a GPU, or `TILE` bytes."""
    device = call.pattern.device if isinstance(call, Report) else call.q.device
    tile = torch.cuda.mem_get_info(device)[0] // 32 if device.type == "cuda" else TILE
    step = max(1, tile // (4 * n_pattern * call.n_key))
    for start in range(0, call.n_query, step):
        yield slice(start, min(start + step, call.n_query))


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}
