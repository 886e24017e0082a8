"""A real Chromium and a real JupyterLab, both on this machine alone.

`page` blocks and records every request that leaves loopback, so a test can say `assert page.outside == []`.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import sync_playwright

CHROMIUM_FLAGS = [
    "--no-sandbox",  # CI containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# No news pop-up, no kernel dialog, every cell in the DOM, no autosave.
LAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}

# Running cells before the session has a kernel opens a dialog that never closes, so this waits for the kernel first.
RUN_ALL_CELLS = """async () => {
  const app = window.jupyterapp, rest = ms => new Promise(done => setTimeout(done, ms));
  await app.restored;
  let panel = null;
  for (let i = 0; i < 900; i++, await rest(100)) {
    panel = app.shell.currentWidget;
    if (!panel?.sessionContext) continue;
    await panel.context.ready;
    await panel.sessionContext.ready;
    const kernel = panel.sessionContext.session?.kernel;
    if (!kernel) continue;
    await kernel.info;
    if (kernel.connectionStatus === 'connected') break;
  }
  await app.commands.execute('notebook:run-all-cells');
  const errors = [];
  for (const cell of panel.content.model.cells)
    if (cell.type === 'code')
      for (let i = 0; i < cell.outputs.length; i++) {
        const output = cell.outputs.get(i).toJSON();
        if (output.output_type === 'error') errors.push(output.ename + ': ' + output.evalue);
      }
  return errors;
}"""

# Bokeh's canvases lie in nested shadow roots; [number of colours, hash] of each of some size, overlays included.
CANVASES = """() => {
  const found = [];
  const walk = root => { for (const e of root.querySelectorAll('*')) {
    if (e.tagName === 'CANVAS' && e.width >= 100 && e.height >= 40 && e.getContext('2d')) found.push(e);
    if (e.shadowRoot) walk(e.shadowRoot);
  } };
  walk(document);
  return found.map(canvas => {
    const data = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    const colours = new Set(); let hash = 0;
    for (const value of data) { colours.add(value); hash = (hash * 31 + value) | 0; }
    return [colours.size, hash];
  });
}"""


@pytest.fixture(scope="session")
def chrome():
    """One headless Chromium for the session; playwright downloads nothing."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("no Chromium on this machine: `apt-get install chromium`, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chrome):
    """A fresh page. `page.outside`: requests beyond loopback (blocked). `page.errors`: console errors and exceptions.

    A reader whose system is dark: `page.emulate_media(color_scheme="dark")`.
    """
    context = chrome.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.outside, page.errors = [], []
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))

    def guard(route):
        if route.request.url.startswith(("http://127.0.0.1", "file:", "data:", "blob:", "about:")):
            route.continue_()
        else:
            page.outside.append(route.request.url)
            route.abort()

    page.route("**/*", guard)
    page.on("websocket", lambda ws: None if ws.url.startswith("ws://127.0.0.1") else page.outside.append(ws.url))
    yield page
    context.close()


@pytest.fixture
def canvases(page):
    """Call it for [number of colours, hash] of every canvas of the page, shadow roots included."""
    return lambda: page.evaluate(CANVASES)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab on loopback with a token and fresh settings: {"url", "token", "dir", "log"}."""
    home, runtime = tmp_path_factory.mktemp("lab"), tempfile.mkdtemp(prefix="lab-")
    (home / "notebooks").mkdir()
    (home / "config/labconfig").mkdir(parents=True)
    (home / "config/labconfig/default_setting_overrides.json").write_text(json.dumps(LAB_SETTINGS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token, url, log = secrets.token_hex(16), f"http://127.0.0.1:{port}", home / "lab.log"
    own = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_RUNTIME_DIR": runtime,
        "JUPYTER_DATA_DIR": home / "data",
        "IPYTHONDIR": home / "ipython",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_TOKEN": token,
        "HF_HUB_OFFLINE": 1,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={home / 'notebooks'}"]
    # A kernel's port could be taken between its choice and its use; a socket's path may have 103 characters.
    command += ["--LabApp.expose_app_in_browser=True", "--KernelManager.transport=ipc"]
    environment = os.environ | {name: str(value) for name, value in own.items()}
    with log.open("w") as stream:
        # Its own session, so that the kernels can be ended with it.
        server = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait_until_answering(f"{url}/api/status?token={token}", server, log)
            yield {"url": url, "token": token, "dir": home / "notebooks", "log": log}
        finally:
            server.send_signal(signal.SIGTERM)  # SIGINT would ask "are you sure?"
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
            shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def run_in_lab(lab, page):
    """Call it with a notebook (a path, or a list of code cells): opens it in JupyterLab, runs every cell.

    Returns the errors of the cells as "Name: message"; [] is a notebook that ran.
    """

    def run(notebook):
        name = f"{secrets.token_hex(4)}.ipynb"
        if isinstance(notebook, (str, Path)):
            content = nbformat.read(notebook, as_version=4)
        else:
            content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in notebook])
        content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(content, lab["dir"] / name)
        # A workspace of its own: Lab would restore the tabs of earlier tests otherwise.
        page.goto(f"{lab['url']}/lab/workspaces/{name[:8]}/tree/{name}?reset&token={lab['token']}")
        page.wait_for_function("window.jupyterapp?.restored")
        return page.evaluate(RUN_ALL_CELLS)

    return run


def _wait_until_answering(url, server, log):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1) as reply:
                reply.read()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
