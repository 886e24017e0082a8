"""What a batch costs: overhead per run beside a kernel's own start, and two workers against one."""

import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client.manager import start_new_kernel

from atlaskit import runs
from atlaskit.runs.work import work

BUSY = """import json, os, pathlib, time
began = time.process_time()
while time.process_time() - began < {seconds}:
    sum(range(10_000))
content = {{"notebook": "busy", "parameters": {{"seed": seed}}, "findings": {{}}, "model_hash": None, "versions": {{}}}}
(pathlib.Path(os.environ["ATLASKIT_RUN_FOLDER"]) / "run.json").write_text(json.dumps(content))"""


def write(folder: Path, seconds: float) -> Path:
    cells = [
        nbformat.v4.new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(BUSY.format(seconds=seconds)),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "busy.ipynb")
    return folder / "busy.ipynb"


def kernel(n: int) -> float:
    """Seconds for a kernel that starts, runs a cell, and ends."""
    began = time.monotonic()
    for _ in range(n):
        manager, client = start_new_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client.execute_interactive("pass")
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return (time.monotonic() - began) / n


def outside(notebook: Path, n: int) -> tuple[float, float]:
    """CPU seconds of a run, outside its kernel and in it, once everything is imported."""
    with tempfile.TemporaryDirectory() as out:
        for i in range(n + 1):
            if i == 1:  # the first one imports
                own, below = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            (Path(out) / str(i)).mkdir()
            work(Path(out) / str(i), notebook=str(notebook), parameters={"seed": i}, cell_seconds=60)
        now = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    spent = [a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(now, (own, below), strict=True)]
    return spent[0] / n, spent[1] / n


def batch(notebook: Path, n: int, workers: int) -> float:
    """Wall seconds of n runs, after the workers have started."""
    with tempfile.TemporaryDirectory() as out, runs.Local(workers) as executor:
        runs.batch(notebook, {"seed": range(1000, 1000 + workers)}, out=out, executor=executor, progress=False)
        wall = time.monotonic()
        runs.batch(notebook, {"seed": range(n)}, out=out, executor=executor, progress=False)
        return time.monotonic() - wall


if __name__ == "__main__":
    print(f"load before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        idle = write(Path(folder), 0.0)
        beside, within = outside(idle, 5)
        print(f"CPU of a run: {beside:.2f} s beside its kernel, {within:.2f} s in it")
        bare = kernel(5)
        run = batch(idle, 5, 1) / 5
        print(f"a kernel by itself {bare:.2f} s, a run {run:.2f} s: overhead {run - bare:.2f} s")
        busy = write(Path(folder), 4.0)
        one, two = (batch(busy, 8, workers) for workers in (1, 2))
        print(f"8 runs of 4 s: one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} times as fast")
