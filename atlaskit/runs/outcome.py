"""How an execution went, beside what it found: the report reads this, also where a notebook failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .jsonfile import Json, decode, encode, read_json, write_json


@dataclass
class Failure:
    """Why a notebook stopped. `cell` counts as JupyterLab's ``In [cell]`` does; None where no cell is to blame."""

    name: str
    message: str
    cell: int | None = None
    anchor: str = ""
    source: str = ""
    traceback: str = ""

    def __str__(self) -> str:
        where = "" if self.cell is None else f"cell In [{self.cell}]: "
        return f"{where}{self.name}: {self.message}"


@dataclass
class Outcome:
    """One execution: when, how long, with which parameters, and the failure, if any."""

    FILE: ClassVar[str] = "outcome.json"

    notebook: str
    parameters: Mapping[str, Json]
    started: str
    seconds: float = float("nan")
    failure: Failure | None = None

    def write(self, folder: Path) -> None:
        """Write outcome.json, last of all: where it is missing, the notebook was cut off."""
        write_json(folder / self.FILE, encode(dataclasses.asdict(self), "outcome"))

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """Read what `write` wrote."""
        content = decode(read_json(folder / cls.FILE))
        failure = content.pop("failure")
        return cls(**content, failure=failure and Failure(**failure))
