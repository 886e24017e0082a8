"""Every figure in a real browser: it paints, says nothing on the console, asks nobody, and runs no token."""

import subprocess
import sys

import nbformat
import numpy as np
import pytest

from atlaskit import show
from atlaskit.records import Estimate
from atlaskit.show.labels import visible
from atlaskit.show.theme import SERIES, contrast

pytestmark = pytest.mark.browser

HOSTILE = [
    "<script>alert(1)</script>",
    " <img src=x onerror=alert(1)>",
    "\"'&amp;`",
    "\n",
    "👩\u200d👧",
    "שלום",
    "\u0301",
    "\u202eevil",
    "@{image} $x",
    "$$x^2$$",
]
N = len(HOSTILE)


def pattern_and_support(*heads, n=N):
    scores = np.random.default_rng(0).normal(size=(*heads, n, n)) * 2
    support = np.tril(np.ones((n, n), bool))
    weights = np.where(support, np.exp(scores), 0)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32), support


def figures(word):
    """Each kind once, with `word` wherever a caller's text can go."""
    pattern, support = pattern_and_support(2, 3)
    scores = np.array([[0.1, np.nan, 0.9], [0.4, 0.5, 0.2]])
    text = {"title": word, "caption": word}
    estimates = {word: Estimate(1.0, 0.5, 1.5, 0.0, 0.2, word, 9), "b": Estimate(0.1, 0.0, 0.3, 0.0, 0.2, word, 9)}
    x, y = np.arange(5), np.arange(5.0)
    return [
        show.heatmap(pattern[0, 0], HOSTILE, support, **text),
        show.head_grid(scores, unit=word, limits=(0.0, 1.0), null=scores, beats_null=scores > 0.3, **text),
        show.mosaic(list(pattern), support, **text),
        show.intervals(estimates, **text),
        show.curve(x, {word: y, "b": y + 1}, x_label=word, y_label=word, intervals={word: (y, y + 1)}, **text),
        show.token_strip(HOSTILE, scores.ravel()[[0, 1, 2, 3, 4, 5, 0, 1, 2, 3]], unit=word, limits=(0, 1), **text),
    ]


# Where a point of a figure's data lies on the page.
PLACE = """([x, y]) => {
  const view = Object.values(Bokeh.index)[0], frame = view.frame, box = view.canvas_view.el.getBoundingClientRect();
  return [box.x + frame.x_scale.compute(x), box.y + frame.y_scale.compute(y)];
}"""

# [colour of the paper, colour of the numbers at the colour bar: of the grey pixels there, the one that stands out].
NUMBERS = """() => {
  const canvas = Object.values(Bokeh.index)[0].canvas_view.primary.canvas, g = canvas.getContext('2d');
  const hex = d => '#' + [...d.slice(0, 3)].map(v => v.toString(16).padStart(2, '0')).join('');
  const sum = d => d[0] + d[1] + d[2], grey = d => Math.max(d[0], d[1], d[2]) - Math.min(d[0], d[1], d[2]) < 4;
  const paper = g.getImageData(canvas.width - 2, 2, 1, 1).data;
  const right = g.getImageData(canvas.width - 70, 0, 70, canvas.height).data;
  let ink = paper;
  for (let i = 0; i < right.length; i += 4) {
    const dot = right.slice(i, i + 4);
    if (grey(dot) && Math.abs(sum(dot) - sum(paper)) > Math.abs(sum(ink) - sum(paper))) ink = dot;
  }
  return [hex(paper), hex(ink)];
}"""


# How many pixels inside the frame of a figure have this colour.
PAINTED = """colour => {
  const view = Object.values(Bokeh.index)[0], canvas = view.canvas_view.primary.canvas, box = view.frame.bbox;
  const ratio = canvas.width / view.canvas_view.el.clientWidth, hex = v => v.toString(16).padStart(2, '0');
  const sides = [box.left, box.top, box.width, box.height].map(side => Math.round(side * ratio));
  const data = canvas.getContext('2d').getImageData(...sides).data;
  let count = 0;
  for (let i = 0; i < data.length; i += 4)
    count += '#' + hex(data[i]) + hex(data[i + 1]) + hex(data[i + 2]) === colour.toLowerCase();
  return count;
}"""


