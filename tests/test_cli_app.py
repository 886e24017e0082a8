"""`atlaskit app`: what its only cell shows, and what is said where Voilà is missing. The app itself: tests/browser."""

import sys

import pytest
from click.testing import CliRunner

from atlaskit import models
from atlaskit.cli import main
from atlaskit.cli.app import CELL, desk

TEXT = "ash bay cat dew elm ash bay cat dew elm"


@pytest.fixture
def opened(monkeypatch):
    """The names that were loaded; whatever they are, they are the planted model."""
    names = []
    planted = models.planted()
    monkeypatch.setattr(models, "load", lambda name: names.append(name) or planted)
    return names


def test_the_app_begins_with_the_model_that_was_named_and_offers_the_bundled_ones(opened):
    app = desk("./mine", TEXT, 8)
    app.begin().join(60)
    assert opened == ["./mine"]
    assert app.model.options == ("./mine", *models.available())
    assert "./mine: 8 tokens" in app.said.value  # no more than asked for
    assert [one["name"] for one in app.atlas.meta["measures"]][:2] == ["entropy", "largest weight"]


def test_what_was_typed_reaches_the_cell_as_text():
    hostile = "'''\"\\n__import__('os').abort()"
    spoken = {}
    cell = CELL.format(model=None, text=hostile, max_tokens=5).replace("from atlaskit.cli.app import desk\n", "")
    exec(cell, {"desk": lambda *asked: spoken.update(asked=asked)})
    assert spoken["asked"] == (None, hostile, 5)


def test_without_voila_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "voila.app", None)
    done = CliRunner().invoke(main, ["app"])
    assert done.exit_code == 1
    assert "the app needs Voilà: pip install 'atlaskit[app]'" in done.output
