"""`atlaskit analyze`: every head of a model on your texts, beside its nulls."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import click
import torch
from jaxtyping import Float
from torch import Tensor

from atlaskit import measure, models, runs
from atlaskit.records import Estimate

from . import asking, pictures
from .heads import NULLS, Look, by_layer, look_at_layers, n_over_boxes, quantities, told

COLUMNS = ("value", "low", "high", "null_value", "null_low", "null_high", "p", "n_texts")


class Nulls(click.ParamType):
    """Names of nulls, separated by commas."""

    name = "ignorant,permuted"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The nulls named, each once."""
        found = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
        if unknown := [name for name in found if name not in NULLS]:
            self.fail(f"there is no null {', '.join(unknown)}; there are {', '.join(NULLS)}", param, ctx)
        return found


@click.command()
@click.argument("model")
@asking.asks
@click.option("--revision", help="Of a model from the hub: a branch, a tag or a commit.")
@click.option("--nulls", type=Nulls(), default="ignorant,permuted", show_default=True, help=f"Of {', '.join(NULLS)}.")
@click.option("--draws", type=click.IntRange(min=19), default=199, show_default=True, help="Surrogates per head.")
@click.option("--patterns", is_flag=True, help="Keep the attention itself in the .npz.")
def analyze(model: str, texts: tuple[str, ...], files: tuple[str, ...], **options: Any) -> None:
    """Measure every head of MODEL (a bundled name, a folder or a hub id) on texts.

    Dimensions D_q and row measures of each head, with intervals over texts, each beside its nulls, with false discovery
    controlled over heads. Exit code: 0 done, 1 failed, 2 a wrong request, 3 done but for a picture, 130 stopped.
    """
    notes: list[str] = []
    documents = asking.the_texts(texts, files, lines=options["lines"])
    asking.check_outputs(options["outputs"])
    with asking.noting(notes, quiet=options["quiet"]):
        loaded = asking.load(model, options["revision"], options)
        layers, heads = asking.chosen(loaded, options)
        sources = (asking.source_of(loaded, documents, options),)
        fresh = models.untrained(loaded, seed=options["seed"]) if "untrained" in options["nulls"] else None
        with asking.in_words(f"{model} could not be measured"):
            looks, kept = _look_at(documents, (loaded, fresh), (layers, heads), options)
    too_few = _too_few(len(documents), n_heads=len(layers) * len(heads), options=options)
    for reason in [*_undefined(looks), *too_few]:
        asking.remark(notes, reason, quiet=options["quiet"])
    labels = {
        "doc": list(range(len(documents))), "layer": list(layers), "head": list(heads), "q": list(options["orders"])
    } | {"quantity": quantities(options["orders"])}  # fmt: skip
    arrays, contrasts, octaves = _summarised(looks, options)
    result = runs.Result(
        "analyze",
        arrays | kept,
        labels | {"contrast": contrasts, "octave": octaves},
        table=("contrast", "layer", "head"),
        sources=sources,
        parameters={"model": model} | asking.parameters(options),
        notes=tuple(notes),
    )
    if not options["quiet"]:
        click.echo(_summary(result))
    asking.write(result, options["outputs"], pictures.analyzed, quiet=options["quiet"])


def _look_at(
    documents: Sequence[str],
    both: tuple[models.Model, models.Model | None],
    chosen: tuple[Sequence[int], Sequence[int]],
    options: Mapping[str, Any],
) -> tuple[list[Look], dict[str, runs.Labelled]]:
    """Every text's heads measured, and the patterns themselves where they are to be kept."""
    looks, kept = [], {}
    how = {name: options[name] for name in ("orders", "nulls", "draws")}
    for i, document in enumerate(documents):
        seen, other = (
            asking.only(models.capture(one, document, max_tokens=options["max_tokens"]), chosen) if one else []
            for one in both
        )
        # other surrogates for other texts, or their errors would add up
        looks.append(look_at_layers(seen, other, seed=options["seed"] + i, **how))
        if options["patterns"]:
            axes = ("layer", "head", f"query_{i}", f"key_{i}")
            kept[f"pattern_{i}"] = runs.Labelled(axes, by_layer([pattern for pattern, _ in seen]))
            kept[f"support_{i}"] = runs.Labelled((axes[0], *axes[2:]), torch.stack([support for _, support in seen]))
    return looks, kept


