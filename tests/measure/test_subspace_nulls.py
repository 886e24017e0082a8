"""Chance against theory: closed forms, the published tables, planted spectra, and the gauge."""

import math

import pytest
import torch

from atlaskit.measure.geometry import overlap, write_axes
from atlaskit.measure.subspace_nulls import (
    Chance,
    adjusted,
    bootstrap_covariances,
    haar_cosines,
    haar_overlap,
    over_pairs,
    pooled_covariance,
    random_gauge,
    regauged,
    reliable_rank,
    spectrum_matched_cosines,
    split_half,
    weights_only_overlap,
    z_score,
)

ROUNDING = 0.0005

# Mean principal cosine between random k-subspaces of R^d and its standard deviation over pairs: an independent Monte
# Carlo, to three digits.
HAAR_TABLE = [  # d, k, mean cosine, standard deviation
    (32, 7, 0.400, 0.037),
    (64, 4, 0.208, 0.037),
    (64, 5, 0.234, 0.034),
    (64, 6, 0.257, 0.030),
    (64, 7, 0.279, 0.028),
    (64, 8, 0.300, 0.026),
    (64, 9, 0.318, None),
    (64, 10, 0.337, None),
    (64, 11, 0.355, 0.021),
    (128, 7, 0.196, 0.020),
    (128, 9, 0.224, 0.018),
    (128, 11, 0.248, 0.016),
    (256, 7, 0.138, 0.015),
]

