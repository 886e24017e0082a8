"""Law: sums that never round depend on nothing but their numbers."""

import json
import math
import statistics
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaskit import runs

FLOATS = st.floats(width=32, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=12), st.randoms(), st.integers(1, 12))
def test_any_parts_in_any_order_give_what_fractions_give(pairs, random, size):
    values, other = (torch.tensor(column)[:, None] for column in zip(*pairs, strict=True))
    whole = runs.ExactSums.of(values, less=other)
    random.shuffle(pairs)
    parts = [torch.tensor(pairs[i : i + size]) for i in range(0, len(pairs), size)]
    sums = [runs.ExactSums.of(part[:, :1], less=part[:, 1:]) for part in parts]
    read = [runs.ExactSums.from_json(json.loads(json.dumps(one.to_json()))) for one in sums]
    assert runs.merged(read) == whole
    known = [Fraction(a) - Fraction(b) for a, b in pairs if not (math.isnan(a) or math.isnan(b))]
    assert whole.count == (len(known),)
    if known:
        assert whole.mean() == [float(sum(known) / len(known))]
    else:
        assert math.isnan(whole.mean()[0])
    if len(known) > 1:
        (found,) = whole.deviation()
        assert found == pytest.approx(math.sqrt(float(statistics.variance(known))), rel=1e-15)


def test_the_interval_is_students():
    values = torch.tensor([1.0, 2.0, 4.0, 4.5])
    ((mean, low, high),) = runs.ExactSums.of(values[:, None]).interval()
    half = (
        3.182446305284263 * statistics.stdev(values.tolist()) / 2
    )  # the table's 97.5 % point for 3 degrees of freedom
    assert (mean, low, high) == pytest.approx((2.875, 2.875 - half, 2.875 + half), rel=1e-12)
    ((mean, low, high),) = runs.ExactSums.of(values[:1, None]).interval()
    assert mean == 1.0
    assert math.isnan(low)
    assert math.isnan(high)


def test_infinity_is_refused():
    with pytest.raises(ValueError, match="an infinite number has no place in a sum"):
        runs.ExactSums.of(torch.tensor([[1.0], [math.inf]]))
