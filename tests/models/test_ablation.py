"""What breaking a head costs: closed forms on the planted model, slow ways and a library's as twins elsewhere."""

import math
import sys

import families
import pytest
import torch
from captum.attr import LayerFeatureAblation
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.nn.functional import cross_entropy, layer_norm, one_hot
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from atlaskit import models
from atlaskit.models.planted import WORDS

TEXTS = [[5, 17, 9, 30, 5, 17, 80, 33, 21, 60, 5, 17], [8, 70, 8, 70, 8]]
CAUSAL = ["gpt2", "llama", "gemma2", "qwen3_next", "jamba", "gpt_oss"]


@pytest.fixture(scope="module", params=CAUSAL)
def causal(request):
    return models.wrap(families.tiny(request.param), name=request.param)


@pytest.fixture(scope="module")
def gpt2():
    return models.wrap(families.tiny("gpt2"), name="gpt2")


def with_words(family):
    """A tiny masked network with a tokenizer of numbers, whose mask is token 2."""
    names = ["[PAD]", "[UNK]", "[MASK]", "[CLS]", "[SEP]", *map(str, range(5, 97))]
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, mask_token="[MASK]", cls_token="[CLS]", unk_token="[UNK]"
    )
    return models.wrap(families.tiny(family), words, name=family)


@pytest.fixture(scope="module", params=["bert", "albert", "modernbert"])
def masked(request):
    return with_words(request.param)


def whole(model, ids, change):
    """Mean next-token loss as transformers computes it, of a whole forward pass under a change."""
    with torch.no_grad(), models.intervene(model, change):
        return float(model.net(input_ids=torch.tensor([ids]), labels=torch.tensor([ids]), use_cache=False).loss)


def replacing(heads, instead):
    def change(layer, z):
        z = z.clone()
        for at, head in heads:
            if at == layer:
                z[:, head] = instead[layer, head]
        return z

    return change


@pytest.mark.parametrize("kind", ["mean", "zero"])
def test_effects_are_those_of_whole_runs_of_one_head_at_a_time(causal, kind):
    means = models.mean_z(causal, TEXTS)
    instead = means if kind == "mean" else torch.zeros_like(means)
    effects = models.ablation_effects(causal, TEXTS, kind=kind, progress=False)
    size = causal.geometry
    for doc, ids in enumerate(TEXTS):
        base = whole(causal, ids, lambda layer, z: z)
        expected = torch.tensor([
            [whole(causal, ids, replacing([(layer, head)], instead)) - base for head in range(size.n_head)]
            for layer in range(size.n_layer)
        ])  # fmt: skip
        torch.testing.assert_close(effects["effect"][doc], expected, rtol=1e-3, atol=2e-5)
    assert effects.n_tokens.tolist() == [12, 5]
    assert effects.complete


def test_a_set_is_ablated_together(causal):
    last = causal.geometry.n_layer - 1
    heads = [(0, 1), (last, 0), (last, 3)]
    means = models.mean_z(causal, TEXTS)
    together = models.ablation_effect(causal, TEXTS, heads, reference=means, progress=False)
    for ids, effect in zip(TEXTS, together, strict=True):
        expected = whole(causal, ids, replacing(heads, means)) - whole(causal, ids, lambda layer, z: z)
        assert float(effect) == pytest.approx(expected, rel=1e-3, abs=2e-5)


def test_a_set_of_one_is_a_single_head(masked):
    single = models.ablation_effects(masked, TEXTS, seed=3, progress=False)["effect"]
    alone = models.ablation_effect(masked, TEXTS, [(1, 2)], seed=3, progress=False)
    torch.testing.assert_close(alone, single[:, 1, 2], rtol=1e-4, atol=1e-5)


def test_captum_agrees_on_every_head(gpt2):
    """Captum ablates groups of the numbers that a layer reads; these are the heads, before W_O."""
    ids = torch.tensor([TEXTS[0]])
    means = models.mean_z(gpt2, TEXTS)
    ours = models.ablation_effects(gpt2, TEXTS[:1], reference=means, progress=False)["effect"][0]

    def loss(ids):
        logits = gpt2.net(ids).logits
        return cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none").mean(-1)

    groups = torch.arange(4).repeat_interleave(8).expand(1, len(TEXTS[0]), -1)
    for layer, block in enumerate(gpt2.net.transformer.h):
        twin = LayerFeatureAblation(loss, block.attn.c_proj)
        told = twin.attribute(
            ids, layer_baselines=means[layer].flatten().expand(1, len(TEXTS[0]), -1).contiguous(), layer_mask=groups,
            attribute_to_layer_input=True,
        )  # fmt: skip
        torch.testing.assert_close(ours[layer], -told[0, 0, ::8], rtol=1e-3, atol=1e-5)


def planted_loss(tokens, predictions):
    """Loss of the planted model by arithmetic: four slots of one-hots, a layer norm, and the last slot read out."""
    n = len(tokens)
    before = torch.tensor([0, *range(n - 1)])
    slots = [one_hot(tokens, 64), one_hot(torch.arange(n), 64), one_hot(tokens[before], 64)]
    stream = torch.cat([*[slot.double() for slot in slots], predictions, torch.zeros(n, 64)], dim=-1)
    logits = layer_norm(stream, (320,), eps=1e-5)[:, 192:256]
    return float(cross_entropy(logits[:-1], tokens[1:]))


