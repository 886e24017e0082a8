"""What the pictures are made of, against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlaskit import show
from atlaskit.records import Estimate, Tokens
from atlaskit.show import levels


def causal_pattern(n, *, seed=0, heads=()):
    scores = np.random.default_rng(seed).normal(size=(*heads, n, n))
    support = np.tril(np.ones((n, n), bool))
    weights = np.where(support, np.exp(scores), 0)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32), support


def names(n):
    return [f"t{i}" for i in range(n)]


@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), top=st.sampled_from([levels.COARSE, levels.FINE]))
def test_a_weight_read_back_is_off_by_at_most_half_a_step_of_the_root(seed, n, top):
    pattern, support = causal_pattern(n, seed=seed)
    back = levels.restore(levels.quantise(pattern, support, top=top), top=top)
    assert np.array_equal(np.isnan(back), ~support)
    error = np.abs(np.sqrt(back[support]) - np.sqrt(pattern[support]))
    assert error.max() <= 0.5 / (top - 1) + 1e-7


def test_zero_weight_and_no_weight_differ_and_the_ends_are_exact():
    weights = np.array([[0.0, 1.0, 0.0]], np.float32)
    quantised = levels.quantise(weights, np.array([[True, True, False]]), top=255)
    assert quantised.tolist() == [[1, 255, 0]]
    assert quantised.dtype == np.uint8


@given(seed=st.integers(0, 10_000), n=st.integers(1, 50), blocks=st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_pooling_keeps_every_maximum(seed, n, blocks):
    cells = np.random.default_rng(seed).integers(0, 255, size=(3, n, n + 2))
    pooled = levels.max_pool(cells, blocks=blocks)
    for i, j in np.ndindex(pooled.shape[1:]):
        block = cells[:, i * blocks[0] : (i + 1) * blocks[0], j * blocks[1] : (j + 1) * blocks[1]]
        assert np.array_equal(pooled[:, i, j], block.max(axis=(1, 2)))


def test_a_heatmap_of_a_long_text_is_at_most_512_cells_wide_and_loses_no_peak():
    n = 1100
    pattern, support = np.zeros((n, n), np.float32), np.tril(np.ones((n, n), bool))
    pattern[np.arange(n), np.arange(n) // 2] = 1
    columns = show.heatmap_columns(pattern, names(n), support)
    (image,) = columns["image"]
    assert image.shape == (367, 367)  # 1100 / 3, rounded up
    assert columns["query_step"] == columns["key_step"] == [3]
    assert (image.max(axis=1) == levels.FINE).all()
    assert columns["high"] == columns["wide"] == [1101]


def test_the_ignorant_head_of_a_causal_text_gives_one_over_the_position():
    pattern, support = causal_pattern(9)
    (ignorant,) = show.heatmap_columns(pattern, names(9), support)["ignorant"]
    np.testing.assert_allclose(ignorant, 1 / np.arange(1, 10), rtol=1e-6)


def test_torch_and_bfloat16_give_the_picture_that_numpy_gives():
    pattern, support = causal_pattern(7)
    (expected,) = show.heatmap_columns(pattern, names(7), support)["image"]
    tensor = torch.from_numpy(pattern).requires_grad_()
    (image,) = show.heatmap_columns(tensor, names(7), torch.from_numpy(support))["image"]
    assert np.array_equal(image, expected)
    half = torch.from_numpy(pattern).bfloat16()
    (image,) = show.heatmap_columns(half, names(7), torch.from_numpy(support))["image"]
    (expected,) = show.heatmap_columns(half.float(), names(7), torch.from_numpy(support))["image"]
    assert np.array_equal(image, expected)


def test_a_record_of_tokens_is_as_good_as_a_list_of_strings():
    pattern, support = causal_pattern(2)
    tokens = Tokens(
        text="a b",
        ids=torch.tensor([0, 1]),
        strings=("a", " b"),
        spans=torch.tensor([[0, 1], [1, 3]]),
        special=torch.zeros(2, dtype=torch.bool),
    )
    assert show.heatmap_columns(pattern, tokens, support)["key"] == [["a", "␣b"]]


def test_weight_where_the_support_forbids_it_is_refused_with_its_place():
    pattern, support = causal_pattern(5)
    pattern[1, 3] = 0.25
    with pytest.raises(ValueError, match=r"query 1 gives 0\.25 to key 3, which the support forbids"):
        show.heatmap_columns(pattern, names(5), support)


def test_scores_before_softmax_are_refused():
    pattern, support = causal_pattern(5)
    with pytest.raises(
        ValueError, match=r"weights lie between 0 and 1; here they span .* Pass the pattern after softmax"
    ):
        show.heatmap_columns(pattern * 7, names(5), support)


def test_a_pattern_with_nan_is_refused():
    pattern, support = causal_pattern(5)
    pattern[2, 1] = np.nan
    with pytest.raises(ValueError, match="without nan"):
        show.heatmap_columns(pattern, names(5), support)


def test_tokens_of_another_text_are_refused():
    pattern, support = causal_pattern(5)
    with pytest.raises(ValueError, match="5 queries × 5 keys, the tokens are 4 × 4"):
        show.heatmap_columns(pattern, names(4), support)


def test_cross_attention_has_other_tokens_on_its_keys():
    columns = show.heatmap_columns(
        np.full((2, 4), 0.25, np.float32), names(2), np.ones((2, 4), bool), keys=list("abcd")
    )
    assert columns["key"] == [list("abcd")]
    assert columns["query"] == [["t0", "t1"]]


def test_each_tile_of_the_mosaic_is_its_head():
    patterns, support = causal_pattern(6, heads=(3, 4))
    (image,) = show.mosaic_columns(list(patterns), support)["image"]
    assert image.dtype == np.uint8
    for layer, head in np.ndindex(3, 4):
        tile = image[7 * layer : 7 * layer + 6, 7 * head : 7 * head + 6]
        assert np.array_equal(tile, levels.quantise(patterns[layer, head], support, top=255))
    assert (image[6::7] == 0).all()
    assert (image[:, 6::7] == 0).all()


def test_a_mosaic_of_many_long_heads_stays_one_small_image_and_keeps_peaks():
    patterns = np.zeros((2, 12, 700, 700), np.float32)
    patterns[..., np.arange(700), 0] = 1
    columns = show.mosaic_columns(list(patterns), np.tril(np.ones((700, 700), bool)))
    (image,) = columns["image"]
    assert image.shape[1] <= 1000
    assert columns["block"] == [9]
    assert (image == 255).sum() == 2 * 12 * 78  # one bright first column in every tile


def test_a_mosaic_of_unequal_layers_is_refused():
    with pytest.raises(ValueError, match="a mosaic needs layers of one shape"):
        show.mosaic_columns([np.ones((2, 3, 3), np.float32), np.ones((2, 3, 4), np.float32)], np.ones((3, 3), bool))


def test_head_columns_number_layers_and_heads_from_zero_and_hide_marks_on_undefined_heads():
    scores = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]], np.float32)
    columns = show.head_columns(scores, beats_null=np.array([[True, True, False], [False, False, True]]))
    assert columns["layer"].tolist() == [0, 0, 0, 1, 1, 1]
    assert columns["head"].tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(columns["score"], scores.ravel())
    assert np.flatnonzero(np.isfinite(columns["dot"])).tolist() == [0, 5]
    assert np.flatnonzero(np.isfinite(columns["void"])).tolist() == [1]


def test_signed_limits_must_be_symmetric():
    with pytest.raises(ValueError, match=r"limits around zero must be symmetric.*-1 … 3 is not\. Use \(-3, 3\)"):
        show.head_grid(np.zeros((2, 2)), title="", unit="bits", limits=(-1.0, 3.0))


def test_falling_limits_are_refused():
    with pytest.raises(ValueError, match=r"limits must rise; here they are 2 … 2"):
        show.head_grid(np.zeros((2, 2)), title="", unit="bits", limits=(2.0, 2.0))


def estimate(value, *, unit="bits", null=(0.0, 1.0)):
    return Estimate(value, value - 0.5, value + 0.5, *null, unit, 10)


def test_what_beats_its_null_has_another_shape_and_what_is_undefined_says_so():
    nan = float("nan")
    columns = show.interval_columns(
        {"far": estimate(4.0), "near": estimate(1.2), "none": Estimate(nan, nan, nan, 0.0, 1.0, "bits", 1)}
    )
    assert columns["marker"] == ["diamond", "circle", "circle"]
    assert columns["label"] == ["far", "near", "none (undefined)"]
    assert columns["row"] == [0, 1, 2]


def test_one_axis_has_one_unit():
    with pytest.raises(ValueError, match=r"one axis has one unit; these estimates have \['bits', 'tokens'\]"):
        show.intervals({"a": estimate(1.0), "b": estimate(1.0, unit="tokens")}, title="")


def test_no_estimates_are_refused():
    with pytest.raises(ValueError, match="no estimates to draw"):
        show.intervals({}, title="")


def test_curve_columns_hold_each_series_and_its_interval():
    x, y = np.arange(3), np.array([1.0, np.nan, 3.0])
    columns = show.curve_columns(x, {"a": y, "b": y + 1}, intervals={"b": (y, y + 2)})
    assert sorted(columns) == ["high1", "low1", "x", "y0", "y1"]
    np.testing.assert_array_equal(columns["high1"], y + 2)


def test_an_interval_without_a_series_is_refused():
    with pytest.raises(ValueError, match=r"an interval for 'b', but no such series; the series are \['a'\]"):
        show.curve_columns(np.arange(2), {"a": np.ones(2)}, intervals={"b": (np.ones(2), np.ones(2))})


def test_more_series_than_readers_can_tell_apart_are_refused():
    with pytest.raises(ValueError, match="6 series: between 1 and 5 can be told apart"):
        show.curve(np.arange(2), {str(i): np.ones(2) for i in range(6)}, title="", x_label="", y_label="")


def test_a_strip_needs_one_value_for_each_token():
    with pytest.raises(ValueError, match="2 tokens and 3 values"):
        show.token_strip(["a", "b"], np.ones(3), title="", unit="bits", limits=(0.0, 1.0))


def test_a_strip_marks_what_is_undefined_and_writes_every_number():
    strip = show.token_strip(
        [" a", "\n", "c"], np.array([0.25, np.nan, -1.5]), title="T", unit="bits", limits=(-2.0, 2.0), caption="C"
    )
    assert "<bdi>␣a</bdi><small>0.25</small>" in strip
    assert '<li class="ak-none"><bdi>⏎</bdi><small>–</small></li>' in strip
    assert "<small>−1.5</small>" in strip
    assert "colour from −2 to 2" in strip
    assert strip._repr_html_() == strip


def test_a_figure_gives_its_columns_and_a_foreign_figure_is_refused():
    from bokeh.plotting import figure

    scores = np.arange(6.0).reshape(2, 3)
    fig = show.head_grid(scores, title="", unit="bits", limits=(0.0, 5.0))
    np.testing.assert_array_equal(show.source(fig).data["score"], scores.ravel())
    with pytest.raises(ValueError, match=r"it was not drawn by atlaskit\.show"):
        show.source(figure())
