"""Planted truth and calibration: nulls that find nothing in noise and everything that was put there."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, kstest

from atlaskit.measure.boxes import coarse_grain
from atlaskit.measure.estimate import estimate, false_discovery, permutation_p
from atlaskit.measure.fractal import generalized_dimensions, self_similarity
from atlaskit.measure.interpolation import vertical_scaling
from atlaskit.measure.nulls import permuted_rows, toeplitz
from atlaskit.measure.nulls_fractal import column_marginal, surrogates
from atlaskit.measure.pattern import mean_distance
from atlaskit.measure.roughness import detrended_fluctuation, lacunarity
from atlaskit.measure.scaling import level
from atlaskit.measure.support import causal, full, sliding, uniform

spec = importlib.util.spec_from_file_location("numpy_fractal", Path(__file__).with_name("numpy_fractal.py"))
twin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(twin)


def unstructured(count, n, *, seed):
    """Causal heads whose scores are independent noise, each head with its own sharpness."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = torch.rand(count, 1, 1, generator=generator) * 3 + 0.5
    scores = torch.randn(count, n, n, generator=generator) * sharpness
    return scores.masked_fill(~causal(n), float("-inf")).softmax(-1)


def planted(n, *, seed):
    """A band of 8 keys, blocks of 8 tokens, and a sink that takes most: each over noise."""
    lag = torch.arange(n)[:, None] - torch.arange(n)
    block = torch.arange(n) // 8
    favours = torch.stack([lag < 8, block[:, None] == block, (torch.arange(n) == 0).expand(n, n)])
    noise = torch.randn(3, n, n, generator=torch.Generator().manual_seed(seed))
    return (noise + 5.0 * favours).masked_fill(~causal(n), float("-inf")).softmax(-1)


def slope(boxes):
    return generalized_dimensions(boxes, (1.0,)).slope[:, 0]


def height(boxes):
    return level(generalized_dimensions(boxes, (1.0,)))[:, 0]


def spread(boxes):
    return generalized_dimensions(boxes, (2.0,)).slope[:, 0]


def p_values(measure, pattern, support, *, draws, seed):
    boxes = coarse_grain(pattern)
    null = surrogates(measure, pattern, support, like=boxes, draws=draws, seed=seed)
    return permutation_p(measure(boxes), null)


def test_a_deal_keeps_every_row_its_weights_and_its_support():
    n = 24
    pattern, support = unstructured(4, n, seed=0), causal(n)
    cells = coarse_grain(pattern, sizes=(2, n))  # boxes of one cell: the surrogate itself
    dealt = surrogates(lambda boxes: boxes.masses[-1].flatten(1), pattern, support, like=cells, draws=5, seed=3)
    dealt = dealt.reshape(5, 4, n, n) * n
    torch.testing.assert_close(dealt.sort(-1).values, pattern.sort(-1).values.expand(5, -1, -1, -1))
    assert not dealt[..., ~support].any()
    assert not torch.equal(dealt[0], dealt[1])
    assert (dealt[0] != pattern).any(-1).any(0)[2:].all()


def test_a_deal_gives_every_key_the_same_chance():
    n, draws = 4, 4000
    pattern = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]])[None]
    cells = coarse_grain(pattern, sizes=(2, n))
    dealt = surrogates(lambda boxes: boxes.masses[-1].flatten(1), pattern, causal(n), like=cells, draws=draws, seed=0)
    counts = (dealt.reshape(draws, n, n) * n).sum(0).round().int()
    for i in range(1, n):
        for j in range(i + 1):
            assert binomtest(int(counts[i, j]), draws, 1 / (i + 1)).pvalue > 1e-4


def test_within_a_deal_all_heads_are_dealt_alike():
    pattern = unstructured(1, 32, seed=2).expand(3, -1, -1)
    boxes = coarse_grain(pattern)
    null = surrogates(slope, pattern, causal(32), like=boxes, draws=4, seed=0)
    torch.testing.assert_close(null[:, 0], null[:, 1])
    assert null[:, 0].unique().numel() == 4


