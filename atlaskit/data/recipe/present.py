"""From trained models to what is shipped: measure each, write its card and figure, record the hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from atlaskit import models
from atlaskit.training import Curve

from . import build, evaluate, figure, heads, install
from .card import Findings, card, steps_card
from .plans import RECIPES, SEED, Recipe

PROMPTS = {
    "decoder": ("And the king said", "The function returns", "He gave her", "teach: "),
    "encoder": (
        "and the [MASK] of the lord came unto him.",
        "she took off [MASK] coat.",
        "if the file does not [MASK], an exception is raised.",
    ),
}
DESCRIPTIONS = {
    "mini-causal": "a small GPT-2 decoder with previous-token and induction heads, trained by atlaskit",
    "mini-masked": "a small BERT encoder with its masked-language-model head, trained by atlaskit",
}


def install_all(
    trained: Mapping[str, tuple[PreTrainedModel, Curve]],
    corpora: Mapping[str, build.Corpus],
    test_texts: Sequence[str],
    *,
    work: Path,
    versions: Mapping[str, str],
) -> None:
    """Write every trained model into the package, with its card, and the manifest of all."""
    names: dict[str, str] = {}
    for recipe in RECIPES:
        model, curve = trained[recipe.name]
        text = corpora[recipe.kind]
        if recipe.plan.keep:
            found = {
                step: _write(recipe, kept, curve, text, test_texts, folder=install.MODELS / recipe.name / str(step))
                for step, kept in install.kept(recipe, work).items()
            }
            page = steps_card(recipe, found, versions)
            names |= {f"{recipe.name}/{s}": f"a two-layer decoder after {s:,} steps of training" for s in found}
            last = found[max(found)]
        else:
            last = _write(recipe, model, curve, text, test_texts, folder=install.MODELS / recipe.name)
            page = card(recipe, last, versions)
            names[recipe.name] = DESCRIPTIONS[recipe.name]
        folder = install.MODELS / recipe.name
        (folder / "README.md").write_text(page)
        baselines = {name: score.loss for name, score in last.scores.items() if name != "model"}
        (folder / "curve.svg").write_text(figure.loss_curve(curve, baselines))
    install.write_manifest(install.MODELS, names)


def _write(
    recipe: Recipe,
    net: PreTrainedModel,
    curve: Curve,
    text: build.Corpus,
    test_texts: Sequence[str],
    *,
    folder: Path,
) -> Findings:
    """Write one model and measure what was written, as it will be loaded."""
    n_bytes = install.write_model(folder, net, text.tokenizer)
    model = models.load(folder)
    batches, rows = build.test_batches(recipe, text)
    scores, n_held_out = evaluate.compare(model.net, batches, rows, text=text.train)
    plain_ids = torch.nonzero(~build.special(text.tokenizer)).squeeze(-1)
    decoder = recipe.kind == "decoder"
    samples = [
        (prompt, evaluate.continuations(model.net, text.tokenizer, prompt=prompt, seed=SEED))
        if decoder
        else (prompt, [", ".join(f"{w} {p:.0%}" for w, p in evaluate.fillings(model.net, text.tokenizer, text=prompt))])
        for prompt in PROMPTS[recipe.kind]
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
