"""A finished run's last file: what it depends on and the hash of every other file. Without it nothing is finished.

Nothing here reads a clock: neither dates of files nor the time of day decide what is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from .jsonfile import Json, read_json, write_json
from .task import Task

FILE = "manifest.json"
FORMAT = "atlaskit manifest 1"


def digest(content: Json) -> str:
    """SHA-256 of JSON, in the one way of writing it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_manifest(folder: Path, key: Mapping[str, Json]) -> None:
    """Write the manifest over what lies in the folder."""
    about = {"format": FORMAT, "key": dict(key), "files": hashes(folder)}
    write_json(folder / FILE, about | {"digest": digest(about)})


def is_done(folder: Path, key: Mapping[str, Json]) -> bool:
    """Whether a finished run with this very key lies in the folder, whole to the last byte."""
    try:
        content = read_json(folder / FILE)
        claimed = content.pop("digest")
        return (
            claimed == digest(content)
            and content["format"] == FORMAT
            and content["key"] == dict(key)
            and content["files"] == hashes(folder)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def publish(staging: Path, task: Task) -> None:
    """Let a staged result appear under its name in one step, beneath a manifest written last.

    Whoever comes second with the same result finds the first one whole and drops its own.
    """
    write_manifest(staging, task.key)
    task.done.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            staging.rename(task.done)  # refused where a folder with anything in it has the name
        except OSError:
            if is_done(task.done, task.key):
                shutil.rmtree(staging)
                return
            if not task.done.exists():
                raise
            discard(task.done, task.out)
        else:
            shutil.rmtree(task.failed, ignore_errors=True)
            _flush(task.done.parent)
            return


def discard(folder: Path, out: Path) -> None:
    """Remove a folder; half of it is never to be seen under its name."""
    aside = out / "work" / f"discarded.{uuid.uuid4().hex}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def hashes(folder: Path) -> dict[str, str]:
    """Every file beneath the folder but its manifest: relative path -> SHA-256."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / FILE]
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(folder: Path) -> None:
    """Let the rename reach the disk before anyone is told of it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
