"""Story: small notebooks in real kernels, one that finishes and four that do not."""

import json
import math
import os
import re

import nbformat
import pytest

from atlaskit.records import Estimate
from atlaskit.runs import Run


def text_of(path):
    return "\n".join(
        output.get("text", "") for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])
    )


def test_a_finished_notebook_leaves_these_files_and_no_others(good, out):
    expected = {"good.ipynb", "good.html", "run.json", "outcome.json", "kernel.log"}
    assert {path.name for path in (out / "good").iterdir()} == expected


def test_the_findings_come_back_as_they_were_found(good):
    assert good.findings["entropy"] == Estimate(2.5, 2.25, 2.75, 3.0, 3.5, "bits", 40, 0.001)
    assert math.isnan(good.findings["undefined"].value)
    assert good.findings["undefined"].high == math.inf
    assert good.findings["best <head>"] == "3.7"
    assert good.model_hash == "abc"


def test_given_parameters_are_injected_and_the_others_keep_their_defaults(good):
    assert good.parameters == {"size": 5, "name": "α <b>", "rate": math.inf, "fast": True, "layers": [0, 2]}


def test_a_notebook_runs_in_a_process_of_its_own_and_leaves_our_environment_alone(good, out):
    assert good.findings["pid"] != os.getpid()
    assert good.findings["folder"] == str(out / "good")
    assert "ATLASKIT_RUN_FOLDER" not in os.environ


def test_the_html_loads_nothing_from_outside_and_keeps_figures_and_formulas(good, out):
    html = (out / "good/good.html").read_text()
    loads = re.findall(r"""(?:src|srcset|poster|data)=["']?(?:https?:)?//|@import|url\(["']?(?:https?:)?//""", html)
    assert loads == []
    assert not re.search(r"""<link[^>]+href|import\(["']|\brequire(js|\.min)""", html)
    assert "<mfrac>" in html
    assert 'id="drawn"' in html
    assert html.count("A live control stands here in JupyterLab.") == 1  # the slider; the progress bar is gone
    assert "prefers-color-scheme: dark" in html
    assert '<html lang="en">' in html


def test_in_a_notebook_progress_is_a_widget_that_counts_and_tells_what_the_caller_notes(good, out):
    (text,) = good.findings["progress"]
    assert "2 done, 0 running, 1 failed, 0 to go, 5 tokens/s" in text
    assert "to go" not in text_of(out / "good/good.ipynb"), "a line on stderr would be printed at each look"


def test_a_kernel_is_spoken_to_through_files_since_a_free_port_can_be_taken_before_it_starts(good):
    assert good.findings["transport"] == "ipc"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "raises",
            r"raises failed in cell In \[2\]: ValueError: <script>alert\(1\)</script> sizes 3 and 4\n.*kept in .*",
        ),
        ("dies", r"dies failed in cell In \[2\]: DeadKernelError: its kernel died"),
        ("hangs", r"hangs failed in cell In \[1\]: TimeoutError: it ran longer than 2 seconds"),
        ("forgets", r"forgets failed in RuntimeError: forgets saved no findings; let its last cell be run.save\(\)"),
    ],
)
def test_a_failure_names_the_cell_the_error_and_what_is_kept(failed, name, message):
    assert re.match(message, str(failed[name]))
    assert str(failed[name].kept) in str(failed[name])
    assert failed[name].kept.exists()
    assert failed[name].kept.with_suffix(".html").exists()


def test_what_ran_before_the_failure_is_kept_and_the_rest_did_not_run(failed):
    assert "before" in text_of(failed["raises"].kept)
    cells = [cell for cell in nbformat.read(failed["raises"].kept, 4).cells if cell.cell_type == "code"]
    assert [bool(cell.outputs) for cell in cells][-3:] == [True, True, False]


def test_a_failure_is_on_disk_in_full(failed):
    outcome = json.loads((failed["raises"].kept.parent / "outcome.json").read_text())
    assert outcome["failure"]["source"].startswith("raise ValueError")
    assert "ValueError" in outcome["failure"]["traceback"]
    assert "\x1b" not in outcome["failure"]["traceback"]
    assert not (failed["raises"].kept.parent / "run.json").exists()


def test_the_page_of_a_killed_notebook_says_why_it_ends(failed):
    assert "its kernel died" in failed["dies"].kept.with_suffix(".html").read_text()
    assert "last words" in failed["dies"].outcome.failure.traceback


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (Run("other", {"size": 5}), r"it names the notebook 'other'"),
        (Run("mine", {"size": 4}), r"differs in the parameters \{'size': 4\}"),
        (Run("mine", {}), r"differs in the parameters \{'size': 'missing'\}"),
    ],
)
def test_a_run_about_something_else_is_not_accepted(saved, message, tmp_path, write, monkeypatch):
    from atlaskit import runs

    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: saved.save(tmp_path / "out/mine"))
    with pytest.raises(runs.NotebookError, match=message):
        runs.execute(write(tmp_path / "mine.ipynb", declared="size = 5"), tmp_path / "out")


def test_a_second_execution_removes_what_the_first_one_left(tmp_path, write, monkeypatch):
    from atlaskit import runs

    Run("mine", {"size": 5}).save(tmp_path / "out/mine")
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: None)
    with pytest.raises(runs.NotebookError, match="saved no findings"):
        runs.execute(write(tmp_path / "mine.ipynb", declared="size = 5"), tmp_path / "out")


def test_a_fault_of_ours_passes_through_and_is_not_recorded_as_finished(tmp_path, write, monkeypatch):
    from atlaskit import runs
    from atlaskit.runs.outcome import Outcome

    def broken(*_args, **_kwargs):
        raise KeyError("ours")

    monkeypatch.setattr("papermill.execute_notebook", broken)
    with pytest.raises(KeyError, match="ours"):
        runs.execute(write(tmp_path / "mine.ipynb", declared=""), tmp_path / "out")
    assert Outcome.read(tmp_path / "out/mine").failure.name == "KeyError"
