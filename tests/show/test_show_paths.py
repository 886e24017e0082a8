"""Paths: every step that is taken is drawn once, as wide as all the paths that take it."""

import pytest
import torch

from atlaskit import measure, show

TOKENS = ["<b>", "cat", " sat", "."]
PATHS = torch.tensor([[3, 1, 1], [3, 1, 0], [3, 3, 0]])
WEIGHTS = torch.tensor([0.5, 0.3, 0.1])


def test_steps_that_paths_share_are_added_up():
    columns = show.path_columns(TOKENS, PATHS, WEIGHTS)
    found = {
        (layer, above, below): weight
        for layer, above, below, weight in zip(
            columns["layer"], columns["above"], columns["below"], columns["weight"], strict=True
        )
    }
    expected = {(2, 3, 1): 0.8, (2, 3, 3): 0.1, (1, 1, 1): 0.5, (1, 1, 0): 0.3, (1, 3, 0): 0.1}
    assert found == pytest.approx(expected)
    assert columns["weight"] == sorted(columns["weight"])
    assert columns["to"][-1] == "."


def test_of_each_layer_the_steps_weigh_as_much_as_all_paths():
    """As every path passes through every layer once."""
    mixing = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(0)).tril()
    told = measure.top_paths(mixing / mixing.sum(-1, keepdim=True), -1, n_paths=12)
    columns = show.path_columns(list("abcdef"), told.tokens, told.weights)
    for layer in range(1, 5):
        through = sum(w for at, w in zip(columns["layer"], columns["weight"], strict=True) if at == layer)
        assert through == pytest.approx(told.covered, rel=1e-5)


def test_the_picture_reads_from_the_output_down():
    fig = show.paths(TOKENS, PATHS, WEIGHTS, title="paths")
    assert fig.y_range.end > 2 > fig.y_range.start
    assert len(show.source(fig).data["layer"]) == 5


def test_one_token_and_no_path_can_be_drawn():
    assert show.path_columns(["a"], torch.zeros(1, 3, dtype=torch.long), torch.ones(1))["layer"] == [2, 1]
    show.paths(["a"], torch.zeros(0, 3, dtype=torch.long), torch.zeros(0), title="none")


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match="3 paths and 2 weights"):
        show.path_columns(TOKENS, PATHS, WEIGHTS[:2])
    with pytest.raises(ValueError, match="places 0 to 3; there are 3 tokens"):
        show.path_columns(TOKENS[:3], PATHS, WEIGHTS)
    many = torch.stack([torch.arange(2500), torch.arange(2500)], -1)
    with pytest.raises(ValueError, match="2500 different steps are more than can be seen"):
        show.path_columns(["x"] * 2500, many, torch.ones(2500))
