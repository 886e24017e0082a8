"""`atlaskit explore`: a model and a text in, one page out."""

import csv

import pytest
from click.testing import CliRunner

from atlaskit.cli import main

TEXT = "ash bay cat dew elm ash bay cat dew elm"


@pytest.fixture
def called(monkeypatch):
    """Call it with arguments, on the planted model."""
    from atlaskit import models

    model = models.planted()
    monkeypatch.setattr(models, "load", lambda name: model)
    return lambda *arguments: CliRunner().invoke(main, ["explore", "planted", *arguments])


def test_a_text_becomes_a_page_that_needs_nothing(called, tmp_path):
    done = called("--text", TEXT, "--out", str(tmp_path / "atlas.html"))
    assert done.exit_code == 0, done.output
    page = (tmp_path / "atlas.html").read_text(encoding="utf-8")
    assert done.output.startswith(str(tmp_path / "atlas.html"))
    assert "10 queries × 10 keys, stored as 10 × 10 cells (every cell)" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_a_file_becomes_a_table_without_its_sinks(called, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    done = called("--file", str(tmp_path / "text.txt"), "--out", str(tmp_path / "head.csv"), "--no-sinks")
    assert done.exit_code == 0, done.output
    with (tmp_path / "head.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(row["key"] != "0" for row in rows)


def test_wrong_requests_are_refused_in_a_sentence(called, tmp_path):
    done = called("--out", "x.html")
    assert done.exit_code == 2
    assert "give the text as --text TEXT or as --file PATH" in done.output
    done = called("--text", TEXT, "--out", str(tmp_path / "atlas.gif"))
    assert done.exit_code == 1
    assert "a file may end in .html" in done.output
    assert called("--text", "ash", "--out", str(tmp_path / "a.html")).exit_code == 1
