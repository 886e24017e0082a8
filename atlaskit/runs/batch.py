"""The same notebooks over a grid: every run by papermill in a fresh process, whole on disk or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from .aggregate import write_aggregate, write_batch
from .driving import alone_in, drive
from .executors import Executor, Local
from .jsonfile import Json, encode, write_whole
from .manifest import digest, file_hash, hashes
from .parameters import check_parameters
from .plan import Plan, Planned, expand, told
from .reporting import report
from .supervise import FULL
from .task import Ended, Limits, Task

WORK = "atlaskit.runs.work:work"


@dataclass(frozen=True)
class Batch:
    """How a batch ended: each run of the plan, in its order."""

    plan: Plan
    ended: Mapping[str, Ended]

    def count(self, state: str) -> int:
        """How many runs are "done", "failed" or "stopped"."""
        return sum(one.state == state for one in self.ended.values())

    @property
    def why_stopped(self) -> str:
        """By hand, or for want of room."""
        full = any(one.failure is not None and one.failure.message == FULL for one in self.ended.values())
        return FULL if full else "stopped"


def batch(
    notebook: Path | str,
    grid: Mapping[str, Sequence[Json]],
    *,
    out: Path | str,
    executor: Executor | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
    cell_seconds: int = 600,
    progress: bool = True,
) -> Batch:
    """Run a notebook with every combination of the grid's values; the other parameters keep their defaults.

    What is done in `out` already, with these parameters, this notebook and this atlaskit, is not done again: after a
    crash, call it again. All parameters are checked before anything starts; ValueError lists what is wrong. Without an
    `executor` every processor of this machine takes runs. Ctrl-C stops, and the rest is "stopped" then.
    """
    source = Path(notebook)
    runs, problems = [], []
    for given in expand(grid):
        try:
            runs.append(Planned(source, check_parameters(source, given)))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    if twice := [run for i, run in enumerate(runs) if run in runs[:i]]:
        raise ValueError(f"the grid asks twice for {told(twice[0])}")
    return run_plan(
        Plan(tuple(runs), Path(out).resolve(), limits, cell_seconds=cell_seconds), executor=executor, progress=progress
    )


def run_plan(
    plan: Plan,
    *,
    executor: Executor | None = None,
    progress: bool = True,
    heard: Callable[[Planned, Ended], None] | None = None,
) -> Batch:
    """Run a plan, then write its aggregate and its page; `heard` is told of each run as it ends."""
    tasks = _tasks(plan)
    by_name = dict(zip((task.name for task in tasks), plan.runs, strict=True))

    def hear(one: Ended) -> None:
        if heard is not None:
            heard(by_name[one.name], one)

    with alone_in(plan.out), nullcontext(executor) if executor else Local(plan.workers, gpus=plan.gpus) as there:
        for notebook in {run.notebook for run in plan.runs}:
            _keep(notebook, plan.out)
        write_batch(plan.out, tasks, plan.varied)
        ended = drive(tasks, there, progress=progress, heard=hear)
        write_aggregate(plan.out)
        report(plan.out)
    return Batch(plan, ended)


def _tasks(plan: Plan) -> list[Task]:
    """The runs as tasks. What a result depends on: cells, parameters, what those point to, this atlaskit."""
    source = {notebook: _source(notebook) for notebook in {run.notebook for run in plan.runs}}
    content = cache(lambda value: _content(plan.cwd, value))
    tasks = []
    for run in plan.runs:
        parameters = encode(dict(run.parameters), "parameters")
        key = {"notebook": run.notebook.stem, "source": source[run.notebook], "parameters": parameters}
        named = [value for value in run.parameters.values() if isinstance(value, str)]
        key["files"] = {value: found for value in named if (found := content(value)) is not None}
        kept = _kept(run.notebook, source[run.notebook], plan.out)
        arguments = {"notebook": str(kept), "parameters": parameters}
        tasks.append(
            Task(
                run.name,
                WORK,
                arguments | {"cell_seconds": plan.cell_seconds},
                key | {"atlaskit": metadata.version("atlaskit")},
                out=plan.out,
                limits=plan.limits,
                cwd=plan.cwd,
            )
        )
    return tasks


def _content(cwd: Path, value: str) -> str | None:
    """The hash of the file, or of the model's folder, that a parameter points to; None where it is no path."""
    try:
        path = cwd / value
        if value and path.is_file():
            return file_hash(path)
        return digest(hashes(path)) if value and (path / "config.json").is_file() else None
    except (OSError, ValueError):  # a text, too long for a path or with what no path may hold
        return None


def _source(notebook: Path) -> str:
    """The hash of what runs: outputs and cell ids change nothing."""
    import nbformat  # takes seconds, as in `declared_parameters`

    cells = nbformat.read(notebook, as_version=4).cells
    return digest([[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in cells])


def _kept(notebook: Path, source: str, out: Path) -> Path:
    return out / "notebooks" / source[:10] / notebook.name


def _keep(notebook: Path, out: Path) -> None:
    """Copy a notebook beside its results, so that all runs are of one and the same, whatever is edited meanwhile."""
    kept = _kept(notebook, _source(notebook), out)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_whole(kept, notebook.read_bytes())
