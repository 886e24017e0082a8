"""The model cards: every number in them is handed over by a measurement, none is typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

from .evaluate import Score
from .heads import INDUCTION, Role
from .packages import SOURCES
from .plans import CONTEXT, MASK_RATE, RANDOM_ROWS, ROWS, SHORT_STEPS, VOCABULARY, Recipe


@dataclass(frozen=True)
class Findings:
    """What was measured on one trained model."""

    n_parameters: int
    n_bytes: int
    n_train: int
    n_held_out: int
    tokens_seen: int
    scores: Mapping[str, Score]
    roles: Sequence[Role]
    copying: tuple[float, float] | None
    samples: Sequence[tuple[str, Sequence[str]]]


def card(recipe: Recipe, found: Findings, versions: Mapping[str, str]) -> str:
    """The README.md of a model's folder."""
    parts = [_head(recipe, found), _data(found, versions), _training(recipe, found), _loss(recipe, found)]
    parts += [_roles(found), _reached(found), _samples(recipe, found), LIMITS]
    return "\n\n".join(parts) + "\n"


def steps_card(recipe: Recipe, found: Mapping[int, Findings], versions: Mapping[str, str]) -> str:
    """The README.md of a series of checkpoints of one training."""
    last = found[max(found)]
    parts = [_head(recipe, last), _series(recipe, found), _data(last, versions), _training(recipe, last)]
    parts += [_loss(recipe, last), _roles(last), _reached(last), _samples(recipe, last), LIMITS]
    return "\n\n".join(parts) + "\n"


def _series(recipe: Recipe, found: Mapping[int, Findings]) -> str:
    rows = []
    for step, f in found.items():
        best = {role.name: role.mass.value for role in f.roles}
        first, second = f.copying or (float("nan"), float("nan"))
        rows.append(
            f"| `{recipe.name}/{step}` | {f.scores['model'].loss:.2f} | {best['previous token']:.2f} "
            f"| {best[INDUCTION]:.2f} | {best['first token']:.2f} | {first - second:.2f} |"
        )
    chance = {role.name: role.mass for role in found[max(found)].roles}
    null = [(chance[n].null_low + chance[n].null_high) / 2 for n in ("previous token", INDUCTION, "first token")]
    return f"""## The checkpoints

The same training at {len(found)} moments, so that one can see what forms and what does not. Loss on the test text in
nats; the largest share of attention that any head puts on the previous token, on the induction target (random tokens
said twice) and on the first token; and by how much the loss is lower in the second half of random tokens said twice.

| name | test loss | previous token | induction | first token | copying gain |
|---|---|---|---|---|---|
{chr(10).join(rows)}
| an ignorant head | | {null[0]:.2f} | {null[1]:.2f} | {null[2]:.2f} | 0 |

What follows is about the last of them."""


LIMITS = """## What it must not be used for

It is made to be looked into, not to be used. It knows a Bible translation of 1611, a dictionary and a programming
manual, and nothing else: no facts, no advice, no text for readers, no decisions about people may come from it. What it
says about women, men, peoples and faiths is what a seventeenth-century translation and an old dictionary say. Findings
on it say how attention *can* work in a small transformer, not how it works in large ones.

## Licence

The weights and this card are under the MIT licence, like the package. The text is not part of the package."""


def _head(recipe: Recipe, found: Findings) -> str:
    kind = (
        "GPT-2 architecture, predicts the next token" if recipe.kind == "decoder" else "BERT architecture, fills [MASK]"
    )
    pieces = "byte-level BPE" if recipe.kind == "decoder" else "WordPiece, lower case"
    return f"""# {recipe.name}

A small {recipe.kind} ({kind}), trained from nothing by atlaskit's own recipe
(`python -m atlaskit.data.recipe`) so that attention can be studied without a network.

| | |
|---|---|
| layers × heads | {recipe.layers} × {recipe.heads} |
| width | {recipe.width} ({recipe.width // recipe.heads} a head) |
| context | {CONTEXT} tokens |
| vocabulary | {VOCABULARY[recipe.kind]:,} ({pieces}) |
| parameters | {found.n_parameters:,} |
| weights | float16 safetensors, {found.n_bytes / 1e6:.1f} MB |"""


def _data(found: Findings, versions: Mapping[str, str]) -> str:
    rows = [f"| {s.package} {versions[s.package]} | {s.what} | {s.licence} |" for s in SOURCES if s.text]
    return f"""## Text

Debian packages, fetched when the model was trained and not shipped with it:

| package | text | licence |
|---|---|---|
{chr(10).join(rows)}

{found.n_train:,} tokens to train on; documents (chapters, pages, runs of 40 dictionary entries) were put into
training, validation or test by a hash of their name. Dictionary entries that WordNet itself marks as slurs or as vulgar
were left out."""


