"""The bundled decoder: the heads that look like previous-token and induction heads are those that it needs.

A head is chosen on one half of the sequences, by where it looks; what it costs is measured on the other half. The
sequences are random and said twice, and the cost is the mean over the second saying, but for its first token: of the
first saying and that one token no copy tells anything, so no head can help there.
"""

import pytest
import torch

from atlaskit import measure, models


@pytest.fixture(scope="module")
def model():
    return models.load("mini-causal")


@pytest.fixture(scope="module")
def halves(model):
    vocabulary = torch.arange(300, model.net.config.vocab_size)  # words and parts of words, no single bytes
    repeats = measure.random_repeats(vocabulary, documents=32, seed=3)
    return repeats[::2], repeats[1::2]


@pytest.fixture(scope="module")
def looks(model, halves):
    return models.survey(model, halves[0], measure.role_scores(measure.REPEAT_ROLES), progress=False)


@pytest.fixture(scope="module")
def effects(model, halves):
    """Loss without each head on the half that chooses, and on the half that tells, where a copy foretells the token."""
    return [models.ablation_effects(model, half, where=measure.foretold, progress=False)["effect"] for half in halves]


@pytest.mark.parametrize("role", ["induction", "previous_token"])
def test_the_model_needs_the_head_that_fills_a_role_more_than_a_middling_head(looks, effects, role):
    chosen, told = effects
    layer, head = divmod(int(looks[role].mean(0).argmax()), told.shape[2])
    middle = int(chosen.mean(0).flatten().argsort()[chosen[0].numel() // 2])
    cost, middling = told[:, layer, head], told.flatten(1)[:, middle]
    apart = measure.estimate(cost - middling, torch.zeros_like(cost), unit="nats per token")
    assert apart.low > 0
    assert float(measure.paired_p(cost, middling)) <= 0.05


def test_what_is_averaged_over_is_the_second_saying_but_for_its_first_token(model, halves):
    for ids in halves[1]:
        half = len(ids) // 2
        counted = measure.foretold(model.tokens(ids)).nonzero().flatten().tolist()
        assert counted == list(range(half + 1, 2 * half))


def test_induction_heads_stand_in_for_each_other(model, halves, looks, effects):
    """One induction head of several costs little and all together much: what a lone ablation cannot tell."""
    found = measure.find_roles(looks).heads("induction")
    together = models.ablation_effect(model, halves[1], found, where=measure.foretold, progress=False)
    alone = torch.stack([effects[1][:, layer, head] for layer, head in found], -1)
    assert len(found) >= 2
    more = measure.estimate(together - alone.sum(-1), torch.zeros_like(together), unit="nats per token")
    assert more.low > 0
