"""Twins and borders of intervening: what is put in the place of z arrives, and nothing else moves."""

from dataclasses import replace

import families
import pytest
import torch

from atlaskit import models
from atlaskit.models.hook import eagerly
from atlaskit.models.suffix import find_blocks

IDS = [5, 17, 9, 30, 5, 17, 80, 33, 21, 60, 5, 17]
ONE_TEXT = [name for name in families.CHOSEN if name not in ("t5", "bart", "mt5")]


@pytest.fixture(scope="module", params=ONE_TEXT)
def model(request):
    return models.wrap(families.tiny(request.param), name=request.param)


@pytest.fixture(scope="module")
def gpt2():
    return models.wrap(families.tiny("gpt2"), name="gpt2")


def logits(model, ids=IDS, **inputs):
    with torch.no_grad():
        return model.net(input_ids=torch.tensor([ids]), use_cache=False, **inputs).logits


def test_putting_back_what_was_there_changes_nothing(model):
    with eagerly(model.net):
        expected = logits(model)
    seen = {}
    with models.intervene(model, lambda layer, z: seen.setdefault(layer, z)):
        assert torch.equal(logits(model), expected)
    assert sorted(seen) == list(range(model.geometry.n_layer))
    with models.intervene(model, lambda layer, z: seen[layer].clone()):
        assert torch.equal(logits(model), expected)


def test_a_layer_whose_heads_are_all_silent_writes_its_bias(model):
    wrote = []
    for layer, site in enumerate(model.sites):
        handle = site.projection.register_forward_hook(lambda module, args, output: wrote.append(output))
        with models.intervene(model, lambda at, z, layer=layer: torch.zeros_like(z) if at == layer else z):
            logits(model)
        handle.remove()
        own = wrote[layer] if model.name == "albert" else wrote[0]  # ALBERT's layers share one module
        bias = site.projection.bias if getattr(site.projection, "bias", None) is not None else torch.zeros(())
        torch.testing.assert_close(own, bias.expand_as(own), rtol=0, atol=0)
        wrote.clear()


def test_a_batch_is_changed_row_by_row(gpt2):
    ids = torch.tensor([IDS, IDS])

    def change(layer, z):
        z = z.clone()
        z[1, 2] = 0
        return z

    with torch.no_grad(), models.intervene(gpt2, change):
        told = gpt2.net(input_ids=ids).logits
    torch.testing.assert_close(told[0], logits(gpt2)[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(told[1], told[0], atol=1e-2)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_generating_with_a_cache_is_generating_without(family):
    model = models.wrap(families.tiny(family))
    layers = []

    def change(layer, z):
        layers.append(layer)
        return 0.5 * z if layer == 1 else z

    told = []
    for use_cache in (True, False):
        with models.intervene(model, change):
            told.append(
                model.net.generate(
                    torch.tensor([IDS]), attention_mask=torch.ones(1, len(IDS), dtype=torch.long), max_new_tokens=6,
                    min_new_tokens=6, do_sample=False, use_cache=use_cache, pad_token_id=0,
                )
            )  # fmt: skip
    assert torch.equal(*told)
    assert layers == [0, 1] * 12  # six passes each way


def test_a_gradient_through_the_change_is_the_slope_of_the_output(gpt2):
    """Central differences in double precision are the independent reference."""
    net = gpt2.net.double()
    try:
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(1, 4, len(IDS), 8, generator=generator, dtype=torch.float64)

        def output(step):
            with models.intervene(gpt2, lambda layer, z: z + step * direction if layer == 0 else z):
                return net(input_ids=torch.tensor([IDS])).logits.log_softmax(-1)[0, -1, 7]

        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(output(step), step)
        with torch.no_grad():
            difference = (output(1e-5) - output(-1e-5)) / 2e-5
        torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-8)
    finally:
        gpt2.net.float()


def test_mean_z_is_the_mean_of_what_a_capture_sees(model):
    texts = [IDS, IDS[3:8], IDS[:2]]
    seen = [models.capture(model, ids) for ids in texts]
    expected = torch.stack([
        torch.cat([one.layers[layer].z for one in seen], dim=1).mean(1) for layer in range(model.geometry.n_layer)
    ])  # fmt: skip
    torch.testing.assert_close(models.mean_z(model, texts), expected, rtol=1e-4, atol=1e-5)


def test_all_is_put_back_after_an_exception(gpt2):
    before = gpt2.net.config._attn_implementation

    def broken(layer, z):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), models.intervene(gpt2, broken):
        logits(gpt2)
    assert gpt2.net.config._attn_implementation == before
    assert not gpt2.net.base_model._forward_pre_hooks
    with models.intervene(gpt2, lambda layer, z: z):  # and a later pass counts its layers from zero
        logits(gpt2)


