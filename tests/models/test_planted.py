"""The ground truth itself: planted heads are what they are called, to the last bit that matters."""

import pytest
import torch

from atlaskit import measure, models
from atlaskit.models.planted import WORDS

SELECTORS = {
    "previous_token": measure.previous_token,
    "first_token": measure.first_token,
    "own_token": measure.own_token,
    "induction": measure.induction,
}


@pytest.fixture(scope="module")
def seen():
    half = [WORDS[i] for i in torch.randperm(64, generator=torch.Generator().manual_seed(0))[:20]]
    return models.capture(models.planted(), " ".join(half + half))


@pytest.mark.parametrize("name", models.PLANTED)
def test_a_planted_head_puts_all_its_mass_where_it_should(seen, name):
    layer, head = models.PLANTED[name]
    one = seen.layers[layer]
    rows = measure.mass(one.pattern, one.support, SELECTORS[name](seen.tokens))[head]
    if name == "induction":
        assert rows[:20].isnan().all()  # nothing has occurred before
        rows = rows[20:]
    assert (rows[~rows.isnan()] > 1 - 1e-6).all()


def test_no_other_head_does_what_a_planted_one_does(seen):
    for name, (layer, head) in models.PLANTED.items():
        selector = SELECTORS[name](seen.tokens)
        for place, one in enumerate(seen.layers):
            means = measure.mass(one.pattern, one.support, selector).nanmean(-1)
            others = [i for i in range(5) if (place, i) != (layer, head)]
            assert (means[others] < 0.2).all()


@pytest.mark.parametrize(("layer", "head"), models.UNIFORM)
def test_every_other_head_is_exactly_ignorant(seen, layer, head):
    one = seen.layers[layer]
    assert torch.equal(one.pattern[head], measure.uniform(one.support)[0])


def test_the_model_completes_a_repeated_sequence():
    model = models.planted()
    ids = torch.tensor([list(range(20)) * 2])
    with torch.inference_mode():
        logits = model.net(ids).logits[0]
    assert torch.equal(logits[20:-1].argmax(-1), ids[0, 21:])


def test_the_uniform_heads_are_found_by_no_measure_of_entropy(seen):
    for layer, head in models.UNIFORM:
        one = seen.layers[layer]
        rows = measure.entropy(one.pattern, one.support)[head]
        torch.testing.assert_close(rows, measure.entropy(measure.uniform(one.support), one.support)[0], equal_nan=True)


def test_a_word_that_the_planted_model_does_not_know_is_refused():
    """Any stand-in would be one of its words, and its heads would be measured on another text than the one given."""
    with pytest.raises(ValueError, match="the tokenizer cannot read 'cat zebra cat'"):
        models.capture(models.planted(), "cat zebra cat")
