"""Twin: the library's own dense attention. Border: padding, cache, disk, and what is refused by name."""

import json
import subprocess
import sys

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from atlaskit import models
from atlaskit.fractal_attention import captured, extra_weights, patterns, reach, registration, watching
from atlaskit.fractal_attention.registration import use_fractal_attention, use_library_attention

SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "llama": lambda: transformers.LlamaConfig(**SMALL, num_key_value_heads=2, max_position_embeddings=128),
    "qwen3": lambda: transformers.Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8, max_position_embeddings=128),
    "neox": lambda: transformers.GPTNeoXConfig(**SMALL, max_position_embeddings=128),
    "mistral": lambda: transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=64),
}
MIXED = [
    [patterns.log_lags(), patterns.log_lags(), patterns.sierpinski(), patterns.hilbert_window(1)],
    patterns.blocked(patterns.cantor(), 8),
]


def model_of(name, seed=0):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


def ids(n, docs=2, seed=1):
    return torch.randint(3, 40, (docs, n), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_dense_pattern_is_the_librarys_own_attention(name):
    model, tokens = model_of(name), ids(40)
    real = torch.ones_like(tokens)
    real[0, :9] = 0
    positions = (real.cumsum(1) - 1).clamp(min=0)
    truth = model(tokens, attention_mask=real, position_ids=positions).logits
    use_fractal_attention(model, patterns.dense())
    ours = model(tokens, attention_mask=real, position_ids=positions).logits
    torch.testing.assert_close(ours[real.bool()], truth[real.bool()], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_left_padding_and_the_future_change_nothing(name):
    model, tokens, pad = use_fractal_attention(model_of(name), MIXED), ids(30), 7
    whole = model(tokens).logits
    padded = torch.cat([torch.zeros(2, pad, dtype=torch.long), tokens], 1)
    real = torch.arange(30 + pad).repeat(2, 1) >= pad
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    shifted = model(padded, attention_mask=real.long(), position_ids=positions).logits[:, pad:]
    torch.testing.assert_close(shifted, whole, rtol=0, atol=1e-5)
    later = tokens.clone()
    later[:, 20:] = ids(10, seed=2)
    assert torch.equal(model(later).logits[:, :20], whole[:, :20])


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_decoding_with_a_cache_equals_the_full_pass(name):
    model, tokens = use_fractal_attention(model_of(name).double(), MIXED), ids(30)
    whole = model(tokens).logits
    step = model(tokens[:, :20], use_cache=True)
    logits = [step.logits]
    for at in (*range(20, 24), slice(24, 30)):
        step = model(tokens[:, at].reshape(2, -1), past_key_values=step.past_key_values, use_cache=True)
        logits.append(step.logits)
    torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=0, atol=1e-6)


@torch.no_grad()
def test_generation_equals_repeated_full_passes():
    model, tokens = use_fractal_attention(model_of("llama"), MIXED), ids(12)
    real = torch.ones_like(tokens)
    real[0, :4] = 0
    made = model.generate(
        tokens, attention_mask=real, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    alone = tokens[0:1, 4:]
    for _ in range(6):
        alone = torch.cat([alone, model(alone).logits[:, -1:].argmax(-1)], 1)
    assert made[0, 4:].tolist() == alone[0].tolist()


def test_patterns_reach_only_as_far_as_their_hops():
    """One layer of distances {0, 3, 6}: the logits at 20 feel tokens 20, 17 and 14, and nothing else."""
    config = CONFIGS["gpt2"]()
    config.n_layer = 1
    torch.manual_seed(0)
    model = use_fractal_attention(AutoModelForCausalLM.from_config(config).eval(), patterns.dilated(3, 3))
    embedded = model.transformer.wte(ids(24, docs=1)).detach().requires_grad_()
    model(inputs_embeds=embedded).logits[0, 20].square().sum().backward()
    assert embedded.grad[0].abs().sum(-1).nonzero().flatten().tolist() == [14, 17, 20]


@torch.no_grad()
def test_disk_keeps_the_patterns(tmp_path):
    model, tokens = use_fractal_attention(model_of("llama"), MIXED), ids(30)
    truth = model(tokens).logits
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert again.config._attn_implementation == registration.NAME
    assert registration.layer_patterns(again.config) == registration.layer_patterns(model.config)
    assert torch.equal(again(tokens).logits, truth)


def test_a_saved_model_never_turns_dense_in_silence(tmp_path):
    """Whoever loads it without this package is told so by name."""
    use_fractal_attention(model_of("llama"), MIXED).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["attn_implementation"] = "a_name_nobody_registered"
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="a_name_nobody_registered"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", extra_weights.BIASES)
@torch.no_grad()
def test_a_plain_from_pretrained_brings_learned_biases_back_however_often(tmp_path, kind):
    model, tokens = use_fractal_attention(model_of("llama"), patterns.cantor(), bias=kind), ids(30)
    learned = [weight for name, weight in model.named_parameters() if extra_weights.WEIGHT in name]
    for number, weight in enumerate(learned):
        weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    assert len({id(weight) for weight in learned}) == len(learned) >= 2, "each layer has its own"
    truth = model(tokens).logits
    for generation in ("first", "second"):
        model.save_pretrained(tmp_path / generation)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / generation)
        assert torch.equal(model(tokens).logits, truth)
        assert not hasattr(model, "hf_quantizer"), "the library must not take it for a quantised model"


@pytest.mark.parametrize("name", CONFIGS)
def test_biases_are_trained_with_the_model(name):
    model, tokens = use_fractal_attention(model_of(name).train(), patterns.log_lags(), bias="lag"), ids(30)
    model(tokens, labels=tokens).loss.backward()
    weights = [weight for key, weight in model.named_parameters() if extra_weights.WEIGHT in key]
    powers = model.config.max_position_embeddings.bit_length()  # 1, 2, 4 … up to the longest text, itself a power
    assert [weight.shape for weight in weights] == [(4, 1 + powers)] * 2
    assert all(weight.grad[:, :6].abs().min() > 0 for weight in weights), "30 tokens read distances up to 16"


@torch.no_grad()
def test_a_bias_of_minus_infinity_closes_a_distance():
    model, tokens = use_fractal_attention(model_of("gpt2"), patterns.sliding(3), bias="lag"), ids(30)
    for attention in extra_weights._attending(model):
        attention.fractal_bias.by_lag[:, 2] = -torch.inf
    use_fractal_attention(twin := model_of("gpt2"), patterns.sliding(2))
    torch.testing.assert_close(model(tokens).logits, twin(tokens).logits, rtol=0, atol=1e-6)


@torch.no_grad()
def test_weights_of_the_dense_pattern_are_the_librarys_own():
    model, tokens = model_of("llama"), ids(40)
    real = torch.ones_like(tokens)
    real[0, :9] = 0
    model.set_attn_implementation("eager")
    truth = model(tokens, attention_mask=real, output_attentions=True).attentions
    use_fractal_attention(model, patterns.dense())
    ours = watching.attention_weights(model, input_ids=tokens, attention_mask=real)
    assert len(ours) == len(truth)
    for mine, theirs in zip(ours, truth, strict=True):
        torch.testing.assert_close(mine[0, :, 9:], theirs[0, :, 9:], rtol=0, atol=1e-6)
        torch.testing.assert_close(mine[1], theirs[1], rtol=0, atol=1e-6)


def test_weights_lie_on_the_pattern_and_are_those_that_made_the_output():
    model, tokens = use_fractal_attention(model_of("gpt2").train(), MIXED, bias=None), ids(40)
    first, second = watching.attention_weights(model, input_ids=tokens)
    assert model.training
    for weights, layer in zip((first, second), registration.layer_patterns(model.config), strict=True):
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 40))
        for head, pattern in enumerate(layer * 4 if len(layer) == 1 else layer):
            assert (weights[:, head] > 0).equal(reach.support(pattern, 40).expand(2, -1, -1))


