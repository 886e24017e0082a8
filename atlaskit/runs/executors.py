"""Where tasks run: `submit` gives a future, whichever machine is behind it. Nothing here schedules.

`Local` is a pool of threads that each watch one process. `Dask` hands tasks to a cluster's scheduler, `Slurm` to the
queue of a computing centre; both come with extras of their own, and both need an output folder that all machines see.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from .supervise import Place, own
from .task import Limits


@runtime_checkable
class Future(Protocol):
    """What every executor's futures have in common."""

    def done(self) -> bool:
        """Whether there is a result, or an error."""

    def result(self) -> Any:
        """The result; raises what was raised."""


@runtime_checkable
class Executor(Protocol):
    """What a batch asks of an executor."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        """Call a function somewhere, some time."""

    def together(self) -> AbstractContextManager[Any]:
        """Within it, submissions may be handed over as one."""

    def stop(self) -> None:
        """Begin nothing more, and end what is at work as far as that is possible."""


class Local:
    """So many processes of this machine at a time; where GPUs are named, each worker has one to itself."""

    def __init__(self, workers: int | None = None, *, gpus: Sequence[int | str] = ()) -> None:
        """Without a number: one worker for each GPU, or for each processor that we may use."""
        # macOS does not say which processors we may use
        ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = workers or len(gpus) or ours
        if gpus and len(gpus) < self.workers:
            raise ValueError(f"{self.workers} workers need as many GPUs, and {len(gpus)} are named")
        self._gpus: SimpleQueue[str | None] = SimpleQueue()
        for i in range(self.workers):
            self._gpus.put(str(gpus[i]) if gpus else None)
        self._stop = Event()
        self._places: list[Place] = []
        self._pool = ThreadPoolExecutor(self.workers, "atlaskit-run", self._prepare)

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        """Call it in the next thread that is free."""
        return self._pool.submit(function, *arguments)

    def together(self) -> AbstractContextManager[Any]:
        """Nothing is gained by it here."""
        return nullcontext()

    def stop(self) -> None:
        """End the processes at work, and drop what waits."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Local:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        for place in self._places:
            place.close()

    def _prepare(self) -> None:
        own.place = Place(self._gpus.get(), self._stop)
        self._places.append(own.place)


class Dask:
    """A cluster of dask.distributed: that of a running scheduler, or one of this machine's own, on loopback alone."""

    def __init__(self, scheduler: str | None = None, *, workers: int | None = None) -> None:
        """`scheduler` is an address such as tcp://10.0.0.1:8786. Raises ImportError with what to install."""
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise ImportError(
                "a Dask cluster needs dask.distributed, which is not installed: pip install 'atlaskit[dask]'"
            ) from error
        self._cluster = None
        if scheduler is None:
            self._cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
            )
        self._client = Client(self._cluster or scheduler, timeout=30)
        self._calls = self._client.get_executor(pure=False)

    @property
    def dashboard(self) -> str:
        """Where a browser sees the cluster at work."""
        return str(self._client.dashboard_link)

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        """Call it on the worker that the scheduler chooses; on another one, if that worker dies."""
        return self._calls.submit(_settled, function, *arguments)

    def together(self) -> AbstractContextManager[Any]:
        """Nothing is gained by it here."""
        return nullcontext()

    def stop(self) -> None:
        """Withdraw what waits; what a worker is at comes to its end, and is kept."""
        self._calls.shutdown(wait=False)

    def __enter__(self) -> Dask:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class Slurm:
    """Jobs of a SLURM queue, by submitit; its "local" and "debug" clusters run them here, to try things out."""

    def __init__(
        self, out: Path | str, limits: Limits, *, workers: int | None = None, cluster: str = "slurm", **options: Any
    ) -> None:
        """`options` are submitit's own, such as slurm_partition. Raises ImportError with what to install."""
        try:
            from submitit import AutoExecutor
        except ImportError as error:
            raise ImportError("SLURM needs submitit, which is not installed: pip install 'atlaskit[slurm]'") from error
        self._jobs: list[Any] = []
        self._executor = AutoExecutor(folder=Path(out) / "slurm", cluster=cluster)
        asked: dict[str, Any] = {"cpus_per_task": limits.threads}
        # ours ends a run first, and says why; without a limit a day, for submitit's own is five minutes
        asked["timeout_min"] = 24 * 60 if limits.seconds is None else int(limits.seconds * limits.attempts / 60) + 5
        if limits.memory is not None:
            asked["mem_gb"] = limits.memory / 1e9 + 1
        if workers is not None and cluster == "slurm":
            asked["slurm_array_parallelism"] = workers
        self._executor.update_parameters(**asked | options)

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        """A job of its own, or a part of an array."""
        job = self._executor.submit(function, *arguments)
        self._jobs.append(job)
        return job

    def together(self) -> AbstractContextManager[Any]:
        """One job array, so that a queue with a limit on jobs sees one."""
        return self._executor.batch()

    def stop(self) -> None:
        """Cancel what waits and what runs."""
        for job in self._jobs:
            if not job.done():
                job.cancel()

    def __enter__(self) -> Slurm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing of ours stays behind: the queue has the jobs."""


def _settled(function: Callable[..., Any], /, *arguments: Any) -> Any:
    """Call it in a thread of a cluster's worker, whose nursery stays for the next call and ends with the worker."""
    if not hasattr(own, "place"):
        own.place = Place()
    own.place.stop.clear()  # of a disk that was full for an earlier call
    return function(*arguments)
