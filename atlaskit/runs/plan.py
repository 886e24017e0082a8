"""A plan: which notebooks run with which parameters, where to, within which limits. Read whole, refused whole.

A plan is a YAML file, and data: only plain values are read, tags that would make objects are refused. ::

    out: runs/heads                     # everything is relative to the plan's own folder
    limits: {workers: 2, threads: 1, memory: 4 GB, seconds: 900, cell_seconds: 600}
    runs:
      - notebook: notebooks/03_head_specialization.ipynb      # or a list of them
        set: {ablation: none}                                 # the same in every run
        cross:                                                # every combination
          model: [mini-causal, all-minilm-l6-v2]
          seed: {range: [0, 5]}                               # 0 to 4
        zip:                                                  # side by side
          text: {lines: texts.txt}                            # a text in each line; {files: "*.txt"}: one in each file
          max_tokens: [16, 32, 64]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from .jsonfile import Json, encode
from .manifest import digest
from .parameters import Parameter, declared_parameters, problem_with
from .task import Limits

MOST = 100_000
"""Runs in one plan."""

SIZES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}

BROKEN = object()
"""Stands for a value that has been refused already."""

Check: TypeAlias = Callable[[Json], str | None]
"""Says what is wrong with a value, or None."""

Placed: TypeAlias = tuple[yaml.Node, Json]
"""A value, and where in the file it stands."""


@dataclass(frozen=True)
class Planned:
    """One run to be: a notebook, and every parameter of it with its value."""

    notebook: Path
    parameters: Mapping[str, Json]
    line: int = 0

    @property
    def name(self) -> str:
        """Of the run's folder: the notebook and what its parameters hash to."""
        return f"{self.notebook.stem}-{digest(encode(dict(self.parameters), 'parameters'))[:10]}"


@dataclass(frozen=True)
class Plan:
    """Runs, all different, in the order of the file; `cwd` is the folder that relative paths start from."""

    runs: tuple[Planned, ...]
    out: Path
    limits: Limits = field(default_factory=Limits)
    cell_seconds: int = 600
    workers: int | None = None
    gpus: tuple[int, ...] = ()
    cwd: Path = field(default_factory=Path.cwd)

    @property
    def varied(self) -> list[str]:
        """The parameters that differ between runs of one notebook, in the order in which notebooks declare them."""
        seen: dict[str, set[str]] = {}
        for stem in dict.fromkeys(run.notebook.stem for run in self.runs):
            same = [run for run in self.runs if run.notebook.stem == stem]
            for name in same[0].parameters:
                values = {repr(run.parameters[name]) for run in same}
                if len(values) > 1:
                    seen.setdefault(name, set()).update(values)
        return list(seen)


def read_plan(path: Path | str, *, checks: Mapping[str, Check] | None = None) -> Plan:
    """The plan in a YAML file. `checks` look at the values of parameters by name, such as whether a model is there.

    Raises ValueError that lists everything that is wrong, each with its line.
    """
    path = Path(path)
    reader = _Reader(path, checks or {})
    plan = reader.plan()
    if reader.problems:
        listed = "\n".join(f"  line {line}: {text}" for line, text in sorted(set(reader.problems)))
        raise ValueError(f"{path} cannot run:\n{listed}")
    assert plan is not None
    return plan