def test_a_pass_that_broke_off_does_not_shift_the_layers_of_the_next(gpt2):
    seen = []

    def change(layer, z):
        seen.append(layer)
        if len(seen) == 1:
            raise ZeroDivisionError
        return z

    with models.intervene(gpt2, change):
        with pytest.raises(ZeroDivisionError):
            logits(gpt2)
        logits(gpt2)
    assert seen == [0, 0, 1]


def test_a_change_of_shape_is_refused(gpt2):
    message = r"the change made z of layer 0 \(1, 4, 11, 8\); it must stay \(1, 4, 12, 8\)"
    with pytest.raises(ValueError, match=message), models.intervene(gpt2, lambda layer, z: z[:, :, 1:]):
        logits(gpt2)


@pytest.mark.parametrize(("family", "message"), [
    ("bloom", "z of bloom cannot be changed: Bloom.* does not look its attention up"),
    ("t5", "t5 is an encoder–decoder: its three kinds of attention"),
    ("bart", "bart is an encoder–decoder"),
])  # fmt: skip
def test_models_whose_z_cannot_be_changed_are_refused_by_name(family, message):
    model = models.wrap(families.tiny(family), name=family)
    with pytest.raises(TypeError, match=message), models.intervene(model, lambda layer, z: z):
        pass
    with pytest.raises(TypeError, match=message):
        models.ablation_effects(model, [IDS])
    with pytest.raises(TypeError, match=message):
        models.patching_effects(model, [IDS], [IDS], metric=lambda logits: logits[:, -1, 0])


def test_layers_of_unequal_numbers_of_heads_are_refused():
    model = models.planted()
    sites = tuple(replace(site, n_head=4 + site.layer) for site in model.sites)
    odd = replace(model, name="odd", proof=replace(model.proof, sites=sites))
    with (
        pytest.raises(TypeError, match=r"the layers of odd have \[4, 5\] heads"),
        models.intervene(odd, lambda _, z: z),
    ):
        pass


def test_training_mode_is_refused():
    model = models.wrap(families.tiny("gpt2"))
    model.net.train()
    with pytest.raises(RuntimeError, match="training mode"), models.intervene(model, lambda layer, z: z):
        pass


@pytest.mark.parametrize(
    ("family", "place"), [("gpt2", (0, 1)), ("llama", (0, 1)), ("jamba", (1,)), ("albert", (0, 0))]
)
def test_blocks_are_found_where_layers_have_places_of_their_own(family, place):
    model = models.wrap(families.tiny(family))
    blocks = find_blocks(model, model.tokens(IDS))
    assert blocks.place == place
    assert len(blocks.modules) == (0 if family == "albert" else 2)


def test_blocks_that_cannot_be_skipped_are_not():
    """A block that reads what another left behind misses it when that is skipped; then every run is a whole one."""
    model = models.wrap(families.tiny("gpt2"))
    first, second = model.net.transformer.h
    left = {}
    first.mlp.register_forward_hook(lambda module, args, output: left.__setitem__("mean", output.mean()))
    second.ln_1.register_forward_pre_hook(lambda module, args: args[0] + left.pop("mean"))
    assert find_blocks(model, model.tokens(IDS)).modules == ()
