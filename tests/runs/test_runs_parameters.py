"""Border: nothing starts with a parameter that the notebook does not declare, or not of that type."""

import pytest

from atlaskit import runs
from atlaskit.runs import check_parameters, declared_parameters, parse_parameters


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch):
    def started(*_args, **_kwargs):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr("papermill.execute_notebook", started)


def test_one_error_lists_all_that_is_wrong_before_anything_starts(unstarted, tmp_path):
    wrong = {"sice": 4, "size": "4", "fast": 1, "rate": True, "layers": (0, 1), "name": None, "zzz": 1}
    with pytest.raises(ValueError, match="cannot run with these parameters") as caught:
        runs.execute(unstarted, tmp_path / "out", wrong)
    assert str(caught.value).splitlines() == [
        "unstarted.ipynb cannot run with these parameters:",
        "  - sice is unknown; did you mean size?",
        "  - size must be int, got str '4'",
        "  - fast must be bool, got int 1",
        "  - rate must be float, got bool True",
        "  - layers must be list, got tuple (0, 1)",
        "  - name must be str, got NoneType None",
        "  - zzz is unknown",
        "It takes: size: int = 3; name: str = 'α <b>'; rate: float = 0.5; fast: bool = True; layers: list = [0, 2]",
    ]
    assert not (tmp_path / "out").exists()


def test_what_is_not_given_keeps_its_default(unstarted):
    assert check_parameters(unstarted, {"rate": 2, "layers": []}) == {
        "size": 3,
        "name": "α <b>",
        "rate": 2,
        "fast": True,
        "layers": [],
    }


def test_a_value_inside_a_list_must_fit_json_too(unstarted):
    with pytest.raises(ValueError, match=r"layers\[0\] is a set, which JSON cannot hold"):
        check_parameters(unstarted, {"layers": [{1}]})


def test_types_come_from_annotations_and_else_from_the_values(tmp_path, write):
    source = (
        "# the sizes; a == b in a comment hides nothing\na: float = 1\nb = 2  # keep == half\nc = -1.5\nd: dict = {}"
    )
    declared = declared_parameters(write(tmp_path / "n.ipynb", declared=source))
    assert {name: parameter.type for name, parameter in declared.items()} == {
        "a": "float",
        "b": "int",
        "c": "float",
        "d": "dict",
    }
    assert declared["c"].default == -1.5


def test_command_line_text_is_read_as_declared_and_never_as_code(unstarted):
    texts = {"size": "7", "rate": "1e-3", "fast": "False", "layers": "[1, 2]", "name": "__import__('os')"}
    assert parse_parameters(unstarted, texts) == {
        "size": 7,
        "rate": 0.001,
        "fast": False,
        "layers": [1, 2],
        "name": "__import__('os')",
    }


def test_text_that_cannot_be_read_is_reported_with_the_rest(unstarted):
    parsed = parse_parameters(unstarted, {"size": "many", "fast": "perhaps", "layers": "[1", "extra": "1"})
    with pytest.raises(ValueError, match=r"(?s)size must be int, got str 'many'.*fast.*layers.*extra is unknown"):
        check_parameters(unstarted, parsed)


def test_a_notebook_without_the_tag_is_refused(tmp_path, write):
    source = write(tmp_path / "untagged.ipynb", "1 + 1", declared=None)
    with pytest.raises(ValueError, match=r"untagged.ipynb has 0 cells tagged 'parameters' and needs exactly one"):
        runs.execute(source, tmp_path)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a: int = 2 ** 8", "the default of a must be a literal"),
        ("a = (1, 2)", "must be a literal that JSON can hold: a is a tuple"),
        ("a: int = 'x'", r"`a: int = 'x'` does not fit; the types are bool, int, float, str, list, dict"),
        ("a: list[int] = []", "may hold only lines like `name: int = 3`, not `a: list"),
        ("a = None", "does not fit"),
        ("import os", "may hold only lines like"),
        ("a: int", "may hold only lines like"),
        ("a = b = 1", "may hold only lines like"),
        ("a = (", "the parameters cell is not Python"),
    ],
)
def test_a_cell_that_is_no_list_of_literals_is_refused(tmp_path, write, cell, message):
    with pytest.raises(ValueError, match=message):
        declared_parameters(write(tmp_path / "n.ipynb", declared=cell))
