"""Truths and laws of the row measures, and their twin in SciPy."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy

from atlaskit import measure
from atlaskit.measure.pattern import concentration, divergence, effective_keys, entropy, mass, max_weight, mean_distance
from atlaskit.measure.support import causal, full, sliding, uniform


def random_pattern(seed: int, n: int, support: torch.Tensor, heads: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(heads, n, n, generator=generator)
    return scores.masked_fill(~support, -math.inf).softmax(-1)


cases = st.tuples(st.integers(0, 2**31), st.integers(2, 12), st.sampled_from([full, causal])).map(
    lambda c: (random_pattern(c[0], c[1], c[2](c[1])), c[2](c[1]))
)


def test_a_head_that_sees_only_itself_has_exactly_no_entropy():
    rows = entropy(torch.eye(8)[None], causal(8))
    assert (rows[:, 1:] == 0.0).all()


def test_ignorance_over_a_causal_support_has_the_log_of_what_each_query_sees():
    rows = entropy(uniform(causal(9)), causal(9))[0]
    torch.testing.assert_close(rows[1:], torch.log2(torch.arange(2, 10).float()))
    assert rows[0].isnan()


def test_effective_keys_of_ignorance_is_the_number_of_keys():
    torch.testing.assert_close(effective_keys(uniform(full(7)), full(7)), torch.full((1, 7), 7.0))


def test_concentration_of_two_equal_keys_is_one_half():
    pattern = torch.zeros(1, 4, 4)
    pattern[..., :2] = 0.5
    torch.testing.assert_close(concentration(pattern, full(4)), torch.full((1, 4), 0.5))


def test_distance_of_ignorance_over_the_past_is_half_the_position():
    rows = mean_distance(uniform(causal(10)), causal(10))[0]
    torch.testing.assert_close(rows[1:], torch.arange(1, 10) / 2)


def test_distance_in_a_tile_counts_from_the_tiles_own_positions():
    pattern, support = random_pattern(0, 8, causal(8)), causal(8)
    whole = mean_distance(pattern, support)
    tile = mean_distance(pattern[:, 5:], support[5:], torch.arange(5, 8))
    torch.testing.assert_close(tile, whole[:, 5:])


def test_mass_on_the_keys_in_reach_and_nan_where_there_is_no_question():
    tokens_before = torch.ones(4, 4, dtype=torch.bool).tril(-1) & ~torch.ones(4, 4, dtype=torch.bool).tril(-2)
    rows = mass(uniform(causal(4)), causal(4), tokens_before)[0]
    assert rows[0].isnan()  # nothing before the first token
    torch.testing.assert_close(rows[1:], 1 / torch.tensor([2.0, 3.0, 4.0]))


def test_mass_on_every_key_is_no_question_either():
    assert mass(uniform(full(3)), full(3), full(3)).isnan().all()


@given(cases)
def test_entropy_is_what_scipy_says(case):
    pattern, support = case
    rows = entropy(pattern, support)
    for head in range(len(pattern)):
        for query in range(pattern.shape[1]):
            if support[query].sum() >= 2:
                assert float(rows[head, query]) == pytest.approx(
                    scipy_entropy(pattern[head, query].numpy(), base=2), abs=1e-5
                )


@given(cases)
def test_no_row_is_more_uncertain_than_ignorance(case):
    pattern, support = case
    excess = entropy(pattern, support) - entropy(uniform(support), support)
    assert (excess.nan_to_num(-1) <= 1e-5).all()


@given(cases)
def test_renyi_entropy_never_exceeds_shannons(case):
    pattern, support = case
    renyi = -torch.log2(concentration(pattern, support))
    assert ((renyi - entropy(pattern, support)).nan_to_num(-1) <= 1e-5).all()


@given(cases)
def test_the_largest_weight_bounds_the_concentration(case):
    pattern, support = case
    largest, together = max_weight(pattern, support), concentration(pattern, support)
    assert ((together - largest).nan_to_num(-1) <= 1e-6).all()
    assert ((largest**2 - together).nan_to_num(-1) <= 1e-6).all()


@given(cases)
def test_masses_on_a_selector_and_on_the_rest_sum_to_one(case):
    pattern, support = case
    some = torch.arange(support.shape[1]) % 2 == 0
    selector = some.expand_as(support)
    both = mass(pattern, support, selector) + mass(pattern, support, ~selector)
    torch.testing.assert_close(both[~both.isnan()], torch.ones_like(both[~both.isnan()]))


@given(cases)
def test_divergence_between_heads_is_what_scipy_says(case):
    pattern, support = case
    ours = divergence(pattern, support)
    rows = (support.sum(-1) >= 2).nonzero().flatten().tolist()
    for i in range(3):
        for j in range(3):
            theirs = [jensenshannon(pattern[i, q].numpy(), pattern[j, q].numpy(), base=2) ** 2 for q in rows]
            theirs = [0.0 if math.isnan(value) else value for value in theirs]  # SciPy's root of a tiny negative number
            assert float(ours[i, j]) == pytest.approx(sum(theirs) / len(rows), abs=1e-5)


def test_heads_that_share_no_key_are_one_bit_apart():
    pattern = torch.zeros(2, 4, 4)
    pattern[0, :, 0] = pattern[1, :, 1] = 1.0
    torch.testing.assert_close(divergence(pattern, full(4)), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_heads_cannot_differ_where_no_row_has_a_choice():
    with pytest.raises(ValueError, match=r"no row of this \(1, 1\) support has a choice"):
        divergence(torch.ones(2, 1, 1), full(1))


def test_a_sliding_support_has_a_row_of_at_most_its_window():
    assert sliding(6, 3).sum(-1).tolist() == [1, 2, 3, 3, 3, 3]
    with pytest.raises(ValueError, match="a window of 0 keys"):
        sliding(6, 0)


def test_half_precision_patterns_are_measured_in_float32():
    pattern = uniform(full(3)).to(torch.bfloat16)
    assert entropy(pattern, full(3)).dtype == torch.float32


def test_every_null_of_a_row_measure_can_be_had_from_the_package():
    """The null is the measure on ignorance, whatever the measure."""
    support = causal(6)
    for score in (
        measure.entropy,
        measure.effective_keys,
        measure.max_weight,
        measure.concentration,
        measure.mean_distance,
    ):
        assert score(measure.uniform(support), support).shape == (1, 6)
