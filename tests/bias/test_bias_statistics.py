"""The pure statistics of pairs: closed forms, coverage, and confounds that must go away."""

import pytest
import torch
from scipy import stats

from atlaskit import measure
from atlaskit.measure.bias import _expanded

GEN = torch.Generator().manual_seed(0)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_ss_counts_preferences_and_lms_counts_sense():
    preference = torch.tensor([1.0, -2.0, 0.0, 0.1])
    assert measure.stereotype_score(preference).tolist() == [100, 0, 50, 100]
    scores = measure.language_model_score(
        torch.tensor([1.0, 1, 3, 1]), torch.tensor([2.0, 1, 1, 2]), torch.tensor([0.0, 1, 2, float("nan")])
    )
    assert scores[:3].tolist() == [100, 50, 50]
    assert scores[3].isnan()


@pytest.mark.parametrize(("ss", "lms", "expected"), [(50, 100, 100), (100, 100, 0), (0, 100, 0), (75, 80, 40)])
def test_icat_is_its_formula(ss, lms, expected):
    stereotypes = torch.tensor([100.0] * ss + [0.0] * (100 - ss))
    sense = torch.tensor([100.0] * lms + [0.0] * (100 - lms))
    found = measure.icat(stereotypes, sense)
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high or expected == 100


def test_even_a_model_that_prefers_neither_stays_below_icat_100():
    stereotypes = torch.tensor([100.0, 0.0] * 20)
    found = measure.icat(stereotypes, torch.full((40,), 100.0))
    assert found.value == 100
    assert found.null_low < 85
    assert found.null_high <= 100


def test_icat_needs_two_pairs_with_an_unrelated_sentence():
    with pytest.raises(ValueError, match=r"0 pairs have both scores; an interval needs at least 2"):
        measure.icat(torch.ones(3), torch.full((3,), float("nan")))


def test_a_cluster_is_its_mean_whatever_its_members_order():
    values = torch.tensor([1.0, 10.0, 3.0, 20.0])
    assert measure.clustered(values, torch.tensor([7, 2, 7, 2])).tolist() == [15, 2]
    heads = torch.stack([values, -values], -1)
    assert measure.clustered(heads, torch.tensor([7, 2, 7, 2])).tolist() == [[15, -15], [2, -2]]


def test_the_frequency_of_a_word_cancels_within_crossed_families():
    """A model that likes one word of each couple by any amount, and has no preference, has family means of zero."""
    frequency = 5 * noise(30)
    pairs = torch.stack([frequency, -frequency], -1).flatten()
    families = torch.arange(30).repeat_interleave(2)
    assert measure.stereotype_score(pairs).mean() == 50
    assert torch.allclose(measure.clustered(pairs, families), torch.zeros(30))


@pytest.mark.parametrize("n", [5, 10, 18, 40, 200])
def test_the_level_of_few_values_makes_up_for_student_and_for_n_minus_one(n):
    t = stats.t.ppf(0.975, n - 1) * (n / (n - 1)) ** 0.5
    assert _expanded(0.95, n) == pytest.approx(2 * stats.norm.cdf(t) - 1, abs=2e-3)


def innocent(n_families, seed):
    """Preferences of a model that knows words' frequencies and sentences' quirks, and no stereotype."""
    frequency = 3 * noise(n_families, 1, seed=seed) * torch.tensor([1, -1])
    quirks = noise(n_families, 2, seed=1000 + seed) * noise(n_families, 1, seed=2000 + seed).exp()  # heavy tails
    return (frequency + quirks).flatten()


@pytest.mark.parametrize("what", ["one domain", "SS of one domain", "macro average"])
def test_without_a_preference_intervals_contain_chance(what):
    n_families = 126 if what == "macro average" else 18
    families, domains = torch.arange(n_families).repeat_interleave(2), torch.arange(n_families) % 7
    chance, hits = (50.0 if what.startswith("SS") else 0.0), 0
    for seed in range(200):
        pairs = innocent(n_families, seed)
        values = measure.clustered(measure.stereotype_score(pairs) if chance else pairs, families)
        values = measure.macro(values, domains) if what == "macro average" else values
        found = measure.against_chance(values, unit="x", chance=chance, seed=seed)
        hits += found.low <= chance <= found.high
    assert hits >= 186  # 93 % of 200


def test_a_preference_is_found_with_its_size_and_p():
    found = measure.against_chance(0.5 + noise(120), unit="nats", seed=1)
    assert found.low < 0.5 < found.high
    assert found.beats_null
    assert found.p < 0.01
    assert found.n == 120


def test_length_is_taken_out_of_a_preference_that_is_only_length():
    extra = torch.randint(-3, 4, (200,), generator=torch.Generator().manual_seed(1)).clamp(min=-1)  # longer on average
    only_length = -4.0 * extra + 0.1 * noise(200)
    raw = measure.against_chance(only_length, unit="nats")
    adjusted = measure.against_chance(measure.at_equal_length(only_length, extra), unit="nats")
    assert raw.beats_null
    assert raw.value < -1
    assert adjusted.low <= 0 <= adjusted.high


