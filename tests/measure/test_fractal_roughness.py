"""Truth and twin: lacunarity and fluctuations, against closed forms and loops."""

import numpy as np
import pytest
import torch

from atlaskit.measure.pattern import mean_distance
from atlaskit.measure.roughness import detrended_fluctuation, lacunarity
from atlaskit.measure.support import causal, full, uniform


def noise(count, n, *, seed=0):
    return torch.randn(count, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fractional_noise(hurst, count, n, *, seed):
    """Gaussian noise with the exact covariance of fractional Brownian increments (Davies & Harte 1987)."""
    k = np.arange(n + 1)
    covariance = (np.abs(k + 1) ** (2 * hurst) - 2 * k ** (2 * hurst) + np.abs(k - 1) ** (2 * hurst)) / 2
    spectrum = np.fft.fft(np.concatenate([covariance, covariance[-2:0:-1]])).real
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((count, 2 * n)) + 1j * rng.standard_normal((count, 2 * n))
    return torch.from_numpy(np.fft.fft(np.sqrt(spectrum / (2 * n)) * white).real[:, :n].copy())


def test_even_attention_has_no_lacunarity_at_any_window():
    fit = lacunarity(uniform(full(50)))
    torch.testing.assert_close(fit.log_value, torch.zeros(1, 5), atol=1e-6, rtol=0)


def test_lacunarity_of_the_diagonal_is_its_closed_form():
    # a window of r holds r - |a - b| cells of the diagonal, if that is not below zero
    n = 64
    fit = lacunarity(torch.eye(n, dtype=torch.float64)[None])
    for log_size, value in zip(fit.log_size, fit.log_value[0], strict=True):
        r = round(2 ** float(log_size))
        offset = np.arange(n - r + 1)
        held = np.maximum(0, r - np.abs(offset[:, None] - offset))
        assert float(value) == pytest.approx(np.log2((held**2).mean() / held.mean() ** 2), abs=1e-12)


def test_lacunarity_equals_a_loop_over_windows():
    pattern = torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    fit = lacunarity(pattern)
    assert fit.log_size.exp2().tolist() == [1, 2, 4, 8]
    for head, cells in enumerate(pattern.numpy()):
        for column, r in enumerate((1, 2, 4, 8)):
            windows = [cells[a : a + r, b : b + r].sum() for a in range(21 - r) for b in range(21 - r)]
            expected = np.log2(np.mean(np.square(windows)) / np.mean(windows) ** 2)
            assert float(fit.log_value[head, column]) == pytest.approx(expected, abs=1e-10)


def test_lacunarity_of_a_line_falls_by_one_octave_an_octave():
    # slope D_2 - 2; the smallest and the largest windows feel cell and edge
    steps = lacunarity(torch.eye(1024)[None]).local_slope[0, 3:6]
    torch.testing.assert_close(steps, torch.full((3,), -1.0), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    "pattern", [torch.zeros(1, 64, 64), torch.full((1, 64, 64), float("nan")), torch.ones(1, 4, 4)]
)
def test_lacunarity_without_three_windows_is_undefined(pattern):
    fit = lacunarity(pattern)
    assert fit.slope.isnan().all()
    assert fit.reasons[0].startswith("undefined, because")


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("n", [128, 320])
def test_white_noise_fluctuates_as_the_root_of_the_window_even_in_short_windows(degree, n):
    fit = detrended_fluctuation(noise(4000, n), degree=degree)
    squared = (2 * fit.log_value).exp2().mean(0)
    expected = fit.log_size.exp2()
    assert (squared / expected).tolist() == pytest.approx([1.0] * len(expected), abs=0.04)
    assert float(fit.slope.mean()) == pytest.approx(0.5, abs=0.015)


def test_a_random_walk_has_exponent_three_halves():
    fit = detrended_fluctuation(noise(300, 4096).cumsum(-1))
    assert float(fit.slope.mean()) == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("hurst", [0.3, 0.7, 0.9])
def test_fractional_noise_has_its_hurst_exponent(hurst):
    fit = detrended_fluctuation(fractional_noise(hurst, 400, 2048, seed=3))
    assert float(fit.slope.mean()) == pytest.approx(hurst, abs=0.02)


def test_fluctuations_equal_a_loop_of_polynomial_fits():
    series = noise(1, 200)
    fit = detrended_fluctuation(series, degree=2)
    profile = np.cumsum(series[0].numpy() - series[0].numpy().mean())
    for log_size, value in zip(fit.log_size, fit.log_value[0], strict=True):
        size = round(2 ** float(log_size))
        starts = [*range(0, 200 - size + 1, size), *range(200 % size, 200 - size + 1, size)]
        time = np.arange(size)

        def remainder(window, time=time):
            return np.square(window - np.polyval(np.polyfit(time, window, 2), time)).mean()

        found = np.mean([remainder(profile[start : start + size]) for start in starts])
        sums = np.tril(np.ones((size, size)))  # white noise of variance one, summed, in expectation
        white = np.mean([remainder_of_identity(sums, time)])
        assert float(value) == pytest.approx(np.log2(found / white * size) / 2, abs=1e-8)


def remainder_of_identity(sums, time):
    """Expected squared remainder of summed white noise: each unit impulse detrended by a polynomial fit."""
    left = sums - np.stack([np.polyval(np.polyfit(time, impulse, 2), time) for impulse in sums.T], -1)
    return np.square(left).sum() / len(time)


def test_a_straight_trend_changes_nothing():
    series = noise(5, 300)
    found = detrended_fluctuation(series)
    tilted = detrended_fluctuation(series + 3 * torch.arange(300))
    torch.testing.assert_close(found.log_value, tilted.log_value)


@pytest.mark.parametrize(
    "series",
    [
        mean_distance(uniform(causal(300)), causal(300))[:, 1:],
        torch.zeros(1, 300),
        torch.full((1, 300), float("nan")),
        torch.randn(1, 80, generator=torch.Generator().manual_seed(0)),
        torch.ones(1, 5),
    ],
    ids=["ignorant", "zero", "nan", "short", "tiny"],
)
def test_without_fluctuation_or_length_there_is_no_exponent(series):
    fit = detrended_fluctuation(series)
    assert fit.slope.isnan().all()
    assert fit.reasons[0].startswith("undefined, because")


def test_a_degree_that_keeps_the_drift_is_refused():
    with pytest.raises(ValueError, match="degree 0 leaves the drift"):
        detrended_fluctuation(noise(1, 100), degree=0)
