"""Border: a plan is data, checked whole, each problem with its line; what it says is what would run."""

import ast

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.parameterize import parameterize_notebook

from atlaskit import runs


@pytest.fixture
def plan(tmp_path, write):
    """Call it with YAML: the plan read from a file beside two notebooks and two texts."""
    for name, declared in {"one": 'size: int = 3\nmodel: str = "m"\nseed: int = 0', "two": "seed: int = 0"}.items():
        write(tmp_path / f"{name}.ipynb", declared=declared)
    (tmp_path / "texts.txt").write_text("first\n\n second\nthird\n")

    def read(text, **checks):
        (tmp_path / "plan.yaml").write_text(text)
        return runs.read_plan(tmp_path / "plan.yaml", checks=checks)

    return read


def values(plan):
    return [(run.notebook.stem, dict(run.parameters)) for run in plan.runs]


def test_values_are_crossed_zipped_and_fixed_and_the_rest_keep_their_defaults(plan, tmp_path):
    found = plan("""
out: results
limits: {workers: 2, threads: 3, memory: 1.5 GB, seconds: 60, cell_seconds: 7, attempts: 2, gpus: [1, 0]}
runs:
  - notebook: one
    set: {size: 4}
    cross: {seed: {range: [0, 5, 2]}}
    zip: {model: {lines: texts.txt}}
  - notebook: [two.ipynb]
""")
    texts = ("first", " second", "third")
    expected = [("one", {"size": 4, "model": text, "seed": seed}) for seed in (0, 2, 4) for text in texts]
    assert values(found) == [*expected, ("two", {"seed": 0})]
    assert found.out == tmp_path / "results"
    assert found.limits == runs.Limits(seconds=60, memory=1_500_000_000, threads=3, attempts=2)
    assert (found.workers, found.gpus, found.cell_seconds, found.cwd) == (2, (1, 0), 7, tmp_path)
    assert found.varied == ["model", "seed"]
    assert len({run.name for run in found.runs}) == 10


def test_what_is_zipped_stays_side_by_side_and_files_are_texts(plan, tmp_path):
    (tmp_path / "b.text").write_text("B\nb\n")
    (tmp_path / "a.text").write_text("A\n")
    found = plan("out: o\nruns:\n  - notebook: one\n    zip: {model: {files: '*.text'}, size: [1, 2]}\n")
    assert [(run["model"], run["size"]) for _, run in values(found)] == [("A", 1), ("B\nb", 2)]


def test_every_problem_is_listed_with_its_line(plan, tmp_path):
    with pytest.raises(ValueError) as caught:
        plan(
            """out: o
limits:
  memory: lots
  seconds: 0
  colour: red
runs:
  - notebook: one
    set: {sise: 4}
    cross:
      seed: [1, x]
      model: [here, lost]
  - notebook: three
  - notebook: two
    zip: {seed: [1, 2], size: [1]}
  - notebook: two
    cross: {seed: {range: [5, 5]}}
  - notebook: two
    cross: {seed: {lines: none.txt}}
  - notebook: two
    set: {seed: !!python/object/apply:os.system [echo]}
  - notebook: two
    set: {seed: 1, seed: 2}
""",
            model=lambda name: f"there is no {name}" if name == "lost" else None,
        )
    told = str(caught.value)
    assert told.startswith(f"{tmp_path / 'plan.yaml'} cannot run:\n")
    for line in [
        "line 3: memory must be like 4 GB or 500 MB, not 'lots'",
        "line 4: seconds must be at least 1, not 0",
        "line 5: colour is unknown; limits has workers, gpus, threads, memory, seconds, cell_seconds, attempts",
        "line 8: sise is unknown; did you mean size?",
        "line 10: seed must be int, got str 'x'",
        "line 11: there is no lost",
        f"line 12: there is no notebook {tmp_path / 'three.ipynb'}",
        "line 14: what is zipped must be equally long, and here are seed 2, size 1",
        "line 16: a range of 0 values; it may hold 1 to 100,000",
        f"line 18: {tmp_path / 'none.txt'} cannot be read",
        "line 20: plans hold plain values only: could not determine a constructor",
        "line 22: seed stands here twice",
    ]:
        assert f"  {line}" in told, line
    assert len(told.splitlines()) == 13


def test_a_run_that_is_asked_for_twice_is_a_problem(plan):
    text = "out: o\nruns:\n  - notebook: one\n    cross: {seed: [1, 2]}\n  - notebook: one\n    set: {seed: 2}\n"
    with pytest.raises(ValueError, match=r"line 5: one\(size=3, model='m', seed=2\) is already made by line 3"):
        plan(text)
    with pytest.raises(ValueError, match="already made by line 3"):
        plan("out: o\nruns:\n  - notebook: one\n    cross: {seed: [2, 2]}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: o\nruns: [{notebook: one", "line 2: this is not YAML"),
        ("- 1", "line 1: a plan must be names and values, like out: …"),
        ("", "line 1: a plan must be names and values"),
        ("runs: [{notebook: one}]", "line 1: a plan needs out"),
        ("out: o\nruns: []", "line 2: runs must be a list with something in it"),
        ("out: 3\nruns: [{notebook: one}]", "line 1: this must be str, not 3"),
        ("out: o\nruns: [{cross: {seed: [1]}}]", "line 2: an entry of runs needs notebook"),
        ("out: o\nruns: [{notebook: one, cross: {seed: 1}}]", "line 2: give a list, {range"),
        ("out: o\nruns: [{notebook: one, cross: {seed: []}}]", "an empty list makes no runs"),
        ("out: o\nruns: [{notebook: one, cross: {model: {files: '*.none'}}}]", "no file matches"),
        ("out: o\nruns: [{notebook: one, set: {seed: 1}, cross: {seed: [2]}}]", "seed is given twice in this entry"),
        ("out: o\nruns: [{notebook: one, set: {seed: 2024-01-01}}]", "seed must be int, got date"),
        ("out: o\nruns: [{notebook: one, cross: {seed: {range: [0, 1000]}, size: {range: [0, 1000]}}}]", "1,000,000"),
    ],
)
def test_what_is_no_plan_says_why(plan, text, message):
    with pytest.raises(ValueError) as caught:
        plan(text)
    assert message in str(caught.value)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["text", "size", "layers"]), ANY | st.just('"); import os; os.abort(); ("')))
def test_a_parameter_becomes_a_literal_and_never_code(values):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cell = nbformat.v4.new_code_cell("text = 1", metadata={"tags": ["parameters"]})
    about = {"kernelspec": kernel, "papermill": {}}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata=about)
    done = parameterize_notebook(notebook, values, kernel_name="python3", language="python")
    (injected,) = [cell for cell in done.cells if "injected-parameters" in cell.metadata.tags]
    lines = ast.parse(injected.source).body
    assert [line.targets[0].id for line in lines] == list(values)
    for line in lines:
        for node in ast.walk(line.value):
            if isinstance(node, ast.Call):
                assert ast.unparse(node) in ("float('nan')", "float('inf')", "float('-inf')")
        found = eval(compile(ast.Expression(line.value), "injected", "eval"), {"__builtins__": {}, "float": float})
        assert repr(found) == repr(values[line.targets[0].id])
