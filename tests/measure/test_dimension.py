"""Truth on clouds of known dimension; twins from scikit-dimension and SciPy; laws of the neighbour search."""

import importlib
import math

import numpy as np
import pytest
import skdim.id
import torch
from scipy.spatial import KDTree

from atlaskit.measure.dimension import (
    decimation_curve,
    gaussian_surrogate,
    gride,
    levina_bickel,
    participation_ratio,
    pca_rank,
    spectrum,
    two_nn,
)
from atlaskit.measure.neighbours import first_copies, neighbours, thinned

HEADS = 6


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotated_into(cloud, dim, *, seed=1):
    frame = torch.linalg.qr(normal(cloud.shape[0], dim, cloud.shape[-1], seed=seed)).Q
    return cloud @ frame.mT


def sphere(d, *, points=2000, heads=HEADS, dim=32):
    """A d-sphere: every point looks like every other, and there is no edge."""
    return rotated_into(torch.nn.functional.normalize(normal(heads, points, d + 1, seed=d), dim=-1), dim)


def swiss_roll(points=2000):
    """Two dimensions in three, its sheets far apart."""
    angle = 1.5 * math.pi * (1 + 2 * uniform(HEADS, points))
    height = 21 * uniform(HEADS, points, seed=1)
    return torch.stack([angle * angle.cos(), height, angle * angle.sin()], -1)


def autoregressive(*, documents, length, dim, memory, seed=0):
    """A stationary AR(1) process: points of a `dim`-dimensional Gaussian strung on slow curves, with their clocks."""
    noise = normal(documents, length, dim, seed=seed)
    steps = [noise[:, 0]]
    for t in range(1, length):
        steps.append(memory * steps[-1] + math.sqrt(1 - memory**2) * noise[:, t])
    cloud = torch.stack(steps, 1).reshape(1, documents * length, dim)
    document = torch.arange(documents).repeat_interleave(length)
    return cloud, document, torch.arange(length).repeat(documents)


@pytest.mark.parametrize(("d", "tolerance"), [(1, 0.05), (2, 0.05), (5, 0.05), (10, 0.10)])
def test_every_estimator_finds_the_dimension_of_a_sphere(d, tolerance):
    near = neighbours(sphere(d), 10)
    for estimate in (two_nn(near.distance), two_nn(near.distance, keep=1), levina_bickel(near.distance)):
        assert estimate.mean().item() == pytest.approx(d, rel=tolerance)
    curve = gride(near.distance)
    assert curve.rank.tolist() == [1, 2, 4]
    assert torch.allclose(curve.dimension.mean(0), torch.tensor(float(d)).double(), rtol=tolerance)


def test_the_swiss_roll_has_two_dimensions_where_the_principal_axes_see_three():
    roll = swiss_roll()
    near = neighbours(roll, 8)
    assert two_nn(near.distance).mean().item() == pytest.approx(2, rel=0.05)
    assert levina_bickel(near.distance).mean().item() == pytest.approx(2, rel=0.05)
    assert torch.allclose(gride(near.distance).dimension.mean(0), torch.tensor(2.0).double(), rtol=0.05)
    assert (pca_rank(spectrum(roll)) == 3).all()


def test_censoring_removes_the_bias_of_dropping_the_largest_ratios():
    # ratios drawn from their law, log ratio ~ Exp(d): no geometry, no edges, the estimator alone
    d, points = 7.0, 20_000
    log_ratio = -uniform(HEADS, points).log() / d
    distance = torch.stack([torch.ones_like(log_ratio), log_ratio.exp()], -1)
    for keep in (0.5, 0.9, 1.0):
        error = d / math.sqrt(keep * points * HEADS)
        assert two_nn(distance, keep=keep).mean().item() == pytest.approx(d, abs=3 * error)


def test_two_nn_agrees_with_scikit_dimension():
    cloud = sphere(3, points=400, heads=2, dim=40)
    near = neighbours(cloud, 2)
    for keep in (0.9, 1.0):
        with np.errstate(divide="ignore"):  # it takes log(0) for a plot we do not ask for
            twin = [skdim.id.TwoNN(1 - keep, method="mle").fit(head.numpy()).dimension_ for head in cloud]
        assert two_nn(near.distance, keep=keep).tolist() == pytest.approx(twin, rel=1e-9)


