"""A project that a thread of this process serves, for tests that look at what requests do to it."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from twostream.project.project import Project


def contents(root: Path) -> dict[str, str]:
    """{file: checksum} of a project's folder, without what a recorded answer changes."""
    kept = ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "answers.jsonl")
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in kept]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def raw(address: str, request: bytes, seconds: float = 20) -> bytes:
    """The first bytes of what the server answers to bytes that no well-behaved client sends."""
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), seconds) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def status(answer: bytes) -> int:
    """The status of an answer."""
    return int(answer.split(b" ")[1])


class Site:
    """A project in an application that a thread of this process serves.

    Args:
        project: the project.
        address: where it is served, with "/" at its end.
        security: of the application.
    """

    def __init__(self, project: Project, address: str, security) -> None:
        self.project, self.address, self.security = project, address, security

    def client(self, name: str = "ann", **headers: str):
        """An HTTP client in which a person has signed in; with "" nobody has."""
        import httpx

        client = httpx.Client(base_url=self.address, headers=headers, timeout=30)
        if name:
            answer = client.post("api/sign-in", json={"name": name, "token": self.security.token(name)})
            assert answer.status_code == 204, answer.text
            client.headers["X-CSRF-Token"] = client.get("api/project").json()["csrf"]
        return client


@pytest.fixture
def site(queue_project: Project) -> Iterator[object]:
    """Function that serves ``queue_project`` in this process; arguments are those of ``make_app``, ``annotators``,
    ``neuroglancer`` (the client's address) and settings of uvicorn."""
    from twostream.web.app import make_app
    from twostream.web.desk import Desk
    from twostream.web.guard import LOOPBACK
    from twostream.web.neuroglancer_volumes import NeuroglancerVolumes
    from twostream.web.security import Security, project_secret

    with contextlib.ExitStack() as stack:

        def make(annotators=(), hosts=LOOPBACK, root_path="", neuroglancer="", may_run=False, **settings) -> Site:
            security = Security(project_secret(queue_project.root), annotators)
            volumes = None
            if neuroglancer:
                volumes = NeuroglancerVolumes(queue_project, security.capability("neuroglancer"), neuroglancer)
            desk = Desk(queue_project, security, may_run=may_run, neuroglancer=volumes)
            app = make_app(desk, hosts=hosts, root_path=root_path)
            return Site(queue_project, stack.enter_context(running(app, **settings)), security)

        yield make


@pytest.fixture(scope="module")
def one_site(queue_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A project of ann and bob, called Unpublished, in which nothing may be recorded by any test of a module."""
    from twostream.web.app import make_app
    from twostream.web.desk import Desk
    from twostream.web.neuroglancer_volumes import NeuroglancerVolumes
    from twostream.web.security import Security, project_secret

    folder = tmp_path_factory.mktemp("one") / "served"
    shutil.copytree(queue_template, folder)
    project = Project((folder / "queue").rename(folder / "Unpublished"))
    security = Security(project_secret(project.root), ("ann", "bob"))
    volumes = NeuroglancerVolumes(project, security.capability("neuroglancer"))
    before = contents(project.root)
    with running(make_app(Desk(project, security, neuroglancer=volumes))) as address:
        yield Site(project, address, security)
    assert contents(project.root) == before
    assert project.ledger.counts().answers == 0


@contextlib.contextmanager
def running(app, **settings) -> Iterator[str]:
    """Serve an application in a thread of this process, on a free port; gives its address."""
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1, **settings)
    )
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    assert server.started
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=20)
