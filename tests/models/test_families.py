"""Families that need care, a few outside the attention interface, and (marked `sweep`) every one there is."""

import json

import families
import pytest
import support
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from atlaskit import measure, models

IDS, SOURCE = support.IDS, support.SOURCE


def look(name):
    return models.capture(models.wrap(families.tiny(name), name=name), IDS)


@pytest.fixture(scope="module", params=families.REPORTED)
def outside(request):
    return models.wrap(families.tiny(request.param), name=request.param)


def test_outside_the_interface_the_models_own_pattern_is_captured(outside):
    seen = models.capture(outside, IDS)
    assert support.pattern_error(outside.net, outside, seen) == 0
    for layer in seen.layers:
        torch.testing.assert_close(layer.pattern.sum(-1), torch.ones(layer.pattern.shape[:2]))
        assert not layer.pattern[:, ~layer.support].any()


def test_outside_the_interface_what_is_missing_is_said_and_not_made_up(outside):
    for layer in models.capture(outside, IDS).layers:
        assert layer.q is layer.k is layer.v is layer.z is layer.result is None
        assert "does not look its attention up in transformers' AttentionInterface" in layer.parts_missing
        assert layer.result_missing == layer.parts_missing


def test_outside_the_interface_a_survey_equals_the_measure_of_the_capture(outside):
    survey = models.survey(outside, [IDS], {"entropy": measure.entropy}, progress=False)
    for i, layer in enumerate(models.capture(outside, IDS).layers):
        expected = measure.entropy(layer.pattern, layer.support).nanmean(-1)
        torch.testing.assert_close(survey["entropy"][0, i], expected)


def test_a_hybrids_layers_keep_their_true_numbers():
    assert [layer.layer for layer in look("jamba").layers] == [1]  # layer 0 is a state-space layer
    assert [layer.layer for layer in look("qwen3_next").layers] == [3]
    # these do not say their numbers: all hybrid layers share one attention
    assert [layer.layer for layer in look("zamba").layers] == [1, 3]
    assert [layer.layer for layer in look("zamba2").layers] == [6]
    survey = models.survey(models.wrap(families.tiny("zamba")), [IDS], {"bits": measure.entropy}, progress=False)
    assert survey.layers.tolist() == [1, 3]
    assert survey["bits"].shape == (1, 2, 4)


def test_latent_attention_has_values_of_another_width_than_its_keys():
    layer = look("deepseek_v3").layers[0]
    assert layer.q.shape[-1] == 8
    assert layer.v.shape[-1] == layer.z.shape[-1] == 6


def test_sparse_attention_is_sparse_under_the_hook_too():
    """DeepSeek's indexer works only where the config says "eager" or "sdpa": another name would lose it unnoticed."""
    layer = look("deepseek_v32").layers[0]
    expected = torch.arange(1, len(IDS) + 1).clamp(max=families.SIZES["index_topk"])
    assert torch.equal(layer.support.sum(-1), expected)


def test_results_include_the_gate_between_the_heads_and_the_residual_stream():
    model = models.wrap(families.tiny("qwen3_next"))
    layer = models.capture(model, IDS).layers[0]
    ungated = torch.einsum("hqv,hvm->hqm", layer.z, models.write_weights(model.sites[0].projection, 4))
    assert (ungated - layer.result).abs().max() > 0.1
    assert support.result_error(model, models.capture(model, IDS)) < 1e-5


def test_a_projection_that_mixes_heads_before_it_writes_gives_no_result_but_a_reason():
    layer = look("jetmoe").layers[0]
    assert layer.result is None
    assert "no linear module after JetMoeAttention reads each head's output apart" in layer.result_missing


def test_a_multimodal_decoder_is_captured_on_text_alone():
    model = models.wrap(families.tiny("gemma3/causal"))
    assert support.pattern_error(model.net, model, models.capture(model, IDS)) == 0


