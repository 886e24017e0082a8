"""The map of heads: distances by scipy, groups by scikit-learn, planted groups found, and none where there are none."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from atlaskit import maps, measure
from atlaskit.maps.head_map import _coordinates


def patterns(kinds, *, n=24, seed=0, spread=0.3):
    """One document: for each entry of `kinds` a head that looks so many tokens back, with noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    lag = torch.arange(n)[:, None] - torch.arange(n)
    scores = torch.stack([-(lag - kind).abs().float() for kind in kinds])
    noise = spread * torch.randn(scores.shape, generator=generator)
    return (scores + noise).masked_fill(~measure.causal(n), float("-inf")).softmax(-1)


def divergences(kinds, *, documents=6, **options):
    support = measure.causal(24)
    return torch.stack([measure.divergence(patterns(kinds, seed=s, **options), support) for s in range(documents)])


def cloud(*centres, size=12, dim=5, seed=0, spread=0.1):
    """Squared distances of Gaussian points around centres on a line, as of one document, scaled into the unit range."""
    generator = torch.Generator().manual_seed(seed)
    points = spread * torch.randn(len(centres) * size, dim, generator=generator, dtype=torch.float64)
    points[:, 0] += torch.tensor(centres, dtype=torch.float64).repeat_interleave(size)
    return (torch.cdist(points, points).square() / 100).float().expand(3, -1, -1), torch.arange(len(points)) // size


def test_the_distance_is_scipys():
    kinds = [0, 1, 5]
    found = maps.head_map(divergences(kinds, documents=2)).distance
    for i in range(3):
        for j in range(3):
            rows = [
                jensenshannon(*(patterns(kinds, seed=s)[h, 1:].double().numpy() for h in (i, j)), axis=-1, base=2) ** 2
                for s in range(2)
            ]
            assert float(found[i, j]) == pytest.approx(np.sqrt(np.mean(rows)), abs=2e-4)


def test_the_distance_is_euclidean_so_all_eigenvalues_are_positive():
    """Fuglede & Topsøe (2004): the root of the Jensen–Shannon divergence embeds in a Hilbert space."""
    mean = divergences([0, 1, 2, 5, 9, 0, 3], spread=2.0).double().mean(0)
    centre = torch.eye(7, dtype=torch.float64) - 1 / 7
    values = torch.linalg.eigvalsh(-centre @ mean @ centre / 2)
    assert values.min() > -1e-6


def test_planted_groups_are_found_and_stay_when_documents_are_drawn_anew():
    kinds = [0] * 6 + [4] * 6 + [9] * 6
    found = maps.head_map(divergences(kinds))
    assert found.n_groups == 3
    assert adjusted_rand_score(kinds, found.group) == 1
    assert found.agreement.min() == 1
    assert found.group[0] == 0


@pytest.mark.parametrize("seed", range(5))
def test_one_cloud_is_one_group(seed):
    found = maps.head_map(cloud(0.0, size=30, seed=seed)[0], draws=30, resamples=2)
    assert found.n_groups == 1


def test_two_clouds_are_two_groups():
    distances, truth = cloud(0.0, 2.0)
    found = maps.head_map(distances, draws=30, resamples=2)
    assert found.n_groups == 2
    assert adjusted_rand_score(truth, found.group) == 1


def test_groups_equal_scikit_learns():
    distances, _ = cloud(0.0, 1.0, 2.5, spread=0.2)
    found = maps.head_map(distances, resamples=2)
    points = _coordinates(distances[0].double().numpy())
    ours = AgglomerativeClustering(found.n_groups, linkage="ward").fit_predict(points)
    assert adjusted_rand_score(ours, found.group) == 1


def test_heads_that_lie_in_a_plane_are_drawn_there_without_stress():
    distances, _ = cloud(0.0, 1.0, dim=2, spread=0.3)
    found = maps.head_map(distances, draws=5, resamples=2)
    assert found.stress < 1e-3
    drawn = torch.cdist(found.place, found.place)
    torch.testing.assert_close(drawn, found.distance, atol=1e-3, rtol=0)


def test_equal_heads_are_one_group_and_one_point():
    found = maps.head_map(torch.zeros(2, 5, 5), resamples=2)
    assert found.n_groups == 1
    assert found.stress == 0
    assert float(found.place.abs().max()) < 1e-9


def test_t_sne_on_request_has_no_stress():
    found = maps.head_map(cloud(0.0, 2.0)[0], layout="tsne", draws=5, resamples=2)
    assert found.place.shape == (24, 2)
    assert np.isnan(found.stress)


def test_the_same_seed_gives_the_same_map():
    distances, _ = cloud(0.0, 1.0)
    first, again = (maps.head_map(distances, draws=5, resamples=3, seed=4) for _ in range(2))
    assert torch.equal(first.gap, again.gap)
    assert torch.equal(first.place, again.place)


def test_two_heads_make_no_map():
    with pytest.raises(ValueError, match="2 heads make no map; give the heads of several layers, at least 3"):
        maps.head_map(torch.zeros(2, 2, 2))
