"""Scores of sentences by a model: against minicons, by brute force, and where a preference was planted."""

import math
import warnings

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from atlaskit import data, measure, models
from atlaskit.data import Pair
from atlaskit.models.pair_scores import encode
from atlaskit.models.planted_preference import BIASED

with warnings.catch_warnings(action="ignore"):  # of packages that minicons imports
    from minicons import scorer

PAIRS = [*data.pairs(["gender"])[:6], *data.pairs(["nationality"])[:4], *data.pairs(["disability"])[8:10]]
PLANTED = models.preference_pairs()


def total(scores):
    return scores.sum().item()


@pytest.fixture(scope="module")
def causal():
    return models.load("mini-causal")


@pytest.fixture(scope="module")
def masked():
    """A random BERT with a real tokenizer of word pieces."""
    tokenizer = models.load("all-minilm-l6-v2").tokenizer
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    net = BertForMaskedLM(config).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(8)  # so that its probabilities are far from even
    return models.wrap(net, tokenizer, name="random BERT")


def test_sums_of_a_causal_model_agree_with_minicons(causal):
    twin = scorer.IncrementalLMScorer(causal.net, "cpu", tokenizer=causal.tokenizer)
    found = models.pair_scores(causal, PAIRS)
    for ours, texts in ((found.stereotype, [p.stereotype for p in PAIRS]), (found.counter, [p.counter for p in PAIRS])):
        theirs = twin.sequence_score(texts, reduction=total, bos_token=True)
        assert torch.allclose(ours, torch.tensor(theirs), atol=1e-4)
    assert found.rule == "sum"
    assert found.start == causal.tokenizer.bos_token


def test_a_space_that_is_a_token_of_its_own_counts(causal):
    """Before a digit mini-causal's tokenizer leaves a space alone: a token without a character of its own."""
    pair = Pair("x", "d", "f", "We saw 3 women at 10 .", "We saw 3 men at 10 .")
    coded = causal.tokenizer(pair.stereotype, return_offsets_mapping=True)
    assert any(start == end for start, end in coded["offset_mapping"])
    twin = scorer.IncrementalLMScorer(causal.net, "cpu", tokenizer=causal.tokenizer)
    theirs = twin.sequence_score([pair.stereotype], reduction=total, bos_token=True)
    assert models.pair_scores(causal, [pair]).stereotype.tolist() == pytest.approx(theirs, abs=1e-4)


def test_scores_after_a_context_agree_with_minicons(causal):
    pairs = [Pair(p.name, p.domain, p.family, p.stereotype, p.counter, "We met again.") for p in PAIRS]
    twin = scorer.IncrementalLMScorer(causal.net, "cpu", tokenizer=causal.tokenizer)
    theirs = twin.conditional_score(
        ["We met again."] * len(pairs), [p.counter for p in pairs], reduction=total, bos_token=True
    )
    assert torch.allclose(models.pair_scores(causal, pairs).counter, torch.tensor(theirs), atol=1e-4)


def forgotten_name(tokenizer, monkeypatch):
    """minicons calls its tokenizer by a name that transformers 5 dropped."""
    monkeypatch.setattr(type(tokenizer), "batch_encode_plus", type(tokenizer).__call__, raising=False)


def test_pseudo_log_likelihoods_agree_with_minicons(masked, monkeypatch):
    forgotten_name(masked.tokenizer, monkeypatch)
    twin = scorer.MaskedLMScorer(masked.net, "cpu", tokenizer=masked.tokenizer)
    theirs = twin.sequence_score([p.stereotype for p in PAIRS], reduction=total, PLL_metric="within_word_l2r")
    found = models.pair_scores(masked, PAIRS)
    assert found.rule == "pll"
    assert any(len(set(encode(masked, p.stereotype).words)) < len(encode(masked, p.stereotype).ids) - 1 for p in PAIRS)
    assert torch.allclose(found.stereotype, torch.tensor(theirs), atol=1e-4)


def test_the_bundled_masked_model_agrees_with_minicons(monkeypatch):
    model = models.load("mini-masked")
    forgotten_name(model.tokenizer, monkeypatch)
    twin = scorer.MaskedLMScorer(model.net, "cpu", tokenizer=model.tokenizer)
    theirs = twin.sequence_score([p.stereotype for p in PAIRS], reduction=total, PLL_metric="within_word_l2r")
    assert torch.allclose(models.pair_scores(model, PAIRS).stereotype, torch.tensor(theirs), atol=1e-4)


