"""The command line: what it asks of the rooms, what it says, and its exit codes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import torch
from click.testing import CliRunner

from atlaskit import cli, models, runs
from atlaskit.runs.outcome import Failure, Outcome

FIRST = 'from atlaskit.runs import Run\nrun = Run("{name}", {{}})\nrun.find("seven", 7)\nrun.save()'


def write(folder: Path, name: str, declared: str, *code: str) -> None:
    cells = [nbformat.v4.new_code_cell(declared, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in code]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Two notebooks in ./notebooks; `execute` only notes what it is asked, and fails for those in `broken`."""
    write(tmp_path / "notebooks", "01_one", 'model: str = "tiny"\nsize: int = 3')
    write(tmp_path / "notebooks", "02_two", "size: int = 4\nlayers: list = []")
    monkeypatch.chdir(tmp_path)
    calls = {"broken": set()}

    def execute(notebook, out, parameters, *, timeout):
        calls[notebook.stem] = (parameters, timeout)
        folder = out / notebook.stem
        folder.mkdir(parents=True)
        (folder / notebook.name).write_bytes(notebook.read_bytes())
        outcome = Outcome(notebook.stem, {}, started="2026-01-01T00:00:00+00:00", seconds=1.0)
        if notebook.stem in calls["broken"]:
            outcome.failure = Failure("ValueError", "no such head", cell=2)
        outcome.write(folder)
        if outcome.failure:
            raise runs.NotebookError(outcome, folder / notebook.name)
        run = runs.Run(notebook.stem, {})
        run.save(folder)
        return run

    monkeypatch.setattr(runs, "execute", execute)
    return calls


def call(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def test_without_names_every_notebook_runs_and_the_report_is_named(asked, tmp_path):
    result = call("run")
    assert result.exit_code == 0
    assert asked == {"broken": set(), "01_one": ({}, 600), "02_two": ({}, 600)}
    assert result.output.splitlines()[-1] == f"report: {tmp_path / 'runs/index.html'}"
    assert (tmp_path / "runs/index.html").exists()


def test_a_parameter_reaches_every_notebook_that_has_it_with_its_type(asked):
    assert call("run", "-p", "size", "9", "--model", "gpt2", "--timeout", 5).exit_code == 0
    assert asked["01_one"] == ({"size": 9, "model": "gpt2"}, 5)
    assert asked["02_two"] == ({"size": 9}, 5)


def test_only_named_notebooks_run_into_the_folder_asked_for(asked, tmp_path):
    assert call("run", "02_two.ipynb", "--out", tmp_path / "elsewhere").exit_code == 0
    assert set(asked) == {"broken", "02_two"}
    assert (tmp_path / "elsewhere/index.html").exists()


def test_a_notebook_may_be_given_by_its_path_wherever_it_lies(asked, tmp_path):
    (tmp_path / "own").mkdir()
    shutil.copy(tmp_path / "notebooks/01_one.ipynb", tmp_path / "own/mine.ipynb")
    result = call("run", tmp_path / "own/mine.ipynb", "notebooks/02_two.ipynb", "02_two")
    assert (result.exit_code, set(asked)) == (0, {"broken", "mine", "02_two"}), result.output
    shutil.copy(tmp_path / "own/mine.ipynb", tmp_path / "own/02_two.ipynb")
    result = call("run", "own/02_two.ipynb", "02_two")
    assert result.exit_code == 2
    assert "have one name, and would write to one folder" in " ".join(result.output.split())


def test_a_failed_notebook_does_not_stop_the_others_and_the_exit_code_is_1(asked, tmp_path):
    asked["broken"].add("01_one")
    result = call("run")
    assert result.exit_code == 1
    assert "02_two" in asked
    assert "01_one failed in cell In [2]: ValueError: no such head" in result.output
    assert "1 of 2 notebooks failed" in (tmp_path / "runs/index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["03_three"], "no notebook named 03_three; there are 01_one, 02_two"),
        (["-p", "sise", "1"], "no chosen notebook has a parameter sise; did you mean size?"),
        (["-p", "zzz", "1"], "no chosen notebook has a parameter zzz; they have layers, model, size"),
        (["02_two", "--model", "x"], "no chosen notebook has a parameter model; they have layers, size"),
        (["-p", "size", "many"], "size must be int, got str 'many'"),
        (["--notebooks", "nowhere"], "nowhere; run this where the notebooks/ folder is, or say --notebooks FOLDER"),
        (["--timeout", "0"], "0 is not in the range x>=1"),
    ],
)
def test_a_wrong_request_starts_nothing_and_exits_with_2(asked, arguments, message):
    result = call("run", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert set(asked) == {"broken"}


def test_all_wrong_requests_are_listed_together(asked):
    result = call("run", "-p", "zzz", "1", "-p", "size", "x", "-p", "layers", "{")
    assert [result.output.count(text) for text in ("zzz", "size must be int", "layers must be list")] == [1, 2, 1]


def test_a_notebook_without_declared_parameters_is_a_wrong_request(asked, tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks/03_bare.ipynb")
    result = call("run")
    assert result.exit_code == 2
    assert "03_bare.ipynb has 0 cells tagged 'parameters'" in result.output


def test_info_names_versions_device_and_every_model_at_hand():
    result = call("info")
    assert result.exit_code == 0
    assert torch.__version__ in result.output
    assert "device" in result.output
    assert all(name in result.output for name in models.available())


@pytest.mark.story
def test_ctrl_c_keeps_what_had_finished_and_still_writes_the_report(tmp_path):
    write(tmp_path / "notebooks", "first", "", FIRST.format(name="first"))
    write(tmp_path / "notebooks", "second", "", "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(99)")
    # Some CI shells start their children with SIGINT ignored; a person's does not.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from atlaskit.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "started").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert runs.Run.load(tmp_path / "runs/first").findings == {"seven": 7}
    assert Outcome.read(tmp_path / "runs/second").failure.name == "KeyboardInterrupt"
    page = (tmp_path / "runs/index.html").read_text()
    assert "1 of 2 notebooks failed" in page
    assert "stopped by hand" in page
