"""A result as plain files that other programs read: json, csv and parquet."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor

from .jsonfile import Json, dumps, encode, write_whole
from .result import Result, describe

Row = dict[str, Json]


def rows(result: Result) -> list[Row]:
    """One row for every combination of the table's axes: its labels, then what each array over these axes holds."""
    axes = result.table
    columns = {name: array for name, array in result.arrays.items() if array.axes and set(array.axes) <= set(axes)}
    held = {name: (array.axes, array.values.tolist()) for name, array in columns.items()}
    found = []
    for places in product(*(range(len(result.labels[axis])) for axis in axes)):
        at = dict(zip(axes, places, strict=True))
        row: Row = {}
        for axis, place in at.items():
            label = result.labels[axis][place]
            row |= label if isinstance(label, dict) else {axis: label}
        for name, (own, values) in held.items():
            for axis in own:
                values = values[at[axis]]
            row[name] = values
        found.append(row)
    return found


def export(result: Result, path: Path | str) -> None:
    """Write a result in the format that the name ends on: npz loses nothing; json, csv and parquet hold the table.

    The JSON and the parquet's metadata also say which texts, parameters, versions and models it comes from. Undefined
    is empty in csv, and null in the other two. The folder must exist. Raises ValueError for another ending,
    ImportError where parquet has no pyarrow.
    """
    path = Path(path)
    check_format(path)
    FORMATS[path.suffix](result, path)


def check_format(path: Path) -> None:
    """Raise what `export` would raise for this name, before there is a result to lose."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path.name!r} ends on no format that is known; end it on one of {', '.join(FORMATS)}")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"{path.name} needs pyarrow, which is not installed: pip install 'atlaskit[parquet]', or choose .csv"
            ) from error


def _npz(result: Result, path: Path) -> None:
    result.save(path)


def _json(result: Result, path: Path) -> None:
    write_whole(path, dumps(_provenance(result) | {"rows": [_plain(row) for row in rows(result)]}))


def _csv(result: Result, path: Path) -> None:
    write_whole(path, csv_text(rows(result)))


def _parquet(result: Result, path: Path) -> None:
    about = {"atlaskit": json.dumps(_provenance(result), sort_keys=True)}
    write_whole(path, parquet_bytes([_plain(row) for row in rows(result)], about=about))


def csv_text(found: Sequence[Row]) -> str:
    """Rows as csv, undefined numbers empty."""
    text = io.StringIO()
    columns = dict.fromkeys(name for row in found for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_plain, found))
    return text.getvalue()


def parquet_bytes(
    found: Sequence[Row], types: Mapping[str, str] | None = None, *, about: Mapping[str, str] | None = None
) -> bytes:
    """Rows as Parquet. The types of columns are those of what stands in them, but for those that are named."""
    import pyarrow
    import pyarrow.parquet

    names = dict.fromkeys(name for row in found for name in row)
    columns = {name: pyarrow.array([row.get(name) for row in found], (types or {}).get(name)) for name in names}
    table = pyarrow.table(columns).replace_schema_metadata(dict(about or {}))
    held = io.BytesIO()
    pyarrow.parquet.write_table(table, held)
    return held.getvalue()


def write_rows(path: Path, found: Sequence[Row], types: Mapping[str, str] | None = None) -> None:
    """Rows as a Parquet file."""
    write_whole(path, parquet_bytes(found, types))


def write_columns(path: Path, columns: Mapping[str, Shaped[Tensor, doc * axes]]) -> None:
    """Columns as a Parquet file; one with a second axis holds a list of fixed length in each row."""
    import pyarrow
    import pyarrow.parquet

    arrays = {}
    for name, values in columns.items():
        flat = pyarrow.array(values.flatten().numpy())
        arrays[name] = flat if values.ndim == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, values[0].numel())
    held = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays), held)
    write_whole(path, held.getvalue())


def _provenance(result: Result) -> Json:
    return {
        "command": result.command,
        "sources": [describe(source) for source in result.sources],
        "parameters": encode(dict(result.parameters), "parameters"),
        "notes": list(result.notes),
        "versions": dict(result.versions),
    }


def _plain(row: Row) -> Row:
    """None for nan, which neither JSON nor a spreadsheet knows."""
    return {name: None if isinstance(value, float) and math.isnan(value) else encode(value, name)
            for name, value in row.items()}  # fmt: skip


FORMATS: Mapping[str, Callable[[Result, Path], None]] = {
    ".npz": _npz,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