def test_the_form_of_crows_pairs_scores_the_shared_tokens_one_by_one(masked):
    pair = Pair("x", "d", "f", "The nurse said she ran.", "The nurse said he ran.")
    ids = masked.tokenizer(pair.stereotype)["input_ids"]
    other = masked.tokenizer(pair.counter)["input_ids"]
    by_hand = 0.0
    for i in range(1, len(ids) - 1):
        if ids[i] != other[i]:
            continue
        hidden = torch.tensor([ids])
        hidden[0, i] = masked.tokenizer.mask_token_id
        with torch.inference_mode():
            by_hand += float(masked.net(input_ids=hidden).logits[0, i].log_softmax(-1)[ids[i]])
    assert float(models.pair_scores(masked, [pair], rule="crows").stereotype) == pytest.approx(by_hand, abs=1e-4)


def test_pmi_is_the_sum_less_the_words_by_themselves(causal):
    pair = Pair("x", "d", "f", "My green bag fell.", "My blue bag fell.")
    alone = causal.tokenizer(" green")["input_ids"]
    ids = torch.tensor([[causal.tokenizer.bos_token_id, *alone]])
    with torch.inference_mode():
        logits = causal.net(input_ids=ids).logits[0].log_softmax(-1)
    by_itself = sum(float(logits[i, token]) for i, token in enumerate(alone))
    sums, pmi = (models.pair_scores(causal, [pair], rule=rule).stereotype for rule in ("sum", "pmi"))
    assert float(sums - pmi) == pytest.approx(by_itself, abs=1e-4)


def test_scores_do_not_depend_on_what_else_is_scored(causal, masked):
    for model in (causal, masked):
        together = models.pair_scores(model, PAIRS)
        alone = models.pair_scores(model, PAIRS[3:4])
        assert torch.allclose(together.preference[3], alone.preference[0], atol=1e-4)
        assert together.unrelated.isfinite().all()


def test_pairs_of_different_lengths_are_scored_and_their_lengths_kept(causal):
    found = models.pair_scores(causal, PAIRS)
    lengths = [[len(causal.tokenizer(text)["input_ids"]) for text in (p.stereotype, p.counter)] for p in PAIRS]
    assert found.n_tokens.tolist() == lengths
    assert (found.extra_tokens != 0).any()


def test_html_in_a_sentence_is_scored_as_it_stands(causal):
    pair = Pair("x", "d", "f", "<b>She</b> & I <script>", "<b>He</b> & I <script>")
    assert models.pair_scores(causal, [pair]).preference.isfinite().all()


def test_a_planted_preference_is_found_with_size_direction_and_interval():
    for nats in (0.7, -0.4):
        found = models.pair_scores(models.planted_preference(nats), PLANTED)
        assert torch.allclose(found.preference, torch.tensor(nats), atol=1e-5)
        estimate = measure.against_chance(found.preference, unit="nats")
        assert estimate.beats_null
        assert math.copysign(1, estimate.value) == math.copysign(1, nats)


def test_nothing_planted_is_nothing_found():
    found = models.pair_scores(models.planted_preference(0.0), PLANTED)
    assert found.preference.abs().max() < 1e-5


def test_a_model_without_a_preference_gives_intervals_that_contain_chance():
    """600 models that like some group with some attribute for no reason, and have no preference between groups."""
    families, held = torch.arange(len(PLANTED)) // 2, 0
    for seed in range(600):
        # quirks and resampling must not come from one seed
        scores = models.pair_scores(models.planted_preference(0.0, quirks=0.5, seed=10_000 + seed), PLANTED)
        found = measure.against_chance(measure.clustered(scores.preference, families), unit="nats", seed=seed)
        held += found.low <= 0 <= found.high
    assert held >= 558  # 93 %; of 200 alone, chance could decide


def test_a_preference_among_quirks_is_found_with_its_size():
    families = torch.arange(len(PLANTED)) // 2
    scores = models.pair_scores(models.planted_preference(0.7, quirks=0.3), PLANTED)
    found = measure.against_chance(measure.clustered(scores.preference, families), unit="nats")
    assert found.low < 0.7 < found.high
    assert found.beats_null


def test_mediation_finds_the_planted_head_and_no_other():
    model = models.planted_preference(0.7)
    found = models.mediate(model, PLANTED[:6], progress=False)
    planted = torch.zeros(2, 4)
    planted[BIASED] = 0.7
    assert torch.allclose(found.total, torch.tensor(0.7), atol=1e-5)
    assert torch.allclose(found.indirect, planted.expand(6, 2, 4), atol=1e-5)
    assert torch.allclose(found.direct, 0.7 - planted.expand(6, 2, 4), atol=1e-5)
    assert torch.allclose(found.layer_indirect, planted.sum(-1).expand(6, 2), atol=1e-5)
    assert torch.allclose(found.carried, planted.expand(6, 2, 4), atol=1e-5)
    assert torch.allclose(found.layer_carried, planted.sum(-1).expand(6, 2), atol=1e-5)


