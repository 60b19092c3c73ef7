"""Does the ledger stay fast as answers pile up, and does it keep every answer of several people at once?

Milliseconds of ``tell``, ``open_queries`` (80 open), ``query`` and ``counts`` (median of 100 calls) after 100, 1,000
and 10,000 answers, and eight threads that answer at once. Beside ``tell``, in turns with it, the same without the copy
in ``answers.jsonl``, and the bare limit: a small row inserted into an SQLite file with the same settings, one
transaction each.

    python benchmarks/ledger_speed.py
    python benchmarks/ledger_speed.py --full          # up to 10,000 answers
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import options as common_options
from common.results import Data, Results

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.project.ledger import Ledger
from twostream.project.records import Answer, Query
from twostream.task.answers import AnswerKind

NUM_CALLS, NUM_THREADS = 100, 8
KINDS = (AnswerKind.TRUE, AnswerKind.NOTHING, AnswerKind.SHAPE)


def snapshot(identity: int, rng: np.random.Generator) -> Query:
    """A candidate of a typical size with a patch pair of the laptop preset."""
    mask = (rng.random((6, 40, 40)) < 0.5).astype(np.uint8)
    image = rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)
    patch = PatchPair(image, np.ones((3, 64, 64), np.int8), 12.5, 1, 0.0)
    return Query(
        Candidate(identity, identity, Box((1, 2, 3), mask.shape), mask, 0.75), patch, "two-stream", {"fine": 1}
    )


def answered_ledger(path: Path, num_answers: int, *, copied: bool = True) -> Ledger:
    """A ledger with so many answers in earlier rounds, and a round that waits; answers are copied as in a project."""
    rng = np.random.default_rng(0)
    ledger = Ledger(path, create=True, answers_path=path.with_suffix(".jsonl") if copied else None)
    total = num_answers + 3 * NUM_CALLS
    ledger.register(0, range(1, total + 1))
    for number, start in enumerate(range(0, num_answers, 1000)):
        ids = range(start + 1, min(start + 1000, num_answers) + 1)
        ledger.ask(number, [snapshot(i, rng) for i in ids])
        waiting = ledger.open_queries()
        ledger.tell_all([Answer(q.id, KINDS[q.id % 3], "ann") for q in waiting])
    ledger.ask(1_000, [snapshot(i, rng) for i in range(num_answers + 1, total + 1)])
    return ledger


def medians_ms(calls: dict[int, Callable[[int], object]]) -> dict[int, float]:
    """Median of every call, made in turns, so that a busy disk slows all of them alike."""
    seconds: dict[int, list[float]] = {key: [] for key in calls}
    for number in range(NUM_CALLS):
        for key, call in calls.items():
            start = time.perf_counter()
            call(number)
            seconds[key].append(time.perf_counter() - start)
    return {key: 1000 * float(np.median(values)) for key, values in seconds.items()}


def bare_insert(folder: Path) -> Callable[[int], object]:
    """One small row per transaction, on disk when it returns."""
    connection = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE answer (id INTEGER PRIMARY KEY, words TEXT)")
    return lambda _: connection.execute("INSERT INTO answer (words) VALUES (?)", ("x" * 100,))


def eight_at_once(ledger: Ledger) -> tuple[int, float]:
    """Answers that the ledger lacks after eight threads have answered all open queries, and the seconds that took."""
    waiting = [q.id for q in ledger.open_queries()]
    start = time.perf_counter()

    def work(worker: int) -> None:
        for query in waiting[worker::NUM_THREADS]:
            ledger.tell(Answer(query, AnswerKind.TRUE, f"annotator {worker}"))

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(work, range(NUM_THREADS)))
    found = {a.query for a in ledger.all_answers()}
    return sum(query not in found for query in waiting), time.perf_counter() - start


def main() -> None:
    parser = common_options.parser(__doc__ or "")
    parser.add_argument("--answers", type=int, nargs="+", default=[100, 1000])
    options = common_options.parse(parser, {"answers": [100, 1000, 10_000]})
    results = Results("ledger_speed", options)
    with tempfile.TemporaryDirectory() as folder:
        ledgers = {n: answered_ledger(Path(folder) / f"{n}.sqlite", n) for n in options.answers}
        alone = {n: answered_ledger(Path(folder) / f"alone_{n}.sqlite", n, copied=False) for n in options.answers}
        first = {n: ledger.open_queries()[0].id for n, ledger in ledgers.items()}
        measured: dict[str, dict[int, Callable[[int], object]]] = {
            "tell": {
                n: lambda i, n=n: ledgers[n].tell(Answer(first[n] + i, AnswerKind.TRUE, "ann")) for n in options.answers
            },
            "query": {n: lambda i, n=n: ledgers[n].query(first[n] + i) for n in options.answers},
            "counts": {n: lambda _, n=n: ledgers[n].counts() for n in options.answers},
        }
        measured["tell"][0] = bare_insert(Path(folder))
        for n in options.answers:
            measured["tell"][-n] = lambda i, n=n: alone[n].tell(Answer(first[n] + i, AnswerKind.TRUE, "ann"))
        for name, calls in measured.items():
            for n, milliseconds in medians_ms(calls).items():
                data = generated(abs(n)) if n else Data("none", "ledger_speed.bare_insert()")
                title = name if n > 0 else "tell_without_copy" if n else "bare_insert"
                results.add(f"{title}_ms", milliseconds, "ms", data=data, answers=abs(n))
        for ledger in ledgers.values():
            for query in ledger.open_queries()[NUM_THREADS * 10 :]:
                ledger.tell(Answer(query.id, AnswerKind.TRUE, "ann"))
        listed = medians_ms({n: lambda _, n=n: ledgers[n].open_queries() for n in options.answers})
        for n, milliseconds in listed.items():
            results.add("open_queries_ms", milliseconds, "ms", data=generated(n), answers=n, open=NUM_THREADS * 10)
        for n, ledger in ledgers.items():
            missing, seconds = eight_at_once(ledger)
            results.add("eight_threads_missing", missing, "answers", data=generated(n), answers=n)
            results.add("eight_threads_seconds", seconds, "s", data=generated(n), answers=n)


def generated(num_answers: int) -> Data:
    return Data("generated ledger", f"ledger_speed.answered_ledger(num_answers={num_answers}), seed 0")


if __name__ == "__main__":
    main()
