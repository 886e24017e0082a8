"""Border: one list of requirements, told the same way to pip, conda, Binder and CI; and a wheel that holds it all."""

import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def wanted(*extras):
    """Requirements of the project with these extras, those on itself left out: name -> range."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    found = map(Requirement, lines)
    return {canonicalize_name(need.name): need.specifier for need in found if need.name != PROJECT["name"]}


def pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())


@pytest.fixture(scope="module")
def pip_lines(environment):
    return environment["dependencies"][-1]["pip"]


def test_conda_and_pip_ask_for_the_same_things(pip_lines):
    requirements = [Requirement(line) for line in pip_lines if not line.startswith("--")]
    assert {canonicalize_name(need.name): need.specifier for need in requirements} == wanted("models")


def test_binder_has_its_own_copy_because_it_ignores_what_lies_outside_its_folder():
    copy = ROOT / "binder/environment.yml"
    assert not copy.is_symlink(), "Binder's build copies the link, not the file"
    assert copy.read_bytes() == (ROOT / "environment.yml").read_bytes()
    assert not (ROOT / ".binder").exists(), "with both folders Binder refuses to build"


def test_binder_understands_the_environment(environment, pip_lines):
    assert set(environment) <= {"name", "channels", "dependencies", "prefix", "variables"}
    python, pip, _ = environment["dependencies"]
    minor = re.fullmatch(r"python=(3\.\d+)", python)[1]  # anything looser and Binder silently takes 3.10
    assert minor in Requirement(f"python{PROJECT['requires-python']}").specifier
    assert pip == "pip"
    local = [line for line in pip_lines if line.startswith(("-e", "-r", ".", "/")) or "file:" in line]
    assert local == [], "a local path makes Binder rebuild everything at every commit"


@pytest.mark.parametrize("script", ["binder/postBuild", "binder/start", ".ci/run"])
def test_scripts_can_be_executed(script):
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", path], check=True)


def test_binder_hands_over_to_the_server_it_was_asked_to_start():
    assert (ROOT / "binder/start").read_text().rstrip().endswith('exec "$@"')
    shown = subprocess.run([ROOT / "binder/start", "echo", "a b"], capture_output=True, text=True, check=True)
    assert shown.stdout == "a b\n"


def test_constraints_are_exact_and_torch_comes_first():
    assert pinned()[0] == Requirement("torch==2.13.0")
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) and not pin.url for pin in pinned())


def test_constraints_cover_every_requirement_within_its_range():
    pins = {canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("==")) for pin in pinned()}
    for name, allowed in wanted(*EXTRAS).items():
        assert name in pins, f"{name} is not in constraints.txt; run make lock"
        assert pins[name] in allowed, f"{name} {pins[name]} is outside {allowed}"


def test_pre_commit_formats_with_the_ruff_that_the_tests_use():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    tools = [Requirement(need) for hook in hooks for need in hook["additional_dependencies"] if "ruff" in need]
    assert tools == [pin for pin in pinned() if pin.name == "ruff"] * 2


def test_ci_runs_what_a_person_runs():
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("exec make test")
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    steps = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert {".ci/run", "make run"} <= set(steps)


def test_the_wheel_holds_everything_that_lies_in_the_package(tmp_path):
    tracked = subprocess.run(["git", "ls-files", "atlaskit"], cwd=ROOT, capture_output=True, text=True, check=True)
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as content:
        assert set(tracked.stdout.split()) <= set(content.namelist())
        assert not [name for name in content.namelist() if name.startswith(("tests", "notebooks"))]


@pytest.fixture
def plan(tmp_path):
    """Call it with a target: what make would do there, without doing it. An environment is faked as installed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("bin/python", "installed-models", "installed-dev"):
        (tmp_path / ".venv" / name).touch()

    def make(target, *touched):
        for name in touched:
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (2e9, 2e9))
        done = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    make.folder = tmp_path
    return make


@pytest.mark.parametrize("target", ["run", "test", "lab", "lint", "benchmark"])
def test_nothing_is_installed_again_while_nothing_changed(plan, target):
    assert "pip install" not in plan(target)


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_installs_again(plan, changed):
    commands = plan("run", changed)
    assert "-c constraints.txt -e '.[models]'" in commands
    assert "-m venv" not in commands


def test_a_fresh_machine_gets_an_environment_first(plan):
    shutil.rmtree(plan.folder / ".venv")
    commands = plan("run")
    assert commands.index("-m venv .venv") < commands.index("pip install") < commands.index(".venv/bin/atlaskit run")


def test_make_test_checks_style_types_and_tests(plan):
    commands = plan("test")
    for step in ("ruff check", "ruff format --check", "mypy", "pytest -n 2", "apt-get install"):
        assert step in commands


def test_an_old_python_is_refused_by_name(tmp_path, plan):
    shutil.rmtree(plan.folder / ".venv")
    done = subprocess.run(["make", "run", "PYTHON=false"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "atlaskit needs Python 3.11 or newer" in done.stderr