def test_breaking_the_planted_induction_head_costs_what_arithmetic_says():
    tokens = torch.randperm(64, generator=torch.Generator().manual_seed(0))[:20].repeat(2)
    copied = torch.zeros(40, 64, dtype=torch.float64)
    copied[0, tokens[0]] = 1
    for i in range(1, 20):  # no match: it looks at all earlier words and its own alike, but for the first
        copied[i, tokens[1 : i + 1]] = 1 / i
    copied[20:] = one_hot(tokens[1:21].repeat(1)[:20], 64)  # the word after the last occurrence
    copied[39] = one_hot(tokens[20], 64)
    text = " ".join(WORDS[i] for i in tokens)
    model = models.planted()
    expected = planted_loss(tokens, copied)
    assert float(models.losses(model, [text])[0]) == pytest.approx(expected, abs=1e-4)
    effects = models.ablation_effects(model, [text], kind="zero", progress=False)["effect"][0]
    silent = planted_loss(tokens, torch.zeros(40, 64, dtype=torch.float64))
    assert silent == pytest.approx(math.log(64), abs=1e-12)  # nothing is written where the output layer reads
    layer, head = models.PLANTED["induction"]
    assert float(effects[layer, head]) == pytest.approx(silent - expected, abs=1e-4)
    assert effects[layer, head] > 1
    unread = [place for name, place in models.PLANTED.items() if name in ("first_token", "own_token")]
    assert all(effects[place] == 0 for place in [*unread, *models.UNIFORM])
    both = models.ablation_effect(model, [text], [models.PLANTED["previous_token"], (layer, head)], kind="zero")
    assert float(both[0]) == pytest.approx(silent - expected, abs=1e-4)


def test_replacing_z_by_itself_costs_nothing():
    """Where a text is one word over and over, every token's z of these heads is the mean, and any other's."""
    model = models.planted()
    for kind in ("mean", "resample"):
        effects = models.ablation_effects(model, ["cat cat cat cat cat"], kind=kind, progress=False)["effect"]
        assert (effects[0, 0].abs() < 1e-5).all()