# Overlaps O_h as ATLAS (github.com/jpcpol, 2025) published them: phase2_results.json, phase2_control.json,
# dlocal_sweep.json, dhead_control.json, ablation_batch1, ablation_p3. Facts, not code. The pairs are its protocol's.
PUBLISHED = [  # what, O_h, d_head, k, pairs of heads
    ("GPT-2 deepest layer, 8 heads", 0.2840, 64, 7, 28),
    ("GPT-2 medium deepest layer, 8 heads", 0.2766, 64, 7, 28),
    ("GPT-2 large deepest layer, 8 heads", 0.2814, 64, 7, 28),
    ("GPT-2 at depth 0.9, all heads", 0.2783, 64, 7, 66),
    ("GPT-2 medium at depth 0.9, all heads", 0.2805, 64, 7, 120),
    ("GPT-2 large at depth 0.9, all heads", 0.2791, 64, 7, 190),
    ("GPT-2 on C4", 0.277, 64, 7, 28),
    ("GPT-2, k = 4", 0.210, 64, 4, 66),
    ("GPT-2, k = 5", 0.241, 64, 5, 66),
    ("GPT-2, k = 6", 0.264, 64, 6, 66),
    ("GPT-2, k = 8", 0.300, 64, 8, 66),
    ("GPT-2, k = 9", 0.321, 64, 9, 66),
    ("GPT-2, k = 10", 0.340, 64, 10, 66),
    ("Qwen2.5-0.5B between KV groups", 0.290, 64, 7, 49),
    ("Llama-3.1-8B between KV groups", 0.197, 128, 7, 448),
    ("Llama-3.1-8B between KV groups, k = 11", 0.248, 128, 11, 448),
    ("Mistral-7B between KV groups", 0.199, 128, 7, 448),
    ("Mistral-7B between KV groups, k = 9", 0.226, 128, 9, 448),
    ("trained at d_head 32, seed 42", 0.403, 32, 7, 360),
    ("trained at d_head 32, seed 123", 0.402, 32, 7, 360),
    ("trained at d_head 64, seed 42", 0.278, 64, 7, 84),
    ("trained at d_head 64, seed 123", 0.280, 64, 7, 84),
    ("trained at d_head 128, seed 42", 0.202, 128, 7, 18),
    ("trained at d_head 128, seed 123", 0.191, 128, 7, 18),
    ("trained at d_head 256, seed 42", 0.129, 256, 7, 3),
    ("trained at d_head 256, seed 123", 0.136, 256, 7, 3),
    ("trained at d_model 768, seed 42", 0.2798, 64, 7, 198),
    ("trained at d_model 768, seed 123", 0.2822, 64, 7, 198),
]
SHARED_KV = [("Qwen2.5-0.5B within KV groups", 0.482, 64, 7, 42), ("Llama-3.1-8B within KV groups", 0.64, 128, 11, 48)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def haar_frames(draws, dim, rank, *, seed=0):
    return torch.linalg.qr(normal(draws, dim, rank, seed=seed)).Q


_SAMPLED = {}


def sampled_mean_cosine(dim, rank):
    """Mean principal cosine of each of many random pairs, drawn once for all tests."""
    if (dim, rank) not in _SAMPLED:
        _SAMPLED[dim, rank] = haar_cosines(dim, rank, draws=10_000, seed=1).mean(-1)
    return _SAMPLED[dim, rank]


def chance_of_mean_cosine(dim, rank):
    draws = sampled_mean_cosine(dim, rank)
    return Chance(draws.mean(), draws.std())


@pytest.mark.parametrize(("dim", "rank"), [(2, 1), (5, 2), (32, 7), (64, 7), (40, 25), (128, 11)])
def test_the_closed_form_is_the_law_of_sampled_subspaces(dim, rank):
    draws = 4000
    squared = haar_cosines(dim, rank, draws=draws, seed=0).square().mean(-1)
    closed = haar_overlap(dim, rank)
    assert closed.mean.item() == rank / dim
    assert squared.mean().item() == pytest.approx(rank / dim, abs=3 * closed.sd.item() / draws**0.5)
    assert squared.std().item() == pytest.approx(closed.sd.item(), rel=3 / (2 * draws) ** 0.5)


def test_two_random_lines_of_the_plane_meet_at_a_uniform_angle():
    # cos² of a uniform angle has mean 1/2 and variance 1/8
    assert haar_overlap(2, 1).sd.item() == pytest.approx(math.sqrt(1 / 8))
    assert haar_cosines(2, 1, draws=20_000, seed=0).mean().item() == pytest.approx(2 / math.pi, abs=3 * 0.308 / 141)


def test_the_whole_space_always_overlaps():
    assert haar_overlap(7, 7).mean.item() == 1
    assert haar_overlap(7, 7).sd.item() == 0
    assert torch.allclose(haar_cosines(7, 7, draws=3, seed=0), torch.ones(3, 7).double())


@pytest.mark.parametrize(("dim", "rank", "mean", "sd"), HAAR_TABLE)
def test_the_table_of_random_overlaps_is_reproduced(dim, rank, mean, sd):
    draws = sampled_mean_cosine(dim, rank)
    assert draws.mean().item() == pytest.approx(mean, abs=3 * draws.std().item() / len(draws) ** 0.5 + ROUNDING)
    if sd is not None:
        assert draws.std().item() == pytest.approx(sd, abs=3 * sd / (2 * len(draws)) ** 0.5 + 2 * ROUNDING)


@pytest.mark.parametrize(("dim", "rank"), [(64, 4), (128, 7), (256, 7)])
def test_the_mean_cosine_of_large_spaces_has_its_asymptotic_value(dim, rank):
    # integral of √x over the limiting density of cos² (Jacobi ensemble) as d → ∞ at k/d = a; 1 to 3 % above finite d
    a = rank / dim
    limit = 2 / (math.pi * a) * (math.sqrt(a * (1 - a)) - (1 - 2 * a) * math.asin(math.sqrt(a)))
    assert 0.96 * limit < sampled_mean_cosine(dim, rank).mean().item() < limit


@pytest.mark.parametrize(("what", "value", "d_head", "rank", "pairs"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_the_published_overlaps_are_those_of_random_subspaces(what, value, d_head, rank, pairs):
    null = over_pairs(chance_of_mean_cosine(d_head, rank), pairs)
    # three digits were published: any value that rounds to them will do. Without this allowance both values of Mistral
    # lie at z = 2.9 and 3.0, the farthest of all, 0.003 from chance
    nearest = null.mean.clamp(value - ROUNDING, value + ROUNDING)
    assert z_score(nearest, null).abs().item() < 3


def test_the_published_overlaps_of_trained_models_scatter_as_chance_does():
    trained = [row for row in PUBLISHED if row[0].startswith("trained")]
    scores = [
        z_score(torch.tensor(value).double(), over_pairs(chance_of_mean_cosine(d, k), pairs)).item()
        for _, value, d, k, pairs in trained
    ]
    assert sum(z**2 for z in scores) < 18.3  # the 95 % point of χ² with 10 degrees of freedom


@pytest.mark.parametrize(("what", "value", "d_head", "rank", "pairs"), SHARED_KV, ids=[row[0] for row in SHARED_KV])
def test_only_pairs_on_one_kv_head_stand_out(what, value, d_head, rank, pairs):
    null = chance_of_mean_cosine(d_head, rank)
    assert z_score(torch.tensor(value).double(), over_pairs(null, pairs)).item() > 20
    expected = {0.482: 0.28, 0.64: 0.52}[value]
    assert adjusted(torch.tensor(value).double(), null).item() == pytest.approx(expected, abs=0.005)


def test_the_mean_over_pairs_that_share_heads_has_the_error_of_independent_pairs():
    heads, dim, rank, draws = 8, 32, 4, 1500
    upper = torch.ones(heads, heads).triu(1).bool()
    frames = haar_frames(draws * heads, dim, rank).unflatten(0, (draws, heads))
    means = torch.stack([overlap(draw)[upper].mean() for draw in frames])
    null = over_pairs(haar_overlap(dim, rank), int(upper.sum()))
    assert means.mean().item() == pytest.approx(null.mean.item(), abs=3 * null.sd.item() / draws**0.5)
    assert means.std().item() == pytest.approx(null.sd.item(), rel=3 / (2 * draws) ** 0.5)


def test_a_flat_spectrum_is_the_haar_null():
    draws = 3000
    squared = spectrum_matched_cosines(torch.full((40,), 2.5), 5, draws=draws, seed=0).square().mean(-1)
    closed = haar_overlap(40, 5)
    assert squared.mean().item() == pytest.approx(closed.mean.item(), abs=3 * closed.sd.item() / draws**0.5)
    assert squared.std().item() == pytest.approx(closed.sd.item(), rel=3 / (2 * draws) ** 0.5)


def test_a_stream_of_few_dimensions_is_a_smaller_space():
    draws = 3000
    spectrum = torch.cat([torch.ones(12), torch.zeros(300)])
    squared = spectrum_matched_cosines(spectrum, 4, draws=draws, seed=0).square().mean(-1)
    closed = haar_overlap(12, 4)
    assert squared.mean().item() == pytest.approx(closed.mean.item(), abs=3 * closed.sd.item() / draws**0.5)


def test_one_loud_direction_in_the_stream_is_shared_by_all():
    cosines = spectrum_matched_cosines(torch.tensor([1e8] + [1.0] * 30), 2, draws=500, seed=0)
    assert cosines[:, 0].min().item() > 0.999


def test_random_inputs_through_one_write_space_overlap_as_in_that_space():
    # all heads write isotropically into the same 6 of 30 dimensions: chance is that of R^6
    heads, draws, rank = 12, 60, 2
    value = haar_frames(heads, 30, 6)
    output = haar_frames(1, 30, 6, seed=1).mT.expand(heads, -1, -1)
    upper = torch.ones(heads, heads).triu(1).bool()
    null, closed = weights_only_overlap(value, output, rank=rank, draws=draws, seed=0), haar_overlap(6, rank)
    error = closed.sd.item() / (draws * int(upper.sum())) ** 0.5
    assert null.mean[upper].mean().item() == pytest.approx(closed.mean.item(), abs=3 * error)
    spread = 3 / (2 * draws * int(upper.sum())) ** 0.5
    assert null.sd[upper].square().mean().sqrt().item() == pytest.approx(closed.sd.item(), rel=spread)
    assert torch.allclose(null.mean.diagonal(), torch.ones(heads).double())


def test_what_a_head_reads_loudest_it_writes_whatever_the_text():
    # each W_V passes one of the six coordinates a hundred thousand times louder, and the heads write it to one place
    loud = torch.tensor([1e5, 1, 1, 1, 1, 1]).double()
    output = haar_frames(1, 30, 6, seed=1).mT.expand(5, -1, -1)
    null = weights_only_overlap(haar_frames(5, 30, 6) * loud, output, rank=1, draws=10, seed=0)
    assert null.mean.min().item() == pytest.approx(1, abs=1e-4)


def test_heads_with_write_spaces_apart_cannot_overlap():
    frame = haar_frames(1, 30, 12)[0].T
    output = torch.stack([frame[:6], frame[6:]])
    null = weights_only_overlap(normal(2, 30, 6), output, rank=3, draws=4, seed=0)
    assert null.mean[0, 1].item() == pytest.approx(0, abs=1e-12)


def test_effects_and_scores_are_chance_taken_out():
    null = Chance(torch.tensor([0.25, 0.25]), torch.tensor([0.05, 0.0]))
    assert adjusted(torch.tensor([0.25, 1.0]), null).tolist() == [0, 1]
    assert z_score(torch.tensor([0.35, 0.35]), null)[0].item() == pytest.approx(2)
    assert z_score(torch.tensor([0.35, 0.35]), null)[1].isnan()


def noisy_axes(truth, noise, *, rank, seed):
    cloud = normal(len(truth), 4 * truth.shape[-1], truth.shape[-1], seed=seed) @ truth
    cloud = cloud + noise * normal(*cloud.shape, seed=seed + 1)
    covariance = torch.stack([head.T.cov() for head in cloud])
    return write_axes(covariance, torch.eye(truth.shape[-1]).double().expand(len(truth), -1, -1), rank=rank).axes


def test_cross_fitting_sees_through_the_noise_of_each_half():
    # heads 0 and 1 share their three loud directions, head 2 has its own; noise pulls every overlap down
    frame = torch.linalg.qr(normal(20, 20)).Q
    loud = torch.stack([frame[:, :3] @ frame[:, :3].T, frame[:, :3] @ frame[:, :3].T, frame[:, 3:6] @ frame[:, 3:6].T])
    drawn = [noisy_axes(loud, 0.5, rank=3, seed=seed) for seed in range(0, 80, 2)]
    halves = [split_half(*both) for both in zip(drawn[::2], drawn[1::2], strict=True)]
    assert (torch.stack([one.ceiling for one in halves]).mean(0) < 0.95).all()
    for one in halves:
        assert torch.allclose(one.effect.diagonal(), torch.ones(3).double())
    alike = torch.stack([one.effect[0, 1] for one in halves])
    assert alike.mean().item() == pytest.approx(1, abs=3 * alike.std().item() / len(alike) ** 0.5)
    # head 2 lies across the two: less alike than by chance, however much noise there is
    assert max(one.crossed[0, 2].item() for one in halves) < haar_overlap(20, 3).mean


def test_a_head_without_a_reliable_subspace_has_no_effect():
    frame = torch.eye(8).double()
    first, second = frame[None, :, :2], frame[None, :, 2:4]  # nothing in common between the halves
    halves = split_half(first, second)
    assert halves.ceiling.tolist() == [0]
    assert halves.effect.isnan().all()


def test_the_reliable_rank_is_where_two_halves_part():
    frame, other = torch.eye(10).double(), torch.eye(10).double()[:, [0, 1, 2, 7, 8, 9]]
    halves = torch.stack([frame[:, :6], other]), torch.stack([frame[:, :6], frame[:, :6]])
    # overlap of head 1 is 1, 1, 1, 3/4, 3/5, 3/6
    assert reliable_rank(*halves).tolist() == [6, 3]
    assert reliable_rank(*halves, floor=0.7).tolist() == [6, 4]


def test_gauges_are_rotations_or_have_the_condition_number_asked_for():
    rotation = random_gauge(3, 6, seed=0)
    assert torch.allclose(rotation @ rotation.mT, torch.eye(6).double().expand(3, -1, -1))
    assert torch.allclose(torch.linalg.cond(random_gauge(3, 6, seed=0, condition=50)), torch.tensor(50.0).double())


def test_random_rotations_have_no_preferred_direction():
    gauges = random_gauge(3000, 3, seed=0)
    assert gauges.mean(0).abs().max().item() < 5 / math.sqrt(3 * 3000)
    assert torch.allclose(gauges.square().mean(0), torch.tensor(1 / 3).double(), atol=5 * 0.3 / math.sqrt(3000))


def test_a_gauge_leaves_what_a_head_computes():
    value, output = normal(2, 10, 4), normal(2, 4, 9, seed=1)
    turned = regauged(value, output, random_gauge(2, 4, seed=2, condition=20))
    assert not torch.allclose(turned[0], value)
    assert torch.allclose(turned[0] @ turned[1], value @ output)


def test_the_bootstrap_draws_whole_documents():
    clouds = [normal(5 + 3 * doc, 4, seed=doc) + doc for doc in range(3)]
    count = torch.tensor([len(cloud) for cloud in clouds])
    total = torch.stack([cloud.sum(0) for cloud in clouds])[:, None]
    moment = torch.stack([cloud.T @ cloud for cloud in clouds])[:, None]
    everything = torch.cat(clouds).T.cov(correction=0)
    assert torch.allclose(pooled_covariance(count, total, moment)[0], everything)
    picks = [(a, b, c) for a in range(3) for b in range(3) for c in range(3)]
    possible = torch.stack([torch.cat([clouds[i] for i in pick]).T.cov(correction=0) for pick in picks])
    drawn = torch.cat(list(bootstrap_covariances(count, total, moment, draws=200, seed=0)))
    gap = (drawn[:, None] - possible).abs().amax((-1, -2))
    assert gap.amin(1).max().item() < 1e-9
    assert len({tuple(row.round(decimals=6).flatten().tolist()) for row in drawn}) == 10  # multisets of 3 of 3


def test_the_interval_over_documents_covers_the_true_overlap():
    """Documents with themes of their own, heads that share some directions: the mean over pairs, ± 1.96 bootstrap SD.

    Of 150 corpora three binomial errors allow 5.3 points about 94 %: of 95 %, Student's factor for forty documents and
    the noise of a standard deviation of fifty draws take a point away.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    heads, d_head, rank, documents, draws, corpora = 4, 6, 2, 40, 50, 150
    scale = torch.tensor([3, 2.4, 1, 1, 1, 1]).double()
    output = 0.6 * draw(d_head, 18) + 0.8 * draw(heads, d_head, 18)

    def mean_overlap(covariance, times=1):
        axes = write_axes(covariance, output.repeat(times, 1, 1), rank=rank).axes.unflatten(0, (times, heads))
        pairs = torch.stack([overlap(one)[*torch.triu_indices(heads, heads, 1)] for one in axes])
        return pairs.mean(-1)

    truth = mean_overlap(1.5 * scale.square().diag().expand(heads, -1, -1))
    held = 0
    for corpus in range(corpora):
        count = torch.randint(15, 46, (documents,), generator=generator)
        document = torch.arange(documents).repeat_interleave(count)
        theme = 0.5**0.5 * draw(documents, heads, d_head)
        z = scale * (theme[document] + draw(len(document), heads, d_head))
        total = torch.zeros_like(theme).index_add_(0, document, z)
        moment = torch.zeros(*theme.shape, d_head).double()
        moment.index_add_(0, document, z[..., :, None] * z[..., None, :])
        value = mean_overlap(pooled_covariance(count, total, moment))
        anew = torch.cat(list(bootstrap_covariances(count, total, moment, draws=draws, seed=corpus)))
        held += bool((value - truth).abs() < 1.96 * mean_overlap(anew, draws).std())
    assert abs(held / corpora - 0.94) < 3 * math.sqrt(0.95 * 0.05 / corpora)


def test_impossible_requests_are_refused():
    for null in (
        lambda: haar_overlap(4, 5),
        lambda: haar_cosines(4, 5, draws=2, seed=0),
        lambda: spectrum_matched_cosines(torch.tensor([1.0, 1, 1, 1, 0, 0]), 5, draws=2, seed=0),
        lambda: weights_only_overlap(normal(2, 9, 4), normal(2, 4, 9), rank=5, draws=2, seed=0),
    ):
        with pytest.raises(ValueError, match="a subspace of rank 5 asked of 4 dimensions; ask for 1 to 4"):
            null()
    with pytest.raises(ValueError, match="a standard deviation needs at least 2 draws; got 1"):
        weights_only_overlap(normal(2, 9, 4), normal(2, 4, 9), rank=2, draws=1, seed=0)
    with pytest.raises(ValueError, match=r"a condition number is at least 1; got 0.5"):
        random_gauge(2, 4, seed=0, condition=0.5)
