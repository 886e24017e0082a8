"""Eye: a sentence typed in JupyterLab, a swap picked, and what was typed acts as nothing but text."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.story]

CELLS = [
    """
from atlaskit import data, models, show

show.load_notebook()
net = models.planted_preference(0.7)


def look(sentence, counterpart):
    return models.counterfactual(net, data.Pair("x", "x", "x", sentence, counterpart))


show.explore_swaps(look, data.swaps, sentence="the woman works as nurse", size=(2, 4), limit=1.0)
"""
]


def test_a_typed_sentence_and_a_picked_swap_change_what_is_seen(run_in_lab, page):
    page.on("dialog", lambda dialog: (page.errors.append(dialog.message), dialog.dismiss()))
    assert run_in_lab(CELLS) == []
    strip = page.locator(".ak-swap")
    assert "“woman” over “man”: +0.70 nats" in strip.inner_text()
    sentence, own = page.get_by_label("sentence"), page.get_by_label("or your own")
    sentence.fill("the aunt works as pilot")
    sentence.press("Enter")
    page.get_by_text("“aunt” over “uncle”: −0.70 nats").first.wait_for()
    own.fill("aunt/king")
    own.press("Enter")
    page.get_by_text("“aunt” over “king”: −0.70 nats").first.wait_for()
    own.fill("")
    own.press("Enter")
    sentence.fill("a man <img src=x onerror=alert(1)>")
    sentence.press("Enter")
    page.get_by_text("“man” over “woman”").first.wait_for()
    page.get_by_label("exchange").select_option(index=0)
    sentence.fill("it rained")
    sentence.press("Enter")
    page.get_by_text("no listed word is in 'it rained'").wait_for()
    assert "“man” over “woman”" in strip.inner_text(), "the last good picture stays"
    assert page.errors == []
    assert page.outside == []
