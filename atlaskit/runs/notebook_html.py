"""An executed notebook as one HTML file that asks nobody for anything: no script, font or formula from outside."""

from __future__ import annotations

import html
import re
from typing import Any

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r".*\d%\|.*\| \S+/\S+ \[")
PICTURES = {"text/html", "image/png", "image/svg+xml", "application/javascript"}

PAGE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_css -%}
<meta name="color-scheme" content="light dark">
<style media="(prefers-color-scheme: dark)">
{{ resources.include_css('static/theme-dark.css') | striptags }}
</style>
<style>
body.jp-Notebook { max-width: 68rem; margin: 0 auto; padding: 2rem 1rem 6rem; background: var(--jp-layout-color0); }
.jp-RenderedHTMLCommon { line-height: 1.6; }
.jp-RenderedHTMLCommon math { font-size: 1.1em; }
/* as JupyterLab has them, but with the contrast that WCAG AA asks for */
body { --jp-mirror-editor-operator-color: #8a10e0; --jp-mirror-editor-number-color: #007000;
  --jp-mirror-editor-comment-color: #2f6b6b; }
@media (prefers-color-scheme: dark) { body { --jp-mirror-editor-operator-color: #cf8fff;
  --jp-mirror-editor-number-color: #66bb6a; --jp-mirror-editor-comment-color: #7ab8b8; } }
.jp-InputArea-prompt, .jp-OutputArea-prompt { color: var(--jp-ui-font-color1) !important; opacity: 1 !important; }
.atlaskit-live { color: var(--jp-ui-font-color2); font-style: italic; }
</style>
{%- endblock -%}
"""
"""JupyterLab's own look, its light colours or its dark ones as the reader's system asks."""


class OfflineExporter(HTMLExporter):
    """nbconvert's HTML without require.js, MathJax, mermaid or the widget manager; formulas become MathML."""

    raw_template = PAGE

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Render one markdown cell."""
        attachments = context.get("cell", {}).get("attachments", {})
        return MarkdownWithMath(renderer=_MathRenderer(escape=False, attachments=attachments)).render(source)


class _MathRenderer(IPythonRenderer):
    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return _mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


def to_html(notebook: NotebookNode, title: str) -> str:
    """The whole page, as text."""
    pages = OfflineExporter(template_name="lab")
    text, _ = pages.from_notebook_node(_without_live_views(notebook), {"metadata": {"name": title}})
    return text


def _without_live_views(notebook: NotebookNode) -> NotebookNode:
    """A copy in which what needs a kernel says so, where no picture stands in for it."""
    still = NotebookNode(**notebook)
    still.metadata = NotebookNode({key: value for key, value in notebook.metadata.items() if key != "widgets"})
    still.cells = [_still(cell) for cell in notebook.cells]
    return still


def _still(cell: NotebookNode) -> NotebookNode:
    if cell.cell_type != "code":
        return cell
    cell = NotebookNode(**cell)
    lasting = [output for output in cell.outputs if not _is_progress(output)]
    cell.outputs = [_stand_in(output) if WIDGET in output.get("data", {}) else output for output in lasting]
    return cell


def _is_progress(output: NotebookNode) -> bool:
    """A bar of tqdm: it had its meaning while the notebook ran."""
    data = output.get("data", {})
    return WIDGET in data and BAR.match(data.get("text/plain", "")) is not None


def _stand_in(output: NotebookNode) -> NotebookNode:
    data = {kind: content for kind, content in output.data.items() if kind != WIDGET}
    if not PICTURES & set(data):
        data = {"text/html": '<p class="atlaskit-live">A live control stands here in JupyterLab.</p>'}
    return NotebookNode(output | {"data": NotebookNode(data)})


def _mathml(tex: str, display: str) -> str:
    try:
        return convert(tex.strip(), display=display)
    except Exception:  # the converter's errors share no base class; a formula it cannot read is shown as written
        return f"<code>{html.escape(tex)}</code>"
