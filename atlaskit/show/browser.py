"""The browser of this machine as a painter: Bokeh's pictures, and the explorer's, are made by scripts."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# Asks the page's own drawing for a picture and leaves it in the page as text.
ASK = """<script>(async () => {
  const kind = "%s", rest = ms => new Promise(done => setTimeout(done, ms));
  const leave = text => {
    const out = document.createElement("pre");
    out.id = "painted"; out.textContent = text;
    document.body.append(out);
  };
  const bokeh = async view => {
    const layer = view.export(kind, true);
    if (kind === "png") return layer.canvas.toDataURL();
    return "data:image/svg+xml;base64," + btoa(unescape(encodeURIComponent(layer.ctx.get_serialized_svg(true))));
  };
  for (let i = 0; i < 100; i++, await rest(50)) {
    if (window.explorer?.ready()) return leave(window.explorer.picture(kind));
    const view = window.Bokeh && Object.values(Bokeh.index)[0];
    if (view?.has_finished()) return leave(await bokeh(view));
  }
})();</script></body>"""


def found() -> str:
    """The path of a Chromium or Chrome; CHROMIUM names another. Raises RuntimeError without one."""
    path = next((p for name in (os.environ.get("CHROMIUM"), *NAMES) if name and (p := shutil.which(name))), None)
    if path is None:
        raise RuntimeError(
            "no Chromium or Chrome on this machine to draw with: install one, or set CHROMIUM to its path. "
            "Or write an .html file: its own buttons save PNG and SVG"
        )
    return path


def picture(page: str, kind: str) -> bytes:
    """A page's figure as PNG or SVG."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page.replace("</body>", ASK % kind), encoding="utf-8")
        command = [found(), "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        command += ["--window-size=1300,1200", "--virtual-time-budget=20000", "--dump-dom"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # which Chromium refuses to the superuser
        done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    painted = re.search(r'<pre id="painted">data:[^,]*;base64,([^<]*)</pre>', done.stdout)
    if painted is None:
        raise RuntimeError(f"{command[0]} drew nothing; its last words: {done.stderr[-300:]}")
    return base64.b64decode(painted[1])
