"""Controls, in process; and figures as pages."""

import re

import ipywidgets as widgets
import numpy as np
import pytest

from atlaskit import show
from atlaskit.show.live import Live

SCORES = np.arange(6.0).reshape(2, 3)


def columns(power):
    if power > 2:
        raise ValueError("power must be 1 or 2, <b>not more</b>")
    if power == 0:
        raise ZeroDivisionError("a bug")
    return show.head_columns(SCORES**power) | {"title": f"power {power}"}


@pytest.fixture
def bound():
    fig = show.head_grid(SCORES, title="powers", unit="bits", limits=(0.0, 25.0))
    slider = widgets.IntSlider(value=1, min=0, max=5)
    box = show.bind(fig, show.source(fig), columns, power=slider)
    return fig, slider, box.children[1]


def test_a_control_refills_the_figure_and_its_title(bound):
    fig, slider, status = bound
    np.testing.assert_array_equal(show.source(fig).data["score"], SCORES.ravel())
    slider.value = 2
    np.testing.assert_array_equal(show.source(fig).data["score"], SCORES.ravel() ** 2)
    assert fig.title.text == "power 2"
    assert re.search(r'role="status" aria-live="polite" style=".*">power 2<', status.value)  # heard, not seen


def test_a_refused_request_is_explained_and_the_last_picture_stays(bound):
    fig, slider, status = bound
    slider.value = 2
    slider.value = 3
    assert status.value == (
        '<div role="status" aria-live="polite">power must be 1 or 2, &lt;b&gt;not more&lt;/b&gt;</div>'
    )
    np.testing.assert_array_equal(show.source(fig).data["score"], SCORES.ravel() ** 2)
    assert fig.title.text == "power 2"
    slider.value = 1
    assert "not more" not in status.value


def test_a_bug_is_not_swallowed(bound):
    _, slider, _ = bound
    with pytest.raises(ZeroDivisionError, match="a bug"):
        slider.value = 0


def test_every_control_has_a_name_that_can_be_read_aloud(bound):
    _, slider, _ = bound
    assert slider.description == "power"


def test_a_live_figure_describes_itself_as_it_is_now():
    fig = show.head_grid(SCORES, title="before", unit="bits", limits=(0.0, 5.0))
    live = Live(fig)
    fig.title.text = "after"
    assert "before" in str(live.render_bundle)
    assert "after" in str(live.get_state()["render_bundle"])


def test_drawing_outside_a_notebook_says_what_to_do_instead():
    with pytest.raises(RuntimeError, match=r"draw\(…\) needs a notebook.*write show\.html\(figure\) to a file"):
        show.draw(show.head_grid(SCORES, title="", unit="bits", limits=(0.0, 5.0)))
    with pytest.raises(RuntimeError, match=r"load_notebook\(\) needs a notebook"):
        show.load_notebook()


def test_a_page_of_text_alone_carries_no_script_library_and_a_figure_has_a_text_for_screen_readers():
    strip = show.token_strip(["a"], np.ones(1), title="T", unit="bits", limits=(0.0, 1.0))
    assert len(show.html(strip)) < 20_000
    page = show.html(show.head_grid(SCORES, title="T", unit="bits", limits=(0.0, 5.0), caption="C"), strip)
    assert 'aria-label="T C"' in page


def test_no_token_can_end_the_script_that_carries_it():
    token = "</script><script>alert(1)</script>"
    fig = show.heatmap(np.ones((1, 1), np.float32), [token], np.ones((1, 1), bool), title=token)
    assert token not in show.html(fig, title=token)
