"""Story: trained models become folders that load, verify, and have a card made of measurements."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from atlaskit import data, models
from atlaskit.data import bundled
from atlaskit.data.recipe import build, install, packages, present
from atlaskit.data.recipe.figure import loss_curve
from atlaskit.data.recipe.plans import Recipe
from atlaskit.data.recipe.vocabulary import byte_pairs
from atlaskit.training import Curve, Plan

VERSIONS = {source.package: "1.0" for source in packages.SOURCES}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A decoder, an encoder and a series, trained for a few steps and installed in a folder of their own."""
    work, shelf = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("models")
    draw = np.random.default_rng(5)
    words = ["river", "stone", "walks", "slowly", "the", "green", "under", "bridge", "sings", "a", ",", "."]
    texts = {p: [" ".join(draw.choice(words, 500)) + "." for _ in range(8)] for p in ("train", "validation", "test")}
    plan = Plan(steps=2, learning_rate=1e-3)
    series = Plan(steps=2, learning_rate=1e-3, keep=(0, 2))
    recipes = (
        Recipe("mini-steps", "decoder", 1, 4, 32, series),
        Recipe("mini-causal", "decoder", 1, 4, 32, plan),
        Recipe("mini-masked", "encoder", 1, 4, 32, plan),
    )
    corpora = {kind: build.corpus(texts, kind, work) for kind in ("decoder", "encoder")}
    trained = {r.name: build.fit(r, corpora[r.kind], work, compiled=False) for r in recipes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(install, "MODELS", shelf)
        for r in recipes:
            present.install_model(
                r, trained[r.name], corpora[r.kind], test_texts=texts["test"], work=work, versions=VERSIONS
            )
    return shelf, trained


@pytest.fixture
def installed(shelf, monkeypatch):
    monkeypatch.setattr(bundled, "_MODELS", shelf[0])
    monkeypatch.setattr(bundled, "_MANIFEST", shelf[0] / "manifest.json")
    monkeypatch.setattr(bundled, "BUNDLED", {n: e["description"] for n, e in bundled._read_manifest().items()})
    return shelf


def test_every_installed_model_verifies(installed):
    assert set(bundled.BUNDLED) == {"mini-causal", "mini-masked", "mini-steps/0", "mini-steps/2"}
    for name in bundled.BUNDLED:
        data.verify(name)


@pytest.mark.parametrize("name", ["mini-causal", "mini-masked"])
def test_what_is_loaded_is_what_was_trained_to_half_precision(installed, name):
    shelf, trained = installed
    loaded = models.load(shelf / name).net.state_dict()
    for key, weight in trained[name][0].state_dict().items():
        assert torch.equal(loaded[key], weight.half().float()), key


@pytest.mark.parametrize("name", ["mini-causal", "mini-masked", "mini-steps"])
def test_a_card_has_its_sections_and_no_hole(installed, name):
    page = (installed[0] / name / "README.md").read_text()
    for heading in (
        "## Text",
        "## Training",
        "## How well it predicts",
        "## What its heads do",
        "## What the training was to reach",
    ):
        assert heading in page
    assert "must not be used for" in page
    # After two steps no head looks anywhere, and the card has to say so.
    assert "on the previous token | **not reached** |" in page
    assert "interpolated Kneser–Ney" in page
    assert all(source.licence in page for source in packages.SOURCES if source.text)
    measured = page.partition("## What it says")[0]  # an untrained model says anything
    assert not re.search(r"\bnan\b|None|\{|\}", measured)


def test_a_weight_too_large_for_half_precision_is_refused(installed, tmp_path):
    model = Recipe("big", "decoder", 1, 4, 32, Plan(1, learning_rate=1.0)).build()
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = 1e6
    with pytest.raises(ValueError, match=r"transformer.ln_f.weight of big has weights that float16 cannot hold"):
        install.write_model(tmp_path / "big", model, byte_pairs(["a b c"], size=300, context=64))


def test_the_figure_puts_every_point_inside_its_frame():
    curve = Curve(loss=[7.0 - i / 100 for i in range(400)], held_out={200: 5.2, 400: 3.3})
    picture = ElementTree.fromstring(loss_curve(curve, {"trigram": 3.4, "<unigram>": 6.1}))
    width, height = (float(n) for n in picture.attrib["viewBox"].split()[2:])
    space = "{http://www.w3.org/2000/svg}"
    lines = picture.findall(f"{space}polyline")
    assert len(lines) == 2
    for line in lines:
        points = [tuple(float(n) for n in p.split(",")) for p in line.attrib["points"].split()]
        assert all(0 < x < width and 0 < y < height for x, y in points)
    # The training loss falls, so on the page (where y grows downwards) its line goes down.
    ys = [float(p.split(",")[1]) for p in lines[0].attrib["points"].split()]
    assert ys == sorted(ys)
    assert "<unigram> 6.10" in [text.text for text in picture.findall(f"{space}text")]
