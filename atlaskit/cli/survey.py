"""`atlaskit survey`: every head over a big corpus, shard by shard on any executor, merged without rounding."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import psutil
import torch

from atlaskit import measure, models, runs
from atlaskit.records import Score

from . import asking, corpus
from .batch import executor, on_executors

SCORES: Mapping[str, tuple[Score, str]] = {
    "entropy": (measure.entropy, "bits"),
    "mean_distance": (measure.mean_distance, "tokens"),
    "own_token": (measure.mass_on(measure.own_token), "share"),
    "previous_token": (measure.mass_on(measure.previous_token), "share"),
    "first_token": (measure.mass_on(measure.first_token), "share"),
    "induction": (measure.mass_on(measure.induction), "share"),
}

DOCUMENTS, SUMS, RATES = "documents.parquet", "sums.json", "rates.json"

HOUR = 3600


@click.command()
@click.argument("model")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--lines", is_flag=True, help="Every line of a text file is a document.")
@click.option("--column", default="text", show_default=True, help="Of a .jsonl file's rows: where the text is.")
@click.option("--max-tokens", type=click.IntRange(min=2), default=512, show_default=True, help="Of each document.")
@click.option("--shard", type=click.IntRange(min=1), default=1000, show_default=True, help="Documents in a shard.")
@click.option("--score", "names", multiple=True, type=click.Choice(list(SCORES)), help="All by default; may repeat.")
@click.option("--revision", help="Of a model from the hub: a branch, a tag or a commit.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda …")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each worker.")
@click.option("--price", type=click.FloatRange(min=0), help="Of one worker's hour, to tell what a million tokens cost.")
@on_executors
@click.pass_context
def survey(context: click.Context, /, model: str, paths: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Measure every head of MODEL over the texts in PATHS: files, or folders of .txt and .jsonl files.

    Each shard is loaded and measured by a process of its own. OUT receives the documents' numbers as a partitioned
    Parquet dataset, and heads.parquet with each head beside ignorance, which depends neither on the size of shards nor
    on the number of workers. What is done is not done again. Exit code: 0 all done, 1 some failed, 130 stopped.
    """
    with asking.in_words(f"{model} could not be surveyed", ImportError):
        loaded = asking.load(model, options["revision"], options | {"dtype": "float32"})
        key = {"weights": models.fingerprint(loaded), "device": str(loaded.device.type)}
        heads = _heads(loaded)
        del loaded  # each worker has its own
        place = runs.Plan((), out.resolve(), runs.Limits(threads=options["threads"]))
        tasks = list(_tasks(model, key, place, corpus.files_of(paths), options))
        watch = _Watch(place.out, options["price"])
        with runs.alone_in(place.out), executor(place, options) as there:
            ended = runs.drive(tasks, there, heard=watch.heard, note=watch.note)
            done = [task for task in tasks if ended[task.name].state == "done"]
            if done:
                _merge(done, place.out, heads)
    for one in ended.values():
        if one.failure is not None:
            click.echo(f"{one.name} failed: {one.failure}", err=True)
    click.echo(f"{len(done)} of {len(tasks)} shards are done; {watch.note()}")
    if done:
        over = "" if len(done) == len(tasks) else " over what is done"
        click.echo(
            f"wrote {out / 'heads.parquet'} and {out / 'documents'}{over}; for larger corpora: atlaskit plan {out}"
        )
    if any(one.state == "stopped" for one in ended.values()):
        click.echo("stopped; what is done is kept, and the same command goes on", err=True)
        context.exit(130)
    context.exit(1 if len(done) < len(tasks) else 0)


def shard(folder: Path, **asked: Any) -> None:
    """One shard, in a process of its own: its documents' numbers, their exact sums, and how long it took."""
    began = time.monotonic()
    torch.set_num_threads(asked["threads"])
    model = models.load(asked["model"], revision=asked["revision"], device=asked["device"])
    loading = time.monotonic() - began
    scores = {name: score for name in asked["scores"] for name, score in _with_chance(name).items()}
    found = models.survey(
        model, corpus.documents(asked["pieces"]), scores, max_tokens=asked["max_tokens"], progress=False
    )
    columns = {name: values.flatten(1).cpu() for name, values in found.scores.items()}
    runs.write_columns(
        folder / DOCUMENTS,
        {"document": torch.arange(len(found.n_tokens)) + asked["first"], "tokens": found.n_tokens} | columns,
    )
    moments = {}
    for name in asked["scores"]:
        value, chance = columns[name], columns[f"{name}.chance"]
        parts = {"value": runs.ExactSums.of(value), "chance": runs.ExactSums.of(chance)}
        moments[name] = parts | {"apart": runs.ExactSums.of(value, less=chance)}
    sums = {name: {part: one.to_json() for part, one in parts.items()} for name, parts in moments.items()}
    tokens = int(found.n_tokens.sum())
    runs.write_json(folder / SUMS, {"documents": len(found.n_tokens), "tokens": tokens, "scores": sums})
    rates = {
        "documents": len(found.n_tokens),
        "tokens": tokens,
        "loading": loading,
        "seconds": time.monotonic() - began - loading,
        "bytes": (folder / DOCUMENTS).stat().st_size,
        "memory": psutil.Process().memory_info().rss,
    }
    runs.write_json(folder / RATES, rates)


