"""`atlaskit compare`: two models or checkpoints on the same texts, word by word."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from jaxtyping import Float
from torch import Tensor

from atlaskit import measure, models, runs
from atlaskit.records import Tokens

from . import asking, pictures
from .heads import by_layer, look, quantities, told
from .words import by_words, place_of


@click.command()
@click.argument("first")
@click.argument("second")
@asking.asks
def compare(first: str, second: str, texts: tuple[str, ...], files: tuple[str, ...], **options: Any) -> None:
    """Measure models FIRST and SECOND on the same texts and tell their differences, first minus second.

    A model is a bundled name, a folder or a hub id, with @REVISION for another checkpoint of it. Attention is taken
    between words, so that neither a token before the text nor another tokenizer counts as a difference. Heads are
    compared one by one where the models have equally many. Intervals are over texts: give several.

    Exit code: 0 done, 1 failed, 2 a wrong request, 3 done but for a picture, 130 stopped.
    """
    notes: list[str] = []
    documents = asking.the_texts(texts, files, lines=options["lines"])
    asking.check_outputs(options["outputs"])
    with asking.noting(notes, quiet=options["quiet"]):
        both = [asking.load(*_revision(name), options) for name in (first, second)]
        sources = tuple(asking.source_of(model, documents, options) for model in both)
        shared = [_shared(i, *pair) for i, pair in enumerate(zip(*(one.texts for one in sources), strict=True))]
        with asking.in_words("the models could not be measured"):
            values, between = zip(*(_look_at(model, documents, shared, options) for model in both), strict=True)
    for reason in asking.too_few_texts(len(documents)):
        asking.remark(notes, reason, quiet=options["quiet"])
    if both[0].geometry.causal != both[1].geometry.causal:
        why = "one model looks both ways and the other only back, which alone moves all but relative_D"
        asking.remark(notes, why, quiet=options["quiet"])
    named, parts = quantities(options["orders"], "word"), _parts(both, options)
    arrays = _differences(values[0], values[1], named, alike=len(parts) > 1, seed=options["seed"])
    for which, share in zip(("first", "second"), between, strict=True):
        arrays[f"between_words_{which}"] = runs.Labelled(("doc", f"layer_{which}", f"head_{which}"), share)
    result = runs.Result(
        "compare",
        arrays,
        labels={"quantity": named, "part": parts, "doc": list(range(len(documents)))},
        table=("quantity", "part"),
        sources=sources,
        parameters={"first": first, "second": second} | asking.parameters(options),
        notes=tuple(notes),
    )
    if not options["quiet"]:
        click.echo(_summary(result))
    asking.write(result, options["outputs"], pictures.compared, quiet=options["quiet"])


def _revision(name: str) -> tuple[str, str | None]:
    """MODEL@REVISION in its two parts; a folder with an @ in its name is a folder."""
    if Path(name).is_dir() or "@" not in name:
        return name, None
    model, revision = name.rsplit("@", 1)
    return model, revision


def _shared(i: int, first: Tokens, second: Tokens) -> Tensor:
    """The words that both models read whole."""
    if first.text != second.text:
        raise click.UsageError(
            f"text {i}: a tokenizer without character offsets reads {second.text[:40]!r} for {first.text[:40]!r}; "
            "such models cannot be aligned"
        )
    words = [set(place_of(tokens).tolist()) - {-1} for tokens in (first, second)]
    kept = torch.tensor(sorted(words[0] & words[1]), dtype=torch.long)
    if len(kept) < 2:
        raise click.UsageError(f"text {i}: the models share {len(kept)} words of it; attention needs at least two")
    return kept


def _look_at(
    model: models.Model, documents: Sequence[str], shared: Sequence[Tensor], options: Mapping[str, Any]
) -> tuple[Float[Tensor, "doc layer head quantity"], Float[Tensor, "doc layer head"]]:
    """Every quantity of the chosen heads between words, and the share of their attention that lay there."""
    found, between = [], []
    for document, kept in zip(documents, shared, strict=True):
        seen = models.capture(model, document, max_tokens=options["max_tokens"])
        word, values, shares = place_of(seen.tokens), [], []
        for layer in asking.only(seen, asking.chosen(model, options)):
            pattern, support, share = by_words(*layer, word, kept=kept)
            values.append(look(pattern, support, orders=options["orders"]).values)
            shares.append(share)
        found.append(by_layer(values))
        between.append(by_layer(shares))
    return torch.stack(found), torch.stack(between)


def _parts(both: Sequence[models.Model], options: Mapping[str, Any]) -> list[str]:
    """All heads together; then each layer and head, where the two models have equally many."""
    (layers, heads), other = (asking.chosen(model, options) for model in both)
    if (layers, heads) != other:
        return ["all heads"]
    return ["all heads", *(f"layer {i}" for i in layers), *(f"{i}.{head}" for i in layers for head in heads)]


def _differences(
    first: Float[Tensor, "doc layer head quantity"],
    second: Float[Tensor, "doc other twin quantity"],
    named: Sequence[Mapping[str, str]],
    *,
    alike: bool,
    seed: int,
) -> dict[str, runs.Labelled]:
    """The columns of the table, and the values per text that they come from."""
    if alike:  # what one model leaves undefined must not be averaged over in the other alone
        undefined = first.isnan() | second.isnan()
        first, second = (one.masked_fill(undefined, float("nan")) for one in (first, second))
    sides = [_by_part(one, alike=alike) for one in (first, second)]
    apart = sides[0] - sides[1]
    nothing = torch.zeros_like(apart[:1])
    columns = {"first": sides[0].nanmean(0).T, "second": sides[1].nanmean(0).T}
    told_of = [
        [told(apart[:, part, k], nothing[:, None, part, k].expand(1, len(apart)), unit=one["unit"], seed=seed)
         for part in range(apart.shape[1])]
        for k, one in enumerate(named)
    ]  # fmt: skip
    for name, field in {"difference": "value", "low": "low", "high": "high", "n_texts": "n"}.items():
        columns[name] = torch.tensor([[getattr(one, field) for one in row] for row in told_of])
    p = measure.paired_p(apart, torch.zeros_like(apart), seed=seed).T
    columns["p"] = p if len(apart) > 1 else torch.full_like(p, float("nan"))
    layers = first.shape[1] + 1
    families = (slice(0, 1), slice(1, layers), slice(layers, None))  # of tests: all heads, layers, heads
    columns["differs"] = torch.stack(
        [
            torch.cat([measure.false_discovery(row[family], rate=asking.RATE) for family in families])
            for row in columns["p"]
        ]
    )
    arrays = {name: runs.Labelled(("quantity", "part"), column) for name, column in columns.items()}
    for which, side in zip(("first", "second"), sides, strict=True):
        arrays[f"per_text_{which}"] = runs.Labelled(("doc", "part", "quantity"), side)
    return arrays


def _by_part(values: Float[Tensor, "doc layer head quantity"], *, alike: bool) -> Float[Tensor, "doc part quantity"]:
    everyone = values.flatten(1, 2)
    together = everyone.nanmean(1, keepdim=True)
    return torch.cat([together, values.nanmean(2), everyone], 1) if alike else together


def _summary(result: runs.Result) -> str:
    """A line for each quantity over all heads, and how many heads differ."""
    heads = [i for i, part in enumerate(result.labels["part"]) if "." in part]
    lines = [f"first   {result.sources[0].model}", f"second  {result.sources[1].model}"]
    between = [float(result[f"between_words_{which}"].nanmean()) for which in ("first", "second")]
    lines.append(
        f"{len(result.labels['doc'])} texts; {between[0]:.0%} and {between[1]:.0%} of attention lie between words"
    )
    lines.append(f"{'':16}{'first':>9}{'second':>9}{'difference':>12}  {'interval':20}{'heads that differ':>18}")
    for k, one in enumerate(result.labels["quantity"]):
        first, second, apart, low, high = (
            float(result[name][k, 0]) for name in ("first", "second", "difference", "low", "high")
        )
        interval = f"[{low:.3f}, {high:.3f}]" if low == low else "–"
        differ = f"{int(result['differs'][k, heads].sum())} of {len(heads)}" if heads else "–"
        if first == first or second == second:
            cells = [f"{value:.3f}" if value == value else "–" for value in (first, second, apart)]
            name = f"{one['quantity']:16}{cells[0]:>9}{cells[1]:>9}{cells[2]:>12}"
            lines.append(f"{name}  {interval:20}{differ:>18}")
    return "\n".join(lines)
