"""Maps: every point where it belongs, every group its own shape."""

import pytest
import torch

from atlaskit import show

PLACES = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])


def test_points_lie_where_they_were_put_and_groups_differ_in_shape():
    fig = show.points(PLACES, ["0.0", "0.1", "1.0"], ["a", "b", "a"], title="map", notes=["x", "<y>", "z"])
    columns = show.source(fig).data
    assert columns["x"].tolist() == [0, 2, 4]
    assert columns["y"].tolist() == [1, 3, 5]
    assert columns["marker"][0] == columns["marker"][2] != columns["marker"][1]
    assert columns["note"][1] == "<y>"  # put in by Bokeh, which escapes it
    assert fig.match_aspect


def test_every_point_has_a_name_and_a_group():
    with pytest.raises(ValueError, match="3 places, 2 names and 3 groups: give one each to every point"):
        show.points(PLACES, ["a", "b"], ["a", "b", "c"], title="map")


def test_more_groups_than_shapes_are_refused():
    many = [str(i) for i in range(9)]
    with pytest.raises(ValueError, match="9 groups: at most 8 shapes can be told apart"):
        show.points(torch.zeros(9, 2), many, many, title="map")
