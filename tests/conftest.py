"""What tests of several folders share: no network, who runs beside whom, and each notebook executed once."""

import os
from functools import cache
from pathlib import Path

# Before transformers is imported: a test that asked the hub would wait for a network that it must not use.
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import pytest
import torch

from atlaskit import runs

torch.set_num_threads(1)  # one process a core (pytest -n 2); more threads would fight over them
hypothesis.settings.register_profile("atlaskit", deadline=None)  # timings belong in benchmarks
hypothesis.settings.load_profile("atlaskit")

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
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
