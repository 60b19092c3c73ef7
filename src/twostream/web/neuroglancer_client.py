"""The Neuroglancer client of the package ``neuroglancer``, served by us: links then work without a network.

The package ships the client for its own server. With a state in the address it takes all from there, but looks for its
server's stream of events at ``events/``, which stays silent here. Needs the extra `neuroglancer`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from twostream.base.errors import InputError
from twostream.web.neuroglancer_volumes import HEADERS, KEPT

TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html", ".wasm": "application/wasm"}
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' blob: data: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For these pages only: the client compiles code while it runs (``new Function``, WebAssembly), sets styles inline, and
may read volumes of other servers over https."""
HEARTBEAT_SECONDS = 15.0
_NAME = re.compile(r"[a-z0-9][a-zA-Z0-9_.-]*\.(?:js|css|wasm|html)", re.ASCII)


def client_folder() -> Path:
    """The folder of the client.

    Raises:
        InputError: the package is not installed, or holds no client.
    """
    found = importlib.util.find_spec("neuroglancer")
    folder = Path(found.origin).parent / "static" / "client" if found is not None and found.origin else None
    if folder is None or not (folder / "index.html").is_file():
        raise InputError(
            "the Neuroglancer client is not installed; install the extra `neuroglancer` "
            "(pip install 'twostream-connectomics[neuroglancer]'), or pass the address of a client."
        )
    return folder


def client_router() -> APIRouter:
    """The routes below ``neuroglancer/``: the files of the client, and its silent stream of events."""
    folder = client_folder()
    router = APIRouter(include_in_schema=False)

    @router.api_route("/neuroglancer/v/local/{name:path}", methods=["GET", "HEAD"])
    def file(name: str) -> Response:
        path = folder / (name or "index.html")
        if not _NAME.fullmatch(path.name) or path.parent != folder or not path.is_file():
            return PlainTextResponse("there is no such file", status_code=404)
        headers = HEADERS | KEPT | {"Content-Security-Policy": POLICY}
        return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers=headers)

    @router.get("/neuroglancer/events/local")
    async def events() -> Response:
        async def silent() -> AsyncIterator[str]:
            while True:
                yield ": silent\n\n"
                await asyncio.sleep(HEARTBEAT_SECONDS)

        return StreamingResponse(silent(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return router
