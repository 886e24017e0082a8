"""Things on a plane, told apart by shape as well as colour: a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.plotting import figure
from jaxtyping import Float

from atlaskit.show import levels, theme
from atlaskit.show.labels import plain
from atlaskit.show.levels import Array

MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star", "square_pin")


def points(
    place: Float[Array, "point 2"],
    names: Sequence[str],
    groups: Sequence[str],
    *,
    title: str,
    caption: str = "",
    notes: Sequence[str] = (),
) -> figure:
    """A dot for each name, its group as shape and colour; both axes have one scale, as only distances mean something.

    `notes` are read on hover, one a point.
    """
    xy = levels.as_array(place).astype(np.float64)
    kinds = list(dict.fromkeys(groups))
    if not len(xy) == len(names) == len(groups):
        raise ValueError(f"{len(xy)} places, {len(names)} names and {len(groups)} groups: give one each to every point")
    if len(kinds) > len(MARKERS):
        raise ValueError(f"{len(kinds)} groups: at most {len(MARKERS)} shapes can be told apart. Draw several maps.")
    order = {kind: i for i, kind in enumerate(kinds)}
    data = ColumnDataSource(
        {
            "x": xy[:, 0],
            "y": xy[:, 1],
            "name": [plain(name) for name in names],
            "group": [plain(kind) for kind in groups],
            "note": [plain(note) for note in notes] or [""] * len(xy),
            "marker": [MARKERS[order[kind]] for kind in groups],
            "colour": [theme.SERIES[order[kind] % len(theme.SERIES)] for kind in groups],
        },
        name="atlaskit",
    )
    fig = figure(
        frame_width=560, frame_height=420, match_aspect=True, tools="pan,wheel_zoom,box_zoom,reset,save",
        x_axis_label="first axis", y_axis_label="second axis",
    )  # fmt: skip
    dots = fig.scatter(
        "x", "y", marker="marker", size=11, source=data, fill_color="colour", fill_alpha=0.75, line_color="colour"
    )
    # a grey that reads on white and on black: text on the canvas does not follow the page
    fig.text("x", "y", "name", source=data, x_offset=8, y_offset=-4, text_font_size="11px", text_color=theme.SERIES[-1])
    fig.add_tools(HoverTool(renderers=[dots], tooltips=theme.tooltip("<b>@name</b>", "@group", "@note")))
    theme.key(fig, {kind: (MARKERS[i], theme.SERIES[i % len(theme.SERIES)]) for kind, i in order.items()})
    return theme.dress(fig, title=title, caption=caption)
