"""Fault: whatever is killed, full, slow or broken, a restart repeats nothing that was done and loses nothing."""

import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from atlaskit import runs
from atlaskit.runs import manifest
from atlaskit.runs.executors import _settled
from atlaskit.runs.nursery import FAILURE
from atlaskit.runs.outcome import Failure
from atlaskit.runs.supervise import own

SHARED = Path(__file__).parents[1] / "shared"
PATIENCE = 240


@pytest.fixture(scope="module")
def path():
    """The processes that do the chores must find them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SHARED), os.environ.get("PYTHONPATH", "")]))
        yield


@pytest.fixture(scope="module")
def here(path):
    """Two workers whose nurseries all tests share."""
    with runs.Local(2) as executor:
        yield executor


@pytest.fixture
def diary(tmp_path):
    return tmp_path / "diary.txt"


@pytest.fixture
def chore(tmp_path, diary):
    """Call it with a name and a work of `chores`: a task."""

    def task(name, work="write", *, limits=runs.Limits(), out=tmp_path / "out", **arguments):  # noqa: B008
        arguments |= {"diary": str(diary), "name": name}
        return runs.Task(name, f"chores:{work}", arguments, {"name": name, "version": 1}, out=out, limits=limits)

    return task


def begun(diary, name=""):
    """Process numbers of the works of that name that began."""
    lines = diary.read_text().splitlines() if diary.exists() else []
    return [int(line.split()[2]) for line in lines if line.split()[1] == "began" and line.startswith(name)]


def until(what):
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return found


def in_background(executor, *tasks):
    ended = {}
    thread = threading.Thread(target=lambda: ended.update(runs.drive(tasks, executor, progress=False)))
    thread.start()
    return thread, ended


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_is_done_appears_whole_under_a_manifest_and_is_not_done_again(chore, here, diary, tmp_path):
    tasks = [chore(name) for name in "abc"]
    first = runs.drive(tasks, here, progress=False)
    assert [(one.state, one.attempts) for one in first.values()] == [("done", 1)] * 3
    files = {path.name for path in (tmp_path / "out/done/a").rglob("*") if path.is_file()}
    assert files == {"result.txt", "worker.log", "manifest.json"}
    assert list((tmp_path / "out/work").iterdir()) == []
    again = runs.drive([*tasks, chore("d")], here, progress=False)
    assert [(one.state, one.attempts) for one in again.values()] == [("done", 0)] * 3 + [("done", 1)]
    assert len(begun(diary)) == 4


def test_a_process_gets_its_threads_its_gpu_and_its_folder(chore, here, path, tmp_path):
    runs.drive([chore("look", "look", limits=runs.Limits(threads=3))], here, progress=False)
    found = ast.literal_eval((tmp_path / "out/done/look/result.txt").read_text())
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["cwd"] == str(Path.cwd())
    assert found["pid"] != os.getpid()
    executor = runs.Local(gpus=[3, 5])
    places = {executor.submit(lambda: time.sleep(0.3) or own.place.gpu).result() for _ in range(2)}
    executor.stop()
    assert places <= {"3", "5"}
    with pytest.raises(ValueError, match="3 workers need as many GPUs, and 1 are named"):
        runs.Local(3, gpus=[0])


def test_a_killed_process_is_given_another_attempt(chore, here, diary, tmp_path):
    thread, ended = in_background(here, chore("a", "wait", until=str(tmp_path / "go")))
    (pid,) = until(lambda: begun(diary))
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(begun(diary)) == 2)
    (tmp_path / "go").touch()
    thread.join()
    assert (ended["a"].state, ended["a"].attempts) == ("done", 2)
    assert list((tmp_path / "out/work").iterdir()) == []


def test_a_killed_nursery_is_replaced_and_its_run_ends_with_it(chore, here, diary, tmp_path):
    thread, ended = in_background(here, chore("a", "wait", until=str(tmp_path / "go")))
    (pid,) = until(lambda: begun(diary))
    psutil.Process(pid).parent().kill()
    until(lambda: gone(pid))
    until(lambda: len(begun(diary)) == 2)
    (tmp_path / "go").touch()
    thread.join()
    assert (ended["a"].state, ended["a"].attempts) == ("done", 2)


def test_what_a_killed_process_had_started_is_ended_with_it(chore, here, diary):
    ended = runs.drive([chore("a", "die_with_a_child", limits=runs.Limits(attempts=1))], here, progress=False)
    assert (ended["a"].state, ended["a"].failure.name) == ("failed", "Killed")
    (child,) = begun(diary)
    until(lambda: gone(child))


def test_one_that_always_dies_fails_in_the_end_and_the_others_do_not_care(chore, here, diary):
    ended = runs.drive([chore("a", "die"), chore("b")], here, progress=False)
    assert (ended["a"].state, ended["a"].attempts, ended["a"].failure.name) == ("failed", 3, "Killed")
    assert "exit code -9" in str(ended["a"].failure)
    assert ended["b"].state == "done"
    assert len(begun(diary, "a")) == 3


def test_an_error_is_kept_with_its_traceback_and_tried_once_until_it_is_asked_for_again(chore, here, diary, tmp_path):
    ended = runs.drive([chore("a", "fail")], here, progress=False)
    assert (ended["a"].state, ended["a"].attempts) == ("failed", 1)
    kept = tmp_path / "out/failed/a"
    told = json.loads((kept / FAILURE).read_text())
    assert told["message"] == "a cannot be done"
    assert 'raise ValueError(f"{name} cannot be done")' in told["traceback"]
    assert "what it said before" in (kept / "worker.log").read_text()
    assert (kept / "half.txt").exists()
    assert not (tmp_path / "out/done/a").exists()
    assert runs.drive([chore("a")], here, progress=False)["a"].state == "done"
    assert not kept.exists()


def test_one_that_hangs_is_ended(chore, here, diary, tmp_path):
    hangs = chore("a", "wait", until=str(tmp_path / "never"), limits=runs.Limits(seconds=0.5))
    ended = runs.drive([hangs], here, progress=False)
    assert str(ended["a"].failure) == "TimeLimit: it ran longer than 0.5 seconds and was ended"
    assert ended["a"].attempts == 1
    assert all(gone(pid) for pid in begun(diary))


def test_one_that_takes_too_much_memory_is_ended_with_its_children(chore, here, diary):
    hoards = chore("a", "hoard", limits=runs.Limits(memory=1_000_000_000, seconds=PATIENCE))
    ended = runs.drive([hoards], here, progress=False)
    assert ended["a"].failure.name == "MemoryLimit"
    assert ended["a"].attempts == 1
    assert all(gone(pid) for pid in begun(diary))


@pytest.mark.parametrize(
    "harm",
    [
        lambda done: (done / "manifest.json").write_text((done / "manifest.json").read_text()[:-30]),
        lambda done: (done / "manifest.json").write_text((done / "manifest.json").read_text().replace("a", "e", 1)),
        lambda done: (done / "manifest.json").write_text("[1, 2]"),
        lambda done: (done / "manifest.json").unlink(),
        lambda done: (done / "deep/result.txt").write_text("other"),
        lambda done: (done / "deep/result.txt").unlink(),
        lambda done: (done / "more.txt").touch(),
    ],
    ids=["cut", "altered", "another", "missing", "file altered", "file missing", "file too many"],
)
def test_a_run_whose_manifest_does_not_hold_is_done_again_and_no_other(harm, chore, here, diary, tmp_path):
    tasks = [chore(name) for name in "ab"]
    runs.drive(tasks, here, progress=False)
    before = (tmp_path / "out/done/a/deep/result.txt").read_bytes()
    harm(tmp_path / "out/done/a")
    again = runs.drive(tasks, here, progress=False)
    assert [one.attempts for one in again.values()] == [1, 0]
    assert manifest.is_done(tmp_path / "out/done/a", tasks[0].key)
    assert (tmp_path / "out/done/a/deep/result.txt").read_bytes() == before


def test_a_result_for_another_key_does_not_count(chore, here, diary):
    runs.drive([chore("a")], here, progress=False)
    newer = runs.Task("a", "chores:write", chore("a").arguments, {"name": "a", "version": 2}, out=chore("a").out)
    assert runs.drive([newer], here, progress=False)["a"].attempts == 1
    assert runs.drive([newer], here, progress=False)["a"].attempts == 0


def test_the_second_to_publish_drops_its_own(chore, tmp_path):
    task = chore("a")
    for text in ("first", "second"):
        staging = task.staging()
        (staging / "result.txt").write_text(text)
        manifest.publish(staging, task)
    assert (task.done / "result.txt").read_text() == "first"
    assert list((tmp_path / "out/work").iterdir()) == []


def test_a_result_and_its_name_are_on_the_disk_before_anyone_is_told(chore, monkeypatch):
    task, flushed, flush = chore("a"), [], os.fsync
    monkeypatch.setattr("os.fsync", lambda file: flushed.append(os.fstat(file).st_ino) or flush(file))
    staging = task.staging()
    (staging / "result.txt").touch()
    manifest.publish(staging, task)
    assert flushed == [(task.done / "manifest.json").stat().st_ino, task.done.parent.stat().st_ino]


def test_two_drivers_do_not_share_a_folder_and_a_killed_one_lets_go(tmp_path):
    program = "import sys, time; from pathlib import Path; from filelock import FileLock\n"
    program += f"lock = FileLock({str(tmp_path / '.lock')!r})\n"
    program += "lock.acquire(); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        (tmp_path / "driver.txt").write_text("process 7 on host")
        with pytest.raises(RuntimeError, match="is in use by process 7 on host; wait"), runs.alone_in(tmp_path):
            pass
        other.kill()
        other.wait()
    with runs.alone_in(tmp_path):
        assert (tmp_path / "driver.txt").read_text() == f"process {os.getpid()} on {os.uname().nodename}"


def test_a_clock_set_back_repeats_nothing(chore, here, diary, tmp_path, monkeypatch):
    tasks = [chore(name) for name in "ab"]
    runs.drive(tasks[:1], here, progress=False)
    for file in (tmp_path / "out").rglob("*"):
        os.utime(file, (4e9, 4e9))  # the year 2096, from where the clock comes back
    monkeypatch.setattr("time.time", lambda: 1.0)
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
    ended = runs.drive(tasks, here, progress=False)
    assert [(one.state, one.attempts) for one in ended.values()] == [("done", 0), ("done", 1)]
    assert 0 < ended["b"].seconds < PATIENCE


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB, which root can make; call it to enlarge it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_stops_and_with_room_it_goes_on(chore, path, diary, tmp_path, small_disk):
    tasks = [chore(name, "fill", size=1_200_000, out=tmp_path / "disk/out") for name in "abcd"]
    with runs.Local(1) as executor:
        ended = runs.drive(tasks, executor, progress=False)
    assert [one.state for one in ended.values()] == ["done", "done", "failed", "stopped"]
    assert ended["c"].failure.message == "the disk is full"
    small_disk()
    with runs.Local(1) as executor:
        ended = runs.drive(tasks, executor, progress=False)
    assert [(one.state, one.attempts) for one in ended.values()] == [("done", 0)] * 2 + [("done", 1)] * 2
    assert [len(begun(diary, name)) for name in "abcd"] == [1, 1, 2, 1]


class Remote:
    """An executor whose first future ends as it is told, and whose others wait until they are withdrawn."""

    def __init__(self, ended):
        self.futures, self._ended = [], ended

    def submit(self, function, task):
        self.futures.append(Future())
        if len(self.futures) == 1:
            self.futures[0].set_result(self._ended)
        return self.futures[-1]

    def together(self):
        return nullcontext()

    def stop(self):
        for future in self.futures:
            future.cancel()


@pytest.mark.timeout(60)  # a driver that does not stop waits for ever
def test_on_a_cluster_too_a_full_disk_stops_what_waits(chore):
    full = Failure("OSError", "the disk is full")
    executor = Remote(runs.Ended("a", "failed", full))
    ended = runs.drive([chore(name) for name in "abc"], executor, progress=False)
    assert [one.state for one in ended.values()] == ["failed", "stopped", "stopped"]
    assert [one.cancelled() for one in executor.futures] == [False, True, True]


def test_a_clusters_worker_is_asked_again_after_a_disk_was_full():
    def calls():
        _settled(lambda: own.place.stop.set())
        return _settled(lambda: own.place.stop.is_set())

    with ThreadPoolExecutor(1) as worker:
        assert worker.submit(calls).result() is False


DRIVER = """import sys, pickle
from atlaskit.runs import Local, drive
with Local(1) as executor:
    drive(pickle.load(sys.stdin.buffer), executor, progress=False)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped by Ctrl-C"])
def test_a_driver_takes_its_runs_along_and_the_next_one_goes_on(kill, chore, here, diary, tmp_path):
    import pickle

    tasks = [chore("a"), chore("b", "wait", until=str(tmp_path / "go")), chore("c")]
    start = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{DRIVER}"
    with subprocess.Popen([sys.executable, "-c", start], stdin=subprocess.PIPE) as driver:
        driver.stdin.write(pickle.dumps(tasks))
        driver.stdin.close()
        (pid,) = until(lambda: begun(diary, "b"))
        driver.send_signal(kill)
        assert driver.wait(PATIENCE) == (0 if kill == signal.SIGINT else -kill)
    until(lambda: gone(pid))
    (tmp_path / "go").touch()
    ended = runs.drive(tasks, here, progress=False)
    assert [(one.state, one.attempts) for one in ended.values()] == [("done", 0), ("done", 1), ("done", 1)]
    assert [len(begun(diary, name)) for name in "abc"] == [1, 2, 1]
