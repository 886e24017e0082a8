"""A layer × head grid: one number per head, coloured."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource, CustomJSHover, HoverTool, LinearColorMapper, SingleIntervalTicker
from bokeh.plotting import figure
from jaxtyping import Bool, Float

from atlaskit.show import levels, theme
from atlaskit.show.levels import Array

NUMBER = "return Number.isFinite(value) ? String(Number(value.toPrecision(3))).replace('-', '−') : 'undefined'"


def head_columns(
    scores: Float[Array, "layer head"],
    *,
    null: Float[Array, "layer head"] | None = None,
    beats_null: Bool[Array, "layer head"] | None = None,
) -> dict[str, np.ndarray]:
    """One row per head; nan where the score is undefined."""
    values = levels.as_array(scores)
    layer, head = np.indices(values.shape)
    chance = np.full(values.shape, np.nan) if null is None else levels.as_array(null)
    marked = np.zeros(values.shape, bool) if beats_null is None else levels.as_array(beats_null)
    return {
        "layer": layer.ravel(),
        "head": head.ravel(),
        "score": values.ravel().astype(np.float32),
        "null": chance.ravel().astype(np.float32),
        # nan hides a mark: every column is as long as the others.
        "void": np.where(np.isfinite(values), np.nan, layer).ravel().astype(np.float32),
        "dot": np.where(marked & np.isfinite(values), layer, np.nan).ravel().astype(np.float32),
    }


def head_grid(
    scores: Float[Array, "layer head"],
    *,
    title: str,
    unit: str,
    limits: tuple[float, float],
    caption: str = "",
    null: Float[Array, "layer head"] | None = None,
    beats_null: Bool[Array, "layer head"] | None = None,
) -> figure:
    """A layer × head grid coloured by score; hatched grey is undefined, never zero.

    `limits` are stated by the caller, so that two grids can be compared by eye; limits around zero must be symmetric
    and give a diverging palette. `null` is shown on hover, and `beats_null` marks heads by a dot.
    """
    low, high = theme.checked(limits)
    n_layer, n_head = scores.shape
    cell = int(np.clip(560 / max(n_layer, n_head), 12, 46))
    fig = figure(
        x_axis_label="head",
        y_axis_label="layer",
        x_range=(-0.5, n_head - 0.5),
        y_range=(n_layer - 0.5, -0.5),
        frame_width=max(cell * n_head, 160),
        frame_height=max(cell * n_layer, 80),
        tools="tap,reset,save",
    )
    data = ColumnDataSource(head_columns(scores, null=null, beats_null=beats_null), name="atlaskit")
    mapper = LinearColorMapper(
        palette=theme.DIVERGING if low < 0 < high else theme.SEQUENTIAL, low=low, high=high, nan_color=theme.UNDEFINED
    )
    cells = fig.rect(
        "head",
        "layer",
        width=0.94,
        height=0.94,
        source=data,
        fill_color={"field": "score", "transform": mapper},
        line_color=None,
        nonselection_alpha=1.0,
        selection_line_color=theme.SERIES[1],
        selection_line_width=3,
    )
    fig.rect(
        "head", "void", width=0.94, height=0.94, source=data, line_color=None, nonselection_alpha=1.0, **theme.HATCH
    )
    if beats_null is not None:
        # White in black is seen on any colour of either palette.
        fig.scatter(
            "head",
            "dot",
            size=max(4, cell // 5),
            source=data,
            fill_color="white",
            line_color="black",
            nonselection_alpha=1.0,
        )
    lines = ["head @layer.@head", f"{theme.hover_text(unit)}: @score{{custom}}"]
    if null is not None:
        lines.append("chance: @null{custom}")
    number = CustomJSHover(code=NUMBER)
    fig.add_tools(
        HoverTool(renderers=[cells], tooltips=theme.tooltip(*lines), formatters={"@score": number, "@null": number})
    )
    for axis, n in ((fig.xaxis, n_head), (fig.yaxis, n_layer)):
        axis.ticker = SingleIntervalTicker(interval=1 if n <= 24 else 4, num_minor_ticks=0)
    fig.grid.visible = False
    theme.colour_bar(fig, mapper, unit=unit)
    return theme.dress(fig, title=title, caption=caption)
