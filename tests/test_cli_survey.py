"""Law: a survey does not depend on how it was cut; what big ones would cost follows from what small ones did."""

import json
import math
from concurrent.futures import Future
from contextlib import nullcontext
from importlib import import_module

import pyarrow.dataset
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from atlaskit import cli, data, measure, models, runs
from atlaskit.cli import corpus
from atlaskit.runs.manifest import publish

plan = import_module("atlaskit.cli.plan")
survey = import_module("atlaskit.cli.survey")

LINES = st.lists(st.text(st.characters(exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", codec="utf-8")))


@given(st.lists(LINES, min_size=1, max_size=3), st.integers(1, 5))
def test_shards_hold_every_document_once_in_order(tmp_path_factory, texts, size):
    folder = tmp_path_factory.mktemp("corpus")
    for i, lines in enumerate(texts):
        (folder / f"{i}.txt").write_bytes("\n".join(lines).encode())
    cut = list(corpus.shards(corpus.files_of([folder]), lines=True, size=size))
    expected = [line for lines in texts for line in lines if line.encode().strip()]
    read = [corpus.documents(pieces) for pieces, _ in cut]
    assert [line.strip() for part in read for line in part] == [line.strip() for line in expected if line.strip()]
    assert [first for _, first in cut] == list(range(0, len(expected), size))
    whole = list(corpus.shards(corpus.files_of([folder]), lines=False, size=size))
    assert [text for pieces, _ in whole for text in corpus.documents(pieces)] == ["\n".join(lines) for lines in texts]


def test_a_changed_text_changes_its_shard_alone(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    before = [corpus.content_hash(pieces) for pieces, _ in corpus.shards([tmp_path / "a.txt"], lines=True, size=1)]
    (tmp_path / "a.txt").write_text("one\nTWO\nthree\n")
    after = [corpus.content_hash(pieces) for pieces, _ in corpus.shards([tmp_path / "a.txt"], lines=True, size=1)]
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, False, True]


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\n")
    (tmp_path / "none").mkdir()
    (_, (pieces, _)) = corpus.shards([tmp_path / "a.txt"], lines=True, size=1)
    with pytest.raises(ValueError, match=r"a.txt is not text in UTF-8 \(byte 5\)"):
        corpus.documents(pieces)
    with pytest.raises(ValueError, match=r"holds no .txt or .jsonl file"):
        corpus.files_of([tmp_path / "none"])


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1), st.integers(1, 4))
def test_the_rows_of_json_lines_are_documents_whatever_stands_in_them(tmp_path_factory, texts, size):
    file = tmp_path_factory.mktemp("corpus") / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"body": text}, ensure_ascii=False) for text in texts), encoding="utf-8")
    cut = corpus.shards(corpus.files_of([file.parent]), lines=False, size=size, column="body")
    assert [text for pieces, _ in cut for text in corpus.documents(pieces)] == texts


def test_a_row_without_the_column_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
    ((pieces, _),) = corpus.shards([tmp_path / "rows.jsonl"], lines=False, size=2)
    with pytest.raises(ValueError, match=r"rows.jsonl, after byte 0: row 1 has no text under 'text'; it has 'body'"):
        corpus.documents(pieces)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": ')
    (_, (pieces, _)) = corpus.shards([tmp_path / "rows.jsonl"], lines=False, size=1)
    with pytest.raises(ValueError, match=r"rows.jsonl, after byte 14: .*line 1 column 10"):
        corpus.documents(pieces)


class Here:
    """An executor that works at once, in this process."""

    def submit(self, function, task):
        del function
        staging = task.staging()
        getattr(import_module(task.work.partition(":")[0]), task.work.partition(":")[2])(staging, **task.arguments)
        publish(staging, task)
        future = Future()
        future.set_result(runs.Ended(task.name, "done", seconds=2.0, attempts=1))
        return future

    def together(self):
        return nullcontext()

    def stop(self):
        """Nothing waits."""


@pytest.fixture(scope="module")
def model():
    return models.load("mini-causal")


