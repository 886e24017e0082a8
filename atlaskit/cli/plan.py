"""`atlaskit plan`: how long, how much and how dear a survey of 10⁹ or 10¹² tokens would be, from measured rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import click

from atlaskit import runs

from . import asking
from .survey import HOUR, RATES

ASSUMPTIONS = (
    "documents are as long as those measured, and take as long",
    "each shard is a fresh process that loads the model anew, as measured; the start of a worker, seconds, is left out",
    "workers are machines like this one, all as fast as each other, and none waits for the disk or the scheduler",
    "a worker that is lost costs half a shard; nothing that was finished is ever repeated",
    "the range is from the fastest tenth of the measured shards to the slowest, as if every shard were such a one",
)


@dataclass(frozen=True)
class Rates:
    """What was measured on finished shards. `per_token` are seconds of one worker: 10th percentile, mean, 90th."""

    shards: int
    tokens: int
    documents: int
    per_token: tuple[float, float, float]
    loading: float
    bytes: int
    memory: int


@dataclass(frozen=True)
class Forecast:
    """For so many tokens: worker hours and days on the clock (10th percentile, mean, 90th), bytes, shards."""

    tokens: int
    shards: int
    worker_hours: tuple[float, ...]
    days: tuple[float, ...]
    bytes: float


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tokens", type=float, multiple=True, default=(1e9, 1e12), show_default=True, help="May be repeated.")
@click.option("--workers", type=click.IntRange(min=1), multiple=True, default=(1, 16, 256), show_default=True)
@click.option("--shard", type=click.IntRange(min=1), help="Documents in a shard; as many as in those measured.")
@click.option("--price", type=click.FloatRange(min=0), help="Of one worker's hour.")
@click.option(
    "--lost", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Workers lost per worker hour."
)
def plan(
    out: Path, tokens: tuple[float, ...], workers: tuple[int, ...], shard: int | None, price: float | None, lost: float
) -> None:
    """Forecast big surveys from the shards that `atlaskit survey` has measured into OUT. Nothing is run."""
    with asking.in_words("there is nothing to plan from"):
        rates = measured(out)
    click.echo(
        f"measured: {rates.shards} shards, {rates.documents:,} documents, {rates.tokens:,} tokens; "
        f"{1 / rates.per_token[1]:,.0f} tokens/s and worker, {rates.loading:.1f} s to load, "
        f"{rates.bytes / rates.documents:,.0f} bytes on disk per document, "
        f"{rates.memory / 1e9:.1f} GB of memory per worker"
    )
    for number in tokens:
        first = forecast(rates, int(number), workers=1, shard=shard, lost=lost)
        money = "" if price is None else f", costing {told([hours * price for hours in first.worker_hours])}"
        click.echo(
            f"\n{number:.0e} tokens: {first.shards:,} shards, {told(first.worker_hours)} worker hours{money}, "
            f"{first.bytes / 1e9:,.1f} GB on disk"
        )
        for several in workers:
            days = forecast(rates, int(number), workers=several, shard=shard, lost=lost).days
            click.echo(f"  {several:>6,} workers: {told(days)} days")
    if rates.shards == 1:
        click.echo(
            "\none shard was measured, so the ranges have no width; measure several: atlaskit survey … --shard N"
        )
    click.echo("\nassumed:")
    for assumption in (*ASSUMPTIONS, f"workers lost: {lost:g} in an hour of one worker"):
        click.echo(f"  - {assumption}")


def measured(out: Path) -> Rates:
    """The rates of the shards that are done. Raises FileNotFoundError where there is none."""
    found = [runs.read_json(path) for path in sorted(out.glob(f"done/*/{RATES}"))]
    if not found:
        raise FileNotFoundError(f"{out} holds no finished shard; measure some first: atlaskit survey … --out {out}")
    each = [one["seconds"] / one["tokens"] for one in found]
    tenths = quantiles(each, n=10, method="inclusive") if len(each) > 1 else each * 9
    total = {name: sum(one[name] for one in found) for name in ("tokens", "documents", "seconds", "loading", "bytes")}
    return Rates(
        len(found),
        total["tokens"],
        total["documents"],
        (tenths[0], total["seconds"] / total["tokens"], tenths[-1]),
        loading=total["loading"] / len(found),
        bytes=total["bytes"],
        memory=max(one["memory"] for one in found),
    )


def forecast(rates: Rates, tokens: int, *, workers: int, shard: int | None = None, lost: float = 0.0) -> Forecast:
    """The rates carried on to so many tokens, under ASSUMPTIONS, with `shard` documents in each shard.

    `lost` is in workers per worker hour.
    """
    in_shard = rates.tokens / rates.shards if shard is None else shard * rates.tokens / rates.documents
    shards = math.ceil(tokens / in_shard)
    hours, days = [], []
    for per_token in rates.per_token:
        one = (in_shard * per_token + rates.loading) / HOUR
        one *= 1 + lost * one / 2
        hours.append(shards * one)
        days.append(math.ceil(shards / workers) * one / 24)  # the last round is a whole one
    return Forecast(tokens, shards, tuple(hours), tuple(days), rates.bytes / rates.tokens * tokens)


def told(three: list[float] | tuple[float, ...]) -> str:
    """The middle one, and the range."""
    low, middle, high = (f"{number:,.3g}" if number < 1000 else f"{number:,.0f}" for number in three)
    return f"{middle} ({low} to {high})"