@pytest.fixture
def opened(page, tmp_path):
    """Call it with figures: their page, opened from disk. Dialogs, which only a token could open, are errors."""
    page.on("dialog", lambda dialog: (page.errors.append(dialog.message), dialog.dismiss()))

    def open_page(*items, **options):
        (tmp_path / "page.html").write_text(show.html(*items, **options), encoding="utf-8")
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function("window.Bokeh === undefined || document.querySelectorAll('[id^=ak-] > *').length > 0")
        page.wait_for_timeout(300)
        return page

    return open_page


def hover(page, x, y):
    """The text of the hover box over a point of the data."""
    page.mouse.move(*page.evaluate(PLACE, [x, y]))
    page.wait_for_timeout(150)
    return page.locator(".bk-tooltip-content").first.inner_text()


def test_hostile_text_is_text_in_every_figure(opened, canvases):
    word = HOSTILE[0] + HOSTILE[1] + HOSTILE[8] + HOSTILE[9]
    page = opened(*figures(word), title=word)
    painted = canvases()
    assert len(painted[::2]) == 5  # each figure has a canvas, and one above it for the mouse
    assert min(colours for colours, _ in painted[::2]) > 20  # painted, not blank
    assert page.locator("main img").count() == 0
    assert page.errors == page.outside == []
    assert page.title() == word


def test_hover_names_both_tokens_the_weight_and_the_ignorant_head(opened):
    pattern, support = pattern_and_support()
    page = opened(show.heatmap(pattern, HOSTILE, support, title="T"))
    for query, key in ((1, 0), (4, 3), (7, 5), (9, 8)):
        text = hover(page, key, query)
        for name, position in (("query", query), ("key", key)):
            assert f"{name} {position} \u2068{visible(HOSTILE[position])}\u2069" in text
        weight, ignorant = float(text.split("weight ")[1].split()[0]), float(text.split("gives ")[1].split()[0])
        assert weight == pytest.approx(pattern[query, key], rel=5e-3)
        assert ignorant == pytest.approx(1 / (query + 1), rel=5e-3)
    assert "outside the support" in hover(page, 3, 1)
    assert page.locator("main img").count() == 0
    assert page.errors == page.outside == []


def test_hover_on_a_head_names_it_its_score_and_its_chance(opened):
    scores = np.array([[0.125, np.nan], [0.5, 0.25]])
    page = opened(show.head_grid(scores, title="T", unit="bits & <b>", limits=(0.0, 1.0), null=scores / 2))
    assert hover(page, 0, 1).split("\n") == ["head 1.0", "bits & <b>: 0.5", "chance: 0.25"]
    assert "NaN" in hover(page, 1, 0)


def test_points_between_gaps_are_seen_although_no_line_touches_them(opened):
    x, lone = np.arange(5), np.array([1, np.nan, 2, np.nan, 3])
    page = opened(show.curve(x, {"a": lone}, title="T", x_label="x", y_label="y"))
    assert page.evaluate(PAINTED, SERIES[0]) > 3 * 9  # three dots, six pixels across
    assert "y: 2" in hover(page, 2, 2)
    # where a line goes through, no dot is added: the horizontal one is three pixels high
    page = opened(show.curve(x, {"a": np.ones(5)}, title="T", x_label="x", y_label="y"))
    assert 0 < page.evaluate(PAINTED, SERIES[0]) < 560 * 4
    assert page.errors == page.outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_reaches_aa_in_light_and_dark(scheme, opened, page):
    page.emulate_media(color_scheme=scheme)
    opened(show.head_grid(np.eye(3), title="T", unit="bits", limits=(0.0, 1.0)))
    paper, ink = page.evaluate(NUMBERS)
    assert paper == {"light": "#ffffff", "dark": "#111111"}[scheme]
    assert contrast(paper, ink) >= 4.5  # the numbers of the colour bar, which CSS alone does not reach
    colours = page.evaluate(
        "() => { const style = getComputedStyle(Object.values(Bokeh.index)[0].el);"
        " return ['--bk-text-color', '--bk-axis-label-text-color', '--bk-major-label-text-color']"
        ".map(name => style.getPropertyValue(name).trim()) }"
    )
    assert min(contrast(paper, colour) for colour in colours) >= 4.5


