"""Pairs of heads: block means by hand, and an agreement that shared heads and layers cannot fake."""

import pytest
import scipy.stats
import torch

from atlaskit.measure.pairs_of_heads import kv_blocks, pair_agreement

LAYER = torch.arange(4).repeat_interleave(6)
PAIRS = (LAYER[:, None] == LAYER) & torch.ones(24, 24, dtype=torch.bool).triu(1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def symmetric(seed=0):
    half = normal(24, 24, seed=seed)
    return half + half.T


def test_blocks_are_means_over_pairs_of_different_heads():
    between = torch.arange(25.0).reshape(5, 5)
    between = between + between.T
    found = kv_blocks(between, torch.tensor([0, 0, 1, 1, 2]))
    assert found[0, 1].item() == pytest.approx(between[:2, 2:4].mean().item())
    assert found[1, 2].item() == pytest.approx(between[2:4, 4].mean().item())
    assert found[0, 0].item() == pytest.approx(between[0, 1].item())
    assert found[2, 2].isnan()
    assert torch.equal(found.nan_to_num(), found.T.nan_to_num())


def test_one_layer_is_plain_spearman():
    layer, pairs = torch.zeros(6, dtype=torch.long), torch.ones(6, 6, dtype=torch.bool).triu(1)
    alike = symmetric()[:6, :6]
    together = normal(3, 15, seed=1) + alike[pairs]
    found = pair_agreement(alike, together, pairs, layer=layer, draws=20, seed=0)
    expected = scipy.stats.spearmanr(alike[pairs], together.mean(0)).statistic
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert found.n == 3


def test_planted_agreement_is_found_and_its_absence_too():
    alike = symmetric()
    tied = alike[PAIRS] + 0.3 * normal(12, 60, seed=1)
    found = pair_agreement(alike, tied, PAIRS, layer=LAYER, draws=60, seed=0)
    assert found.value > 0.8
    assert found.beats_null
    assert found.p < 0.02
    loose = pair_agreement(alike, normal(12, 60, seed=2), PAIRS, layer=LAYER, draws=60, seed=0)
    assert not loose.beats_null


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_interval_covers_what_was_planted(weight):
    """95 % of 60 are 57; fewer than 51 come once in ten thousand times."""
    covered = 0
    for seed in range(60):
        alike = symmetric(seed)
        meant = weight * alike[PAIRS] + normal(60, seed=seed + 1000)
        truth = pair_agreement(alike, meant.expand(2, -1), PAIRS, layer=LAYER, draws=1, seed=0).value
        together = meant + 3.0 * normal(24, 60, seed=seed + 2000)
        found = pair_agreement(alike, together, PAIRS, layer=LAYER, draws=1, seed=0)
        covered += found.low <= truth <= found.high
    assert covered >= 51


def test_a_difference_between_layers_is_no_agreement_of_pairs():
    alike = symmetric() + 50 * LAYER[:, None]
    together = normal(12, 60, seed=1) + 50 * LAYER[PAIRS.nonzero()[:, 0]]
    found = pair_agreement(alike + alike.T, together, PAIRS, layer=LAYER, draws=100, seed=0)
    assert abs(found.value) < 0.35
    assert not found.beats_null


def test_one_odd_head_widens_the_null():
    """A head unlike all others makes a whole row agree or disagree; chance that deals out pairs would not know."""
    layer, pairs = torch.zeros(6, dtype=torch.long), torch.ones(6, 6, dtype=torch.bool).triu(1)
    loud = torch.tensor([10.0, 0, 0, 0, 0, 0]).double()
    alike = symmetric()[:6, :6] + loud[:, None] + loud
    together = (symmetric(1)[:6, :6] + loud[:, None] + loud)[pairs].expand(4, -1)
    found = pair_agreement(alike, together, pairs, layer=layer, draws=100, seed=0)
    shuffled = [scipy.stats.spearmanr(alike[pairs], together[0][torch.randperm(15)]).statistic for _ in range(100)]
    assert found.null_high > torch.tensor(shuffled).quantile(0.975) + 0.1


def test_what_does_not_fit_is_refused():
    alike = symmetric()
    with pytest.raises(ValueError, match="there are 60 pairs of heads and 59 columns"):
        pair_agreement(alike, normal(2, 59), PAIRS, layer=LAYER, draws=2, seed=0)
    with pytest.raises(ValueError, match="needs two of them, and there is 1"):
        pair_agreement(alike, normal(1, 60), PAIRS, layer=LAYER, draws=2, seed=0)
    with pytest.raises(ValueError, match="some pairs lie across layers"):
        pair_agreement(alike, normal(2, 276), torch.ones(24, 24).triu(1).bool(), layer=LAYER, draws=2, seed=0)
    alike[3] = torch.nan
    with pytest.raises(ValueError, match="leave out the heads that have no subspace"):
        pair_agreement(alike, normal(2, 60), PAIRS, layer=LAYER, draws=2, seed=0)
