"""Estimates beside what chance gives."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from bokeh.models import (
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    FixedTicker,
    HoverTool,
    Range1d,
)
from bokeh.plotting import figure

from atlaskit.records import Estimate
from atlaskit.show import theme
from atlaskit.show.grid import NUMBER
from atlaskit.show.labels import plain, short


def interval_columns(estimates: Mapping[str, Estimate]) -> dict[str, list[Any]]:
    """One row per estimate, the first on top."""
    if not estimates:
        raise ValueError("no estimates to draw: pass at least one, as {name: Estimate}")
    units = {estimate.unit for estimate in estimates.values()}
    if len(units) > 1:
        raise ValueError(f"one axis has one unit; these estimates have {sorted(units)}. Draw one figure for each unit.")
    rows = list(estimates.values())
    return {
        "row": list(range(len(rows))),
        "name": [plain(name) for name in estimates],
        "label": [
            short(plain(name), 38) + (" (undefined)" if isnan(estimate.value) else "")
            for name, estimate in estimates.items()
        ],
        **{field: [getattr(row, field) for row in rows] for field in ("value", "low", "high", "null_low", "null_high")},
        "n": [row.n for row in rows],
        "p": [row.p for row in rows],
        "marker": ["diamond" if row.beats_null else "circle" for row in rows],
        "fill": [theme.SERIES[0] if row.beats_null else theme.BLANK for row in rows],
        "verdict": ["apart from its null" if row.beats_null else "not told apart from its null" for row in rows],
    }


def intervals(estimates: Mapping[str, Estimate], *, title: str, caption: str = "", over: str = "documents") -> figure:
    """Values with their intervals over documents, each on the grey band that its null gives.

    `over` says what the intervals are over, and `n` counts, where it is something else.

    A filled diamond lies apart from its null, on either side, an open circle does not: shape says it as well as colour.
    """
    columns = interval_columns(estimates)
    n = len(estimates)
    data = ColumnDataSource(columns, name="atlaskit")
    fig = figure(
        x_axis_label=plain(next(iter(estimates.values())).unit),
        y_range=Range1d(n - 0.4, -0.6),
        frame_width=520,
        frame_height=max(90, 30 * n),
        tools="pan,xwheel_zoom,reset,save",
    )
    line = theme.SERIES[0]
    fig.hbar(
        "row", left="null_low", right="null_high", height=0.62, source=data, fill_color=theme.NEUTRAL,
        fill_alpha=0.35, line_color=theme.NEUTRAL, line_width=2,
    )  # fmt: skip
    fig.segment("low", "row", "high", "row", source=data, line_color=line, line_width=3)
    dots = fig.scatter(
        "value", "row", marker="marker", size=13, source=data, line_color=line, line_width=2, fill_color="fill"
    )
    number = CustomJSHover(code=NUMBER)
    tips = theme.tooltip(
        "<b>@name</b>",
        "value @value{custom}, interval @low{custom} … @high{custom}",
        "null @null_low{custom} … @null_high{custom}",
        f"@verdict; {over}: @n; p: @p{{custom}}",
    )
    fields = ("value", "low", "high", "null_low", "null_high", "p")
    fig.add_tools(
        HoverTool(renderers=[dots], tooltips=tips, formatters={f"@{field}": number for field in fields}, mode="hline")
    )
    fig.yaxis.ticker = FixedTicker(ticks=list(range(n)))
    fig.yaxis.formatter = CustomJSTickFormatter(args={"source": data}, code="return source.data.label[tick] ?? ''")
    fig.ygrid.visible = False
    theme.key(
        fig,
        {
            "value apart from its null": ("diamond", line),
            "value not told apart": ("circle", theme.BLANK),
            f"interval over {over}": ("dash", line),
            "what the null gives": ("square", theme.NEUTRAL),
        },
    )
    return theme.dress(fig, title=title, caption=caption)
