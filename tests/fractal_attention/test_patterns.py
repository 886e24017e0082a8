"""Truth: closed forms and the published table of diameters. Twin: boolean matrix powers."""

import json
import math

import pytest
import torch

from atlaskit.fractal_attention import curves, patterns, reach

TABLE = {
    # pattern: keys per query at 4,096 tokens, diameter at 256, 1,024 and 4,096
    patterns.log_lags(): (12, 8, 10, 12),
    patterns.ternary_lags(): (14.7, 5, 6, 8),
    patterns.cantor(): (153.5, 2, 2, 2),
    patterns.cantor_literal(): (94, math.inf, math.inf, math.inf),
    patterns.koch(): (405, 2, 2, 2),
    patterns.moser(): (95, 2, 2, 2),
    patterns.dragon_lags(): (38.5, 3, 4, 4),
    patterns.dragon_lags(signed=True): (20.8, 4, 6, 6),
    patterns.dragon_window(): (34, 8, 17, 35),
    patterns.hilbert_window(): (24, 7, 13, 27),
    patterns.sierpinski(previous=False): (130, math.inf, math.inf, math.inf),
    patterns.sierpinski(): (130, 3, 3, 3),
    patterns.sliding(25): (24.9, 11, 43, 171),
    patterns.sierpinski_disjoint(): (67, 128, None, None),
}
EVERY = [
    *TABLE,
    patterns.dense(),
    patterns.dilated(5, 3),
    patterns.strided(8),
    patterns.bigbird(),
    patterns.random_lags(patterns.log_lags(), seed=1),
    patterns.union(patterns.sliding(9), patterns.hilbert_window()),
    patterns.blocked(patterns.cantor(), 8),
    patterns.blocked(patterns.union(patterns.log_lags(), patterns.sierpinski()), 4),
]


@pytest.mark.parametrize("pattern", TABLE, ids=str)
def test_diameters_and_keys_are_those_of_the_table(pattern):
    keys, *diameters = TABLE[pattern]
    assert reach.keys_per_query(pattern, 4096) == pytest.approx(keys, abs=0.5)
    for n, layers in zip((256, 1024, 4096), diameters, strict=True):
        if layers is not None:
            assert reach.diameter(pattern, n) == layers


def test_disjoint_bits_need_more_than_400_layers_at_1024_tokens():
    assert reach.diameter(patterns.sierpinski_disjoint(), 1024) > 400


@pytest.mark.parametrize(
    ("pattern", "n", "law"),
    [
        (patterns.log_lags(), 4096, 1 / 4096 * sum(4096 - lag for lag in [0, *(2**k for k in range(12))])),
        (patterns.sierpinski(previous=False), 4096, 1.5**12),  # each bit of i, set or not: 2 or 1 keys
        (patterns.sliding(25), 4096, 25 - sum(range(25)) / 4096),
        (patterns.dense(), 4096, 4097 / 2),
    ],
    ids=str,
)
def test_mean_keys_follow_their_closed_form(pattern, n, law):
    assert reach.keys_per_query(pattern, n) == pytest.approx(law, rel=1e-12)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [(patterns.cantor(), 2**8), (patterns.cantor_literal(), 2**8), (patterns.cantor(depth=3), 2**3)],
    ids=str,
)
def test_a_cantor_set_of_eight_digits_has_two_to_the_eight_members(pattern, count):
    assert len(reach.lags(pattern, 3**8)) == count


def test_koch_and_moser_sets_count_their_digits():
    assert len(reach.lags(patterns.koch(), 4**6)) == 3**6
    assert len(reach.lags(patterns.moser(), 4**6)) == 2 * 2**6 - 1


@pytest.mark.parametrize("n", [256, 4096])
def test_two_blocks_out_of_three_never_reach_an_odd_distance(n):
    """The parity trap of the Cantor set as drawn: every distance in it is even."""
    needed = reach.hops_needed(patterns.cantor_literal(), n)
    assert (needed[1::2] == -1).all()
    assert (needed[2::2] >= 1).all()


def test_hops_of_log_lags_are_the_number_of_ones():
    needed = reach.hops_needed(patterns.log_lags(), 1000)
    assert needed.tolist() == [lag.bit_count() for lag in range(1000)]


def test_hops_of_ternary_lags_are_the_nonzero_ternary_digits():
    lag = torch.arange(700)
    assert torch.equal(reach.hops_needed(patterns.ternary_lags(), 700), curves.nonzero_digits(lag, 3))


