"""Truth: what reach forbids no training brings, and what it allows is learned. Every pattern trains without a nan."""

import math

import pytest
import torch

from atlaskit import data, models, training
from atlaskit.fractal_attention import extra_weights, patterns, reach
from atlaskit.fractal_attention.registration import use_fractal_attention

LAG_SETS = [
    patterns.log_lags(), patterns.ternary_lags(), patterns.cantor(), patterns.cantor_literal(), patterns.koch(),
    patterns.moser(), patterns.dragon_lags(), patterns.dragon_lags(signed=True), patterns.sliding(12),
    patterns.dilated(5, 3), patterns.strided(7), patterns.random_lags(patterns.log_lags(), seed=0),
    patterns.union(patterns.sliding(4), patterns.log_lags()), patterns.dense(),
]  # fmt: skip
BY_PLACE = [
    patterns.sierpinski(), patterns.sierpinski(previous=False), patterns.sierpinski_disjoint(),
    patterns.hilbert_window(), patterns.dragon_window(), patterns.bigbird(window=4, anchors=2, draws=4),
    patterns.blocked(patterns.log_lags(), 8), patterns.blocked(patterns.sierpinski(), 4),
]  # fmt: skip
EVERY = LAG_SETS + BY_PLACE
TEXT, ALPHABET = training.character_stream(data.texts())


def pattern_name(value):
    return value.name if isinstance(value, patterns.Pattern) else str(value)


def trained(pattern, task, *, bias, steps, seed=0):
    model = use_fractal_attention(training.small_decoder(task, seed=seed), pattern, bias=bias)
    plan = training.Plan(steps, 5e-3, warmup=steps // 10, weight_decay=0.0)
    return model, training.train(model, task.batch, plan, seed=seed, progress=False)


@pytest.mark.parametrize("pattern", EVERY, ids=pattern_name)
def test_two_layers_feel_exactly_what_two_hops_reach(pattern):
    """With random weights no gradient is zero by chance, so where it is zero the pattern closed every way."""
    n = 40
    model = use_fractal_attention(training.small_decoder(training.copy(3, length=n)).double().eval(), pattern)
    embedded = torch.randn(1, n, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    embedded.requires_grad_()
    said = model(inputs_embeds=embedded).logits[0].square().sum(-1)
    felt = torch.stack([torch.autograd.grad(one, embedded, retain_graph=True)[0][0].abs().sum(-1) for one in said])
    one_hop = reach.support(pattern, n).double()
    assert torch.equal(felt > 0, one_hop @ one_hop > 0)


def best_share(pattern, lag, length):
    """What a model of two layers can get right at most when it copies, guessing where no way leads."""
    one_hop = reach.support(pattern, length).double()
    two_hops = one_hop @ one_hop > 0
    way = two_hops.diagonal(-lag)[: length - lag - 1].double().mean().item()  # the last token is not asked
    return way + (1 - way) / 8


def share_copied(pattern, lag, *, length, steps, bias):
    task = training.copy(lag, length=length, rows=32)
    model, _ = trained(pattern, task, bias=bias, steps=steps)
    return float(training.accuracy(model, task.held_out(8)).mean())


def noise(lag, length):
    """Five standard errors of a guess on the 8 x 32 held-out rows."""
    return 5 * (1 / 8 * 7 / 8 / (256 * (length - lag - 1))) ** 0.5


@pytest.mark.parametrize(
    ("pattern", "lag"),
    [(patterns.log_lags(), 17), (patterns.log_lags(), 21), (patterns.cantor_literal(), 21), (patterns.sliding(5), 17)],
    ids=pattern_name,
)
def test_a_copy_is_learned_where_two_hops_reach_and_nowhere_else(pattern, lag):
    share = share_copied(pattern, lag, length=32, steps=150, bias="lag")
    if 0 < reach.hops_needed(pattern, 32)[lag] <= 2:
        assert share > 0.9
    else:
        assert share < 1 / 8 + noise(lag, 32)


@pytest.mark.sweep
@pytest.mark.parametrize("lag", [16, 26, 27])
@pytest.mark.parametrize("pattern", LAG_SETS, ids=pattern_name)
def test_the_copy_sweep_passes_and_fails_as_reach_says(pattern, lag):
    share = share_copied(pattern, lag, length=48, steps=500, bias="lag")
    if 0 < reach.hops_needed(pattern, 48)[lag] <= 2:
        assert share > 0.5
    else:
        assert share < 1 / 8 + noise(lag, 48)


@pytest.mark.sweep
@pytest.mark.parametrize("lag", [16, 27])
@pytest.mark.parametrize("pattern", BY_PLACE, ids=pattern_name)
def test_no_pattern_copies_more_than_its_ways_allow(pattern, lag):
    share = share_copied(pattern, lag, length=48, steps=300, bias="cantor_depth")
    assert share < best_share(pattern, lag, 48) + noise(lag, 48)


def test_the_best_share_of_a_set_of_distances_is_one_or_chance():
    assert best_share(patterns.log_lags(), 17, 32) == 1
    assert best_share(patterns.log_lags(), 21, 32) == 1 / 8


def words_alone():
    """Loss of a guess that knows how often each character comes, on the held-out part."""
    task = training.language(TEXT, vocab=len(ALPHABET), length=32)
    ids = torch.cat([batch["labels"][:, 1:] for batch in task.held_out(4)]).flatten()
    often = TEXT.bincount(minlength=len(ALPHABET)) / len(TEXT)
    return float(-often.log()[ids].mean())


@pytest.mark.parametrize("bias", extra_weights.BIASES)
def test_every_bias_trains(bias):
    task = training.language(TEXT, vocab=len(ALPHABET), length=32)
    model, curve = trained(patterns.cantor(), task, bias=bias, steps=40)
    assert max(curve.gradient_norm) < 100
    assert training.held_out_loss(model, task.held_out(4)) < words_alone()


@pytest.mark.sweep
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("pattern", EVERY, ids=pattern_name)
def test_every_pattern_trains_for_500_steps(pattern, seed):
    """A nan or an infinity at any step would have been raised by the loop."""
    task = training.language(TEXT, vocab=len(ALPHABET), length=32, rows=4, seed=seed)
    # every kind of bias meets some patterns; a table of distances needs a set of them
    kinds = [kind for kind in extra_weights.BIASES if kind != "lag" or pattern.lag_set is not None]
    bias = kinds[(EVERY.index(pattern) + seed) % len(kinds)]
    _, curve = trained(pattern, task, bias=bias, steps=500, seed=seed)
    assert len(curve.loss) == 500
    assert all(map(math.isfinite, curve.loss + curve.gradient_norm))
    assert sum(curve.loss[-50:]) / 50 < words_alone()


def test_a_trained_model_is_converted_and_wins_back_what_it_lost():
    model = models.load("mini-causal")
    stream = training.token_stream(data.texts(), model.tokenizer)
    task = training.language(stream, vocab=model.net.config.vocab_size, length=32, rows=8)
    unseen = task.held_out(4)
    model.net.loss_type = "ForCausalLM"  # what the library settles on anyway, with a warning
    dense = training.held_out_loss(model.net, unseen)
    swapped = use_fractal_attention(model.net, patterns.log_lags(), bias="lag")
    cut = training.held_out_loss(swapped, unseen)
    training.train(swapped, task.batch, training.Plan(20, 3e-4, warmup=2), seed=0, progress=False)
    healed = training.held_out_loss(swapped, unseen)
    assert dense + 0.5 < cut
    assert healed < cut - 0.5 * (cut - dense), "more than half of what was lost comes back"
