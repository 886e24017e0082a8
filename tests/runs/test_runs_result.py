"""Law and border: a Result comes back to the last bit, and its plain exports hold the same numbers."""

import builtins
import csv
import io
import json
import math
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from atlaskit import runs
from atlaskit.records import Tokens

NAN, INF = math.nan, math.inf


def tokens(text="Ein <b>Ärger.", spans=((0, 0), (0, 3), (3, 13))):
    strings = ("[CLS]", *(text[start:end] for start, end in spans[1:]))
    special = torch.tensor([True, *[False] * (len(spans) - 1)])
    return Tokens(text, torch.arange(len(spans)), strings, torch.tensor(spans), special)


def a_result(value=((1.5, NAN), (INF, -0.0)), **changes):
    given = {
        "command": "analyze",
        "arrays": {
            "value": runs.Labelled(("measured", "head"), torch.tensor(value)),
            "believed": runs.Labelled(("measured", "head"), torch.tensor([[True, False], [False, False]])),
            "n": runs.Labelled(("measured",), torch.tensor([3, 2])),
            "points": runs.Labelled(("doc", "size"), torch.arange(6, dtype=torch.float64).reshape(2, 3) / 7),
        },
        "labels": {"measured": [{"quantity": "D_1", "unit": "dimension"}, {"quantity": "entropy", "unit": "bits"}]}
        | {"head": [0, 5]},
        "table": ("measured", "head"),
        "sources": (runs.Source("tiny", "main", "f00", (tokens(),)),),
        "parameters": {"orders": [0.5, INF], "seed": 3},
        "notes": ("head 5 is undefined",),
    }
    return runs.Result(**given | changes)


def same(one, other):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.numpy().tobytes() == other.numpy().tobytes()


def test_a_result_comes_back_to_the_bit(tmp_path):
    result = a_result()
    back = runs.Result.load(result.save(tmp_path / "one.npz"))
    assert back.arrays.keys() == result.arrays.keys()
    for name, array in result.arrays.items():
        assert back.arrays[name].axes == array.axes
        same(back[name], result[name])
    for one in ("command", "labels", "table", "parameters", "notes", "versions"):
        assert getattr(back, one) == getattr(result, one), one
    ((source,), (expected,)) = back.sources, result.sources
    assert (source.model, source.revision, source.model_hash) == ("tiny", "main", "f00")
    (text,), (meant,) = source.texts, expected.texts
    assert (text.text, text.strings) == (meant.text, meant.strings)
    for part in ("ids", "spans", "special"):
        same(getattr(text, part), getattr(meant, part))


KINDS = st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_])


@settings(max_examples=60)
@given(KINDS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0))))
def test_any_array_comes_back_to_the_bit(tmp_path_factory, values):
    axes = tuple(f"axis{i}" for i in range(values.ndim))
    result = a_result(arrays={"any": runs.Labelled(axes, torch.from_numpy(values.copy()))}, labels={})
    same(runs.Result.load(result.save(tmp_path_factory.getbasetemp() / "any.npz"))["any"], result["any"])


def test_the_same_result_gives_the_same_bytes(tmp_path):
    first, second = (a_result().save(tmp_path / name).read_bytes() for name in ("a.npz", "b.npz"))
    assert first == second


def test_plain_numpy_reads_the_arrays_and_any_zip_tool_the_rest(tmp_path):
    path = a_result().save(tmp_path / "one.npz")
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["points"], np.arange(6).reshape(2, 3) / 7)
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("result.json"))["sources"][0]["model_hash"] == "f00"


def test_a_row_stands_for_every_combination_of_the_tables_axes():
    found = runs.rows(a_result(value=((1.0, 2.0), (3.0, 4.0))))
    assert [(row["quantity"], row["unit"], row["head"], row["value"], row["n"]) for row in found] == [
        ("D_1", "dimension", 0, 1.0, 3),
        ("D_1", "dimension", 5, 2.0, 3),
        ("entropy", "bits", 0, 3.0, 2),
        ("entropy", "bits", 5, 4.0, 2),
    ]
    assert "points" not in found[0]


def test_every_plain_format_holds_the_same_rows(tmp_path):
    from pyarrow import parquet

    result = a_result(value=((1.5, NAN), (0.1, -0.0)))
    for kind in ("json", "csv", "parquet", "npz"):
        runs.export(result, tmp_path / f"one.{kind}")
    expected = [{**row, "value": None if math.isnan(row["value"]) else row["value"]} for row in runs.rows(result)]
    content = json.loads((tmp_path / "one.json").read_text())
    assert content["rows"] == expected
    assert content["sources"][0]["texts"][0]["spans"] == [[0, 0], [0, 3], [3, 13]]
    table = parquet.read_table(tmp_path / "one.parquet")
    assert table.to_pylist() == expected
    assert json.loads(table.schema.metadata[b"atlaskit"])["parameters"] == content["parameters"]
    with io.StringIO((tmp_path / "one.csv").read_text(), newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["value"] for row in read] == ["" if row["value"] is None else repr(row["value"]) for row in expected]
    assert runs.rows(runs.Result.load(tmp_path / "one.npz"))[0] == runs.rows(result)[0]


def test_labels_that_do_not_fit_their_array_are_refused():
    with pytest.raises(ValueError, match=r"'value' is \(3,\) over the axes \('head',\), labelled {'head': 2}"):
        a_result(arrays={"value": runs.Labelled(("head",), torch.zeros(3))})
    with pytest.raises(ValueError, match=r"'value' is \(2, 2\) over the axes \('head',\)"):
        a_result(arrays={"value": runs.Labelled(("head",), torch.zeros(2, 2))})


def test_another_file_is_no_result(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "pickled.npz", a=np.array([{}], dtype=object))
    for name in ("text", "other", "pickled"):
        with pytest.raises(ValueError, match="no result of atlaskit"):
            runs.Result.load(tmp_path / f"{name}.npz")


def test_half_a_result_is_refused(tmp_path):
    path = a_result().save(tmp_path / "one.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="not the whole of one"):
        runs.Result.load(path)


def test_a_result_of_another_format_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr("atlaskit.runs.result.FORMAT", "atlaskit result 9")
    path = a_result().save(tmp_path / "one.npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="'atlaskit result 9'; this atlaskit reads 'atlaskit result 1'"):
        runs.Result.load(path)


def test_an_unknown_ending_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(ValueError, match=r"'one.xlsx' ends on no format .* \.npz, \.json, \.csv, \.parquet"):
        runs.export(a_result(), tmp_path / "one.xlsx")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    original = builtins.__import__

    def refuse(name, *rest, **more):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'atlaskit\[parquet\]', or choose .csv"):
        runs.export(a_result(), tmp_path / "one.parquet")
