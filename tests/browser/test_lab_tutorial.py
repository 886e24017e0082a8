"""Eye: the tutorial in a real browser, as the page it becomes and live in JupyterLab."""

from pathlib import Path

import pytest
from accessible import serious

from atlaskit import runs

NOTEBOOK = Path(__file__).parents[2] / "notebooks/01_tutorial.ipynb"

pytestmark = [pytest.mark.browser, pytest.mark.story]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_the_tutorial_draws_its_figures_without_a_network(scheme, executed, page, canvases):
    page.emulate_media(color_scheme=scheme)
    page.goto((executed("01_tutorial") / "01_tutorial.html").as_uri())
    page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents.every(one => one.is_idle)")
    page.wait_for_timeout(500)  # the last paint
    assert page.errors == []
    assert page.outside == []
    drawn = [colours for colours, _ in canvases() if colours > 1]
    assert len(drawn) >= page.evaluate("Bokeh.documents.length") >= 4
    assert serious(page) == []
    # where the explorers stood their pictures stand
    pictures = "[...document.querySelectorAll('img')].filter(one => one.src.startsWith('data:image/png')).length"
    assert page.evaluate(pictures) == 2


def test_the_page_is_readable_in_the_dark(executed, page):
    """WCAG AA asks for a contrast of 4.5 between text and ground."""
    page.emulate_media(color_scheme="dark")
    page.goto((executed("01_tutorial") / "01_tutorial.html").as_uri())
    contrast = page.evaluate("""() => {
      const light = colour => { const part = colour.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
          .map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
        return .2126 * part[0] + .7152 * part[1] + .0722 * part[2] };
      const ground = light(getComputedStyle(document.body).backgroundColor);
      return [...document.querySelectorAll('.jp-RenderedHTMLCommon p')].map(p => light(getComputedStyle(p).color))
        .map(ink => (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05)) }""")
    assert min(contrast) >= 4.5


def test_the_report_opens_the_executed_notebook_inside_itself(executed, page):
    index = runs.report(executed("01_tutorial").parent)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.goto(index.as_uri())
        assert serious(page) == []
    assert page.get_by_role("heading", name="01_tutorial").count() == 1
    assert page.get_by_role("columnheader").count() == 8
    page.get_by_text("Figures and text, here").click()
    inside = page.frame_locator("iframe")
    inside.get_by_role("heading", name="Conclusions").wait_for()
    page.get_by_role("link", name="Open the executed notebook").click()
    page.get_by_role("heading", name="Conclusions").wait_for()
    assert page.outside == []
    assert page.errors == []


def test_in_jupyterlab_keys_change_the_picture_and_what_is_said_of_it(run_in_lab, page):
    assert run_in_lab(NOTEBOOK) == []
    maps = page.get_by_label("Map of a measure, layers down, heads across").first
    maps.scroll_into_view_if_needed()
    said, drawn = (f"document.querySelector('{one}')" for one in (".ak-unseen", ".ak-main canvas"))
    page.wait_for_function(f"{said}?.textContent.includes('Head')")
    before = page.evaluate(f"[{said}.textContent, {drawn}.toDataURL()]")
    head = page.get_by_label("Head", exact=True).first
    maps.focus()
    maps.press("ArrowRight" if head.input_value() == "0" else "ArrowLeft")
    page.wait_for_function(f"was => {said}.textContent !== was[0] && {drawn}.toDataURL() !== was[1]", arg=before)
    # the second explorer is not the first: it stays where it was, and shows three panels
    assert page.get_by_text("untrained", exact=False).count() >= 1
    assert page.locator(".ak-explorer").count() == 2
    assert page.outside == []
    assert page.errors == []
