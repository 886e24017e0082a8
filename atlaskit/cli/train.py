"""`atlaskit train`: a model with fractal attention, from nothing or from a trained one, into a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from atlaskit import training

TASKS = ("characters", "copy", "needle", "selective-copy", "recall", "listops")
BIASES = ("lag", "dragon", "cantor_depth", "koch", "julia", "mandelbrot")


@click.command()
@click.option("--pattern", default="log_lags", show_default=True, help="A pattern's name, or its spec as JSON.")
@click.option("--bias", type=click.Choice(BIASES), help="A learnable bias for each head; none if left out.")
@click.option("--task", type=click.Choice(TASKS), default="characters", show_default=True)
@click.option("--distance", type=click.IntRange(min=1), help="Tokens back, for copy and needle; else half a row.")
@click.option("--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="UTF-8 text to learn.")
@click.option("--model", help="Convert this trained decoder and train it on, on its own tokens of the text.")
@click.option("--length", type=click.IntRange(min=8), default=64, show_default=True, help="Tokens a row.")
@click.option("--rows", type=click.IntRange(min=1), default=16, show_default=True, help="Rows a step.")
@click.option("--layers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="5e-3, or 3e-4 with --model.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="runs/train", show_default=True)
def train(**options: Any) -> None:
    """Train a small decoder, or a converted one, and say what it can do on rows that it has not seen.

    Started again with the same --out it goes on where it stopped. Several processes, on CPUs or GPUs, share each
    step's rows: torchrun --nproc_per_node 2 -m atlaskit.cli train ...
    """
    from atlaskit import fractal_attention as fa
    from atlaskit import training

    is_main = os.environ.get("RANK", "0") == "0"
    try:
        pattern = fa.from_spec(_spec(options["pattern"]))
        net, task, name = _new(options) if options["model"] is None else _converted(options)
        fa.use_fractal_attention(net, pattern, bias=options["bias"])
        plan = training.Plan(
            options["steps"],
            options["learning_rate"] or (5e-3 if options["model"] is None else 3e-4),
            warmup=options["steps"] // 10,
            checkpoint_every=max(1, options["steps"] // 10),
            evaluate_every=max(1, options["steps"] // 10),
        )
        unseen = task.held_out(8)
        _refuse_other_request(options["out"] / "request.json", options, writes=is_main)
        curve = training.train(
            net.train(), task.batch, plan, seed=options["seed"], folder=options["out"], held_out=unseen
        )
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        raise click.ClickException(str(error)) from error
    if is_main:
        net.save_pretrained(options["out"] / "model")
        right = float(training.accuracy(net, unseen).mean())
        click.echo(f"{name}, {pattern.name}, {fa.keys_per_query(pattern, task.length):.1f} keys a query")
        click.echo(f"unseen rows: loss {curve.held_out[plan.steps]:.3f} nats a token")
        click.echo(f"unseen rows: {right:.3f} of tokens right; a guess that looks at nothing {task.chance:.3f}")
        click.echo(options["out"] / "model")


def _refuse_other_request(file: Path, options: dict[str, Any], *, writes: bool) -> None:
    """A folder belongs to one request: a checkpoint would go on under another pattern without a word."""
    asked = {name: str(value) for name, value in options.items() if name != "out"}
    if file.exists():
        known = json.loads(file.read_text())
        different = [name for name in asked if known.get(name) != asked[name]]
        if different:
            raise ValueError(
                f"{file.parent} holds a training with another {', '.join(different)}; give a new --out, or delete it"
            )
    elif writes:
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(".new")  # the other processes may look at any moment
        whole.write_text(json.dumps(asked, sort_keys=True))
        whole.rename(file)


def _spec(words: str) -> dict[str, Any] | str:
    return json.loads(words) if words.lstrip().startswith("{") else words


def _text(options: dict[str, Any]) -> list[str]:
    from atlaskit import data

    return data.texts() if options["text"] is None else [options["text"].read_text(encoding="utf-8")]


def _new(options: dict[str, Any]) -> tuple[PreTrainedModel, training.Task, str]:
    from atlaskit import training

    task = _task(options)
    return training.small_decoder(task, layers=options["layers"], seed=options["seed"]), task, task.name


def _task(options: dict[str, Any]) -> training.Task:
    from atlaskit import training

    length = options["length"]
    distance = options["distance"] or length // 2
    shared = {"length": length, "rows": options["rows"], "seed": options["seed"]}
    stream, alphabet = training.character_stream(_text(options))
    makers: dict[str, Callable[[], training.Task]] = {
        "characters": lambda: training.language(stream, vocab=len(alphabet), **shared),
        "copy": lambda: training.copy(distance, **shared),
        "needle": lambda: training.needle(distance, **shared),
        "selective-copy": lambda: training.selective_copy(4, **shared),
        "recall": lambda: training.associative_recall(4, keys=8, **shared),
        "listops": lambda: training.list_ops(**shared),
    }
    return makers[options["task"]]()


def _converted(options: dict[str, Any]) -> tuple[PreTrainedModel, training.Task, str]:
    from atlaskit import models, training

    model = models.load(options["model"])
    if model.tokenizer is None:
        raise ValueError(f"{options['model']} has no tokenizer, so there is no text that it could learn from")
    stream = training.token_stream(_text(options), model.tokenizer)
    shared = {"length": options["length"], "rows": options["rows"], "seed": options["seed"]}
    return model.net, training.language(stream, vocab=model.net.config.vocab_size, **shared), options["model"]
