"""One task from beginning to end: in a fresh process, within its limits, published whole or kept as a failure."""

from __future__ import annotations

import contextlib
import errno
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .jsonfile import Json, read_json, write_json
from .manifest import discard, is_done, publish
from .nursery import FAILURE, LOG, Nursery, end, family, threads
from .outcome import Failure
from .task import Ended, Limits, Task

TICK = 0.1
"""Seconds between two looks at the time and the memory that a run has taken."""

SILENT = ("Killed", "DeadKernelError")
"""Deaths without a word from the run itself, which may come from outside and deserve another attempt."""

FULL = "the disk is full"


@dataclass
class Place:
    """What a thread that supervises brings along: its nursery, the GPU that is its own, and word of a stop."""

    gpu: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    nursery: Nursery | None = None

    def nurse(self, module: str) -> Nursery:
        """This place's nursery, a new one where the last has died or imported something else."""
        if self.nursery is None or self.nursery.module != module:
            self.close()
            self.nursery = Nursery(module)
        return self.nursery

    def close(self) -> None:
        """End the nursery."""
        if self.nursery is not None:
            self.nursery.close()
        self.nursery = None


own = threading.local()
"""`own.place` is this thread's Place, where an executor gave it one."""


def supervise(task: Task) -> Ended:
    """Do the task, unless it is done already, and say how it ended. Never raises for what the task itself does."""
    place = getattr(own, "place", None)
    if place is not None:
        return _supervise(task, place)
    place = Place()  # on a cluster, whose threads are not ours to prepare
    try:
        return _supervise(task, place)
    finally:
        place.close()


def _supervise(task: Task, place: Place) -> Ended:
    for attempt in range(1, task.limits.attempts + 1):
        if place.stop.is_set():
            return Ended(task.name, "stopped", attempts=attempt - 1)
        if is_done(task.done, task.key):
            return Ended(task.name, "done")
        began = time.monotonic()
        try:
            failure = _attempt(task, place)
        except OSError as error:
            failure = Failure("OSError", FULL if error.errno == errno.ENOSPC else str(error))
        seconds = time.monotonic() - began
        if failure is None:
            return Ended(task.name, "done", seconds=seconds, attempts=attempt)
        if failure.name == "Stopped":
            return Ended(task.name, "stopped", seconds=seconds, attempts=attempt)
        if failure.message == FULL:
            place.stop.set()  # our neighbours would only fail as well
        if failure.name not in SILENT:
            break
    return Ended(task.name, "failed", failure, seconds, attempt)


def _attempt(task: Task, place: Place) -> Failure | None:
    """One attempt, and its folder put where it belongs; None where it succeeded."""
    staging = task.staging()
    try:
        failure = _run(task, staging, place)
        if failure is None:
            publish(staging, task)
        elif failure.name != "Stopped":
            with contextlib.suppress(OSError):  # where the disk is full there is no room to say so
                write_json(staging / FAILURE, vars(failure))
                discard(task.failed, task.out)
                task.failed.parent.mkdir(exist_ok=True)
                staging.rename(task.failed)
        return failure
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _run(task: Task, staging: Path, place: Place) -> Failure | None:
    """The process of one attempt, watched until it has ended."""
    environment = threads(task.limits.threads) | ({} if place.gpu is None else {"CUDA_VISIBLE_DEVICES": place.gpu})
    request: Mapping[str, Json] = {
        "work": task.work, "arguments": dict(task.arguments), "folder": str(staging), "cwd": str(task.cwd),
        "environment": environment,
    }  # fmt: skip
    nursery = place.nurse(task.work.partition(":")[0])
    code, over = -9, None
    kin: list[psutil.Process] = []
    try:
        pid = nursery.start(request)
        code, over, kin = _watch(pid, nursery, _limit(task.limits, place.stop))
    except BrokenPipeError:
        place.close()
    finally:
        end(kin)  # a kernel whose papermill was killed
    if over is not None:
        return over
    if code == 0:
        return None
    if (staging / FAILURE).exists():
        return _reported(staging)
    if _full(staging):
        return Failure("OSError", FULL)
    return Failure(
        "Killed", f"its process was killed (exit code {code}); most often, memory ran out", traceback=_log(staging)
    )


def _watch(
    pid: int, nursery: Nursery, exceeded: Callable[[list[psutil.Process]], Failure | None]
) -> tuple[int, Failure | None, list[psutil.Process]]:
    """Exit code, the limit that was exceeded, and the processes that were last seen at work."""
    kin: list[psutil.Process] = []
    while (code := nursery.poll(TICK)) is None:
        kin = family(pid) or kin
        if (over := exceeded(kin)) is not None:
            end(kin)
            while (code := nursery.poll(1.0)) is None:
                end(family(pid))
            return code, over, kin
    return code, None, kin


def _limit(limits: Limits, stop: threading.Event) -> Callable[[list[psutil.Process]], Failure | None]:
    """A look at what the processes have taken since now."""
    began = time.monotonic()

    def exceeded(kin: list[psutil.Process]) -> Failure | None:
        if stop.is_set():
            return Failure("Stopped", "stopped by hand")
        if limits.seconds is not None and time.monotonic() - began > limits.seconds:
            return Failure("TimeLimit", f"it ran longer than {limits.seconds:g} seconds and was ended")
        if limits.memory is not None and (held := sum(map(_resident, kin))) > limits.memory:
            return Failure(
                "MemoryLimit",
                f"it held {held / 1e9:.2f} GB of the {limits.memory / 1e9:.2f} GB it may use and was ended",
            )
        return None

    return exceeded


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _reported(staging: Path) -> Failure:
    """What the work itself said of its failure."""
    try:
        failure = Failure(**read_json(staging / FAILURE))
    except (ValueError, TypeError):
        return Failure("Killed", "it died while it was saying why it failed")
    return Failure("OSError", FULL) if f"Errno {errno.ENOSPC}]" in failure.message else failure


def _full(staging: Path) -> bool:
    return shutil.disk_usage(staging).free == 0


def _log(staging: Path) -> str:
    with contextlib.suppress(OSError):
        return (staging / LOG).read_text(errors="replace")
    return ""
