"""A corpus of any size as shards: pieces of files that a worker reads by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Piece: TypeAlias = dict[str, Any]
"""{"file", "start", "end", "lines"}: some bytes of a file, which are one document, or one in each line."""


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files meant: a folder stands for all .txt files beneath it, in the order of their names."""
    found = []
    for path in paths:
        found += sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not found:
        raise ValueError("the corpus holds no .txt file")
    return [path.resolve() for path in found]


def shards(files: Sequence[Path], *, lines: bool, size: int) -> Iterator[tuple[list[Piece], int]]:
    """Shards of so many documents, each with the number of its first one; the last may be smaller."""
    pieces: list[Piece] = []
    held, first = 0, 0
    for file in files:
        for start, end in _lines(file) if lines else [(0, file.stat().st_size)]:
            if pieces and lines and pieces[-1]["file"] == str(file):
                pieces[-1]["end"] = end
            else:
                pieces.append({"file": str(file), "start": start, "end": end, "lines": lines})
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
        digest.update(f"{len(content)} {piece['lines']} ".encode())
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
        found += [line for line in text.split("\n") if line.strip()] if piece["lines"] else [text]
    return found


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