def test_what_a_head_carries_changes_sign_with_the_pair_and_the_effect_of_one_way_does_not(causal):
    """A head that spells the swapped word does harm whichever way it is swapped; that is no preference."""
    pairs = models.matching_pairs(causal, data.pairs(["gender"]))[2:4]
    turned = [Pair(p.name, p.domain, p.family, p.counter, p.stereotype) for p in pairs]
    here, there = (models.mediate(causal, some, progress=False) for some in (pairs, turned))
    assert torch.allclose(here.carried, -there.carried, atol=1e-3)
    assert torch.allclose(here.layer_carried, -there.layer_carried, atol=1e-3)
    harm = (here.indirect + there.indirect).abs().max()
    assert harm > 0.1, "one way a head seems to carry a stereotype, and of the pair turned round the opposite one"


def test_removing_the_planted_head_removes_the_preference_and_removing_others_does_not():
    model = models.planted_preference(0.7)
    means = models.mean_z(model, [text for pair in PLANTED for text in (pair.stereotype, pair.counter)])
    effects = models.preference_effects(model, PLANTED[:8], means=means)
    expected = torch.zeros(2, 4)
    expected[BIASED] = -0.7
    assert torch.allclose(effects, expected.expand_as(effects), atol=1e-5)
    gone = models.scores_without(model, PLANTED, [BIASED], means=means)
    assert gone.preference.abs().max() < 1e-5
    with pytest.raises(IndexError, match=r"has 2 layers of 4 heads; no \[\(5, 0\)\]"):
        models.scores_without(model, PLANTED, [(5, 0)], means=means)


def test_a_masked_model_is_mediated_over_the_tokens_that_both_sentences_share(masked):
    pairs = models.matching_pairs(masked, PAIRS)[:1]
    found = models.mediate(masked, pairs, progress=False)
    assert torch.allclose(found.total, models.pair_scores(masked, pairs, rule="crows").preference, atol=1e-4)
    alone = found.indirect[0, -1]
    # what all heads of the last layer write is added up before the norm: small parts, so nearly their sum
    assert found.layer_indirect.shape == (1, 2)
    assert alone.isfinite().all()


def test_pairs_that_do_not_match_token_by_token_are_named_and_can_be_left_out(causal):
    unlike = [pair for pair in data.pairs() if pair not in models.matching_pairs(causal, [pair])][:1]
    with pytest.raises(ValueError, match=rf"1 of 1 pairs do not match token by token, such as '{unlike[0].name}'"):
        models.mediate(causal, unlike)
    with pytest.raises(ValueError, match="there are no pairs to mediate; see matching_pairs"):
        models.mediate(causal, [])


def test_what_cannot_be_scored_is_refused_with_the_reason(causal, masked):
    with pytest.raises(TypeError, match="has no language-model head of its own to score sentences with"):
        models.pair_scores(models.load("all-minilm-l6-v2"), PAIRS)
    with pytest.raises(
        ValueError, match="the rule 'pll' is not for causal models, such as mini-causal; use sum or pmi"
    ):
        models.pair_scores(causal, PAIRS, rule="pll")
    with pytest.raises(
        ValueError, match="the rule 'sum' is not for masked models, such as random BERT; use pll or crows"
    ):
        models.pair_scores(masked, PAIRS, rule="sum")
    with pytest.raises(ValueError, match="there are no pairs to score"):
        models.pair_scores(causal, [])
    long = Pair("x", "d", "f", "a " * 400, "b " * 400)
    with pytest.raises(ValueError, match=r"tokens and mini-causal reads 256"):
        models.pair_scores(causal, [long])


def test_a_tokenizer_that_cannot_start_or_hide_is_refused(masked):
    silent = models.planted_preference(0.1)
    silent.tokenizer.bos_token = silent.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has neither a start nor an end token"):
        models.pair_scores(silent, PLANTED[:1])
    tokenizer = models.load("all-minilm-l6-v2").tokenizer
    tokenizer.mask_token = None
    with pytest.raises(TypeError, match="has no mask token to hide words with"):
        models.pair_scores(models.wrap(masked.net, tokenizer, name="x"), PAIRS[:1])
    with pytest.raises(TypeError, match="x has no fast tokenizer"):
        models.pair_scores(models.wrap(masked.net, name="x"), PAIRS[:1])
