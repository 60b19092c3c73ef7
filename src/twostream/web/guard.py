"""What every request must pass, and the headers that every response carries.

Knows requests and the session's cookie; must not know projects.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twostream.web.security import CSRF_HEADER, Security, Session

MAX_BODY = 4 << 20
"""Bytes of a request's body: a batch of decisions, or a drawing with 400,000 runs."""
BODY_SECONDS = 60.0
"""Within which a body must have come: a sender that never ends must not hold a place."""
DRAIN_BYTES, DRAIN_SECONDS = MAX_BODY + (1 << 20), 5.0
"""How much of a refused body is read in all, and for how long it is read on: a body that is a little too large comes to
its end, and one that never ends is not waited for."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
OPEN_PREFIXES = ("/ng/", "/neuroglancer/")
"""Addresses that bring their own policy, because Neuroglancer reads them from another page."""


class SubPath:
    """Lets the page lie below a path of a reverse proxy, whether the proxy removes that path or passes it on.

    What follows finds the path in ``path`` and in ``root_path``, as ASGI wants it.

    Args:
        app: the application.
        root_path: the path, such as "/proofreading"; "" for none.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app, self._root = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = self._root
        if root and scope["type"] == "http":
            if scope["path"] == root:  # without the slash the page's relative addresses would miss the path
                await RedirectResponse(f"{root}/")(scope, receive, send)
                return
            is_passed_on = scope["path"].startswith(f"{root}/")
            scope = {**scope, "root_path": root, "path": scope["path"] if is_passed_on else root + scope["path"]}
        await self.app(scope, receive, send)


class Headers:
    """Adds the security headers to every response, and refuses hosts that the server was not told of.

    A foreign host name means that a page of somebody else has pointed its own name at this machine.

    Args:
        app: the application.
        hosts: names by which the server may be addressed, without ports; "*" allows all.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self._hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Two names, of which one reader would take the first and another the last, are none.
        given = ", ".join(value.decode("latin-1") for key, value in scope["headers"] if key == b"host")
        name = urlsplit(f"//{given}").hostname or "" if _is_host(given) else ""
        name = f"[{name}]" if ":" in name else name
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        bare = any(path.startswith(prefix) for prefix in OPEN_PREFIXES)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and not bare:
                present = {key.lower() for key, _ in message["headers"]}
                added = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                added.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *((k, v) for k, v in added if k not in present)]
            await send(message)

        if "*" not in self._hosts and name not in self._hosts:
            text = f"the server was addressed as {given[:100]!r}, a name that it does not go by (--allow-host NAME)."
            await Response(text, 400, media_type="text/plain")(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def _is_host(text: str) -> bool:
    """Whether a Host header can be parsed."""
    try:
        _ = urlsplit(f"//{text}").port
    except ValueError:
        return False
    return not set(text) & set("/?#@\\, ")


class BodyLimit:
    """Refuses bodies of more than ``MAX_BODY`` bytes, whether they say so or not, and those that do not end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or len(stated) > 12 or int(stated) > MAX_BODY:
            await _refuse_size(receive, send, 0)
            return
        # The body is read here, so that a body of unknown length is refused before any of it is used.
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(receive)
        except TimeoutError:
            await _refuse(408, f"the request has not come within {BODY_SECONDS:g} seconds.", receive, send, 0)
            return
        if body is None:
            return  # the sender has gone
        if len(body) > MAX_BODY:
            await _refuse_size(receive, send, len(body))
            return
        is_read = False

        async def again() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


async def _body(receive: Receive) -> bytes | None:
    """A request's body, or its beginning if it is too large; None if the connection was closed."""
    body, more = bytearray(), True
    while more and len(body) <= MAX_BODY:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


async def _refuse_size(receive: Receive, send: Send, num_read: int) -> None:
    await _refuse(413, f"the request is too large; at most {MAX_BODY} bytes are taken.", receive, send, num_read)


async def _refuse(status: int, detail: str, receive: Receive, send: Send, num_read: int) -> None:
    """Answers before the body has come whole, reads on for a while, and ends the connection.

    ``num_read`` bytes of the body have been read already.

    A connection that is closed while bytes still arrive is reset, and a reset can take the answer with it.
    """
    answer = JSONResponse({"detail": detail}, status, {"Connection": "close"})
    await send({"type": "http.response.start", "status": status, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    left, more = DRAIN_BYTES - num_read, True
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)  # a sender that has gone has no more either
    await send({"type": "http.response.body", "body": b""})


def _security(request: Request) -> Security:
    found: Security = request.app.state.desk.security
    return found


async def signed_in(request: Request) -> Session:
    """The session of a request. Asynchronous, as ``may_change``, because it is too short to be worth a thread.

    Raises:
        HTTPException: 401, nobody has signed in.
    """
    session = _security(request).session(request.cookies.get(_security(request).cookie))
    if session is None:
        raise HTTPException(401, "sign in first: open the page again.")
    return session


async def may_change(request: Request) -> Session:
    """The session of a request that changes something.

    Raises:
        HTTPException: 401, nobody has signed in; 403, the request does not come from our page; 415, it is no JSON.
    """
    session = await signed_in(request)
    given = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(), session.csrf.encode()):
        raise HTTPException(403, f"the header {CSRF_HEADER} is missing or old; reload the page.")
    check_json(request)
    return session


def check_json(request: Request) -> None:
    """Refuse bodies that a form of another page could send.

    Raises:
        HTTPException: 415.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"the body is {kind or 'of no type'}; expected application/json.")


Reader = Annotated[Session, Depends(signed_in)]
Writer = Annotated[Session, Depends(may_change)]