def test_levina_bickel_agrees_with_scikit_dimension():
    cloud = sphere(3, points=400, heads=2, dim=8)
    near = neighbours(cloud, 12)
    twin = [skdim.id.MLE().fit(head.numpy(), n_neighbors=12, comb="mle").dimension_ for head in cloud]
    assert levina_bickel(near.distance).tolist() == pytest.approx(twin, rel=1e-9)


def test_gride_agrees_with_scikit_dimension_at_every_scale():
    cloud = normal(2, 500, 4)
    near = neighbours(cloud, 64)
    curve = gride(near.distance)
    for head in range(2):
        twin = skdim.id.GRIDE(multiscale=True, range_max=64).fit(cloud[head].numpy())
        assert curve.rank.tolist() == twin.scales_.tolist()
        assert curve.dimension[head].tolist() == pytest.approx(twin.dimension_scales_.tolist(), rel=1e-6)
        assert curve.radius[head].tolist() == pytest.approx(twin.radius_scales_.tolist(), rel=1e-9)


def test_variance_dimensions_agree_with_scikit_dimension():
    cloud = normal(2, 300, 12) * torch.linspace(0.1, 2, 12)
    ranks = pca_rank(spectrum(cloud), share=0.9)
    ratios = participation_ratio(spectrum(cloud))
    for head in range(2):
        twin = skdim.id.lPCA(ver="participation_ratio").fit(cloud[head].numpy()).dimension_
        assert ratios[head].item() == pytest.approx(twin, rel=1e-9)
        variance = torch.linalg.svdvals(cloud[head] - cloud[head].mean(0)).square()
        enough = [r for r in range(1, 13) if variance[:r].sum() >= 0.9 * variance.sum()]
        assert ranks[head].item() == enough[0]


def test_the_participation_ratio_of_equal_variances_is_their_number():
    assert participation_ratio(torch.tensor([[2.0, 2.0, 2.0, 0.0]])).item() == pytest.approx(3)
    assert pca_rank(torch.tensor([[0.5, 0.4, 0.1]]), share=0.89).item() == 2


def test_a_point_has_no_variance_dimension():
    still = torch.zeros(1, 3)
    assert participation_ratio(still).isnan().all()
    assert pca_rank(still).isnan().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_neighbours_are_those_of_a_search_tree(dtype, tolerance):
    cloud = (normal(3, 257, 5) + 100).to(dtype)  # off the origin, where the Gram trick loses digits
    near = neighbours(cloud, 7)
    for head in range(3):
        distance, index = KDTree(cloud[head].numpy()).query(cloud[head].numpy(), k=8)
        # a point is known to a few parts in 10⁷ of its distance from the centre, ten times that of its neighbour's
        assert torch.allclose(near.distance[head].double(), torch.from_numpy(distance[:, 1:]), rtol=tolerance, atol=0)
        assert (near.index[head] == torch.from_numpy(index[:, 1:])).float().mean() > 0.99  # all but near-ties


def test_blocks_change_nothing(monkeypatch):
    cloud = normal(5, 120, 6)
    whole = neighbours(cloud, 4)
    # by its full name: the room shows a function of the module's name
    monkeypatch.setattr(importlib.import_module("atlaskit.measure.neighbours"), "_CELLS", 1000)
    assert torch.equal(neighbours(cloud, 4).index, whole.index)


def test_five_thousand_points_are_searched_exactly():
    cloud = normal(2, 5000, 6)
    near = neighbours(cloud, 2)
    for head in range(2):
        distance, _ = KDTree(cloud[head].numpy()).query(cloud[head].numpy(), k=3)
        assert torch.allclose(near.distance[head], torch.from_numpy(distance[:, 1:]), rtol=1e-9)


