"""Truth and law: what a Run saves is strict JSON and comes back to the last bit."""

import json
import math
import struct
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlaskit.records import Estimate
from atlaskit.runs import Run
from atlaskit.runs.jsonfile import decode, encode, write_json

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: not key.startswith("$")), inner),
)
estimates = st.builds(Estimate, *[st.floats()] * 5, st.text(), st.integers(0, 10**9), st.floats())


def same(a, b):
    """Equal to the bit: nan equals nan, and 0.0 differs from -0.0."""
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, Estimate) and isinstance(b, Estimate):
        return same(vars(a), vars(b))
    return type(a) is type(b) and a == b


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


@given(plain | estimates)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_strict_json_gives_back_every_value_to_the_bit(value):
    text = json.dumps(encode(value, "value"), allow_nan=False)
    assert same(decode(json.loads(text, parse_constant=refuse)), value)


def test_what_a_run_saves_is_what_it_loads(tmp_path):
    run = Run("a", {"seed": 7, "rate": math.nan}, model_hash="f00")
    run.find("entropy", Estimate(1.0, math.nan, math.inf, -math.inf, -0.0, "bits", 3))
    run.find("heads", ["3.7", {"layer": 3}, None, math.inf])
    run.save(tmp_path)
    back = Run.load(tmp_path)
    assert same(dict(back.parameters), dict(run.parameters))
    assert same(back.findings, run.findings)
    assert (back.notebook, back.model_hash, back.seed, back.versions) == ("a", "f00", 7, run.versions)
    assert back.estimates.keys() == {"entropy"}


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_an_array_that_is_kept_comes_back_to_the_bit_with_its_axes(kind, tmp_path):
    values = torch.tensor([[0.1, -0.0, 5.0], [9.0, 3.0, 0.0]]).to(kind)
    if kind.is_floating_point:
        values[0, 2], values[1, 0] = math.nan, math.inf
        values.requires_grad_()
    run = Run("a", {})
    run.keep("bits", values, "document head")
    run.keep("of.one-axis_2", values[0], "head")
    run.save(tmp_path)
    axes, found = Run.load(tmp_path).arrays["bits"]
    assert (axes, found.dtype, found.tobytes()) == (
        ("document", "head"), values.detach().numpy().dtype, values.detach().numpy().tobytes(),
    )  # fmt: skip
    assert Run.load(tmp_path).arrays["of.one-axis_2"][0] == ("head",)


def test_a_run_without_arrays_writes_no_file_of_them(tmp_path):
    Run("a", {}).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert Run.load(tmp_path).arrays == {}


def test_an_array_that_could_not_be_told_from_its_name_and_axes_is_refused():
    for axes in ("head", "head head", "document head place"):
        with pytest.raises(ValueError, match=r"array bits is \(2, 3\), and .* names \d axes"):
            Run("a", {}).keep("bits", torch.zeros(2, 3), axes)
    for name in ("", "../bits", "a/b", ".hidden", "two words"):
        with pytest.raises(ValueError, match="cannot name a file"):
            Run("a", {}).keep(name, torch.zeros(2), "head")


def test_the_file_is_sorted_and_names_the_versions(tmp_path):
    run = Run("a", {"b": 1, "a": 2})
    run.find("z", 1)
    run.find("a", 2)
    text = run.save(tmp_path).read_text()
    content = json.loads(text)
    assert text == json.dumps(content, indent=2, sort_keys=True) + "\n"
    assert set(content["versions"]) == {"python", "atlaskit", "bokeh", "numpy", "torch", "transformers"}
    assert content["seed"] is None


def test_the_same_name_again_replaces_the_finding():
    run = Run("a", {})
    run.find("x", 1)
    run.find("x", 2)
    assert run.findings == {"x": 2}


def test_a_run_by_hand_is_saved_under_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATLASKIT_RUN_FOLDER", raising=False)
    Run("by_hand", {}).save()
    assert (tmp_path / "runs/by_hand/run.json").exists()


@pytest.mark.parametrize("value", [(1, 2), {1, 2}, object(), [1, (2,)], b"x"])
def test_what_json_cannot_hold_is_refused_where_it_is_found(value):
    with pytest.raises(TypeError, match=r"finding 'x'.* is a \w+, which JSON cannot hold; give an Estimate"):
        Run("a", {}).find("x", value)


@pytest.mark.parametrize("value", [{1: 2}, {"$float": "nan"}])
def test_keys_that_would_not_come_back_are_refused(value):
    with pytest.raises(TypeError, match="keys must be strings that do not begin with"):
        Run("a", {}).find("x", value)


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    target = tmp_path / "run.json"
    write_json(target, {"old": 1})

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(target, {"new": 2})
    assert json.loads(target.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"notebook": "a"')
    with pytest.raises(ValueError, match=r"run\.json is not whole JSON .*; delete it and run the notebook again"):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "side"), [(2.0, 3.0, "above"), (-1.0, -0.5, "below"), (0.5, 3.0, "not apart from")]
)
def test_conclusions_say_on_which_side_of_its_null_a_finding_lies(low, high, side):
    run = Run("n", {})
    run.find("bits", Estimate((low + high) / 2, low, high, 0.0, 1.0, "bits", 7))
    run.find("range", [0.25, 1.0])
    run.find("word", "none")
    first, second, third = str(run.conclusions("ignorance")).splitlines()
    assert f"{side} ignorance [0, 1]; n = 7" in first
    assert (second, third) == ("range: 0.25 to 1", "word: none")


def cells(page):
    """The text of a table's cells, row by row, as a reader's parser finds it."""
    table = ElementTree.fromstring(page[page.index("<div") :].replace("<br>", " "))
    texts = [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in table.iter("tr")]
    return texts, table


def test_conclusions_are_a_table_with_value_null_verdict_and_nothing_runs():
    run = Run("n", {})
    run.find("<script>alert(1)</script>", Estimate(-2.5, -3.0, -2.0, 0.0, 1.0, "bits & nats", 7))
    run.find("range", [0.25, 1.0])
    run.find("nowhere", Estimate(1.0, float("nan"), 2.0, 0.0, 0.5, "bits", 2))
    (head, first, second, third), table = cells(run.conclusions("ignorance")._repr_html_())
    assert head == ["Finding", "Value and its interval", "Ignorance", "Side by side", "Verdict", "n"]
    assert first == ["<script>alert(1)</script>", "−2.5 bits & nats −3 to −2", "0 to 1", "", "below", "7"]
    assert second == ["range", "0.25 to 1"]
    assert third[4] == "undefined"
    assert not list(table.iter("script"))


def test_conclusions_in_a_terminal_are_lines():
    run = Run("n", {})
    run.find("share", 0.5)
    assert repr(run.conclusions("chance")) == "share: 0.5"
