"""What documents gave, kept in a file: a survey that was killed goes on, and one that is asked again need not run.

An entry's key is a hash of all that its numbers depend on: the weights, the settings, the precision, the text and its
tokens, which attention, and the source of the score. The file is SQLite, so two processes may use it at once and a kill
leaves it whole.
"""

import hashlib
import inspect
import json
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from atlaskit.models.documents import Read, identity
from atlaskit.models.model import Model, fingerprint
from atlaskit.records import Score

LIMIT = 1_000_000_000
"""Bytes that the file may hold; beyond it what was unused for longest goes."""


class Cache:
    """The documents' numbers for one model and some scores, in one file."""

    def __init__(self, path: str | Path, model: Model, scores: Mapping[str, Score], *, which: str):
        """Open the file, or make it; `which` names the attention looked at, and how.

        Raises TypeError for a score whose code cannot be told from another's, ValueError for a file of another kind,
        OSError for one that cannot be opened.
        """
        whole = f"{fingerprint(model)} {_settings(model)} {model.net.dtype} {which}"
        self._keys = {name: f"{whole} {_identity(score)}" for name, score in scores.items()}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(path, timeout=60)
        except sqlite3.OperationalError as error:
            raise OSError(f"the cache {path} cannot be opened: {error}") from error
        try:
            self._set_up()
        except sqlite3.DatabaseError as error:
            self._file.close()
            raise ValueError(f"{path} is no cache of a survey ({error}); delete it, or name another file") from error

    def _set_up(self) -> None:
        for wait in range(60):
            try:
                self._file.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:  # another process opens it at this moment; SQLite does not wait
                if "locked" not in str(error) or wait == 59:
                    raise
                time.sleep(0.1)
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS numbers (key TEXT PRIMARY KEY, layers INT, heads INT, data BLOB, used REAL)"
        )

    def found(self, documents: Sequence[Read]) -> dict[int, dict[str, Tensor]]:
        """Places of the documents of which every score is there, and the scores [layer head]."""
        found = {}
        with self._file:
            for i, document in enumerate(documents):
                told = identity(document)
                rows = {name: self._row(self._key(name, told)) for name in self._keys}
                if all(row is not None for row in rows.values()):
                    found[i] = {name: _tensor(*row) for name, row in rows.items() if row is not None}
        return found

    def keep(self, documents: Sequence[tuple[Read, Mapping[str, Tensor]]]) -> None:
        """Write the numbers of the documents of one pass, all or none; then drop what is beyond the limit."""
        with self._file:
            for document, means in documents:
                told = identity(document)
                for name, value in means.items():
                    data = value.float().contiguous().numpy().tobytes()
                    row = (self._key(name, told), *value.shape, data, time.time())
                    self._file.execute("INSERT OR REPLACE INTO numbers VALUES (?, ?, ?, ?, ?)", row)
            self._drop()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _row(self, key: str) -> tuple[int, int, bytes] | None:
        self._file.execute("UPDATE numbers SET used = ? WHERE key = ?", (time.time(), key))
        row: tuple[int, int, bytes] | None = self._file.execute(
            "SELECT layers, heads, data FROM numbers WHERE key = ?", (key,)
        ).fetchone()
        return row

    def _key(self, name: str, told: str) -> str:
        return hashlib.sha256(f"{self._keys[name]} {told}".encode()).hexdigest()

    def _drop(self) -> None:
        # counted in pages, which SQLite knows: to sum the entries would read them all, after every document
        while (over := self._size() - LIMIT) > 0:
            n = self._file.execute("SELECT COUNT(*) FROM numbers").fetchone()[0]
            oldest = 1 + n * over // self._size()
            self._file.execute(
                "DELETE FROM numbers WHERE key IN (SELECT key FROM numbers ORDER BY used LIMIT ?)", (oldest,)
            )
            if n <= oldest:
                break

    def _size(self) -> int:
        pages, free, size = (
            self._file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


def _settings(model: Model) -> str:
    """What a network makes of its weights: the same ones read otherwise (fewer heads, another rotation) differ."""
    told = {name: value for name, value in model.net.config.to_dict().items() if not name.startswith("_")}
    told.pop("transformers_version", None)
    return json.dumps(told, sort_keys=True, default=str)


def _tensor(layers: int, heads: int, data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float32).view(layers, heads)


def _identity(value: Any) -> str:
    """A text that differs wherever what a score would answer may differ: its source, and all that is bound to it."""
    if isinstance(value, partial):
        return f"partial({_identity(value.func)}, {_identity(value.args)}, {_identity(value.keywords)})"
    if isinstance(value, FunctionType):
        value = inspect.unwrap(value)  # what wraps it, such as a check of its arguments, changes no number
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        bound = _identity([held, value.__defaults__, value.__kwdefaults__])
        return f"{value.__module__}.{value.__qualname__} {_source(value)} {bound}"
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(value.cpu().numpy().tobytes()).hexdigest()}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_identity(value[key])}' for key in sorted(value))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_identity, value))}]"
    if isinstance(value, (str, int, float, bool, type(None), torch.dtype)):
        return repr(value)
    raise TypeError(
        f"a score holds a {type(value).__name__}, of which a cache cannot tell whether it changed; "
        "survey without cache=…, or bind functions, tensors and plain values only"
    )


def _source(function: FunctionType) -> str:
    """Of a function in a package, the hash of that package's source, as it may call its neighbours; else its own."""
    package = sys.modules[function.__module__].__package__
    return _package_source(package) if package else _own_source(function)


@cache
def _package_source(package: str) -> str:
    folder = Path(str(sys.modules[package].__file__)).parent
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(folder.glob("*.py")))).hexdigest()


def _own_source(function: FunctionType) -> str:
    """Its own code and that of the functions it calls by name, where it was written: a notebook, a script."""
    code = inspect.getsource(function)
    called = [function.__globals__.get(name) for name in function.__code__.co_names]
    near = [f for f in called if isinstance(f, FunctionType) and f is not function]
    return hashlib.sha256("".join([code, *map(_identity, near)]).encode()).hexdigest()