def test_copies_of_a_point_are_measured_once():
    cloud = torch.cat([normal(2, 300, 4), torch.zeros(2, 1, 4)], 1)
    doubled = torch.cat([cloud, cloud[:, :50], -torch.zeros(2, 9, 4), torch.zeros(2, 9, 4)], 1)
    assert first_copies(doubled).sum(-1).tolist() == [301, 301]
    near, alone = neighbours(doubled, 2), neighbours(cloud, 2)
    assert near.distance[:, 301:].isnan().all()
    assert (near.index[:, 301:] == -1).all()
    assert torch.allclose(near.distance[:, :301], alone.distance)
    assert torch.allclose(two_nn(near.distance), two_nn(alone.distance))


def test_points_closer_than_float32_can_tell_are_not_measured():
    cloud = normal(1, 200, 4).float()
    cloud[0, 1] = cloud[0, 0] * (1 + torch.finfo(torch.float32).eps)
    unmeasured = neighbours(cloud, 2).distance.isnan().any(-1)[0]
    assert unmeasured.nonzero().flatten().tolist() == [0, 1]


def test_no_neighbour_lies_within_the_window():
    cloud, document, position = autoregressive(documents=4, length=50, dim=3, memory=0.9)
    near = neighbours(cloud, 5, document=document, position=position, window=10)
    own, other = document[:, None], document[near.index[0]]
    apart = (position[:, None] - position[near.index[0]]).abs()
    assert ((own != other) | (apart > 10)).all()
    # against a direct count
    allowed = (document[:, None] != document) | ((position[:, None] - position).abs() > 10)
    distance = torch.cdist(cloud[0], cloud[0]).masked_fill(~allowed, math.inf).sort(-1).values[:, :5]
    assert torch.allclose(near.distance[0], distance)


def test_points_without_enough_neighbours_outside_the_window_are_nan():
    cloud, document, position = autoregressive(documents=2, length=30, dim=3, memory=0.5)
    document[:2] = 7  # so that two points have 58 others, and 30 have 32, and 28 have 32
    document[2:30] = 8
    near = neighbours(cloud, 31, document=document, position=position, window=1000)
    measured = near.distance[0].isfinite().all(-1)
    assert measured.tolist() == [True] * 30 + [False] * 30


def test_a_trajectory_hides_the_dimension_that_time_apart_restores():
    d = 6
    cloud, document, position = autoregressive(documents=40, length=125, dim=d, memory=0.95)
    near = neighbours(cloud, 32, document=document, position=position, window=60)
    kept = [thinned(document, position, window=60, seed=seed) for seed in range(5)]
    apart = torch.stack([two_nn(neighbours(cloud[:, some], 2).distance) for some in kept]).mean().item()
    three_errors = 3 / math.sqrt(0.9 * cloud.shape[1])
    assert two_nn(neighbours(cloud, 2).distance).item() < d * (1 - three_errors)
    # neighbours of a point still lie together on another curve, but not all 32 of them: ten per cent, the line
    assert two_nn(near.distance).item() > d * (1 + three_errors)
    assert gride(near.distance).dimension[0, -1].item() == pytest.approx(d, rel=0.1)
    still = two_nn(neighbours(normal(40, len(kept[0]), d), 2).distance).mean().item()  # as many without memory
    # five selections of as many points, at best independent of one another
    assert apart == pytest.approx(still, rel=3 / math.sqrt(5 * 0.9 * len(kept[0])))


def test_thinned_points_are_apart_and_leave_no_room_for_another():
    _, document, position = autoregressive(documents=3, length=100, dim=1, memory=0)
    kept = thinned(document, position, window=9, seed=0)
    for number in range(3):
        places = position[kept][document[kept] == number]
        assert (places.diff() == 10).all()
        assert places[0] < 10
        assert places[-1] >= 90
    starts = {position[thinned(document, position, window=9, seed=seed)[0]].item() for seed in range(200)}
    assert starts == set(range(10))


def test_independent_points_do_not_care_about_the_window():
    cloud = normal(1, 1500, 4)
    document, position = torch.zeros(1500, dtype=torch.long), torch.arange(1500)
    plain = two_nn(neighbours(cloud, 2).distance).item()
    apart = two_nn(neighbours(cloud, 2, document=document, position=position, window=10).distance).item()
    assert apart == pytest.approx(plain, abs=3 * 4 / math.sqrt(0.9 * 1500))


