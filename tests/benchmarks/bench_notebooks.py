"""What each notebook takes in JupyterLab with its own parameters: seconds, on the clock and of computing, and memory.

    python tests/benchmarks/bench_notebooks.py                  # all six, one after the other: ten minutes on two cores
    python tests/benchmarks/bench_notebooks.py 01 04            # those whose names begin so

Memory is that of the server, its kernel and whatever these start, as Binder counts it against its 2 GB: the sum of what
each process has of its own and its share of what several have (PSS), four times a second. The browser is not in it: on
Binder it runs with the reader. Two threads, as binder/start sets them. The notebook runs from top to bottom in a fresh
kernel, with a fresh server.
"""

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
from bench_explorer import browser, jupyterlab
from playwright.sync_api import sync_playwright

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
BINDER = 2_000  # MB


class Gauge:
    """The largest sum, in MB, over a process and all its children; sampled until it is stopped."""

    def __init__(self, process):
        self.process, self.peak, self.parts = process, 0.0, ()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while not self._stop.wait(0.25):
            sizes = []
            for one in (self.process, *self.process.children(recursive=True)):
                try:
                    sizes.append(one.memory_full_info().pss / 1e6)
                except psutil.NoSuchProcess:
                    continue
            if sum(sizes) > self.peak:
                self.peak, self.parts = sum(sizes), tuple(sorted(sizes, reverse=True))

    def stop(self):
        """Stop, and say how long all of them have computed, in seconds."""
        self._stop.set()
        self._thread.join()
        every = (self.process, *self.process.children(recursive=True))
        return sum(one.cpu_times().user + one.cpu_times().system for one in every)


def row(chrome, path):
    """Seconds from the first cell to the last, seconds of computing, and what the gauge saw."""
    with jupyterlab() as lab:
        server = next(one for one in psutil.Process().children() if "jupyterlab" in one.cmdline())
        page = chrome.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        page.set_default_timeout(900_000)
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, lab["dir"] / path.name)
        gauge = Gauge(server)
        page.goto(f"{lab['url']}/lab/workspaces/bench/tree/{path.name}?reset&token={lab['token']}")
        page.wait_for_function("window.jupyterapp?.restored")
        began = time.perf_counter()
        errors = page.evaluate(browser.RUN_ALL_CELLS)
        took = time.perf_counter() - began
        page.wait_for_timeout(3000)  # the last figures are on their way
        computed = gauge.stop()
        page.context.close()
        assert errors == [], errors
    return took, computed, gauge


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=[""], help="how the notebooks' names begin")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that JupyterLab and its kernels end too
    os.environ["OMP_NUM_THREADS"] = "2"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; server and kernel, of {BINDER} MB on Binder")
    print(f"{'':36}{'seconds':>9}{'CPU':>6}{'peak MB':>9}{'of it':>8}  largest processes, MB")
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=browser.CHROMIUM_FLAGS
        )
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            if path.name.startswith(tuple(asked.names)):
                took, computed, gauge = row(chrome, path)
                parts = ", ".join(f"{one:.0f}" for one in gauge.parts[:3])
                memory = f"{gauge.peak:>9.0f}{gauge.peak / BINDER:>8.0%}  {parts}"
                print(f"{path.stem:36}{took:>9.0f}{computed:>6.0f}{memory}", flush=True)
        chrome.close()


if __name__ == "__main__":
    sys.exit(main())