def expand(grid: Mapping[str, Sequence[Json]]) -> list[dict[str, Json]]:
    """Every combination of the values of each name, the last name fastest."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


class _Reader:
    """Walks a plan's nodes, which know their lines, and gathers problems instead of stopping at the first."""

    def __init__(self, path: Path, checks: Mapping[str, Check]) -> None:
        self.problems: list[tuple[int, str]] = []
        self._path = path
        self._folder = path.resolve().parent
        self._checks = checks
        self._declared: dict[Path, Mapping[str, Parameter]] = {}

    def plan(self) -> Plan | None:
        try:
            node = yaml.compose(self._path.read_text(encoding="utf-8"), yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            self._wrong(0 if mark is None else mark.line, f"this is not YAML: {error.problem}")
            return None
        parts = self._mapping(node, "a plan", known=("out", "limits", "runs"), needed=("out", "runs"))
        out = self._value(parts["out"], str) if "out" in parts else None
        limits = self._limits(parts.get("limits"))
        runs = [run for entry in self._sequence(parts.get("runs"), "runs") for run in self._entry(entry)]
        first: dict[tuple[Path, str], Planned] = {}
        for run in runs:
            earlier = first.setdefault((run.notebook, run.name), run)
            if earlier is not run:
                self._wrong(run.line - 1, f"{told(run)} is already made by line {earlier.line}")
        if len({run.notebook for run in runs}) > len({run.notebook.stem for run in runs}):
            self._wrong(parts["runs"].start_mark.line, "two notebooks have the same name; rename one")
        if self.problems or out is None:
            return None
        return Plan(tuple(runs), self._folder / out, cwd=self._folder, **limits)

    def _limits(self, node: yaml.Node | None) -> dict[str, Any]:
        known = ("workers", "gpus", "threads", "memory", "seconds", "cell_seconds", "attempts")
        parts = self._mapping(node, "limits", known=known) if node is not None else {}
        found: dict[str, Any] = {}
        for name, part in parts.items():
            kind = list if name == "gpus" else int
            value: Any = self._memory(part) if name == "memory" else self._value(part, kind)
            if value is not None and name != "gpus" and value < 1:
                self._wrong(part, f"{name} must be at least 1, not {value}")
            elif value is not None:
                found[name] = tuple(value) if name == "gpus" else value
        own = {name: found.pop(name) for name in ("seconds", "memory", "threads", "attempts") if name in found}
        return found | {"limits": Limits(**own)}

    def _memory(self, node: yaml.Node) -> int | None:
        text = str(self._made(node))
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]B)", text)
        if match is None:
            self._wrong(node, f"memory must be like 4 GB or 500 MB, not {text!r}")
            return None
        return int(float(match[1]) * SIZES[match[2]])

    def _entry(self, node: yaml.Node) -> Iterator[Planned]:
        """The runs of one entry: its fixed values, its combinations, its rows, for each of its notebooks."""
        parts = self._mapping(node, "an entry of runs", known=("notebook", "set", "cross", "zip"), needed=("notebook",))
        if "notebook" not in parts:
            return
        before = len(self.problems)
        many = isinstance(parts["notebook"], yaml.SequenceNode)
        names = self._sequence(parts["notebook"], "notebook") if many else [parts["notebook"]]
        notebooks = [found for name in names if (found := self._notebook(name)) is not None]
        fixed = {name: [(value, self._made(value))] for name, value in self._names(parts.get("set"), "set").items()}
        crossed = {name: self._list(value) for name, value in self._names(parts.get("cross"), "cross").items()}
        zipped = {name: self._list(value) for name, value in self._names(parts.get("zip"), "zip").items()}
        lengths = {name: len(values) for name, values in zipped.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            self._wrong(parts["zip"], f"what is zipped must be equally long, and here are {told}")
            return
        self._check_values(parts, notebooks, fixed | crossed | zipped)
        if len(self.problems) > before:
            return
        total = len(notebooks) * prod(map(len, crossed.values())) * max(lengths.values(), default=1)
        if total > MOST:
            self._wrong(node, f"{total:,} runs; a plan may hold {MOST:,}")
            return
        columns = {name: [value for _, value in values] for name, values in (fixed | crossed).items()}
        rows = zip(*[[value for _, value in values] for values in zipped.values()], strict=True) if zipped else [()]
        sides = [dict(zip(zipped, row, strict=True)) for row in rows]
        for notebook in notebooks:
            defaults = {name: one.default for name, one in self._declared[notebook].items()}
            for combination, side in product(expand(columns), sides):
                yield Planned(notebook, defaults | combination | side, node.start_mark.line + 1)

    def _check_values(
        self,
        parts: Mapping[str, yaml.Node],
        notebooks: Sequence[Path],
        given: Mapping[str, Sequence[tuple[yaml.Node, Json]]],
    ) -> None:
        """Every name known to every notebook of the entry, named once, and every value of its type."""
        places = [name for part in ("set", "cross", "zip") for name in self._names(parts.get(part), part)]
        for name in sorted({name for name in places if places.count(name) > 1}):
            self._wrong(parts["notebook"], f"{name} is given twice in this entry")
        for name, values in given.items():
            for node, value in [one for one in values if one[1] is not BROKEN]:
                wrong = [problem_with(self._declared[notebook], name, value) for notebook in notebooks]
                wrong += [self._checks[name](value)] if name in self._checks and not any(wrong) else []
                for text in dict.fromkeys(filter(None, wrong)):
                    self._wrong(node, text)

    def _notebook(self, node: yaml.Node) -> Path | None:
        name = self._value(node, str)
        if name is None:
            return None
        path = self._folder / (name if name.endswith(".ipynb") else f"{name}.ipynb")
        if not path.is_file():
            self._wrong(node, f"there is no notebook {path}")
            return None
        try:
            self._declared[path] = declared_parameters(path)
        except (ValueError, OSError) as error:
            self._wrong(node, str(error))
            return None
        return path

    def _list(self, node: yaml.Node) -> list[Placed]:
        """Values and where they stand: a list, or {range: …}, {lines: file}, {files: pattern}."""
        if isinstance(node, yaml.SequenceNode):
            if not node.value:
                self._wrong(node, "an empty list makes no runs")
            return [(item, self._made(item)) for item in node.value]
        match self._made(node):
            case {"range": [int(), int(), *step] as bounds} if (
                all(isinstance(one, int) and one for one in step) and len(step) < 2
            ):
                numbers = range(*bounds)
                if not 0 < len(numbers) <= MOST:
                    self._wrong(node, f"a range of {len(numbers):,} values; it may hold 1 to {MOST:,}")
                return [(node, number) for number in numbers[:MOST]]
            case {"lines": str(name)}:
                return [(node, line) for line in self._text(node, self._folder / name).splitlines() if line.strip()]
            case {"files": str(pattern)} if not Path(pattern).is_absolute():
                files = sorted(self._folder.glob(pattern))
                if not files:
                    self._wrong(node, f"no file matches {pattern}")
                return [(node, self._text(node, file).strip()) for file in files]
        self._wrong(node, "give a list, {range: [first, beyond]}, {lines: file} or {files: pattern}")
        return []

    def _text(self, node: yaml.Node, path: Path) -> str:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._wrong(node, f"{path} cannot be read: {error}")
            return ""
        if not text.strip():
            self._wrong(node, f"{path} is empty")
        return text

    def _names(self, node: yaml.Node | None, what: str) -> dict[str, yaml.Node]:
        return self._mapping(node, what) if node is not None else {}

    def _mapping(
        self, node: yaml.Node | None, what: str, *, known: Sequence[str] = (), needed: Sequence[str] = ()
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node or 0, f"{what} must be names and values, like {known[0] if known else 'seed'}: …")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(self._made(key))
            if name in found:
                self._wrong(key, f"{name} stands here twice")
            elif known and name not in known:
                self._wrong(key, f"{name} is unknown; {what} has {', '.join(known)}")
            else:
                found[name] = value
        for name in needed:
            if name not in found:
                self._wrong(node, f"{what} needs {name}")
        return found

    def _sequence(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._wrong(node, f"{what} must be a list with something in it")
            return []
        return list(node.value)

    def _value(self, node: yaml.Node, kind: type) -> Any:
        made = self._made(node)
        if not isinstance(made, kind) or isinstance(made, bool):
            self._wrong(node, f"this must be {kind.__name__}, not {made!r}")
            return None
        return made

    def _made(self, node: yaml.Node) -> Json:
        """A node's plain value. A tag that asks for more than that is refused, and nothing is made of it."""
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_document(node)
        except yaml.constructor.ConstructorError as error:
            self._wrong(node, f"plans hold plain values only: {error.problem}")
            return BROKEN
        finally:
            loader.dispose()

    def _wrong(self, at: yaml.Node | int, text: str) -> None:
        line = at if isinstance(at, int) else at.start_mark.line
        self.problems.append((line + 1, text))


def told(run: Planned) -> str:
    """A run in one line."""
    return f"{run.notebook.stem}({', '.join(f'{name}={value!r}' for name, value in run.parameters.items())})"
