"""Truth: fractal interpolation against curves known in closed form."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaskit.measure.interpolation import fractal_interpolation, interpolation_dimension, vertical_scaling


def drawn(seed, intervals):
    generator = torch.Generator().manual_seed(seed)
    knots = torch.randn(2, intervals + 1, generator=generator, dtype=torch.float64)
    scaling = torch.rand(2, intervals, generator=generator, dtype=torch.float64) * 1.8 - 0.9
    return knots, scaling


def test_takagis_curve():
    # T(x) = sum of the distances from 2^k x to the nearest integer, over 2^k: knots 0, 1/2, 0 and d = 1/2
    curve = fractal_interpolation(
        torch.tensor([[0.0, 0.5, 0.0]], dtype=torch.float64), torch.full((1, 2), 0.5, dtype=torch.float64), depth=10
    )
    x = np.linspace(0, 1, 1025)
    takagi = sum(np.abs(2.0**k * x - np.round(2.0**k * x)) / 2.0**k for k in range(10))
    np.testing.assert_allclose(curve[0].numpy(), takagi, atol=1e-14)


def test_a_parabola_is_a_fractal_interpolation_function():
    # x (1 - x) at x / 2: half the slope, a quarter of the bend
    knots = torch.tensor([[0.0, 0.25, 0.0]], dtype=torch.float64)
    curve = fractal_interpolation(knots, torch.full((1, 2), 0.25, dtype=torch.float64), depth=8)
    x = torch.linspace(0, 1, 257, dtype=torch.float64)
    torch.testing.assert_close(curve[0], x * (1 - x))
    assert interpolation_dimension(torch.full((1, 2), 0.25)).item() == 1.0


def test_without_vertical_scaling_the_curve_is_the_polygon():
    knots, scaling = drawn(0, 4)
    curve = fractal_interpolation(knots, scaling * 0, depth=3)
    expected = np.stack([np.interp(np.linspace(0, 4, 65), np.arange(5), row) for row in knots.numpy()])
    np.testing.assert_allclose(curve.numpy(), expected, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_the_curve_goes_through_its_knots_and_every_part_is_a_copy_of_the_whole(seed, intervals):
    knots, scaling = drawn(seed, intervals)
    curve = fractal_interpolation(knots, scaling, depth=4)
    width = intervals**3
    torch.testing.assert_close(curve[:, ::width], knots)
    whole = curve[:, ::intervals]
    for i in range(intervals):
        rest = curve[:, i * width : (i + 1) * width + 1] - scaling[:, i, None] * whole
        # what is left after scaling is a straight line
        torch.testing.assert_close(rest.diff(n=2), torch.zeros(2, width - 1, dtype=torch.float64), atol=1e-12, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_vertical_scalings_are_found_again_in_the_curve_they_made(seed, intervals):
    knots, scaling = drawn(seed, intervals)
    curve = fractal_interpolation(knots, scaling, depth=3)
    torch.testing.assert_close(vertical_scaling(curve, intervals=intervals), scaling, atol=1e-8, rtol=0)


@pytest.mark.parametrize("d", [0.65, 0.7, 0.75])
def test_the_dimension_is_how_fast_the_oscillation_grows(d):
    # summed ranges over 2^k intervals grow as (2 d)^k, so boxes of that width number (4 d)^k
    scaling = torch.full((1, 2), d, dtype=torch.float64)
    curve = fractal_interpolation(torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64), scaling, depth=20)[0]
    boxes = []
    for k in (4, 6, 8):
        windows = curve[:-1].reshape(2**k, -1)
        reach = torch.cat([windows, curve[1:].reshape(2**k, -1)[:, -1:]], -1)
        boxes.append(float((reach.amax(1) - reach.amin(1)).sum() * 2**k))
    growth = np.polyfit([4, 6, 8], np.log2(boxes), 1)[0]
    assert growth == pytest.approx(interpolation_dimension(scaling).item(), abs=0.02)
    assert interpolation_dimension(scaling).item() == pytest.approx(1 + np.log2(2 * d))


def test_a_straight_profile_has_no_scaling_and_no_dimension():
    scaling = vertical_scaling(torch.linspace(1, 3, 13)[None], intervals=3)
    assert scaling.isnan().all()
    assert interpolation_dimension(scaling).isnan().all()


def test_maps_that_do_not_contract_are_refused_and_have_no_dimension():
    scaling = torch.tensor([[0.5, 1.0]])
    assert interpolation_dimension(scaling).isnan().all()
    with pytest.raises(ValueError, match="vertical scalings reach 1"):
        fractal_interpolation(torch.rand(1, 3), scaling, depth=2)


def test_knots_and_scalings_must_agree():
    with pytest.raises(ValueError, match="3 knots have 2 intervals, not 3 scalings"):
        fractal_interpolation(torch.rand(1, 3), torch.zeros(1, 3), depth=2)


@pytest.mark.parametrize(("points", "intervals"), [(12, 3), (13, 1), (4, 3), (13, 5)])
def test_a_profile_that_does_not_divide_is_refused(points, intervals):
    with pytest.raises(ValueError, match="do not divide into"):
        vertical_scaling(torch.rand(1, points), intervals=intervals)
