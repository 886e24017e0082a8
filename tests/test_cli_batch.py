"""The command line of batches: plans refused whole, dry runs, progress, exit codes, and the report with its figures."""

import json
import re
from contextlib import nullcontext
from importlib import import_module

import nbformat
import pytest
from click.testing import CliRunner

from atlaskit import cli, runs
from atlaskit.runs.manifest import publish
from atlaskit.runs.outcome import Failure

batch = import_module("atlaskit.cli.batch")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan of four runs in the current folder."""
    declared = nbformat.v4.new_code_cell("seed: int = 0\nmodel: str = 'mini-causal'", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[declared]), tmp_path / "one.ipynb")
    text = "out: o\nruns:\n  - notebook: one\n    cross: {seed: [1, 2], model: [mini-causal, all-minilm-l6-v2]}\n"
    (tmp_path / "plan.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "plan.yaml"


@pytest.fixture
def ending(monkeypatch):
    """Call it with states: a batch that ends so, without a process."""

    def end(*states, message="no such head"):
        def drive(tasks, executor, *, progress, heard):
            ended = {}
            for task, state in zip(tasks, states, strict=True):
                failure = Failure("ValueError", message) if state == "failed" else None
                ended[task.name] = runs.Ended(task.name, state, failure)
                heard(ended[task.name])
            return ended

        monkeypatch.setattr(import_module("atlaskit.runs.batch"), "drive", drive)

    return end


def call(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def test_a_dry_run_prints_the_table_and_starts_nothing(plan):
    done = call("batch", plan, "--dry-run")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].split() == ["notebook", "seed", "model"]
    assert [line.split() for line in lines[1:5]] == [
        ["one", seed, model] for seed in "12" for model in ("mini-causal", "all-minilm-l6-v2")
    ]
    assert lines[5] == f"4 runs into {plan.parent / 'o'}"
    assert not (plan.parent / "o").exists()


def test_a_missing_model_is_found_before_anything_starts(plan):
    (plan.parent / "empty").mkdir()
    plan.write_text(
        "out: o\nruns:\n  - notebook: one\n    cross:\n      model:\n        - mini-causal\n        - ./lost\n"
        "        - empty\n        - a/b/c\n        - org/name\n"
    )
    done = call("batch", plan)
    assert done.exit_code == 2
    assert re.findall(r"line (\d+)", done.output) == ["7", "8", "9"]
    assert "there is no folder lost" in done.output.replace("./", "")
    assert "holds no config.json" in done.output
    assert "a/b/c is no bundled model" in done.output


@pytest.mark.parametrize(
    ("states", "code", "told"),
    [
        (["done"] * 4, 0, "4 done, 0 failed, 0 stopped"),
        (
            ["done", "failed", "done", "done"],
            1,
            "one(seed=1, model='all-minilm-l6-v2'): ValueError: no such",
        ),
        (["done", "stopped", "stopped", "stopped"], 130, "stopped; what is done is kept. Go on with: atlaskit batch"),
    ],
)
def test_the_exit_code_says_how_it_ended(plan, ending, states, code, told):
    ending(*states)
    done = call("batch", plan)
    assert done.exit_code == code, done.output
    assert told in done.output
    assert (plan.parent / "o/index.html").exists()


def test_a_full_disk_says_so(plan, ending):
    ending("failed", "stopped", "stopped", "stopped", message="the disk is full")
    assert "the disk is full; what is done is kept. Go on with: atlaskit batch" in call("batch", plan).output


def test_every_kind_of_executor_can_be_asked_for(plan, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "Slurm", lambda *given, **options: asked.append((given, options)) or nullcontext())
    planned = runs.read_plan(plan)
    options = {"kind": "slurm", "workers": 3, "slurm_options": (("slurm_partition", "gpu"), ("timeout_min", "7"))}
    batch.executor(planned, options)
    assert asked == [
        ((planned.out, planned.limits), {"workers": 3, "cluster": "slurm", "slurm_partition": "gpu", "timeout_min": 7})
    ]


def test_where_a_cluster_is_to_be_seen_is_told(plan, monkeypatch, capsys):
    asked = []

    class Cluster:
        dashboard = "http://127.0.0.1:8787/status"

        def __init__(self, *given, **options):
            asked.append((given, options))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            """Nothing is open."""

    monkeypatch.setattr(runs, "Dask", Cluster)
    batch.executor(runs.read_plan(plan), {"kind": "dask", "scheduler": "tcp://10.0.0.1:8786", "workers": 3})
    assert asked == [(("tcp://10.0.0.1:8786",), {"workers": 3})]
    assert capsys.readouterr().out == "dashboard: http://127.0.0.1:8787/status\n"


def test_the_report_of_a_folder_that_holds_nothing_says_what_to_do(tmp_path):
    done = call("report", tmp_path)
    assert done.exit_code == 1
    assert "holds no executed notebook; run some first" in done.output


@pytest.mark.story
def test_the_report_of_a_batch_draws_every_finding_and_once_more_along_checkpoints(plan, ending, tmp_path):
    plan.write_text(
        plan.read_text().replace("mini-causal, all-minilm-l6-v2", "mini-steps/0, mini-steps/3000, mini-steps/9000")
    )
    ending(*["done"] * 6)
    call("batch", plan)
    for i, place in enumerate(runs.places(tmp_path / "o")):
        found = {"value": i + 1.0, "low": i + 0.5, "high": i + 1.5, "null_low": -1.0, "null_high": 0.0, "unit": "bits"}
        content = {"notebook": "one", "parameters": dict(place.parameters), "model_hash": None, "versions": {}}
        content["findings"] = {"entropy": {"$estimate": found | {"n": 3, "p": 0.5}}, "count": i}
        staging = tmp_path / f"staging{i}"
        (staging / "one").mkdir(parents=True)
        (staging / "one/run.json").write_text(json.dumps(content))
        key = json.loads((tmp_path / "o/batch.json").read_text())["runs"][i]["key"]
        publish(staging, runs.Task(place.name, "", {}, key, out=tmp_path / "o"))
    done = call("report", tmp_path / "o")
    assert done.exit_code == 0, done.output
    run = runs.Run.load(tmp_path / "o/aggregate")
    assert run.findings["runs done"] == 6
    assert run.findings["findings in a setting"] == 6
    assert run.findings["of these apart from their null"] == 0
    cells = nbformat.read(tmp_path / "o/aggregate/aggregate.ipynb", as_version=4).cells
    (panels,) = [cell for cell in cells if cell.source.startswith("panels = []")]
    drawn = json.dumps(panels.outputs)
    assert all(name in drawn for name in ("entropy", "count", "null"))
    page = (tmp_path / "o/aggregate/aggregate.html").read_text()
    assert "Failures first" in page
    (effects,) = re.findall(r'aria-label="Effects".*?</table>', page, re.DOTALL)
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>.*?</tr>", effects, re.DOTALL)]
    told = [row for row in rows if row[0] == "entropy"]
    for i, row in enumerate(told):  # of the values i + 1 and i + 4 by two seeds, less the null's middle, -0.5
        assert row[row.index("no") - 4] == f"{i + 3}"
    assert len(told) == 3
    assert "aggregate/aggregate.html" in (tmp_path / "o/index.html").read_text()
