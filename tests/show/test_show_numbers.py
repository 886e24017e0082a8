"""The numbers behind a figure are the ones that it was given, and stand under it as text."""

import csv
import re

import numpy as np
import pytest
from bokeh.layouts import gridplot
from bokeh.plotting import figure

from atlaskit import show
from atlaskit.records import Estimate
from atlaskit.show.numbers import columns_of, details


def test_a_heatmap_gives_back_its_weights_cell_by_cell_beside_ignorance(tmp_path):
    pattern = np.tril(np.random.default_rng(0).random((6, 6)).astype(np.float32))
    pattern /= pattern.sum(-1, keepdims=True)
    fig = show.heatmap(pattern, list("abcdef"), np.tril(np.ones((6, 6), bool)), title="T")
    with show.export(fig, tmp_path / "heat.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21  # the possible cells, no others
    for row in rows:
        i, j = int(row["query"]), int(row["key"])
        assert (row["query_token"], row["key_token"]) == ("abcdef"[i], "abcdef"[j])
        assert float(row["weight"]) == pytest.approx(pattern[i, j], abs=2e-5)
        assert float(row["ignorant"]) == pytest.approx(1 / (i + 1))


def test_series_go_by_their_names_and_their_intervals_too():
    y = np.arange(3.0)
    fig = show.curve(y, {"a": y, "<b>": y + 1}, title="T", x_label="x", y_label="y", intervals={"<b>": (y, y + 2)})
    columns = columns_of(fig)
    assert list(columns) == ["x", "a", "<b>", "<b> low", "<b> high"]
    assert columns["<b> high"] == [2.0, 3.0, 4.0]


def test_the_table_under_a_figure_is_text_and_says_what_it_leaves_out():
    few = details(show.intervals({"<i>x": Estimate(1.0, 0.5, 1.5, 0.0, 0.2, "bits", 9)}, title="T"))
    assert few.count("<tr>") == 2
    assert "&lt;i&gt;x" in few
    assert "<i>" not in few
    many = details(show.head_grid(np.full((10, 10), np.nan), title="T", unit="bits", limits=(0.0, 1.0)))
    assert many.count("<tr>") == 31
    assert "the first 30 of 100" in many
    assert "<td>–</td>" in many
    assert details(figure()) == ""  # not drawn by us


def test_figures_side_by_side_have_a_table_each_and_one_file(tmp_path):
    grids = [show.head_grid(np.full((1, 2), i), title=f"<b>{i}", unit="bits", limits=(0.0, 2.0)) for i in (1.0, 2.0)]
    y = np.arange(3.0)
    line = show.curve(y, {"a": y}, title="line", x_label="x", y_label="y")
    side_by_side = gridplot([*grids, line], ncols=2)
    tables = details(side_by_side)
    assert re.findall("<summary>(.*?)</summary>", tables) == [
        "Numbers: &lt;b&gt;1.0", "Numbers: &lt;b&gt;2.0", "Numbers: line"
    ]  # fmt: skip
    assert tables in show.html(side_by_side)
    columns = columns_of(side_by_side)
    assert columns["figure"] == ["<b>1.0"] * 2 + ["<b>2.0"] * 2 + ["line"] * 3
    assert columns["score"] == [1.0, 1.0, 2.0, 2.0, None, None, None]
    assert columns["a"] == [None] * 4 + [0.0, 1.0, 2.0]
    assert len(show.export(side_by_side, tmp_path / "grid.csv").read_text().splitlines()) == 8


def test_a_mosaic_gives_weights_not_levels():
    pattern = np.full((1, 2, 2), 0.5, np.float32)
    columns = columns_of(show.mosaic([pattern], np.ones((2, 2), bool), title="T"))
    np.testing.assert_allclose(columns["weight"], 0.5, atol=3e-3)  # half a step of the root
    assert len(columns["weight"]) == 4
