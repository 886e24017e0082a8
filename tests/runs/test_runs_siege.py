"""Siege: a hundred runs whose processes are killed at random, and a cluster whose hosts share a disk and no memory."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest

from atlaskit import runs

pytestmark = [pytest.mark.siege, pytest.mark.timeout(7200)]

SHARED = Path(__file__).parents[1] / "shared"

N = 100

DECLARED = "seed: int = 0"

SQUARE = """import json, os, pathlib, time
time.sleep(0.3)
content = {"notebook": "square", "parameters": {"seed": seed}, "findings": {"square": seed * seed}}
path = pathlib.Path(os.environ["ATLASKIT_RUN_FOLDER"]) / "run.json"
path.write_text(json.dumps(content | {"model_hash": None, "versions": {}}))"""

DRIVER = """import sys
from atlaskit import runs
with runs.Local(2) as executor:
    grid = {"seed": range(int(sys.argv[3]))}
    done = runs.batch(sys.argv[1], grid, out=sys.argv[2], executor=executor, progress=False)
sys.exit(done.count("failed") + done.count("stopped") > 0)
"""

KINDS = ("driver", "worker", "run", "kernel")
"""Each a child of the one before."""


def some(driver, kind, dice):
    """One process of the kind that is at work below a driver, or None."""
    found = [psutil.Process(driver.pid)]
    try:
        for _ in KINDS[: KINDS.index(kind)]:
            found = [child for one in found for child in one.children()]
    except psutil.NoSuchProcess:
        return None
    return dice.choice(found) if found else None


def published(out):
    """What tells a finished run from one that was made again: run -> its manifest's place and date on the disk."""
    found = {path.parent.name: path.stat() for path in out.glob("done/*/manifest.json")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def test_a_hundred_runs_under_random_kills_are_done_once_each(write, tmp_path):
    notebook = write(tmp_path / "square.ipynb", SQUARE, declared=DECLARED)
    out, dice = tmp_path / "out", random.Random(0)
    command = [sys.executable, "-c", DRIVER, str(notebook), str(out), str(N)]
    finished, killed, drivers, code = {}, Counter(), 0, None
    while code != 0:
        drivers += 1
        assert drivers <= N
        driver = subprocess.Popen(command)
        before, due = len(published(out)), None
        while (code := driver.poll()) is None:
            time.sleep(0.05)
            now = published(out)
            assert finished.items() <= now.items(), "what was finished is lost, or was done again"
            finished = now
            if due is None and len(now) > before:  # only then, or nothing would ever get done
                due = time.monotonic() + dice.uniform(0, 3)
            if due is not None and time.monotonic() > due:
                (kind,) = dice.choices(KINDS, weights=(1, 3, 3, 3))  # a driver's start takes longest
                if (victim := some(driver, kind, dice)) is not None:
                    victim.kill()
                    killed[kind] += 1
                    before, due = len(now), None
    print(f"{drivers} drivers; killed: {dict(killed)}")
    assert set(killed) == set(KINDS)
    assert killed.total() > N / 4
    rows = pyarrow.parquet.read_table(out / "aggregate.parquet").to_pylist()
    assert [(row["parameter.seed"], row["value"]) for row in rows] == [(seed, seed * seed) for seed in range(N)]
    undisturbed = tmp_path / "undisturbed"
    subprocess.run([*command[:4], str(undisturbed), str(N)], check=True)
    for name in ("aggregate.parquet", "across.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()


CLUSTER = """import pickle, sys
from atlaskit import runs
with runs.Dask(sys.argv[1]) as executor:
    ended = runs.drive(pickle.load(sys.stdin.buffer), executor, progress=False)
sys.exit(any(one.state != "done" for one in ended.values()))
"""


@pytest.fixture
def hosts():
    """Three network namespaces on one bridge: prefixes for commands, and addresses."""
    ip = shutil.which("ip")
    names = [f"atlas{os.getpid()}-{i}" for i in range(4)]
    if ip is None or os.geteuid() or subprocess.run([ip, "netns", "add", names[0]], capture_output=True).returncode:
        pytest.skip("only root, with iproute2, can make network namespaces")

    def run(*command):
        subprocess.run([ip, *command], check=True)

    inside = ["netns", "exec"]
    try:
        run("-n", names[0], "link", "add", "bridge", "type", "bridge")
        run("-n", names[0], "link", "set", "bridge", "up")
        for i, name in enumerate(names[1:], start=1):
            run("netns", "add", name)
            run("-n", name, "link", "add", "eth", "type", "veth", "peer", "name", f"port{i}", "netns", names[0])
            run("-n", names[0], "link", "set", f"port{i}", "master", "bridge", "up")
            run("-n", name, "addr", "add", f"10.77.0.{i}/24", "dev", "eth")
            run("-n", name, "link", "set", "eth", "up")
            run("-n", name, "link", "set", "lo", "up")
        yield [([ip, *inside, name], f"10.77.0.{i}") for i, name in enumerate(names[1:], start=1)]
    finally:
        for name in names:
            subprocess.run([ip, "netns", "del", name], capture_output=True, check=False)


def test_three_hosts_of_which_one_dies_give_the_bytes_of_one(hosts, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SHARED), os.environ.get("PYTHONPATH", "")]))

    def tasks(name, seconds):
        work = {"diary": str(tmp_path / f"{name}.txt"), "seconds": seconds}
        return [
            runs.Task(f"t{i}", "chores:slow", work | {"name": f"t{i}"}, {"i": i}, out=tmp_path / name) for i in range(9)
        ]

    with runs.Local(1) as executor:
        runs.drive(tasks("alone", 0.0), executor, progress=False)
    address = tmp_path / "address.json"
    (first, at), *_ = hosts
    python, common = [sys.executable, "-m"], ["--scheduler-file", str(address), "--no-dashboard"]
    scheduler = [*first, *python, "distributed.cli.dask_scheduler", *common, "--host", at, "--port", "0"]
    started = [subprocess.Popen(scheduler, cwd=tmp_path)]
    try:
        while not address.exists():
            time.sleep(0.1)
        for prefix, own in hosts:
            worker = [*prefix, *python, "distributed.cli.dask_worker", *common, "--host", own, "--no-nanny"]
            started.append(subprocess.Popen([*worker, "--nthreads", "1"], cwd=tmp_path))
        where = json.loads(address.read_text())["address"]
        assert where.startswith("tcp://10.77.0.1:")
        driver = subprocess.Popen([*first, sys.executable, "-c", CLUSTER, where], stdin=subprocess.PIPE, cwd=tmp_path)
        started.append(driver)
        driver.stdin.write(pickle.dumps(tasks("three", 1.0)))
        driver.stdin.close()
        while not (done := list(tmp_path.glob("three/done/*/manifest.json"))):
            assert driver.poll() is None
            time.sleep(0.1)
        started[3].kill()  # the third host's worker
        assert driver.wait() == 0
        assert len(done) < 9, "it was killed too late to matter"
    finally:
        for process in started:
            process.kill()
            process.wait()
    found = [
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name / "done").rglob("*.*")}
        for name in ("alone", "three")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 27
