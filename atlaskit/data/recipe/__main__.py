"""Rebuild the bundled models: ``python -m atlaskit.data.recipe``."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from . import build, present
from .plans import RECIPES


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("models-work"), show_default=True)
@click.option("--only", type=click.Choice([r.name for r in RECIPES]), multiple=True, help="Make these alone.")
def main(work: Path, only: tuple[str, ...]) -> None:
    """Fetch the text, train what is not trained yet, and install each model with its card.

    Can be killed at any time and started again. `torchrun --nproc_per_node 2 -m atlaskit.data.recipe` uses two
    processes.
    """
    texts, versions = build.texts(work)
    corpora = {kind: build.corpus(texts, kind, work) for kind in ("decoder", "encoder")}
    # On a CPU core a compiled step takes little more than half the time.
    compiled = shutil.which("g++") is not None
    for recipe in RECIPES:
        if not only or recipe.name in only:
            text = corpora[recipe.kind]
            click.echo(f"{recipe.name}: {len(text.train):,} training tokens")
            trained = build.fit(recipe, text, work, compiled=compiled)
            present.install_model(recipe, trained, text, test_texts=texts["test"], work=work, versions=versions)


if __name__ == "__main__":
    main()
