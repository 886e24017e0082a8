"""One notebook, executed by papermill in a fresh kernel, with everything it leaves behind in one folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from .findings import ARRAYS, FILE, Run
from .jsonfile import Json, encode
from .outcome import Outcome
from .parameters import check_parameters


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
    from . import cells  # takes seconds, for which a notebook that only records what it found need not wait

    folder = Path(out).resolve() / source.stem
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / source.name
    for name in (kept.name, f"{source.stem}.html", cells.LOG, FILE, ARRAYS, Outcome.FILE):
        (folder / name).unlink(missing_ok=True)

    outcome = Outcome(source.stem, values, started=datetime.now(UTC).isoformat(timespec="seconds"))
    clock = time.monotonic()
    cause: BaseException | None = None
    try:
        cells.run_cells(source, kept, given, timeout=timeout)
        _check_saved(folder, source.stem, values)
    except BaseException as error:  # whatever it was, the record must not say that the notebook finished
        outcome.failure = cells.explain(error, kept, timeout)
        if not isinstance(error, cells.EXPECTED):
            raise
        cause = error
    finally:
        outcome.seconds = time.monotonic() - clock
        if kept.exists():
            cells.write_html(kept, outcome)
        outcome.write(folder)
    if cause is not None:
        raise NotebookError(outcome, kept) from cause
    return Run.load(folder)


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