def _summarised(
    looks: Sequence[Look], options: Mapping[str, Any]
) -> tuple[dict[str, runs.Labelled], list[dict[str, str]], list[float]]:
    """The arrays of the result, the contrasts along their first axis, and the octaves of the fits."""
    values = torch.stack([one.values for one in looks])
    nulls = {name: torch.stack([one.nulls[name] for one in looks], 1) for name in options["nulls"]}
    named, over_boxes = quantities(options["orders"]), n_over_boxes(options["orders"])
    columns: dict[str, list[Tensor]] = {name: [] for name in (*COLUMNS, "differs")}
    contrasts = []
    for null, drawn in nulls.items():
        for k, quantity in enumerate(named):
            # what no head of this model can be asked, such as attention of a decoder to the next token
            if k >= over_boxes and (null == "permuted" or values[..., k].isnan().all()):
                continue
            contrasts.append(quantity | {"null": null})
            found = contrast(values[..., k], drawn[..., k], unit=quantity["unit"], seed=options["seed"])
            for name, column in found.items():
                columns[name].append(column)
    longest = max((one.log_size for one in looks), key=len)

    def padded(points: Tensor) -> Tensor:
        return torch.nn.functional.pad(points, (0, len(longest) - points.shape[-1]), value=float("nan"))

    arrays = {name: runs.Labelled(("contrast", "layer", "head"), torch.stack(one)) for name, one in columns.items()}
    arrays["per_text"] = runs.Labelled(("doc", "layer", "head", "quantity"), values)
    for name, drawn in nulls.items():
        arrays[f"per_text_{name}"] = runs.Labelled(("doc", "layer", "head", "quantity"), drawn.mean(0))
    points, straight = torch.stack([padded(one.points) for one in looks]), torch.stack([one.r_squared for one in looks])
    arrays["box_entropy"] = runs.Labelled(("doc", "layer", "head", "q", "octave"), points)
    for i, bound in enumerate(("lowest", "highest")):
        of = torch.stack([one.doubt[..., i] for one in looks])
        arrays[f"grid_{bound}"] = runs.Labelled(("doc", "layer", "head", "q"), of)
    arrays["r_squared"] = runs.Labelled(("doc", "layer", "head", "q"), straight)
    return arrays, contrasts, longest.tolist()


def contrast(
    values: Float[Tensor, "doc *head"], null: Float[Tensor, "draw doc *head"], *, unit: str, seed: int
) -> dict[str, Float[Tensor, "*head"]]:
    """One quantity of all heads beside one null: each column of the table."""
    shape = values.shape[1:]
    found: list[Estimate] = [
        told(*pair, unit=unit, seed=seed)
        for pair in zip(values.flatten(1).T, null.flatten(2).movedim(2, 0), strict=True)
    ]
    columns = {
        name: torch.tensor([getattr(one, name) for one in found]).reshape(shape)
        for name in ("value", "low", "high", "null_low", "null_high", "p")
    }
    columns["n_texts"] = torch.tensor([one.n for one in found]).reshape(shape)
    columns["null_value"] = null.mean(0).nanmean(0)
    if len(null) == 1 and len(values) > 1:  # one null for each text: they are compared pair by pair
        columns["p"] = measure.paired_p(values, null[0], seed=seed)
    columns["differs"] = measure.false_discovery(columns["p"], rate=asking.RATE)
    return columns


def _undefined(looks: Sequence[Look]) -> list[str]:
    reasons = [reason for one in looks for reason in one.reasons]
    without = [reason for reason in reasons if reason]
    return [f"{len(without)} of {len(reasons)} dimensions are {without[0]}"] if without else []


def _too_few(n_texts: int, *, n_heads: int, options: Mapping[str, Any]) -> list[str]:
    """Why heads may count as no different though they are: too few texts, or too few draws."""
    found = asking.too_few_texts(n_texts)
    least = 1 / (options["draws"] + 1)
    needed = math.ceil(round(least * n_heads / asking.RATE, 9))
    if "permuted" in options["nulls"] and needed > n_heads / 2:
        found.append(
            f"with {options['draws']} draws no p falls below {least:.2g}: unless {min(needed, n_heads)} of {n_heads} "
            "heads differ from permuted rows, none is told apart; give more --draws"
        )
    return found


def _summary(result: runs.Result) -> str:
    """A line for each quantity: its mean over heads, and beside each null how many heads differ."""
    nulls = list(dict.fromkeys(one["null"] for one in result.labels["contrast"]))
    n_heads = result["value"][0].numel()
    lengths = sorted(len(text) for text in result.sources[0].texts)
    lines = [
        f"{result.sources[0].model}: {n_heads} heads, {len(lengths)} texts of {lengths[0]} to {lengths[-1]} tokens",
        f"{'':16}{'mean':>10} {'':12}" + "".join(f"{null:>20}" for null in nulls),
    ]
    rows: dict[str, str] = {}
    cells: dict[tuple[str, str], str] = {}
    for i, one in enumerate(result.labels["contrast"]):
        name = one["quantity"]
        rows[name] = f"{name:16}{float(result['value'][i].nanmean()):10.3f} {one['unit']:12}"
        differ = "–" if result["p"][i].isnan().all() else f"{int(result['differs'][i].sum())} of {n_heads}"
        cells[name, one["null"]] = f"{float(result['null_value'][i].nanmean()):8.3f} {differ:>11}"
    lines += [row + "".join(f"{cells.get((name, null), '–'):>20}" for null in nulls) for name, row in rows.items()]
    return "\n".join([*lines, "Under each null: its mean, and how many heads differ from it (false discovery 5 %)."])
