"""Twins: what the hook sees, against what the models themselves report with eager attention."""

import families
import pytest
import support
import torch
from transformers import MambaConfig, MambaForCausalLM
from transformers.models.gpt2.modeling_gpt2 import eager_attention_forward

from atlaskit import measure, models
from atlaskit.models.hook import Call

IDS = [5, 17, 9, 30, 5, 17, 80, 33, 21, 60, 5, 17]
SOURCE = [11, 12, 13, 40, 41, 42, 43]


@pytest.fixture(scope="module", params=families.CHOSEN)
def model(request):
    return models.wrap(families.tiny(request.param), name=request.param)


def look(model):
    return models.capture(model, IDS, source=SOURCE if model.is_encoder_decoder else None)


def test_capture_equals_eager_attention_bit_for_bit(model):
    seen = look(model)
    told = support.eager_patterns(model.net, model, seen)
    for kind, patterns in told.items():
        own = [layer.pattern for layer in seen.layers if layer.kind == kind]
        for pattern, reference in zip(own, patterns, strict=True):
            torch.testing.assert_close(pattern, reference, rtol=0, atol=0)


def test_the_models_own_code_is_left_as_it_was(model):
    before = model.net.config._attn_implementation
    look(model)
    assert model.net.config._attn_implementation == before


def test_patterns_stay_inside_their_support_and_sum_to_one_unless_a_sink_takes_some(model):
    for layer in look(model).layers:
        assert (layer.pattern[:, ~layer.support] == 0).all()
        total = layer.pattern.sum(-1)
        if model.name == "gpt_oss":
            assert (total <= 1).all()
            assert (total < 0.99).any()
        else:
            torch.testing.assert_close(total, torch.ones_like(total))


def test_no_head_of_a_decoder_sees_the_future(model):
    for layer in look(model).layers:
        if layer.kind == "decoder":
            assert not layer.support.triu(1).any()


def test_z_is_the_pattern_applied_to_the_values(model):
    for layer in look(model).layers:
        values = layer.v.repeat_interleave(layer.pattern.shape[0] // layer.v.shape[0], 0)
        torch.testing.assert_close(layer.z, layer.pattern @ values, rtol=1e-5, atol=1e-6)


def test_results_of_all_heads_and_the_bias_make_the_layers_output(model):
    """The output projection's own output, heard by a forward hook, is the independent reference."""
    seen = look(model)
    assert all(layer.result is not None for layer in seen.layers)
    assert support.result_error(model, seen) < 1e-5


def test_a_survey_of_tiles_equals_the_same_measure_of_the_capture(model, monkeypatch):
    monkeypatch.setattr("atlaskit.models.tiles.rows_at_a_time", lambda *_: 2)
    scores = {
        "entropy": measure.entropy,
        "distance": measure.mean_distance,
        "sink": measure.mass_on(measure.first_token),
    }
    document = (SOURCE, IDS) if model.is_encoder_decoder else IDS
    seen = look(model)
    for kind in {site.kind for site in model.sites}:
        survey = models.survey(model, [document], scores, kind=kind, progress=False)
        for layer in (layer for layer in seen.layers if layer.kind == kind):
            place = [one.layer for one in seen.layers if one.kind == kind].index(layer.layer)  # a hybrid has gaps
            own = seen.source if kind == "cross" else seen.tokens
            expected = {
                "entropy": measure.entropy(layer.pattern, layer.support),
                "distance": measure.mean_distance(layer.pattern, layer.support),
            }
            if kind == "decoder":
                first = measure.first_token(own)
                expected["sink"] = measure.mass(layer.pattern, layer.support, first)
            for name, rows in expected.items():
                torch.testing.assert_close(survey[name][0, place], rows.nanmean(-1), rtol=1e-5, atol=1e-6)


def test_sliding_windows_show_in_the_support():
    layers = look(models.wrap(families.tiny("mistral"))).layers
    assert torch.equal(layers[0].support, measure.sliding(len(IDS), 5))


def test_a_row_that_may_use_no_key_is_the_same_alone_and_among_others():
    """Eager attention spreads such a row over all keys, so none may be kept from it."""
    q, k, v = torch.randn(3, 1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    allowed = measure.causal(6) & (torch.arange(6) < 4)
    allowed[5] = False
    mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None]
    module = families.tiny("gpt2").transformer.h[0].attn
    call = Call(module, q, k, v, mask, {"scaling": 8**-0.5}, eager_attention_forward)
    whole, tiles = call.attend(), [call.attend(slice(i, i + 1)) for i in range(6)]
    torch.testing.assert_close(torch.cat([tile.pattern for tile in tiles], 2), whole.pattern)
    torch.testing.assert_close(torch.cat([tile.output for tile in tiles], 1), whole.output)
    torch.testing.assert_close(whole.pattern[0, :, 5], torch.full((4, 6), 1 / 6))


def test_layers_with_one_shared_module_are_told_apart():
    """ALBERT calls the same module for every layer, so it cannot say its number."""
    model = models.wrap(families.tiny("albert"))
    assert [site.layer for site in model.sites] == [0, 1]


def test_grouped_heads_keep_their_own_number_of_keys():
    layer = look(models.wrap(families.tiny("llama"))).layers[0]
    assert layer.q.shape[0] == 4
    assert layer.k.shape[0] == layer.v.shape[0] == 2


def test_a_model_without_attention_is_refused():
    net = MambaForCausalLM(MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=1, state_size=4)).eval()
    with pytest.raises(
        TypeError, match=r"neither looks attention up .* nor reports any: it has no attention, or keeps"
    ):
        models.wrap(net)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(RuntimeError, match="training mode, where dropout changes attention"):
        models.wrap(families.tiny("gpt2").train())


