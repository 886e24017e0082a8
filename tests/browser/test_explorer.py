"""The explorer in a real browser: live in JupyterLab, and as a page from disk, by mouse and by keys."""

import csv
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from accessible import serious
from explorer_page import HOSTILE, SPOKEN, changed, field, hear, shade, tokens_of, until

from atlaskit import measure, show
from atlaskit.models import capture, planted
from atlaskit.records import Capture, LayerAttention

pytestmark = pytest.mark.browser

MEASURES = {
    "entropy": (measure.entropy, "bits"),
    "previous token": (measure.mass_on(measure.previous_token), "mass"),
}

DRESS = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"


def hostile_capture():
    n, tokens = len(HOSTILE), tokens_of(HOSTILE)
    support = torch.ones(n, n, dtype=torch.bool).tril()
    scores = torch.randn(2, 3, n, n, generator=torch.Generator().manual_seed(0)) * 2
    patterns = scores.masked_fill(~support, -torch.inf).softmax(-1)
    layers = [LayerAttention(i, "decoder", one, support, *(None,) * 5, "", "") for i, one in enumerate(patterns)]
    return Capture(HOSTILE[0], tokens, tokens, tuple(layers))


@pytest.fixture
def opened(page, tmp_path):
    """Call it with an explorer: its exported page, opened from disk."""
    page.on("dialog", hear)

    def open_page(explorer):
        page.goto(show.export(explorer, tmp_path / "atlas.html", title=HOSTILE[0]).as_uri())
        until(page, "Boolean(window.explorer?.ready())")
        return page

    return open_page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_from_disk_runs_no_token_and_everyone_can_use_it(scheme, opened, page):
    page.emulate_media(color_scheme=scheme)
    opened(show.Explorer(hostile_capture(), measures=MEASURES))
    assert page.title() == HOSTILE[0]
    assert page.locator("main img, main script").count() == 0
    strip = page.get_by_role("listbox").inner_text()
    assert "<script>alert(1)</script>" in strip
    assert "⟨202E⟩evil" in strip
    page.get_by_text("Numbers behind the picture").click()
    strongest = page.get_by_role("table", name="The strongest cells in view").get_by_role("row")
    strongest.nth(12).wait_for()  # the browser says a little later that it is open
    assert strongest.count() == 13
    assert serious(page) == []
    assert page.locator(".ak-explorer *").count() <= 300
    assert page.errors == page.outside == []


def test_the_page_from_disk_answers_every_control_by_keys(opened, page):
    model = planted()
    opened(show.Explorer(capture(model, "ash bay cat dew elm ash bay cat dew elm"), measures=MEASURES))
    field(page, "Layer").fill("0")
    field(page, "Head").fill("0")
    field(page, "Token").fill("9")
    until(page, SPOKEN, "Head 0.0, token 9")
    until(page, SPOKEN, "It reads most: dew 1")  # the previous token
    # the palette's ends: all of the weight on the token before, none elsewhere
    assert shade(page, 5, 4, 10, 10) == 255
    assert shade(page, 5, 2, 10, 10) == 1
    maps = page.get_by_label("Map of a measure, layers down, heads across")
    maps.focus()
    changed(page, lambda: maps.press("ArrowRight"))
    assert (field(page, "Layer").input_value(), field(page, "Head").input_value()) == ("0", "1")
    until(page, SPOKEN, "It reads most: ash 1")  # the first token
    changed(page, lambda: maps.press("ArrowDown"))
    assert field(page, "Layer").input_value() == "1"
    large = page.locator(".ak-main canvas")
    large.focus()
    large.press("ArrowUp")
    assert field(page, "Token").input_value() == "8"
    changed(page, lambda: large.press("+"))
    changed(page, lambda: large.press("0"))
    page.get_by_role("listbox").focus()
    page.get_by_role("listbox").press("ArrowLeft")
    assert field(page, "Token").input_value() == "7"
    before = page.evaluate("document.querySelectorAll('.ak-side canvas')[1].toDataURL()")
    field(page, "Map").select_option("previous token")
    assert page.evaluate("document.querySelectorAll('.ak-side canvas')[1].toDataURL()") != before
    changed(page, lambda: field(page, "Rows").select_option("token"))
    # a row is a head now: 0.0 gives all to the token before, 0.1 to the first, 1.1 as much to each of eight
    for row, key, level in ((0, 6, 255), (0, 5, 1), (1, 0, 255), (6, 3, round(1 + 254 * 8**-0.5))):
        assert shade(page, row, key, 10, 10) == level
    page.get_by_role("button", name="0.0").click()
    until(page, SPOKEN, "Head 0.0, token 7")
    assert page.errors == page.outside == []


