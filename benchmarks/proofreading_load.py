"""Do twenty annotators at once keep every decision, and does nobody wait, in a large project as well?

*Kept*: annotators decide as fast as the server answers, which is killed (kill -9) three times meanwhile and started
again. Each acknowledged decision must be in the ledger exactly once, and no query be given to two people; answers.jsonl
must agree with the ledger after a repair.

*Waited*: each annotator decides once a second, after all have signed in, has the page's line for events open, and loads
the picture of each query ahead. Views are at places of their own, so that the server never has them in memory; before
the start the system is asked to forget the image's file. Latencies are those of the client, beside its own against a
server that answers at once, and beside a bare row put on the same disk meanwhile. Spreads are the median and the 99th
percentile.

    python benchmarks/proofreading_load.py
    python benchmarks/proofreading_load.py --full --cache /tmp/projects    # 10,000 decisions; 1,000,000 candidates
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import options as common_options
from common.annotators import Annotators, Client, Done, Work
from common.results import Data, Results
from common.serving import Served, Size, cached_project, forget_files
from common.silent_server import silent_server

from twostream.project.answer_log import ANSWERS_NAME, AnswerLog
from twostream.project.project import LEDGER_NAME, Project
from twostream.project.repair import repair

QUICK = (Size(3_000, 0, 3_000, (64, 512, 512), (32, 128, 128)),)
FULL = (
    Size(20_000, 0, 14_000, (512, 1408, 1536), (64, 256, 256)),
    Size(1_000_000, 100_000, 14_000, (512, 1408, 1536), (64, 256, 256)),
)
ALONE_CALLS = 20
READY_SECONDS = 8.0
"""Seconds until all annotators have signed in and hold queries, or nearly."""


@dataclass(frozen=True)
class Kept:
    """What a run with kills has left in the ledger.

    Attributes:
        acknowledged: decisions that the server has acknowledged.
        refused: decisions that it has refused.
        resent: requests that were sent again after a kill.
        lost: acknowledged decisions that the ledger lacks, or has under another id.
        repeated: keys that the ledger has more than once.
        shared: queries that were given to two people.
        unlike: answers in which answers.jsonl and the ledger differ after repair.
    """

    acknowledged: int
    refused: int
    resent: int
    lost: int
    repeated: int
    shared: int
    unlike: int


def served(root: Path, num_annotators: int) -> Served:
    """The server of a project, for annotators by name."""
    names = [f"annotator {i}" for i in range(num_annotators)]
    return Served(root, tuple(word for name in names for word in ("--annotator", name)))


def newest_answer(root: Path) -> int:
    """Id of the newest answer, read beside the server."""
    with closing(sqlite3.connect(root / LEDGER_NAME, timeout=60)) as connection:
        return int(connection.execute("SELECT COALESCE(MAX(id), 0) FROM answer").fetchone()[0])


def decide_under_kills(server: Served, decisions: int, kills: int, *, processes: int = 2) -> tuple[list[Done], float]:
    """All annotators decide as fast as the server answers; it is killed whenever a share of the decisions is recorded.

    Args:
        server: runs, and runs again in the end.
        decisions: of all annotators together.
        kills: how often it is killed.
        processes: of the annotators.

    Returns:
        What each annotator has done, and the seconds from the first decision to the last, with all restarts.
    """
    before, links = newest_answer(server.root), [link for name, link in server.links.items() if name]
    orders = ("cluster", "score", "uncertainty", "shuffled")
    works = [Work(link, decisions // len(links), order=orders[i % 4]) for i, link in enumerate(links)]
    start = time.monotonic()
    annotators = Annotators(works, processes=processes)
    for number in range(1, kills + 1):
        while newest_answer(server.root) - before < number * decisions / (kills + 1) and annotators.are_at_work:
            time.sleep(0.02)
        server.kill()
        server.start()
    done, _ = annotators.join()
    return done, time.monotonic() - start


def what_was_kept(root: Path, done: Sequence[Done]) -> Kept:
    """Compare what was acknowledged with the ledger, and the ledger with answers.jsonl after repair. The server is
    stopped."""
    repair(root)
    project = Project(root)
    answers = project.ledger.all_answers()
    logged, torn = AnswerLog(root / ANSWERS_NAME).answers()
    project.ledger.close()
    times = Counter(answer.key for answer in answers if answer.key)
    recorded = {answer.key: (answer.query, answer.id) for answer in answers}
    acknowledged = {key: value for one in done for key, value in one.acknowledged.items()}
    given = Counter(query for one in done for query in one.leased)
    of_ledger = Counter((a.id, a.key, a.query, a.kind, a.annotator) for a in answers)
    of_log = Counter((one.answer.id, one.answer.key, one.answer.query, one.answer.kind, one.answer.annotator)
                     for one in logged)  # fmt: skip
    return Kept(
        acknowledged=sum(len(one.acknowledged) for one in done),
        refused=sum(len(one.refused) for one in done),
        resent=sum(one.resent for one in done),
        lost=sum(recorded.get(key) != value for key, value in acknowledged.items()),
        repeated=sum(num > 1 for num in times.values()),
        shared=sum(num > 1 for num in given.values()),
        unlike=((of_ledger - of_log) + (of_log - of_ledger)).total() + torn,
    )


def decide_each_second(links: Sequence[str], seconds: int, ready_seconds: float) -> tuple[list[Done], float]:
    """Each annotator decides once a second, with pictures; what they have done, and their processes' own seconds."""
    begin = time.time() + ready_seconds
    works = [Work(link, seconds, seconds=1.0, pictures=True, begin=begin) for link in links]
    return Annotators(works).join()