@pytest.mark.parametrize(("weight", "place", "heads"), [
    ("h.1.attn.c_attn.weight", (3, 2 * 32 + 9), r"decoder layer 1 wrote NaN or infinity in heads \[1\]"),  # values
    ("h.1.attn.c_attn.weight", (3, 17), r"decoder layer 1 wrote NaN or infinity in heads \[2\]"),  # queries
    ("h.1.attn.c_proj.weight", (25, 0), r"what decoder layer 1 writes for heads \[3\]"),
    ("h.0.mlp.c_fc.weight", (0, 3), r"decoder layer 1 wrote NaN or infinity in heads \[0, 1, 2, 3\]"),
    ("h.1.mlp.c_fc.weight", (0, 3), ""),  # after all attention
])  # fmt: skip
def test_a_weight_that_is_not_a_number_is_named_with_the_first_heads_it_reaches(weight, place, heads):
    net = families.tiny("gpt2")
    with torch.no_grad():
        net.get_parameter(f"transformer.{weight}")[place] = float("nan")
    told = rf"{weight}' holds 1 NaN or infinite of \d+ numbers, the first at \[{place[0]}, {place[1]}\]"
    with pytest.raises(ValueError, match=f"{told}{': ' if heads else ''}{heads}$"):
        models.wrap(net)
    assert int(net.get_parameter(f"transformer.{weight}").isnan().sum()) == 1  # left as it was


def test_a_broken_output_projection_of_another_layout_is_named_too():
    """A Linear keeps its inputs in columns, GPT-2's Conv1D in rows."""
    net = families.tiny("llama")
    with torch.no_grad():
        net.model.layers[0].self_attn.o_proj.weight[1, 17] = float("inf")
    with pytest.raises(ValueError, match=r"what decoder layer 0 writes for heads \[2\]$"):
        models.wrap(net)


def test_attention_that_overflows_is_reported_with_its_layer_and_heads():
    model = models.wrap(families.tiny("gpt2"))
    with torch.no_grad():
        model.net.transformer.h[1].attn.c_attn.bias[2 * 32 + 8 : 2 * 32 + 16] = (
            3e38  # the values of head 1 overflow in z
        )
        model.net.transformer.h[1].attn.c_attn.bias[2 * 32 + 8 : 2 * 32 + 16] *= 2
    with pytest.raises(ValueError, match=r"decoder layer 1 wrote NaN or infinity in heads \[1\]"):
        models.capture(model, IDS)
    with pytest.raises(ValueError, match=r"decoder layer 1 wrote NaN or infinity in heads \[1\]"):
        models.survey(model, [IDS], {"entropy": measure.entropy}, progress=False)


