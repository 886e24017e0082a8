"""What each null keeps and what it forgets."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlaskit import measure


def random_pattern(seed: int, n: int, support: torch.Tensor) -> torch.Tensor:
    scores = 3 * torch.randn(2, n, n, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(~support, -math.inf).softmax(-1)


@given(st.integers(0, 2**31), st.integers(2, 12), st.sampled_from([measure.full, measure.causal]))
def test_permuted_rows_keep_their_weights_and_their_support(seed, n, make):
    support = make(n)
    pattern = random_pattern(seed, n, support)
    shuffled = measure.permuted_rows(pattern, support, seed=seed)
    assert (shuffled[:, ~support] == 0).all()
    torch.testing.assert_close(shuffled.sort(-1).values, pattern.sort(-1).values, rtol=0, atol=0)


def test_permuted_rows_put_every_weight_everywhere_equally_often():
    """One weight among 4 allowed keys: each place has probability ¼, within 5 standard errors of 4,000 rows."""
    support = torch.ones(4000, 6, dtype=torch.bool)
    support[:, 4:] = False
    pattern = torch.zeros(1, 4000, 6)
    pattern[..., 2] = 1.0
    share = measure.permuted_rows(pattern, support, seed=1)[0].mean(0)
    assert (share[4:] == 0).all()
    assert ((share[:4] - 0.25).abs() < 5 * math.sqrt(0.25 * 0.75 / 4000)).all()


def test_the_same_seed_gives_the_same_permutation():
    pattern = random_pattern(3, 8, measure.causal(8))
    first, again, other = (measure.permuted_rows(pattern, measure.causal(8), seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_pattern_that_only_knows_distance_is_its_own_toeplitz_null():
    ring = torch.eye(6)[None]  # all mass at distance zero
    torch.testing.assert_close(measure.toeplitz(ring, measure.causal(6)), ring)


@pytest.mark.parametrize("support", [measure.causal(40), measure.full(40), measure.sliding(40, 7)])
def test_ignorance_is_its_own_toeplitz_null(support):
    torch.testing.assert_close(measure.toeplitz(measure.uniform(support), support), measure.uniform(support))


def by_score(scores, support):
    return scores.masked_fill(~support, -math.inf).softmax(-1)


def information(pattern, like):
    boxes = measure.coarse_grain(pattern, like=measure.coarse_grain(like))
    return measure.generalized_dimensions(boxes, [1.0]).slope[:, 0]


@pytest.mark.parametrize("support", [measure.causal(128), measure.full(128)])
def test_heads_that_know_distance_alone_or_keys_alone_are_nearly_their_own_nulls(support):
    generator = torch.Generator().manual_seed(0)
    n = len(support)
    lag = torch.arange(n)[:, None] - torch.arange(n)
    by_lag = by_score(torch.randn(4, 2 * n - 1, generator=generator)[:, lag + n - 1], support)
    decay = by_score(-lag.abs()[None] / 8.0, support)
    by_key = by_score(torch.randn(4, 1, n, generator=generator).expand(-1, n, -1), support)
    for pattern, null in ((by_lag, measure.toeplitz), (decay, measure.toeplitz), (by_key, measure.column_marginal)):
        found, own = (information(one, pattern) for one in (null(pattern, support), pattern))
        torch.testing.assert_close(found, own, atol=0.005, rtol=0)


def test_a_sink_is_no_distance_and_the_previous_token_no_key():
    n = 64
    sink, before = torch.zeros(1, n, n), torch.diag(torch.ones(n - 1), -1)[None]
    sink[..., 0] = before[0, 0, 0] = 1
    far = slice(n // 4, n // 2)  # rows with many other keys of other distances
    assert (measure.toeplitz(sink, measure.causal(n))[0, far, 0] < 0.25).all()
    assert (measure.column_marginal(before, measure.causal(n))[0].diagonal(-1)[far] < 0.25).all()
    torch.testing.assert_close(measure.toeplitz(before, measure.causal(n)), before)
    torch.testing.assert_close(measure.column_marginal(sink, measure.causal(n)), sink)


@given(st.integers(0, 2**31), st.integers(2, 10))
def test_toeplitz_rows_sum_to_one_and_depend_on_distance_alone(seed, n):
    support = measure.causal(n)
    rows = measure.toeplitz(random_pattern(seed, n, support), support)
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, n))
    # ratios of weights at two distances are the same in every row that sees both
    if n >= 3:
        ratio = rows[:, :, :].diagonal(-1, 1, 2) / rows.diagonal(0, 1, 2)[:, 1:]
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4, atol=1e-6)


def test_the_ignorant_score_is_the_score_of_the_ignorant_head():
    pattern, support = random_pattern(4, 7, measure.causal(7)), measure.causal(7)
    chance = measure.ignorant(measure.entropy)(pattern=pattern, support=support)
    torch.testing.assert_close(chance, measure.entropy(measure.uniform(support), support).expand(2, -1), equal_nan=True)


def test_a_score_without_a_support_of_its_own_gets_ignorance_all_the_same():
    support = measure.causal(5)
    widest = measure.ignorant(lambda pattern: pattern.amax(-1))(pattern=torch.ones(3, 5, 5), support=support)
    torch.testing.assert_close(widest, (1 / torch.arange(1.0, 6)).expand(3, -1))
