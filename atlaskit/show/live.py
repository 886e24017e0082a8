"""Where ipywidgets meet figures; the only file that does."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure
from jupyter_bokeh import BokehModel

from atlaskit.show.labels import plain

UNSEEN = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)"


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
    return widgets.VBox([*controls.values(), status, Live(fig)])


def _status(text: str, *, seen: bool) -> str:
    style = "" if seen else f' style="{UNSEEN}"'
    return f'<div role="status" aria-live="polite"{style}>{html.escape(text)}</div>'
