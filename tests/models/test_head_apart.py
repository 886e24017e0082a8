"""The head run apart from its trunk, and products by the other library: whole runs and float64 are the twins."""

import families
import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from atlaskit import models
from atlaskit.models import head_apart
from atlaskit.models.loss import IGNORED
from atlaskit.models.products import OneDNN
from atlaskit.models.suffix import find_blocks

IDS = [5, 17, 9, 30, 5, 17, 80, 33, 21, 60, 5, 17]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "cohere", "granite", "gpt_oss", "bert", "modernbert"])
def test_loss_of_rows_is_that_of_whole_logits(family, monkeypatch):
    """Also where the net does more than multiply: soft caps, scales, a transform before the vocabulary."""
    model = models.wrap(families.tiny(family), name=family)
    inputs = {"input_ids": torch.tensor([IDS, IDS[::-1]])}
    targets = torch.tensor([*IDS[1:6], IGNORED, *IDS[7:], IGNORED])
    handed_on = head_apart.find_head(model, {"input_ids": inputs["input_ids"][:1]})
    assert handed_on is not None
    monkeypatch.setattr(head_apart, "LOGITS", 4 * model.net.config.vocab_size * 3)  # three rows at a time
    with torch.no_grad():
        told = head_apart.loss_of_rows(model, handed_on, model.net.base_model(**inputs).last_hidden_state, targets)
        logits = model.net(**inputs).logits
    expected = torch.stack([cross_entropy(one, targets, ignore_index=IGNORED) for one in logits])
    torch.testing.assert_close(told, expected, rtol=1e-5, atol=1e-5)


def test_a_head_that_reads_across_rows_is_not_run_apart():
    """Here each logit is less the mean of its column; effects are then those of whole runs all the same."""
    net = families.tiny("gpt2")
    net.lm_head.register_forward_hook(lambda module, args, output: output - output.mean(-2, keepdim=True))
    model = models.wrap(net)
    assert find_blocks(model, model.tokens(IDS)).handed_on is None
    effects = models.ablation_effects(model, [IDS], kind="zero", progress=False)["effect"][0]

    def silent(layer, z):
        z = z.clone()
        z[:, 1] = z[:, 1] * (layer != 1)
        return z

    base = float(models.losses(model, [IDS])[0])
    with models.intervene(model, silent):
        assert float(effects[1, 1]) == pytest.approx(float(models.losses(model, [IDS])[0]) - base, abs=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_products_are_those_of_float64(rows):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, rows, 96, generator=generator)
    weight, bias = torch.randn(160, 96, generator=generator), torch.randn(160, generator=generator)
    expected = linear(*(one.double() for one in (x, weight, bias)))
    flat, sideways = x.flatten(0, 1), weight.T.contiguous()
    with torch.no_grad(), OneDNN():
        ways = [linear(x, weight, bias), linear(x, weight) + bias, torch.addmm(bias, flat, sideways).view_as(expected)]
    for way in ways:
        torch.testing.assert_close(way.double(), expected, rtol=1e-5, atol=1e-4)


def test_what_needs_gradients_or_other_numbers_is_left_to_torch():
    x, weight = torch.ones(2, 3, requires_grad=True), torch.ones(4, 3)
    with OneDNN():
        linear(x, weight).sum().backward()
        assert torch.equal(x.grad, torch.full((2, 3), 4.0))
        with torch.no_grad():
            assert linear(x.double(), weight.double()).dtype == torch.float64
            assert linear(x.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16