def test_a_figure_is_repainted_when_the_system_turns_dark(opened, page):
    page.emulate_media(color_scheme="light")
    opened(show.head_grid(np.eye(3), title="T", unit="bits", limits=(0.0, 1.0)))
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"({NUMBERS})()[0] === '#111111'")


def test_without_a_script_a_figure_still_says_what_it_shows(chrome, tmp_path):
    context = chrome.new_context(java_script_enabled=False)
    page = context.new_page()
    fig = show.head_grid(np.eye(3), title="Entropy", unit="bits", limits=(0.0, 1.0), caption="Of three heads.")
    page.set_content(show.html(fig))
    page.get_by_role("group", name="Entropy Of three heads.").wait_for()
    assert "Figure: Entropy Of three heads." in page.locator("main").inner_text()
    context.close()


CELLS = [
    "import ipywidgets, numpy as np\nfrom atlaskit import show\nshow.load_notebook()",
    """scores = np.arange(12.0).reshape(3, 4)
fig = show.head_grid(scores, title="power 1", unit="bits", limits=(0.0, 11.0))
show.draw(fig, show.token_strip(["<b>a</b>", " b"], scores[0, :2], title="T", unit="bits", limits=(0.0, 1.0)))""",
]

LIVE = """heard = ipywidgets.Label("heard 0")
fig = show.head_grid(scores, title="power 1", unit="bits", limits=(0.0, 11.0))
fig.title.on_change("text", lambda attr, old, new: setattr(heard, "value", f"heard {int(heard.value[6:]) + 1}"))
def columns(power):
    if power > 3:
        raise ValueError("power must be at most <b>3</b>")
    return show.head_columns(scores / power) | {"title": f"power {power}"}
power = ipywidgets.IntSlider(1, 1, 4)
display(heard, show.bind(fig, show.source(fig), columns, power=power))"""


SHOWN = """() => {
  const fig = Object.values(Bokeh.index)[0].model;
  return [fig.title.text, [...fig.renderers[0].data_source.data.score].map(v => Math.round(v * 1e6) / 1e6)];
}"""


def test_an_executed_notebook_becomes_a_page_that_needs_no_network(page, canvases, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    convert = [sys.executable, "-m", "nbconvert", "--execute", "--to=html", str(tmp_path / "notebook.ipynb")]
    convert += ["--HTMLExporter.require_js_url=", "--HTMLExporter.mathjax_url="]
    subprocess.run(convert, check=True, capture_output=True)
    page.goto((tmp_path / "notebook.html").as_uri())
    page.wait_for_function("document.querySelectorAll('[id^=ak-] > *').length > 0")
    page.wait_for_timeout(500)
    assert canvases()[0][0] > 20
    assert page.get_by_text("<b>a</b>").count() >= 1
    assert page.errors == page.outside == []


def test_in_jupyterlab_a_slider_moves_the_figure_once_and_a_reload_keeps_it(run_in_lab, page, canvases):
    assert run_in_lab([CELLS[0], CELLS[1].split("\n")[0] + "\n" + LIVE]) == []
    page.wait_for_function("document.querySelectorAll('.bk-Figure').length > 0")
    page.wait_for_timeout(500)
    first = canvases()[0]
    assert first[0] > 20
    handle = page.get_by_role("slider").first
    handle.focus()
    handle.press("ArrowRight")
    handle.press("ArrowRight")
    page.get_by_text("heard 2", exact=True).wait_for()  # jupyter_bokeh's echo would make it 6
    page.wait_for_timeout(500)
    assert canvases()[0][1] != first[1]
    shown = page.evaluate(SHOWN)
    handle.press("ArrowRight")
    page.get_by_role("status").get_by_text("power must be at most <b>3</b>").wait_for()  # explained as text …
    page.wait_for_timeout(300)
    assert page.get_by_text("heard 2", exact=True).count() == 1  # … and the last picture stays
    handle.press("ArrowLeft")
    page.get_by_role("status").get_by_text("power must be at most <b>3</b>").wait_for(state="detached")
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.wait_for_function("document.querySelectorAll('.bk-Figure').length > 0")
    page.wait_for_timeout(1000)
    assert page.evaluate(SHOWN) == shown == ["power 3", [round(value / 3, 6) for value in range(12)]]
    assert canvases()[0][0] > 20
    assert page.errors == page.outside == []
