"""Story: every notebook keeps the style of the house, runs from top to bottom, and records what it found."""

import ast
import json
import re
import subprocess
import sys
import types
from importlib.metadata import version
from pathlib import Path
from statistics import median

import nbformat
import pytest

from atlaskit import runs

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# One execution each beside the defaults: small, and as different as it can be.
OTHERWISE = {
    "01_tutorial": {"model": "all-minilm-l6-v2", "text": "Two <b>& tokens.", "max_tokens": 16, "seed": 1},
    "02_fractal_analysis": {"model": "all-minilm-l6-v2", "n_tokens": 64, "n_documents": 3, "draws": 19, "seed": 1}
    | {"nulls": ["column"], "orders": [2.0]},
    "03_head_specialization": {"model": "all-minilm-l6-v2", "relations": ["amod"], "ablation": "none", "seed": 1},
    "04_bias": {"model": "mini-masked", "domains": ["gender"], "n_families": 10, "seed": 1},
    "06_fractal_attention_training": {"patterns": ["moser", "ternary_lags"], "task": "needle", "n": 24, "layers": 1}
    | {"steps": 10, "seeds": [3, 4], "seed": 1},
    "05_atlas_geometry": {"model": "all-minilm-l6-v2", "max_tokens": 24, "points": 300, "rank": 3, "nulls": 12}
    | {"predicts": False, "train_steps": 5, "seed": 1},
}

OPENING = ["Parameters", "Setup", "Predict"]
CLOSING = ["Explore", "Exercises", "Conclusions", "Record"]
FORBIDDEN_CALLS = {"filterwarnings", "simplefilter", "get_ipython", "system", "exec", "eval"}


def read(path):
    return nbformat.read(path, as_version=4)


def cells(path, kind):
    return [cell for cell in read(path).cells if cell.cell_type == kind]


def code(path):
    """The code cells of the story: (source, tree)."""
    story = [cell.source for cell in cells(path, "code") if "install" not in tags(cell)]
    return [(source, ast.parse(source)) for source in story]


def tags(cell):
    return cell.metadata.get("tags", [])


def install_cell(path):
    """What comes before everything else."""
    first = cells(path, "code")[0]
    assert tags(first) == ["install"]
    return first.source


def lines(source):
    return [line for line in source.splitlines() if line.strip()]


def test_there_are_notebooks():
    assert NOTEBOOKS


@EACH
def test_the_file_is_valid_named_in_order_and_holds_no_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert re.fullmatch(r"\d\d_[a-z]+(_[a-z]+)*", path.stem)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}


@EACH
def test_parameters_are_declared_once_each_with_a_type_and_a_word_of_help(path):
    declared = runs.declared_parameters(path)
    (cell,) = [cell for cell in read(path).cells if "parameters" in tags(cell)]
    assert {"model", "seed"} <= set(declared)
    assert len(lines(cell.source)) == len(declared)
    for line in lines(cell.source):
        assert re.match(r"\w+: (bool|int|float|str|list|dict) = .*  # \w", line), line
        assert "=" not in line.rsplit("#", 1)[1], "papermill's own reader stumbles over = in a comment"


@EACH
def test_the_story_opens_and_closes_like_the_others(path):
    prose = "\n".join(cell.source for cell in cells(path, "markdown"))
    number = int(path.stem[:2])
    assert re.match(rf"# {number} · .+\n", prose), "the title is `# 1 · A question?`"
    headings = [line.removeprefix("## ").split(":")[0] for line in prose.splitlines() if line.startswith("## ")]
    assert headings[: len(OPENING)] == OPENING
    assert headings[-len(CLOSING) :] == CLOSING
    assert {"Measure", "Look", "Null", "Check"} <= set(headings)
    for promise in ("What this shows", "What it does not show", "Further"):
        assert f"**{promise}" in prose


