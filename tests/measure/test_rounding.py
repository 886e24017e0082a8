"""Rounding: exact where the grid holds the numbers, textbook noise elsewhere, errors against samples."""

import math

import pytest
import torch

from atlaskit.measure.rounding import blended, eigenbasis, fisher_steps, read_error, rounded, write_error


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size, seed=0):
    return torch.linalg.qr(normal(size, size, seed=seed)).Q


def test_numbers_on_the_grid_stay():
    weight = torch.tensor([[7.0, 14.0, 0.0], [-3.0, 2.0, 0.0]])
    assert torch.equal(rounded(weight, 4), weight)


def test_no_number_moves_by_more_than_half_a_step_and_the_noise_is_uniform():
    weight = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    step = weight.abs().amax(0) / 7
    gap = rounded(weight, 4) - weight
    assert (gap.abs() <= step / 2 + 1e-12).all()
    # the square of a uniform number varies by √(4/5) of its mean; three errors of 4,000
    assert torch.allclose(gap.square().mean(0), step**2 / 12, rtol=3 * math.sqrt(4 / 5 / 4000))


def test_a_rotation_there_and_back_is_rounding_in_its_coordinates():
    weight, basis = normal(5, 8), rotation(8, seed=1)
    assert torch.allclose(rounded(weight, 3, basis=basis) @ basis, rounded(weight @ basis, 3))
    assert torch.allclose(rounded(weight, 24, basis=basis), weight, atol=1e-5)


def test_stretched_steps_cut_what_lies_beyond_the_last_level():
    weight = torch.tensor([[1.0], [0.4]])
    steps = torch.tensor([[0.5], [1.0]])
    assert torch.allclose(rounded(weight, 2, steps=steps), torch.tensor([[0.5], [0.0]]))


def test_even_sensitivity_leaves_the_grid_alone():
    assert torch.allclose(fisher_steps(torch.full((3, 4), 7.0)), torch.ones(3, 4))
    steps = fisher_steps(torch.tensor([[1.0, 0.5, 0.05]]))
    assert steps[0, 0] < steps[0, 1] < steps[0, 2]
    rare = fisher_steps(torch.tensor([[1.0] * 50 + [0.0]]))  # what no text has touched
    assert rare.min() >= 0.25
    assert rare.max() == 4


def test_the_write_error_is_that_of_samples():
    weight, read = normal(6, 9), normal(500, 9, seed=1) * torch.linspace(0.2, 3, 9)
    other = rounded(weight, 3)
    moment = read.T @ read / len(read)
    expected = (read @ (weight - other).T).square().sum() / (read @ weight.T).square().sum()
    assert write_error(weight, other, moment).item() == pytest.approx(expected.item())


def test_the_read_error_is_that_of_rounded_samples():
    weight, read, basis = normal(4, 6), normal(50, 6, seed=1), rotation(6, seed=2)
    seen = basis.T @ read.T  # by hand, a point a column
    step = seen.abs().amax(1, keepdim=True) / 3
    apart = weight @ (read.T - basis @ ((seen / step).round() * step))
    expected = apart.square().sum() / (weight @ read.T).square().sum()
    assert read_error(weight, read, 3, basis=basis).item() == pytest.approx(expected.item())


def test_eigenbases_fall_in_variance():
    moment = torch.diag(torch.tensor([1.0, 9.0, 4.0]))
    assert torch.allclose(eigenbasis(moment).abs(), torch.eye(3).double()[:, [1, 2, 0]])


def test_the_way_between_two_bases_begins_and_ends_there():
    first, second = rotation(7), rotation(7, seed=1)
    assert torch.allclose(blended(first, second, 0.0), first)
    ends = blended(first, second, 1.0)
    assert torch.allclose((ends * second).sum(0).abs(), torch.ones(7).double())
    middle = blended(first, second, 0.4)
    assert torch.allclose(middle.T @ middle, torch.eye(7).double())
    assert torch.allclose(blended(first, -first, 0.5), first)  # signs are arbitrary


def test_one_bit_has_no_zero():
    with pytest.raises(ValueError, match="at least 2 bits; got 1"):
        rounded(normal(2, 2), 1)
