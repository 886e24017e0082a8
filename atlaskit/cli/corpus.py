"""A corpus of any size as shards: pieces of files that a worker reads by itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from atlaskit import data

Piece: TypeAlias = dict[str, Any]
"""{"file", "start", "end", "lines", "column"}: some bytes of a file, which are one document, or one in each line; where
a column is named, in each line's JSON."""

ENDINGS = (".txt", ".jsonl")


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files meant: a folder stands for all .txt and .jsonl files beneath it, in the order of their names."""
    found = []
    for path in paths:
        found += [one for one in sorted(path.rglob("*")) if one.suffix in ENDINGS] if path.is_dir() else [path]
    if not found:
        raise ValueError(f"the corpus holds no {' or '.join(ENDINGS)} file")
    return [path.resolve() for path in found]


def shards(files: Sequence[Path], *, lines: bool, size: int, column: str = "text") -> Iterator[tuple[list[Piece], int]]:
    """Shards of so many documents, each with the number of its first one; the last may be smaller."""
    pieces: list[Piece] = []
    held, first = 0, 0
    for file in files:
        json_lines = file.suffix == ".jsonl"
        by_line = lines or json_lines
        about = {"file": str(file), "lines": by_line, "column": column if json_lines else None}
        for start, end in _lines(file) if by_line else [(0, file.stat().st_size)]:
            if pieces and by_line and pieces[-1]["file"] == str(file):
                pieces[-1]["end"] = end
            else:
                pieces.append(about | {"start": start, "end": end})
            held += 1
            if held == size:
                yield pieces, first
                pieces, held, first = [], 0, first + size
    if pieces:
        yield pieces, first


def content_hash(pieces: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of the bytes of a shard, which says whether its texts have changed."""
    digest = hashlib.sha256()
    for piece in pieces:
        content = _bytes(piece)
        digest.update(f"{len(content)} {piece['lines']} {piece['column']} ".encode())
        digest.update(content)
    return digest.hexdigest()


def documents(pieces: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of a shard; a line with nothing in it is none."""
    found = []
    for piece in pieces:
        try:
            text = _bytes(piece).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{piece['file']} is not text in UTF-8 (byte {piece['start'] + error.start})") from error
        lines = [line for line in text.split("\n") if line.strip()] if piece["lines"] else [text]
        found += lines if piece["column"] is None else _texts_of(lines, piece)
    return found


def _texts_of(lines: Sequence[str], piece: Mapping[str, Any]) -> list[str]:
    try:
        return data.read_texts(map(json.loads, lines), column=piece["column"])
    except ValueError as error:
        raise ValueError(f"{piece['file']}, after byte {piece['start']}: {error}") from error


def _bytes(piece: Mapping[str, Any]) -> bytes:
    with Path(piece["file"]).open("rb") as file:
        file.seek(piece["start"])
        return file.read(piece["end"] - piece["start"])


def _lines(file: Path) -> Iterator[tuple[int, int]]:
    """Where each line that holds something begins and ends."""
    start = 0
    with file.open("rb") as opened:
        for line in opened:
            if line.strip():
                yield start, start + len(line)
            start += len(line)