def test_dimension_is_blind_to_motion_and_scale():
    cloud = sphere(3, points=500, heads=2)
    moved = 7 * rotated_into(cloud, 32, seed=9) + 2
    near, moved_near = neighbours(cloud, 16), neighbours(moved, 16)
    assert torch.allclose(two_nn(near.distance), two_nn(moved_near.distance))
    assert torch.allclose(gride(near.distance).dimension, gride(moved_near.distance).dimension)
    assert torch.allclose(levina_bickel(near.distance), levina_bickel(moved_near.distance))
    assert torch.allclose(participation_ratio(spectrum(cloud)), participation_ratio(spectrum(moved)))


def test_a_gaussian_surrogate_keeps_the_covariance_and_forgets_the_curve():
    circle = sphere(1, points=4000, heads=3, dim=5)
    surrogate = gaussian_surrogate(circle, seed=0)
    for one, twin in zip(circle, surrogate, strict=True):
        # three errors of the largest entry a covariance can have here, a circle's 1/2, from 4,000 points
        assert torch.allclose(one.T.cov(), twin.T.cov(), rtol=0, atol=3 * math.sqrt(2 / 4000) / 2)
    assert two_nn(neighbours(circle, 2).distance).mean().item() == pytest.approx(1, rel=0.05)
    assert two_nn(neighbours(surrogate, 2).distance).mean().item() == pytest.approx(2, rel=0.05)


def test_decimation_leaves_a_manifold_alone_and_moves_noise():
    curve = decimation_curve(sphere(2, points=1600), [100, 400, 1600], seed=0)
    assert torch.allclose(curve.mean(0), torch.tensor(2.0).double(), rtol=0.05)
    # a line with noise across it in four directions: five dimensions near, one from afar
    line = torch.cat([100 * uniform(HEADS, 1600, 1), 0.1 * normal(HEADS, 1600, 4)], -1)
    noisy = decimation_curve(line, [50, 200, 800, 1600], seed=0).mean(0)
    error = noisy / math.sqrt(0.9 * HEADS * 1600)  # parts of any size hold all points together
    assert (noisy.diff() > 3 * (error[1:].square() + error[:-1].square()).sqrt()).all()
    # thinner than any gap between its points it is a line at every size
    thin = decimation_curve(line * torch.tensor([1, *[1e-6] * 4]), [50, 1600], seed=0).mean(0)
    assert ((thin - 1).abs() < 3 / math.sqrt(0.9 * HEADS * 1600)).all()


def test_decimation_keeps_documents_and_positions_with_their_points():
    cloud, document, position = autoregressive(documents=8, length=100, dim=4, memory=0.99)
    clock = {"document": document, "position": position, "window": 80}
    whole = decimation_curve(cloud, [800], seed=0, **clock)
    assert torch.allclose(whole[:, 0], two_nn(neighbours(cloud, 2, **clock).distance))


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match=r"3 neighbours asked of 3 points; ask for 1 to 2, or give more"):
        neighbours(normal(1, 3, 2), 3)


def test_half_a_clock_is_refused():
    with pytest.raises(ValueError, match="temporal exclusion needs both document and position"):
        neighbours(normal(1, 9, 2), 2, document=torch.zeros(9, dtype=torch.long))
    with pytest.raises(ValueError, match="temporal exclusion needs both document and position"):
        neighbours(normal(1, 9, 2), 2, window=3)


def test_one_distance_is_no_ratio():
    for estimator in (two_nn, gride, levina_bickel):
        with pytest.raises(ValueError, match="1 neighbour distances a point given, at least 2 needed"):
            estimator(torch.ones(1, 5, 1))


def test_a_share_outside_zero_and_one_is_refused():
    with pytest.raises(ValueError, match="keep is the share of ratios trusted, between 0 and 1; got 0"):
        two_nn(torch.ones(1, 5, 2), keep=0)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"sizes \[2\] must lie between 3 and the 9 points"):
        decimation_curve(normal(1, 9, 2), [2], seed=0)


def test_a_cloud_of_one_point_repeated_has_no_dimension():
    assert two_nn(neighbours(torch.ones(1, 9, 2), 2).distance).isnan().all()
