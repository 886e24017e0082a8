"""Tokens as labels: all seen, none acting."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaskit.show.labels import plain, short, visible


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" the", "␣the"),
        ("\n\n", "⏎⏎"),
        ("\t", "⇥"),
        ("\x00", "␀"),
        ("", "∅"),
        ("\u0301", "◌\u0301"),  # a lone accent would sit on its neighbour
        ("e\u0301", "e\u0301"),
        ("\u202eabc", "⟨202E⟩abc"),  # a direction override would mirror the line
        ("\u200b", "⟨200B⟩"),
        ("\ud83d", "⟨D83D⟩"),  # half a surrogate pair cannot be written to a page
        ("שלום", "שלום"),
        ("👩\u200d👧", "👩\u200d👧"),  # one family, joined
        ("\u200d", "⟨200D⟩"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),  # escaping is the page's work
    ],
)
def test_every_token_can_be_seen(token, shown):
    assert visible(token) == shown


@given(st.text())
def test_no_label_holds_a_control_a_space_or_half_a_character(token):
    shown = visible(token)
    assert shown
    shown.encode("utf-8")
    assert not {unicodedata.category(c) for c in shown.replace("\u200c", "").replace("\u200d", "")} & {
        "Cc", "Cf", "Cs", "Zs", "Zl", "Zp",
    }  # fmt: skip


@given(st.text(), st.integers(2, 20))
def test_a_short_label_fits_and_begins_as_its_token_does(text, width):
    cut = short(text, width)
    columns = sum(
        0 if unicodedata.category(c)[0] == "M" or c in "\u200c\u200d" else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in cut
    )
    assert columns <= width
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))


def test_short_leaves_short_words_alone_and_ends_long_ones_with_an_ellipsis():
    assert short("previous") == "previous"
    assert short("antidisestablishment", 10) == "antidises…"
    assert short("日本語の言葉", 7) == "日本語…"


def test_titles_are_never_read_as_tex():
    for text in ("$$x$$", r"\(x\)", r"\[x\]"):
        assert not any(mark in plain(text) for mark in ("$$", r"\(", r"\["))
        assert plain(text).replace("\u2060", "") == text
