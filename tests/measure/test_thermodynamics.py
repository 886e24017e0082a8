"""Thermodynamic identities, closed forms, and a density matrix made the slow way."""

import math

import pytest
import torch

from atlaskit.measure.pattern import effective_keys, entropy
from atlaskit.measure.support import causal, uniform
from atlaskit.measure.thermodynamics import (
    crystallization_depth,
    effective_temperature,
    free_energy,
    freezing_temperature,
    heat_capacity,
    mean_energy,
    purity,
    runner_up_ratio,
    von_neumann_entropy,
)

KEYS = 12
SUPPORT = torch.ones(KEYS, KEYS, dtype=torch.bool).tril()
CHOICE = SUPPORT.sum(-1) >= 2


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masked(scores):
    return scores.masked_fill(~SUPPORT, -math.inf)


@pytest.fixture
def scores():
    return 2 * normal(3, KEYS, KEYS)


@pytest.mark.parametrize("measure", [free_energy, mean_energy, heat_capacity, effective_temperature, runner_up_ratio])
def test_a_shift_of_a_row_and_the_cells_outside_change_nothing(measure, scores):
    plain = measure(scores, SUPPORT)
    shifted = masked(scores + 5 * normal(3, KEYS, 1, seed=1))
    assert torch.allclose(measure(shifted, SUPPORT), plain, equal_nan=True, atol=1e-5)
    assert torch.equal(plain.isfinite().all(0), CHOICE)  # one key leaves no choice


@pytest.mark.parametrize("measure", [free_energy, mean_energy, heat_capacity, effective_temperature, runner_up_ratio])
def test_log_weights_are_scores(measure, scores):
    weights = masked(scores).log_softmax(-1)
    assert torch.allclose(measure(weights, SUPPORT), measure(scores, SUPPORT), equal_nan=True, atol=1e-4)


def test_free_energy_is_energy_less_entropy(scores):
    nats = entropy(masked(scores).softmax(-1), SUPPORT) * math.log(2)
    assert torch.allclose(free_energy(scores, SUPPORT)[:, CHOICE], (mean_energy(scores, SUPPORT) - nats)[:, CHOICE])


def test_heat_capacity_is_the_slope_of_energy_over_temperature(scores):
    step = 1e-2

    def energy_at(temperature):
        return temperature * mean_energy(scores / temperature, SUPPORT)

    slope = (energy_at(1 + step) - energy_at(1 - step)) / (2 * step)
    assert torch.allclose(heat_capacity(scores, SUPPORT)[:, CHOICE], slope[:, CHOICE], rtol=1e-3, atol=1e-3)


def test_two_levels_have_the_schottky_heat_capacity():
    gap = torch.tensor([0.0, 0.5, 2.4, 9.0])
    scores = torch.stack([gap, torch.zeros(4)], -1)[None]
    support = torch.ones(4, 2, dtype=torch.bool)
    expected = gap.square() * gap.exp() / (1 + gap.exp()).square()
    assert torch.allclose(heat_capacity(scores, support)[0], expected)
    assert torch.allclose(mean_energy(scores, support)[0], -gap / 2 * (gap / 2).tanh(), atol=1e-6)
    assert torch.allclose(runner_up_ratio(scores, support)[0], (-gap).exp())


def test_an_ignorant_row_has_no_energy_and_infinite_temperature():
    ignorant = uniform(causal(KEYS)).log()
    keys = torch.arange(1, KEYS + 1)[CHOICE].float()
    assert torch.allclose(free_energy(ignorant, SUPPORT)[0, CHOICE], -keys.log())
    assert mean_energy(ignorant, SUPPORT)[0, CHOICE].abs().max() < 1e-6
    assert heat_capacity(ignorant, SUPPORT)[0, CHOICE].abs().max() < 1e-6
    assert torch.allclose(runner_up_ratio(ignorant, SUPPORT)[0, CHOICE], torch.ones(1))
    assert effective_temperature(torch.zeros(1, KEYS, KEYS), SUPPORT)[0, CHOICE].isposinf().all()


def test_temperature_is_that_of_standardised_scores():
    standard = normal(1, 1, 500)
    standard = (standard - standard.mean()) / standard.std(correction=0)
    support = torch.ones(1, 500, dtype=torch.bool)
    assert effective_temperature(standard / 0.37, support).item() == pytest.approx(0.37)


