"""The report over a run: complete, escaped, offline, and readable without seeing it."""

import re
from html.parser import HTMLParser

import pytest

from atlaskit import runs
from atlaskit.records import Estimate
from atlaskit.runs.pages import duration, excerpt, number, picture, verdict

NAN = float("nan")


@pytest.fixture(scope="module")
def html(good, failed, out):
    return runs.report(out).read_text()


class Reader(HTMLParser):
    """Keeps tags with attributes, and the text of headings."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.headings, self.open = [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data):
        if self.open in ("h1", "h2") and data.strip():
            self.headings.append((self.open, data.strip()))
            self.open = None


def test_every_notebook_is_listed_and_failures_come_first(html):
    assert Reader(html).headings == [
        ("h1", "4 of 5 notebooks failed"),
        ("h2", "dies"),
        ("h2", "forgets"),
        ("h2", "hangs"),
        ("h2", "raises"),
        ("h2", "good"),
    ]


def test_nothing_from_a_notebook_becomes_markup(html):
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; sizes 3 and 4" in html
    assert "best &lt;head&gt;" in html
    assert "α &lt;b&gt;" in html


def test_the_page_asks_for_nothing_beyond_its_own_folder(html, out):
    wanted = [
        attrs[name] for _, attrs in Reader(html).tags for name in ("src", "href", "data", "srcset") if name in attrs
    ]
    assert wanted
    assert all((out / address.split("#")[0]).is_file() for address in wanted)
    assert not re.search(r"url\(|@import|https?://", html)


def test_a_finding_stands_beside_its_interval_its_null_its_unit_and_n(html):
    row = re.search(r'<th scope="row">entropy</th>.*?</tr>', html, re.DOTALL)[0]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row))
    assert text.split() == "entropy 2.5 bits 2.25 to 2.75 3 to 3.5 40 yes".split()
    assert 'aria-label="entropy: 2.5, interval 2.25 to 2.75, chance 3 to 3.5"' in row


def test_a_reader_who_does_not_see_it_finds_headings_captions_and_scopes(html):
    tags = Reader(html).tags
    assert ("html", {"lang": "en"}) in tags
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in tags if tag == "th")
    assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags) == 1
    assert all("title" in attrs for tag, attrs in tags if tag == "iframe")
    assert "prefers-color-scheme: dark" in html


def test_a_notebook_cut_off_before_its_end_is_not_called_finished(tmp_path, write):
    (tmp_path / "cut").mkdir()
    write(tmp_path / "cut/cut.ipynb")
    assert "Unfinished" in runs.report(tmp_path).read_text()


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no executed notebook; run some first: atlaskit run --out"):
        runs.report(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000123456, "0.0001235"),
        (-2.0, "−2"),
        (NAN, "undefined"),
        (float("-inf"), "−∞"),
        (float("inf"), "∞"),
        (1e-9, "1e−09"),
    ],
)
def test_numbers_are_written_as_people_read_them(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.4, "59.4 s"), (119.9, "2 min 0 s"), (NAN, "unknown time")]
)
def test_durations_are_written_as_people_say_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("bounds", "word"),
    [((2, 3, 0, 1), "yes"), ((0, 1, 2, 3), "yes"), ((0, 2, 1, 3), "no"), ((0, NAN, 1, 3), "undefined")],
)
def test_the_verdict_follows_from_the_intervals_and_stays_open_without_them(bounds, word):
    assert verdict(Estimate(0.0, *map(float, bounds), "bits", 3)) == word


def test_the_small_picture_keeps_proportions():
    at = picture(Estimate(5.0, 4.0, 6.0, 0.0, 10.0, "bits", 3))
    assert at == {"value": 100.0, "low": 82.0, "high": 118.0, "null_low": 10.0, "null_high": 190.0}


def test_an_estimate_without_spread_is_drawn_in_the_middle():
    assert set(picture(Estimate(1.0, 1.0, 1.0, 1.0, 1.0, "bits", 3)).values()) == {100.0}


def test_the_excerpt_is_the_end_of_the_traceback():
    assert excerpt("a\nb\nc", lines=2) == "…\nb\nc"
    assert excerpt("a\nb", lines=2) == "a\nb"
