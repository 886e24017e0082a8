"""Two heads broken at once: its twins are runs by `ablation_effect`."""

import families
import pytest
import torch

from atlaskit import models

TEXTS = [torch.randint(4, 96, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (12, 7)]
PAIRS = [((0, 0), (0, 3)), ((0, 2), (1, 1)), ((1, 0), (1, 1)), ((1, 2), (0, 2))]


@pytest.mark.parametrize("kind", ["mean", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_pair_costs_what_its_two_heads_cost_ablated_together(family, kind, monkeypatch):
    model = models.wrap(families.tiny(family), name=family)
    monkeypatch.setattr("atlaskit.models.suffix.BUDGET", 1)  # one pair at a time
    alone = models.pair_ablation_effects(model, TEXTS, PAIRS, kind=kind, progress=False)
    monkeypatch.undo()
    found = models.pair_ablation_effects(model, TEXTS, PAIRS, kind=kind, progress=False)
    for place, pair in enumerate(PAIRS):
        expected = models.ablation_effect(model, TEXTS, pair, kind=kind, progress=False)
        torch.testing.assert_close(found[:, place], expected, rtol=1e-3, atol=2e-6)
    torch.testing.assert_close(alone, found, rtol=1e-3, atol=2e-6)


def test_a_head_with_itself_costs_what_it_costs_alone():
    model = models.wrap(families.tiny("gpt2"))
    single = models.ablation_effects(model, TEXTS, progress=False)["effect"]
    found = models.pair_ablation_effects(model, TEXTS, [((1, 2), (1, 2))], progress=False)
    torch.testing.assert_close(found[:, 0], single[:, 1, 2], rtol=1e-3, atol=2e-6)


def test_heads_that_are_not_there_are_refused():
    model = models.wrap(families.tiny("gpt2"), name="gpt2")
    with pytest.raises(IndexError, match=r"gpt2 has no head 0.9"):
        models.pair_ablation_effects(model, TEXTS, [((0, 0), (0, 9))], progress=False)
    with pytest.raises(ValueError, match="there are no heads to ablate"):
        models.pair_ablation_effects(model, TEXTS, [], progress=False)
