"""Find the bundled models and check that they are the files we shipped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MODELS = Path(__file__).parent / "models"
_MANIFEST = _MODELS / "manifest.json"


def _read_manifest() -> dict[str, Any]:
    return json.loads(_MANIFEST.read_text()) if _MANIFEST.exists() else {}


BUNDLED: Mapping[str, str] = {name: entry["description"] for name, entry in _read_manifest().items()}
"""The bundled models: their names, and what each is in a sentence."""


def path(name: str) -> Path:
    """The folder of a bundled model. Raises ValueError for a name that is not in `BUNDLED`."""
    if name not in BUNDLED:
        raise ValueError(f"No bundled model is called {name!r}. There are: {', '.join(BUNDLED) or 'none yet'}.")
    return _MODELS / name


def verify(name: str) -> None:
    """Compare every file of a bundled model with the sizes and SHA-256 sums recorded when it was made.

    Raises FileNotFoundError for a file that is gone and ValueError for one that was cut or altered.
    """
    folder = path(name)
    for file, expected in _read_manifest()[name]["files"].items():
        _verify_file(folder / file, size=expected["size"], sha256=expected["sha256"], model=name)


def _verify_file(file: Path, *, size: int, sha256: str, model: str) -> None:
    mend = "Reinstall atlaskit (pip install --force-reinstall --no-deps atlaskit, or git checkout of that file)."
    if not file.exists():
        raise FileNotFoundError(f"The bundled model {model!r} lacks its file {file}. {mend}")
    found_size = file.stat().st_size
    if found_size != size:
        raise ValueError(
            f"The bundled model {model!r} is damaged: {file} has {found_size:,} bytes, {size:,} expected. {mend}"
        )
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(
            f"The bundled model {model!r} is damaged: {file} has SHA-256 {found}, {sha256} expected. {mend}"
        )