@pytest.fixture
def cut(tmp_path, model, monkeypatch):
    """Call it with the size of a shard: seven documents surveyed, and the folder."""
    monkeypatch.setattr(survey, "executor", lambda place, options: nullcontext(Here()))
    monkeypatch.setattr(models, "load", lambda name, **_: model)
    texts = [text.replace("\n", " ")[: 80 + 20 * i] for i, text in enumerate(data.texts()[:7])]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")

    def survey_by(size):
        out = tmp_path / f"by{size}"
        asked = [
            "survey",
            "mini-causal",
            str(tmp_path / "texts.txt"),
            "--lines",
            "--out",
            str(out),
            "--shard",
            str(size),
        ]
        done = CliRunner().invoke(cli.main, [*asked, "--max-tokens", "24", "--price", "3"])
        assert done.exit_code == 0, done.output
        return out, done.output

    survey_by.texts = texts
    return survey_by


def test_one_two_and_seven_shards_give_the_same_bytes_and_the_sums_of_the_documents(cut, model):
    one, two, seven = (cut(size)[0] for size in (7, 4, 1))
    assert len(list((seven / "done").iterdir())) == 7
    assert (one / "heads.parquet").read_bytes() == (two / "heads.parquet").read_bytes()
    assert (one / "heads.parquet").read_bytes() == (seven / "heads.parquet").read_bytes()
    rows = pyarrow.parquet.read_table(seven / "heads.parquet").to_pylist()
    found = models.survey(model, cut.texts, {"entropy": measure.entropy}, max_tokens=24, progress=False)["entropy"]
    for row in [row for row in rows if row["score"] == "entropy"]:
        assert row["value"] == math.fsum(found[:, row["layer"], row["head"]].tolist()) / 7  # both are rounded once
        assert row["n"] == 7
        assert row["apart"] == pytest.approx(row["value"] - row["chance"], abs=1e-12)
        assert row["apart_low"] < row["apart"] < row["apart_high"]


def test_the_documents_are_a_partitioned_dataset_that_does_not_depend_on_the_cut_but_for_its_parts(cut):
    tables = []
    for size in (7, 2):
        table = pyarrow.dataset.dataset(cut(size)[0] / "documents", partitioning="hive").to_table().sort_by("document")
        assert table["document"].to_pylist() == list(range(7))
        tables.append(table.drop_columns(["shard"]))
    assert tables[0].equals(tables[1])


def test_throughput_and_cost_are_told_and_a_second_survey_repeats_nothing(cut, monkeypatch):
    out, told = cut(4)
    assert "2 of 2 shards are done" in told
    assert "tokens/s, " in told
    assert "per million tokens" in told
    monkeypatch.setattr(Here, "submit", lambda *_: pytest.fail("it was done"))
    assert cut(4)[0] == out


def test_a_plan_from_measured_shards_names_its_assumptions(cut):
    out, _ = cut(1)
    told = CliRunner().invoke(cli.main, ["plan", str(out), "--price", "2"]).output
    assert "measured: 7 shards, 7 documents" in told
    assert "1e+09 tokens" in told
    assert "1e+12 tokens" in told
    assert all(assumption in told for assumption in plan.ASSUMPTIONS)
    done = CliRunner().invoke(cli.main, ["plan", str(out / "documents")])
    assert done.exit_code == 1
    assert "measure some first: atlaskit survey" in done.output


def test_a_forecast_is_arithmetic_on_the_rates():
    rates = plan.Rates(10, 10_000, 100, per_token=(0.5, 1.0, 2.0), loading=80.0, bytes=5_000, memory=1)
    found = plan.forecast(rates, 1_000_000, workers=3)
    assert found.shards == 1000
    assert found.worker_hours == pytest.approx([1000 * (500 + 80) / 3600, 1000 * 1080 / 3600, 1000 * 2080 / 3600])
    assert found.days[1] == pytest.approx(334 * 1080 / 3600 / 24)  # 1000 shards by 3 workers are 334 rounds
    assert found.bytes == 500_000
    large = plan.forecast(rates, 1_000_000, workers=3, shard=1000)
    assert large.shards == 10  # of 100,000 tokens each
    assert large.worker_hours[1] == pytest.approx(10 * (100_000 + 80) / 3600)
    again = plan.forecast(rates, 1_000_000, workers=3, lost=0.1)
    assert again.worker_hours[1] == pytest.approx(found.worker_hours[1] * (1 + 0.1 * 0.3 / 2))  # half a shard of 0.3 h
