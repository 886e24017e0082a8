"""Truth, law and twin: dimensions of measures whose dimensions are known in closed form."""

import importlib.util
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaskit.measure.boxes import coarse_grain
from atlaskit.measure.fractal import (
    generalized_dimensions,
    multifractal_spectrum,
    relative_dimensions,
    self_similarity,
)
from atlaskit.measure.scaling import fit_lines, level
from atlaskit.measure.support import causal, full, sliding, uniform

spec = importlib.util.spec_from_file_location("numpy_fractal", Path(__file__).with_name("numpy_fractal.py"))
twin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(twin)

ORDERS = (0.0, 0.5, 1.0, 2.0, 5.0)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def cascade(weights, depth):
    """A multiplicative cascade: every box splits its mass by the same 2 × 2 weights, `depth` times."""
    cells = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(depth):
        cells = torch.kron(cells, torch.tensor(weights, dtype=torch.float64))
    return cells[None]


def random_cascade(depth, *, heads, seed):
    """Rows carry equal mass; along the keys every box splits at an independent uniform point."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.ones(heads, 1, 1)
    for _ in range(depth):
        cells = cells.repeat_interleave(2, 1) / 2
        share = torch.rand(cells.shape, generator=generator)
        cells = torch.stack([cells * share, cells * (1 - share)], -1).flatten(2)
    return cells


def renyi(weights, order):
    """Closed form for a cascade of 2 × 2 weights, which is also the Rényi entropy of the weights in bits."""
    held = np.array(weights).ravel()
    held = held[held > 0]
    if order == 1:
        return -(held * np.log2(held)).sum()
    return np.log2((held**order).sum()) / (1 - order)


def heads(seed, n, *, sharpness=1.0, support=None):
    scores = torch.randn(3, n, n, generator=torch.Generator().manual_seed(seed)) * sharpness
    return scores.masked_fill(~(full(n) if support is None else support), float("-inf")).softmax(-1)


BINOMIAL = [[[0.4, 0.3], [0.2, 0.1]], [[0.4, 0.1], [0.1, 0.4]], [[0.8, 0.2], [0.2, 0.8]], [[0.7, 0.3], [0.0, 1.0]]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weights", BINOMIAL)
@pytest.mark.parametrize("depth", [6, 8])
def test_a_cascade_has_the_dimensions_of_its_weights(weights, depth, device):
    cells = cascade(weights, depth).to(device)
    scaled = np.array(weights) / np.sum(weights)
    found = generalized_dimensions(coarse_grain(cells.float()), ORDERS)
    expected = torch.tensor([renyi(scaled, order) for order in ORDERS])
    torch.testing.assert_close(found.slope.cpu(), expected[None].float(), atol=1e-3, rtol=0)
    exact = generalized_dimensions(coarse_grain(cells), (-2.0, *ORDERS)).slope
    truth = torch.tensor([[renyi(scaled, order) for order in (-2.0, *ORDERS)]])
    torch.testing.assert_close(exact.cpu(), truth, atol=1e-9, rtol=0)


def test_the_row_stochastic_cascade_has_its_published_dimensions():
    # 1 + log2(.8^q + .2^q) / (1 - q); rows equal, so D_0 is 2
    found = generalized_dimensions(coarse_grain(cascade([[0.8, 0.2], [0.2, 0.8]], 7)), (0.0, 1.0, 2.0, 5.0)).slope[0]
    assert found.tolist() == pytest.approx([2.0, 1.7219, 1.5564, 1.4021], abs=5e-5)


def test_sierpinskis_triangle_has_dimension_log2_3_at_every_order():
    found = generalized_dimensions(coarse_grain(cascade([[1, 0], [1, 1]], 8)), ORDERS)
    assert found.slope[0].tolist() == pytest.approx([np.log2(3)] * 5, abs=1e-9)
    assert found.r_squared[0].tolist() == pytest.approx([1.0] * 5)


@pytest.mark.parametrize(("n", "whisker"), [(64, 1e-6), (256, 1e-6), (100, 0.013), (127, 0.013)])
def test_lines_have_dimension_one_and_the_full_square_two(n, whisker):
    # where n is no power of two a box holds a row more or less than its neighbour
    first = torch.zeros(n, n)
    first[:, 0] = 1
    lines = generalized_dimensions(coarse_grain(torch.stack([torch.eye(n), first, first.T])), ORDERS).slope
    torch.testing.assert_close(lines, torch.ones(3, 5), atol=whisker, rtol=0)
    square = generalized_dimensions(coarse_grain(uniform(full(n))), ORDERS).slope
    torch.testing.assert_close(square, torch.full((1, 5), 2.0), atol=whisker, rtol=0)


def test_previous_token_attention_tends_to_a_line_as_texts_grow():
    lags = [torch.diag(torch.ones(n - 1), -1)[None] for n in (128, 512, 2048)]
    excess = [generalized_dimensions(coarse_grain(lag), (1.0,)).slope.item() - 1 for lag in lags]
    assert excess[0] < 0.13
    assert all(later < 0.6 * earlier for earlier, later in pairwise(excess))


@pytest.mark.parametrize("n", [64, 100, 127, 512])
@pytest.mark.parametrize("support", [causal, full, lambda n: sliding(n, 20)], ids=["causal", "full", "sliding"])
def test_ignorance_has_relative_dimension_exactly_two_at_every_length(n, support):
    fit = relative_dimensions(coarse_grain(uniform(support(n))), support(n), ORDERS)
    torch.testing.assert_close(fit.slope, torch.full((1, 5), 2.0), atol=1e-6, rtol=0)
    steps = fit.local_slope[~fit.local_slope.isnan()]
    torch.testing.assert_close(steps, torch.full_like(steps, 2.0), atol=2e-6, rtol=0)


def test_relative_dimensions_on_the_full_square_are_the_dimensions_themselves():
    boxes = coarse_grain(heads(0, 128, sharpness=3.0))
    relative = relative_dimensions(boxes, full(128), (1.0,)).slope
    torch.testing.assert_close(relative, generalized_dimensions(boxes, (1.0,)).slope, atol=1e-5, rtol=0)


def test_large_orders_follow_the_corner_of_the_causal_triangle():
    # causal uniform has the singularity 1/i at its corner: D_q tends to q / (q - 1) for q > 2
    boxes = coarse_grain(uniform(causal(1024)), sizes=(4, 8, 16, 32, 64, 128, 256))
    found = generalized_dimensions(boxes, (3.0, 5.0, 10.0)).slope[0]
    assert found.tolist() == pytest.approx([1.5, 1.25, 10 / 9], abs=0.01)


def test_random_cascades_are_measured_without_bias():
    # each split adds 1 bit for the rows and the mean entropy of a uniform split, 1 / (2 ln 2), for the keys
    found = generalized_dimensions(coarse_grain(random_cascade(7, heads=600, seed=1)), (1.0,)).slope[:, 0]
    error = float(found.std() / len(found) ** 0.5)
    assert float(found.mean()) == pytest.approx(1 + 0.5 / np.log(2), abs=3 * error)


@pytest.mark.parametrize("weights", BINOMIAL[:3])
def test_the_spectrum_of_a_cascade_is_its_legendre_transform(weights):
    orders = (-2.0, 0.0, 0.5, 1.0, 2.0, 5.0)
    scaled = np.array(weights).ravel() / np.sum(weights)
    spectrum = multifractal_spectrum(coarse_grain(cascade(weights, 7)), orders)
    for column, order in enumerate(orders):
        tilted = scaled**order / (scaled**order).sum()
        assert spectrum.alpha.slope[0, column].item() == pytest.approx(-(tilted * np.log2(scaled)).sum(), abs=1e-9)
        assert spectrum.f.slope[0, column].item() == pytest.approx(-(tilted * np.log2(tilted)).sum(), abs=1e-9)


def test_the_spectrum_touches_the_dimensions_at_orders_zero_and_one():
    boxes = coarse_grain(heads(3, 128, sharpness=2.0, support=causal(128)))
    spectrum, dimensions = multifractal_spectrum(boxes, (0.0, 1.0)), generalized_dimensions(boxes, (0.0, 1.0))
    torch.testing.assert_close(spectrum.f.slope, dimensions.slope, atol=1e-4, rtol=0)
    torch.testing.assert_close(spectrum.alpha.slope[:, 1], dimensions.slope[:, 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("weights", [*BINOMIAL, [[1, 1], [1, 1]], [[1, 0], [1, 1]], [[1, 0], [0, 1]]])
def test_exact_cascades_look_like_themselves(weights):
    assert self_similarity(coarse_grain(cascade(weights, 8))).item() == pytest.approx(1.0, abs=1e-9)


def test_self_similarity_is_no_tautology():
    # the whole splits into (1/2, 0, 0, 1/2), every part evenly: JS((1/2, 0, 0, 1/2) || (1/4, 1/4, 1/4, 1/4)) in bits
    blocks = torch.kron(torch.eye(2), torch.ones(64, 64))[None]
    mixed = np.array([3, 1, 1, 3]) / 8
    expected = 1 - (-(mixed * np.log2(mixed)).sum() - 1.5)
    assert self_similarity(coarse_grain(blocks)).item() == pytest.approx(expected, abs=1e-5)


def test_a_sharp_head_lies_lower_than_a_dull_one_at_every_scale():
    boxes = coarse_grain(torch.cat([heads(1, 64, sharpness=6.0), uniform(full(64))]))
    fit = generalized_dimensions(boxes, (1.0,))
    torch.testing.assert_close(level(fit)[-1], torch.tensor([5.0]))  # mean of 2, 4, 6 and 8 bits
    assert (level(fit)[:3] < 5).all()


seeds = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([32, 64, 96]), st.floats(0.1, 8), st.booleans())
def test_entropies_lie_between_one_and_two_bits_an_octave(seed, n, sharpness, masked):
    # projection on the queries bounds them from below, counting boxes from above; Rényi entropies fall with the order
    pattern = heads(seed, n, sharpness=sharpness, support=causal(n) if masked else None)
    fit = generalized_dimensions(coarse_grain(pattern.double(), sizes=(2, 4, 8)), ORDERS)
    points = fit.log_value[~fit.slope[:, 0].isnan()]
    assert (points >= fit.log_size - 1e-9).all()
    assert (points <= 2 * fit.log_size + 1e-9).all()
    assert (points.diff(dim=1) <= 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(8, 140), st.integers(8, 140))
def test_every_grid_holds_all_the_mass_at_any_length(seed, n_query, n_key):
    pattern = torch.rand(2, n_query, n_key, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    boxes = coarse_grain(pattern)
    for size, mass in zip(boxes.sizes, boxes.masses, strict=True):
        torch.testing.assert_close(mass.sum((1, 2)), torch.ones(2, dtype=torch.float64))
        torch.testing.assert_close(mass[0], torch.from_numpy(twin.box_masses(pattern[0].numpy(), size)))


@given(st.integers(8, 300))
def test_the_diagonal_stays_on_the_diagonal_at_any_length(n):
    for mass in coarse_grain(torch.eye(n)[None]).masses:
        assert (mass[0] - mass[0].diag().diag() == 0).all()


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.01, 100))
def test_dimensions_know_neither_transposition_nor_the_unit_of_weight(seed, unit):
    pattern = heads(seed, 64).double()
    found, turned, scaled = (
        generalized_dimensions(coarse_grain(p), ORDERS).slope for p in (pattern, pattern.mT, pattern * unit)
    )
    torch.testing.assert_close(found, turned)
    torch.testing.assert_close(found, scaled)


@pytest.mark.parametrize("n", [32, 50, 96, 128])
@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_all_heads_at_once_equal_one_head_at_a_time_in_numpy(n, sharpness):
    pattern = heads(n, n, sharpness=sharpness, support=causal(n))
    boxes = coarse_grain(pattern)
    found = generalized_dimensions(boxes, ORDERS).slope.double().numpy()
    for head, usable, slopes in zip(pattern.double().numpy(), boxes.usable, found, strict=True):
        sizes = twin.usable_sizes(head)
        assert [s for s, able in zip(boxes.sizes, usable.tolist(), strict=True) if able] == sizes
        expected = twin.dimensions(head, ORDERS, sizes) if len(sizes) >= 3 else [np.nan] * 5
        np.testing.assert_allclose(slopes, expected, atol=1e-5)


def test_half_precision_is_summed_in_single():
    pattern = heads(0, 128, support=causal(128))
    found = generalized_dimensions(coarse_grain(pattern.bfloat16()), (1.0,)).slope
    torch.testing.assert_close(found, generalized_dimensions(coarse_grain(pattern), (1.0,)).slope, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (torch.eye(30)[None], "30 tokens and attention worth 30 cells leave 2 usable scales"),
        (torch.ones(1, 16, 16), "16 tokens and attention worth 256 cells leave 2 usable scales"),
        (torch.ones(1, 3, 3), "3 tokens .* leave 0 usable scales"),
        (torch.ones(1, 1, 1), "1 tokens .* leave 0 usable scales"),
        (torch.full((1, 64, 64), float("nan")), "holds nan or no weight"),
        (torch.zeros(1, 64, 64), "holds nan or no weight"),
    ],
)
def test_too_few_scales_are_undefined_for_a_reason_and_never_a_constant(pattern, why):
    fit = generalized_dimensions(coarse_grain(torch.cat([pattern, pattern])), ORDERS)
    assert fit.slope.isnan().all()
    assert fit.r_squared.isnan().all()
    assert level(fit).isnan().all()
    assert all(re.search(f"^undefined, because .*{why}", reason) for reason in fit.reasons)
    assert self_similarity(coarse_grain(pattern)).isnan().all()


def test_one_undefined_head_leaves_the_others_alone():
    pattern = torch.cat([heads(0, 64), torch.full((1, 64, 64), float("nan")), torch.eye(64)[None]])
    fit = generalized_dimensions(coarse_grain(pattern), (1.0,))
    assert fit.slope[:, 0].isnan().tolist() == [False, False, False, True, False]
    assert [bool(reason) for reason in fit.reasons] == [False, False, False, True, False]


def test_a_null_can_be_fitted_over_the_scales_of_its_head():
    head = coarse_grain(torch.eye(128).expand(2, -1, -1))
    null = coarse_grain(uniform(causal(128)), like=head)
    assert null.usable.tolist() == [[True, True, True, False, False]] * 2
    assert generalized_dimensions(null, (1.0,)).log_value[:, 0, 3:].isnan().all()
    alone = generalized_dimensions(coarse_grain(uniform(causal(128)), sizes=(2, 4, 8)), (1.0,)).slope
    torch.testing.assert_close(generalized_dimensions(null, (1.0,)).slope, alone.expand(2, -1))


def test_points_that_do_not_vary_have_no_r_squared():
    flat = fit_lines(torch.arange(4.0), torch.ones(1, 4), torch.ones(1, 4, dtype=torch.bool), reasons=("",))
    assert flat.slope.item() == 0.0
    assert flat.r_squared.isnan().all()


@pytest.mark.parametrize("sizes", [(), (4, 2), (2, 2), (2, 3), (1, 2), (2, 128)])
def test_sizes_that_do_not_nest_are_refused(sizes):
    with pytest.raises(ValueError, match="do not nest within 64 tokens"):
        coarse_grain(torch.ones(1, 64, 64), sizes=sizes)


def test_sizes_and_like_together_are_refused():
    with pytest.raises(ValueError, match="sizes or like, not both"):
        coarse_grain(torch.ones(1, 64, 64), sizes=(2, 4), like=coarse_grain(torch.ones(1, 64, 64)))


def test_weights_below_zero_are_refused():
    with pytest.raises(ValueError, match="weights below zero"):
        coarse_grain(-torch.ones(1, 64, 64))


def test_attention_outside_its_support_is_refused():
    with pytest.raises(ValueError, match="support forbids"):
        relative_dimensions(coarse_grain(uniform(full(64))), causal(64), (1.0,))


def test_parts_and_whole_must_split_alike():
    with pytest.raises(ValueError, match="do not grow by one factor"):
        self_similarity(coarse_grain(torch.ones(1, 64, 64), sizes=(2, 4, 16)))
