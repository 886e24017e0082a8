"""Explanations of a prediction: exact cases, captum as the twin, and whether judging them tells good from bad."""

import pytest
import torch
from captum.attr import LayerIntegratedGradients
from scipy import stats
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from atlaskit import measure, models
from atlaskit.models.pair_scores import target_log_probs
from atlaskit.models.planted_preference import BIASED

TEXT = "the woman works as nurse"
SPAN = (19, 24)


@pytest.fixture(scope="module")
def planted():
    return models.planted_preference(2.0)


@pytest.fixture(scope="module", params=["causal", "masked"])
def random(request):
    """Small random models with a tokenizer of words; large weights, so that nothing is nearly linear."""
    tokenizer = models.planted_preference(0.0).tokenizer
    torch.manual_seed(0)
    if request.param == "causal":
        net = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4))
    else:
        tokenizer.mask_token = "<s>"
        net = BertForMaskedLM(
            BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
        )
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(4)
    return models.wrap(net.eval(), tokenizer, name=request.param)


def test_a_prediction_is_the_log_probability_of_its_words(planted):
    job = models.prediction(planted, TEXT, SPAN)
    with torch.inference_mode():
        logits = planted.net(input_ids=job.ids[None]).logits[0]
    by_hand = logits[-2].log_softmax(-1)[planted.tokenizer.convert_tokens_to_ids("nurse")]
    assert torch.allclose(target_log_probs(logits, job), by_hand)
    assert models.candidates(planted, TEXT, SPAN)[0].tolist() == [1, 2, 3, 4]


def test_a_prediction_from_nothing_is_refused(planted):
    for span in ((0, 3), (0, 24), (3, 4)):
        with pytest.raises(ValueError, match="leaves no token to predict it from, or is none itself"):
            models.prediction(planted, TEXT, span)


def test_a_masked_prediction_hides_its_words(random):
    job = models.prediction(random, TEXT, SPAN)
    hidden = job.ids == models.filler(random)
    assert bool(hidden[job.places].all()) == (random.name == "masked")
    places, _ = models.candidates(random, "the woman works as nurse the man", SPAN)
    assert len(places) == (6 if random.name == "masked" else 4)


def test_integrated_gradients_are_complete_and_equal_captums(random):
    job, at = models.prediction(random, TEXT, SPAN), models.candidates(random, TEXT, SPAN)[0]
    ours = models.integrated_gradients(random, job, at, steps=200)
    emptied = job.ids.clone()
    emptied[at] = models.filler(random)

    def forward(ids):
        return torch.stack([target_log_probs(one, job).sum() for one in random.net(input_ids=ids).logits])

    twin = LayerIntegratedGradients(forward, random.net.get_input_embeddings())
    theirs, delta = twin.attribute(
        job.ids[None], emptied[None], n_steps=200, method="riemann_middle", return_convergence_delta=True,
        internal_batch_size=50,
    )  # fmt: skip
    assert torch.allclose(ours.values, theirs[0].sum(-1).detach(), atol=1e-4)
    assert ours.missed == pytest.approx(float(delta), abs=1e-4)
    assert abs(ours.missed) < 0.01 * max(abs(ours.moved), float(ours.values.abs().sum()))


def test_tokens_know_the_class_of_their_word():
    text = "the 3 women laughed ."
    model = models.load("mini-causal")
    places, classes = models.candidates(model, text, (12, 19))
    ends = model.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    word = [3 if ends[place - 1][1] <= 3 else 2 if ends[place - 1][1] <= 5 else 0 for place in places.tolist()]
    assert classes.tolist() == word
    assert set(word) == {0, 2, 3}


def test_long_texts_are_judged_at_evenly_spaced_sizes(random):
    text = "the woman works as nurse the man the girl works as baker"
    job, (at, _) = models.prediction(random, text, (51, 56)), models.candidates(random, text, (51, 56))
    every, some = (models.erase(random, job, at[None], points=points) for points in (99, 6))
    assert every.deletion.shape == (1, 12)
    assert torch.allclose(some.deletion[0], every.deletion[0, [0, 2, 4, 7, 9, 11]], atol=1e-4)


def test_occlusion_is_the_change_when_one_token_goes(random):
    job, at = models.prediction(random, TEXT, SPAN), models.candidates(random, TEXT, SPAN)[0]
    values = models.occlusion(random, job, at)
    rows = torch.stack([job.ids, job.ids])
    rows[1, at[1]] = models.filler(random)
    with torch.inference_mode():
        scores = [float(target_log_probs(one, job).sum()) for one in random.net(input_ids=rows).logits]
    assert float(values[at[1]]) == pytest.approx(scores[0] - scores[1], abs=1e-4)
    untouched = torch.ones(len(values), dtype=torch.bool)
    untouched[at] = False
    assert torch.equal(values[untouched], torch.zeros(int(untouched.sum())))


