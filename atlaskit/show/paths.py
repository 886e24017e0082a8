"""Where a token's output comes from, layer by layer: the strongest paths, drawn with what they share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from bokeh.models import (
    AdaptiveTicker,
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    HoverTool,
    SingleIntervalTicker,
)
from bokeh.plotting import figure
from jaxtyping import Float, Int

from atlaskit.records import Tokens
from atlaskit.show import levels, theme
from atlaskit.show.grid import NUMBER
from atlaskit.show.labels import plain, short, strings, visible
from atlaskit.show.levels import Array

MOST = 2_000
"""Edges that one picture may have."""


def path_columns(
    tokens: Tokens | Sequence[str], paths: Int[Array, "rank step"], weights: Float[Array, " _"]
) -> dict[str, list[Any]]:
    """A row for each step that some path takes, with the weight of all the paths that take it; the heaviest last.

    `above` and `below` are token places, `layer` counts the outputs of layers from the input, 0.
    """
    names, places, numbers = strings(tokens), levels.as_array(paths), levels.as_array(weights)
    if len(places) != len(numbers):
        raise ValueError(f"{len(places)} paths and {len(numbers)} weights: give one to each")
    if places.size and not 0 <= places.min() <= places.max() < len(names):
        raise ValueError(f"the paths lead to places {places.min()} to {places.max()}; there are {len(names)} tokens")
    found: dict[tuple[int, int, int], float] = defaultdict(float)
    for path, weight in zip(places.tolist(), numbers.tolist(), strict=True):
        for depth, (above, below) in enumerate(pairwise(path)):
            found[len(path) - 1 - depth, above, below] += weight
    if len(found) > MOST:
        raise ValueError(f"{len(found)} different steps are more than can be seen ({MOST}); draw fewer paths")
    rows = sorted(found.items(), key=lambda row: row[1])
    layers, above, below = (
        (list(column) for column in zip(*(step for step, _ in rows), strict=True)) if rows else [[]] * 3
    )
    label = [short(visible(name)) for name in names]
    return {
        "layer": layers,
        "lower": [layer - 1 for layer in layers],
        "above": above,
        "below": below,
        "weight": [weight for _, weight in rows],
        "width": [1 + 11 * weight for _, weight in rows],
        "alpha": [min(1.0, 0.2 + weight**0.5) for _, weight in rows],
        "to": [label[place] for place in above],
        "from": [label[place] for place in below],
    }


def paths(
    tokens: Tokens | Sequence[str],
    paths: Int[Array, "rank step"],
    weights: Float[Array, " _"],
    *,
    title: str,
    caption: str = "",
) -> figure:
    """The strongest paths from an output token (top) down to input tokens; the width of a step is its share.

    Take paths and weights from ``measure.top_paths``, whose `covered` belongs into the caption: paths that were not
    asked for are not drawn.
    """
    columns = path_columns(tokens, paths, weights)
    label = [short(visible(name)) for name in strings(tokens)]
    n_layer = max(columns["layer"], default=1)
    data = ColumnDataSource(columns, name="atlaskit")
    ends = {(layer, place) for layer, place in zip(columns["layer"], columns["above"], strict=True)}
    ends |= {(layer, place) for layer, place in zip(columns["lower"], columns["below"], strict=True)}
    fig = figure(
        x_axis_label="token",
        y_axis_label="after layer (0 is the input)",
        x_range=(-0.7, len(label) - 0.3),
        y_range=(-0.25, n_layer + 0.25),
        frame_width=int(np.clip(26 * len(label), 320, 760)),
        frame_height=int(np.clip(72 * n_layer, 160, 480)),
        tools="pan,xwheel_zoom,box_zoom,reset,save",
    )
    steps = fig.segment(
        "above", "layer", "below", "lower", source=data, line_color=theme.SERIES[0], line_alpha="alpha",
        line_width="width", line_cap="round",
    )  # fmt: skip
    layer, place = (list(column) for column in zip(*sorted(ends), strict=True)) if ends else ([], [])
    fig.scatter(place, layer, size=7, fill_color=theme.SERIES[-1], line_color=None)
    tips = theme.tooltip("after layer @layer: <b>@to</b> from <b>@from</b>", "share of all paths: @weight{custom}")
    number = CustomJSHover(code=NUMBER)
    fig.add_tools(HoverTool(renderers=[steps], tooltips=tips, formatters={"@weight": number}))
    fig.xaxis.ticker = AdaptiveTicker(min_interval=1, desired_num_ticks=fig.frame_width // 16, num_minor_ticks=0)
    fig.xaxis.formatter = CustomJSTickFormatter(args={"names": label}, code="return names[tick] ?? ''")
    fig.xaxis.major_label_orientation = "vertical"
    fig.yaxis.ticker = SingleIntervalTicker(interval=1 if n_layer <= 24 else 4, num_minor_ticks=0)
    fig.grid.visible = False
    return theme.dress(fig, title=plain(title), caption=caption)