def test_a_bfloat16_checkpoint_is_captured_in_float32():
    model = models.wrap(families.tiny("llama").bfloat16())
    seen = models.capture(model, IDS)
    assert {layer.pattern.dtype for layer in seen.layers} == {torch.float32}
    assert support.pattern_error(model.net, model, seen) == 0
    survey = models.survey(model, [IDS], {"entropy": measure.entropy}, progress=False)
    expected = torch.stack([measure.entropy(layer.pattern, layer.support).nanmean(-1) for layer in seen.layers])
    torch.testing.assert_close(survey["entropy"][0], expected, rtol=1e-2, atol=1e-2)


def test_a_tokenizer_without_special_tokens_or_a_length_is_enough():
    words = Tokenizer(WordLevel({"cat": 0, "dog": 1, "sat": 2}, unk_token="cat"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    assert tokenizer.pad_token is tokenizer.eos_token is None
    assert tokenizer.model_max_length > 1e29
    seen = models.capture(models.wrap(families.tiny("gpt2"), tokenizer), "dog sat cat sat")
    assert seen.tokens.strings == ("dog", "sat", "cat", "sat")
    assert not seen.tokens.special.any()


def test_a_config_without_a_field_for_padding_is_enough():
    net = families.tiny("codegen")
    assert not hasattr(net.config, "pad_token_id")
    model = models.wrap(net, name="codegen")
    assert support.pattern_error(net, model, models.capture(model, IDS)) == 0


@pytest.mark.parametrize(("name", "reason"), [
    ("mamba2", "it has no attention, or keeps its pattern to itself"),
    ("reformer/causal", "no module of it hands out the patterns of layers"),
    ("longformer", r"reports attention of shape \(1, 4, 12, 513\), which is not \[1, head, token, token\]"),
    ("squeezebert", "is no pattern: its weights start at .* and its rows sum to up to"),
    ("voxtral_realtime", "cannot be run on token ids alone: ValueError: You must specify exactly one of"),
])  # fmt: skip
def test_what_cannot_be_captured_is_refused_with_the_reason(name, reason):
    with pytest.raises(TypeError, match=reason):
        models.wrap(families.tiny(name))


def test_the_hook_leaves_the_registries_as_they_were():
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    model = models.wrap(families.tiny("gpt2"))
    with pytest.raises(ZeroDivisionError):
        models.survey(model, [IDS], {"broken": lambda pattern: 1 / 0}, progress=False)
    assert "eager" not in ALL_ATTENTION_FUNCTIONS
    assert ALL_MASK_ATTENTION_FUNCTIONS["eager"] is eager_mask


def test_a_score_may_capture_too():
    model = models.wrap(families.tiny("gpt2"))

    def nested(pattern):
        models.capture(model, IDS[:4])
        return pattern.amax(-1)

    survey = models.survey(model, [IDS], {"nested": nested, "max": lambda pattern: pattern.amax(-1)}, progress=False)
    torch.testing.assert_close(survey["nested"], survey["max"])


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore")  # strangers' configs warn of many things
@pytest.mark.parametrize("name", list(families.registered()))
def test_every_family_is_captured_or_lands_in_a_named_group(name):
    committed = {row["name"]: row for row in json.loads(support.TABLE.read_text())}
    found = support.look(name)
    assert found.pattern_error < 1e-5  # rounding, in a few whose sparse keys are chosen by score
    assert found.result_error < 1e-5
    assert found.group == committed[name]["group"], "run python tests/shared/support.py and read the difference"


def test_the_support_table_holds_what_is_claimed():
    rows = json.loads(support.TABLE.read_text())
    assert [row["name"] for row in rows] == list(families.registered())
    captured = {row["name"].split("/")[0] for row in rows if row["group"] == "captured"}
    assert len(captured) >= 120
    assert all(row["reason"] for row in rows if row["group"] != "captured")


def test_the_readme_and_the_page_say_what_the_table_says():
    rows = [support.Support(**row) for row in json.loads(support.TABLE.read_text())]
    assert support.PAGE.read_text() == support.page(rows)
    readme = support.README.read_text()
    assert readme == support.in_readme(readme, support.summary(rows))
