"""Decompositions rebuild the model: what tokens bring, and what parts add to a logit, sums to the model's own."""

import families
import pytest
import torch
from torch import nn

from atlaskit import measure, models
from atlaskit.models.norms import linearise
from atlaskit.models.planted import WORDS
from atlaskit.models.stream import stream

IDS = [5, 17, 9, 30, 5, 17, 80, 33, 21, 60, 5, 17]
MIXED = ["gpt2", "gpt_neox", "opt", "llama", "mistral", "gpt_oss", "mixtral", "bert", "distilbert", "modernbert"]
ATTRIBUTED = ["gpt2", "gpt_neox", "opt", "llama", "gpt_oss", "mixtral", "olmo2", "bitnet"]


def wrapped(family):
    return models.wrap(families.tiny(family), name=family)


def heard(model, ids):
    """What goes in and comes out of every block, by hooks of our own."""
    ends = []
    blocks = next(m for m in model.net.modules() if isinstance(m, nn.ModuleList))
    handles = [block.register_forward_hook(lambda _, args, out: ends.append((args, out))) for block in blocks]
    with torch.no_grad():
        logits = getattr(model.net(torch.tensor([ids])), "logits", None)
    for handle in handles:
        handle.remove()
    return ends, logits


@pytest.mark.parametrize("ids", [IDS, IDS[:2]], ids=["twelve", "two"])
@pytest.mark.parametrize("family", MIXED)
def test_what_tokens_bring_sums_to_the_layers_output(family, ids):
    model = wrapped(family)
    seen, layers = stream(model, ids), models.mixing(model, ids)
    assert len(layers) == model.geometry.n_layer
    for one, layer in zip(layers, seen.layers, strict=True):
        parts = measure.terms(one.pattern, one.values, residual=one.residual, scale=one.scale, centred=one.centred)
        torch.testing.assert_close(parts.sum(1) + one.rest, one.output, rtol=1e-5, atol=1e-5)
        # and the rest of the layer makes the block's own output of it
        fed = one.output + layer.feed_forward
        whole = (
            fed
            if layer.after_feed_forward is None
            else layer.after_feed_forward.part(fed) + layer.after_feed_forward.shift
        )
        torch.testing.assert_close(whole, layer.gave, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_layers_read_and_give_what_the_blocks_do(family):
    model = wrapped(family)
    for layer, (args, out) in zip(stream(model, IDS).layers, heard(model, IDS)[0], strict=True):
        given = out[0] if isinstance(out, tuple) else out
        torch.testing.assert_close(layer.read, args[0][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.gave, given[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_shares_of_every_kind_roll_out(family):
    layers = models.mixing(wrapped(family), IDS)
    parts = [
        measure.terms(one.pattern, one.values, residual=one.residual, scale=one.scale, centred=one.centred)
        for one in layers
    ]
    written = [torch.einsum("hqk,hkm->qm", one.pattern, one.values) for one in layers]
    kinds = (
        [measure.alti(part) for part in parts],
        [measure.norm_shares(part) for part in parts],
        [
            measure.with_residual(one.pattern, residual=one.residual, written=w)
            for one, w in zip(layers, written, strict=True)
        ],
    )
    for kind in kinds:
        told = measure.rollout(torch.stack(kind))
        torch.testing.assert_close(told.sum(-1), torch.ones(len(layers), len(IDS)))


def test_a_planted_head_brings_the_word_before():
    """Layer 0 of the planted model: each token's output holds itself and, through one head, the token before."""
    model = models.planted()
    words = [WORDS[i] for i in torch.randperm(64, generator=torch.Generator().manual_seed(0))[:10]]
    one = models.mixing(model, " ".join(words))[0]
    shares = measure.norm_shares(measure.terms(one.pattern, one.values, residual=one.residual))
    # two one-hots of its own, one of the neighbour; the first token has no neighbour but itself
    expected = torch.eye(10) * 2**0.5 + torch.eye(10).roll(1, 0).tril()
    torch.testing.assert_close(shares, expected / expected.sum(-1, keepdim=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("query", [-1, 4])
@pytest.mark.parametrize("family", ATTRIBUTED)
def test_parts_of_a_logit_sum_to_the_models_own(family, query):
    model = wrapped(family)
    with torch.no_grad():
        logits = model.net(torch.tensor([IDS])).logits[0, query]
    for against, own in ((None, logits[7]), (9, logits[7] - logits[9])):
        told = models.direct_logit_attribution(model, IDS, 7, against=against, query=query)
        total = told.heads.sum() + told.feed_forward.sum() + told.embedding + told.bias
        assert float(total) == pytest.approx(float(own), abs=1e-4)
        assert told.total == pytest.approx(float(own), abs=1e-4)
        assert told.heads.shape == (2, 4)


def test_the_planted_logit_is_the_induction_heads():
    """No other part writes where the output layer reads; the norm's shift is the same for all words."""
    model = models.planted()
    text = "cat dew elm fig cat"
    told = models.direct_logit_attribution(model, text, "dew", against="fig")
    expected = torch.zeros(2, 5)
    expected[models.PLANTED["induction"]] = told.total
    torch.testing.assert_close(told.heads, expected, rtol=1e-4, atol=1e-4)
    four = 4 / 320
    assert told.total == pytest.approx((four - four**2 + 1e-5) ** -0.5, rel=1e-4)


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.LayerNorm(6, bias=False), nn.RMSNorm(6), nn.Identity()])
def test_a_norm_is_a_scale_and_a_shift(norm):
    with torch.no_grad():
        for weight in norm.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    told = linearise(norm, x)
    torch.testing.assert_close(told.part(x) + told.shift, norm(x).detach())
    torch.testing.assert_close(told.part(torch.stack([x, 0.3 * x]))[1], 0.3 * told.part(x))


def test_what_is_no_norm_is_not_taken_for_one():
    assert linearise(nn.Tanh(), torch.randn(3, 6, generator=torch.Generator().manual_seed(0))) is None


@pytest.mark.parametrize(("family", "message"), [
    ("olmo2", "olmo2 has a norm on what its heads write in layer 0"),
    ("bitnet", "bitnet has something between its heads and W_O in layer 0"),
    ("albert", "the residual stream of albert cannot be followed: its layers share modules"),
    ("jamba", "the residual stream of jamba cannot be followed: .* some do not attend"),
    ("jetmoe", "jetmoe: no linear module after JetMoeAttention"),
    ("bart", "bart is an encoder–decoder"),
])  # fmt: skip
def test_models_that_cannot_be_decomposed_are_refused_by_name(family, message):
    with pytest.raises(TypeError, match=message):
        models.mixing(wrapped(family), IDS)


@pytest.mark.parametrize(("family", "message"), [
    ("bert", "bert normalises after adding, so no part reaches the logits by itself"),
    ("modernbert", "something other than a norm stands between the last layer of modernbert and its output layer"),
])  # fmt: skip
def test_logits_that_are_not_sums_are_refused_by_name(family, message):
    with pytest.raises(TypeError, match=message):
        models.direct_logit_attribution(wrapped(family), IDS, 7)


def test_what_cannot_be_attributed_is_named():
    gpt2, planted = wrapped("gpt2"), models.planted()
    with pytest.raises(TypeError, match=r"trunk \(GPT2Model\) has no language-model head, so it has no logits"):
        models.direct_logit_attribution(models.wrap(gpt2.net.transformer, name="trunk"), IDS, 7)
    with pytest.raises(IndexError, match="there is no token 12; the text has 12"):
        models.direct_logit_attribution(gpt2, IDS, 7, query=12)
    with pytest.raises(ValueError, match="gpt2 came without a tokenizer; give the id of 'cat'"):
        models.direct_logit_attribution(gpt2, IDS, "cat")
    with pytest.raises(ValueError, match="'cat dog' is 2 tokens of planted"):
        models.direct_logit_attribution(planted, "cat dog cat", "cat dog")
    with pytest.raises(TypeError, match=r"gpt2 computes in torch\.bfloat16, too coarse to tell what adds up"):
        models.mixing(models.wrap(families.tiny("gpt2").bfloat16(), name="gpt2"), IDS)


def test_a_layer_that_adds_in_another_way_is_refused():
    model = wrapped("gpt2")
    model.net.transformer.h[1].register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.raises(TypeError, match="cannot be followed through layer 1: what GPT2Block gives is neither the sum"):
        models.mixing(model, IDS)
