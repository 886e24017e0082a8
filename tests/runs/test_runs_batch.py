"""Story: real notebooks over a small grid, disturbed and undisturbed, with the aggregate byte by byte the same."""

import json
import math
import random
import re
import signal
import threading
import time

import numpy
import psutil
import pyarrow.dataset
import pyarrow.parquet
import pytest

from atlaskit import runs
from atlaskit.runs import aggregate

DECLARED = 'text: str = "a"\nseed: int = 0\nuntil: str = ""'

# A notebook that does not import atlaskit: its kernel starts fast. What Run.save would write, it writes itself.
TINY = """import json, numpy, os, pathlib, random, time
folder = pathlib.Path(os.environ["ATLASKIT_RUN_FOLDER"])
began = pathlib.Path(until + ".began") if until else None
if until and not began.exists():
    began.write_text(str(os.getpid()))
    while not pathlib.Path(until).exists():
        time.sleep(0.05)
draw = random.Random(f"{text} {seed}").random()
found = {"value": draw, "low": draw - 1, "high": draw + 1, "null_low": -2.0, "null_high": -1.5, "unit": "bits", "n": 9}
content = {"notebook": "tiny", "parameters": {"text": text, "seed": seed, "until": until}, "model_hash": None}
content["findings"] = {"bits <b>": {"$estimate": found | {"p": 0.5}}, "which": "3.7", "list": [1, 2], "count": 7}
if text == "wrong":
    raise ValueError("no such <text>")
numpy.savez(folder / "arrays.npz", bits=numpy.array([[draw, 1.5, -0.0], [numpy.nan, 2.0, seed]], numpy.float32))
content["axes"] = {"bits": ["document", "head"]}
(folder / "run.json").write_text(json.dumps(content | {"versions": {}}))"""


@pytest.fixture(scope="module")
def notebook(write, tmp_path_factory):
    return write(tmp_path_factory.mktemp("source") / "tiny.ipynb", TINY, declared=DECLARED)


@pytest.fixture(scope="module")
def here():
    with runs.Local(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def whole(notebook, here, tmp_path_factory):
    """A batch of three runs and a failure, undisturbed: the folder, and how it ended."""
    out = tmp_path_factory.mktemp("batch") / "out"
    grid = {"text": ["a", "wrong"], "seed": [0, 1]}
    return out, runs.batch(notebook, grid, out=out, executor=here, progress=False)


def test_a_batch_leaves_every_run_whole_and_its_failures_explained(whole):
    out, done = whole
    states = [one.state for one in done.ended.values()]
    assert states == ["done", "done", "failed", "failed"], [str(one.failure) for one in done.ended.values()]
    assert (done.count("done"), done.count("failed"), done.count("stopped")) == (2, 2, 0)
    names = list(done.ended)
    files = {str(path.relative_to(out / "done" / names[0])) for path in (out / "done" / names[0]).rglob("*.*")}
    inside = {"tiny.ipynb", "tiny.html", "run.json", "arrays.npz", "outcome.json", "kernel.log"}
    assert files == {f"tiny/{name}" for name in inside} | {
        "manifest.json", "findings.parquet", "arrays/bits.parquet", "index.html", "worker.log",
    }  # fmt: skip
    assert done.ended[names[2]].failure.name == "ValueError"
    assert (out / "failed" / names[2] / "tiny/tiny.html").exists()
    key = json.loads((out / "done" / names[0] / "manifest.json").read_text())["key"]
    assert key["parameters"] == {"text": "a", "seed": 0, "until": ""}
    assert set(key) == {"notebook", "source", "parameters", "files", "atlaskit"}


def test_the_aggregate_has_a_row_for_every_finding_with_its_parameters(whole):
    out, _ = whole
    rows = pyarrow.parquet.read_table(out / "aggregate.parquet").to_pylist()
    assert [row["finding"] for row in rows] == ["bits <b>", "which", "list", "count"] * 2
    assert [row["parameter.seed"] for row in rows] == [0] * 4 + [1] * 4
    assert (rows[0]["unit"], rows[0]["n"], rows[0]["null_high"]) == ("bits", 9, -1.5)
    assert (rows[1]["text"], rows[2]["text"], rows[3]["value"]) == ("3.7", "[1, 2]", 7.0)
    (effect,) = [one for one in runs.across(aggregate.aggregate_rows(runs.places(out)), ["text", "seed"]) if one.unit]
    assert effect.seeds == 2
    assert effect.value == pytest.approx((rows[0]["value"] + rows[4]["value"]) / 2)


def test_the_arrays_of_all_runs_are_read_as_one_dataset_with_their_axes(whole):
    out, done = whole
    table = pyarrow.parquet.read_table(out / "done" / next(iter(done.ended)) / "arrays/bits.parquet").to_pydict()
    assert (table["document"], table["head"]) == ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2])
    drawn = numpy.float32(random.Random("a 0").random())
    numpy.testing.assert_array_equal(table["value"], [drawn, 1.5, -0.0, math.nan, 2.0, 0.0])
    everything = pyarrow.dataset.dataset(sorted(map(str, out.glob("done/*/arrays/bits.parquet")))).to_table()
    assert everything.num_rows == 12


