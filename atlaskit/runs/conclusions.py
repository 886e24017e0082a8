"""What a notebook found, for a reader: a table where HTML is shown, a line for each finding where only text is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from atlaskit.records import Estimate

from .jsonfile import Json
from .pages import page


@dataclass(frozen=True, repr=False)
class Conclusions:
    """Findings, each Estimate beside its null. `null` says what that is, such as "ignorance"."""

    findings: Mapping[str, Estimate | Json]
    null: str

    def __str__(self) -> str:
        return "\n".join(f"{name}: {self._line(found)}" for name, found in self.findings.items())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (name, found, side(found)) if isinstance(found, Estimate) else (name, _plain(found, digits), "")
            for name, found in self.findings.items()
        ]
        return page("conclusions.html.j2", rows=rows, null=self.null, digits=digits)

    def _line(self, found: Estimate | Json) -> str:
        if not isinstance(found, Estimate):
            return _plain(found)
        value = f"{found.value:.3g} {found.unit} [{found.low:.3g}, {found.high:.3g}]"
        where = "undefined beside" if side(found) == "undefined" else side(found)
        return f"{value}, {where} {self.null} [{found.null_low:.3g}, {found.null_high:.3g}]; n = {found.n}"


def side(found: Estimate) -> str:
    """On which side of its null's interval an Estimate's lies, in words; an undefined one lies nowhere."""
    if any(math.isnan(bound) for bound in (found.low, found.high, found.null_low, found.null_high)):
        return "undefined"
    return "above" if found.low > found.null_high else "below" if found.high < found.null_low else "not apart from"


def digits(value: float) -> str:
    """Three significant digits, with a proper minus sign."""
    return "undefined" if math.isnan(value) else f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _plain(found: Json, write: Callable[[float], str] = "{:.3g}".format) -> str:
    if isinstance(found, list):
        return " to ".join(_plain(one, write) for one in found)
    return write(found) if isinstance(found, float) else str(found)
