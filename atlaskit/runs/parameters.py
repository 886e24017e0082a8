"""A notebook's parameters are declared once, in its tagged cell; everything given is checked against it first.

papermill itself injects whatever it is handed: an unknown name or a missing tag is a line on stderr, a wrong type is
silence. The tagged cell is read here with Python's own parser instead.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .jsonfile import Json, encode

TYPES: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict}


@dataclass(frozen=True)
class Parameter:
    """One line of the tagged cell: ``name: type = default``."""

    name: str
    type: str
    default: Json

    def __str__(self) -> str:
        return f"{self.name}: {self.type} = {self.default!r}"

    def takes(self, value: object) -> bool:
        """Whether `value` has the declared type; an int may stand for a float, a bool never for an int."""
        if isinstance(value, bool):
            return self.type == "bool"
        return isinstance(value, (int, float) if self.type == "float" else TYPES[self.type])


def declared_parameters(notebook: Path | str) -> dict[str, Parameter]:
    """The parameters of a notebook, read from its one cell tagged ``parameters`` without running anything."""
    import nbformat  # takes seconds, for which a notebook that only records what it found need not wait

    path = Path(notebook)
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(
            f"{path.name} has {len(cells)} cells tagged 'parameters' and needs exactly one; "
            "in JupyterLab, open the property inspector and add the tag to the cell that assigns them"
        )
    try:
        lines = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise ValueError(f"{path.name}: the parameters cell is not Python: {error}") from error
    found = [_declaration(line, path.name) for line in lines]
    return {parameter.name: parameter for parameter in found}


def check_parameters(notebook: Path | str, given: Mapping[str, Json]) -> dict[str, Json]:
    """Every parameter of the notebook with its value, or one error that lists all that is wrong with `given`."""
    declared = declared_parameters(notebook)
    problems = [problem for name, value in given.items() if (problem := problem_with(declared, name, value))]
    if problems:
        raise ValueError(
            f"{Path(notebook).name} cannot run with these parameters:\n"
            + "".join(f"  - {problem}\n" for problem in problems)
            + "It takes: "
            + ("; ".join(map(str, declared.values())) or "no parameters")
        )
    return {name: given.get(name, parameter.default) for name, parameter in declared.items()}


def parse_parameters(notebook: Path | str, texts: Mapping[str, str]) -> dict[str, Json]:
    """Values typed on a command line, as the notebook declares them.

    Lists and dicts are JSON. What cannot be read stays text, and an unknown name stays in: `check_parameters`
    then lists them all at once.
    """
    declared = declared_parameters(notebook)
    return {name: _read(declared[name].type, text) if name in declared else text for name, text in texts.items()}


def _declaration(line: ast.stmt, notebook: str) -> Parameter:
    match line:
        case ast.Assign(targets=[ast.Name(id=name)], value=literal):
            declared = None
        case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id=declared), value=ast.expr() as literal):
            pass
        case _:
            raise ValueError(
                f"{notebook}: the parameters cell may hold only lines like `name: int = 3`, not `{ast.unparse(line)}`"
            )
    try:
        default = ast.literal_eval(literal)
        encode(default, name)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{notebook}: the default of {name} must be a literal that JSON can hold: {error}") from error
    parameter = Parameter(name, declared or type(default).__name__, default)
    if parameter.type not in TYPES or not parameter.takes(default):
        raise ValueError(f"{notebook}: `{parameter}` does not fit; the types are {', '.join(TYPES)}")
    return parameter


def problem_with(declared: Mapping[str, Parameter], name: str, value: object) -> str | None:
    """Why a value cannot be given to a parameter, or None where it can."""
    if name not in declared:
        near = difflib.get_close_matches(name, declared, n=1)
        return f"{name} is unknown" + (f"; did you mean {near[0]}?" if near else "")
    if not declared[name].takes(value):
        return f"{name} must be {declared[name].type}, got {type(value).__name__} {value!r}"
    try:
        encode(value, name)
    except TypeError as error:
        return str(error)
    return None


def _read(kind: str, text: str) -> Json:
    """`text` as a value of `kind`, or as it stands where it is none."""
    try:
        match kind:
            case "bool":
                return {"true": True, "false": False}.get(text.lower(), text)
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "list" | "dict":
                return json.loads(text)
    except ValueError:
        pass
    return text