def _training(recipe: Recipe, found: Findings) -> str:
    plan = recipe.plan
    rows = (
        f"Of each step's {ROWS} rows {RANDOM_ROWS} are random tokens, from alphabets small and large, that repeat with "
        "a random period (their first round is not learned from), and one is text with a passage pasted again further "
        "on: text alone may not teach copying in a run this short."
        if recipe.kind == "decoder"
        else f"{MASK_RATE:.0%} of the tokens are hidden. In one row of eight a passage is pasted again further on. "
        f"For the first {SHORT_STEPS:,} steps rows have {CONTEXT // 16} tokens, then {CONTEXT}, {CONTEXT // 4} and "
        f"{CONTEXT // 16} in turn, each somewhere in the context."
    )
    # queries, keys and values lie in one matrix there, and Muon would move the values almost alone
    but = f" but {', '.join(plan.adamw)}" if recipe.kind == "decoder" else ""
    run = (
        f"{plan.steps:,} steps of {ROWS * CONTEXT:,} tokens ({found.tokens_seen / 1e6:.1f} million tokens seen). Muon "
        f"for the matrices inside the layers{but}, AdamW for the rest; peak rate {plan.learning_rate:g}, {plan.warmup} "
        f"steps of warmup, {plan.hold} at the peak, then half a cosine; gradient norm clipped at {plan.clip:g}, no "
        "dropout, bfloat16. Position vectors start as sinusoids and are trained on; no head is set by hand."
    )
    return "\n\n".join(["## Training", fill(run, 118), fill(rows, 118), "![Loss over the training run](curve.svg)"])


def _loss(recipe: Recipe, found: Findings) -> str:
    task = "next token" if recipe.kind == "decoder" else "hidden token"
    rows = "\n".join(
        f"| {name if name == 'model' else name + ', interpolated Kneser–Ney' if name != 'unigram' else name} "
        f"| {s.loss:.3f} ± {s.error:.3f} | {'' if s.accuracy != s.accuracy else f'{s.accuracy:.1%}'} |"
        for name, s in found.scores.items()
    )
    ahead = found.scores["trigram"].loss - found.scores["model"].loss
    sees = "" if recipe.kind == "decoder" else " The baselines see the true words to the left, also hidden ones."
    said = "below" if ahead > 0 else "above"
    return f"""## How well it predicts

Loss on the {task}, nats per token, on {found.n_held_out:,} tokens of the test documents (± standard error over rows of
{CONTEXT} tokens), beside counts of the same training text on exactly these tokens.{sees}

| | loss | guessed right |
|---|---|---|
{rows}

The model is {abs(ahead):.2f} nats {said} the trigram."""


def _roles(found: Findings) -> str:
    rows = "\n".join(
        f"| {r.name} | {r.head[0]}.{r.head[1]} | {r.mass.value:.2f} [{r.mass.low:.2f}, {r.mass.high:.2f}] "
        f"| {r.mass.null_low:.3f} to {r.mass.null_high:.3f} | {r.mass.n} |"
        for r in found.roles
    )
    copied = ""
    if found.copying is not None:
        first, second = found.copying
        copied = (
            f"\n\nOn random tokens said twice the loss is {first:.2f} nats in the first half and {second:.2f} in the "
            f"second: {first - second:.2f} nats lower."
        )
    return f"""## What its heads do

For each role the head (layer.head, from zero) that puts most attention on it, chosen on half of the test texts and
measured on the other half; with the 95 % interval over texts, beside the same measure of an ignorant head that spreads
its attention evenly.

| attends to | head | share of attention | an ignorant head | texts |
|---|---|---|---|---|
{rows}{copied}"""


def _reached(found: Findings) -> str:
    """The aims of the bundled models, each with whether the numbers above meet it."""
    mass = {role.name: role.mass.value for role in found.roles}
    loss = {name: score.loss for name, score in found.scores.items()}
    aims = [("a head with more than half of its attention on the previous token", mass["previous token"] > 0.5)]
    if found.copying is not None:
        aims += [
            ("a head with more than 0.3 of its attention on the induction target", mass[INDUCTION] > 0.3),
            (
                "random tokens said twice at least 1 nat cheaper the second time",
                found.copying[0] - found.copying[1] >= 1,
            ),
            ("a loss at least 0.1 nats below the trigram's", loss["trigram"] - loss["model"] >= 0.1),
        ]
    else:
        aims.append(
            ("hidden words guessed at least 1 nat better than by a unigram", loss["unigram"] - loss["model"] >= 1)
        )
    rows = "\n".join(f"| {aim} | {'reached' if met else '**not reached**'} |" for aim, met in aims)
    return f"""## What the training was to reach

| aim | |
|---|---|
{rows}"""


def _samples(recipe: Recipe, found: Findings) -> str:
    if recipe.kind == "decoder":
        intro = "The likeliest continuation first, then two drawn at temperature 0.8 from the 40 likeliest tokens:"
    else:
        intro = "The five likeliest words for the hidden one, with their probabilities:"
    blocks = []
    for prompt, texts in found.samples:
        lines = "\n".join("> " + " ".join(text.split()) + "\n>" for text in texts)
        blocks.append(f"`{prompt}`\n\n{lines.rstrip('>').rstrip()}")
    return f"## What it says\n\n{intro}\n\n" + "\n\n".join(blocks)
