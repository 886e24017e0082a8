"""One page over all notebooks of a run: failures first, every number beside its chance level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from atlaskit.records import Estimate

from .across import Effect, across, labels, text_of
from .aggregate import BATCH, Place, aggregate_rows, places, varied
from .findings import FILE, Run
from .jsonfile import Json, write_whole
from .outcome import Failure, Outcome

WIDTH = 180
"""Of the small picture of an interval, in pixels; 10 more on either side."""


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


def page(template: str, **content: object) -> str:
    """One of our templates, filled in; whatever is put in is escaped."""
    environment = Environment(
        loader=PackageLoader("atlaskit.runs", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": duration, "excerpt": excerpt}
    environment.globals |= {"picture": picture, "verdict": verdict}
    return environment.get_template(template).render(**content)


def number(value: float) -> str:
    """Four significant digits; a proper minus sign; nan in words."""
    if math.isnan(value):
        return "undefined"
    return (f"{value:.4g}" if math.isfinite(value) else "∞" if value > 0 else "-∞").replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if math.isnan(seconds):
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def excerpt(traceback: str, lines: int = 14) -> str:
    """The end of a traceback, where the reason stands."""
    kept = traceback.splitlines()[-lines:]
    return "\n".join(["…", *kept] if len(traceback.splitlines()) > lines else kept)


def verdict(found: Estimate) -> str:
    """Whether the intervals part ways, in a word; an undefined interval decides nothing."""
    if any(math.isnan(bound) for bound in (found.low, found.high, found.null_low, found.null_high)):
        return "undefined"
    return "yes" if found.beats_null else "no"


def picture(found: Estimate | Effect) -> dict[str, float] | None:
    """Where value and intervals lie on a line `WIDTH` wide; None where one of them is not finite."""
    places = {name: getattr(found, name) for name in ("value", "low", "high", "null_low", "null_high")}
    if not all(math.isfinite(place) for place in places.values()):
        return None
    least, span = min(places.values()), max(places.values()) - min(places.values())
    return {name: 10 + WIDTH * ((place - least) / span if span else 0.5) for name, place in places.items()}


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
