"""One notebook, executed by papermill in a fresh kernel, with everything it leaves behind in one folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from .export import to_html
from .findings import ARRAYS, FILE, FOLDER, Run
from .jsonfile import Json, encode, write_whole
from .outcome import Failure, Outcome
from .parameters import check_parameters

EXPECTED = (PapermillExecutionError, RuntimeError, TimeoutError)
"""What goes wrong inside a notebook; anything else is a fault of ours and is passed on as it is."""

LOG = "kernel.log"

COLOUR_CODES = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(RuntimeError):
    """A notebook that did not reach its end: where, why, and where what it did is kept."""

    def __init__(self, outcome: Outcome, kept: Path) -> None:
        super().__init__(f"{outcome.notebook} failed in {outcome.failure}\nWhat it did until then is kept in {kept}")
        self.outcome = outcome
        self.kept = kept


def execute(
    notebook: Path | str, out: Path | str, parameters: Mapping[str, Json] | None = None, *, timeout: int = 600
) -> Run:
    """Run a notebook from top to bottom and return what it found.

    Parameters are checked before anything starts: ValueError lists all that is wrong. ``out/<notebook>/`` then
    receives the executed notebook, the same as HTML, run.json, outcome.json, and kernel.log with what the process
    itself had to say; what an earlier execution left there is removed first. An error in a cell, a cell slower than
    `timeout` seconds, a dead kernel, or a notebook that does not save its Run raises NotebookError, and everything up
    to there is kept.
    """
    source = Path(notebook)
    given = dict(parameters or {})
    values = check_parameters(source, given)
    folder = Path(out).resolve() / source.stem
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / source.name
    for stale in (kept, kept.with_suffix(".html"), folder / LOG, folder / FILE, folder / ARRAYS, folder / Outcome.FILE):
        stale.unlink(missing_ok=True)

    outcome = Outcome(source.stem, values, started=datetime.now(UTC).isoformat(timespec="seconds"))
    clock = time.monotonic()
    cause: BaseException | None = None
    try:
        _run_cells(source, kept, given, timeout=timeout)
        _check_saved(folder, source.stem, values)
    except BaseException as error:  # whatever it was, the record must not say that the notebook finished
        outcome.failure = _explain(error, kept, timeout)
        if not isinstance(error, EXPECTED):
            raise
        cause = error
    finally:
        outcome.seconds = time.monotonic() - clock
        if kept.exists():
            _write_html(kept, outcome)
        outcome.write(folder)
    if cause is not None:
        raise NotebookError(outcome, kept) from cause
    return Run.load(folder)


def _run_cells(source: Path, kept: Path, given: Mapping[str, Json], *, timeout: int) -> None:
    papermill.execute_notebook(
        str(source),
        str(kept),
        parameters=given,
        kernel_name="python3",  # the kernel of this very environment, whatever the notebook's metadata say
        kernel_manager_class=_kernel_in(kept.parent),
        progress_bar={"desc": source.stem, "disable": None, "leave": False},  # None: only in a terminal
        store_widget_state=False,  # it holds each figure twice, as it was first drawn, and needs a CDN to be seen
        execution_timeout=timeout,
    )


def _kernel_in(folder: Path) -> type[AsyncKernelManager]:
    """A kernel manager whose kernels log to `folder` and find it in their environment; ours is left alone."""

    class Manager(AsyncKernelManager):
        transport_encryption = "auto"  # a shared machine's other users can open our loopback ports

        async def start_kernel(self, **kwargs: Any) -> None:  # type: ignore[override]  # the base declares it sync
            with (folder / LOG).open("w") as log:  # what a dying process says, it says there and nowhere else
                await super().start_kernel(**kwargs, env=os.environ | {FOLDER: str(folder)}, stdout=log, stderr=log)

    return Manager


def _check_saved(folder: Path, notebook: str, values: Mapping[str, Json]) -> None:
    """What the notebook saved must be about this execution."""
    if not (folder / FILE).exists():
        raise RuntimeError(f"{notebook} saved no findings; let its last cell be run.save()")
    saved = Run.load(folder)
    wrong = {
        name: saved.parameters.get(name, "missing")
        for name, value in values.items()
        if encode(saved.parameters.get(name), name) != encode(value, name)  # as JSON, where nan equals nan
    }
    if saved.notebook != notebook or wrong:
        raise RuntimeError(
            f"{notebook} saved a Run that is not this one: it names the notebook {saved.notebook!r} and differs in "
            f"the parameters {wrong or 'not at all'}; make it with Run({notebook!r}, {{every parameter}})"
        )


def _explain(error: BaseException, kept: Path, timeout: int) -> Failure:
    match error:
        case PapermillExecutionError():
            traceback = COLOUR_CODES.sub("", "\n".join(error.traceback))
            return _at_last_cell(kept, Failure(error.ename, error.evalue, traceback=traceback))
        case TimeoutError():
            return _at_last_cell(kept, Failure("TimeoutError", f"it ran longer than {timeout} seconds"))
        case DeadKernelError():
            log = (kept.parent / LOG).read_text(errors="replace")
            why = "its kernel died; most often, memory ran out"
            return _at_last_cell(kept, Failure("DeadKernelError", why, traceback=log))
        case KeyboardInterrupt():
            return _at_last_cell(kept, Failure("KeyboardInterrupt", "stopped by hand"))
    return Failure(type(error).__name__, str(error))


def _at_last_cell(kept: Path, failure: Failure) -> Failure:
    """The failure, placed at the last code cell that papermill started."""
    cells = [cell for cell in _read(kept).cells if cell.cell_type == "code" and cell.source.strip()]
    started = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    if started:
        failure.cell, failure.source, failure.anchor = len(started), started[-1].source, started[-1].get("id", "")
    return failure


def _write_html(kept: Path, outcome: Outcome) -> None:
    notebook = _read(kept)
    if outcome.failure and outcome.failure.name not in _shown(notebook):  # the kernel could not say why; we do
        for cell in notebook.cells:
            if cell.get("id") == outcome.failure.anchor:
                name, message = outcome.failure.name, outcome.failure.message
                shown = nbformat.v4.new_output("error", ename=name, evalue=message, traceback=[str(outcome.failure)])
                cell.outputs.append(shown)
    write_whole(kept.with_suffix(".html"), to_html(notebook, outcome.notebook))


def _shown(notebook: NotebookNode) -> set[str]:
    """The names of the errors that stand in the notebook itself."""
    return {output.get("ename", "") for cell in notebook.cells for output in cell.get("outputs", [])}


def _read(kept: Path) -> NotebookNode:
    return nbformat.read(kept, as_version=4)