def test_random_scores_freeze_where_theory_says():
    # the random energy model keeps n^(1 - (Tc/T)²) keys in play above Tc, and a handful below, whatever n is
    support = torch.ones(40, 20_000, dtype=torch.bool)
    freezing = freezing_temperature(support[:1]).item()
    assert freezing == pytest.approx(1 / math.sqrt(2 * math.log(20_000)))

    def keys_at(temperature):
        return effective_keys((normal(1, 40, 20_000) / temperature).softmax(-1), support).median().item()

    warm = 3 * freezing
    entropy_per_key = 1 - (freezing / warm) ** 2
    # by the delta method on log Z - b d(log Z)/db, with b = 1 / T; a median of normal deviates errs 1.25 times as much
    square = warm**-2
    sd = math.sqrt(math.exp(square) * ((1 - square) ** 2 + square) / 20_000)
    error = 1.25 * sd / math.sqrt(40) / math.log(20_000)
    assert math.log(keys_at(warm)) / math.log(20_000) == pytest.approx(entropy_per_key, abs=3 * error)
    assert keys_at(0.5 * freezing) < 10


def test_one_key_cannot_freeze():
    assert freezing_temperature(SUPPORT).isnan().tolist() == [True] + [False] * (KEYS - 1)
    assert runner_up_ratio(torch.zeros(1, 3, 1), torch.ones(3, 1, dtype=torch.bool)).isnan().all()


def test_crystallization_is_read_from_the_end_of_the_stack():
    ratio = torch.tensor([[0.9, 0.01, 0.4, 0.02, 0.01], [0.01, 0.01, 0.01, 0.01, 0.01], [0.1, 0.1, 0.1, 0.1, 0.9]])
    depth = crystallization_depth(ratio, torch.tensor([0.015, 0.05, 0.5]))
    assert depth[0].tolist() == [4, 3, 1]
    assert depth[1].tolist() == [0, 0, 0]
    assert depth[2].isnan().all()


def test_a_layer_without_a_ratio_has_not_settled():
    assert crystallization_depth(torch.tensor([[0.01, math.nan, 0.01]]), torch.tensor([0.05])).item() == 2


def density(weights, values):
    unit = values / values.norm(dim=-1, keepdim=True)
    return sum(w * torch.outer(v, v) for w, v in zip(weights, unit, strict=True))


def test_purity_and_entropy_are_those_of_the_density_matrix():
    pattern = masked(normal(2, KEYS, KEYS)).softmax(-1)
    values = normal(2, KEYS, 5, seed=1)
    pure, bits = purity(pattern, values), von_neumann_entropy(pattern, values)
    for head in range(2):
        for query in range(KEYS):
            rho = density(pattern[head, query].double(), values[head].double())
            eigenvalues = torch.linalg.eigvalsh(rho).clamp_min(1e-300)
            assert pure[head, query].item() == pytest.approx((rho @ rho).trace().item(), rel=1e-5)
            expected = -(eigenvalues * eigenvalues.log2()).sum().item()
            assert bits[head, query].item() == pytest.approx(expected, abs=1e-5)


def test_orthogonal_values_make_the_density_as_mixed_as_the_row():
    pattern = masked(normal(1, KEYS, KEYS)).softmax(-1)
    orthogonal = 3 * torch.linalg.qr(normal(1, KEYS, KEYS, seed=1)).Q
    assert torch.allclose(von_neumann_entropy(pattern, orthogonal)[:, 1:], entropy(pattern, SUPPORT)[:, 1:], atol=1e-5)
    assert torch.allclose(purity(pattern, orthogonal), pattern.square().sum(-1), atol=1e-6)


def test_values_along_one_line_are_pure_whatever_the_row():
    pattern = masked(normal(1, KEYS, KEYS)).softmax(-1)
    line = normal(1, KEYS, 1, seed=1) * normal(1, 1, 7, seed=2)
    assert torch.allclose(purity(pattern, line), torch.ones(1), atol=1e-5)
    assert von_neumann_entropy(pattern, line).abs().max() < 1e-4


def test_the_density_is_never_more_mixed_than_the_row():
    pattern = masked(3 * normal(4, KEYS, KEYS)).softmax(-1)
    bits = von_neumann_entropy(pattern, normal(4, KEYS, 6, seed=1))
    assert (bits[:, 1:] <= entropy(pattern, SUPPORT)[:, 1:] + 1e-5).all()
    assert bits.max() <= math.log2(6)


def test_long_rows_are_summed_in_parts():
    pattern, values = normal(1, 4, 200).softmax(-1), normal(1, 200, 3, seed=1)
    rho = density(pattern[0, 0], values[0])
    assert von_neumann_entropy(pattern, values)[0, 0].item() == pytest.approx(
        torch.special.entr(torch.linalg.eigvalsh(rho)).sum().item() / math.log(2), abs=1e-5
    )


def test_weight_on_a_value_without_direction_is_undefined():
    pattern = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]])
    values = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])
    assert purity(pattern, values).isnan().tolist() == [[True, False]]
    assert von_neumann_entropy(pattern, values).isnan().tolist() == [[True, False]]
    assert purity(pattern, values)[0, 1].item() == pytest.approx(0.5)
    assert von_neumann_entropy(pattern, values)[0, 1].item() == pytest.approx(1)
