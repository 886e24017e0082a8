"""Agreement of looks and deeds: scipy's correlation, a jackknife by hand, and a planted truth that is covered."""

import pytest
import torch
from scipy import stats

from atlaskit import measure


def planted(rho, *, noise, seed, documents=14, heads=(4, 8)):
    """Scores and effects of documents, and the rank correlation of what they scatter around."""
    generator = torch.Generator().manual_seed(seed)
    looks, other = torch.randn(2, *heads, generator=generator)
    does = rho * looks + (1 - rho**2) ** 0.5 * other
    scatter = noise * torch.randn(2, documents, *heads, generator=generator)
    truth = stats.spearmanr(looks.flatten(), does.flatten()).statistic
    return looks + scatter[0], does + scatter[1], float(truth)


def test_the_value_is_scipys_correlation_of_the_means_and_p_is_scipys():
    score, effect, _ = planted(0.4, noise=1.0, seed=1)
    told = measure.rank_agreement(score, effect)
    twin = stats.spearmanr(score.mean(0).flatten(), effect.mean(0).flatten())
    assert told.value == pytest.approx(twin.statistic, abs=1e-6)
    assert told.p == pytest.approx(twin.pvalue, abs=0.02)
    assert (told.n, told.unit) == (14, "rank correlation")
    assert told.null_low == pytest.approx(-told.null_high, abs=0.05)
    assert told.null_high == pytest.approx(1.96 / 31**0.5, abs=0.03)  # Spearman's variance is 1 / (n - 1) exactly


def test_the_interval_leaves_out_one_document_at_a_time():
    score, effect, _ = planted(0.5, noise=1.0, seed=2)
    told = measure.rank_agreement(score, effect)
    rest = [[i for i in range(14) if i != out] for out in range(14)]
    apart = torch.tensor(
        [stats.spearmanr(score[i].mean(0).flatten(), effect[i].mean(0).flatten()).statistic for i in rest]
    )
    error = float((13 * apart.var(correction=0)).sqrt())
    assert told.high - told.value == pytest.approx(
        stats.t.ppf(0.975, 13) * error, rel=1e-2
    )  # the first term of a series
    assert told.value - told.low == pytest.approx(told.high - told.value, rel=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_interval_covers_what_was_planted(rho):
    """95 % of 60 are 57; fewer than 51 come once in ten thousand times."""
    covered = 0
    for seed in range(60):
        score, effect, truth = planted(rho, noise=1.0, seed=seed)
        told = measure.rank_agreement(score, effect)
        covered += told.low <= truth <= told.high
    assert covered >= 51


def test_heads_that_have_nothing_to_do_with_it_are_believed_no_more_often_than_chance():
    """5 % of 200 are 10; 20 or more come once in five hundred times."""
    wrong = 0
    for seed in range(200):
        score, effect, _ = planted(0.0, noise=0.3, seed=seed, documents=4, heads=(2, 6))
        wrong += measure.rank_agreement(score, effect, seed=seed).p <= 0.05
    assert wrong < 20


def test_a_document_or_head_without_a_number_is_left_out():
    score, effect, _ = planted(0.5, noise=0.5, seed=3)
    score[:, 1, 2], effect[4, 0, 0] = float("nan"), float("nan")
    told = measure.rank_agreement(score, effect)
    kept = torch.ones(4, 8, dtype=torch.bool)
    kept[1, 2] = False
    twin = stats.spearmanr(score.nanmean(0)[kept], effect.nanmean(0)[kept])
    assert told.value == pytest.approx(twin.statistic, abs=1e-6)


def test_a_score_that_does_not_vary_agrees_with_nothing():
    _, effect, _ = planted(0.5, noise=0.5, seed=3)
    told = measure.rank_agreement(torch.ones_like(effect), effect)
    assert told.value != told.value
    assert told.p != told.p
    assert not told.beats_null


def test_one_order_is_agreement_without_doubt():
    score = torch.arange(12.0).reshape(3, 4).expand(5, -1, -1)
    told = measure.rank_agreement(score, score**3)
    assert (told.value, told.low, told.high) == (1, 1, 1)


def test_what_cannot_be_correlated_is_named():
    score, effect, _ = planted(0.5, noise=0.5, seed=3)
    with pytest.raises(ValueError, match=r"scores \[14, 4, 8\] and effects \[7, 4, 8\] must be of the same documents"):
        measure.rank_agreement(score, effect[:7])
    with pytest.raises(ValueError, match="2 documents and 32 heads with both numbers"):
        measure.rank_agreement(score[:2], effect[:2])
    with pytest.raises(ValueError, match="14 documents and 0 heads"):
        measure.rank_agreement(score * float("nan"), effect)
