"""What a switch of layer or head costs, from key to picture, beside three viewers from PyPI in the same browser.

    pip install --no-deps bertviz circuitsvis attnview          # the rivals; without one its row says so
    python tests/benchmarks/bench_explorer.py                   # everything, ten minutes on two cores
    python tests/benchmarks/bench_explorer.py --tokens 512 --rivals 64 --repeats 5 --loop 20      # a quick look

The model has 12 layers × 12 heads with random weights and a narrow d_head: a viewer does not see the difference. Rivals
that load scripts from a CDN get them from npm packages, fetched once into a temporary folder, since the browser is cut
off from the network. Read ratios, not milliseconds: the browser draws without a GPU.
"""

import argparse
import gc
import importlib.util
import math
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import psutil
import torch
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parents[1] / "browser"
SPEC = importlib.util.spec_from_file_location("browser_conftest", FOLDER / "conftest.py")
browser = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(browser)

LAYERS = HEADS = 12
ANSWERS = 180_000  # milliseconds after which a page is said never to be ready

MODEL = f"""import torch, time
from transformers import GPT2Config, GPT2Model
from atlaskit import measure, models, show
torch.manual_seed(0)
config = GPT2Config(vocab_size=5000, n_positions=8192, n_embd=192, n_layer={LAYERS}, n_head={HEADS}, n_inner=64)
config.initializer_range = 0.2
model = models.wrap(GPT2Model(config).eval(), name="random 12 × 12")
measures = {{"entropy": (measure.entropy, "bits"), "previous token": (measure.mass_on(measure.previous_token), "mass")}}
"""
TEXT = """ids = torch.randint(5000, ({n},), generator=torch.Generator().manual_seed(1)).tolist()
text = models.reread(model, ids)
print("began", time.time())
explorer = show.Explorer(text, measures=measures)
"""

COLOURS = ("lift", "weight")  # in turn; the first of these is computed, later ones are at hand

# From the key to the first frame in which the watched pixels are others.
SWITCH = """([selector, watched, key]) => new Promise(done => {
  const field = document.querySelector(selector), canvas = document.querySelector(watched);
  const look = () => { const d = canvas.getContext('2d', {willReadFrequently: false})
    .getImageData(canvas.width >> 3, canvas.height * .6 | 0, canvas.width * .5 | 0, 1).data;
    let hash = 0; for (const v of d) hash = (hash * 31 + v) | 0; return hash };
  const before = look(), began = performance.now();
  const choice = field.tagName === 'SELECT';
  field.value = choice ? key : Number(field.value) + key;
  field.dispatchEvent(new Event(choice ? 'change' : 'input', {bubbles: true}));
  const watch = () => look() !== before ? done(performance.now() - began)
    : performance.now() - began > 60_000 ? done(NaN) : requestAnimationFrame(watch);
  requestAnimationFrame(watch);
})"""

# For viewers that draw with elements: until two frames in a row have found nothing new.
SETTLE = """act => new Promise(done => {
  const began = performance.now(); let last = began;
  const seen = new MutationObserver(() => { last = performance.now() });
  seen.observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
  new Function(act)();
  const now = performance.now(); if (now > last) last = now;
  const watch = () => performance.now() - last > 100 ? (seen.disconnect(), done(last - began))
    : requestAnimationFrame(watch);
  requestAnimationFrame(() => requestAnimationFrame(watch));
})"""


def patterns(n):
    """Random causal attention, [layer head query key]."""
    scores = np.random.default_rng(0).normal(size=(LAYERS, HEADS, n, n)).astype(np.float32) * 2
    weights = np.exp(scores) * np.tril(np.ones((n, n), np.float32))
    return weights / weights.sum(-1, keepdims=True)


@contextmanager
def jupyterlab():
    """The JupyterLab of the browser tests, for a script."""

    class Folder:
        def mktemp(self, name):
            return Path(tempfile.mkdtemp(prefix=name))

    function = getattr(browser.lab, "__wrapped__", None) or browser.lab.__pytest_wrapped__.obj
    running = function(Folder())
    try:
        yield next(running)
    finally:
        next(running, None)


