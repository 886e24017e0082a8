"""What is gained against what it costs, a point a head, and the front that nobody beats."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource, CustomJSHover, HoverTool, LinearColorMapper, Span
from bokeh.plotting import figure
from jaxtyping import Bool, Float

from atlaskit.show import levels, theme
from atlaskit.show.grid import NUMBER
from atlaskit.show.labels import plain
from atlaskit.show.levels import Array


def trade_off_columns(
    cost: Float[Array, "layer head"],
    gain: Float[Array, "layer head"],
    score: Float[Array, "layer head"],
    *,
    front: Bool[Array, "layer head"],
) -> dict[str, np.ndarray]:
    """One row per head; a head of which one number is undefined is not drawn."""
    layer, head = np.indices(cost.shape)
    numbers = [levels.as_array(values).ravel().astype(np.float64) for values in (cost, gain, score)]
    kept = np.isfinite(np.stack(numbers)).all(0)
    marked = levels.as_array(front).ravel()[kept]
    names = np.array([f"{one}.{other}" for one, other in zip(layer.ravel(), head.ravel(), strict=True)])[kept]
    return {
        **{name: values[kept] for name, values in zip(("cost", "gain", "score"), numbers, strict=True)},
        "name": names,
        "label": np.where(marked, names, ""),
        "size": np.where(marked, 15, 9),
        "marker": np.where(marked, "diamond", "circle"),
    }


def trade_off(
    cost: Float[Array, "layer head"],
    gain: Float[Array, "layer head"],
    score: Float[Array, "layer head"],
    *,
    front: Bool[Array, "layer head"],
    title: str,
    x_label: str,
    y_label: str,
    unit: str,
    limits: tuple[float, float],
    caption: str = "",
) -> figure:
    """A point a head: what removing it costs, what it gains, and as colour what the head looks like.

    Heads on the `front` are diamonds with their names. `limits` are those of the colour, as in `head_grid`.
    """
    low, high = theme.checked(limits)
    data = ColumnDataSource(trade_off_columns(cost, gain, score, front=front), name="atlaskit")
    fig = figure(
        x_axis_label=plain(x_label),
        y_axis_label=plain(y_label),
        frame_width=520,
        frame_height=360,
        tools="pan,wheel_zoom,box_zoom,reset,save",
    )
    for dimension in ("width", "height"):
        zero = Span(location=0, dimension=dimension, line_color=theme.NEUTRAL, line_dash="dashed", line_width=1)
        fig.add_layout(zero)
    mapper = LinearColorMapper(
        palette=theme.DIVERGING if low < 0 < high else theme.SEQUENTIAL, low=low, high=high, nan_color=theme.UNDEFINED
    )
    dots = fig.scatter(
        "cost", "gain", marker="marker", size="size", source=data, fill_color={"field": "score", "transform": mapper},
        line_color=theme.NEUTRAL, line_width=1.5,
    )  # fmt: skip
    fig.text(
        "cost", "gain", text="label", source=data, x_offset=9, y_offset=-5, text_font_size={"value": "12px"},
        text_font={"value": "sans-serif"}, text_color=theme.SERIES[-1],
    )  # fmt: skip
    number = CustomJSHover(code=NUMBER)
    tips = theme.tooltip(
        "<b>head @name</b>",
        f"{theme.hover_text(x_label)}: @cost{{custom}}",
        f"{theme.hover_text(y_label)}: @gain{{custom}}",
        f"{theme.hover_text(unit)}: @score{{custom}}",
    )
    fields = ("cost", "gain", "score")
    fig.add_tools(HoverTool(renderers=[dots], tooltips=tips, formatters={f"@{field}": number for field in fields}))
    theme.colour_bar(fig, mapper, unit=unit)
    return theme.dress(fig, title=title, caption=caption)
