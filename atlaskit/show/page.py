"""Figures into pages: a notebook's output, or a file that needs neither kernel nor network."""

from __future__ import annotations

import html as markup
import json
import secrets
import sys
from pathlib import Path

from bokeh.embed import json_item
from bokeh.io import output_notebook
from bokeh.models import LayoutDOM, Title
from bokeh.resources import Resources
from IPython.core.getipython import get_ipython
from IPython.display import display

from atlaskit.show import numbers, theme
from atlaskit.show.strip import Markup

SHIM = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")

PAGE_CSS = (
    theme.palette_css(":root")
    + """:root { color-scheme: light dark; }
body { background: var(--ak-paper); color: var(--ak-ink); font: 15px/1.5 sans-serif; margin: 1.5em; }
main > * { margin: 0 0 2em; } figure { margin: 0; overflow-x: auto; }
.ak-numbers { font-size: 13px; } .ak-numbers td, .ak-numbers th { text-align: left; padding: 1px 14px 1px 0; }"""
)

# The text in the middle is what remains where scripts may not run, as in a notebook that is not trusted.
FIGURE = """<figure role="group" aria-label="{label}" style="margin: 0"><div id="{place}">{instead}</div><script>
(() => {{
  const item = {item}, place = document.getElementById("{place}");
  let tries = 0;
  const draw = () => {{
    if (window.Bokeh) {{ place.textContent = ""; Bokeh.embed.embed_item(item, "{place}"); }}
    else if (tries++ < 200) setTimeout(draw, 50);
    else place.textContent = "BokehJS is not on this page: run atlaskit.show.load_notebook() first.";
  }};
  draw();
}})();
</script>{table}</figure>"""


def _resources() -> Resources:
    # Inline: nothing is fetched. Two components are 1.7 MB, all of BokehJS would be 4.
    return Resources(mode="inline", components=["bokeh", "bokeh-widgets"])


def _script_of_its_own() -> str:
    """Colab shows every output in a page of its own, which has to load BokehJS itself; Colab is never offline."""
    if "google.colab" not in sys.modules:
        return ""
    online = Resources(mode="cdn", components=["bokeh", "bokeh-widgets"])
    return f"{online.render()}<script>{SHIM}</script>"


def _text_of(figure: LayoutDOM) -> str:
    # Bokeh gives them in no order; a title is made before its caption, and ids count up.
    titles = sorted(figure.select({"type": Title}), key=lambda title: (len(title.id), title.id))
    return " ".join(str(title.text).replace("\n", " ") for title in titles if title.text) or "Figure"


def _embed(figure: LayoutDOM) -> str:
    place = f"ak-{secrets.token_hex(8)}"  # not the model's id: a saved output would clash with a new kernel's
    # Escaped so that no token can end the script element.
    item = json.dumps(json_item(figure, place)).replace("<", "\\u003c")
    label = markup.escape(_text_of(figure))
    instead = f"Figure: {label} (drawn by a script: trust this notebook, or run the cell)"
    return FIGURE.format(label=label, place=place, instead=instead, item=item, table=numbers.details(figure))


def html(*figures: LayoutDOM | Markup, title: str = "atlaskit") -> str:
    """One page with these figures and everything they need: it opens from disk, offline, light or dark."""
    parts = "\n".join(figure if isinstance(figure, Markup) else _embed(figure) for figure in figures)
    scripts = "" if all(isinstance(figure, Markup) for figure in figures) else _resources().render()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{markup.escape(title)}</title><style>{PAGE_CSS}</style>
{scripts}</head><body><script>{SHIM}</script><main>
{parts}
</main></body></html>
"""


def load_notebook() -> None:
    """Put BokehJS into this notebook, once, before the first figure. Nothing is fetched from the network."""
    _in_notebook("load_notebook()")
    output_notebook(resources=_resources(), hide_banner=True)
    display({"application/javascript": SHIM, "text/plain": ""}, raw=True)


def draw(*figures: LayoutDOM | Markup) -> None:
    """Show figures under this cell. They stay in the saved notebook and in the HTML made from it."""
    _in_notebook("draw(…)")
    for figure in figures:
        text = figure if isinstance(figure, Markup) else _script_of_its_own() + _embed(figure)
        plain = "token strip" if isinstance(figure, Markup) else _text_of(figure)
        display({"text/html": text, "text/plain": plain}, raw=True)


def _in_notebook(call: str) -> None:
    if get_ipython() is None:
        raise RuntimeError(f"{call} needs a notebook. In a script, write show.html(figure) to a file instead.")
