"""The second way to look: a corpus, one number per document, layer and head, in bounded memory."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from atlaskit.models.capture import check_finite, pair
from atlaskit.models.hook import Call
from atlaskit.models.model import Model
from atlaskit.models.observe import observe
from atlaskit.models.proof import Site
from atlaskit.models.report import Report
from atlaskit.models.tokenize import Text
from atlaskit.records import Kind, Rows, Score, Survey, Tokens

CACHE = 4_000_000
"""Bytes of pattern in a tile on a processor: what its cache holds, so that ten scores read it from there."""

Document: TypeAlias = Text | tuple[Text, Text]
"""A text; for an encoder–decoder a pair of what it reads and what it writes."""


def survey(
    model: Model,
    texts: Iterable[Document],
    scores: Mapping[str, Score],
    *,
    kind: Kind | None = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Survey:
    """Mean of each score over the rows where it is defined, per document, layer and head; nan where none is.

    A layer is shown to the scores a tile of queries at a time and then dropped, so memory grows linearly with length.
    `kind` chooses among the attentions of an encoder–decoder. An interrupt (Ctrl-C) returns the documents that are
    done, with ``complete`` False. Raises TypeError for a score that asks for what a tile does not have.
    """
    wanted = kind or model.sites[0].kind
    layers = [site for site in model.sites if site.kind == wanted]
    if not layers:
        raise ValueError(f"{model.name} has no {wanted} attention; it has {sorted({s.kind for s in model.sites})}")
    callers = {name: _caller(name, score) for name, score in scores.items()}
    documents = _documents(model, texts, max_tokens)
    n_head = max(site.n_head for site in layers)
    done: list[dict[str, Tensor]] = []
    # counted in tokens, so that the speed and the time that remains are right for texts of any length
    bar = tqdm(total=sum(len(tokens) for tokens, _ in documents), unit=" tokens", unit_scale=True,
               disable=not progress, delay=1, leave=False)  # fmt: skip
    complete = True
    try:
        for tokens, read in documents:
            done.append(_one(model, tokens, read, callers, wanted, n_head))
            bar.update(len(tokens))
    except KeyboardInterrupt:
        complete = False
        tqdm.write(f"interrupted: {len(done)} of {len(documents)} texts are done and kept")
    finally:
        bar.close()
    lengths = [len(tokens) for tokens, _ in documents[: len(done)]]
    empty = torch.empty(0, len(layers), n_head)
    stacked = {name: torch.stack([one[name] for one in done]) if done else empty for name in scores}
    return Survey(model.name, stacked, torch.tensor(lengths, dtype=torch.long), complete)


def _documents(model: Model, texts: Iterable[Document], max_tokens: int | None) -> list[tuple[Tokens, Tokens]]:
    """What is read and what it is read from, so that what cannot be surveyed is named before any work is done."""
    if isinstance(texts, str):
        raise TypeError("texts is one string; give a list of texts, or [text] for one")
    documents = []
    for i, document in enumerate(texts):
        text, source = (document[1], document[0]) if isinstance(document, tuple) else (document, None)
        try:
            documents.append(pair(model, text, source, max_tokens))
        except ValueError as error:
            raise ValueError(f"text {i}: {error}") from error
    if not documents:
        raise ValueError("there are no texts to survey")
    return documents


def _tile(device: torch.device) -> int:
    """Bytes of pattern in one tile: a share of what is free on a GPU, what stays in the cache of a processor."""
    return torch.cuda.mem_get_info(device)[0] // 32 if device.type == "cuda" else CACHE


def _one(
    model: Model,
    tokens: Tokens,
    read: Tokens,
    callers: Mapping[str, Callable[[Rows], Tensor]],
    wanted: Kind,
    n_head: int,
) -> dict[str, Float[Tensor, "layer head"]]:
    """All scores of one document."""
    rows_of = {"encoder": read, "decoder": tokens, "cross": read}[wanted]  # keys are what a selector speaks of
    means: dict[str, list[Tensor]] = {name: [] for name in callers}

    tile = _tile(model.device)

    def listen(site: Site, call: Call | Report) -> Tensor | None:
        if site.kind != wanted:
            return call.attend().output
        step = max(1, tile // (4 * site.n_head * call.n_key))
        outputs: list[Tensor] = []
        sums = {name: torch.zeros(2, site.n_head, dtype=torch.float64, device=model.device) for name in callers}
        for start in range(0, call.n_query, step):
            rows = slice(start, min(start + step, call.n_query))
            part = call.attend(rows)
            check_finite(site, part)
            if part.output is not None:
                outputs.append(part.output)
            queries = torch.arange(rows.start, rows.stop, device=part.pattern.device)
            seen = Rows(site.layer, part.pattern[0], part.support[0], queries, rows_of)
            for name, score in callers.items():
                value = score(seen)
                known = ~value.isnan()
                sums[name][0] += torch.where(known, value, 0.0).sum(-1, dtype=torch.float64)
                sums[name][1] += known.sum(-1)
        for name, (total, count) in sums.items():
            mean = torch.where(count > 0, total / count, float("nan")).float().cpu()
            means[name].append(torch.nn.functional.pad(mean, (0, n_head - site.n_head), value=float("nan")))
        return torch.cat(outputs, dim=1) if outputs else None

    observe(model, tokens, read, listen)
    return {name: torch.stack(layers) for name, layers in means.items()}


def _caller(name: str, score: Score) -> Callable[[Rows], Tensor]:
    """A score that takes a tile: it is handed those fields of `Rows` that its parameters name."""
    offered = {field.name for field in fields(Rows)}
    parameters = inspect.signature(score).parameters.values()
    strangers = [
        p.name for p in parameters if p.name not in offered and p.default is p.empty and p.kind != p.VAR_KEYWORD
    ]
    if strangers:
        raise TypeError(
            f"score {name!r} asks for {', '.join(strangers)}; a tile of attention has {', '.join(sorted(offered))}. "
            "Bind the rest beforehand, for instance with functools.partial"
        )
    asked = [p.name for p in parameters if p.name in offered]

    def call(rows: Rows) -> Tensor:
        value = score(**{field: getattr(rows, field) for field in asked})
        expected = (rows.pattern.shape[0], len(rows.queries))
        if not isinstance(value, Tensor) or value.shape != expected:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"score {name!r} gave {given}; it must give one number per head and query, {expected}")
        return value

    return call
