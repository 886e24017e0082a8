"""Border: the diagram of the house, its words and its sizes, read from the source by ast.

floor 3   notebooks/  tests/  cli  compat  data/recipe                 the only places where rooms meet
floor 2   models  measure  fractal_attention  training  show  runs     no room imports another
floor 1   records                                    data (bundled files, opened by models alone)
"""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = Path(__file__).parents[1] / "atlaskit"

# What each room may import besides the standard library and itself.
ROOMS = {
    "records": {"jaxtyping", "torch"},
    "data": set(),
    "measure": {"atlaskit.records", "einops", "jaxtyping", "torch"},
    "maps": {"atlaskit.records", "jaxtyping", "numpy", "scipy", "sklearn", "torch"},
    "models": {
        "atlaskit.records",
        "atlaskit.data",
        "conllu",
        "einops",
        "jaxtyping",
        "psutil",
        "huggingface_hub",
        "safetensors",
        "tokenizers",
        "torch",
        "tqdm",
    }
    | {"transformers"},
    "fractal_attention": {"atlaskit.records", "einops", "jaxtyping", "torch", "transformers", "typing_extensions"},
    "training": {"atlaskit.records", "accelerate", "jaxtyping", "safetensors", "torch", "tqdm", "transformers"},
    "show": {"atlaskit.records", "IPython", "anywidget", "bokeh", "ipywidgets", "jaxtyping", "jupyter_bokeh", "numpy"}
    | {"PIL", "pyarrow", "torch", "tqdm", "traitlets"},
    "runs": {"atlaskit.records", "jinja2", "jupyter_client", "latex2mathml", "nbclient", "nbconvert", "nbformat"}
    | {"jaxtyping", "numpy", "papermill", "pyarrow", "torch"}
    | {"distributed", "filelock", "psutil", "scipy", "submitit", "tqdm", "yaml"},
}
FLOOR_3 = {"cli", "compat", "data/recipe"}
WIDGETS = {"anywidget", "ipywidgets", "jupyter_bokeh", "traitlets"}

AXES = set("doc layer head query key point dim rank draw size step d_head d_model kv_head d_value token".split()) | set(
    "batch length row column pair box block series order interval knot twin other vocab axes".split()
    + "label role word rule part quantity".split()
)

# One name a line, so that two changes meet without a conflict.
PUBLIC = sorted(line.split(".") for line in Path(__file__).with_name("public_names.txt").read_text().split())

SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))


def room_of(path):
    """cli, records, measure, ... or data/recipe."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "data/recipe" if parts[:2] == ("data", "recipe") else parts[0]


def imports(path, source=None):
    """Every import of a file, wherever it stands, as absolute dotted names."""
    here = ("atlaskit", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(source or path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else ()
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names) if start.startswith("atlaskit") else [start]


def trespasses(path, source=None):
    """The imports that the diagram forbids to this file."""
    room = room_of(path)
    if room in FLOOR_3 | {"__init__"}:
        return []
    own = {f"atlaskit.{room}", *sys.stdlib_module_names, "__future__"}
    allowed = ROOMS[room] | own
    found = []
    for name in imports(path, source):
        parts = name.split(".")
        corridor = ".".join(parts[:2]) if parts[0] == "atlaskit" else parts[0]
        if corridor not in allowed or name.startswith("atlaskit.data.recipe"):
            found.append(name)
    return found


@MODULES
def test_no_room_imports_another(path):
    assert trespasses(path) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("measure/x.py", "import numpy as np"),
        ("measure/x.py", "def f():\n    from scipy.special import entr"),
        ("measure/x.py", "from ..models import load"),
        ("measure/x.py", "from atlaskit import models"),
        ("show/x.py", "import atlaskit.measure.pattern"),
        ("show/x.py", "from transformers import AutoModel"),
        ("runs/x.py", "import bokeh.plotting"),
        ("runs/x.py", "if True:\n    from .. import show"),
        ("models/x.py", "from atlaskit.data.recipe import prose"),
        ("data/x.py", "import torch"),
        ("records.py", "from .measure import entropy"),
    ],
)
def test_the_border_stops_whoever_crosses_it(file, line):
    assert len(trespasses(PACKAGE / file, line)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("measure/x.py", "from .pattern import entropy\nfrom ..records import Rows\nfrom atlaskit.records import Rows"),
        ("models/x.py", "from atlaskit import data, records\nfrom . import hook"),
        ("cli/run.py", "from atlaskit import runs\nimport torch"),
    ],
)
def test_the_border_lets_pass_what_the_diagram_allows(file, line):
    assert trespasses(PACKAGE / file, line) == []


def test_every_room_is_on_the_diagram():
    assert {room_of(path) for path in SOURCES} - FLOOR_3 - {"__init__"} == set(ROOMS)


def test_what_the_package_imports_is_declared_in_pyproject():
    """By us, or by something that we declare: nbformat comes with papermill."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    optional = [line for name in ("app", "models", "parquet", "dask", "slurm") for line in extras[name]]
    ours = {Requirement(line).name for line in project["dependencies"] + optional}
    theirs = {Requirement(need).name for name in ours for need in metadata.requires(name) or []}
    declared = {canonicalize_name(name) for name in ours | theirs}
    providers = metadata.packages_distributions()
    for path in SOURCES:
        for name in {name.split(".")[0] for name in imports(path)} & set(providers) - {"atlaskit"}:
            found = {canonicalize_name(provider) for provider in providers[name]}
            assert found & declared, f"{path.name} imports {name}, which nobody declares"


