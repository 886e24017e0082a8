"""A notebook's cells in a kernel of their own, by papermill; why they stopped; and the page that shows them.

Importing papermill, nbconvert and nbformat takes seconds. So nothing imports this module until a notebook is executed.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from .findings import FOLDER
from .jsonfile import Json, write_whole
from .notebook_html import to_html
from .outcome import Failure, Outcome

EXPECTED = (PapermillExecutionError, RuntimeError, TimeoutError)
"""What goes wrong inside a notebook; anything else is a fault of ours and is passed on as it is."""

LOG = "kernel.log"

START = 300
"""Seconds that a kernel is given to start, on a busy machine or from a slow disk."""

COLOUR_CODES = re.compile(r"\x1b\[[0-9;]*m")


def run_cells(source: Path, kept: Path, given: Mapping[str, Json], *, timeout: int) -> None:
    """Execute `source` with the given parameters into `kept`, which is whole up to the cell that is at work."""
    with tempfile.TemporaryDirectory(prefix="atlaskit-") as sockets:  # a short path: 103 characters are the most
        papermill.execute_notebook(
            str(source),
            str(kept),
            parameters=given,
            kernel_name="python3",  # the kernel of this very environment, whatever the notebook's metadata say
            kernel_manager_class=_kernel_in(kept.parent, sockets),
            progress_bar={"desc": source.stem, "disable": None, "leave": False},  # None: only in a terminal
            store_widget_state=False,  # it holds each figure twice, as it was first drawn, and needs a CDN to be seen
            start_timeout=START,
            execution_timeout=timeout,
        )


def _kernel_in(folder: Path, sockets: str) -> type[AsyncKernelManager]:
    """A kernel manager whose kernels log to `folder` and find it in their environment; ours is left alone."""

    class Manager(AsyncKernelManager):
        transport_encryption = "auto"  # a shared machine's other users can open loopback ports

        async def start_kernel(self, **kwargs: Any) -> None:  # type: ignore[override]  # the base declares it sync
            if hasattr(socket, "AF_UNIX"):
                # a port that was free when it was chosen can be another's when the kernel comes to bind it
                self.transport, self.ip = "ipc", f"{sockets}/kernel"
            with (folder / LOG).open("w") as log:  # what a dying process says, it says there and nowhere else
                await super().start_kernel(**kwargs, env=os.environ | {FOLDER: str(folder)}, stdout=log, stderr=log)

    return Manager


def explain(error: BaseException, kept: Path, timeout: int) -> Failure:
    """An error as a failure, with the cell where it happened."""
    match error:
        case PapermillExecutionError():
            traceback = COLOUR_CODES.sub("", "\n".join(error.traceback))
            return _at_last_cell(kept, Failure(error.ename, error.evalue, traceback=traceback))
        case TimeoutError():
            return _at_last_cell(kept, Failure("TimeoutError", f"it ran longer than {timeout} seconds"))
        case DeadKernelError() | RuntimeError(args=("Kernel died before replying to kernel_info",)):
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


def write_html(kept: Path, outcome: Outcome) -> None:
    """The page beside an executed notebook; where the kernel could not say why it ended, the page does."""
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
