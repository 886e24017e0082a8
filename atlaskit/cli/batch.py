"""`atlaskit batch`: a plan's notebooks over its grid, and `atlaskit report`: what came of it."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
from tqdm.auto import tqdm

from atlaskit import models, runs

from . import asking

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")

AGGREGATE = Path(runs.__file__).with_name("aggregate.ipynb")

EXECUTORS = ("local", "dask", "slurm", "slurm-local", "slurm-debug")

executor_options = (
    click.option(
        "--executor", "kind", type=click.Choice(EXECUTORS), default="local", show_default=True,
        help="slurm-local and slurm-debug try a SLURM batch out on this machine.",
    ),
    click.option("--workers", type=click.IntRange(min=1), help="Runs at a time; for local, dask and slurm."),
    click.option("--scheduler", help="Of a running Dask cluster: tcp://HOST:PORT. Without it, one on loopback."),
    click.option(
        "--slurm", "slurm_options", nargs=2, multiple=True, metavar="NAME VALUE",
        help="An option of submitit's, such as slurm_partition gpu; may be repeated.",
    ),
)  # fmt: skip


def on_executors(command: Any) -> Any:
    """The options of every command that runs tasks."""
    for option in executor_options[::-1]:
        command = option(command)
    return command


@click.command()
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the runs, and start none.")
@on_executors
@click.pass_context
def batch(context: click.Context, /, plan: Path, *, dry_run: bool, **options: Any) -> None:
    """Run the notebooks of PLAN, a YAML file, over its grid of parameters.

    The whole plan is checked before anything starts. What is done is not done again: after a crash, or Ctrl-C, the same
    command goes on. Exit code: 0 all done, 1 some failed, 2 a wrong request, 130 stopped.
    """
    try:
        planned = runs.read_plan(plan, checks={"model": model_check(plan.resolve().parent)})
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if dry_run:
        click.echo(table(planned))
        return

    def heard(run: runs.Planned, ended: runs.Ended) -> None:
        if ended.state == "failed":
            tqdm.write(f"failed: {runs.told(run)}: {ended.failure}")

    with asking.in_words("the batch could not run", ImportError), executor(planned, options) as there:
        done = runs.run_plan(planned, executor=there, heard=heard)
    counts = {state: done.count(state) for state in ("done", "failed", "stopped")}
    click.echo(", ".join(f"{count} {state}" for state, count in counts.items()))
    click.echo(f"report: {planned.out / 'index.html'}; with figures: atlaskit report {planned.out}")
    if counts["stopped"]:
        click.echo(f"{done.why_stopped}; what is done is kept. Go on with: atlaskit batch {plan}", err=True)
        context.exit(130)
    context.exit(1 if counts["failed"] else 0)


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
def report(out: Path) -> None:
    """Write the page over what was run into OUT; for a batch, also its tables and the notebook with its figures."""
    with asking.in_words(f"no report on {out}"):
        if (out / runs.BATCH).exists():
            runs.write_aggregate(out)
            if any(place.state == "done" for place in runs.places(out)):
                runs.execute(AGGREGATE, out, {"out": str(out.resolve())})
        click.echo(f"report: {runs.report(out).resolve()}")


def executor(plan: runs.Plan, options: dict[str, Any]) -> AbstractContextManager[Any]:
    """The executor that was asked for."""
    match options["kind"]:
        case "local":
            return runs.Local(options["workers"] or plan.workers, gpus=plan.gpus)
        case "dask":
            dask = runs.Dask(options["scheduler"], workers=options["workers"] or plan.workers)
            click.echo(f"dashboard: {dask.dashboard}")
            return dask
    cluster = {"slurm": "slurm", "slurm-local": "local", "slurm-debug": "debug"}[options["kind"]]
    slurm = {name: int(value) if value.isdigit() else value for name, value in options["slurm_options"]}
    return runs.Slurm(
        plan.out, plan.limits, workers=options["workers"] or plan.workers, cluster=cluster, **slurm
    )  # fmt: skip


def table(plan: runs.Plan) -> str:
    """The runs, a line each: the notebook and what differs between them."""
    names = plan.varied
    rows = [["notebook", *names]] + [
        [run.notebook.stem, *(_cell(run.parameters.get(name, "")) for name in names)] for run in plan.runs
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"{len(plan.runs)} runs into {plan.out}"])


def model_check(folder: Path) -> runs.Check:
    """A look at a model's name: bundled, a folder that is there, or what may be a hub's."""

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return None
        path = folder / Path(value).expanduser()
        try:
            known = models.locate(str(path) if path.is_dir() else value)
        except OSError as error:
            return str(error)
        if known is None and not HUB_ID.fullmatch(value):
            return f"{value} is no bundled model, no folder beneath {folder}, and cannot be the name of one on a hub"
        return None

    return check


def _cell(value: Any) -> str:
    text = str(value).replace("\n", " ")
    return text if len(text) <= 40 else text[:39] + "…"