def test_the_page_from_disk_saves_what_it_shows(opened, page, tmp_path):
    seen = hostile_capture()
    opened(show.Explorer(seen, measures=MEASURES))
    head = int(field(page, "Layer").input_value()), int(field(page, "Head").input_value())
    for name in ("PNG", "SVG", "CSV"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        download.value.save_as(tmp_path / name)
    assert (tmp_path / "PNG").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    words = [one.text for one in ElementTree.parse(tmp_path / "SVG").iter("{http://www.w3.org/2000/svg}text")]
    assert any("<script>" in word for word in words)
    with (tmp_path / "CSV").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    n = len(HOSTILE)
    assert len(rows) == n * (n + 1) // 2
    pattern = seen.layers[head[0]].pattern[head[1]]
    for row in rows:
        weight = float(pattern[int(row["row"]), int(row["key"])])
        assert float(row["value"]) ** 0.5 == pytest.approx(weight**0.5, abs=0.5 / 254 + 1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_pair_from_disk_shows_both_and_the_difference(scheme, opened, page):
    page.emulate_media(color_scheme=scheme)
    model = planted()
    one, other = (capture(model, f"ash bay {word} dew elm ash bay {word} dew elm") for word in ("cat", "owl"))
    opened(show.Compare(one, other, names=("cat", HOSTILE[0])))
    assert serious(page) == []
    field(page, "Layer").fill("1")
    until(page, SPOKEN, "Head 1.")
    assert page.get_by_role("table", name="Most changed: attention moved").get_by_role("button").count() == 5
    assert page.errors == page.outside == []


def test_a_figure_becomes_a_picture_file(tmp_path):
    fig = show.head_grid(np.eye(3), title="<b>T</b>", unit="bits", limits=(0.0, 1.0))
    picture = show.export(fig, tmp_path / "fig.svg")
    words = [one.text for one in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert "<b>T</b>" in words
    explorer = show.Explorer(hostile_capture())
    assert show.export(explorer, tmp_path / "head.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


LAB = [
    """from atlaskit import measure, models, show
import numpy as np
show.load_notebook()
model = models.planted()
measures = {"entropy": (measure.entropy, "bits"), "previous token": (measure.mass_on(measure.previous_token), "mass")}
text = "ash bay cat dew elm ash bay cat dew elm"
seen = models.capture(model, text)
explorer = show.Explorer(seen, measures=measures, cause=lambda: models.layer_effects(model, text))
explorer""",
    """other = models.capture(model, "ash bay owl dew elm ash bay owl dew elm")
show.Compare(seen, other, names=("<script>alert(1)</script>", "owl"))""",
    """places = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
explorer.link(show.points(places, ["0.0", "0.4", "1.3"], groups=["a", "b", "a"], title="A map"))""",
    """counts = show.head_grid(np.zeros((2, 5)), title="", unit="heads", limits=(0.0, 9.0))
explorer.follow(counts, lambda layer, head: show.head_columns(np.full((2, 5), 5.0 * layer + head)) | {
    "title": f"before it: {5 * layer + head}"})""",
    """import threading
may_go_on = threading.Event()
def read(name, words):
    assert may_go_on.wait(60)  # a model that takes its time
    return models.capture(model, words)
def causes(name, words):
    for layer in models.layer_effects(model, words):
        assert may_go_on.wait(60)
        yield layer
show.Desk(read, ["planted"], text="ash bay cat dew elm", cause=causes)""",
    "explorer.choose(layer=0, head=2, token=4)",
]

# A measure that never ends in the second layer.
ENDLESS = """def endless(pattern, support, layer):
    if layer == 1:
        print("in the second layer")
        threading.Event().wait(60)
    return measure.entropy(pattern, support)
show.Explorer(seen, measures={"endless": (endless, "bits")})"""

IN_KERNEL = """async code => {
  const {kernel} = window.jupyterapp.shell.currentWidget.sessionContext.session;
  return (await kernel.requestExecute({code}).done).content.status;
}"""
NEW_CELL = """async code => {
  const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
  notebook.activeCellIndex = notebook.widgets.length - 1;
  await app.commands.execute('notebook:insert-cell-below');
  notebook.activeCell.model.sharedModel.setSource(code);
  app.commands.execute('notebook:run-cell');
}"""

# Where a point of a Bokeh figure's data lies on the page.
PLACE = """([x, y]) => {
  const view = Object.values(Bokeh.index)[0], frame = view.frame, box = view.canvas_view.el.getBoundingClientRect();
  return [box.x + frame.x_scale.compute(x), box.y + frame.y_scale.compute(y)];
}"""


def test_in_jupyterlab_keys_reach_the_kernel_and_the_kernel_reaches_the_page(run_in_lab, page):
    page.on("dialog", hear)
    assert run_in_lab(LAB) == []
    until(page, SPOKEN, "Head 0.2, token 4")  # the last cell chose it
    until(page, SPOKEN, "It reads most: elm 1")  # the own-token head
    assert page.locator(".ak-explorer").count() == 2  # two explorers in one notebook do not meet
    maps = page.get_by_label("Map of a measure, layers down, heads across").first
    maps.focus()
    changed(page, lambda: maps.press("ArrowLeft"))
    until(page, SPOKEN, "Head 0.1, token 4")
    changed(page, lambda: field(page, "Colour").select_option("lift"))
    # the kernel finds what the model loses without each head, and only then the colour changes
    small = page.get_by_label("All heads: small pictures, layers down, heads across").first
    before = small.evaluate("one => one.toDataURL()")
    changed(page, lambda: field(page, "Colour").select_option("cause"))
    assert field(page, "Colour").input_value() == "cause"
    until(page, "was => document.querySelector('.ak-side canvas').toDataURL() !== was", before)
    assert "weight × loss without the head (nats per token)" in page.locator(".ak-side .ak-title").first.inner_text()
    field(page, "Map").select_option("causal effect")
    first = page.get_by_role("table", name="Largest: causal effect").get_by_role("button").first
    assert first.inner_text() in ("0.0", "1.0")  # previous token and induction: the planted model knows nothing else
    changed(page, lambda: field(page, "Colour").select_option("lift"))
    changed(page, lambda: field(page, "Without sinks").check())
    changed(page, lambda: field(page, "Rows").select_option("token"))
    field(page, "Token").fill("6")
    until(page, SPOKEN, "Head 0.1, token 6")
    assert page.locator(".ak-explorer").first.locator("*").count() <= 300
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate(DRESS, theme)
        until(page, "theme => document.body.dataset.jpThemeName === theme", theme)
        page.wait_for_timeout(500)
        assert serious(page, ".ak-explorer") == []
    # a map of heads chooses with it: a tap there, and the chosen head is marked there
    page.locator(".bk-Figure").first.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    page.mouse.click(*page.evaluate(PLACE, [3, 1]))
    until(page, SPOKEN, "Head 1.3, token 6")
    told = "text => [...document.querySelectorAll('[role=status]')].some(one => one.textContent === text)"
    until(page, told, "before it: 8")  # a figure that follows the explorer is drawn anew, and says so
    scores = "Object.values(Bokeh.index).map(one => one.model.renderers?.[0].data_source.get_column('score')?.[0])"
    until(page, f"{scores}.includes(8)")
    maps.press("ArrowUp")
    maps.press("ArrowRight")
    until(page, SPOKEN, "Head 0.4, token 6")
    selected = "Object.values(Bokeh.index)[0].model.renderers[0].data_source.selected.indices"
    until(page, f"JSON.stringify({selected}) === '[1]'")
    # a page that is opened again shows what was chosen, not what was first
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    until(page, SPOKEN, "Head 0.4, token 6")
    assert field(page, "Without sinks").is_checked()
    # restart and run again
    page.evaluate("""async () => {
      const app = window.jupyterapp; await app.restored;
      const panel = app.shell.currentWidget; await panel.sessionContext.ready;
      await panel.sessionContext.session.kernel.restart();
      await app.commands.execute('notebook:run-all-cells') }""")
    until(page, SPOKEN, "Head 0.2, token 4")
    stop_reading_then_finding(page)
    interrupt_a_cell(page)
    # jupyter_bokeh 4.1 tells the kernel that was restarted of what its last figure did
    assert [one for one in page.errors if one != "Cannot send"] == page.outside == []


def stop_reading_then_finding(page):
    """What is pressed takes effect after the step; meanwhile the kernel answers, and afterwards all is as before."""
    buttons = page.locator(".jupyter-button")
    read, stop = buttons.filter(has_text="Read"), buttons.filter(has_text="Stop")
    assert stop.is_disabled()
    read.click()
    stop.click()
    page.get_by_text("stopping after this step").wait_for()
    maps = page.get_by_label("Map of a measure, layers down, heads across").first
    maps.focus()
    changed(page, lambda: maps.press("ArrowRight"))
    until(page, SPOKEN, "Head 0.3, token 4")
    assert page.evaluate(IN_KERNEL, "may_go_on.set()") == "ok"
    page.get_by_text("stopped while looking at the heads").wait_for()
    assert page.locator(".ak-explorer").count() == 2
    read.click()  # asked again, it is read
    page.get_by_text("planted: 5 tokens").wait_for()
    last = page.locator(".ak-explorer").nth(2)
    last.locator("canvas").first.wait_for()
    assert page.evaluate(IN_KERNEL, "may_go_on.clear()") == "ok"
    colour = last.get_by_label("Colour", exact=True)
    colour.select_option("cause")
    last.get_by_text("0 of 2 layers").first.wait_for()
    last.get_by_role("button", name="Stop").click()
    assert page.evaluate(IN_KERNEL, "may_go_on.set()") == "ok"
    last.get_by_role("button", name="Stop").wait_for(state="hidden")
    assert colour.input_value() == "weight"


def interrupt_a_cell(page):
    """JupyterLab's own button, while an explorer reads: what was read is kept and shown, and the kernel goes on."""
    page.evaluate(NEW_CELL, ENDLESS)
    page.locator(".jp-OutputArea-output", has_text=re.compile("^in the second layer")).wait_for()
    page.locator(".jp-NotebookPanel-toolbar [title^='Interrupt the kernel']").click()
    page.get_by_text("interrupted: layers that were not read are blank").wait_for()
    last = page.locator(".ak-explorer").nth(3)
    row = last.get_by_role("row", name="endless (bits)")
    for layer, seen in (("0", True), ("1", False)):
        last.get_by_label("Layer", exact=True).fill(layer)
        last.get_by_role("table", name=f"Head {layer}.").wait_for()
        assert ("undefined" not in row.inner_text()) == seen
    assert page.evaluate(IN_KERNEL, "explorer.choose(head=0)") == "ok"
    until(page, SPOKEN, "Head 0.0, token 4")
