"""The fast way without a pattern, and the exact way with one: they agree, and the fast knows where it may not go."""

import math

import families
import pytest
import torch

from atlaskit import measure, models
from atlaskit.measure import moments
from atlaskit.models import hook


def every_third(tokens, queries=None):
    return measure.keys(torch.arange(len(tokens)) % 3 == 1)(tokens, queries)


FAST = {
    "entropy": moments.entropy,
    "keys": moments.effective_keys,
    "concentration": moments.concentration,
    "lag": moments.mean_lag,
    "first": moments.mass_on(measure.first_token),
    "every third": moments.mass_on(every_third),
}
EXACT = {
    "entropy": measure.entropy,
    "keys": measure.effective_keys,
    "concentration": measure.concentration,
    "first": measure.mass_on(measure.first_token),
    "every third": measure.mass_on(every_third),
}
IDS = torch.randint(4, 96, (90,), generator=torch.Generator().manual_seed(3)).tolist()


@pytest.fixture
def rows_attended(monkeypatch):
    """How many query rows the model's own attention did in each call."""
    seen = []
    attend = hook.Call.attend

    def counting(self, rows=slice(None)):
        seen.append(len(range(*rows.indices(self.n_query))))
        return attend(self, rows)

    monkeypatch.setattr(hook.Call, "attend", counting)
    return seen


def sharp(family):
    """A tiny model whose heads are far from uniform, so that there is something to get wrong."""
    net = families.tiny(family)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(6)
    return models.wrap(net, name=family)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "bert", "opt", "deepseek_v3"])  # the last: narrow values
def test_moments_from_the_fused_kernel_equal_those_of_the_pattern(family, rows_attended):
    model = sharp(family)
    rows_attended.clear()
    fast = models.survey(model, [IDS], FAST, progress=False)
    assert set(rows_attended) == {1}  # the model's own attention did a sample of rows alone: no pattern was formed
    exact = models.survey(model, [IDS], EXACT, progress=False)
    assert float(exact["entropy"].std()) > 1e-3
    for name in EXACT:
        torch.testing.assert_close(fast[name], exact[name], rtol=1e-4, atol=1e-4)


def test_the_mean_lag_of_a_causal_head_is_its_mean_distance():
    model = sharp("gpt2")
    fast = models.survey(model, [IDS], {"lag": moments.mean_lag}, progress=False)
    exact = models.survey(model, [IDS], {"lag": measure.mean_distance}, progress=False)
    torch.testing.assert_close(fast["lag"], exact["lag"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt_oss", "gemma2", "mistral", "bloom", "t5"])
def test_where_scores_are_more_than_products_the_pattern_is_looked_at(family, rows_attended):
    """Sinks, soft caps, windows, ALiBi, position bias."""
    model = models.wrap(families.tiny(family), name=family)
    document = (IDS, IDS) if model.is_encoder_decoder else IDS
    fast = models.survey(model, [document], FAST, progress=False)
    exact = models.survey(model, [document], EXACT, progress=False)
    for name in EXACT:
        torch.testing.assert_close(fast[name], exact[name], rtol=1e-4, atol=1e-4, equal_nan=True)
    if family in ("gpt_oss", "mistral"):
        assert max(rows_attended) > 1


def test_half_precision_is_counted_in_float32(rows_attended):
    """Of the first layer, whose queries and keys do not depend on the way: softmax in float64 by hand."""
    model = models.wrap(families.tiny("llama").bfloat16(), name="llama")
    rows_attended.clear()
    fast = models.survey(model, [IDS], FAST, progress=False)
    assert set(rows_attended) == {1}
    layer = models.capture(model, IDS).layers[0]
    scores = layer.q.double() @ layer.k.double().repeat_interleave(2, 0).mT * layer.q.shape[-1] ** -0.5
    pattern = scores.masked_fill(~layer.support, float("-inf")).softmax(-1)
    expected = -torch.special.xlogy(pattern, pattern).sum(-1)[:, 1:].mean(-1) / math.log(2)
    torch.testing.assert_close(fast["entropy"][0, 0].double(), expected, rtol=1e-4, atol=1e-4)
    expected = pattern.square().sum(-1)[:, 1:].mean(-1)
    torch.testing.assert_close(fast["concentration"][0, 0].double(), expected, rtol=1e-4, atol=1e-4)


def test_a_sink_shows_however_small_the_values_are(rows_attended):
    """What a head writes may be tiny: whether two ways agree is a question of its size."""
    net = families.tiny("gpt_oss")
    with torch.no_grad():
        for layer in net.model.layers:
            layer.self_attn.v_proj.weight.mul_(1e-6)
            layer.self_attn.v_proj.bias.zero_()
    net.config.layer_types = ["full_attention"] * len(net.model.layers)
    for layer in net.model.layers:
        layer.self_attn.sliding_window = None
    model = models.wrap(net, name="gpt_oss")
    rows_attended.clear()
    models.survey(model, [IDS], FAST, progress=False)
    assert max(rows_attended) > 1


def test_overflow_in_a_row_that_was_no_sample_is_reported_and_not_left_out():
    model = models.wrap(families.tiny("gpt2"), name="gpt2")

    def overflow(_module, _args, output):
        output[0, 50, 8:16] = float("inf")  # the query of head 1 in one row

    handle = model.net.transformer.h[1].attn.c_attn.register_forward_hook(overflow)
    with pytest.raises(ValueError, match=r"decoder layer 1 wrote NaN or infinity in heads \[1\]"):
        models.survey(model, [IDS], FAST, progress=False)
    handle.remove()


def test_scores_with_and_without_a_pattern_may_be_mixed():
    model = sharp("gpt2")
    mixed = models.survey(model, [IDS], FAST | {"max": measure.max_weight}, progress=False)
    alone = models.survey(model, [IDS], FAST, progress=False)
    for name in FAST:
        torch.testing.assert_close(mixed[name], alone[name], rtol=1e-4, atol=1e-4)


def test_a_selector_that_depends_on_the_query_is_refused():
    with pytest.raises(ValueError, match=r"needs the pattern: use measure\.mass_on"):
        models.survey(sharp("gpt2"), [IDS], {"x": moments.mass_on(measure.previous_token)}, progress=False)
