"""Simulated annotators, who answer a project's queries over HTTP as the page does.

An annotator holds leased queries and asks for more when few are left; sends each decision under a key of its own, and
sends it again under the same key until the server has acknowledged it; and loads the picture of a query ahead. They run
in processes of their own, so that their Python does not slow that of the server.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import random
import resource
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

HELD = 24
"""Queries that an annotator asks for."""
FEW = 12
"""Queries left at which an annotator asks for more; both as the page does."""
AHEAD = 3
"""Pictures that the page loads ahead."""
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)
GIVE_UP_SECONDS = 60.0
KINDS = ("true", "nothing", "unsure")


@dataclass(frozen=True)
class Work:
    """What an annotator does.

    Attributes:
        link: the link that the server has printed, with name and token.
        decisions: how many to make.
        seconds: from each decision to the next; 0 for as fast as the server answers.
        pictures: whether the picture of a query is loaded ahead, and the page's line for events is open.
        order: of the queue.
        begin: seconds since 1970 before which nothing is decided, so that all have signed in by then.
    """

    link: str
    decisions: int
    seconds: float = 0.0
    pictures: bool = False
    order: str = "cluster"
    begin: float = 0.0


@dataclass
class Done:
    """What an annotator has done.

    Attributes:
        name: of the annotator.
        acknowledged: {key: (query, id of the answer)}.
        refused: sentences.
        leased: ids of all queries that were leased to them.
        resent: requests that had to be sent again.
        milliseconds: {kind of request: of each that was answered}.
        events: how many the server has sent.
    """

    name: str
    acknowledged: dict[str, tuple[int, int]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    leased: set[int] = field(default_factory=set)
    resent: int = 0
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    events: int = 0


class Client:
    """One connection to the server, kept open and made again when it was lost.

    Args:
        link: the link that the server has printed.
    """

    def __init__(self, link: str) -> None:
        parts = urlsplit(link)
        given = parse_qs(parts.fragment)
        self.name, self._token = given["name"][0], given["token"][0]
        assert parts.hostname is not None and parts.port is not None
        self._address = parts.hostname, parts.port
        self._connection = http.client.HTTPConnection(*self._address, timeout=60)
        self._headers = {"Content-Type": "application/json"}

    def sign_in(self) -> None:
        """Sign in; the session outlives the server."""
        body = json.dumps({"name": self.name, "token": self._token})
        self._connection.request("POST", "/api/sign-in", body.encode(), self._headers)
        response = self._connection.getresponse()
        response.read()
        if response.status != 204:
            raise RuntimeError(f"signing in as {self.name} was answered by {response.status}.")
        self._headers["Cookie"] = str(response.getheader("Set-Cookie")).split(";")[0]
        self._headers["X-CSRF-Token"] = json.loads(self.request("GET", "/api/project"))["csrf"]

    def request(self, method: str, path: str, values: Any = None) -> bytes:
        """The body of a response.

        Raises:
            OSError, http.client.HTTPException: the server is gone.
            RuntimeError: it has refused.
        """
        body = None if values is None else json.dumps(values).encode()
        try:
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:300]!r}")
        return content

    def listen(self, done: Done, ended: threading.Event) -> None:
        """Read events until ``ended``."""
        while not ended.is_set():
            connection = http.client.HTTPConnection(*self._address, timeout=2)
            try:
                connection.request("GET", "/api/events", headers=self._headers)
                response = connection.getresponse()
                while not ended.is_set() and (line := response.readline()):
                    done.events += line.startswith(b"data:")
            except (OSError, http.client.HTTPException):
                pass  # the server is gone; the page opens the line again as well
            finally:
                connection.close()
            ended.wait(0.5)


class Annotator:
    """One annotator.

    Args:
        work: what to do.
        seed: of kinds and of the first pause.
    """

    def __init__(self, work: Work, seed: int) -> None:
        self.work, self.client, self._rng = work, Client(work.link), random.Random(seed)
        self.done = Done(self.client.name)
        self._held: dict[int, dict[str, Any]] = {}
        self._loaded: set[int] = set()

    def run(self) -> Done:
        """Make all decisions, or as many as there are queries."""
        began = time.perf_counter()
        self.client.sign_in()
        ended = threading.Event()
        if self.work.pictures:
            threading.Thread(target=self.client.listen, args=(self.done, ended), daemon=True).start()
        self._lease()
        self._load_ahead()
        if self.work.begin:  # what was measured while everybody signed in at once is one figure of its own
            self.done.milliseconds = {"ready": [1000 * (time.perf_counter() - began)]}
        start = time.monotonic() + max(0.0, self.work.begin - time.time()) + self._rng.random() * self.work.seconds
        for number in range(self.work.decisions):
            time.sleep(max(0.0, start + number * self.work.seconds - time.monotonic()))
            if not self._held:
                break
            self._decide(next(iter(self._held)))
            if len(self._held) < FEW:
                self._lease()
            self._load_ahead()
        ended.set()
        return self.done

    def _decide(self, query: int) -> None:
        """Answer a query; the decision is sent until it is acknowledged."""
        decision = {
            "key": f"{uuid.UUID(int=self._rng.getrandbits(128)).hex}/0", "query": query,
            "kind": self._rng.choice(KINDS), "seconds": max(self.work.seconds, 0.5),
        }  # fmt: skip
        (result,) = json.loads(self._until_answered("decision", "/api/decisions", {"decisions": [decision]}))["results"]
        del self._held[query]
        if result["refused"]:
            self.done.refused.append(result["refused"])
        else:
            self.done.acknowledged[result["key"]] = query, result["answer"]

    def _lease(self) -> None:
        """Ask for queries; those that are held are among them."""
        wanted = {"order": self.work.order, "number": HELD}
        queries = json.loads(self._until_answered("lease", "/api/lease", wanted))["queries"]
        self._held = {one["id"]: one for one in queries}
        self.done.leased |= set(self._held)

    def _load_ahead(self) -> None:
        """Load the pictures of the next queries."""
        if not self.work.pictures:
            return
        for query in list(self._held.values())[:AHEAD]:
            if query["id"] not in self._loaded:
                self._loaded.add(query["id"])
                corners = zip(query["view"]["offset_zyx"], query["view"]["shape_zyx"], strict=True)
                box = ",".join(f"{start}:{start + num}" for start, num in corners)
                self._timed("image", "GET", f"/api/image?box={box}&stride=1,1,1")
                self._timed("mask", "GET", f"/api/queries/{query['id']}/mask")

    def _timed(self, kind: str, method: str, path: str, values: Any = None) -> bytes:
        start = time.perf_counter()
        content = self.client.request(method, path, values)
        self.done.milliseconds.setdefault(kind, []).append(1000 * (time.perf_counter() - start))
        return content

    def _until_answered(self, kind: str, path: str, values: Any) -> bytes:
        """Send until the server answers, waiting longer each time, as the page does.

        Raises:
            OSError, http.client.HTTPException: it has not answered for ``GIVE_UP_SECONDS``.
            RuntimeError: it has refused.
        """
        since, failures = time.monotonic(), 0
        while True:
            try:
                return self._timed(kind, "POST", path, values)
            except (OSError, http.client.HTTPException):
                if time.monotonic() - since > GIVE_UP_SECONDS:
                    raise
                self.done.resent += 1
                time.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1


def _work(works: Sequence[Work], seed: int) -> tuple[list[Done], float]:
    """Annotators of one process, each in a thread, and the seconds of processor that they took."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    annotators = [Annotator(work, seed + i) for i, work in enumerate(works)]
    failures: list[BaseException] = []

    def run(one: Annotator) -> None:
        try:
            one.run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in annotators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    return [one.done for one in annotators], seconds


class Annotators:
    """Annotators at work in processes of their own.

    Args:
        works: what each of them does.
        processes: over how many processes they are spread.
        seed: of what they answer.
    """

    def __init__(self, works: Sequence[Work], *, processes: int = 2, seed: int = 0) -> None:
        self._pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
        shares = [works[i::processes] for i in range(processes)]
        self._futures = [self._pool.submit(_work, share, seed + 1000 * i) for i, share in enumerate(shares) if share]

    @property
    def are_at_work(self) -> bool:
        """Whether any of them is."""
        return not all(future.done() for future in self._futures)

    def join(self) -> tuple[list[Done], float]:
        """Wait until all are done.

        Returns:
            What each has done, and the seconds of processor that all their processes took.
        """
        with self._pool:
            found = [future.result() for future in self._futures]
        return [one for some, _ in found for one in some], sum(seconds for _, seconds in found)