def test_weights_of_a_model_without_fractal_attention_are_refused():
    with pytest.raises(ValueError, match="no layer of this GPT2LMHeadModel attends fractally"):
        watching.attention_weights(model_of("gpt2"), input_ids=ids(6))


def test_capture_refuses_a_swapped_model_rather_than_show_dense_attention(tmp_path):
    model = models.planted()
    use_fractal_attention(model.net, patterns.sliding(2))
    with pytest.raises(TypeError, match="this model attends through 'atlaskit_fractal'"):
        models.capture(model, "ash bay cat")
    model.net.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"patterns: fractal_attention\.attention_weights"):
        models.load(tmp_path)
    use_library_attention(model.net)
    assert models.capture(model, "ash bay cat").layers


@torch.no_grad()
def test_going_back_to_the_library_leaves_no_trace(tmp_path):
    model, tokens = model_of("llama"), ids(30)
    before = model(tokens).logits
    use_fractal_attention(model, MIXED, bias="koch")
    assert not torch.equal(model(tokens).logits, before)
    use_library_attention(model)
    assert torch.equal(model(tokens).logits, before)
    model.save_pretrained(tmp_path)
    assert registration.NAME not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
    assert not [name for name in model.state_dict() if extra_weights.WEIGHT in name]


@torch.no_grad()
def test_changed_patterns_are_noticed():
    model, tokens = use_fractal_attention(model_of("gpt2"), patterns.dense()), ids(30)
    dense = model(tokens).logits
    use_fractal_attention(model, patterns.sliding(2))
    assert not torch.equal(model(tokens).logits, dense)


