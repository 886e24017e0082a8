"""Texts of a user's own."""

import json
from collections import Counter

import pytest

from atlaskit.data import read_texts


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("first\n\nstill first", encoding="utf-8")
    (tmp_path / "b" / "c.jsonl").write_text('{"text": "second"}\n\n{"text": "مرحبا 🌍", "id": 3}\n', encoding="utf-8")
    (tmp_path / "d.png").write_bytes(b"\x89PNG")
    return tmp_path


def test_a_folder_gives_its_texts_in_the_order_of_their_names(folder):
    assert read_texts(folder) == ["first\n\nstill first", "second", "مرحبا 🌍"]
    assert read_texts(str(folder / "b" / "c.jsonl")) == ["second", "مرحبا 🌍"]


def test_rows_of_a_dataset_may_be_streamed():
    rows = ({"body": f"text {i}", "label": 0} for i in range(3))
    assert read_texts(rows, column="body") == ["text 0", "text 1", "text 2"]
    assert read_texts(["a", " ", "b"]) == ["a", "b"]


def test_a_sample_depends_on_its_seed_alone_and_stays_in_order():
    texts = [f"{i:03}" for i in range(200)]
    drawn = read_texts(texts, n=20, seed=4)
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 20
    assert drawn == read_texts(iter(texts), n=20, seed=4)
    assert drawn != read_texts(texts, n=20, seed=5)
    assert read_texts(texts[:5], n=20) == texts[:5]


def test_every_text_is_as_likely_to_be_drawn():
    """3,000 draws of 2 of 6: each text comes 1,000 times, give or take four standard errors."""
    count = Counter(text for seed in range(3000) for text in read_texts(list("abcdef"), n=2, seed=seed))
    error = (3000 * (1 / 3) * (2 / 3)) ** 0.5
    assert all(abs(n - 1000) < 4 * error for n in count.values())
    assert len(count) == 6


@pytest.mark.parametrize(("line", "message"), [
    ("{broken", r"x\.jsonl, line 2 is not JSON"),
    ('{"body": "?"}', r"x\.jsonl, line 2 has no text under 'text'; it has 'body': name the column"),
    ('{"text": 3}', r"line 2 has no text under 'text'"),
    ("[1]", r"line 2 is a list; a document is a string, or a mapping with a 'text'"),
])  # fmt: skip
def test_a_line_that_cannot_be_read_is_named(tmp_path, line, message):
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "fine"}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_texts(tmp_path / "x.jsonl")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*to read a text itself, give a list"):
        read_texts("The cat sat on the mat.")
    with pytest.raises(ValueError, match=r"holds no \.txt, \.md, \.jsonl file"):
        read_texts(tmp_path)
    (tmp_path / "e.txt").write_text("  \n")
    with pytest.raises(ValueError, match="there are no texts in"):
        read_texts(tmp_path)
    (tmp_path / "e.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"e\.txt is not text in UTF-8: byte 3 is 0xe9"):
        read_texts(tmp_path)
