"""The command `serve`: where the server listens, who may sign in, and the links that it prints.

Knows uvicorn and addresses; must not know what requests do.
"""

from __future__ import annotations

import gc
import getpass
import ipaddress
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

import uvicorn

from twostream.base.errors import InputError
from twostream.project.project import Project
from twostream.web.app import make_app
from twostream.web.desk import Desk
from twostream.web.guard import LOOPBACK
from twostream.web.neuroglancer_volumes import CLIENT, NeuroglancerVolumes
from twostream.web.security import Security, project_secret

PROXIES = "127.0.0.1,::1"
"""Where a reverse proxy is believed when it says who asks, and whether by https."""
ROOT_PATH = re.compile(r"(/[\w.~-]+)*", re.ASCII)


@dataclass(frozen=True)
class ServeOptions:
    """How a project is served.

    Attributes:
        host: address to listen on.
        port: port; 0 takes a free one.
        annotators: people who may sign in, each with their own token; empty: whoever has the printed link.
        allow_run: whether the page may start the next round.
        root_path: path below which a reverse proxy shows the page.
        allow_hosts: further names by which browsers address the server.
        neuroglancer: address of Neuroglancer; "local" for the one in the Python package; "" for no links.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    annotators: tuple[str, ...] = ()
    allow_run: bool = False
    root_path: str = ""
    allow_hosts: tuple[str, ...] = ()
    neuroglancer: str = CLIENT


def serve(project: Project, options: ServeOptions) -> None:
    """Serve a project until the process is stopped.

    Raises:
        InputError: the options contradict each other, or the port is taken.
        ProjectError: the project cannot be read.
    """
    check_options(options)
    security = Security(project_secret(project.root), options.annotators)
    listener = listen(options.host, options.port)
    port = listener.getsockname()[1]
    _ = project.image, project.ledger  # what cannot be opened is said now, not on the page
    volumes = None
    if options.neuroglancer:
        volumes = NeuroglancerVolumes(project, security.capability("neuroglancer"), options.neuroglancer)
    desk = Desk(project, security, may_run=options.allow_run, neuroglancer=volumes)
    hosts = (*LOOPBACK, *options.allow_hosts) if is_loopback(options.host) else (*LOOPBACK, *known_hosts(options))
    desk.queue.left("")  # all answers are read now, so that nobody waits for it on the page
    gc.freeze()  # they stay, so the collector need not look at them again and again
    app = make_app(desk, hosts=hosts, root_path=options.root_path)
    print("\n".join(link_lines(security, options, port)), flush=True)
    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=2,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=PROXIES,
    )
    uvicorn.Server(config).run(sockets=[listener])


def check_options(options: ServeOptions) -> None:
    """Refuse what is not safe or cannot work.

    Raises:
        InputError: with what to do.
    """
    if not is_loopback(options.host) and not options.annotators:
        raise InputError(
            f"--host {options.host} lets other machines in. Name the people who may sign in, each of whom gets a "
            f"token: --annotator NAME, once for each."
        )
    if not ROOT_PATH.fullmatch(options.root_path):
        raise InputError(f"--root-path is {options.root_path!r}; expected a path such as /proofreading.")
    if options.neuroglancer not in ("", "local") and not re.match(r"https?://[^/]", options.neuroglancer):
        raise InputError(f"--neuroglancer is {options.neuroglancer!r}; expected http(s)://..., local or none.")
    if not 0 <= options.port <= 65535:
        raise InputError(f"--port is {options.port}; expected 0 to 65535, where 0 takes a free one.")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def known_hosts(options: ServeOptions) -> Sequence[str]:
    """Names by which other machines may address the server."""
    name = socket.gethostname()
    own = [] if options.host in ("0.0.0.0", "::") else [options.host]
    addresses: list[str] = []
    with suppress(OSError):
        addresses = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None)})
    addresses = [f"[{a}]" if ":" in a else a for a in addresses]
    return [*own, name, socket.getfqdn(), *addresses, *options.allow_hosts]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: the port is taken, or the address is none of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With the protocol stated, asyncio sends small packets at once; else each response waits 40 ms for a receipt.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        raise InputError(
            f"{host}:{port} cannot be listened on ({error.strerror}). If another server runs there, stop it or choose "
            f"another --port; 0 takes a free one."
        ) from None
    return found


def link_lines(security: Security, options: ServeOptions, port: int) -> list[str]:
    """The links by which people sign in, as lines for a terminal."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    host = socket.gethostname() if options.host in ("0.0.0.0", "::") else host
    base = f"http://{host}:{port}{options.root_path}/"
    names = options.annotators or (_user(),)
    lines = [f"{base}#name={quote(name)}&token={security.token(name)}" for name in names]
    if options.annotators:
        lines = [f"{name}: {line}" for name, line in zip(names, lines, strict=True)]
        return ["Everybody opens their own link, which holds their token:", *lines, "Ctrl+C stops the server."]
    return ["Open this link in a browser:", *lines, "Ctrl+C stops the server; nothing is lost."]


def _user() -> str:
    """Name of the person who started the server, as a proposal for the page."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "annotator"
