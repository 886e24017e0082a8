"""Lines over one variable: training curves, emergence, scaling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from bokeh.models import CDSView, ColumnDataSource, CustomJSFilter, CustomJSHover, HoverTool, LegendItem
from bokeh.plotting import figure
from jaxtyping import Float, Real

from atlaskit.show import levels, theme
from atlaskit.show.grid import NUMBER
from atlaskit.show.labels import plain
from atlaskit.show.levels import Array

DASHES = ("solid", "dashed", "dotdash", "dotted", "dashdot")

ALONE = """
const y = source.data[name], gap = i => !(i in y && Number.isFinite(y[i]));
return Array.from(y, (_, i) => !gap(i) && gap(i - 1) && gap(i + 1));
"""
"""Which points lie between two gaps. No line touches them, so without a dot they would not be seen."""


def curve_columns(
    x: Real[Array, " point"],
    series: Mapping[str, Float[Array, " point"]],
    *,
    intervals: Mapping[str, tuple[Float[Array, " point"], Float[Array, " point"]]] | None = None,
) -> dict[str, np.ndarray]:
    """Columns x, y0, y1 …, and low0, high0 … for the series that have an interval."""
    columns = {"x": levels.as_array(x).astype(np.float64)}
    order = {name: i for i, name in enumerate(series)}
    for name, i in order.items():
        columns[f"y{i}"] = levels.as_array(series[name]).astype(np.float64)
    for name, (low, high) in (intervals or {}).items():
        if name not in order:
            raise ValueError(f"there is an interval for {name!r}, but no such series; the series are {list(series)}")
        columns[f"low{order[name]}"] = levels.as_array(low).astype(np.float64)
        columns[f"high{order[name]}"] = levels.as_array(high).astype(np.float64)
    return columns


def curve(
    x: Real[Array, " point"],
    series: Mapping[str, Float[Array, " point"]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    caption: str = "",
    intervals: Mapping[str, tuple[Float[Array, " point"], Float[Array, " point"]]] | None = None,
    x_scale: Literal["linear", "log"] = "linear",
) -> figure:
    """One line per series, told apart by dash as well as colour; a band where there is an interval; gaps at nan."""
    if not 1 <= len(series) <= len(theme.SERIES):
        raise ValueError(
            f"{len(series)} series: between 1 and {len(theme.SERIES)} can be told apart by every reader. "
            "Draw several figures."
        )
    named = [plain(name) for name in series]
    data = ColumnDataSource(curve_columns(x, series, intervals=intervals), name="atlaskit", tags=named)
    fig = figure(
        x_axis_label=plain(x_label),
        y_axis_label=plain(y_label),
        x_axis_type=x_scale,
        frame_width=560,
        frame_height=320,
        tools="pan,wheel_zoom,box_zoom,reset,save",
    )
    number, items = CustomJSHover(code=NUMBER), []
    for i, (name, colour, dash) in enumerate(zip(series, theme.SERIES, DASHES, strict=False)):
        if f"low{i}" in data.data:
            fig.varea("x", f"low{i}", f"high{i}", source=data, fill_color=colour, fill_alpha=0.25)
        line = fig.line("x", f"y{i}", source=data, line_color=colour, line_dash=dash, line_width=2.5)
        lone = CDSView(filter=CustomJSFilter(args={"name": f"y{i}"}, code=ALONE))
        dots = fig.scatter("x", f"y{i}", source=data, view=lone, size=6, color=colour)
        items.append(LegendItem(label={"value": plain(name)}, renderers=[line]))
        rows = [f"<b>{theme.hover_text(name)}</b>", f"{theme.hover_text(x_label)}: @x{{custom}}"]
        rows.append(f"{theme.hover_text(y_label)}: @y{i}{{custom}}")
        formatters = {"@x": number, f"@y{i}": number}
        if f"low{i}" in data.data:
            rows.append(f"interval: @low{i}{{custom}} … @high{i}{{custom}}")
            formatters |= {f"@low{i}": number, f"@high{i}": number}
        fig.add_tools(
            HoverTool(renderers=[line, dots], tooltips=theme.tooltip(*rows), formatters=formatters, visible=i == 0)
        )
    fig.add_layout(theme.legend(items), "below")
    return theme.dress(fig, title=title, caption=caption)