@torch.no_grad()
def test_an_encoder_reads_both_ways():
    torch.manual_seed(0)
    config = transformers.BertConfig(**SMALL, max_position_embeddings=64)
    model, tokens = transformers.BertModel(config).eval(), ids(30)
    truth = model(tokens).last_hidden_state
    use_fractal_attention(model, patterns.dense())
    torch.testing.assert_close(model(tokens).last_hidden_state, truth, rtol=0, atol=1e-5)


def test_gradients_reach_every_weight_with_dropout_on():
    config = CONFIGS["gpt2"]()
    config.attn_pdrop = 0.2
    torch.manual_seed(0)
    model = use_fractal_attention(AutoModelForCausalLM.from_config(config).train(), MIXED)
    tokens = ids(30)
    model(tokens, labels=tokens).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def t5():
    return transformers.T5Model(
        transformers.T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )


def bloom():
    return transformers.BloomModel(transformers.BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2))


def several():
    return transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8},
            vision_config={
                "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
                "image_size": 4, "patch_size": 2,
            },
            projection_dim=8,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "wanted", "message"),
    [
        (lambda: model_of("gpt2"), [patterns.dense()] * 3, "patterns for 3 layers, but the model has 2"),
        (lambda: model_of("gpt2"), [[patterns.dense()] * 3] * 2, "layer 0 has 3 patterns for 4 heads"),
        (t5, patterns.dense(), "T5Model attends across two texts"),
        (several, patterns.dense(), "CLIPModel holds several models in one"),
        (bloom, patterns.dense(), "BloomModel does not use the attention interface"),
    ],
)
def test_a_model_that_cannot_be_swapped_is_refused(make, wanted, message):
    model = make()
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=message):
        use_fractal_attention(model, wanted)
    assert model.config._attn_implementation == before
    assert not hasattr(model.config, registration.NAME)


@torch.no_grad()
def test_biases_that_a_config_promises_and_nobody_loaded_are_missed():
    model = use_fractal_attention(model_of("gpt2"), patterns.log_lags(), bias="lag")
    bare = AutoModelForCausalLM.from_config(model.config)
    with pytest.raises(RuntimeError, match="the config promises 'lag' biases, but this GPT2Attention has none"):
        bare(ids(6))


def test_a_bias_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="no bias is called 'hilbert'; known are cantor_depth, dragon"):
        use_fractal_attention(model_of("gpt2"), patterns.log_lags(), bias="hilbert")


def test_layers_that_cannot_be_told_apart_get_no_bias():
    model = use_fractal_attention(model_of("gpt2"), patterns.log_lags())
    model.config.n_layer = 3
    with pytest.raises(ValueError, match="has 2 modules that attend for 3 layers"):
        extra_weights.add_biases(model, "koch", [[patterns.log_lags()]] * 3)


def test_a_config_without_patterns_says_so():
    with pytest.raises(ValueError, match="the config of this gpt2 carries no patterns"):
        registration.layer_patterns(CONFIGS["gpt2"]())