def test_the_answer_at_equal_length_is_the_regressions_intercept_with_its_error():
    extra = torch.randint(-3, 5, (300,), generator=torch.Generator().manual_seed(2))
    values = 1.5 - 2 * extra + noise(300)
    line = stats.linregress(extra.numpy(), values.numpy())
    influence = measure.at_equal_length(values, extra)
    assert float(influence.mean()) == pytest.approx(line.intercept, abs=1e-4)
    assert float(influence.std() / 300**0.5) == pytest.approx(line.intercept_stderr, rel=0.03)


def test_pairs_of_equal_length_need_no_adjustment_and_one_other_length_allows_none():
    values = noise(6)
    assert torch.equal(measure.at_equal_length(values, torch.zeros(6, dtype=torch.long)), values)
    assert measure.at_equal_length(values, torch.ones(6, dtype=torch.long)).isnan().all()


def test_the_macro_average_is_the_mean_of_domain_means():
    values, domains = torch.tensor([1.0, 1.0, 1.0, 5.0]), torch.tensor([0, 0, 0, 1])
    assert float(measure.macro(values, domains).mean()) == pytest.approx(3.0)
    assert float(measure.macro(values + 50, domains, chance=50).mean()) == pytest.approx(53.0)


def test_halves_part_clusters_and_not_their_members():
    clusters = torch.arange(10).repeat_interleave(3)
    chosen = measure.half(clusters, seed=3)
    assert int(chosen.sum()) == 15
    assert all(len(chosen[clusters == c].unique()) == 1 for c in range(10))
    with pytest.raises(ValueError, match="3 clusters: two halves with an interval each need at least 4"):
        measure.half(torch.arange(3), seed=0)


def test_an_ignorant_head_has_lift_one_at_every_key():
    for support in (measure.causal(20), measure.full(20), measure.sliding(20, 5)):
        lift = measure.key_lift(measure.uniform(support), support)
        assert torch.allclose(lift, torch.ones_like(lift), atol=1e-6)


def test_a_head_on_one_key_lifts_it_by_what_it_gains():
    pattern = torch.zeros(1, 4, 4)
    pattern[0, :, 0] = 1
    lift = measure.key_lift(pattern, measure.full(4))
    assert torch.allclose(lift, torch.tensor([[4.0, 0, 0, 0]]))


def test_chosen_points_are_compared_with_points_of_their_own_stratum():
    values = torch.tensor([10.0, 1, 1, 20, 2, 99])
    chosen = torch.tensor([True, False, False, True, False, True])
    strata, documents = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 0, 1])
    own, alike = measure.matched(values, chosen, strata=strata, documents=documents)
    assert own.tolist() == [10, 20], "the last point has no counterpart and takes part on neither side"
    assert alike.tolist() == [1, 2]


def test_position_and_class_alone_make_no_difference_once_matched():
    """A head that attends by stratum and knows nothing of the chosen words."""
    strata = torch.randint(6, (4000,), generator=torch.Generator().manual_seed(5))
    values = (strata.float() + 1) ** 2 + noise(4000, seed=6)
    chosen = (strata >= 4) & (noise(4000, seed=7) > 0)
    documents = torch.arange(4000) // 10
    own, alike = measure.matched(values, chosen, strata=strata, documents=documents)
    assert float(values[chosen].mean() - values[~chosen].mean()) > 10
    known = ~own.isnan()
    assert float((own - alike)[known].mean()) == pytest.approx(0, abs=0.1)


def test_the_largest_statistic_controls_all_heads_at_once():
    false = sum(bool((measure.familywise_p(noise(30, 40, seed=s), seed=s) <= 0.05).any()) for s in range(100))
    assert false <= 11  # 5 of 100 expected; 11 or more would happen once in a hundred runs


def test_a_head_chosen_on_one_half_is_tested_fairly_on_the_other_only():
    """32 heads that do nothing: the largest of them on some families is large on these, and on no others."""
    honest = fooled = 0
    for seed in range(200):
        effects = noise(40, 32, seed=seed)
        first = measure.half(torch.arange(40), seed=seed)
        best = int(effects[first].mean(0).argmax())
        same, other = (
            measure.against_chance(effects[part][:, best], unit="nats", seed=seed) for part in (first, ~first)
        )
        honest += other.low <= 0 <= other.high
        fooled += same.low > 0
    assert honest >= 186  # 93 %
    assert fooled >= 100  # most of the time


def test_one_true_head_of_many_is_found():
    values = noise(40, 6, 6, seed=1)
    values[:, 2, 3] += 1
    p = measure.familywise_p(values)
    assert p.shape == (6, 6)
    assert (p <= 0.05).nonzero().tolist() == [[2, 3]]
    values[:, 0, 0] = 0
    assert measure.familywise_p(values)[0, 0].isnan()


def test_the_pareto_front_is_who_nobody_beats():
    cost = torch.tensor([1.0, 2.0, 2.0, 3.0, 1.0, float("nan")])
    gain = torch.tensor([1.0, 3.0, 2.0, 3.0, 1.0, 9.0])
    assert measure.pareto_front(cost, gain).tolist() == [True, True, False, False, True, False]
