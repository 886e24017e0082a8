"""Partial correlation against regression the long way; confounders of position that it must not fall for."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from atlaskit.measure.partial import correlation_at_equal_position, partial_correlation


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def corpus(documents=20, length=40):
    return torch.arange(documents).repeat_interleave(length), torch.arange(length).repeat(documents)


def test_it_is_the_correlation_of_residuals():
    given, values, outcome = normal(50, 2), normal(3, 50, seed=1), normal(50, seed=2)
    outcome = outcome + given[:, 0] + 0.5 * values[1]
    found = partial_correlation(values, outcome, given)
    design = np.column_stack([np.ones(50), given])

    def left(y):
        return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]

    for head in range(3):
        expected = scipy.stats.pearsonr(left(values[head].numpy()), left(outcome.numpy())).statistic
        assert found[head].item() == pytest.approx(expected, abs=1e-6)


def test_what_the_control_explains_wholly_has_no_correlation_left():
    given = normal(50, 1)
    assert partial_correlation(3 * given.T + 1, normal(50, seed=1), given).isnan().all()


def test_a_quantity_that_goes_with_position_alone_is_at_chance():
    document, position = corpus()
    place = position.double()
    values = torch.stack([(place + 1).log() + 0.1 * normal(800), place + normal(800, seed=1)])
    outcome = -(place + 1).log() + 0.1 * normal(800, seed=2)
    plain = np.corrcoef(values[0], outcome)[0, 1]
    assert plain < -0.9
    for found in correlation_at_equal_position(
        values, outcome, document=document, position=position, draws=100, seed=0
    ):
        assert abs(found.value) < 3 / math.sqrt(800)  # three errors of a correlation of 800 independent tokens
        assert not found.beats_null
        assert found.n == 20


def test_a_curve_over_position_that_no_line_fits_is_in_the_null_too():
    """A bump at one place of every text survives the linear control; it does so in other documents just as well."""
    document, position = corpus()
    bump = torch.exp(-((position - 20.0) ** 2) / 8).double()
    values = (bump + 0.2 * normal(800))[None]
    outcome = bump + 0.2 * normal(800, seed=1)
    (found,) = correlation_at_equal_position(values, outcome, document=document, position=position, draws=100, seed=0)
    place = position.double()
    line = np.column_stack([np.ones(800), place, (place + 1).log()])
    left = bump.numpy() - line @ np.linalg.lstsq(line, bump.numpy(), rcond=None)[0]
    expected = left.var() / (left.var() + 0.2**2)
    assert found.value == pytest.approx(expected, abs=3 * (1 - expected**2) / math.sqrt(800))  # three errors
    assert found.null_low < expected < found.null_high
    assert not found.beats_null


def test_a_real_tie_between_tokens_is_found():
    document, position = corpus()
    shared = normal(800)
    values = torch.stack([shared + normal(800, seed=1), normal(800, seed=2)])
    tied, loose = correlation_at_equal_position(
        values, shared + normal(800, seed=3), document=document, position=position, draws=100, seed=0
    )
    assert tied.value == pytest.approx(0.5, abs=3 * (1 - 0.5**2) / math.sqrt(800))  # three errors of a correlation
    assert tied.beats_null
    assert tied.p == pytest.approx(1 / 101, abs=1e-6)
    assert not loose.beats_null


def test_the_interval_is_over_documents_whose_tokens_say_one_thing():
    """Forty tokens that agree are one witness: the interval is that of 20 numbers, not of 800."""
    document, position = corpus()
    values, outcome = normal(200, 20)[:, document], normal(20, seed=1)[document]
    found = correlation_at_equal_position(values, outcome, document=document, position=position, draws=50, seed=0)
    width = torch.tensor([one.high - one.low for one in found]).mean().item()
    # of tokens drawn apart it would be 2 · 1.96 / √800 = 0.14; twenty documents give 0.88, of which half is asked
    assert width > 1.96 / math.sqrt(20)


def test_documents_of_different_lengths_meet_where_both_have_tokens():
    document = torch.tensor([0] * 9 + [1] * 5 + [2] * 7)
    position = torch.cat([torch.arange(9), torch.arange(5), torch.arange(7)])
    (found,) = correlation_at_equal_position(
        normal(1, 21), normal(21, seed=1), document=document, position=position, draws=20, seed=0
    )
    assert -1 <= found.null_low <= found.null_high <= 1


def test_two_documents_are_too_few():
    with pytest.raises(ValueError, match="2 documents; an interval over documents and a null need at least 3"):
        correlation_at_equal_position(
            normal(1, 8), normal(8), document=torch.arange(8) % 2, position=torch.arange(8) // 2, draws=5, seed=0
        )
