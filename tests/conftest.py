"""What tests of several folders share: who runs beside whom, and each notebook executed once."""

from functools import cache
from pathlib import Path

import pytest

from atlaskit import runs

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def pytest_collection_modifyitems(items):
    """Under pytest-xdist, tests that share a kernel's work or a browser stay together on one worker."""
    for item in items:
        folder = Path(item.path).relative_to(Path(__file__).parent).parts[0]
        if folder in ("runs", "test_cli.py"):
            item.add_marker(pytest.mark.xdist_group("runs"))
        elif folder in ("browser", "test_notebooks.py"):
            item.add_marker(pytest.mark.xdist_group("stories"))


@pytest.fixture(scope="session")
def executed(tmp_path_factory):
    """Call it with a notebook's name: the folder of its execution with default parameters, made once."""

    @cache
    def folder(name):
        out = tmp_path_factory.mktemp("executed")
        runs.execute(NOTEBOOKS / f"{name}.ipynb", out)
        return out / name

    return folder
