"""Throwaway notebooks, and one execution of each kind that every test here reads."""

from pathlib import Path

import nbformat
import pytest

from atlaskit import runs

DECLARED = 'size: int = 3\nname: str = "α <b>"\nrate: float = 0.5\nfast: bool = True\nlayers: list = [0, 2]'

SETUP = """import os
import ipywidgets, torch
from IPython.display import HTML, display
from atlaskit.records import Estimate
from atlaskit.runs import Run
run = Run("good", {"size": size, "name": name, "rate": rate, "fast": fast, "layers": layers}, model_hash="abc")"""

FINDINGS = """import ipykernel
run.find("transport", ipykernel.get_connection_info(unpack=True)["transport"])
run.find("entropy", Estimate(2.5, 2.25, 2.75, 3.0, 3.5, "bits", 40, 0.001))
run.find("undefined", Estimate(float("nan"), float("nan"), float("inf"), -1.0, 1.0, "tokens", 2))
run.find("best <head>", "3.7")
run.find("pid", os.getpid())
run.find("folder", os.environ["ATLASKIT_RUN_FOLDER"])"""

LOOK = """display(HTML('<canvas id="drawn" width="20" height="20"></canvas>'
    '<script>document.getElementById("drawn").getContext("2d").fillRect(0, 0, 9, 9)</script>'))
from tqdm.auto import tqdm
sum(tqdm(range(3), desc="counting"))
ipywidgets.IntSlider()"""

PROGRESS = """from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from atlaskit import runs
class Now:
    def submit(self, function, task):
        future = Future()
        future.set_result(runs.Ended(task.name, "failed" if task.name == "c" else "done"))
        return future
    def together(self):
        return nullcontext()
runs.drive([runs.Task(name, "", {}, {}, Path("unused").resolve()) for name in "abc"], Now(), note=lambda: "5 tokens/s")
shown = ipywidgets.Widget.get_manager_state()["state"].values()
texts = [" ".join(one["state"]["value"].split()) for one in shown if one["model_name"] == "HTMLModel"]
run.find("progress", [text for text in texts if "to go" in text])"""

FORMULA = r"The weights are $\frac{q \cdot k}{\sqrt{d}}$, and [a link](https://example.org) is only a link."


def write_notebook(path: Path, *code: str, declared: str | None = DECLARED, prose: str = FORMULA) -> Path:
    cells = [nbformat.v4.new_markdown_cell(prose)] + [nbformat.v4.new_code_cell(source) for source in code]
    if declared is not None:
        cells.insert(1, nbformat.v4.new_code_cell(declared, metadata={"tags": ["parameters"]}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@pytest.fixture(scope="session")
def write():
    return write_notebook


@pytest.fixture
def unstarted(tmp_path):
    """A notebook that only declares its parameters; for tests that must fail before it would start."""
    return write_notebook(tmp_path / "unstarted.ipynb")


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="session")
def good(out, tmp_path_factory):
    """A notebook that finishes, executed once: the Run that `execute` returned."""
    source = write_notebook(
        tmp_path_factory.mktemp("src") / "good.ipynb", SETUP, FINDINGS, PROGRESS, LOOK, "run.save()"
    )
    return runs.execute(source, out, {"size": 5, "rate": float("inf")})


@pytest.fixture(scope="session")
def failed(out, tmp_path_factory):
    """Notebooks that do not finish, executed once each: name -> NotebookError."""
    folder = tmp_path_factory.mktemp("broken")
    sources = {
        "raises": ["kept = 1\nprint('before')", "raise ValueError('<script>alert(1)</script> sizes 3 and 4')", "1/0"],
        "dies": ["import os, signal", "os.write(2, b'last words'); os.kill(os.getpid(), signal.SIGKILL)"],
        "hangs": ["import time\ntime.sleep(60)"],
        "forgets": ["1 + 1"],
    }
    errors = {}
    for name, code in sources.items():
        with pytest.raises(runs.NotebookError) as caught:
            runs.execute(
                write_notebook(folder / f"{name}.ipynb", *code, declared=""), out, timeout=2 if name == "hangs" else 600
            )
        errors[name] = caught.value
    return errors
