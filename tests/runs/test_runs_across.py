"""Truth: effects across seeds against numbers worked out by hand."""

import math

import pytest

from atlaskit import runs
from atlaskit.runs import aggregate


def row(value, seed=0, *, finding="f", model="a", null=(0.0, 2.0), own=(9.0, 11.0)):
    return {
        "notebook": "n", "finding": finding, "value": value, "low": own[0], "high": own[1], "null_low": null[0],
        "null_high": null[1], "unit": "bits", "n": 4, "parameter.seed": seed, "parameter.model": model,
    }  # fmt: skip


def test_seeds_make_an_interval_and_an_effect_beside_chance():
    (found,) = runs.across([row(value, seed) for seed, value in enumerate([4.0, 6.0, 8.0])], ["model", "seed"])
    half = 4.302652729696142 * 2 / math.sqrt(3)  # Student's 97.5 % point for 2 degrees of freedom, deviation 2
    assert (found.value, found.low, found.high) == pytest.approx((6, 6 - half, 6 + half))
    assert (found.effect, found.effect_low, found.effect_high) == pytest.approx((5, 5 - half, 5 + half))
    assert found.g == pytest.approx((1 - 3 / 7) * 5 / 2)
    assert (found.null_low, found.null_high, found.seeds, found.setting) == (0, 2, 3, {"model": "a"})
    assert found.estimate.n == 3


def test_settings_stay_apart_and_keep_their_order():
    found = runs.across([row(1.0, model="b"), row(2.0, model="a"), row(3.0, 1, model="b")], ["model", "seed"])
    assert [(one.setting["model"], one.value, one.seeds) for one in found] == [("b", 2.0, 2), ("a", 2.0, 1)]


def test_one_seed_keeps_the_interval_of_its_own_documents():
    (found,) = runs.across([row(10.0)], ["seed"])
    assert (found.low, found.high) == (9.0, 11.0)
    assert math.isnan(found.g)
    assert math.isnan(found.effect_low)


def test_seeds_that_change_nothing_have_no_standardised_effect():
    (found,) = runs.across([row(3.0, 0), row(3.0, 1)], ["seed"])
    assert math.isnan(found.g)
    assert (found.low, found.high) == (3.0, 3.0)


def test_text_is_no_effect():
    assert runs.across([row(None) | {"value": math.nan, "text": "3.7"}], ["seed"]) == []


def test_long_values_get_short_names_that_stay_apart_and_short_ones_keep_their_own():
    long = ["It was a long day, and a longer evening.", "It was a long day, and a longer night."]
    assert runs.labels("text", [*long, long[0], "x"]) == {long[0]: "text 1", long[1]: "text 2", "x": "text 3"}
    assert runs.labels("text", ["two\nlines"]) == {"two\nlines": "text 1"}
    assert runs.labels("rate", [0.5, 3, 3.0, "a"]) == {"0.5": "0.5", "3": "3", "a": "a"}


def test_a_value_has_one_text_in_a_plan_and_in_a_column():
    for value in (True, 3, 0.25, "a", [1, "b"], {"a": math.nan}):
        (column,) = aggregate._column([value])
        assert runs.text_of(column) == runs.text_of(value)
    assert [runs.text_of(one) for one in aggregate._column([1, 2.5])] == [runs.text_of(one) for one in (1, 2.5)]


def test_numbers_and_checkpoints_rise_and_other_names_do_not():
    checkpoints = ["mini-steps/1000", "mini-causal", "mini-steps/0", "mini-steps/500", "mini-steps/0", "all-v2"]
    expected = {"mini-steps/0": 0.0, "mini-steps/500": 500.0, "mini-steps/1000": 1000.0}
    assert list(runs.ladder(checkpoints).items()) == list(expected.items())
    assert runs.ladder([10, 2, 0.5]) == {"0.5": 0.5, "2": 2.0, "10": 10.0}
    assert runs.ladder([1, 2]) == runs.ladder(["a", "b", "c"]) == runs.ladder([]) == {}