def test_the_model_is_put_back_after_an_exception_inside_the_block():
    model = models.wrap(families.tiny("bart"))
    before = model.net.config._attn_implementation

    def broken(pattern):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        models.survey(model, [(SOURCE, IDS)], {"broken": broken}, progress=False)
    assert model.net.config._attn_implementation == before
    assert all(
        module.config._attn_implementation == before for module in model.net.modules() if hasattr(module, "config")
    )


def test_a_net_that_differs_under_the_hook_is_refused(monkeypatch):
    """A hook that loses the soft cap would differ, as a plain re-implementation of attention does."""
    from atlaskit.models import hook

    eager_of = hook._eager_of

    def forgetful(module):
        own = eager_of(module)
        return lambda *args, softcap=None, **extra: own(*args, **extra)

    monkeypatch.setattr(hook, "_eager_of", forgetful)
    with pytest.raises(ValueError, match=r"differs from eager attention by .* \(allowed: 1e-05\)"):
        models.wrap(families.tiny("gemma2"))


def test_an_encoder_decoder_wants_both_texts():
    model = models.wrap(families.tiny("t5"), name="t5")
    with pytest.raises(ValueError, match="t5 is an encoder–decoder: say what it reads too"):
        models.capture(model, IDS)
    with pytest.raises(ValueError, match="reads one text only"):
        models.capture(models.wrap(families.tiny("gpt2")), IDS, source=IDS)


def test_a_capture_beyond_its_budget_says_the_sizes_and_the_way_out():
    model = models.wrap(families.tiny("gpt2"))
    with pytest.raises(MemoryError, match=r"2 layers × 4 heads at 12 tokens needs .* GB; .*survey"):
        models.capture(model, IDS, budget=1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        ("  \n", "the text is empty"),
        ([], "no token ids"),
        ([4], "1 token long"),
        ("cat", "1 token"),
    ],
)
def test_texts_without_a_choice_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        models.capture(models.planted(), text)


def test_a_text_without_a_tokenizer_is_refused():
    with pytest.raises(ValueError, match="came without a tokenizer; give token ids"):
        models.capture(models.wrap(families.tiny("gpt2")), "hello there")


def test_a_text_longer_than_the_context_says_what_was_cut():
    model = models.planted()
    text = "cat dog " * 50
    with pytest.warns(UserWarning, match="100 tokens and the model reads 64: the last 36 were cut, from 'cat dog"):
        seen = models.capture(model, text)
    assert len(seen.tokens) == 64
    assert len(models.capture(model, text, max_tokens=10).tokens) == 10  # asked for: no warning


def test_a_hundred_thousand_tokens_are_cut_or_refused_but_never_crash():
    model = models.wrap(families.tiny("t5"))  # relative positions: no limit of its own
    with pytest.raises(MemoryError, match="100000 tokens"):
        models.capture(model, [5] * 100_000, source=SOURCE)


def test_a_silenced_head_says_its_mean_and_later_layers_read_that():
    """Twin: the same net with that head's rows taken out of W_O and its mean put into the bias."""
    model, twin = models.planted(), models.planted()
    text = "ash bay cat dew elm ash bay cat dew elm"
    own = models.capture(model, text)
    seen = models.capture(model, text, without=[(0, 0), (1, 2)])
    for layer, head in ((0, 0), (1, 2)):
        place, projection = slice(64 * head, 64 * head + 64), twin.net.transformer.h[layer].attn.c_proj
        with torch.no_grad():
            projection.bias += own.layers[layer].z[head].mean(0) @ projection.weight[place]
            projection.weight[place] = 0
    for one, other in zip(seen.layers, models.capture(twin, text).layers, strict=True):
        torch.testing.assert_close(one.pattern, other.pattern, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.layers[0].z[0], own.layers[0].z[0].mean(0).expand(10, -1))
    assert not torch.allclose(seen.layers[1].pattern[0], own.layers[1].pattern[0], atol=0.1)
    torch.testing.assert_close(
        models.capture(model, text).layers[1].pattern, own.layers[1].pattern
    )  # nothing stays behind
    with pytest.raises(IndexError, match=r"planted has no head 0\.9; it has layers 0 to 1 and heads 0 to 4"):
        models.capture(model, text, without=[(0, 9)])
