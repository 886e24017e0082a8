"""The old ratio, and the head that shows what is wrong with it."""

import warnings

import pytest
import torch

from atlaskit import measure, models
from atlaskit.compat import attention_atlas_bias as old
from atlaskit.compat import flaws

pytestmark = pytest.mark.filterwarnings("ignore::atlaskit.compat.flaws.FlawedQuantity")


def at(place, n=20):
    return torch.arange(n) == place


@pytest.mark.parametrize(("place", "ratio"), [(0, 3.598), (10, 0.669), (19, 0.05)])
def test_the_old_ratio_of_an_ignorant_causal_head_is_a_function_of_the_place(place, ratio):
    support = measure.causal(20)
    even = measure.uniform(support)
    found = old.bar(even, support, at(place))
    assert float(found.value) == pytest.approx(ratio, abs=1e-3)
    assert float(found.value) == pytest.approx(sum(1 / (i + 1) for i in range(place, 20)))  # 1/(i+1) from each query
    assert torch.equal(found.value, found.null.mean)
    assert float(measure.key_lift(even, support)[0, place]) == pytest.approx(1, abs=1e-6)


def test_a_head_that_knows_nothing_crosses_every_threshold_but_the_highest():
    support = measure.causal(20)
    value = float(old.bar(measure.uniform(support), support, at(0)).value)
    crossed = {name for name, limit in old.BAR_THRESHOLDS.items() if value > limit}
    assert crossed == {"specialised", "UNFAIR", "STEREO"}


def test_the_old_self_reinforcement_of_one_token_is_its_own_weight_times_the_length():
    support = measure.causal(20)
    found = old.bsr(measure.uniform(support), support, at(0))
    assert float(found.value) == pytest.approx(20)


def test_a_text_with_one_flagged_word_in_five_is_high():
    level = old.composite(words=5, flagged=1, counts={"GEN": 1, "STEREO": 1})
    assert level == pytest.approx(0.3 * 0.2 + 0.2 + 0.25)
    assert level > 0.40


def test_no_flagged_token_is_no_ratio():
    with pytest.raises(ValueError, match="none of the 20 tokens is flagged"):
        old.bar(torch.ones(1, 20, 20) / 20, measure.full(20), torch.zeros(20, dtype=torch.bool))


def test_two_packages_may_use_one_name_and_each_flaw_is_told(monkeypatch):
    def bar():
        pass

    monkeypatch.setattr(flaws, "_TOLD", set())
    monkeypatch.setitem(flaws.FAA, "bar", ("another bar", "nothing"))
    both = []
    for module in ("atlaskit.compat.faa", "atlaskit.compat.attention_atlas_bias"):
        bar.__module__ = module
        both.append(flaws.told_once(bar))
    with warnings.catch_warnings(record=True, action="always") as heard:
        for told in both * 2:
            told()
    assert [str(one.message).split(":")[1][:12] for one in heard] == [" another bar", " it divides "]


def test_each_flaw_is_told_once_and_names_what_to_use_that_exists(monkeypatch):
    monkeypatch.setattr(flaws, "_TOLD", set())
    support = measure.full(4)
    with warnings.catch_warnings(record=True, action="always") as heard:
        for _ in range(2):
            old.bar(measure.uniform(support), support, at(0, 4))
            old.bsr(measure.uniform(support), support, at(0, 4))
            old.composite(words=5, flagged=1, counts={})
    told = sorted(str(one.message) for one in heard)
    assert told == sorted(f"{name}: {why}. Use {use}." for name, (why, use) in flaws.ATTENTION_ATLAS_BIAS.items())
    for room, name in (("measure", "key_lift"), ("measure", "matched"), ("measure", "mass"), ("models", "pair_scores")):
        assert any(f"{room}.{name}" in use for _, use in flaws.ATTENTION_ATLAS_BIAS.values())
        assert hasattr({"measure": measure, "models": models}[room], name)