def test_the_same_seed_deals_the_same_and_another_seed_another():
    pattern = unstructured(2, 32, seed=2)
    boxes = coarse_grain(pattern)
    one, same, other = (surrogates(slope, pattern, causal(32), like=boxes, draws=2, seed=s) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_surrogates_have_the_distribution_of_the_numpy_twin():
    pattern, support, draws = unstructured(2, 32, seed=5), causal(32), 400
    boxes = coarse_grain(pattern)
    null = surrogates(slope, pattern, support, like=boxes, draws=draws, seed=0)
    observed, expected = twin.dimensions_and_surrogates(
        pattern.double().numpy(), support.numpy(), orders=(1.0,), draws=draws, seed=1
    )
    np.testing.assert_allclose(slope(boxes).numpy(), observed[:, 0], atol=1e-5)
    for head in range(2):
        assert kstest(null[:, head].numpy(), expected[:, head, 0]).pvalue > 1e-3


def test_p_values_of_500_unstructured_heads_are_uniform():
    measures = (slope, height, spread, self_similarity)
    pattern = unstructured(500, 64, seed=11)
    together = p_values(
        lambda boxes: torch.stack([measure(boxes) for measure in measures], -1), pattern, causal(64), draws=199, seed=12
    )
    for p in together.T:
        assert kstest(p.numpy(), "uniform").pvalue > 0.01
        assert false_discovery(p).sum() <= 3


def test_false_discoveries_stay_at_the_stated_rate_and_planted_heads_are_found():
    shares, found = [], []
    for trial in range(8):
        pattern = torch.cat([unstructured(90, 48, seed=trial), *(planted(48, seed=100 * trial + k) for k in range(5))])
        believed = false_discovery(p_values(slope, pattern, causal(48), draws=249, seed=trial), rate=0.1)
        shares.append(float(believed[:90].sum() / believed.sum().clamp(min=1)))
        found.append(believed[90:].float().mean())
    assert np.mean(shares) < 0.1 + 2 * np.std(shares) / np.sqrt(len(shares))
    assert min(found) == 1.0


@pytest.mark.parametrize("measure", [slope, height])
@pytest.mark.parametrize("n", [64, 127])
def test_band_block_and_sink_heads_beat_their_permuted_selves(measure, n):
    pattern = planted(n, seed=1)
    boxes = coarse_grain(pattern)
    null = surrogates(measure, pattern, causal(n), like=boxes, draws=99, seed=0)
    assert ((measure(boxes) - null.mean(0)) / null.std(0) < -8).all()


def test_bootstrap_intervals_over_texts_cover_the_true_dimension():
    # rows of equal mass, keys split at independent uniform points: every octave adds 1 + 1 / (2 ln 2) bits on average,
    # so the expected slope is known exactly; 40 texts a trial
    texts, trials, truth = 40, 300, 1 + 0.5 / np.log(2)
    generator = torch.Generator().manual_seed(5)
    cells = torch.ones(texts * trials, 1, 1)
    for _ in range(5):
        cells = cells.repeat_interleave(2, 1) / 2
        share = torch.rand(cells.shape, generator=generator)
        cells = torch.stack([cells * share, cells * (1 - share)], -1).flatten(2)
    values = slope(coarse_grain(cells)).reshape(trials, texts)
    assert not values.isnan().any()
    intervals = [estimate(value, value, unit="bits per octave", seed=k) for k, value in enumerate(values)]
    covered = np.mean([one.low <= truth <= one.high for one in intervals])
    assert 0.90 <= covered <= 0.98


def holes(pattern):
    return lacunarity(pattern).slope


def memory(pattern):
    return detrended_fluctuation(mean_distance(pattern, causal(pattern.shape[1]))[:, 1:]).slope


def bend(pattern):
    """Vertical scaling of the last third of each head's profile over keys, all heads at once."""
    profile = pattern.mean(1)
    return vertical_scaling(profile[:, : 3 * ((profile.shape[1] - 1) // 3) + 1], intervals=3)[:, -1]


def permuted_p(measure, pattern, *, draws):
    support = causal(pattern.shape[1])
    null = torch.stack([measure(permuted_rows(pattern, support, seed=i)) for i in range(draws)])
    return permutation_p(measure(pattern).double(), null.double())


@pytest.mark.parametrize(("measure", "count", "n"), [(holes, 200, 32), (memory, 40, 100), (bend, 200, 32)])
def test_measures_of_whole_patterns_are_calibrated_too(measure, count, n):
    p = permuted_p(measure, unstructured(count, n, seed=3), draws=39)
    assert kstest(p.numpy(), "uniform").pvalue > 0.01
    assert false_discovery(p).sum() <= 3


def test_holes_and_memory_are_found_where_they_were_planted():
    assert (permuted_p(holes, planted(64, seed=2)[:2], draws=39) == 1 / 40).all()  # band and blocks
    n = 128
    reach = (torch.arange(n) // 2 + 20 * torch.sin(torch.arange(n) / 9)).clamp(0).minimum(torch.arange(n)).long()
    slow = torch.nn.functional.one_hot(torch.arange(n) - reach, n).float()[None]  # looks back ever further, in waves
    assert (permuted_p(memory, slow, draws=39) == 1 / 40).all()
    assert memory(slow).item() > 1


@pytest.mark.parametrize("support", [causal(40), full(40), sliding(40, 7)])
def test_ignorance_is_its_own_column_marginal(support):
    torch.testing.assert_close(column_marginal(uniform(support), support), uniform(support))


def test_the_column_marginal_keeps_a_sink_and_forgets_a_band():
    n = 128
    pattern = planted(n, seed=0)
    null = column_marginal(pattern, causal(n))
    torch.testing.assert_close(null.sum(-1), torch.ones(3, n))
    assert not null[:, ~causal(n)].any()
    boxes = coarse_grain(pattern)
    gap = slope(coarse_grain(null, like=boxes)) - slope(boxes)
    assert gap[0] > 0.2  # the band is more than its favoured keys
    assert abs(gap[2]) < 0.005  # the sink is nothing else but noise


def test_the_profile_over_distances_keeps_a_band_and_forgets_a_sink():
    n = 128
    pattern = planted(n, seed=0)
    boxes = coarse_grain(pattern)
    gap = slope(coarse_grain(toeplitz(pattern, causal(n)), like=boxes)) - slope(boxes)
    assert abs(gap[0]) < 0.005  # the noise over the band
    assert gap[2] > 0.2


def test_weight_outside_the_support_is_refused():
    pattern = uniform(full(32))
    with pytest.raises(ValueError, match=r"outside this \(32, 32\) support"):
        surrogates(slope, pattern, causal(32), like=coarse_grain(pattern), draws=1, seed=0)


def test_no_draws_make_no_null():
    pattern = uniform(full(32))
    with pytest.raises(ValueError, match="0 draws make no null"):
        surrogates(slope, pattern, full(32), like=coarse_grain(pattern), draws=0, seed=0)
