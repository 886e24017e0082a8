"""Attention cut to its largest weights."""

import families
import pytest
import torch

from atlaskit import models

IDS = torch.randint(4, 96, (24,), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.fixture(scope="module", params=["gpt2", "llama", "gpt_oss", "gemma2"])
def model(request):
    return models.wrap(families.tiny(request.param), name=request.param)


def logits(model):
    with torch.no_grad():
        return model.net(input_ids=torch.tensor([IDS])).logits


def test_keeping_every_key_changes_nothing(model):
    before = logits(model)
    with models.top_k_attention(model, 24):
        within = logits(model)
    torch.testing.assert_close(within, before, rtol=0, atol=1e-5)
    assert torch.equal(logits(model), before)


def test_one_key_is_the_value_of_the_likeliest(model):
    """And the share of a sink, where there is one, stays out."""
    first = models.capture(model, IDS).layers[0]
    best = first.pattern.argmax(-1)
    groups = first.pattern.shape[0] // first.v.shape[0]
    values = first.v.repeat_interleave(groups, dim=0)
    expected = torch.stack([v[b] for v, b in zip(values, best, strict=True)]) * first.pattern.sum(-1, keepdim=True)
    seen = []
    projection = model.sites[0].projection
    handle = projection.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    with models.top_k_attention(model, 1, layers=[0]):
        logits(model)
    handle.remove()
    heads = seen[0][0].unflatten(-1, (len(values), -1)).transpose(0, 1)
    torch.testing.assert_close(heads, expected, rtol=0, atol=1e-5)


def test_every_pass_in_a_block_is_cut(model):
    before = logits(model)
    with models.top_k_attention(model, 1, layers=[1]):
        first, second = logits(model), logits(model)
    assert torch.equal(first, second)
    assert not torch.allclose(first, before, atol=1e-5)


def test_a_loss_inside_a_block_is_the_loss_with_its_change():
    """Silencing every head at once, in a block and by ablation, costs the same."""
    model = models.wrap(families.tiny("gpt2"))
    size = model.geometry
    heads = [(layer, head) for layer in range(size.n_layer) for head in range(size.n_head)]
    effect = models.ablation_effect(model, [IDS], heads, kind="zero", progress=False)
    with models.intervene(model, lambda _layer, z: torch.zeros_like(z)):
        silenced = models.losses(model, [IDS])
    torch.testing.assert_close(silenced, models.losses(model, [IDS]) + effect, rtol=0, atol=1e-5)


def test_what_cannot_be_cut_is_refused():
    model = models.planted()
    with (
        pytest.raises(ValueError, match=r"k is 0 .* keep at least one weight, in layers 0 to 1"),
        models.top_k_attention(model, 0),
    ):
        pass
    with pytest.raises(ValueError, match=r"layers are \[7\]"), models.top_k_attention(model, 1, layers=[7]):
        pass


def test_predictive_entropy_of_a_uniform_guess_is_the_log_of_the_vocabulary():
    net = families.tiny("gpt2")
    with torch.no_grad():
        net.transformer.ln_f.weight.zero_()
        net.transformer.ln_f.bias.zero_()
    entropy = models.predictive_entropy(models.wrap(net), IDS)
    expected = torch.tensor(float(net.config.vocab_size)).log2().expand(24)
    torch.testing.assert_close(entropy, expected, rtol=1e-5, atol=1e-5)


def test_the_cost_by_depth_is_that_of_blocks_with_those_layers(model):
    costs = models.top_k_costs(model, [IDS, IDS[:9]], 1)
    size = model.geometry.n_layer
    assert costs.shape == (2, size)
    as_is = models.losses(model, [IDS, IDS[:9]])
    for layer in range(size):
        with models.top_k_attention(model, 1, layers=range(layer, size)):
            torch.testing.assert_close(costs[:, layer], models.losses(model, [IDS, IDS[:9]]) - as_is)
    assert models.top_k_costs(model, [IDS], 24).abs().max() < 1e-5
