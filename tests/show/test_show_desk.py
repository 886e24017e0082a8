"""The desk in process: it reads in stages, can be stopped between them, and refuses in words."""

import threading

import pytest

from atlaskit import measure, show
from atlaskit.models import capture, planted

TEXT = "ash bay cat dew elm ash bay cat dew elm"
MEASURES = {"previous token": (measure.mass_on(measure.previous_token), "mass")}


@pytest.fixture(scope="module")
def model():
    return planted()


def test_what_the_form_says_is_read_and_shown(model):
    desk = show.Desk(lambda name, text: capture(model, text), ["planted"], text=TEXT, measures=MEASURES)
    assert len(desk.children) == 3
    desk.go.click()
    desk.begin().join(60)  # the one that is under way
    assert "planted: 10 tokens" in desk.said.value
    assert desk.children[-1] is desk.atlas
    # the planted previous-token head is where the first measure is furthest from ignorance
    assert (desk.atlas.state["layer"], desk.atlas.state["head"]) == (0, 0)
    assert (desk.bar.value, desk.go.disabled, desk.stop.disabled) == (desk.bar.max, False, True)


def test_stop_takes_effect_after_the_step_and_the_last_picture_stays(model):
    pressed, reading = threading.Event(), threading.Event()

    def slowly(name, text):
        reading.set()
        assert pressed.wait(60)
        return capture(model, text)

    desk = show.Desk(lambda name, text: capture(model, text), ["planted"], text=TEXT)
    desk.begin().join(60)
    first, desk._read = desk.atlas, slowly
    work = desk.begin()
    assert reading.wait(60)
    assert (desk.go.disabled, desk.stop.disabled) == (True, False)
    desk.stop.click()
    pressed.set()
    work.join(60)
    assert "stopped while looking at the heads" in desk.said.value
    assert desk.atlas is first
    assert not desk.go.disabled


def test_a_refusal_is_said_as_text(model):
    def refuse(name, text):
        raise ValueError(f"<script>alert(1)</script> {name} is not a model")

    desk = show.Desk(refuse, ["tiny"])
    desk.begin().join(60)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; tiny is not a model" in desk.said.value
    assert desk.atlas is None
    assert not desk.go.disabled
