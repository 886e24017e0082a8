"""Patching against itself, by hand, against captum, and against its own first-order estimate where that is exact."""

import families
import pytest
import torch
from captum.attr import LayerGradientXActivation
from scipy.stats import spearmanr

from atlaskit import models
from atlaskit.models.planted import WORDS

CLEAN = [5, 17, 9, 30, 5, 17, 80, 33, 21, 60, 5, 17]
CORRUPTED = [5, 17, 9, 30, 44, 17, 80, 33, 21, 60, 44, 17]
FAMILIES = ["gpt2", "llama", "qwen3_next", "bert"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return models.wrap(families.tiny(request.param), name=request.param)


@pytest.fixture(scope="module")
def gpt2():
    return models.wrap(families.tiny("gpt2"), name="gpt2")


def preference(logits):
    return logits[:, -1, 9] - logits[:, -1, 30]


def test_a_text_patched_with_itself_is_the_same(model):
    assert (models.patching_effects(model, [CLEAN], [CLEAN], metric=preference, progress=False).abs() < 1e-5).all()
    assert (models.attribution_patching(model, [CLEAN], [CLEAN], metric=preference) == 0).all()


def test_patches_are_those_of_whole_runs_by_hand(model):
    seen = {}
    with torch.no_grad(), models.intervene(model, lambda layer, z: seen.setdefault(layer, z)):
        model.net(input_ids=torch.tensor([CORRUPTED]))
    told = models.patching_effects(model, [CLEAN], [CORRUPTED], metric=preference, progress=False)[0]

    def patched(at, head):
        def change(layer, z):
            z = z.clone()
            if layer == at:
                z[:, head] = seen[layer][:, head]
            return z

        with torch.no_grad(), models.intervene(model, change):
            return float(preference(model.net(input_ids=torch.tensor([CLEAN])).logits))

    base = patched(-1, 0)
    expected = torch.tensor([[patched(layer, head) - base for head in range(4)] for layer in range(len(told))])
    torch.testing.assert_close(told, expected, rtol=1e-3, atol=1e-4)


def test_attribution_of_every_head_is_its_true_patch_in_a_model_that_is_linear_in_z():
    """A layer without feed-forward and final norm: logits are z times two matrices, so the straight line is the truth.

    The texts differ in every token, so nothing about the step is small.
    """
    net = families.tiny("gpt2")
    net.transformer.h = net.transformer.h[:1]
    net.transformer.ln_f = torch.nn.Identity()
    torch.nn.init.zeros_(net.transformer.h[0].mlp.c_proj.weight)
    torch.nn.init.zeros_(net.transformer.h[0].mlp.c_proj.bias)
    model = models.wrap(net, name="linear")
    other = torch.randint(4, 97, (3, 12), generator=torch.Generator().manual_seed(0)).tolist()
    true, estimated = (
        patch(model, [CLEAN] * 3, other, metric=preference)
        for patch in (models.patching_effects, models.attribution_patching)
    )
    assert true.abs().min() > 1e-5
    torch.testing.assert_close(estimated, true, rtol=1e-4, atol=1e-6)


def test_attribution_is_exact_for_a_planted_head_that_the_metric_is_linear_in():
    """The planted induction head writes into a slot that only the final layer norm and the output layer read."""
    model = models.planted()
    words = [WORDS[i] for i in torch.randperm(64, generator=torch.Generator().manual_seed(1))[:12]]
    clean, corrupted = (
        " ".join([*words, *words[:4]]),
        " ".join([*words[:4], words[5], words[4], *words[6:], *words[:4]]),
    )
    right, wrong = WORDS.index(words[4]), WORDS.index(words[5])

    def leaning(logits):  # the ratio of two logits' heights over a third: the norm's scale cancels
        low = logits[:, -1, WORDS.index(words[8])]
        return (logits[:, -1, right] - logits[:, -1, wrong]) / ((logits[:, -1] - low[:, None]).sum(-1))

    true, estimated = (
        patch(model, [clean], [corrupted], metric=leaning)[0]
        for patch in (models.patching_effects, models.attribution_patching)
    )
    expected = torch.zeros(2, 5)
    expected[models.PLANTED["induction"]] = -2.0  # from all on the right word to all on the wrong one
    torch.testing.assert_close(true, expected, rtol=1e-3, atol=1e-3)
    layer, head = models.PLANTED["induction"]
    assert float(estimated[layer, head]) == pytest.approx(-2.0, abs=1e-2)


def test_attribution_ranks_heads_as_true_patches_do_when_the_change_is_small(gpt2):
    """A word whose embedding is a hair from another's: the error of the estimate falls with the square of the hair."""
    weight = gpt2.net.transformer.wte.weight
    generator = torch.Generator().manual_seed(0)
    away = torch.randn(32, generator=generator)
    own = weight[44].detach().clone()
    errors = []
    try:
        for step in (1e-2, 5e-3):
            with torch.no_grad():
                weight[44] = weight[5] + step * away
            true, estimated = (
                patch(gpt2, [CLEAN], [CORRUPTED], metric=preference)
                for patch in (models.patching_effects, models.attribution_patching)
            )
            errors.append(float((true - estimated).abs().max()))
        assert errors[1] < errors[0] / 2
        assert spearmanr(true.flatten(), estimated.flatten()).statistic > 0.97
    finally:
        with torch.no_grad():
            weight[44] = own


def test_captum_has_the_same_slopes(gpt2):
    """Captum gives gradient × z, so its gradient is that over z."""
    instead = {}
    with torch.no_grad(), models.intervene(gpt2, lambda layer, z: instead.setdefault(layer, z)):
        gpt2.net(input_ids=torch.tensor([CORRUPTED]))
    told = models.attribution_patching(gpt2, [CLEAN], [CORRUPTED], metric=preference)[0]
    read = {}
    for layer, block in enumerate(gpt2.net.transformer.h):
        handle = block.attn.c_proj.register_forward_pre_hook(lambda _, args: read.__setitem__("z", args[0].detach()))
        twin = LayerGradientXActivation(lambda ids: preference(gpt2.net(ids).logits), block.attn.c_proj)
        product = twin.attribute(torch.tensor([CLEAN]), attribute_to_layer_input=True)
        handle.remove()
        away = instead[layer].transpose(1, 2).flatten(2) - read["z"]
        expected = (away * product / read["z"]).unflatten(-1, (4, 8)).sum((0, 1, 3))
        torch.testing.assert_close(told[layer], expected, rtol=1e-3, atol=1e-3)


def test_all_heads_are_attributed_in_two_forward_passes_and_one_backward(gpt2):
    forward, backward = [], []
    handles = [
        gpt2.net.transformer.h[0].register_forward_hook(lambda *_: forward.append(1)),
        gpt2.net.transformer.h[1].register_full_backward_hook(lambda *_: backward.append(1)),
    ]
    models.attribution_patching(gpt2, [CLEAN], [CORRUPTED], metric=preference)
    for handle in handles:
        handle.remove()
    assert (len(forward), len(backward)) == (2, 1)
    assert all(weight.grad is None for weight in gpt2.net.parameters())


def test_frozen_weights_are_no_hindrance(gpt2):
    told = models.attribution_patching(gpt2, [CLEAN], [CORRUPTED], metric=preference)
    try:
        gpt2.net.requires_grad_(False)
        with torch.no_grad():
            assert torch.equal(models.attribution_patching(gpt2, [CLEAN], [CORRUPTED], metric=preference), told)
    finally:
        gpt2.net.requires_grad_(True)


def test_each_pair_may_have_a_metric_of_its_own(gpt2):
    def other(logits):
        return logits[:, -1].logsumexp(-1)

    for patch in (models.patching_effects, models.attribution_patching):
        both = patch(gpt2, [CLEAN, CLEAN[:5]], [CORRUPTED, CORRUPTED[:5]], metric=[preference, other])
        torch.testing.assert_close(both[:1], patch(gpt2, [CLEAN], [CORRUPTED], metric=preference))
        torch.testing.assert_close(both[1:], patch(gpt2, [CLEAN[:5]], [CORRUPTED[:5]], metric=other))


def test_two_tokens_are_enough(gpt2):
    for patch in (models.patching_effects, models.attribution_patching):
        assert patch(gpt2, [[5, 6]], [[7, 6]], metric=preference).isfinite().all()


@pytest.mark.parametrize(("clean", "corrupted", "metric", "error", "message"), [
    ([CLEAN], [CLEAN[:4]], preference, ValueError, "pair 0: .* has 12 tokens and .* has 4; z is patched"),
    ([CLEAN], [CLEAN, CLEAN], preference, ValueError, "there are 1 clean and 2 corrupted texts"),
    ([CLEAN], [CLEAN], [preference] * 2, ValueError, "there are 2 metrics for 1 pairs"),
    ([CLEAN], [CLEAN], lambda logits: logits[:, -1], TypeError, r"the metric gave \(1, 97\) for a batch of 1"),
    ([CLEAN], [CLEAN], lambda logits: 3.0, TypeError, "the metric gave float for a batch of 1"),
])  # fmt: skip
def test_what_cannot_be_patched_is_named(gpt2, clean, corrupted, metric, error, message):
    for patch in (models.patching_effects, models.attribution_patching):
        with pytest.raises(error, match=message):
            patch(gpt2, clean, corrupted, metric=metric)


def test_a_metric_without_a_gradient_cannot_be_attributed(gpt2):
    with pytest.raises(TypeError, match="the metric has no gradient"):
        models.attribution_patching(gpt2, [CLEAN], [CORRUPTED], metric=lambda logits: logits[:, -1].argmax(-1).float())