def test_resampling_depends_on_the_seed_alone(gpt2):
    first, again, other = (
        models.ablation_effects(gpt2, TEXTS, kind="resample", seed=seed, progress=False)["effect"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_resampled_z_comes_from_the_reference_texts():
    """With one word as the reference every draw is that word's z, which is also its mean."""
    model = models.planted()
    text, reference = "ash bay cat ash bay cat", ["dog dog dog dog"]
    drawn, mean = (
        models.ablation_effects(model, [text], kind=kind, reference=reference, progress=False)["effect"]
        for kind in ("resample", "mean")
    )
    torch.testing.assert_close(drawn[0, 0, 0], mean[0, 0, 0], rtol=1e-4, atol=1e-5)
    assert drawn[0, 0, 0].abs() > 0.1


def test_a_masked_model_is_asked_for_hidden_tokens(masked):
    """The clean loss again, from logits of a text hidden by hand; 15 % of twelve tokens are two."""
    seen = []
    handle = masked.net.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_ids"]), with_kwargs=True
    )
    loss = models.losses(masked, TEXTS[:1], seed=5)
    handle.remove()
    ids, hidden = torch.tensor(TEXTS[:1]), seen[-1]
    assert int((hidden == 2).sum()) == 2
    assert torch.equal(hidden[hidden != 2], ids[hidden != 2])
    with torch.no_grad():
        logits = masked.net(input_ids=hidden, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(loss[0], cross_entropy(logits[hidden == 2], ids[hidden == 2]), rtol=1e-4, atol=1e-5)


def test_the_loss_is_of_the_tokens_that_were_named(gpt2):
    ids = TEXTS[0]
    with torch.no_grad():
        logits = gpt2.net(torch.tensor([ids])).logits[0]
    each = cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")

    def fives(tokens):
        return tokens.ids == 5  # at 0, where nothing foretells it, 4 and 10

    told = models.losses(gpt2, [ids, [8, 70, 8]], where=fives)
    torch.testing.assert_close(told[0], each[[3, 9]].mean(), rtol=1e-4, atol=1e-5)
    assert told[1].isnan()
    means = models.mean_z(gpt2, [ids])
    single = models.ablation_effects(gpt2, [ids], reference=means, where=fives, progress=False)["effect"]
    alone = models.ablation_effect(gpt2, [ids], [(1, 2)], reference=means, where=fives, progress=False)
    with torch.no_grad(), models.intervene(gpt2, replacing([(1, 2)], means)):
        broken = cross_entropy(gpt2.net(torch.tensor([ids])).logits[0, :-1], torch.tensor(ids[1:]), reduction="none")
    for effect in (single[:, 1, 2], alone):
        torch.testing.assert_close(effect[0], (broken - each)[[3, 9]].mean(), rtol=1e-3, atol=1e-5)


def test_a_masked_model_hides_named_tokens_only():
    model = with_words("bert")
    hidden = []
    model.net.register_forward_pre_hook(lambda module, args, given: hidden.append(given["input_ids"]), with_kwargs=True)
    for seed in range(10):
        models.losses(model, TEXTS[:1], where=lambda tokens: tokens.ids == 17, seed=seed)
    places = {tuple((ids[0] == 2).nonzero().flatten().tolist()) for ids in hidden}
    assert places <= {(1,), (5,), (11,)}
    assert len(places) > 1
    assert models.losses(model, TEXTS[:1], where=lambda tokens: tokens.ids == 96).isnan()


def test_a_special_token_is_never_hidden():
    model = with_words("bert")
    hidden = []
    model.net.register_forward_pre_hook(lambda module, args, given: hidden.append(given["input_ids"]), with_kwargs=True)
    for seed in range(20):
        models.losses(model, [[3, 9]], seed=seed)
    assert {tuple(ids[0].tolist()) for ids in hidden} == {(3, 2)}


def test_layers_before_an_ablated_one_are_not_run_again():
    """Of each further document the first block runs twice, the last once and once for every layer."""
    model = models.wrap(families.tiny("gemma3_text"))
    counts = []
    for block in model.net.model.layers:
        counts.append(0)
        place = len(counts) - 1
        block.mlp.register_forward_hook(lambda *_, place=place: counts.__setitem__(place, counts[place] + 1))
    models.ablation_effects(model, TEXTS[:1], reference=torch.zeros(6, 4, 8), progress=False)
    once = list(counts)
    models.ablation_effects(model, [TEXTS[0]] * 2, reference=torch.zeros(6, 4, 8), progress=False)
    assert [both - 2 * one for both, one in zip(counts, once, strict=True)] == [2, 3, 4, 5, 6, 7]


def test_heads_in_several_passes_are_heads_in_one(gpt2, monkeypatch):
    together = models.ablation_effects(gpt2, TEXTS, progress=False)["effect"]
    monkeypatch.setattr(sys.modules["atlaskit.models.suffix"], "BUDGET", 1)
    torch.testing.assert_close(
        models.ablation_effects(gpt2, TEXTS, progress=False)["effect"], together, rtol=1e-4, atol=1e-5
    )


def test_an_interrupt_keeps_the_documents_that_are_done(gpt2, monkeypatch):
    module = sys.modules["atlaskit.models.ablation"]
    own, calls = module.run, []

    def interrupting(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(*args)

    monkeypatch.setattr(module, "run", interrupting)
    effects = models.ablation_effects(gpt2, [*TEXTS, TEXTS[0]], progress=False)
    assert not effects.complete
    assert effects["effect"].shape == (2, 2, 4)
    assert effects.n_tokens.tolist() == [12, 5]


def test_two_tokens_are_enough_and_one_is_not(gpt2):
    assert models.ablation_effects(gpt2, [[5, 6]], progress=False)["effect"].isfinite().all()
    with pytest.raises(ValueError, match="text 1: the text is 1 token long"):
        models.ablation_effects(gpt2, [[5, 6], [5]], progress=False)


def test_a_model_without_a_language_model_head_is_refused(gpt2):
    bare = models.wrap(gpt2.net.transformer, name="trunk")
    with pytest.raises(TypeError, match=r"trunk \(GPT2Model\) has no language-model head"):
        models.ablation_effects(bare, TEXTS)
    with pytest.raises(TypeError, match=r"trunk \(GPT2Model\) gives no logits"):
        models.patching_effects(bare, TEXTS[:1], TEXTS[:1], metric=lambda logits: logits[:, -1, 0])
    config = GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    judge = models.wrap(GPT2ForSequenceClassification(config).eval(), name="judge")
    with pytest.raises(TypeError, match=r"judge \(GPT2ForSequenceClassification\) has no language-model head"):
        models.losses(judge, TEXTS)
    effects = models.patching_effects(judge, TEXTS[:1], [TEXTS[0][::-1]], metric=lambda scores: scores[:, 1])
    assert effects.shape == (1, 2, 4)


def test_what_cannot_be_ablated_is_named(gpt2):
    with pytest.raises(ValueError, match="its tokenizer has no mask token"):
        models.losses(models.wrap(families.tiny("bert")), TEXTS)
    with pytest.raises(ValueError, match=r"all tokens of .* are special"):
        models.losses(with_words("bert"), [[3, 3]])
    with pytest.raises(IndexError, match=r"gpt2 has no head 1\.4; it has layers 0 to 1 and heads 0 to 3"):
        models.ablation_effect(gpt2, TEXTS, [(0, 1), (1, 4)])
    with pytest.raises(ValueError, match="there are no heads to ablate"):
        models.ablation_effect(gpt2, TEXTS, [])
    with pytest.raises(TypeError, match="'resample' draws from texts: give reference as a list of texts"):
        models.ablation_effects(gpt2, TEXTS, kind="resample", reference=torch.zeros(2, 4, 8))
