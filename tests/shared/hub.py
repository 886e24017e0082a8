"""Load from a hub of one model on loopback, and again when the hub has gone: ``python hub.py FOLDER CACHE``."""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER, CACHE = map(Path, sys.argv[1:])


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for files of someone/tiny."""

    def do_HEAD(self):
        name = self.path.partition("?")[0].removeprefix("/someone/tiny/resolve/main/")
        there = FOLDER / name
        if self.path == "/":
            self.send_response(200)
            self.end_headers()
        elif there.is_file():
            self.send_response(200)
            self.send_header("ETag", f'"{name}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(there.stat().st_size))
            self.end_headers()
            return there
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if "tiny" in self.path else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        return None

    def do_GET(self):
        there = self.do_HEAD()
        if there:
            self.wfile.write(there.read_bytes())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ.pop("HF_HUB_OFFLINE", None)
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(CACHE)}

from atlaskit import models  # noqa: E402  the library reads the environment as it is imported

fetched = models.load("someone/tiny")
try:
    models.load("someone/else")
except OSError as error:
    print("unknown:", error)
server.shutdown()
server.server_close()
kept = models.load("someone/tiny")
assert models.fingerprint(kept) == models.fingerprint(fetched)
try:
    models.load("someone/else")
except OSError as error:
    print("out of reach:", error)
