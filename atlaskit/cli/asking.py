"""What commands that look at models share: which texts, which heads, where to, and how a refusal sounds."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import click
from torch import Tensor

from atlaskit import models, runs
from atlaskit.records import Capture

REFUSALS: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, MemoryError)
RATE = 0.05
"""Of false discoveries."""

PICTURES_FAILED = 3
"""Exit code: the results are on disk, a picture of them is not."""


class Numbers(click.ParamType):
    """Numbers from zero with ranges, such as 0,2-4."""

    name = "0,2-4"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers named, each once, in order."""
        found: set[int] = set()
        for part in value.split(","):
            match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
            if match is None or int(match[2] or match[1]) < int(match[1]):
                self.fail(f"{value!r} is not a list of numbers from zero, such as 0,2-4", param, ctx)
            found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
        return tuple(sorted(found))


class Orders(click.ParamType):
    """The q of D_q, such as 0.5,1,2."""

    name = "0.5,1,2"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """The orders as floats, each once."""
        try:
            found = tuple(dict.fromkeys(float(part) for part in value.split(",")))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers, such as 0.5,1,2", param, ctx)
        if not all(abs(order) < float("inf") for order in found):
            self.fail(f"{value!r} holds an order that is not finite", param, ctx)
        return found


Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

OPTIONS: tuple[Decorator, ...] = (
    click.option("--text", "texts", multiple=True, help="A text; may be repeated."),
    click.option(
        "--file", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        help="A file with a text, - for what is piped in; may be repeated.",
    ),
    click.option("--lines", is_flag=True, help="Every line of a file is a text of its own."),
    click.option("--max-tokens", type=click.IntRange(min=2), help="Read no more than this of each text."),
    click.option("--layers", type=Numbers(), help="Layers, from zero; all by default."),
    click.option("--heads", type=Numbers(), help="Heads, from zero; all by default."),
    click.option("--q", "orders", type=Orders(), default="0.5,1,2", show_default=True, help="The q of D_q."),
    click.option(
        "--dtype", type=click.Choice(["float32", "float16", "bfloat16", "float64", "auto"]), default="float32",
        show_default=True, help="What the model computes in; auto is the checkpoint's own.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …"),
    click.option("--seed", type=int, default=0, show_default=True, help="Of surrogates and intervals."),
    click.option(
        "-o", "--output", "outputs", multiple=True, type=click.Path(dir_okay=False, path_type=Path),
        help="A file to write: .npz (loses nothing), .json, .csv, .parquet or .html; may be repeated.",
    ),
    click.option("--quiet", is_flag=True, help="Print nothing but errors."),
)  # fmt: skip


