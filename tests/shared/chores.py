"""Small works that behave well, badly, or very badly: what a nursery is asked to do in the tests of batches.

Each notes in a diary outside its folder that it began, and that it ended; a test reads there what was done twice.
"""

import os
import signal
import subprocess
import time
from pathlib import Path


def _note(diary, what):
    with Path(diary).open("a") as file:
        file.write(f"{what}\n")


def write(folder, *, diary, name):
    """The well-behaved one: its bytes follow from its name."""
    _note(diary, f"{name} began {os.getpid()}")
    (folder / "deep").mkdir()
    (folder / "deep" / "result.txt").write_text(f"{name} " * 100)
    _note(diary, f"{name} ended {os.getpid()}")


def wait(folder, *, diary, name, until):
    """Begins, and ends only once the file `until` is there."""
    _note(diary, f"{name} began {os.getpid()}")
    while not Path(until).exists():
        time.sleep(0.02)
    (folder / "result.txt").write_text(name)
    _note(diary, f"{name} ended {os.getpid()}")


def slow(folder, *, diary, name, seconds):
    _note(diary, f"{name} began {os.getpid()}")
    time.sleep(seconds)
    (folder / "result.txt").write_text(name)
    _note(diary, f"{name} ended {os.getpid()}")


def die_with_a_child(folder, *, diary, name):
    """As a papermill that is killed: its kernel, a session of its own, is left behind."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    _note(diary, f"{name} began {child.pid}")
    time.sleep(1)  # long enough to be seen
    os.kill(os.getpid(), signal.SIGKILL)


def die(folder, *, diary, name):
    _note(diary, f"{name} began {os.getpid()}")
    os.kill(os.getpid(), 9)


def fail(folder, *, diary, name):
    _note(diary, f"{name} began {os.getpid()}")
    (folder / "half.txt").write_text("half")
    print("what it said before")
    raise ValueError(f"{name} cannot be done")


def hoard(folder, *, diary, name):
    """A child process takes three gigabytes, while this one waits for it."""
    _note(diary, f"{name} began {os.getpid()}")
    if os.fork():
        os.wait()
    held = []
    while True:
        if len(held) < 300:
            held.append(b"x" * 10_000_000)
        time.sleep(0.005)


def fill(folder, *, diary, name, size):
    _note(diary, f"{name} began {os.getpid()}")
    (folder / "result.bin").write_bytes(b"x" * size)
    _note(diary, f"{name} ended {os.getpid()}")


def look(folder, *, diary, name):
    """What the process finds around it."""
    names = [line for line in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")]
    found = {one: os.environ.get(one) for one in names} | {"cwd": str(Path.cwd()), "pid": os.getpid()}
    (folder / "result.txt").write_text(repr(found))
