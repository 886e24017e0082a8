"""Truth: closed forms of potentials and fractal coordinates; bounds on gradients. Border: what is kept, and when."""

import math

import pytest
import torch

from atlaskit.fractal_attention import bias, curves, patterns


def potential(z, c, iterations=40):
    return bias.green_potential(z, c, iterations=iterations, escape_radius=1e4)


def plane(size, half=2.0):
    line = torch.linspace(-half, half, size, dtype=torch.float64)
    return torch.complex(*torch.meshgrid(line, line, indexing="xy"))


def test_the_potential_of_the_disc_is_the_logarithm():
    """For c = 0 the Julia set is the unit circle and G(z) = log+ |z| exactly."""
    z = plane(65)
    truth = z.abs().log().clamp(min=0)
    torch.testing.assert_close(potential(z, torch.zeros((), dtype=z.dtype)), truth, rtol=0, atol=1e-12)


def test_the_potential_of_the_segment_is_that_of_joukowski():
    """For c = -2 the Julia set is [-2, 2], and G(w + 1/w) = log |w|."""
    w = torch.polar(torch.linspace(1.05, 3, 40, dtype=torch.float64), torch.linspace(0.1, 6, 40, dtype=torch.float64))
    ours = potential(w + 1 / w, torch.tensor(-2, dtype=w.dtype))
    torch.testing.assert_close(ours, w.abs().log(), rtol=1e-7, atol=0)


def test_one_step_doubles_the_potential():
    z, c = plane(33), torch.tensor(-0.7 + 0.27j, dtype=torch.complex128)
    torch.testing.assert_close(potential(z * z + c, c, 39), 2 * potential(z, c, 40), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("c", [-0.7 + 0.27j, -0.123 + 0.745j])
def test_the_slope_of_the_potential_in_c_is_bounded(c):
    """The smoothed escape time it replaces had slopes of 10^3 to 10^5 here; the potential has at most about 1.5."""
    z = plane(128).flatten()
    parts = torch.tensor([c.real, c.imag], dtype=torch.float64).repeat(len(z), 1).requires_grad_()
    field = bias.green_potential(z, torch.complex(*parts.unbind(1)), iterations=24, escape_radius=1e3)
    (slope,) = torch.autograd.grad(field.sum(), parts)
    assert slope.norm(dim=1).isfinite().all()
    assert slope.norm(dim=1).max() < 2


def test_interior_points_have_no_potential_and_no_slope():
    c = torch.zeros(2, requires_grad=True)
    field = bias.green_potential(
        torch.zeros(5, dtype=torch.complex64), torch.complex(*c), iterations=50, escape_radius=10
    )
    assert (field == 0).all()
    assert (torch.autograd.grad(field.sum(), c)[0] == 0).all()


def test_a_bias_of_distance_reads_its_table():
    place = torch.arange(20)
    lag = (place[:, None] - place).abs()
    by_lag = bias.LagBias(2, patterns.log_lags(), longest=19)
    by_depth = bias.CantorDepthBias(2, levels=2)
    by_turn = bias.DragonBias(2, folds=3)
    with torch.no_grad():
        for module in (by_lag, by_depth, by_turn):
            for parameter in module.parameters():
                parameter.copy_(torch.arange(parameter.numel()).view_as(parameter) + 1)
    values = dict(zip([0, 1, 2, 4, 8, 16], range(1, 7), strict=True))
    assert by_lag(place[:, None], place)[0].tolist() == [[values.get(int(d), 0) for d in row] for row in lag]
    for d in range(20):
        ternary = sum(digit != "0" for digit in ("0" if d == 0 else _ternary(d)))
        assert by_depth(torch.tensor([d]), torch.tensor([0]))[0].item() == 1 + min(ternary, 2)
        if d:
            level, odd = (d & -d).bit_length() - 1, d // (d & -d)
            assert by_turn(torch.tensor([d]), torch.tensor([0]))[0].item() == 1 + 2 * min(level, 2) + (odd % 4 == 3)


def _ternary(number):
    return (_ternary(number // 3) if number >= 3 else "") + str(number % 3)


def test_the_koch_bias_falls_with_distance_to_the_power_log3_over_log4():
    koch = bias.KochBias(1)
    at = [-koch(torch.tensor([4**power]), torch.tensor([0])).item() for power in (2, 6)]
    assert math.log(at[1] / at[0]) / math.log(4**4) == pytest.approx(math.log(3) / math.log(4), rel=1e-4)
    assert koch(torch.tensor([7]), torch.tensor([7])).item() == 0
    place = torch.arange(500)
    assert (curves.koch_points(place[1:]) - curves.koch_points(place[:-1])).abs().max() < 1 + 1e-9


def test_a_learned_julia_field_is_computed_anew_and_a_frozen_one_is_kept():
    field = bias.PotentialBias(2, resolution=16)
    assert field.potential() is not field.potential()
    assert field.potential().requires_grad
    field.c.requires_grad_(False)
    kept = field.potential()
    assert field.potential() is kept
    with torch.no_grad():
        field.c.fill_(0.3)
    assert not torch.equal(field.potential(), kept)
    assert bias.PotentialBias(2, "mandelbrot", resolution=16, keep_frozen=False)._kept is None


def test_a_frozen_field_follows_the_weights_that_are_loaded():
    one, other = bias.PotentialBias(1, c=0.3 + 0.1j, resolution=16), bias.PotentialBias(1, c=-1 + 0.2j, resolution=16)
    for field in (one, other):
        field.c.requires_grad_(False)
        field.potential()
    one.load_state_dict(other.state_dict())
    assert torch.equal(one.potential(), other.potential())


def test_c_is_held_within_a_circle_of_two():
    wild, held = bias.PotentialBias(1, c=30 + 40j, resolution=16), bias.PotentialBias(1, c=1.2 + 1.6j, resolution=16)
    torch.testing.assert_close(wild.potential(), held.potential(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bias.LagBias(1, patterns.sierpinski(), longest=9), "LagBias needs a pattern of distances"),
        (lambda: bias.PotentialBias(1, escape_radius=1.0).potential(), "escape_radius is 1.0; below 2 a point"),
    ],
)
def test_a_bias_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
