"""From trained models to what is shipped: measure each, write its card and figure, record the hashes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from atlaskit import models
from atlaskit.training import Curve

from . import build, evaluate, figure, heads, install, ngrams
from .card import Findings, card, steps_card
from .plans import SEED, Recipe

PROMPTS = {
    "decoder": ("And the king said", "The function returns", "He gave her", "teach: "),
    "encoder": (
        "and the [MASK] of the lord came unto him.",
        "she took off [MASK] coat.",
        "if the file does not [MASK], an exception is raised.",
    ),
}
DESCRIPTIONS = {
    "mini-causal": "a small GPT-2 decoder trained by atlaskit; its card says what its heads do",
    "mini-masked": "a small BERT encoder with its masked-language-model head, trained by atlaskit; see its card",
}


def install_model(
    recipe: Recipe,
    trained: tuple[PreTrainedModel, Curve],
    text: build.Corpus,
    *,
    test_texts: Sequence[str],
    work: Path,
    versions: Mapping[str, str],
) -> None:
    """Write a trained model into the package, with its card, its figure and its hashes; or all of its checkpoints."""
    net, curve = trained
    measure = partial(_write, recipe, curve=curve, text=text, test_texts=test_texts)
    home = install.MODELS / recipe.name
    baselines = evaluate.tables(text.train, vocabulary=net.config.vocab_size)
    if recipe.plan.keep:
        # A series is installed as a whole: checkpoints of an earlier training must not stay among the new ones.
        shutil.rmtree(home, ignore_errors=True)
        series = {
            step: measure(kept, baselines=baselines, folder=home / str(step), talk=step == max(recipe.plan.keep))
            for step, kept in install.kept(recipe, work).items()
        }
        last = series[max(series)]
        page = steps_card(recipe, series, versions)
        names = {f"{recipe.name}/{s}": f"a two-layer decoder after {s:,} steps of training" for s in series}
    else:
        last = measure(net, baselines=baselines, folder=home, talk=True)
        page = card(recipe, last, versions)
        names = {recipe.name: DESCRIPTIONS[recipe.name]}
    (home / "README.md").write_text(page)
    lines = {name: score.loss for name, score in last.scores.items() if name != "model"}
    (home / "curve.svg").write_text(figure.loss_curve(curve, lines))
    install.record(install.MODELS, names)


def _write(
    recipe: Recipe,
    net: PreTrainedModel,
    *,
    curve: Curve,
    text: build.Corpus,
    test_texts: Sequence[str],
    baselines: Mapping[str, ngrams.NGrams],
    folder: Path,
    talk: bool,
) -> Findings:
    """Write one model and measure what was written, as it will be loaded."""
    n_bytes = install.write_model(folder, net, text.tokenizer)
    model = models.load(folder)
    batches, rows = build.test_batches(recipe, text)
    scores, n_held_out = evaluate.compare(model.net, batches, rows, baselines=baselines)
    plain_ids = torch.nonzero(~build.special(text.tokenizer)).squeeze(-1)
    decoder = recipe.kind == "decoder"
    samples = [
        (prompt, evaluate.continuations(model.net, text.tokenizer, prompt=prompt, seed=SEED))
        if decoder
        else (prompt, [", ".join(f"{w} {p:.0%}" for w, p in evaluate.fillings(model.net, text.tokenizer, text=prompt))])
        for prompt in (PROMPTS[recipe.kind] if talk else ())
    ]
    spread = test_texts[:: max(1, len(test_texts) // 48)]
    return Findings(
        n_parameters=sum(p.numel() for p in model.net.parameters()),
        n_bytes=n_bytes,
        n_train=len(text.train),
        n_held_out=n_held_out,
        tokens_seen=curve.tokens,
        scores=scores,
        roles=heads.roles(model, spread, plain_ids, seed=SEED),
        copying=evaluate.copying(model.net, plain_ids, half=64, seed=SEED) if decoder else None,
        samples=samples,
    )