def test_the_page_puts_failures_first_links_every_run_and_escapes(whole):
    out, _ = whole
    html = (out / "index.html").read_text()
    assert "2 of 4 runs failed" in html
    assert html.index("no such &lt;text&gt;") < html.index("<caption>Effects across seeds") < html.index("Every run")
    links = re.findall(r'href="([^"#]+)"', html)
    assert {link for link in links if not (out / link).exists()} == set()
    assert sum("done/" in link for link in links) == 2
    assert "bits &lt;b&gt;" in html
    assert not re.search(r"url\(|@import|https?://|<script", html)


def test_the_same_call_does_nothing_again_but_what_failed(whole, notebook, here):
    out, _ = whole
    before = (out / "aggregate.parquet").read_bytes()
    again = runs.batch(notebook, {"text": ["a"], "seed": [0, 1]}, out=out, executor=here, progress=False)
    assert [(one.state, one.attempts) for one in again.ended.values()] == [("done", 0)] * 2
    assert (out / "aggregate.parquet").read_bytes() == before


def test_killed_kernels_and_workers_change_no_byte(notebook, here, tmp_path):
    go = tmp_path / "go"
    grid = {"seed": [0, 1], "until": [str(go)]}
    victims = []

    def kill():
        began = tmp_path / "go.began"
        while not began.exists() or not began.read_text():
            time.sleep(0.05)
        kernel = psutil.Process(int(began.read_text()))
        victims.append(kernel.pid)
        go.touch()  # whoever comes next need not wait
        kernel.send_signal(signal.SIGKILL)

    began = threading.Thread(target=kill)
    began.start()
    disturbed = runs.batch(notebook, grid, out=tmp_path / "disturbed", executor=here, progress=False)
    began.join()
    assert len(victims) == 1
    assert [one.state for one in disturbed.ended.values()] == ["done", "done"]
    assert sorted(one.attempts for one in disturbed.ended.values()) == [1, 2]
    quiet = runs.batch(notebook, grid, out=tmp_path / "quiet", executor=here, progress=False)
    assert [one.attempts for one in quiet.ended.values()] == [1, 1]
    for name in ("aggregate.parquet", "across.csv"):
        assert (tmp_path / "disturbed" / name).read_bytes() == (tmp_path / "quiet" / name).read_bytes()


def test_a_kernel_that_dies_before_its_first_word_is_given_another_attempt(notebook, tmp_path, monkeypatch):
    startup = tmp_path / "profile_default/startup/first.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(f"import os, pathlib\nmet = pathlib.Path({str(tmp_path)!r}, 'met')\n"
        "if not met.exists():\n    met.touch()\n    os._exit(1)")  # fmt: skip
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    with runs.Local(1) as executor:
        done = runs.batch(notebook, {}, out=tmp_path / "out", executor=executor, progress=False)
    assert [(one.state, one.attempts) for one in done.ended.values()] == [("done", 2)]


def test_wrong_parameters_are_all_listed_before_anything_starts(notebook, tmp_path):
    with pytest.raises(ValueError) as caught:
        runs.batch(notebook, {"seed": [1, "x"], "sead": [3]}, out=tmp_path / "out")
    assert "seed must be int, got str 'x'" in str(caught.value)
    assert "sead is unknown; did you mean seed?" in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="asks twice for"):
        runs.batch(notebook, {"seed": [1, 1]}, out=tmp_path / "out")


def test_changed_weights_and_files_that_parameters_point_to_are_noticed(notebook, tmp_path):
    from atlaskit.runs.batch import _tasks

    def key(text):
        grid = runs.Plan((runs.Planned(notebook, {"text": text, "seed": 0, "until": ""}),), tmp_path, cwd=tmp_path)
        return _tasks(grid)[0].key["files"]

    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model/model.safetensors").write_bytes(b"weights")
    first = key("./model")
    (tmp_path / "model/model.safetensors").write_bytes(b"WEIGHTS")
    assert set(first) == {"./model"}
    assert key("./model") != first
    (tmp_path / "a.txt").write_text("a")
    assert set(key("a.txt")) == {"a.txt"}
    for text in ("", ".", "no such file", "x" * 10_000, "a\0b"):
        assert key(text) == {}


def test_an_edited_notebook_is_run_again_and_one_that_was_only_executed_is_not(notebook, write, tmp_path):
    from atlaskit.runs.batch import _source

    before = _source(notebook)
    text = notebook.read_text()
    (tmp_path / "tiny.ipynb").write_text(text.replace('"outputs": []', '"outputs": [], "execution_count": 3', 1))
    assert _source(tmp_path / "tiny.ipynb") == before
    (tmp_path / "tiny.ipynb").write_text(text.replace("null_low", "nul_low"))
    assert _source(tmp_path / "tiny.ipynb") != before
