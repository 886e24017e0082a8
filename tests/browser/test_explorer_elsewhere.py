"""The explorer elsewhere: Notebook 7, Voilà, a notebook whose kernel is gone, executed HTML, a cell of Colab."""

import base64
import io
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import types

import nbformat
import numpy as np
import pytest
from accessible import serious
from bokeh.resources import Resources
from explorer_page import SPOKEN
from PIL import Image

from atlaskit import show
from atlaskit.show import page as pages

pytestmark = pytest.mark.browser

CELLS = [
    """from atlaskit import measure, models, show
measures = {"previous token": (measure.mass_on(measure.previous_token), "mass")}
seen = models.capture(models.planted(), "ash bay cat dew elm ash bay cat dew elm")
explorer = show.Explorer(seen, measures=measures)
explorer.choose(layer=0, head=2, token=4)
explorer""",
]
SEEN = """() => [...document.querySelectorAll('img')]
  .filter(one => one.src.startsWith('data:image/png') && one.naturalWidth && one.checkVisibility()).length"""


def notebook_of(*codes):
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return content


def press_right(page):
    """Move to the next head by key, in the map of the measure."""
    maps = page.get_by_label("Map of a measure, layers down, heads across").first
    maps.focus()
    maps.press("ArrowRight")


def test_in_notebook_7_keys_reach_the_kernel(lab, page):
    name = f"{secrets.token_hex(4)}.ipynb"
    nbformat.write(notebook_of(*CELLS), lab["dir"] / name)
    page.goto(f"{lab['url']}/notebooks/{name}?token={lab['token']}")
    page.locator(".jp-NotebookPanel").wait_for()
    page.wait_for_timeout(3000)  # a cell that runs before there is a kernel asks which one
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(SPOKEN, arg="Head 0.2, token 4")
    press_right(page)
    page.wait_for_function(SPOKEN, arg="Head 0.3, token 4")
    assert serious(page, ".ak-explorer") == []
    # Of Notebook 7.6: settings that it misses on every page, an empty one too, and a command that only JupyterLab has
    theirs = ("reading 'schema'", "Command 'filebrowser:open-path' not registered")
    assert [one for one in page.errors if not any(word in one for word in theirs)] == page.outside == []


def test_a_saved_notebook_shows_its_last_picture_when_its_kernel_is_gone(run_in_lab, page, lab):
    assert run_in_lab(CELLS) == []
    page.wait_for_function(SPOKEN, arg="Head 0.2, token 4")
    assert page.evaluate(SEEN) == 0  # the live page does not show everything twice
    press_right(page)
    page.wait_for_function(SPOKEN, arg="Head 0.3, token 4")
    page.wait_for_timeout(2500)  # a moment without a change renews the picture
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    (path,) = [one for one in lab["dir"].glob("*.ipynb") if one.name in page.url]
    outputs = nbformat.read(path, as_version=4).cells[0].outputs
    (saved,) = [one.data for one in outputs if "image/png" in one.get("data", {})]
    assert "head 0.3" in saved["text/plain"]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(saved["image/png"]))))
    # head 0.3 is planted to look for the token after an earlier copy: "ash" again reads "bay"
    assert picture.std() > 10
    page.evaluate("""async () => {
      const panel = window.jupyterapp.shell.currentWidget; await panel.sessionContext.shutdown() }""")
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.wait_for_function(f"({SEEN})() === 1")
    assert page.locator(".ak-explorer canvas").count() == 0


def test_executed_html_shows_the_picture_without_a_kernel_or_a_network(page, tmp_path):
    nbformat.write(notebook_of(*CELLS), tmp_path / "notebook.ipynb")
    convert = [sys.executable, "-m", "nbconvert", "--execute", "--to=html", str(tmp_path / "notebook.ipynb")]
    convert += ["--HTMLExporter.require_js_url=", "--HTMLExporter.mathjax_url=", "--HTMLExporter.widget_renderer_url="]
    subprocess.run(convert, check=True, capture_output=True)
    page.goto((tmp_path / "notebook.html").as_uri())
    page.wait_for_function(f"({SEEN})() === 1")


@pytest.fixture
def app():
    """`atlaskit app` on the planted model; its address. Ended as a person would, by Ctrl-C."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # where tests run in the background, a shell has them ignore Ctrl-C, and so would the app
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", program + "from atlaskit.cli import main; main()", "app", "mini-causal"]
    command += [f"--port={port}", "--no-browser", "--text=The <b>cat</b> sat. The cat slept."]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(600):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, "the app ended by itself"
            time.sleep(0.2)
        else:
            pytest.fail("the app did not open within two minutes")
        yield f"http://127.0.0.1:{port}/"
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(30)


def test_the_app_reads_what_it_is_asked_and_answers_by_keys(app, page):
    page.goto(app)
    page.get_by_text("mini-causal: ", exact=False).first.wait_for(timeout=180_000)  # a kernel and a model, from cold
    page.locator(".ak-explorer canvas").first.wait_for()
    assert page.locator(".ak-explorer b").count() == 0
    for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(17, 17, 17)")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("paper => getComputedStyle(document.body).backgroundColor === paper", arg=paper)
        page.wait_for_timeout(500)
        assert serious(page) == []
    head = page.get_by_label("Head", exact=True)
    before = head.input_value()
    press_right(page)
    page.wait_for_function("was => document.querySelector('input[id$=-head]').value !== was", arg=before)
    page.get_by_label("Text").fill("One two one two.")
    page.get_by_role("button", name="Read").click()
    page.get_by_role("listbox").get_by_text("One").first.wait_for()
    assert page.locator(".ak-explorer").count() == 1
    assert page.outside == []
    # JupyterLab's other extensions, which Voilà loads too, miss modules that they share with Lab
    assert [one for one in page.errors if "shared module" not in one] == []


def test_on_colab_every_figure_brings_bokehjs_along(page, monkeypatch, tmp_path):
    """Colab shows each output in a page of its own: here it is alone, and the CDN is the installed Bokeh."""
    shown = []
    monkeypatch.setattr(pages, "get_ipython", lambda: True)
    monkeypatch.setattr(pages, "display", lambda data, raw: shown.append(data["text/html"]))
    figures = [show.head_grid(np.eye(3), title=title, unit="bits", limits=(0.0, 1.0)) for title in ("here", "Colab")]
    show.draw(figures[0])
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    show.draw(figures[1])
    assert "cdn.bokeh.org" not in shown[0]
    (tmp_path / "output.html").write_text(f"<!doctype html><body>{shown[1]}</body>", encoding="utf-8")
    installed = Resources(mode="absolute", components=["bokeh", "bokeh-widgets"]).js_files

    def answer(route):
        name = re.sub(r"-\d+\.\d+\.\d+", "", route.request.url.rsplit("/", 1)[1])
        (path,) = [path for path in installed if path.endswith(f"/{name}")]
        route.fulfill(path=path, content_type="text/javascript")

    page.route("https://cdn.bokeh.org/**", answer)
    page.goto((tmp_path / "output.html").as_uri())
    page.wait_for_function("window.Bokeh && document.querySelectorAll('[id^=ak-] > *').length > 0")
    assert page.errors == page.outside == []
