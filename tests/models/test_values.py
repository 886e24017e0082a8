"""W_V found by derivatives, against the weights of layouts that we know; texts dealt out anew."""

import families
import pytest
import torch

from atlaskit import models

IDS = torch.randint(4, 96, (24,), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "phi3", "gpt_neox"])
def test_values_are_what_the_weights_make_of_what_the_layer_reads(family):
    """v(one token) − v(another) is the difference of what was read there, times W_V, whatever the bias."""
    model = models.wrap(families.tiny(family), name=family)
    weights = models.value_weights(model, IDS)
    size = model.geometry
    assert weights.shape == (size.n_layer, size.n_head, size.d_model, size.d_head)
    read = []
    layers = models.capture(model, IDS).layers
    handles = [m.register_forward_pre_hook(lambda _m, a, k: read.append(k.get("hidden_states", a[0] if a else None)),
               with_kwargs=True) for m in model.net.modules() if type(m).__name__.endswith("Attention")
               and hasattr(m, {"gpt2": "c_attn", "bert": "none"}.get(family, "config"))]  # fmt: skip
    handles += [m.register_forward_pre_hook(lambda _m, a, k: read.append(a[0]), with_kwargs=True)
                for m in model.net.modules() if type(m).__name__ == "BertSelfAttention"]  # fmt: skip
    with torch.no_grad():
        model.net.base_model(input_ids=torch.tensor([IDS]))
    for handle in handles:
        handle.remove()
    assert len(read) == size.n_layer
    for layer, own in enumerate(layers):
        groups = size.n_head // len(own.v)
        expected = own.v.repeat_interleave(groups, 0).diff(dim=1)
        torch.testing.assert_close(read[layer][0].diff(dim=0) @ weights[layer], expected, rtol=1e-4, atol=1e-5)


def test_gpt2_keeps_its_values_in_the_last_third_of_one_matrix():
    net = families.tiny("gpt2")
    weights = models.value_weights(models.wrap(net), IDS)
    for layer, block in enumerate(net.transformer.h):
        third = block.attn.c_attn.weight.detach()[:, 64:].unflatten(1, (4, 8)).transpose(0, 1)
        torch.testing.assert_close(weights[layer], third)
    assert all(weight.grad is None for weight in net.parameters())


def test_values_that_are_not_affine_have_no_weights():
    model = models.wrap(families.tiny("gemma3n_text"), name="gemma3n_text")  # it norms its values
    with pytest.raises(TypeError, match="values of layer 0 of gemma3n_text are no affine function"):
        models.value_weights(model, IDS)


def test_heads_on_one_kv_head_have_one_value_matrix():
    model = models.wrap(families.tiny("llama"))
    weights = models.value_weights(model, IDS)[0]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[1], weights[2])


def test_a_shuffled_text_has_the_same_words_in_another_order():
    model = models.wrap(families.tiny("gpt2"))
    (found,) = models.shuffled(model, [IDS], seed=0)
    assert found != IDS
    assert sorted(found) == sorted(IDS)
    assert found[0] == IDS[0]
    assert models.shuffled(model, [IDS], seed=0) == [found]
    assert models.shuffled(model, [IDS], seed=1) != [found]
    assert len(models.shuffled(model, [IDS], seed=0, max_tokens=7)[0]) == 7


def test_special_tokens_stay_where_they_are():
    model = models.load("all-minilm-l6-v2")
    text = "The cat sat on the mat because the cat was tired."
    before = model.tokens(text)
    (found,) = models.shuffled(model, [text], seed=0)
    after = model.tokens(found)
    assert torch.equal(before.special, after.special)
    assert torch.equal(before.ids[before.special], after.ids[after.special])
