"""All explanations side by side: attention read at the right rows, and random weights as the judge of methods."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from atlaskit import measure, models

TEXT = "the woman works as nurse"
SPAN = (19, 24)
GROUP = 1  # among the candidates: the, woman, works, as


def readings(layers):
    return {
        "attention": layers[-1].pattern.mean(0),
        "place": torch.arange(len(layers[0].residual)).float().expand(6, -1),
    }


def asked(model, **more):
    job, (at, _) = models.prediction(model, TEXT, SPAN), models.candidates(model, TEXT, SPAN)
    return models.explanations(model, job, at, readings=readings, **more), job, at


def test_every_method_answers_with_a_number_a_token_and_is_the_method_itself():
    model = models.planted_preference(2.0, quirks=0.5)
    found, job, at = asked(model, steps=16)
    assert set(found) == {"gradient × input", "integrated gradients", "Chefer", "occlusion", "attention", "place"}
    assert torch.equal(found["occlusion"], models.occlusion(model, job, at)[at])
    assert torch.equal(found["Chefer"], models.chefer(model, job)[at])
    assert torch.equal(found["integrated gradients"], models.integrated_gradients(model, job, at, steps=16).values[at])
    pattern = models.capture(model, job.ids.tolist()).layers[-1].pattern.mean(0)
    assert torch.allclose(found["attention"], pattern[int(job.places), at])
    for method in ("integrated gradients", "Chefer", "occlusion", "attention"):
        assert int(found[method].argmax()) == GROUP, method


def test_random_weights_tell_a_method_that_reads_places_from_one_that_reads_the_model():
    """ "place" ranks by position whatever the weights are: the check must give it 1, and occlusion nothing like it."""
    model = models.load("mini-causal")
    blank = models.untrained(model, seed=0)
    text = "The girl walked to the river and found a small boat"
    span = (text.rindex(" ") + 1, len(text))
    job, (at, _) = models.prediction(model, text, span), models.candidates(model, text, span)

    def placed(layers):
        n = len(layers[0].residual)
        return {"place": torch.arange(n).float().expand(n, -1)}

    here, there = (models.explanations(one, job, at, readings=placed, steps=8) for one in (model, blank))
    assert float(measure.rank_correlation(here["place"], there["place"])) == pytest.approx(1)
    assert float(measure.rank_correlation(here["occlusion"], there["occlusion"])) < 0.9


def test_a_model_whose_layers_cannot_be_taken_apart_keeps_the_other_methods_and_says_why():
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=32,
    )  # fmt: skip
    model = models.wrap(Gemma2ForCausalLM(config).eval(), models.planted_preference(0.0).tokenizer, name="gemma")
    with pytest.warns(UserWarning, match="attention is not read: the residual stream of gemma cannot be followed"):
        found, _, _ = asked(model, steps=4)
    assert set(found) == {"gradient × input", "integrated gradients", "Chefer", "occlusion"}
