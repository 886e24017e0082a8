"""Our pages: templates filled in, and how they write numbers, verdicts and the small picture of an interval."""

from __future__ import annotations

import math

from jinja2 import Environment, PackageLoader, StrictUndefined

from atlaskit.records import Estimate

from .across import Effect

WIDTH = 180
"""Of the small picture of an interval, in pixels; 10 more on either side."""


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
