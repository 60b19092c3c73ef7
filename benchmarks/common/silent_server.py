"""A server that answers the simulated annotators at once and knows nothing: what is left is the client's own time."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VIEW = {"offset_zyx": [0, 0, 0], "shape_zyx": [28, 102, 102]}
"""Of about the size of a generated project's views."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave together
    ids = itertools.count(1)

    def do_GET(self) -> None:
        if self.path == "/api/project":
            self._send(json.dumps({"csrf": ""}).encode())
        elif self.path.startswith("/api/image"):
            z, y, x = VIEW["shape_zyx"]
            self._send(bytes(z * y * x))
        else:
            self._send(b"")

    def do_POST(self) -> None:
        values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/sign-in":
            self.send_response(204)
            self.send_header("Set-Cookie", "session=none")
            self.end_headers()
        elif self.path == "/api/lease":
            found = [{"id": next(self.ids), "view": VIEW} for _ in range(values["number"])]
            self._send(json.dumps({"queries": found}).encode())
        else:
            found = [{"key": one["key"], "answer": 1, "refused": None} for one in values["decisions"]]
            self._send(json.dumps({"results": found}).encode())

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _serve(ports: Any) -> None:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        ports.put(server.server_address[1])
        server.serve_forever()


@contextmanager
def silent_server() -> Iterator[str]:
    """Its address, while it runs in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    process = context.Process(target=_serve, args=(ports,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=60)}/"
    finally:
        process.kill()
        process.join()