@EACH
def test_prose_leads(path):
    written, told = cells(path, "markdown"), cells(path, "code")
    words = sum(len(cell.source.split()) for cell in written)
    assert all(len(lines(cell.source)) <= 12 for cell in written)
    assert 0.5 <= len(told) / len(written) <= 2
    assert 800 <= words <= 2500


@EACH
def test_code_cells_are_short(path):
    sizes = [len(lines(source)) for source, _ in code(path)]
    assert max(sizes) <= 15
    assert median(sizes) <= 7
    wide = [line for cell in cells(path, "code") for line in cell.source.splitlines() if len(line) > 120]
    assert [line for line in wide if "parameters" not in tags(cell_of(path, line))] == [], "120 columns fit the page"


def cell_of(path, line):
    return next(cell for cell in cells(path, "code") if line in cell.source)


@EACH
def test_only_the_setup_imports_and_nothing_is_hidden(path):
    importing = [i for i, (_, tree) in enumerate(code(path)) if any(map(is_import, ast.walk(tree)))]
    assert importing == [1], "the cell after the parameters, and no other"
    for source, tree in code(path):
        assert not re.search(r"^\s*[!%]", source, re.MULTILINE), "no magics and no shell"
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Try), source
            if isinstance(node, ast.Call):
                assert called(node) not in FORBIDDEN_CALLS, source
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 10, f"{node.name} belongs into the package"
            assert not isinstance(node, ast.ClassDef), source


def is_import(node):
    return isinstance(node, ast.Import | ast.ImportFrom)


def called(node):
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def test_every_notebook_installs_in_the_same_way_and_only_on_colab(monkeypatch):
    (source,) = {install_cell(path) for path in NOTEBOOKS}
    assert len(lines(source)) <= 15
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command))
    exec(source, {})
    assert asked == []
    switched = []
    manager = types.ModuleType("google.colab.output")
    manager.enable_custom_widget_manager = lambda: switched.append(True)
    colab = types.ModuleType("google.colab")
    colab.output = manager
    for name, module in (("google", types.ModuleType("google")), ("google.colab", colab)):
        monkeypatch.setitem(sys.modules, name, module)
    exec(source, {})
    (command,) = asked
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    for name in ("torch", "numpy"):  # asked for as they are, so that pip can neither take nor replace them
        assert f"{name}=={version(name)}" in command
    assert switched == [True]


@EACH
def test_exercises_have_solutions_that_are_checked(path):
    solutions = [cell.source for cell in cells(path, "code") if "solution" in tags(cell)]
    assert 2 <= len(solutions) <= 4
    assert all("assert" in source for source in solutions)


@EACH
def test_the_last_cell_records_the_run(path):
    assert read(path).cells[-1].source.startswith("run.save(")


@pytest.mark.story
@EACH
def test_it_runs_with_its_own_parameters_and_records_findings(path, executed):
    check_execution(executed(path.stem), runs.check_parameters(path, {}))


@pytest.mark.story
@EACH
def test_it_runs_with_other_parameters(path, tmp_path):
    assert path.stem in OTHERWISE, "write down one other set of parameters for this notebook"
    runs.execute(path, tmp_path, OTHERWISE[path.stem])
    check_execution(tmp_path / path.stem, runs.check_parameters(path, OTHERWISE[path.stem]))


def check_execution(folder, parameters):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads((folder / "run.json").read_text(), parse_constant=refuse)
    run = runs.Run.load(folder)
    assert run.parameters == parameters
    assert run.model_hash
    assert run.estimates, "what a notebook concludes is an Estimate"
    assert all(found.n >= 2 and found.unit for found in run.estimates.values())
    assert run.arrays, "what it measured is kept, for whoever aggregates runs"
    outputs = [output for cell in cells(folder / f"{folder.name}.ipynb", "code") for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []
    assert any("text/html" in output.get("data", {}) for output in outputs), "a notebook shows figures"
    assert (folder / f"{folder.name}.html").stat().st_size < 12e6