def explorer_row(lab, chrome, n, repeats):
    """One line of the table: the explorer at so many tokens, live in JupyterLab."""
    page = chrome.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    page.set_default_timeout(ANSWERS * 3)
    received = [0]

    def count(payload):
        received[0] += len(payload)

    page.on("websocket", lambda socket: socket.on("framereceived", count))
    cells = [nbformat.v4.new_code_cell(code) for code in (MODEL, TEXT.format(n=n), "explorer")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab["dir"] / f"bench{n}.ipynb")
    page.goto(f"{lab['url']}/lab/workspaces/bench{n}/tree/bench{n}.ipynb?reset&token={lab['token']}")
    page.wait_for_function("window.jupyterapp?.restored")
    errors = page.evaluate(browser.RUN_ALL_CELLS)
    assert errors == [], errors
    page.wait_for_function("document.querySelector('.ak-tokens li') !== null")
    opened = time.time()  # painted, by the clock that the kernel has too
    page.wait_for_timeout(1500)  # the still picture
    initial = received[0]
    outputs = page.locator("pre").all_inner_texts()
    began = next(text for text in outputs if text.startswith("began"))
    times, sizes = {}, []
    for name in ("layer", "head"):
        field = f".ak-explorer input[id$=-{name}]"
        page.locator(field).fill("0")
        page.wait_for_timeout(500)
        measured = []
        for i in range(repeats + 2):
            step = 1 if (i // (LAYERS - 1)) % 2 == 0 else -1
            before = received[0]
            took = page.evaluate(SWITCH, [field, ".ak-main canvas", step])
            page.wait_for_timeout(150)
            if i >= 2:  # warm by then
                measured.append(took)
                sizes.append(received[0] - before)
            page.wait_for_timeout(1500 if i == 0 else 0)
        times[name] = statistics.median(measured)
    measured = []
    for i in range(6):
        before = received[0]
        measured.append(page.evaluate(SWITCH, [".ak-explorer select[id$=-colour]", ".ak-main canvas", COLOURS[i % 2]]))
        sizes.append(received[0] - before)
        # the small pictures follow, and the next question would wait for them
        page.wait_for_function("!document.querySelector('.ak-explorer').hasAttribute('aria-busy')")
        page.wait_for_timeout(1500)
    nodes = page.evaluate("document.querySelectorAll('.ak-explorer, .ak-explorer *').length")
    page.context.close()
    took = (opened - float(began.split()[1])) * 1000
    return (f"atlaskit explorer, {n} tokens", took, times["layer"], times["head"], statistics.median(measured[1:]),
            measured[0], initial, statistics.median(sizes), nodes)  # fmt: skip


def still_row(chrome, name, html, switch, scripts):
    """One line of the table: a page that was written once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(html, encoding="utf-8")
        page = chrome.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        page.set_default_timeout(ANSWERS)

        def answer(route):
            found = next((file for part, file in scripts.items() if part in route.request.url), None)
            if route.request.url.startswith(("file:", "data:", "blob:")):
                route.continue_()
            elif found:
                route.fulfill(path=found, content_type="text/javascript")
            else:
                route.abort()

        page.route("**/*", answer)
        began = time.perf_counter()
        try:
            page.goto(path.as_uri())
            page.wait_for_function(switch["ready"])
        except Exception as error:
            page.context.close()
            return (name, *[math.nan] * 5, len(html), 0, f"not ready: {type(error).__name__}")
        ready = (time.perf_counter() - began) * 1000
        took = [page.evaluate(SETTLE, act) for act in switch["acts"]]
        nodes = page.evaluate("document.querySelectorAll('*').length")
        page.context.close()
    return (name, ready, statistics.median(took) if took else math.nan, *[math.nan] * 3, len(html), 0, nodes)


def scripts_from_npm(folder):
    """What BertViz asks a CDN for."""
    found = {}
    wanted = {"require": "requirejs@2.3.6", "d3": "d3@5.7.0", "jquery": "jquery@2.2.4"}
    inside = {"require": "package/require.js", "d3": "package/dist/d3.min.js", "jquery": "package/dist/jquery.min.js"}
    for part, package in wanted.items():
        command = ["npm", "pack", package, "--silent"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        with tarfile.open(folder / run.stdout.split()[-1]) as archive:
            archive.extract(inside[part], folder / part, filter="data")
        found[part] = folder / part / inside[part]
    return found


def rivals(chrome, n):
    """A line for each of the three that is installed."""
    attention, tokens = patterns(n), [f"t{i}" for i in range(n)]
    try:
        from bertviz import head_view
    except ImportError as error:
        yield (f"BertViz, {n} tokens: {error}",)
    else:
        with tempfile.TemporaryDirectory() as folder:
            try:
                scripts = scripts_from_npm(Path(folder))
                layers = [torch.from_numpy(one)[None] for one in attention]
                html = head_view(layers, tokens, html_action="return").data
                acts = [
                    f"const s = document.querySelector('#layer'); s.value = {i};"
                    "s.dispatchEvent(new Event('change', {bubbles: true}))"
                    for i in (1, 2, 3)
                ]
                switch = {"ready": "document.querySelectorAll('svg line, svg path').length > 100", "acts": acts}
                page = f"<!doctype html><body>{html}</body>"
                yield still_row(chrome, f"BertViz head_view, {n} tokens", page, switch, scripts)
            except (OSError, subprocess.CalledProcessError) as error:
                yield (f"BertViz, {n} tokens: {error}",)
    try:
        from circuitsvis.attention import attention_heads
    except ImportError as error:
        yield (f"CircuitsVis, {n} tokens: {error}",)
    else:
        html = f"<!doctype html><body>{attention_heads(attention[0], tokens).local_src}</body>"
        switch = {"ready": "document.querySelectorAll('canvas, img, svg').length > 10", "acts": []}
        yield still_row(chrome, f"CircuitsVis, one layer, {n} tokens", html, switch, {})
    try:
        import attnview
    except ImportError as error:
        yield (f"attnview, {n} tokens: {error}",)
    else:
        html = attnview.render_html(attention[0].tolist(), tokens=tokens)
        acts = [
            f"const b = document.querySelector('#head'); b.value = {i}; b.dispatchEvent(new Event('change'))"
            for i in (1, 2, 3)
        ]
        switch = {"ready": "document.readyState === 'complete'", "acts": acts}
        yield still_row(chrome, f"attnview, one layer, {n} tokens", html, switch, {})


def growth(rounds):
    """Memory before and after so many captures and explorer updates, in bytes, once warm."""
    from atlaskit import measure, models, show
    from atlaskit.show.board import reply

    model = models.load("mini-causal")
    text = "The cat sat on the mat because it was tired, and the dog ran. " * 8  # 3 MB of patterns
    process = psutil.Process()

    def once(i):
        seen = models.capture(model, text)
        explorer = show.Explorer(seen, measures={"entropy": (measure.entropy, "bits")})
        explorer.choose(layer=i % 4, head=i % 8)
        reply(explorer.board, explorer.state | {"need": {"pictures": True, "row": True, "tiles": True}})
        explorer.close()

    for i in range(max(20, rounds // 5)):
        once(i)
    gc.collect()
    before = process.memory_info().rss
    for i in range(rounds):
        once(i)
    gc.collect()
    return before, process.memory_info().rss


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, nargs="*", default=[512, 2048, 8192])
    parser.add_argument("--rivals", type=int, nargs="*", default=[64, 128], help="tokens for the other viewers")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--loop", type=int, default=200, help="captures and updates for the memory row")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that JupyterLab and its kernels end too
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians; 12 × 12 heads")
    print(f"{'':36}{'open ms':>10}{'layer ms':>10}{'head ms':>10}{'colour':>8}{'first':>7}{'initial MB':>12}", end="")
    print(f"{'switch MB':>11}{'nodes':>8}")
    rows = []
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=browser.CHROMIUM_FLAGS
        )

        def show_row(row):
            rows.append(row)
            if len(row) == 1:
                print(row[0], flush=True)
                return
            name, opened, layer, head, colour, first, initial, switch, nodes = row
            figures = f"{opened:>10.0f}{layer:>10.0f}{head:>10.0f}{colour:>8.0f}{first:>7.0f}{initial / 1e6:>12.2f}"
            print(f"{name:36}{figures}{switch / 1e6:>11.2f}{nodes:>8}", flush=True)

        for n in asked.rivals:
            for row in rivals(chrome, n):
                show_row(row)
        if asked.tokens:
            with jupyterlab() as lab:
                for n in asked.tokens:
                    show_row(explorer_row(lab, chrome, n, asked.repeats))
        chrome.close()
    before, after = growth(asked.loop)
    grown = f"{before / 1e6:.1f} -> {after / 1e6:.1f} MB ({after / before - 1:+.2%})"
    print(f"memory over {asked.loop} captures and updates: {grown}")


if __name__ == "__main__":
    sys.exit(main())
