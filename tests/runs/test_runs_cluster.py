"""Twin: a cluster gives the bytes that one machine gives, also when a worker is killed; so does a queue of jobs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import distributed
import psutil
import pytest

from atlaskit import runs

SHARED = Path(__file__).parents[1] / "shared"
PATIENCE = 240

# what Dask and submitit warn of, such as a slow disk, is no fault of ours
pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.filterwarnings("ignore")]


def tasks(out, diary, n=6, seconds=1.0):
    return [
        runs.Task(f"t{i}", "chores:slow", {"diary": str(diary), "name": f"t{i}", "seconds": seconds}, {"i": i}, out=out)
        for i in range(n)
    ]


def bytes_of(out):
    """Every published byte: path -> content."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def path():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SHARED), os.environ.get("PYTHONPATH", "")]))
        yield


@pytest.fixture(scope="module")
def local(path, tmp_path_factory):
    """The bytes of a run on this machine alone."""
    folder = tmp_path_factory.mktemp("local")
    with runs.Local(1) as executor:
        ended = runs.drive(tasks(folder, folder / "diary.txt", seconds=0.0), executor, progress=False)
    assert all(one.state == "done" for one in ended.values())
    return bytes_of(folder / "done")


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and three workers, each started by itself: its address, and the workers."""
    address = tmp_path / "address.json"
    host = ["--host", "127.0.0.1", "--no-dashboard"]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(address), *host]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address), *host]
    worker += ["--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path / "space")]
    log = (tmp_path / "cluster.log").open("w")
    started = [subprocess.Popen([*scheduler, "--port", "0"], stdout=log, stderr=log, cwd=tmp_path)]
    deadline = time.monotonic() + PATIENCE
    while not address.exists():
        assert time.monotonic() < deadline, (tmp_path / "cluster.log").read_text()
        time.sleep(0.1)
    started += [subprocess.Popen(worker, stdout=log, stderr=log, cwd=tmp_path) for _ in range(3)]
    where = json.loads(address.read_text())["address"]
    try:
        with distributed.Client(where, timeout=PATIENCE) as client:
            client.wait_for_workers(3, timeout=PATIENCE)  # one that comes late could find the scheduler gone
        yield where, started[1:]
    finally:
        for process in started:
            process.kill()  # a worker that is asked to end may wait for a scheduler that has ended
            process.wait()
        log.close()


def test_a_cluster_over_tcp_that_loses_a_worker_gives_the_same_bytes(cluster, local, tmp_path):
    address, workers = cluster
    diary = tmp_path / "diary.txt"
    killed = []

    def heard(ended):
        if not killed:  # one is done, so others are at work
            lines = [line.split() for line in diary.read_text().splitlines()]
            at_work = {pid for _, what, pid in lines if what == "began"} - {
                pid for _, what, pid in lines if what == "ended"
            }
            kin = {one: {str(child.pid) for child in psutil.Process(one.pid).children(True)} for one in workers}
            victim = ([one for one in workers if at_work & kin[one]] or workers)[0]
            victim.send_signal(signal.SIGKILL)
            killed.append(victim)

    with runs.Dask(address) as executor:
        assert address.startswith("tcp://127.0.0.1:")
        ended = runs.drive(tasks(tmp_path / "out", diary), executor, progress=False, heard=heard)
    assert len(killed) == 1
    assert {one.state for one in ended.values()} == {"done"}
    assert bytes_of(tmp_path / "out/done") == local


def test_a_cluster_of_our_own_listens_on_loopback_alone_shows_its_dashboard_and_leaves_nothing(local, tmp_path):
    before = {one.pid for one in psutil.Process().children(recursive=True)}
    with runs.Dask(workers=1) as executor:
        ended = runs.drive(tasks(tmp_path / "out", tmp_path / "diary.txt", n=2, seconds=0.0), executor, progress=False)
        ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = {one.laddr for process in ours for one in process.net_connections("inet") if one.status == "LISTEN"}
        with urllib.request.urlopen(executor.dashboard, timeout=PATIENCE) as page:
            assert b"Dask" in page.read()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/status", executor.dashboard)
    assert {one.state for one in ended.values()} == {"done"}
    assert bytes_of(tmp_path / "out/done") == {name: content for name, content in local.items() if name < "t2"}
    assert {at.ip for at in listening} == {"127.0.0.1"}
    assert len(listening) >= 3  # scheduler, worker, dashboard
    left = [one for one in psutil.Process().children(recursive=True) if one.pid not in before]
    assert [one for one in left if "tracker" not in " ".join(one.cmdline())] == []


@pytest.mark.parametrize("kind", ["local", "debug"])
def test_the_queue_of_submitit_gives_the_same_bytes(kind, local, tmp_path):
    executor = runs.Slurm(tmp_path / "out", runs.Limits(), cluster=kind)
    ended = runs.drive(tasks(tmp_path / "out", tmp_path / "diary.txt", n=2, seconds=0.0), executor, progress=False)
    assert {one.state for one in ended.values()} == {"done"}, ended
    assert bytes_of(tmp_path / "out/done") == {name: content for name, content in local.items() if name < "t2"}


def test_without_its_package_an_executor_says_what_to_install(monkeypatch, tmp_path):
    for name in ("distributed", "submitit"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'atlaskit\[dask\]'"):
        runs.Dask()
    with pytest.raises(ImportError, match=r"pip install 'atlaskit\[slurm\]'"):
        runs.Slurm(tmp_path, runs.Limits())
