"""Rebuild the bundled models: ``python -m atlaskit.data.recipe``."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from . import build, present
from .plans import RECIPES


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("models-work"), show_default=True)
@click.option("--only", type=click.Choice([r.name for r in RECIPES]), multiple=True, help="Train these; install none.")
def main(work: Path, only: tuple[str, ...]) -> None:
    """Fetch the text, train what is not trained yet, then install all models with their cards.

    Can be killed at any time and started again. `accelerate launch -m atlaskit.data.recipe` uses several processes.
    """
    texts, versions = build.texts(work)
    corpora = {kind: build.corpus(texts, kind) for kind in ("decoder", "encoder")}
    # On a CPU core a compiled step takes little more than half the time.
    compiled = shutil.which("g++") is not None
    trained = {}
    for recipe in RECIPES:
        if not only or recipe.name in only:
            click.echo(f"{recipe.name}: {len(corpora[recipe.kind].train):,} training tokens")
            trained[recipe.name] = build.fit(recipe, corpora[recipe.kind], work, compiled=compiled)
    if not only:
        present.install_all(trained, corpora, texts["test"], work=work, versions=versions)


if __name__ == "__main__":
    main()
