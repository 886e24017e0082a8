"""Many tasks through an executor: what is done stays done, one driver at a time, progress told, Ctrl-C heard."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from .executors import Executor, Future
from .jsonfile import write_whole
from .manifest import is_done
from .outcome import Failure
from .supervise import FULL, supervise
from .task import Ended, Task

TICK = 0.1


def drive(
    tasks: Sequence[Task],
    executor: Executor,
    *,
    progress: bool = True,
    heard: Callable[[Ended], None] | None = None,
    note: Callable[[], str] | None = None,
) -> dict[str, Ended]:
    """Do all tasks that are not done, and say how each ended, in the order given.

    `heard` is told of each task as it ends; what `note` says stands in the line of progress.

    All write below one output folder, which the caller holds (`alone_in`). An interrupt (Ctrl-C), or a full disk,
    stops: what had not finished is "stopped" then.
    """
    if not tasks:
        return {}
    out = tasks[0].out
    shutil.rmtree(out / "work", ignore_errors=True)  # what drivers that were killed have left
    ended = {task.name: Ended(task.name, "done") for task in tasks if is_done(task.done, task.key)}
    left = [task for task in tasks if task.name not in ended]
    with _Bar(len(tasks), len(ended), out, note if progress else None, shown=progress) as bar:
        waiting: dict[str, Future] = {}
        try:
            with executor.together() if left else nullcontext():
                waiting |= {task.name: executor.submit(supervise, task) for task in left}
            _collect(waiting, ended, bar, heard)
        except (KeyboardInterrupt, _DiskIsFull):
            executor.stop()
            _last(waiting, ended)
    return {task.name: ended.get(task.name, Ended(task.name, "stopped")) for task in tasks}


class _DiskIsFull(Exception):
    """Every further run would only fail."""


def _collect(
    waiting: dict[str, Future], ended: dict[str, Ended], bar: _Bar, heard: Callable[[Ended], None] | None
) -> None:
    """Take results as they come."""
    while waiting:
        for name in [name for name, future in waiting.items() if future.done()]:
            ended[name] = _result(name, waiting.pop(name))
            bar.count(ended[name])
            if heard is not None:
                heard(ended[name])
            failure = ended[name].failure
            if failure is not None and failure.message == FULL:
                raise _DiskIsFull
        bar.look()
        time.sleep(TICK)


def _last(waiting: dict[str, Future], ended: dict[str, Ended]) -> None:
    """What had finished while we stopped."""
    for name, future in waiting.items():
        if future.done():
            ended[name] = _result(name, future)


def _result(name: str, future: Future) -> Ended:
    try:
        found: Ended = future.result()
    except BaseException as error:  # CancelledError is none of Exception's; a cluster has errors of its own
        if "Cancel" in type(error).__name__:
            return Ended(name, "stopped")
        return Ended(name, "failed", Failure(type(error).__name__, str(error)))
    return found


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold an output folder, made if need be; RuntimeError where another driver has it.

    The lock is the operating system's: it goes with the process, however that ends.
    """
    out.mkdir(parents=True, exist_ok=True)
    holder = out / "driver.txt"
    lock = FileLock(out / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        by = holder.read_text() if holder.exists() else "another process"
        raise RuntimeError(f"{out} is in use by {by}; wait for it, or choose another folder") from error
    try:
        write_whole(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


class _Bar:
    """Done, running, failed, remaining: a line in a terminal, a widget in a notebook."""

    def __init__(self, total: int, done: int, out: Path, note: Callable[[], str] | None, *, shown: bool) -> None:
        live = sys.stderr.isatty() or "ipykernel" in sys.modules  # elsewhere each look is a line in a log
        self._bar = tqdm(
            total=total, initial=done, unit="run", disable=not shown, miniters=0, mininterval=0.5 if live else 30
        )
        self._states = Counter(done=done)
        self._work = out / "work"
        self._total = total
        self._note = note

    def count(self, ended: Ended) -> None:
        self._states[ended.state] += 1
        self._bar.update()

    def look(self) -> None:
        ended = self._states.total()
        running = min(len(list(self._work.glob("*"))), self._total - ended)
        self._bar.set_postfix_str(
            f"{self._states['done']} done, {running} running, {self._states['failed']} failed, "
            f"{self._total - ended - running} to go" + (f", {self._note()}" if self._note else ""),
            refresh=False,
        )
        self._bar.update(0)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.look()
        self._bar.close()
