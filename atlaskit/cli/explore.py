"""`atlaskit explore`: one text's attention as a page that anyone can open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from atlaskit.show.overview import Measures


@click.command()
@click.argument("model")
@click.option("--text", help="The text. For an encoder–decoder: what it writes.")
@click.option("--file", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file with it.")
@click.option("--source", help="What an encoder–decoder reads.")
@click.option("--kind", type=click.Choice(["encoder", "decoder", "cross"]), help="Which attention.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="atlas.html", show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=2), default=1024, show_default=True)
@click.option("--words/--tokens", default=False, help="Units of the picture.")
@click.option("--sinks/--no-sinks", default=True, help="Keep the first and special tokens, or leave them out.")
def explore(model: str, out: Path, **options: Any) -> None:
    """Write the attention of MODEL on a text as one page: no kernel, no network, every control answers.

    MODEL is a bundled name, a folder, or a hub id. OUT may also end in .png, .svg, .csv or .parquet.
    """
    text = _text(options["text"], options["path"])
    from atlaskit import models, show  # here, because models brings all of transformers

    try:
        loaded = models.load(model)
        asked = {"source": options["source"], "max_tokens": options["max_tokens"]}
        if loaded.proof.outside:
            explorer = show.Explorer(models.capture(loaded, text, **asked), measures=measures(), kind=options["kind"])
        else:
            explorer = show.Explorer(models.reread(loaded, text, kind=options["kind"], **asked), measures=measures())
        explorer.choose(words=options["words"], sinks=options["sinks"])
        written = show.export(explorer, out)
    except (ValueError, OSError, RuntimeError, TypeError, MemoryError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{written.resolve()} ({written.stat().st_size / 1e6:.2f} MB)")


def measures() -> Measures:
    """What is said of every head, by this command and by the app."""
    from atlaskit import measure

    return {
        "entropy": (measure.entropy, "bits"),
        "largest weight": (measure.max_weight, "weight"),
        "mean distance": (measure.mean_distance, "tokens"),
        "previous token": (measure.mass_on(measure.previous_token), "mass"),
        "first token": (measure.mass_on(measure.first_token), "mass"),
        "induction": (measure.mass_on(measure.induction), "mass"),
    }


def _text(text: str | None, path: Path | None) -> str:
    if (text is None) == (path is None):
        raise click.UsageError("give the text as --text TEXT or as --file PATH, one of the two")
    return path.read_text(encoding="utf-8") if path is not None else str(text)
