"""`atlaskit app`: the explorer as an app of its own, without a notebook around it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from atlaskit.show import Desk

TEXT = "When the rain stopped, the gardener opened the gate. The gardener had waited all day, and so had the gate."
# Voilà's page for JupyterLab's widgets asks a CDN for an icon font, which nothing here uses: it gets an empty sheet.
# It is light, whatever the reader's system is: here, JupyterLab's dark colours outweigh its light ones.
TEMPLATE = """{% extends 'voila/templates/lab/index.html.j2' %}
{% block notebook_css %}{{ super() | replace("https://cdn.jsdelivr.net/", "data:text/css,") }}
{% set dark %}{% include 'nbconvert/templates/lab/static/theme-dark.css' %}{% endset %}
<style media="(prefers-color-scheme: dark)">{{ dark | replace(":root", ":root:root") }}</style>
<style>
body.jp-Notebook, #main #rendered_cells { background: var(--jp-layout-color0); color: var(--jp-ui-font-color0); }
h1 { font: 600 20px/1.3 sans-serif; margin: 0 8px 8px; }
</style>{% endblock %}
{% block body_header %}{{ super() }}<h1>Attention explorer</h1>{% endblock %}
"""
CELL = "from atlaskit.cli.app import desk\ndesk({model!r}, {text!r}, {max_tokens!r})"


def desk(model: str | None, text: str, max_tokens: int) -> Desk:
    """What the app's one cell shows: a desk that has begun to read."""
    from atlaskit import models, show
    from atlaskit.cli.explore import measures

    names = list(models.available())
    if model is not None:
        names = [model, *(name for name in names if name != model)]

    def read(name: str, words: str) -> Any:
        loaded = models.load(name)
        see = models.capture if loaded.proof.outside else models.reread
        return see(loaded, words, max_tokens=max_tokens)

    def cause(name: str, words: str) -> Any:
        return models.layer_effects(models.load(name), words, max_tokens=max_tokens)

    asked = show.Desk(read, names, text=text, measures=measures(), cause=cause)
    asked.begin()
    return asked


@click.command()
@click.argument("model", required=False)
@click.option("--text", default=TEXT, help="The text to begin with.")
@click.option("--max-tokens", type=click.IntRange(min=2), default=2048, show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8866, show_default=True)
@click.option("--browser/--no-browser", default=True, help="Open it in a browser.")
def app(model: str | None, text: str, max_tokens: int, **options: Any) -> None:
    """Open the explorer as an app on this machine: choose a model, type a text, look. Ctrl-C ends it.

    MODEL is a bundled name, a folder, or a hub id; the app can open others too.
    """
    try:
        from voila.app import Voila
    except ImportError as error:
        raise click.ClickException("the app needs Voilà: pip install 'atlaskit[app]'") from error
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook, template = Path(folder) / "atlaskit.ipynb", Path(folder) / "voila/templates/atlaskit"
        template.mkdir(parents=True)
        (template / "index.html.j2").write_text(TEMPLATE, encoding="utf-8")
        (template / "conf.json").write_text(json.dumps({"base_template": "lab"}), encoding="utf-8")
        # where Jupyter looks for templates besides its own folders
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        cell = nbformat.v4.new_code_cell(CELL.format(model=model, text=text, max_tokens=max_tokens))
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), notebook)
        asked = [
            str(notebook),
            "--template=atlaskit",
            "--Voila.ip=127.0.0.1",
            f"--port={options['port']}",
            "--show_tracebacks=True",
        ]
        Voila.launch_instance(argv=asked + ([] if options["browser"] else ["--no-browser"]))
