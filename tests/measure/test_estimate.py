"""Coverage, closed forms and twins of the statistics."""

import math

import pytest
import torch
from scipy.stats import false_discovery_control, kstest, permutation_test

from atlaskit import measure


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    """300 corpora of 40 documents, nominal 95 %: three binomial standard errors and the bootstrap's own allow 90–98."""
    hits = 0
    for seed in range(300):
        found = measure.estimate(normal(40, seed=seed) + 2.0, normal(40, seed=10_000 + seed), unit="bits", seed=seed)
        hits += found.low <= 2.0 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_the_interval_shrinks_with_the_root_of_the_documents():
    few = measure.estimate(normal(50, seed=1), normal(50, seed=2), unit="")
    many = measure.estimate(normal(5000, seed=1), normal(5000, seed=2), unit="")
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.3)


def test_a_value_far_from_its_null_beats_it_and_chance_does_not():
    null = normal(30, seed=0)
    assert measure.estimate(null + 5, null, unit="bits").beats_null
    assert not measure.estimate(normal(30, seed=3), null, unit="bits").beats_null


def test_permutation_draws_give_a_p_value_and_documents_do_not():
    values, draws = normal(30, seed=0), normal(199, 30, seed=1)
    assert measure.estimate(values + 5, draws, unit="").p == pytest.approx(1 / 200)
    assert math.isnan(measure.estimate(values, draws[0], unit="").p)


def test_permutation_p_values_of_chance_are_uniform():
    """500 tests of nothing, 99 draws each: Kolmogorov–Smirnov cannot tell their p-values from uniform."""
    p = measure.permutation_p(normal(500, seed=5), normal(99, 500, seed=6))
    assert kstest(p.numpy(), "uniform").pvalue > 0.01


def test_documents_without_a_value_are_left_out_and_counted_so():
    values = torch.tensor([1.0, float("nan"), 3.0, 5.0])
    null = torch.tensor([0.0, 0.0, float("nan"), 0.0])
    found = measure.estimate(values, null, unit="bits")
    assert found.n == 2
    assert found.value == 3.0


def test_one_document_has_no_interval():
    with pytest.raises(ValueError, match=r"1 of 2 documents have a defined value and null; .* at least 2"):
        measure.estimate(torch.tensor([1.0, float("nan")]), torch.zeros(2), unit="bits")


def test_false_discovery_is_what_scipy_decides():
    for seed in range(20):
        p = torch.rand(200, generator=torch.Generator().manual_seed(seed)) ** 2
        theirs = false_discovery_control(p.numpy(), method="bh") <= 0.05
        assert measure.false_discovery(p).tolist() == theirs.tolist()


def test_tests_that_were_not_made_are_not_counted():
    p = torch.tensor([0.04, float("nan"), float("nan")])
    assert measure.false_discovery(p).tolist() == [True, False, False]
    assert not measure.false_discovery(torch.full((3,), float("nan"))).any()


def test_the_rate_of_false_discoveries_holds():
    """100 heads, 20 with a real effect, 300 repeats: the mean share of false ones stays within the stated 5 %."""
    shares = []
    for seed in range(300):
        z = normal(100, seed=seed)
        z[:20] += 4
        p = torch.special.erfc(z.abs() / math.sqrt(2))
        found = measure.false_discovery(p)
        shares.append(float(found[20:].sum()) / max(int(found.sum()), 1))
    assert sum(shares) / 300 <= 0.05 + 3 * 0.05 / math.sqrt(300)


def test_sign_flips_of_nothing_give_uniform_p_values():
    values, null = normal(30, 400, seed=7), normal(30, 400, seed=8)
    assert kstest(measure.paired_p(values, null).numpy(), "uniform").pvalue > 0.01


def test_sign_flips_agree_with_scipys_exact_test_on_eight_documents():
    """All 256 sign patterns, enumerated by SciPy; ours draws 2,000 of them, within 5 standard errors."""
    apart = normal(8, 6, seed=9) + 0.5
    theirs = permutation_test(
        (apart.double().numpy(),), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=math.inf
    )
    ours = measure.paired_p(apart, torch.zeros(8, 6))
    for one, other in zip(ours.tolist(), theirs.pvalue, strict=True):
        assert one == pytest.approx(other, abs=5 * math.sqrt(0.25 / 2000))


def test_a_head_without_documents_has_no_p_value():
    values = normal(6, 2, seed=1)
    values[:, 1] = float("nan")
    assert measure.paired_p(values, torch.zeros(6, 2)).isnan().tolist() == [False, True]