def _with_chance(name: str) -> dict[str, Score]:
    score, _ = SCORES[name]
    return {name: score, f"{name}.chance": measure.ignorant(score)}


def _heads(model: models.Model) -> list[tuple[int, int] | None]:
    """Layer and head of each number of a document; None where a layer has fewer heads than another."""
    sites = [site for site in model.sites if site.kind == model.sites[0].kind]
    most = max(site.n_head for site in sites)
    return [(site.layer, head) if head < site.n_head else None for site in sites for head in range(most)]


def _tasks(
    model: str, key: Mapping[str, str], place: runs.Plan, files: Sequence[Path], options: Mapping[str, Any]
) -> Iterator[runs.Task]:
    """A task for each shard. What it depends on: the weights, the texts themselves, what is asked, this atlaskit."""
    asked = {"scores": list(options["names"]) or list(SCORES), "max_tokens": options["max_tokens"]}
    how = {"model": model} | {name: options[name] for name in ("revision", "device", "threads")}
    cut = {"lines": options["lines"], "column": options["column"], "size": options["shard"]}
    for pieces, first in corpus.shards(files, **cut):
        texts = {"texts": corpus.content_hash(pieces), "first": first}
        yield runs.Task(
            f"shard={first:012}",
            "atlaskit.cli.survey:shard",
            arguments=how | asked | {"pieces": pieces, "first": first},
            key=asked | dict(key) | texts | {"atlaskit": metadata.version("atlaskit")},
            out=place.out,
            limits=place.limits,
        )


def _merge(done: Sequence[runs.Task], out: Path, heads: Sequence[tuple[int, int] | None]) -> None:
    """The shards' documents beneath one folder, and each head over all of them."""
    dataset = out / "documents"
    shutil.rmtree(dataset, ignore_errors=True)
    for task in done:
        part = dataset / task.name / "part.parquet"
        part.parent.mkdir(parents=True)
        _link(task.done / DOCUMENTS, part)
    names = ("value", "chance", "apart")
    read = [runs.read_json(task.done / SUMS) for task in done]
    rows = []
    for name in read[0]["scores"]:
        parts = {
            which: runs.merged(runs.ExactSums.from_json(one["scores"][name][which]) for one in read) for which in names
        }
        told = {which: one.interval() for which, one in parts.items()}
        for i, (layer, head) in [(i, place) for i, place in enumerate(heads) if place is not None]:
            row = {"score": name, "unit": SCORES[name][1], "layer": layer, "head": head, "n": parts["value"].count[i]}
            for which, intervals in told.items():
                row |= dict(zip((which, f"{which}_low", f"{which}_high"), intervals[i], strict=True))
            rows.append(row)
    runs.write_rows(out / "heads.parquet", rows)


def _link(source: Path, target: Path) -> None:
    """The same bytes under a second name; a copy where the disk knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class _Watch:
    """Throughput, and what it costs, from the shards as they end."""

    def __init__(self, out: Path, price: float | None) -> None:
        self._out = out
        self._price = price
        self._began = time.monotonic()
        self._tokens = 0
        self._seconds = 0.0

    def heard(self, ended: runs.Ended) -> None:
        if ended.state == "done":
            self._tokens += runs.read_json(self._out / "done" / ended.name / RATES)["tokens"]
            self._seconds += ended.seconds

    def note(self) -> str:
        """Tokens a second by all workers, and hours of one worker, or money, for a million."""
        if not self._tokens:
            return "nothing measured this time"
        hours = self._seconds / HOUR / self._tokens * 1e6
        cost = f"{hours:.3g} worker hours" if self._price is None else f"{hours * self._price:.3g}"
        speed = self._tokens / (time.monotonic() - self._began)
        return f"{speed:,.0f} tokens/s, {cost} per million tokens with the workers' start"
