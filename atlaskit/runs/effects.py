"""Effects across seeds, for a reader: a table where HTML is shown, a line for each where only text is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .across import Effect
from .pages import page


@dataclass(frozen=True, repr=False)
class EffectTable:
    """Effects, each with its setting in words."""

    rows: Sequence[tuple[Effect, str]]

    def __str__(self) -> str:
        return "\n".join(
            f"{one.finding} ({setting}): effect {one.effect:.3g} {one.unit} "
            f"[{one.effect_low:.3g}, {one.effect_high:.3g}], g {one.g:.3g}, {one.seeds} seeds"
            for one, setting in self.rows
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return page("effects.html.j2", rows=self.rows)
