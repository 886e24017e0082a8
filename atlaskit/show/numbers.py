"""The numbers behind a figure: columns for a file, and a table under the figure for who does not see it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import LayoutDOM, Plot

from atlaskit.show import levels, theme

ROWS = 30  # of a table under a figure; a file has all of them
INK = {"marker", "fill", "colour", "label", "row"}  # columns that say how a number is drawn

TABLE = """<details class="ak-numbers"><summary>Numbers{which}</summary>
<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></details>"""


def columns_of(fig: LayoutDOM) -> dict[str, list[Any]]:
    """A row for each head, point or estimate; of a heatmap, for each cell that attention may use.

    Of figures side by side, the rows of one after those of another, with the title of each; None where it lacks a
    column.
    """
    tables = [(_title(one), _columns(one)) for one in _figures(fig)]
    if len(tables) < 2:
        return _columns(fig)
    named = list(dict.fromkeys(name for _, table in tables for name in table))
    joined: dict[str, list[Any]] = {"figure": []} | {name: [] for name in named}
    for title, table in tables:
        n = len(next(iter(table.values())))
        joined["figure"] += [title] * n
        for name in named:
            joined[name] += table.get(name, [None] * n)
    return joined


def _figures(fig: LayoutDOM) -> list[Plot]:
    """The figures of a layout that were drawn by us, in the order in which they were made."""
    found = {plot for plot in fig.references() if isinstance(plot, Plot) and plot.select_one({"name": "atlaskit"})}
    return sorted(found, key=lambda plot: (len(plot.id), plot.id))


def _title(plot: Plot) -> str:
    return str(plot.title.text) if plot.title else ""


def _columns(fig: LayoutDOM) -> dict[str, list[Any]]:
    source = theme.source(fig)
    data = source.data
    if "query" in data:
        return _cells(data)
    if "image" in data:  # of a mosaic, the cells as they are drawn: weights on their own scale
        image = np.asarray(data["image"][0])
        at, weights = np.argwhere(image > 0), levels.restore(image, top=levels.COARSE)[image > 0]
        return {"row": at[:, 0].tolist(), "column": at[:, 1].tolist(), "weight": weights.tolist()}
    return {_named(name, source.tags): list(values) for name, values in data.items() if name not in INK}


def details(fig: LayoutDOM) -> str:
    """Tables that open under a figure, one for each that it is made of: the rows, or those with the largest weights."""
    figures = _figures(fig)
    return "".join(_table(_columns(one), f": {_title(one)}" if len(figures) > 1 else "") for one in figures)


def _table(columns: dict[str, list[Any]], which: str) -> str:
    n = len(next(iter(columns.values())))
    order = range(n) if "weight" not in columns else np.argsort(columns["weight"])[::-1]
    kept = list(order)[:ROWS]
    if n > ROWS:
        which += f": the {'largest' if 'weight' in columns else 'first'} {ROWS} of {n}; show.export(…, 'x.csv') has all"
    return TABLE.format(
        which=html.escape(which),
        heads="".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns),
        rows="".join(_row([values[i] for values in columns.values()]) for i in kept),
    )


def _cells(data: dict[str, Any]) -> dict[str, list[Any]]:
    image, steps = np.asarray(data["image"][0]), (data["query_step"][0], data["key_step"][0])
    at = np.argwhere(image > 0)
    query, key = (at * steps).T.tolist()
    return {
        "query": query,
        "key": key,
        "query_token": [data["query"][0][i] for i in query],
        "key_token": [data["key"][0][i] for i in key],
        "weight": levels.restore(image, top=levels.FINE)[image > 0].tolist(),
        "ignorant": np.asarray(data["ignorant"][0])[at[:, 0]].astype(float).tolist(),
    }


def _named(column: str, series: Sequence[str]) -> str:
    """What a column of a curve belongs to: y1, low1 and high1 are the second series."""
    for kind, word in (("y", ""), ("low", " low"), ("high", " high")):
        number = column.removeprefix(kind)
        if number != column and number.isdigit() and int(number) < len(series):
            return f"{series[int(number)]}{word}"
    return column


def _row(values: Sequence[Any]) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(_told(value))}</td>" for value in values) + "</tr>"


def _told(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.4g}"
    return str(value)