def test_widgets_live_in_three_files():
    users = {path.name for path in SOURCES if WIDGETS & {name.split(".")[0] for name in imports(path)}}
    assert users <= {"desk.py", "explorer.py", "live.py"}


@MODULES
def test_a_module_has_one_subject(path):
    lines = len(path.read_text().splitlines())
    assert lines <= 400, f"{lines} lines; from 300 on, look for the second subject"


def public_functions(tree):
    """Public functions and methods of a module: (name, arguments without self)."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, node.args.posonlyargs + node.args.args
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in method.decorator_list)
                    arguments = method.args.posonlyargs + method.args.args
                    yield f"{node.name}.{method.name}", method, arguments if static else arguments[1:]


def shown(room):
    """What a room's __init__ re-exports: (module path, name)."""
    for line in ast.parse((PACKAGE / room / "__init__.py").read_text()).body:
        if isinstance(line, ast.ImportFrom):
            module = (line.module or "").removeprefix(f"atlaskit.{room}.")
            yield from ((PACKAGE / room / f"{module or alias.name}.py", alias.name) for alias in line.names)


@pytest.mark.parametrize("room", sorted(set(ROOMS) - {"records"}))
def test_nobody_has_to_remember_more_than_three_positions(room):
    for path, shown_name in shown(room):
        for name, node, arguments in public_functions(ast.parse(path.read_text())):
            theirs = node.name == "forward" or any(getattr(d, "id", "") == "override" for d in node.decorator_list)
            if name.split(".")[0] == shown_name and not theirs:  # a signature set by a base class stays as it is
                assert len(arguments) <= 3, f"{room}.{name}: make the others keyword-only"


@MODULES
def test_every_public_function_says_what_it_takes_and_returns(path):
    for name, node, arguments in public_functions(ast.parse(path.read_text())):
        missing = [argument.arg for argument in [*arguments, *node.args.kwonlyargs] if argument.annotation is None]
        assert missing == [], f"{name}: {missing}"
        assert node.returns is not None, name


def shapes(tree):
    """The shape strings of jaxtyping annotations: Float[Tensor, "head query key"]."""
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(
                value=ast.Name(id="Float" | "Bool" | "Int" | "Integer" | "Shaped" | "Num" | "Real"),
                slice=ast.Tuple(elts=[_, ast.Constant(value=str(shape))]),
            ):
                yield shape


@MODULES
def test_axes_are_named_with_the_words_of_the_house(path):
    if room_of(path) == "data/recipe":
        return  # a script with words of its own
    for shape in shapes(ast.parse(path.read_text())):
        words = {word.lstrip("*#?") for word in re.split(r"[\s+*/-]+", shape) if not word.isdigit()} - {"", "...", "_"}
        assert words <= AXES, f"{shape!r}: {sorted(words - AXES)} is not in AXES; use its word, or add one there"


@pytest.mark.parametrize("room", sorted(set(ROOMS) - {"records"}))
def test_a_room_shows_exactly_its_public_names(room):
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    assert ast.get_docstring(tree)
    lines = tree.body[1:]
    assert all(isinstance(line, ast.ImportFrom) for line in lines), "a room's __init__ is its list of names"
    names = [alias for line in lines for alias in line.names]
    assert all(alias.asname == alias.name for alias in names), "write `from .x import y as y`"
    assert sorted(alias.name for alias in names) == [name for place, name in PUBLIC if place == room]
    for line in lines:
        home = (line.module or "").removeprefix(f"atlaskit.{room}").removeprefix(".")
        for name in {alias.name for alias in line.names} - {home}:
            same = home and (PACKAGE / room / f"{name}.py").exists()
            assert not same, f"{room}/{name}.py, imported late, would take the place of {room}.{name}"


def test_importing_everything_asks_the_network_for_nothing():
    modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in SOURCES]
    program = f"""
import socket, sys
def refuse(*_):
    raise AssertionError("network at import")
socket.socket.connect = socket.getaddrinfo = refuse
for name in {[name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]!r}:
    __import__(name)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
