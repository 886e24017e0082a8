"""All heads of all layers as one image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CustomJSHover, HoverTool, LinearColorMapper, SingleIntervalTicker
from bokeh.plotting import figure
from jaxtyping import Bool, Float

from atlaskit.show import levels, theme
from atlaskit.show.levels import COARSE, Array

WIDEST = 1000  # cells across all heads of a layer

HOVER = """
  const layer = Math.round(special_vars.y), head = Math.round(special_vars.x);
  return "head " + layer + "." + head;
"""


def mosaic_columns(
    patterns: Sequence[Float[Array, "_ _ _"]], support: Bool[Array, "query key"]
) -> dict[str, list[Any]]:
    """One row: every head's pattern in one uint8 image, heads across, layers down, a blank line between.

    Each layer is [head query key], as in a capture.
    One image is what makes this live: 144 figures take twenty seconds to appear, one image takes two.
    """
    shapes = {tuple(pattern.shape) for pattern in patterns}
    if len(shapes) != 1:
        raise ValueError(
            f"a mosaic needs layers of one shape; here they are {sorted(shapes)}. Draw one kind of attention at a time."
        )
    ((n_head, n_query, n_key),) = shapes
    room = max(4, WIDEST // n_head - 1)
    blocks = levels.block(n_query, room), levels.block(n_key, room)
    allowed = levels.as_array(support)
    rows = []
    for pattern in patterns:  # one layer at a time: all of them in float32 would be large
        quantised = levels.quantise(levels.as_array(pattern).astype(np.float32), allowed, top=COARSE)
        tiles = np.pad(levels.max_pool(quantised, blocks=blocks), ((0, 0), (0, 1), (0, 1)))
        rows.append(np.concatenate(list(tiles), axis=1))
    image = np.concatenate(rows, axis=0)
    return {"image": [image], "high": [len(patterns)], "wide": [n_head], "block": [max(blocks)]}


def mosaic(
    patterns: Sequence[Float[Array, "_ _ _"]],
    support: Bool[Array, "query key"],
    *,
    title: str,
    caption: str = "",
) -> figure:
    """Every head of every layer at once, layers down, heads across, on the scale of `heatmap`."""
    columns = mosaic_columns(patterns, support)
    n_layer, n_head = columns["high"][0], columns["wide"][0]
    tile = int(np.clip(640 / n_head, 18, 72))
    fig = figure(
        x_axis_label="head",
        y_axis_label="layer",
        x_range=(-0.5, n_head - 0.5),
        y_range=(n_layer - 0.5, -0.5),
        frame_width=tile * n_head,
        frame_height=tile * n_layer,
        tools="pan,wheel_zoom,box_zoom,reset,save",
    )
    mapper = LinearColorMapper(palette=theme.SEQUENTIAL, low=1, high=COARSE, low_color=theme.BLANK)
    data = ColumnDataSource(columns, name="atlaskit")
    picture = fig.image("image", x=-0.5, y=-0.5, dw="wide", dh="high", source=data, color_mapper=mapper)
    fig.add_tools(
        HoverTool(
            renderers=[picture],
            tooltips=theme.tooltip("@image{custom}"),
            formatters={"@image": CustomJSHover(code=HOVER)},
            point_policy="follow_mouse",
        )
    )
    for axis, n in ((fig.xaxis, n_head), (fig.yaxis, n_layer)):
        axis.ticker = SingleIntervalTicker(interval=1 if n <= 24 else 4, num_minor_ticks=0)
    fig.grid.visible = False
    ticks = {levels.level_of(weight, top=COARSE): f"{weight:g}" for weight in levels.TICKS}
    theme.colour_bar(fig, mapper, unit="attention weight", ticks=ticks)
    if columns["block"][0] > 1:
        caption = f"{caption} Each cell shows the largest of a block of {columns['block'][0]} tokens.".strip()
    return theme.dress(fig, title=title, caption=caption)
