"""A process that has imported what every run needs, and makes a fresh process for each by forking.

Importing papermill, nbconvert and torch takes seconds; a fork of a process that did nothing but import them takes
milliseconds and is as fresh. Each of a driver's workers has a nursery of its own, so it can work through its requests
one after the other. The pipe by which it is asked is also its lifeline: when the driver dies, however it dies, the
pipe closes, and the run and its kernel end with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from .execution import NotebookError
from .jsonfile import Json, encode, write_json
from .outcome import Failure

FAILURE = "failure.json"
"""Why the work in a folder failed, written by the work itself."""

LOG = "worker.log"
"""What the process of a run wrote to stdout and stderr."""

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")}


def threads(number: int) -> dict[str, str]:
    """The environment that holds every numerical library to so many threads."""
    return dict.fromkeys(ONE_THREAD, str(number))


class Nursery:
    """The driver's end. Use it from one thread."""

    def __init__(self, module: str) -> None:
        """Start a process that imports `module` and waits for requests."""
        self.module = module
        self._process = subprocess.Popen(
            # -P: a file in the current folder must not stand in for a module
            [sys.executable, "-P", "-c", f"from atlaskit.runs.nursery import nurse; nurse({module!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # `poll` asks the pipe whether there is an answer, so none may wait in a buffer
            env=os.environ | ONE_THREAD,  # a process with threads cannot be forked safely
            start_new_session=True,  # Ctrl-C is the driver's to hear
        )

    def start(self, request: Mapping[str, Json]) -> int:
        """The process number of a fresh process at work on the request. Raises BrokenPipeError for a dead nursery."""
        assert self._process.stdin is not None
        rest = memoryview(json.dumps(dict(request)).encode() + b"\n")
        while rest:
            rest = rest[os.write(self._process.stdin.fileno(), rest) :]
        return int(self._line())

    def poll(self, seconds: float) -> int | None:
        """The exit code of the process at work, waiting so long for it; None while it runs.

        Raises BrokenPipeError where the nursery itself has died.
        """
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return int(self._line()) if ready else None

    def close(self) -> None:
        """End the nursery, and whatever it has at work."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise BrokenPipeError("the process that starts runs has died")
        return line


def nurse(module: str) -> None:
    """The nursery's own life: import, then fork for each request until the driver is gone."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what an import prints is no answer
    import_module(module)
    with contextlib.suppress(BrokenPipeError):  # the driver has died, and nobody waits for an answer
        for line in sys.stdin.buffer:
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                answers.close()
                os._exit(_work(request))
            answers.write(b"%d\n" % pid)
            _, status = os.waitpid(pid, 0)
            answers.write(b"%d\n" % os.waitstatus_to_exitcode(status))


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; nothing where it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(processes: list[psutil.Process]) -> None:
    """Kill them; psutil tells a process from a later one with the same number."""
    for one in processes:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue


def _work(request: Mapping[str, Any]) -> int:
    """One run, in the process that was made for it; the exit code."""
    os.setsid()
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    folder = Path(request["folder"])
    try:
        with (folder / LOG).open("wb", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        module, _, name = request["work"].partition(":")
        getattr(import_module(module), name)(folder, **request["arguments"])
    except BaseException as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):  # a full disk; the exit code says it, too
            write_json(folder / FAILURE, _described(error))
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _described(error: BaseException) -> Json:
    failure = Failure(type(error).__name__, str(error), traceback="".join(traceback.format_exception(error)))
    if isinstance(error, NotebookError) and error.outcome.failure is not None:
        failure = error.outcome.failure
    return encode(vars(failure), "failure")


def _end_with_the_driver() -> None:
    """The lifeline: nothing is ever written to it while a run is at work, so a read returns when the driver is gone."""
    os.read(0, 1)
    end(family(os.getpid())[1:])
    os.kill(os.getpid(), signal.SIGKILL)
