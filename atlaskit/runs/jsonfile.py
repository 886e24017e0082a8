"""JSON that loses nothing: strict, sorted, and written whole or not at all.

JSON has no nan and no infinity, and null is taken. A number that is not finite is therefore written as
``{"$float": "nan"}``, ``{"$float": "inf"}`` or ``{"$float": "-inf"}``, and an `Estimate` as ``{"$estimate": {...}}``.
No other key may begin with a dollar sign, so reading back is unambiguous.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any, TypeAlias

from atlaskit.records import Estimate

Json: TypeAlias = Any
"""None, bool, int, float, str, or lists and string-keyed dicts of these."""


def encode(value: object, where: str) -> Json:
    """`value` as strict JSON; `where` names it in the error."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": repr(float(value))}
        case list():
            return [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        case dict():
            for key in value:
                if not isinstance(key, str) or key.startswith("$"):
                    raise TypeError(f"{where} has the key {key!r}; keys must be strings that do not begin with '$'")
            return {key: encode(item, f"{where}[{key!r}]") for key, item in value.items()}
        case Estimate():
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {"$estimate": {name: encode(item, f"{where}.{name}") for name, item in fields.items()}}
    raise TypeError(
        f"{where} is a {type(value).__name__}, which JSON cannot hold; give an Estimate, a number, a string, a list "
        "or a dict (a tensor becomes one by .item() or .tolist(), a tuple by list())"
    )


def decode(value: Json) -> Any:
    """What `encode` was given."""
    match value:
        case list():
            return [decode(item) for item in value]
        case {"$float": str(text)}:
            return float(text)
        case {"$estimate": dict(fields)}:
            return Estimate(**{name: decode(item) for name, item in fields.items()})
        case dict():
            return {key: decode(item) for key, item in value.items()}
    return value


def write_json(path: Path, content: Json) -> None:
    """Sorted and indented, so that two runs can be compared line by line."""
    write_whole(path, dumps(content))


def dumps(content: Json) -> str:
    """The text of a JSON file: sorted, indented, strict."""
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def read_json(path: Path) -> Json:
    """Read a file that `write_json` wrote; a broken one is named in the error."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole JSON ({error}); delete it and run the notebook again") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write beside `path`, then rename: a reader, or a crash, never meets half a file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
