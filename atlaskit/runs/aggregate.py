"""What the runs of a batch found, side by side: one table of all findings, and one of effects across seeds.

Both depend on what was found and on the plan's order alone: not on when, where, or in which order runs were done.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from atlaskit.records import Estimate

from .across import across
from .findings import Run
from .jsonfile import Json, decode, encode, read_json, write_json, write_whole
from .manifest import is_done
from .nursery import FAILURE
from .outcome import Failure
from .table import csv_text, write_rows
from .task import Task

BATCH = "batch.json"
"""In a batch's folder: its runs in order, and which parameters differ between them."""

Row: TypeAlias = dict[str, Json]

TYPES = {"run": "string", "notebook": "string", "finding": "string", "unit": "string", "n": "int64", "text": "string"}
"""Of columns whose type must not depend on what happens to stand in them."""

NUMBERS = ("value", "low", "high", "null_low", "null_high", "p")


@dataclass(frozen=True)
class Place:
    """A run of a batch: what it is, and where it stands now."""

    name: str
    notebook: str
    parameters: Mapping[str, Json]
    state: Literal["done", "failed", "missing"]
    folder: Path
    failure: Failure | None = None

    @property
    def rank(self) -> bool:
        """For a list that begins with what failed."""
        return self.state != "failed"

    @property
    def run(self) -> Run:
        """What a finished run found."""
        return Run.load(self.folder / self.notebook)

    @property
    def page(self) -> Path:
        """The executed notebook as HTML; a run that was killed may have none."""
        return self.folder / self.notebook / f"{self.notebook}.html"


def write_batch(out: Path, tasks: Sequence[Task], varied: Sequence[str]) -> None:
    """Write down what the folder is for, so that it can be read without the plan."""
    runs = [{"name": task.name, "key": dict(task.key)} for task in tasks]
    write_json(out / BATCH, {"runs": runs, "varied": list(varied)})


def places(out: Path | str) -> list[Place]:
    """Every run that a batch's folder was made for, in the plan's order."""
    folder = Path(out)
    return [_place(folder, one["name"], one["key"]) for one in _batch(folder)["runs"]]


def varied(out: Path | str) -> list[str]:
    """The parameters by which the runs differ."""
    return list(_batch(Path(out))["varied"])


def finding_rows(run: Run) -> list[Row]:
    """A row for each finding: numbers where it is an Estimate or a number, and text where it is anything else."""
    rows = []
    for name, found in run.findings.items():
        row: Row = {"finding": name} | dict.fromkeys(NUMBERS, math.nan) | {"unit": None, "n": None, "text": None}
        if isinstance(found, Estimate):
            row |= {number: getattr(found, number) for number in NUMBERS} | {"unit": found.unit, "n": found.n}
        elif isinstance(found, (int, float)) and not isinstance(found, bool):
            row["value"] = float(found)
        else:
            row["text"] = found if isinstance(found, str) else json.dumps(encode(found, name), sort_keys=True)
        rows.append(row)
    return rows


def aggregate_rows(found: Iterable[Place]) -> list[Row]:
    """The findings of all finished runs, each row with its run and its parameters as ``parameter.<name>``."""
    done = [place for place in found if place.state == "done"]
    columns = {f"parameter.{name}": _column([place.parameters.get(name) for place in done])
               for name in dict.fromkeys(name for place in done for name in place.parameters)}  # fmt: skip
    return [
        {"run": place.name, "notebook": place.notebook} | {name: column[i] for name, column in columns.items()} | row
        for i, place in enumerate(done)
        for row in finding_rows(place.run)
    ]


def write_aggregate(out: Path | str) -> Path:
    """Write aggregate.parquet, and across.csv with the effects across seeds, over what is finished now."""
    folder = Path(out)
    rows = aggregate_rows(places(folder))
    write_rows(folder / "aggregate.parquet", rows, TYPES)
    write_whole(folder / "across.csv", csv_text([one.row() for one in across(rows, varied(folder))]))
    return folder / "aggregate.parquet"


def _batch(folder: Path) -> Any:
    try:
        return read_json(folder / BATCH)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder} holds no batch; run one first: atlaskit batch plan.yaml") from error


def _place(out: Path, name: str, key: Mapping[str, Json]) -> Place:
    task = Task(name, "", {}, key, out)
    about = (name, str(key["notebook"]), decode(key["parameters"]))
    if is_done(task.done, key):
        return Place(*about, "done", task.done)
    if (task.failed / FAILURE).exists():
        return Place(*about, "failed", task.failed, Failure(**read_json(task.failed / FAILURE)))
    return Place(*about, "missing", task.done)


def _column(values: Sequence[Json]) -> list[Json]:
    """One type for a whole column: numbers and texts as they are, anything else, or a mixture, as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if (len(kinds) <= 1 and kinds <= {bool, int, float, str}) or kinds == {int, float}:
        return [float(value) if kinds == {int, float} and value is not None else value for value in values]
    return [None if value is None else json.dumps(encode(value, "parameter"), sort_keys=True) for value in values]
