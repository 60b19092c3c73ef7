"""The application: its pages, its files, its requests, and what every request passes first.

Knows how the parts are put together; decides nothing itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

import twostream
from twostream.base.errors import LedgerBusyError, TwoStreamError
from twostream.web.api import router
from twostream.web.bodies import refusal
from twostream.web.desk import Desk
from twostream.web.guard import LOOPBACK, BodyLimit, Headers, Reader, SubPath
from twostream.web.neuroglancer_client import client_router
from twostream.web.neuroglancer_volumes import volumes_router
from twostream.web.progress import Progress

EVENT_SECONDS = 1.0
"""How often progress is looked at for open pages."""


def make_app(desk: Desk, *, hosts: Sequence[str] = LOOPBACK, root_path: str = "") -> FastAPI:
    """The application of a project.

    Args:
        desk: the project and what its requests share.
        hosts: names by which the server may be addressed.
        root_path: path below which a reverse proxy shows the page, such as "/proofreading"; the proxy may remove it.
    """
    app = FastAPI(
        title="twostream",
        version=twostream.__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        middleware=[Middleware(SubPath, root_path=root_path), Middleware(Headers, hosts=hosts), Middleware(BodyLimit)],
    )
    app.state.desk, app.state.progress = desk, Progress(desk)
    environment = Environment(loader=PackageLoader("twostream.web"), autoescape=True, undefined=StrictUndefined)
    app.include_router(router)
    if desk.neuroglancer is not None:
        app.include_router(volumes_router(desk.neuroglancer))
        if desk.neuroglancer.client == "local":
            app.include_router(client_router())

    @app.exception_handler(TwoStreamError)
    def sentence(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, 503 if isinstance(error, LedgerBusyError) else 409)

    @app.exception_handler(RequestValidationError)
    def not_understood(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": refusal(error)}, 422)

    @app.get("/", include_in_schema=False)
    def page(request: Request) -> Response:
        session = desk.security.session(request.cookies.get(desk.security.cookie))
        name = "page.html" if session else "sign_in.html"
        # Nobody learns the project's name before they have signed in.
        values = {"name": desk.project.root.resolve().name, "csrf": session.csrf} if session else {}
        return HTMLResponse(environment.get_template(name).render(values))

    @app.get("/cards.css", include_in_schema=False)
    def cards() -> Response:
        return Response(desk.card_styles, media_type="text/css")

    @app.get("/api/events", include_in_schema=False)
    def events(request: Request, session: Reader) -> Response:
        return StreamingResponse(_events(request, session.annotator), media_type="text/event-stream")

    app.mount("/static", StaticFiles(packages=[("twostream.web", "static")]), name="static")
    return app


async def _events(request: Request, annotator: str) -> AsyncIterator[str]:
    """Progress for an open page, whenever it has changed; a comment now and then shows that the line is alive."""
    progress: Progress = request.app.state.progress
    before, quiet = "", 0.0
    while not await request.is_disconnected():
        values: dict[str, Any] = await run_in_threadpool(progress.values, annotator)
        text = json.dumps(values)
        if text != before:
            yield f"event: progress\ndata: {text}\n\n"
            before, quiet = text, 0.0
        elif quiet >= 15:
            yield ": still here\n\n"
            quiet = 0.0
        await asyncio.sleep(EVENT_SECONDS)
        quiet += EVENT_SECONDS
