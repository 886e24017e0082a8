"""One page over all notebooks of a run: failures first, every number beside its chance level."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atlaskit.records import Estimate

from .across import across, labels, text_of
from .aggregate import BATCH, Place, aggregate_rows, places, varied
from .findings import FILE, Run
from .jsonfile import Json, write_whole
from .outcome import Failure, Outcome
from .pages import page


@dataclass(frozen=True)
class Entry:
    """What the page says about one notebook."""

    outcome: Outcome
    run: Run | None
    page: str | None

    @property
    def plain(self) -> dict[str, Json]:
        """Findings that are not Estimates."""
        assert self.run is not None
        return {name: found for name, found in self.run.findings.items() if not isinstance(found, Estimate)}


def report(out: Path | str) -> Path:
    """Write ``out/index.html`` over every notebook executed into `out`, or over the batch there, and return its path.

    The page is one file: it needs no network, no script, and follows the reader's light or dark setting.
    """
    folder = Path(out)
    if (folder / BATCH).exists():
        write_whole(folder / "index.html", _batch_page(folder))
        return folder / "index.html"
    entries = [_entry(found.parent) for found in sorted(folder.glob("*/*.ipynb")) if found.stem == found.parent.name]
    if not entries:
        raise FileNotFoundError(f"{folder} holds no executed notebook; run some first: atlaskit run --out {folder}")
    entries.sort(key=lambda entry: (entry.outcome.failure is None, entry.outcome.notebook))
    versions = next((e.run.versions for e in entries if e.run), {})
    write_whole(folder / "index.html", page("report.html.j2", entries=entries, versions=versions))
    return folder / "index.html"


def _entry(folder: Path) -> Entry:
    """An executed notebook's folder; one without its outcome was cut off before it could write it."""
    page = folder / f"{folder.name}.html"
    outcome = Outcome(folder.name, {}, started="", failure=Failure("Unfinished", "cut off, or still running"))
    if (folder / Outcome.FILE).exists():
        outcome = Outcome.read(folder)
    run = Run.load(folder) if outcome.failure is None and (folder / FILE).exists() else None
    return Entry(outcome, run, f"{folder.name}/{page.name}" if page.exists() else None)


def _batch_page(folder: Path) -> str:
    """Failures, then effects across seeds, notebook by notebook, then every run."""
    runs, differ = places(folder), varied(folder)
    effects = across(aggregate_rows(runs), differ)
    names = {name: labels(name, [one.parameters[name] for one in runs if name in one.parameters]) for name in differ}
    tables = []
    for notebook in dict.fromkeys(one.notebook for one in effects):
        own = [one for one in effects if one.notebook == notebook]
        tables.append((notebook, [name for name in own[0].setting if own[0].setting[name] is not None], own))

    def short(name: str, value: Json) -> str:
        return names[name].get(text_of(value), text_of(value))

    def page_of(place: Place) -> str | None:
        found = place.folder / "index.html" if place.state == "done" else place.page
        return found.relative_to(folder).as_posix() if found.exists() else None

    return page(
        "batch.html.j2",
        places=runs,
        varied=differ,
        short=short,
        key={label: text for known in names.values() for text, label in known.items() if text != label},
        tables=tables,
        page_of=page_of,
        notebook=(folder / "aggregate" / "aggregate.html").exists(),
    )
