"""Labels of tokens, each with its source; and the audit record, in which nothing typed can act."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForTokenClassification

from atlaskit import data, models, runs
from atlaskit.records import Estimate

TAGS = ["O", "B-STEREO", "I-STEREO", "B-GEN", "I-GEN"]


def classifier(problem_type=None):
    tokenizer = models.load("all-minilm-l6-v2").tokenizer
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
        id2label=dict(enumerate(TAGS)), label2id={tag: i for i, tag in enumerate(TAGS)}, problem_type=problem_type,
    )  # fmt: skip
    return models.wrap(BertForTokenClassification(config).eval(), tokenizer, name="tagger")


def test_a_classifier_labels_by_the_larger_of_beginning_and_inside():
    model = classifier("multi_label_classification")
    found = models.classified(model, "All women cook.")
    with torch.inference_mode():
        by_hand = model.net(input_ids=found.tokens.ids[None]).logits[0].sigmoid()
    assert found.names == ("STEREO", "GEN")
    assert torch.allclose(found.probability[1:-1, 0], by_hand[1:-1, 1:3].amax(-1))
    assert found.probability[[0, -1]].abs().max() == 0, "special tokens have no label"
    assert found.source == "tagger"


def test_exclusive_labels_share_one_softmax():
    model = classifier()
    found = models.classified(model, "All women cook.", independent=False)
    with torch.inference_mode():
        by_hand = model.net(input_ids=found.tokens.ids[None]).logits[0].softmax(-1)
    assert torch.allclose(found.probability[1:-1, 1], by_hand[1:-1, 3:5].amax(-1))


def test_nobody_guesses_whether_labels_exclude_one_another():
    with pytest.raises(ValueError, match="tagger does not say whether its labels exclude one another"):
        models.classified(classifier(), "All women cook.")


def test_a_language_model_is_no_labeller():
    with pytest.raises(
        TypeError, match="mini-causal is a GPT2LMHeadModel; labels come from one …ForTokenClassification"
    ):
        models.classified(models.load("mini-causal"), "All women cook.")


def test_a_labeller_whose_classifier_is_missing_is_refused_on_loading(tmp_path):
    model = classifier("multi_label_classification")
    model.net.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "classifier" not in name},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"lacks 2 of the weights that BertForTokenClassification needs"):
        models.load(tmp_path)


def test_lists_find_whole_words_and_phrases():
    tokens = models.load("mini-causal").tokens("The old man said he saw the womanly MAN.")
    found = models.listed(tokens, {"men": ["man", "he"], "age": ["old man"]}, source="list of two")
    said = {name: [tokens.strings[i].strip() for i in found.flagged(name).nonzero()[:, 0]] for name in found.names}
    assert "".join(said["men"]).lower().count("man") == 2
    assert "the" not in said["men"]
    assert "".join(said["age"]) == "oldman"
    with pytest.raises(KeyError, match="list of two has no label 'x'; it has men, age"):
        found.flagged("x")


def test_the_bundled_word_lists_come_from_the_pairs():
    groups = data.groups()
    assert set(groups) == {pair.domain for pair in data.pairs()} - {data.CONTROL}
    assert {"woman", "man"} <= set(groups["gender"])


def test_labels_by_hand_stay_in_the_text():
    tokens = models.load("mini-causal").tokens("A man.")
    assert models.marked(tokens, {"x": [(2, 5)]}, source="me").flagged("x").any()
    with pytest.raises(ValueError, match="label 'x': span 2–9 is not in a text of 6 characters"):
        models.marked(tokens, {"x": [(2, 9)]}, source="me")
    with pytest.raises(ValueError, match="there is no label"):
        models.marked(tokens, {}, source="me")


ABOVE = Estimate(2.0, 1.0, 3.0, -0.5, 0.5, "nats", 40, 0.001)
NOWHERE = Estimate(0.1, -1.0, 1.0, -0.5, 0.5, "nats", 40, 0.6)
FEW = Estimate(2.0, 1.0, 3.0, -0.5, 0.5, "nats", 4, 0.1)


def record():
    audit = runs.Audit("Does it prefer <b>?", "It does | yes", "me", "m", "ff")
    audit.add("main", ABOVE, expected="above")
    audit.add("controls", NOWHERE, expected="not apart")
    return audit


def test_evidence_as_expected_is_not_flagged():
    assert record().disconfirming == {}
    assert "None of the rules applies." in record().markdown()


@pytest.mark.parametrize(
    ("found", "expected", "why"),
    [
        (NOWHERE, "above", "not apart from chance"),
        (ABOVE, "below", "above chance"),
        (ABOVE, "not apart", "above chance"),
        (FEW, "above", "only 4 documents; below 10 an interval is a guess"),
    ],
)
def test_what_speaks_against_the_hypothesis_cannot_be_left_out(found, expected, why):
    audit = record()
    audit.add("held out", found, expected=expected)
    assert audit.disconfirming == {"held out": why}
    assert f"- held out: {why}" in audit.markdown()


def test_nothing_typed_into_a_record_is_markup():
    text = record().markdown()
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert r"It does \| yes" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    with pytest.raises(ValueError, match="evidence 'x': expected is 'near'"):
        record().add("x", ABOVE, expected="near")


def test_a_saved_record_holds_its_evidence_and_what_speaks_against_it(tmp_path):
    audit = record()
    audit.add("held out", NOWHERE, expected="above")
    page, file = audit.save(tmp_path / "new")
    content = json.loads(file.read_text())
    assert content["disconfirming"] == {"held out": "not apart from chance"}
    assert content["hypothesis"] == "It does | yes"
    assert page.read_text() == audit.markdown()
