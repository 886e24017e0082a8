"""`atlaskit train`: a pattern and a task in, a model out that any loader knows."""

import json

import pytest
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from atlaskit import fractal_attention as fa
from atlaskit import models, training
from atlaskit.cli import main

COPY = ("--task", "copy", "--distance", "3", "--length", "16", "--steps", "60")


def called(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def test_a_model_is_trained_saved_and_found_again(tmp_path):
    done = called(*COPY, "--pattern", "cantor", "--bias", "lag", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "copy 3, cantor," in done.output
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert fa.layer_patterns(model.config) == [[fa.cantor()]] * 2
    right = float(training.accuracy(model, training.copy(3, length=16).held_out(8)).mean())
    assert right > 0.5  # a guess gets one in eight
    assert f"{right:.3f} of tokens right; a guess that looks at nothing 0.125" in done.output
    curve = training.Curve.read(tmp_path / "curve.json")
    assert len(curve.loss) == 60
    again = called(*COPY, "--pattern", "cantor", "--bias", "lag", "--out", tmp_path)
    assert again.exit_code == 0
    assert training.Curve.read(tmp_path / "curve.json") == curve, "a finished training is not repeated"


def test_a_pattern_may_be_a_spec_and_every_task_starts(tmp_path):
    window = json.dumps({"name": "sliding", "window": 4})
    for task in ("characters", "needle", "selective-copy", "recall", "listops"):
        done = called("--task", task, "--pattern", window, "--length", "32", "--steps", "1", "--out", tmp_path / task)
        assert done.exit_code == 0, done.output
        assert "sliding, 3.8 keys a query" in done.output


def test_a_trained_model_is_converted_on_its_own_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load", lambda name: models.planted())
    (tmp_path / "text.txt").write_text("ash bay cat dew elm " * 60)
    wanted = ("--model", "planted", "--text", tmp_path / "text.txt", "--length", "16", "--steps", "1")
    done = called(*wanted, "--pattern", "log_lags", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out/model")
    assert saved.config.vocab_size == models.planted().net.config.vocab_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pattern", "cantro"), "no pattern is called 'cantro'"),
        (("--pattern", "sierpinski", "--bias", "lag"), "LagBias needs a pattern of distances"),
        (("--task", "copy", "--distance", "99"), "copying from 99 tokens back needs rows longer than 99"),
        (("--model", "nowhere/at-all"), "neither a bundled model nor a folder"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(arguments, message, tmp_path):
    done = called(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert message in done.output


def test_a_folder_belongs_to_one_request(tmp_path):
    few = ("--task", "copy", "--distance", "3", "--length", "16", "--steps", "1", "--out", tmp_path)
    assert called(*few, "--pattern", "cantro").exit_code == 1  # what was refused leaves nothing behind
    assert called(*few, "--pattern", "cantor").exit_code == 0
    done = called(*few, "--pattern", "koch")
    assert done.exit_code == 1
    assert "holds a training with another pattern; give a new --out" in done.output
