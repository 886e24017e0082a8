"""Where ipywidgets meet figures: a figure bound to controls, and sentences whose words are exchanged."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure
from jupyter_bokeh import BokehModel

from atlaskit.records import Counterfactual
from atlaskit.show import theme
from atlaskit.show.grid import head_columns, head_grid
from atlaskit.show.labels import plain
from atlaskit.show.swap import swap, verdict

UNSEEN = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)"
HEADS = "What of it goes through each head"


class Live(BokehModel):
    """A figure that stays connected to the kernel, and after a page reload shows what it is now.

    jupyter_bokeh 4.1 keeps the picture of the moment it was made; hence its private names here, and the pin in
    pyproject.toml.
    """

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """The state for a page that asks: drawn anew when it asks for all of it."""
        if key is None and getattr(self, "comm", None) is not None:
            self._trait_values["render_bundle"] = self._model_to_traits(self._model)
        return super().get_state(key, drop_defaults)


def bind(
    fig: figure, source: ColumnDataSource, columns: Callable[..., Mapping[str, Any]], **controls: Any
) -> widgets.VBox:
    """Refill `source` from `columns(**values)`, now and whenever a control changes.

    A key "title" among the columns renames the figure, and is spoken to screen readers. A request that is refused
    (ValueError) is explained under the controls and the last good picture stays; anything else is a bug and propagates.
    """
    return bound(fig, source, columns, **controls)[0]


def bound(
    fig: figure, source: ColumnDataSource, columns: Callable[..., Mapping[str, Any]], **controls: Any
) -> tuple[widgets.VBox, Callable[[], None]]:
    """As `bind`, and what refills the figure when something else than its controls has changed."""
    status = widgets.HTML()

    def refill(_change: object = None) -> None:
        try:
            filled = dict(columns(**{name: control.value for name, control in controls.items()}))
        except ValueError as error:
            status.value = _status(str(error), seen=True)
            return
        title = filled.pop("title", None)
        source.data = filled
        if title is not None:
            fig.title.text = plain(title)
        status.value = _status(title or "", seen=False)

    for name, control in controls.items():
        if not control.description:
            control.description = name  # a control without a name is silent to a screen reader
        control.observe(refill, names="value")
    refill()
    return widgets.VBox([*controls.values(), status, Live(fig)]), refill


def explore_swaps(
    look: Callable[[str, str], Counterfactual],
    swaps: Callable[[str, str], Mapping[str, str]],
    *,
    sentence: str,
    size: tuple[int, int],
    limit: float,
) -> widgets.VBox:
    """Type a sentence, pick what is exchanged, and see both token by token, and the part of every head.

    `swaps(sentence, own)` gives the counterparts by name, `look(sentence, counterpart)` what the model makes of them.
    `size` is the model's layers and heads, and `limit` where colours end, in nats. A refusal (ValueError) is explained
    under the controls and the last good picture stays; sentences that cannot be mediated leave the heads hatched.
    """
    wide = {"width": "min(100%, 50em)"}
    typed = widgets.Text(value=sentence, description="sentence", continuous_update=False, layout=wide)
    choice = widgets.Dropdown(description="exchange", layout=wide)
    own = widgets.Text(description="or your own", placeholder="woman/man, she/he", continuous_update=False, layout=wide)
    status, strip = widgets.HTML(), widgets.HTML(layout=wide)
    nothing = np.full(size, np.nan)
    fig = head_grid(nothing, title=HEADS, unit="nats", limits=(-limit, limit), caption="Red: carries the preference.")

    def refill(_change: object = None) -> None:
        try:
            seen = look(typed.value, choice.value)
        except ValueError as error:
            status.value = _status(str(error), seen=True)
            return
        strip.value = swap(seen, limit=limit)
        theme.source(fig).data = head_columns(nothing if seen.carried is None else seen.carried)
        status.value = _status(seen.not_mediated or verdict(seen), seen=bool(seen.not_mediated))

    def offer(_change: object = None) -> None:
        try:
            found = swaps(typed.value, own.value)
        except ValueError as error:
            status.value = _status(str(error), seen=True)
            return
        choice.unobserve(refill, names="value")  # two steps, to be looked at once
        choice.options = list(found.items())
        choice.index = 0
        choice.observe(refill, names="value")
        refill()

    choice.observe(refill, names="value")
    for control in (typed, own):
        control.observe(offer, names="value")
    offer()
    return widgets.VBox([typed, choice, own, status, strip, Live(fig)])


def _status(text: str, *, seen: bool) -> str:
    style = "" if seen else f' style="{UNSEEN}"'
    return f'<div role="status" aria-live="polite"{style}>{html.escape(text)}</div>'
