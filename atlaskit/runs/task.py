"""A unit of work: what to call in a fresh process, what its result depends on, where that goes, and what it may use."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from .jsonfile import Json
from .outcome import Failure

State: TypeAlias = Literal["done", "failed", "stopped"]


@dataclass(frozen=True)
class Limits:
    """What one run may use. A run beyond `seconds` or `memory` (bytes, of all its processes together) is ended.

    A process that dies without a word, killed from outside, is given `attempts` in all; an error never is given two.
    """

    seconds: float | None = None
    memory: int | None = None
    threads: int = 1
    attempts: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ValueError(f"the limit {name} must be above 0, not {value}")


@dataclass(frozen=True)
class Task:
    """`work` names a function of this package, ``module:function``, called as ``function(folder, **arguments)``.

    Everything here is data, so a task can be sent to another machine that sees the same folders. `key` holds all that
    the result depends on. What the work leaves in its folder becomes ``out/done/<name>`` in one step, or does not.
    """

    name: str
    work: str
    arguments: Mapping[str, Json]
    key: Mapping[str, Json]
    out: Path
    limits: Limits = Limits()
    cwd: Path = field(default_factory=Path.cwd)

    @property
    def done(self) -> Path:
        """Where a finished run lies."""
        return self.out / "done" / self.name

    @property
    def failed(self) -> Path:
        """Where the last failed attempt is kept for whoever wants to know why."""
        return self.out / "failed" / self.name

    def staging(self) -> Path:
        """A new empty folder beside the results, on the same disk, that no other attempt shares."""
        folder = self.out / "work" / f"{self.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        return folder


@dataclass(frozen=True)
class Ended:
    """How a task ended. `seconds` are of the attempt that decided; 0 where an earlier batch had done it."""

    name: str
    state: State
    failure: Failure | None = None
    seconds: float = 0.0
    attempts: int = 0