class Disk:
    """Puts a small row on the disk four times a second, while a block of code runs, and times it: the bare limit.

    Attributes:
        milliseconds: of each row.
    """

    def __init__(self, path: Path) -> None:
        self.milliseconds: list[float] = []
        self._path, self._ended = path, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE answer (id INTEGER PRIMARY KEY, words TEXT)")
            while not self._ended.wait(0.25):
                start = time.perf_counter()
                connection.execute("INSERT INTO answer (words) VALUES (?)", ("x" * 100,))
                self.milliseconds.append(1000 * (time.perf_counter() - start))

    def __enter__(self) -> Disk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def alone_ms(server: Served) -> dict[str, float]:
    """Median milliseconds of requests that one person makes while nobody else does."""
    client = Client(next(iter(server.links.values())))
    client.sign_in()
    calls = {
        "progress": lambda: client.request("GET", "/api/progress"),
        "lease": lambda: client.request("POST", "/api/lease", {"number": 24}),
        "disagreements": lambda: client.request("GET", "/api/disagreements"),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        for _ in range(ALONE_CALLS):
            start = time.perf_counter()
            call()
            found[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in found.items()}


def add_latencies(results: Results, done: Sequence[Done], data: Data, prefix: str = "", **settings: object) -> None:
    """95th percentile of each kind of request, and of the time until all are ready who come at once."""
    for kind in ("decision", "image", "mask", "lease", "ready"):
        values = [ms for one in done for ms in one.milliseconds.get(kind, [])]
        add_percentile(results, f"{prefix}{kind}", values, data, **settings)


def add_percentile(results: Results, name: str, values: Sequence[float], data: Data, **settings: object) -> None:
    """95th percentile of milliseconds."""
    middle, high, top = np.percentile(values, [50, 95, 99])
    results.add(
        f"{name}_p95_ms", high, "ms", data=data, spread=[middle, top],
        spread_is=f"median and 99th percentile of {len(values)}", **settings,
    )  # fmt: skip


def measure_kept(results: Results, root: Path, size: Size, options: object, **settings: object) -> None:
    """Rows of the run with kills."""
    server = served(root, options.annotators).start()
    try:
        done, seconds = decide_under_kills(server, options.decisions, options.kills)
    finally:
        server.stop()
    found = what_was_kept(root, done)
    results.add("kills", options.kills, "kills", data=size.data, **settings)
    for name in ("acknowledged", "refused", "resent", "lost", "repeated", "shared", "unlike"):
        unit = {"shared": "queries", "resent": "requests"}.get(name, "decisions")
        results.add(name, getattr(found, name), unit, data=size.data, **settings)
    results.add("decisions_per_second", found.acknowledged / seconds, "1/s", data=size.data, **settings)


def measure_waited(results: Results, root: Path, size: Size, options: object, **settings: object) -> None:
    """Rows of the run with a decision a second."""
    forget_files(root.parent / "image.zarr")
    start = time.monotonic()
    server = served(root, options.annotators).start()
    started = time.monotonic() - start
    try:
        for name, milliseconds in alone_ms(server).items():
            results.add(f"{name}_alone_ms", milliseconds, "ms", data=size.data, **settings)
        with Disk(root / "bare.sqlite") as disk:
            done, own = decide_each_second(list(server.links.values()), options.seconds, READY_SECONDS)
        load = os.getloadavg()[0]
    finally:
        server.stop()
    results.add("start_seconds", started, "s", data=size.data, **settings)
    add_latencies(results, done, size.data, **settings)
    add_percentile(results, "bare_insert", disk.milliseconds, size.data, **settings)
    results.add("client_processor_share", own / (options.seconds + READY_SECONDS), "cores", data=size.data, **settings)
    results.add("load_average", load, "processes", data=size.data, **settings)


def measure_client(results: Results, options: object) -> None:
    """Rows of the client alone, against a server that answers at once."""
    data = Data("none", "common.silent_server")
    with silent_server() as address:
        links = [f"{address}#name=annotator{i}&token=none" for i in range(options.annotators)]
        done, _ = decide_each_second(links, min(options.seconds, 20), 3.0)
    add_latencies(results, done, data, "client_")
    results.add("client_load_average", os.getloadavg()[0], "processes", data=data)


def main() -> None:
    parser = common_options.parser(__doc__ or "")
    parser.add_argument("--annotators", type=int, default=20)
    parser.add_argument("--decisions", type=int, default=400, help="of all annotators, while the server is killed")
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=5, help="for which each annotator decides once a second")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps generated projects (2 GB with --full)")
    options = common_options.parse(parser, {"decisions": 10_000, "kills": 3, "seconds": 60})
    results = Results("proofreading_load", options)
    if not results.find("client_load_average"):
        measure_client(results, options)
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch)
        for size in FULL if options.full else QUICK:
            folder = cached_project(cache, size)
            settings = {"candidates": size.candidates, "answers": size.answers}
            measures = (measure_waited, "load_average"), (measure_kept, "decisions_per_second")
            for measure, last in measures:
                if results.find(last, **settings):
                    continue
                copy = folder / "copy"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(folder / "project", copy)
                measure(results, copy, size, options, **settings)
                shutil.rmtree(copy)


if __name__ == "__main__":
    main()
