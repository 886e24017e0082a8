"""One head's pattern, tokens on both axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import (
    AdaptiveTicker,
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    DataRange1d,
    HoverTool,
    LinearColorMapper,
)
from bokeh.plotting import figure
from jaxtyping import Bool, Float

from atlaskit.records import Tokens
from atlaskit.show import levels, theme
from atlaskit.show.labels import plain, short, strings, visible
from atlaskit.show.levels import FINE, Array

HOVER = """
  const column = name => source.data[name][0];
  const name = (tokens, i, step) => {
    const last = Math.min(i * step + step, tokens.length) - 1, at = j => j + " \u2068" + tokens[j] + "\u2069";
    return step == 1 ? at(i) : at(i * step) + " … " + at(last);
  };
  const i = Math.floor((special_vars.x + 0.5) / column("key_step"));
  const j = Math.floor((special_vars.y + 0.5) / column("query_step"));
  const where = "query " + name(column("query"), j, column("query_step"))
              + "\\nkey " + name(column("key"), i, column("key_step"));
  if (value == 0) return where + "\\noutside the support: no attention possible";
  const weight = ((value - 1) / (top - 1)) ** 2, ignorant = column("ignorant")[j];
  const cells = column("key_step") * column("query_step");
  return where + "\\nweight " + weight.toPrecision(3) + (cells > 1 ? " (largest of the block)" : "")
       + "\\nan ignorant head gives " + ignorant.toPrecision(3) + " (× " + (weight / ignorant).toPrecision(2) + ")";
"""


def heatmap_columns(
    pattern: Float[Array, "query key"],
    tokens: Tokens | Sequence[str],
    support: Bool[Array, "query key"],
    *,
    keys: Tokens | Sequence[str] | None = None,
) -> dict[str, list[Any]]:
    """One row: the image, the tokens of both axes, and what an ignorant head would give in each query row.

    Above 512 tokens neighbours share a cell, which shows the largest of their weights.
    """
    weights, allowed = levels.as_array(pattern).astype(np.float32), levels.as_array(support)
    queries, key_strings = strings(tokens), strings(tokens if keys is None else keys)
    if weights.shape != (len(queries), len(key_strings)):
        raise ValueError(
            f"the pattern is {weights.shape[0]} queries × {weights.shape[1]} keys, the tokens are {len(queries)} × "
            f"{len(key_strings)}. Pass one head's pattern; where keys are another text's tokens, pass them as `keys`."
        )
    steps = [levels.block(n, levels.LARGEST_SIDE) for n in weights.shape]
    image = levels.max_pool(levels.quantise(weights, allowed, top=FINE), blocks=steps)
    choices = allowed.sum(axis=1, keepdims=True)
    ignorant = levels.max_pool(np.where(choices > 0, 1 / np.maximum(choices, 1), 0), blocks=(steps[0], 1))
    return {
        "image": [image],
        "high": [image.shape[0] * steps[0]],
        "wide": [image.shape[1] * steps[1]],
        "query": [[short(visible(token), 60) for token in queries]],
        "key": [[short(visible(token), 60) for token in key_strings]],
        "query_label": [[short(visible(token)) for token in queries]],
        "key_label": [[short(visible(token)) for token in key_strings]],
        "query_step": [steps[0]],
        "key_step": [steps[1]],
        "ignorant": [ignorant[:, 0].astype(np.float32)],
    }


def heatmap(
    pattern: Float[Array, "query key"],
    tokens: Tokens | Sequence[str],
    support: Bool[Array, "query key"],
    *,
    title: str,
    caption: str = "",
    keys: Tokens | Sequence[str] | None = None,
) -> figure:
    """One head's pattern: queries down, keys across, colour the attention weight; hatched where none is possible.

    The scale is always 0 … 1, even in √weight, so that two heads can be compared by eye. Hover names both tokens,
    the weight, and the weight an ignorant head would give: 1 / (number of keys that query may use).
    """
    columns = heatmap_columns(pattern, tokens, support, keys=keys)
    data = ColumnDataSource(columns, name="atlaskit")
    high, wide = columns["high"][0], columns["wide"][0]
    side = min(500, max(240, 32 * max(high, wide)))
    fig = figure(
        x_axis_label="key (attended to)",
        y_axis_label="query (attending)",
        x_range=DataRange1d(range_padding=0),
        y_range=DataRange1d(range_padding=0, flipped=True),
        frame_width=max(120, round(side * wide / max(high, wide))),
        frame_height=max(120, round(side * high / max(high, wide))),
        tools="pan,wheel_zoom,box_zoom,reset,save",
    )
    theme.hatch(fig)
    mapper = LinearColorMapper(palette=theme.SEQUENTIAL, low=1, high=FINE, low_color=theme.BLANK)
    picture = fig.image("image", x=-0.5, y=-0.5, dw="wide", dh="high", source=data, color_mapper=mapper)
    labelled = ((fig.xaxis, "key_label", fig.frame_width), (fig.yaxis, "query_label", fig.frame_height))
    for axis, name, length in labelled:
        # A label needs 12 pixels: every token while up to 40 are in view, every 2nd, 5th, 10th … above; zooming in
        # names them all. The ticker may give a third more ticks than are desired.
        axis.ticker = AdaptiveTicker(min_interval=1, desired_num_ticks=length // 16, num_minor_ticks=0)
        axis.formatter = CustomJSTickFormatter(args={"source": data}, code=f"return source.data.{name}[0][tick] ?? ''")
    fig.xaxis.major_label_orientation = "vertical"
    fig.grid.visible = False
    formatter = CustomJSHover(args={"source": data, "top": FINE}, code=HOVER)
    tips = theme.tooltip("@image{custom}")
    fig.add_tools(
        HoverTool(renderers=[picture], tooltips=tips, formatters={"@image": formatter}, point_policy="follow_mouse")
    )
    ticks = {levels.level_of(weight, top=FINE): f"{weight:g}" for weight in levels.TICKS}
    theme.colour_bar(fig, mapper, unit="attention weight", ticks=ticks)
    steps = columns["query_step"][0], columns["key_step"][0]
    if steps != (1, 1):
        caption = f"{caption} Each cell shows the largest of {steps[0]} × {steps[1]} weights.".strip()
    return theme.dress(fig, title=plain(title), caption=caption)