def test_every_method_names_the_word_that_the_planted_head_reads(planted):
    job, at = models.prediction(planted, TEXT, SPAN), models.candidates(planted, TEXT, SPAN)[0]
    group = 2  # <s> the woman
    assert int(models.occlusion(planted, job, at).argmax()) == group
    assert int(models.chefer(planted, job).argmax()) == group
    assert int(models.integrated_gradients(planted, job, at, steps=32).values.argmax()) == group
    assert models.gradient_input(planted, job).shape == job.ids.shape


def test_relevance_of_one_layer_is_the_attention_times_its_gradient(planted):
    """In the planted model only one head's weights move the prediction, so Chefer's rule has a closed form."""
    job = models.prediction(planted, TEXT, SPAN)
    seen = models.capture(planted, job.ids.tolist())
    pattern = seen.layers[BIASED[0]].pattern[BIASED[1]][int(job.places)]
    chance = 1 - job_probability(planted, job)
    # ∂ log P / ∂ weight on the group: 2 nats for the target's logit, less their share of the softmax over attributes
    attributes = sum(job_probability(planted, job, other) for other in ("baker", "singer", "tailor"))
    slope = 2.0 * (chance - attributes)
    n_head = planted.geometry.n_head
    assert float(models.chefer(planted, job)[2]) == pytest.approx(float(pattern[2]) * slope / n_head, rel=1e-3)


def job_probability(model, job, word=None):
    target = int(job.targets) if word is None else model.tokenizer.convert_tokens_to_ids(word)
    with torch.inference_mode():
        return float(model.net(input_ids=job.ids[None]).logits[0, int(job.places)].softmax(-1)[target])


def test_deleting_the_word_that_matters_first_is_judged_best(planted):
    job, at = models.prediction(planted, TEXT, SPAN), models.candidates(planted, TEXT, SPAN)[0]
    orders = torch.stack([at[[1, 0, 2, 3]], at[[0, 2, 3, 1]]])  # the group first, the group last
    judged = models.erase(planted, job, orders)
    whole, empty = judged.deletion[0, 0], judged.deletion[0, -1]
    assert torch.allclose(judged.deletion[0, 1:], empty, atol=1e-5), "after the group nothing else matters"
    assert torch.allclose(judged.deletion[1, :-1], whole, atol=1e-5)
    assert torch.allclose(judged.insertion[0, 1:], whole, atol=1e-5)
    assert torch.allclose(judged.comprehensiveness, torch.stack([whole - empty, torch.tensor(0.0)]), atol=1e-5)
    assert torch.allclose(judged.sufficiency, torch.stack([torch.tensor(0.0), whole - empty]), atol=1e-5)
    with pytest.raises(ValueError, match="1 token to delete: an order needs at least two"):
        models.erase(planted, job, at[None, :1])


def test_curves_begin_and_end_at_the_whole_and_the_empty_text(random):
    job, at = models.prediction(random, TEXT, SPAN), models.candidates(random, TEXT, SPAN)[0]
    judged = models.erase(random, job, torch.stack([at, at.flip(0)]))
    assert torch.allclose(judged.deletion[:, 0], judged.insertion[:, -1], atol=1e-4)
    assert torch.allclose(judged.deletion[:, -1], judged.insertion[:, 0], atol=1e-4)
    assert torch.allclose(judged.deletion[0, 1], judged.insertion[1, -2], atol=1e-4)


def test_random_orders_keep_the_classes_of_every_prefix():
    order, classes = torch.tensor([7, 3, 9, 1, 4, 5]), torch.tensor([0, 1, 0, 1, 1, 0])
    orders = measure.like_orders(order, classes, draws=200, seed=0)
    kind = dict(zip(order.tolist(), classes.tolist(), strict=True))
    assert all([kind[i] for i in row] == classes.tolist() for row in orders.tolist())
    assert {tuple(sorted(row)) for row in orders.tolist()} == {tuple(sorted(order.tolist()))}
    assert len({tuple(row) for row in orders.tolist()}) == 36  # 3! × 3!


def test_rank_correlation_is_scipys():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        one, other = torch.randint(0, 6, (2, 12), generator=generator).float()
        assert float(measure.rank_correlation(one, other)) == pytest.approx(stats.spearmanr(one, other)[0], abs=1e-9)
    assert measure.rank_correlation(torch.ones(4), torch.arange(4.0)).isnan()
