"""Rebuild the bundled models: ``python -m atlaskit.data.recipe``."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from . import build
from .plans import RECIPES


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("models-work"), show_default=True)
@click.option("--only", type=click.Choice([r.name for r in RECIPES]), multiple=True, help="Train these alone.")
def main(work: Path, only: tuple[str, ...]) -> None:
    """Fetch the text, train what is not trained yet, install the models with their cards."""
    texts, versions = build.texts(work)
    build.write_settings(work, versions)
    for recipe in RECIPES:
        if not only or recipe.name in only:
            text = build.corpus(texts, recipe.kind)
            click.echo(f"{recipe.name}: {len(text.train):,} training tokens")
            # On two CPU cores a compiled step takes little more than half the time.
            build.fit(recipe, text, work, compiled=shutil.which("g++") is not None)


if __name__ == "__main__":
    main()
