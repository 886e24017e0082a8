"""Texts of a user's own: from files, folders, JSON lines, or rows of a dataset."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ENDINGS = (".txt", ".md", ".jsonl")


def read_texts(
    source: str | Path | Iterable[str] | Iterable[Mapping[str, Any]],
    *,
    column: str = "text",
    n: int | None = None,
    seed: int = 0,
) -> list[str]:
    """Documents of a text file (the whole is one), of JSON lines, of a folder of such files, or of rows.

    Rows are strings or mappings with a `column`, as Hugging Face datasets have them, streamed or not. With `n`, that
    many are drawn by `seed` without holding the rest (Vitter 1985), and stay in order. Empty texts are left out.
    Raises FileNotFoundError, and ValueError with file and line for what cannot be read.
    """
    texts = (text for text in _texts(source, column) if text.strip())
    kept = list(enumerate(texts)) if n is None else _drawn(texts, n, random.Random(seed))
    if not kept:
        raise ValueError(f"there are no texts in {source!r}")
    return [text for _, text in sorted(kept)]


def _texts(source: Any, column: str) -> Iterator[str]:
    if isinstance(source, str | Path):
        yield from _of_path(Path(source), column)
        return
    for i, row in enumerate(source):
        yield _of_row(row, column, f"row {i}")


def _of_path(path: Path, column: str) -> Iterator[str]:
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.suffix in ENDINGS]
        if not files:
            raise ValueError(f"the folder {path} holds no {', '.join(ENDINGS)} file")
        for file in files:
            yield from _of_path(file, column)
        return
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}; to read a text itself, give a list: [text]")
    if path.suffix == ".jsonl":
        yield from _of_lines(path, column)
        return
    try:
        yield path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        ) from error


def _of_lines(path: Path, column: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
            yield _of_row(row, column, f"{path}, line {number}")


def _of_row(row: Any, column: str, where: str) -> str:
    if isinstance(row, str):
        return row
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} is a {type(row).__name__}; a document is a string, or a mapping with a {column!r}")
    if not isinstance(row.get(column), str):
        raise ValueError(f"{where} has no text under {column!r}; it has {', '.join(map(repr, row))}: name the column")
    text: str = row[column]
    return text


def _drawn(texts: Iterable[str], n: int, chance: random.Random) -> list[tuple[int, str]]:
    kept: list[tuple[int, str]] = []
    for i, text in enumerate(texts):
        if i < n:
            kept.append((i, text))
        elif (place := chance.randrange(i + 1)) < n:
            kept[place] = (i, text)
    return kept
