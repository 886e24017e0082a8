"""The unit of work: one run of one notebook, in a process made for it, and all that it leaves in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from . import cells as cells  # before a nursery forks, so that no run waits for it
from .aggregate import TYPES, finding_rows
from .execution import execute
from .jsonfile import Json, decode
from .reporting import report
from .table import write_columns, write_rows


def work(folder: Path, *, notebook: str, parameters: Mapping[str, Json], cell_seconds: int) -> None:
    """One run: the executed notebook, its page, its findings and arrays as rows."""
    source = Path(notebook)
    run = execute(source, folder, decode(parameters), timeout=cell_seconds)
    write_rows(folder / "findings.parquet", finding_rows(run), TYPES)
    for name, (axes, values) in run.arrays.items():
        places = np.indices(values.shape).reshape(len(axes), -1)
        columns = {axis: torch.from_numpy(place) for axis, place in zip(axes, places, strict=True)}
        (folder / "arrays").mkdir(exist_ok=True)
        write_columns(folder / "arrays" / f"{name}.parquet", columns | {"value": torch.from_numpy(values.reshape(-1))})
    report(folder)