def asks(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that looks at models through texts."""
    for option in OPTIONS[::-1]:
        command = option(command)
    return command


def the_texts(texts: Sequence[str], files: Sequence[str], *, lines: bool) -> list[str]:
    """The documents that were given, or a usage error; without any, what is piped in."""
    found = list(texts)
    if not texts and not files:
        if sys.stdin.isatty():
            raise click.UsageError("there is no text: give --text TEXT or --file FILE, or pipe one in")
        files = ["-"]
    for name in files:
        try:
            content = (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise click.UsageError(f"{name} is not text in UTF-8 ({error.reason} at byte {error.start})") from error
        except OSError as error:
            raise click.UsageError(f"{name} cannot be read: {error.strerror}") from error
        found += [line for line in content.splitlines() if line.strip()] if lines else [content.strip()]
    for i, text in enumerate(found):
        if not text.strip():
            raise click.UsageError(f"text {i} is empty")
    if not found:
        raise click.UsageError("there is no line with a text in it")
    return found


def load(name: str, revision: str | None, options: Mapping[str, Any]) -> models.Model:
    """The model, in the words of a person where it cannot be had."""
    with in_words(f"{name} could not be loaded", TypeError, AssertionError):  # torch asserts that there is a GPU
        model = models.load(name, revision=revision, device=options["device"], dtype=options["dtype"])
    if model.is_encoder_decoder:
        raise click.UsageError(
            f"{name} reads one text and writes another; in Python: models.capture(model, text, source=…)"
        )
    return model


def chosen(model: models.Model, options: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Layers and heads that were asked for, all by default; a usage error for what the model does not have."""
    there = {"layers": sorted({site.layer for site in model.sites}), "heads": list(range(model.geometry.n_head))}
    for name, known in there.items():
        if missing := [number for number in options[name] or known if number not in known]:
            raise click.UsageError(f"{model.name} has {name} {known[0]} to {known[-1]}; there is no {missing[0]}")
    return tuple(options["layers"] or there["layers"]), tuple(options["heads"] or there["heads"])


def only(seen: Capture, chosen: tuple[Sequence[int], Sequence[int]]) -> list[tuple[Tensor, Tensor]]:
    """Pattern and support of the layers that were chosen, with the heads that were."""
    layers, heads = chosen
    return [
        (one.pattern[[head for head in heads if head < len(one.pattern)]], one.support)
        for one in seen.layers
        if one.layer in layers
    ]


def parameters(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide a number, as a result keeps them."""
    asked = {name: value for name, value in options.items() if name not in ("lines", "outputs", "quiet")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}


def source_of(model: models.Model, documents: Sequence[str], options: Mapping[str, Any]) -> runs.Source:
    """Where a result comes from: the model with its hash, and the texts as its tokenizer cut them."""
    tokens = []
    for i, document in enumerate(documents):
        try:
            tokens.append(model.tokens(document, max_tokens=options["max_tokens"]))
        except ValueError as error:
            raise click.UsageError(f"text {i}: {error}") from error
    return runs.Source(model.name, model.revision, models.fingerprint(model), tuple(tokens))


def check_outputs(outputs: Sequence[Path]) -> None:
    """Make their folders, and refuse what could not be written before any work is done."""
    for path in outputs:
        try:
            if path.suffix != ".html":
                runs.check_format(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.tried")
            beside.touch()
            beside.unlink()
        except ValueError as error:
            raise click.UsageError(f"{error}, .html") from error
        except ImportError as error:
            raise click.UsageError(str(error)) from error
        except OSError as error:
            raise click.UsageError(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def in_words(doing: str, *also: type[Exception]) -> Iterator[None]:
    """A refusal of the rooms as one line on stderr and exit code 1, without a traceback."""
    try:
        yield
    except (*REFUSALS, *also) as error:
        raise click.ClickException(f"{doing}: {error or type(error).__name__}") from error
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        raise click.exceptions.Exit(130) from None


@contextmanager
def noting(notes: list[str], *, quiet: bool) -> Iterator[None]:
    """Warnings become notes, each once: they travel with the result and are told on stderr."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(one.message) for one in heard if issubclass(one.category, UserWarning)):
        remark(notes, message, quiet=quiet)


def remark(notes: list[str], message: str, *, quiet: bool) -> None:
    """Add a note, and say it on stderr."""
    notes.append(message)
    if not quiet:
        click.echo(f"note: {message}", err=True)


def too_few_texts(n: int) -> list[str]:
    """Why a comparison text by text can come to nothing: p counts the ways to deal signs, 2 of 2ⁿ at best."""
    if n == 1:
        return ["one text gives no interval, and no p over texts; give more, such as a --file with --lines"]
    if 2.0 ** (1 - n) > RATE:
        return [f"p over {n} texts is about {2.0 ** (1 - n):.2g} at best, so no head can differ; give six or more"]
    return []


def write(result: runs.Result, outputs: Sequence[Path], page: Callable[[runs.Result], str], *, quiet: bool) -> None:
    """All results first, then the pictures; a picture that fails costs nothing but itself, and exit code 3."""
    for path in sorted(outputs, key=lambda path: path.suffix == ".html"):
        if path.suffix == ".html":
            try:
                path.write_text(page(result), encoding="utf-8")
            except Exception as error:  # whatever a figure stumbles over: what was measured is already safe
                click.echo(f"Error: the picture {path} failed ({error}); the results are written", err=True)
                raise click.exceptions.Exit(PICTURES_FAILED) from error
        else:
            with in_words(f"writing {path}"):
                runs.export(result, path)
        if not quiet:
            click.echo(f"wrote {path}", err=True)
