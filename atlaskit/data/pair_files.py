"""Pairs from files: your own, StereoSet, CrowS-Pairs. None of the three travels with the package."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from .pair import Pair

Rows = Iterable[Mapping[str, Any]]
"""Rows of a data set in memory, such as ``datasets.load_dataset(...)["validation"]`` gives from the hub."""

LABELS = ("anti-stereotype", "stereotype", "unrelated")
"""StereoSet's names of its labels, in the order of their numbers on the hub."""


def read_pairs(path: str | Path) -> list[Pair]:
    """Your own pairs from a .csv or .jsonl file with the columns domain, stereotype and counter.

    Optional columns: name, family (a pair without one is its own), context, unrelated; others are left alone. HTML is
    text like any other: it is scored as it stands and shown escaped. Raises ValueError, naming file and row, for a
    missing column, an empty cell, a sentence compared with itself, or a file without rows.
    """
    return [
        _pair(
            row,
            where,
            name=str(row.get("name") or f"{Path(path).stem}-{i + 1}"),
            domain=_cell(row, "domain", where),
            stereotype=_cell(row, "stereotype", where),
            counter=_cell(row, "counter", where),
        )
        for i, (where, row) in enumerate(_rows(path))
    ]


def read_crows_pairs(source: str | Path | Rows) -> list[Pair]:
    """CrowS-Pairs (Nangia et al. 2020) from its CSV or rows of it; `sent_more` is the stereotype, as in its own metric.

    Raises ValueError for a missing column or a direction other than stereo and antistereo.
    """
    found = []
    for i, (where, row) in enumerate(_rows(source)):
        # on the hub the direction is a number: 0 for stereo, 1 for antistereo
        if (direction := row.get("stereo_antistereo", "stereo")) not in ("stereo", "antistereo", 0, 1):
            raise ValueError(f"{where}: the direction {direction!r} is neither 'stereo' nor 'antistereo'")
        found.append(
            _pair(
                row,
                where,
                name=f"crows-{i + 1}",
                domain=_cell(row, "bias_type", where),
                stereotype=_cell(row, "sent_more", where),
                counter=_cell(row, "sent_less", where),
            )
        )
    return found


def read_stereoset(
    source: str | Path | Rows, setting: Literal["intersentence", "intrasentence"] = "intersentence"
) -> list[Pair]:
    """StereoSet (Nadeem et al. 2021) from its JSON, or from rows of one setting as the hub has them.

    Within a sentence the pair differs in a word; between sentences a context comes before two that differ throughout.
    Items about one target are a family. Raises ValueError for an unknown label or an item that lacks one of the three.
    """
    found = []
    for i, (where, row) in enumerate(_rows(source, setting)):
        said: dict[str, str] = {}
        for sentence, label in _labelled(_cell(row, "sentences", where)):
            name = LABELS[label] if isinstance(label, int) and 0 <= label < len(LABELS) else label
            if name not in LABELS:
                raise ValueError(f"{where}: the label {label!r} is unknown; StereoSet has {', '.join(LABELS)}")
            said[name] = sentence
        if lacking := [label for label in LABELS if label not in said]:
            raise ValueError(f"{where}: no sentence is labelled {', '.join(lacking)}")
        domain = _cell(row, "bias_type", where)
        target = {"family": f"{domain}: {_cell(row, 'target', where)}", "unrelated": said["unrelated"]}
        if setting == "intersentence":
            target["context"] = _cell(row, "context", where)
        name = str(row.get("id") or f"stereoset-{i + 1}")
        found.append(
            _pair(target, where, name=name, domain=domain, stereotype=said[LABELS[1]], counter=said[LABELS[0]])
        )
    return found


def _pair(row: Mapping[str, Any], where: str, *, name: str, domain: str, stereotype: str, counter: str) -> Pair:
    optional = {field: str(row.get(field) or "") for field in ("context", "unrelated")}
    try:
        return Pair(name, domain, str(row.get("family") or name), stereotype, counter, **optional)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _rows(source: str | Path | Rows, setting: str = "") -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Rows of a file or of what is in memory, each with words on where it stands."""
    if not isinstance(source, str | Path):
        named = [(f"row {i + 1}", row) for i, row in enumerate(source)]
        path: Any = "the data"
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark before the first column
        if path.suffix == ".csv":
            rows: list[Any] = list(csv.DictReader(text.splitlines(keepends=True)))
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        elif path.suffix == ".json" and setting:
            rows = json.loads(text)["data"][setting]
        else:
            raise ValueError(f"{path}: pairs are read from .csv and .jsonl files, StereoSet from its .json too")
        named = [(f"{path.name}, row {i + 1}", row) for i, row in enumerate(rows)]
    if not named:
        raise ValueError(f"{path} has no rows")
    return named


def _cell(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise ValueError(f"{where}: the column {column!r} is missing; there are {', '.join(map(str, row))}")
    if row[column] is None or row[column] == "":
        raise ValueError(f"{where}: the column {column!r} is empty")
    return row[column]


def _labelled(sentences: Any) -> Iterable[tuple[str, Any]]:
    """(sentence, label): a list of records in the original file, a record of lists on the hub."""
    if isinstance(sentences, Mapping):
        return zip(sentences["sentence"], sentences["gold_label"], strict=True)
    return [(one["sentence"], one["gold_label"]) for one in sentences]