@pytest.mark.parametrize("pattern", EVERY, ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_coverage_and_diameter_equal_boolean_matrix_powers(pattern, causal):
    n = 70
    one = reach.support(pattern, n, causal=causal)
    assert one.diagonal().all()
    assert torch.equal(one, one.tril() if causal else one.T)
    pairs = n * (n + 1) / 2 if causal else n * n
    power, shares, layers = torch.eye(n), [], math.inf
    for hop in range(1, n + 1):
        power = (power @ one.float() > 0).float()
        shares.append(float(power.sum()) / pairs)
        if shares[-1] == 1:
            layers = hop
            break
    assert reach.diameter(pattern, n, causal=causal) == layers
    hops = min(len(shares), 5)
    assert reach.coverage(pattern, n, hops=hops, causal=causal).tolist() == pytest.approx(shares[:hops], rel=1e-12)


@pytest.mark.parametrize("pattern", EVERY, ids=str)
def test_a_longer_text_changes_nothing_that_was_read(pattern):
    assert torch.equal(reach.support(pattern, 130)[:67, :67], reach.support(pattern, 67))


@pytest.mark.parametrize("pattern", EVERY, ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_key_lists_blocks_and_densities_agree_with_the_support(pattern, causal):
    n, size = 67, 8
    cells = reach.support(pattern, n, causal=causal)
    keys, counts = reach.rows_of_keys(pattern, n, causal=causal)
    assert torch.equal(counts, cells.sum(1))
    assert torch.equal(keys, cells.nonzero()[:, 1])
    assert reach.keys_per_query(pattern, n, causal=causal) == pytest.approx(int(cells.sum()) / n)
    assert reach.density(pattern, n, causal=causal) == pytest.approx(
        int(cells.sum()) / (n * (n + 1) / 2 if causal else n * n)
    )
    padded = torch.zeros(72, 72, dtype=torch.bool)
    padded[:n, :n] = cells
    touched = padded.unfold(0, size, size).unfold(1, size, size).flatten(2).any(-1)
    assert torch.equal(reach.blocks(pattern, n, size=size, causal=causal), touched)
    possible = 9 * 10 / 2 if causal else 81
    assert reach.block_density(pattern, n, size=size, causal=causal) == pytest.approx(int(touched.sum()) / possible)


@pytest.mark.parametrize("pattern", EVERY, ids=str)
def test_a_pattern_survives_json(pattern):
    again = patterns.from_spec(json.loads(json.dumps(pattern.spec)))
    assert again == pattern
    assert hash(again) == hash(pattern)
    assert torch.equal(reach.support(again, 40), reach.support(pattern, 40))


def test_published_block_densities_at_4096_and_16384_tokens():
    for pattern, *shares in (
        (patterns.cantor(), 0.55, 0.33),
        (patterns.log_lags(), 0.185, 0.062),
        (patterns.dragon_lags(), 0.45, 0.18),
    ):
        for n, share in zip((4096, 16384), shares, strict=True):
            assert reach.block_density(pattern, n) == pytest.approx(share, abs=0.006)
    assert reach.block_density(patterns.blocked(patterns.cantor()), 4096) == pytest.approx(0.34, abs=0.005)
    assert reach.block_density(patterns.blocked(patterns.cantor()), 16384) == pytest.approx(0.19, abs=0.005)


def test_random_lags_have_as_many_distances_in_every_octave():
    like, drawn = patterns.dragon_lags(), patterns.random_lags(patterns.dragon_lags(), seed=3)
    for power in range(12):
        assert len(reach.lags(drawn, 1 << power)) == len(reach.lags(like, 1 << power))
    assert not torch.equal(
        reach.lags(drawn, 4096), reach.lags(patterns.random_lags(patterns.dragon_lags(), seed=4), 4096)
    )


def test_the_hilbert_curve_visits_each_cell_once_by_unit_steps():
    cells = curves.hilbert_cells(torch.arange(4**6))
    assert torch.equal(cells.unique(dim=0), torch.cartesian_prod(torch.arange(64), torch.arange(64)))
    assert ((cells[1:] - cells[:-1]).abs().sum(-1) == 1).all()


def test_the_dragon_turns_as_paper_folds():
    steps = torch.view_as_complex(curves.dragon_points(torch.arange(2049)).diff(dim=0).double())
    turns = (steps[1:] / steps[:-1]).imag.round().long()
    assert torch.equal(turns, curves.fold_signs(torch.arange(1, 2048)))


def test_the_koch_curve_has_unit_steps_and_thirds_at_each_quarter():
    points = curves.koch_points(torch.arange(4**6 + 1))
    torch.testing.assert_close(points.diff().abs(), torch.ones(4**6, dtype=torch.float64), rtol=0, atol=1e-9)
    for power in range(7):
        assert abs(points[4**power] - 3**power) < 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: patterns.sliding(0), "sliding: window is 0; it must be at least 1"),
        (lambda: patterns.random_lags(patterns.sierpinski(), seed=0), "random_lags needs a pattern of distances"),
        (lambda: patterns.union(), "union needs at least one pattern"),
        (lambda: patterns.blocked(patterns.blocked(patterns.log_lags())), "already made of blocks of 64"),
        (lambda: patterns.from_spec("cantro"), "no pattern is called 'cantro'; known are bigbird, blocked"),
        (lambda: patterns.from_spec({"window": 3}), 'a spec needs a "name"'),
        (lambda: patterns.from_spec({"name": "union"}), 'the spec of a union has "parts"'),
        (lambda: reach.lags(patterns.sierpinski(), 8), "sierpinski depends on more than the distance"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