@pytest.mark.parametrize(
    ("name", "call", "message"),
    [
        ("mistral", {"input_ids": ids(70)}, "a mask that is more than causal and padding"),
        (
            "gpt2",
            {"input_ids": ids(6), "position_ids": torch.tensor([[0, 1, 2] * 2]), "use_cache": False},
            "packed texts",
        ),
        ("gpt2", {"input_ids": ids(6), "attention_mask": torch.zeros(2, 1, 6, 6)}, "is more than padding"),
    ],
)
@torch.no_grad()
def test_a_call_that_wants_more_is_refused_by_name(name, call, message):
    model = use_fractal_attention(model_of(name), patterns.log_lags())
    with pytest.raises(NotImplementedError, match=message):
        model(**call)


@torch.no_grad()
def test_a_cache_of_fixed_size_is_refused():
    model = use_fractal_attention(model_of("llama"), patterns.log_lags())
    cache = transformers.StaticCache(config=model.config, max_cache_len=32)
    with pytest.raises(NotImplementedError, match="32 cached keys for tokens 0 to 6"):
        model(ids(6), past_key_values=cache, use_cache=True)


@pytest.mark.parametrize("extra", registration.CHANGES_SCORES)
def test_extras_that_change_scores_are_refused(extra):
    module, x = torch.nn.Module(), torch.zeros(1, 1, 2, 4)
    with pytest.raises(NotImplementedError, match=f"passes {extra}, which changes scores"):
        registration.fractal_attention(module, x, x, x, None, **{extra: 1.0})


def test_a_window_shorter_than_the_text_is_refused_in_the_layer_too():
    module, x = torch.nn.Module(), torch.zeros(1, 1, 9, 4)
    with pytest.raises(NotImplementedError, match="a sliding window of 4 and sees 9 keys"):
        registration.fractal_attention(module, x, x, x, None, sliding_window=4)


def test_a_layer_that_does_not_know_its_number_needs_one_pattern_for_all():
    module, x = torch.nn.Module(), torch.zeros(1, 1, 9, 4)
    module.config = CONFIGS["gpt2"]()
    setattr(module.config, registration.NAME, [[patterns.dense().spec], [patterns.log_lags().spec]])
    with pytest.raises(ValueError, match="does not know which layer it is"):
        registration.fractal_attention(module, x, x, x, None)


def test_a_row_is_captured_with_the_weights_that_made_its_output_and_all_that_any_head_may_read():
    model, row = use_fractal_attention(model_of("gpt2"), MIXED), ids(40)[0]
    strings = [f" {number}" for number in row.tolist()]
    seen = captured.capture(model, row, strings, name="mixed")
    assert (seen.model, seen.tokens.strings[3], seen.tokens.text[slice(*seen.tokens.spans[3])]) == (
        "mixed", strings[3], strings[3]
    )  # fmt: skip
    for one, weights in zip(seen.layers, watching.attention_weights(model, input_ids=row[None]), strict=True):
        assert one.pattern.equal(weights[0])
        assert not one.pattern[:, ~one.support].any()
    assert seen.layers[0].support.equal((seen.layers[0].pattern > 0).any(0))  # each head may read less
    assert captured.capture(model, row).tokens.strings[0] == str(int(row[0]))
    with pytest.raises(ValueError, match="2 strings for 40 tokens"):
        captured.capture(model, row, ["a", "b"])


def test_names_in_place_of_patterns_and_kernels_are_refused_by_name():
    # in a process of its own: here the types of arguments are checked before our code sees them
    program = """
import torch
from atlaskit import fractal_attention as fa, models

def refused(call):
    try:
        call()
    except (TypeError, ValueError) as error:
        print(error)

x = torch.ones(1, 2, 4, 8)
refused(lambda: fa.attend(x, x, x, patterns=fa.cantor(), kernel="fast"))
refused(lambda: fa.attend(x, x, x, patterns="cantor"))
refused(lambda: fa.use_fractal_attention(models.load("mini-causal").net, "log_lags"))
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "no kernel is called 'fast'; known are auto, masked" in told
    assert "patterns are Pattern objects; from_spec makes one" in told
    assert "'log_lags' is a spec, not a pattern; pass from_spec('log_lags')" in told
