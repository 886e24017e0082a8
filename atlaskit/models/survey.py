"""The second way to look: a corpus, one number per document, layer and head, in bounded memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from atlaskit.models import moments
from atlaskit.models.cache import Cache
from atlaskit.models.documents import Document, Read, batches, identity, moved, tokenized
from atlaskit.models.finite import check_finite
from atlaskit.models.hook import Attended, Call
from atlaskit.models.model import Model
from atlaskit.models.observe import observe
from atlaskit.models.proof import Site
from atlaskit.models.report import Report, Reported
from atlaskit.models.scoring import Asked, Sums, asked
from atlaskit.models.tiles import tiles, written, written_by
from atlaskit.records import Kind, Rows, Score, Survey

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
    way = "pattern" if any(one.needs_pattern for one in callers) else "moments"  # which differ in their last digits
    store = None if cache is None else Cache(cache, model, scores, which=f"{wanted} {way}")
    done: dict[int, Means] = {}
    # a text that comes again is read once: padded otherwise, it would differ from itself in its last digits, and what
    # the cache keeps of it would depend on when a survey was killed
    places_of: dict[str, int] = {}
    first = [places_of.setdefault(identity(document), i) for i, document in enumerate(documents)]
    distinct = sorted(places_of.values())
    # counted in tokens, so that the speed and the time that remains are right for texts of any length
    bar = tqdm(total=sum(len(documents[i][0]) for i in distinct), unit=" tokens", unit_scale=True,
               disable=not progress, delay=1, leave=False)  # fmt: skip
    complete = True
    try:
        found = {} if store is None else store.found(documents)
        done |= found
        # grouped as if nothing were found: padded otherwise, what is resumed would differ in its last digits.
        # A model outside the interface shows no mask, so its texts stay unpadded
        for group in batches(documents, distinct, 0 if model.proof.outside else batch_tokens):
            n_tokens = sum(len(documents[i][0]) for i in group)
            if all(i in found for i in group):
                bar.update(n_tokens)
                continue
            tick = partial(bar.update, n_tokens / len(model.sites))
            means = _pass(model, [moved(documents[i], model.device) for i in group], callers, wanted, tick)
            if store is not None:
                store.keep([(documents[i], one) for i, one in zip(group, means, strict=True)])
            done |= dict(zip(group, means, strict=True))
    except KeyboardInterrupt:
        complete = False
        tqdm.write(f"interrupted: {sum(i in done for i in first)} of {len(documents)} texts are done and kept")
    finally:
        bar.close()
        if store is not None:
            store.close()
    done |= {i: done[one] for i, one in enumerate(first) if one in done}
    places = sorted(done)
    empty = torch.empty(0, len(layers), max(site.n_head for site in layers))
    stacked = {name: torch.stack([done[i][name] for i in places]) if done else empty for name in scores}
    lengths = torch.tensor([len(documents[i][0]) for i in places], dtype=torch.long)
    numbers = torch.tensor([site.layer for site in layers])
    return Survey(model.name, stacked, lengths, complete, torch.tensor(places, dtype=torch.long), numbers)


def _pass(
    model: Model, documents: Sequence[Read], scores: list[Asked], wanted: Kind, tick: Callable[[], object]
) -> list[Means]:
    """All scores of the documents of one forward pass; `tick` is called after every layer."""
    n_head = max(site.n_head for site in model.sites if site.kind == wanted)
    means: list[dict[str, list[Tensor]]] = [{one.name: [] for one in scores} for _ in documents]
    fast = len(documents) == 1 and not any(one.needs_pattern for one in scores)

    def listen(site: Site, call: Call | Report) -> Tensor | None:
        output = look(site, call) if site.kind == wanted else _unseen(site, call)
        tick()
        return output

    def look(site: Site, call: Call | Report) -> Tensor | None:
        where = f"{site.kind} layer {site.layer}"
        sums = [Sums(scores, n_head=site.n_head, device=model.device, where=where) for _ in documents]
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
    check_finite(site, output.transpose(1, 2))
    sums.add(_fields(known), known.queries)
    return output


def _by_tiles(site: Site, call: Call | Report, documents: Sequence[Read], sums: Sequence[Sums]) -> Tensor | None:
    """What the heads write, after the scores have seen the pattern, a tile of queries at a time."""
    output: Tensor | None = None
    for rows in tiles(call, len(documents) * site.n_head):
        part = call.attend(rows)
        if part.output is not None:
            output = written(output, part.output, rows, call.n_query)
        for i, (document, total) in enumerate(zip(documents, sums, strict=True)):
            own = _unpadded(site, part, rows.start, i, document)
            if len(own.queries):
                seen = _fields(own)
                if any(one.needs_moments for one in total.scores):
                    seen = _fields(moments.of_pattern(own)) | seen
                total.add(seen, own.queries)
    return output


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


def _unseen(site: Site, call: Call | Report) -> Tensor | None:
    """What the heads of a layer that nobody asked about write."""
    return None if isinstance(call, Report) else written_by(call, site.n_head)


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}
