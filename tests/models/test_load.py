"""Borders of loading: what is found where, and every way in which it can fail."""

import json
import subprocess
import sys
from pathlib import Path

import families
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertTokenizerFast

from atlaskit import models

SHARED = Path(__file__).parents[1] / "shared"


@pytest.fixture
def folder(tmp_path):
    """A complete model folder with a tokenizer, made here."""
    net = families.tiny("bert")
    net.save_pretrained(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", ".", "<", ">", "b"]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}, model_max_length=32).save_pretrained(tmp_path)
    return tmp_path


def test_a_real_encoder_loads_from_its_package_without_a_network():
    model = models.load("all-minilm-l6-v2", device="cpu")
    assert (model.geometry.n_layer, model.geometry.n_head, model.geometry.d_head) == (6, 12, 32)
    assert not model.geometry.causal
    assert model.context == 512
    assert "all-minilm-l6-v2" in models.available()


def test_spans_point_into_the_text_and_specials_are_marked(folder):
    tokens = models.load(folder, device="cpu").tokens("the cats sat.")
    assert tokens.strings == ("[CLS]", "the", "cat", "s", "sat", ".", "[SEP]")
    assert tokens.special.tolist() == [True, False, False, False, False, False, True]
    assert [tokens.text[a:b] for a, b in tokens.spans.tolist()] == ["", "the", "cat", "s", "sat", ".", ""]


@pytest.mark.parametrize("text", ["the 😀 sat", "the قط sat", "the e\u0301 sat", "<b>the</b>", "the\u200bcat sat"])
def test_text_outside_the_vocabulary_keeps_its_place_and_is_not_special(folder, text):
    tokens = models.load(folder, device="cpu").tokens(text)
    unknown = [i for i, string in enumerate(tokens.strings) if string == "[UNK]"]
    assert unknown
    for i in unknown:
        start, end = tokens.spans[i].tolist()
        assert end > start
        assert not tokens.special[i]


def test_a_blank_that_is_a_token_of_its_own_is_a_blank_and_no_sign_of_the_vocabulary():
    assert models.load("mini-causal", device="cpu").tokens("The <b>").strings == ("The", " ", "<", "b", ">")


def test_a_folder_gives_the_weights_that_were_saved(folder):
    model = models.load(folder, device="cpu")
    assert models.fingerprint(model) == models.fingerprint(models.wrap(families.tiny("bert")))
    assert models.fingerprint(model) != models.fingerprint(models.wrap(families.tiny("bert", seed=1)))


def test_a_model_in_bfloat16_is_measured_in_float32(folder):
    seen = models.capture(models.load(folder, device="cpu", dtype="bfloat16"), "the cat sat")
    assert seen.layers[0].pattern.dtype == torch.float32


def test_the_dtype_of_the_checkpoint_is_kept_on_request(folder):
    families.tiny("bert").half().save_pretrained(folder)
    assert models.load(folder, device="cpu", dtype="auto").net.dtype == torch.float16
    assert models.load(folder, device="cpu").net.dtype == torch.float32


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"no weights \(\*\.safetensors\); copy model\.safetensors into it"):
        models.load(folder)


def test_pickled_weights_are_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"pytorch_model\.bin, but pickles can run code and are never read"):
        models.load(folder)


def test_a_truncated_file(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(OSError, match="are truncated or damaged"):
        models.load(folder)


def test_missing_weights_are_not_made_up(folder):
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layer.1.attention.self.query.weight" in name)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the weights .* they would be random"):
        models.load(folder)


def test_weights_that_are_not_numbers(folder):
    net = families.tiny("bert")
    with torch.no_grad():
        net.bert.embeddings.word_embeddings.weight[3, 4] = float("inf")
    net.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"word_embeddings\.weight' holds 1 NaN or infinite of"):
        models.load(folder)


def test_an_empty_name():
    with pytest.raises(OSError, match=r"the name of the model is empty\. Without a network: mini-causal"):
        models.load(" ")


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(OSError, match=r"holds no config\.json, so it is no model folder. Without a network: "):
        models.load(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="there is no folder"):
        models.load(tmp_path / "nowhere")


def test_a_name_that_only_the_hub_could_know():
    with pytest.raises(
        OSError, match=r"neither a bundled model nor a folder, and could not be had from the hub.*all-minilm"
    ):
        models.load("somebody/some-model")


def test_a_mistyped_name_is_met_with_the_one_that_was_meant():
    with pytest.raises(OSError, match=r"it cannot be reached\. Did you mean mini-causal\?"):
        models.load("mini-casual")


def test_a_hub_gives_a_model_and_what_it_gave_stays_when_it_is_out_of_reach(folder, tmp_path_factory):
    said = subprocess.run(
        [sys.executable, SHARED / "hub.py", folder, tmp_path_factory.mktemp("cache")],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    unknown, gone = said.stdout.splitlines()
    assert "not a valid model identifier" in unknown
    assert "could not be had from the hub: it cannot be reached" in gone
    assert "Retrying" not in said.stderr


def test_a_model_without_attention_in_a_folder(tmp_path):
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=1, state_size=4)).save_pretrained(
        tmp_path
    )
    with pytest.raises(TypeError, match="it has no attention, or keeps its pattern to itself"):
        models.load(tmp_path)


def test_a_config_of_an_unknown_kind(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "perceptron3000"}))
    with pytest.raises(ValueError, match="perceptron3000"):
        models.load(folder)


def test_no_code_from_the_folder_is_run(folder):
    config = json.loads((folder / "config.json").read_text())
    marker = folder / "was_run"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()")
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"evil|trust_remote_code"):
        models.load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("layer", "head", "message"),
    [
        (2, 0, r"has no encoder layer 2; it has layers \[0, 1\]"),
        (-1, 0, "has no encoder layer -1"),
        (1, 4, "layer 1 of .* has no head 4; it has heads 0 to 3"),
        (1, -1, "has no head -1"),
    ],
)
def test_a_layer_or_head_out_of_range_is_told_what_there_is(folder, layer, head, message):
    seen = models.capture(models.load(folder, device="cpu"), "the cat sat")
    with pytest.raises(IndexError, match=message):
        seen.pattern(layer, head)
    assert torch.equal(seen.pattern(1, 3), seen.layers[1].pattern[3])
