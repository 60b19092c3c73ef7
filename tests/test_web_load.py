"""Several people at once over HTTP, and a server that is killed meanwhile: nothing is lost or recorded twice."""

from __future__ import annotations

import random
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from common.serving import Size, make_project
from proofreading_load import decide_under_kills, served, what_was_kept

from twostream.project.agreement import disagreements
from twostream.project.project import Project
from twostream.project.records import Answer
from twostream.task.answers import RETRACTED
from twostream.web.decisions import Decision, Decisions
from twostream.web.queue import Queue
from twostream.web.serve import listen

NUM_ANNOTATORS, NUM_DECISIONS = 3, 240


@pytest.fixture
def generated_project(tmp_path: Path) -> Path:
    """Folder of a generated project: a round that was answered, and one that waits."""
    return make_project(tmp_path, Size(400, 100, 300, (16, 128, 128), (16, 64, 64), (8, 64, 64))).root


def test_a_killed_server_has_every_acknowledged_decision_once(generated_project: Path) -> None:
    server = served(generated_project, NUM_ANNOTATORS).start()
    try:
        done, _ = decide_under_kills(server, NUM_DECISIONS, kills=1, processes=1)
    finally:
        server.stop()
    found = what_was_kept(generated_project, done)
    assert found.acknowledged == NUM_DECISIONS and found.refused == 0
    assert found.resent > 0  # the kill was noticed
    assert (found.lost, found.repeated, found.shared, found.unlike) == (0, 0, 0, 0)


def test_responses_do_not_wait_to_be_filled_up() -> None:
    # asyncio sends small packets at once (TCP_NODELAY) only where the socket states its protocol.
    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_what_the_queue_keeps_up_to_date_is_what_counting_anew_gives(generated_project: Path) -> None:
    project, rng = Project(generated_project), random.Random(0)
    project.rewrite({"proofreading.double_share": 0.5})
    kept, ledger, people = Queue(project), project.ledger, ["ann", "bob", "eve"]
    waiting = [line.id for line in ledger.query_lines(1)][:20]
    for _ in range(150):
        query, name = rng.choice(waiting), rng.choice(people)
        own = next((a.id for a in ledger.current_answers(query) if a.annotator == name), None)
        kind = rng.choice([RETRACTED, "true", "nothing"] if own else ["true", "nothing"])
        ledger.tell(Answer(query, kind, name, seconds=1.0, supersedes=own))
        kept.refresh()
    anew = Queue(project)
    assert kept.left("ann").second > 0 and kept.shared()
    assert [kept.left(name) for name in people] == [anew.left(name) for name in people]
    assert kept.shared() == anew.shared()
    assert disagreements(kept.shared()) == disagreements(map(without_drawing, ledger.current_answers()))
    assert kept.people == anew.people
    current = ledger.current_answers()
    open_ = {line.id for line in ledger.query_lines(1)} - {a.query for a in current}
    assert kept.left("ann").open == len(open_) == len(ledger.open_queries())


def without_drawing(answer: Answer) -> Answer:
    """The answer as the queue has it."""
    return replace(answer, drawing=None)


def test_a_query_that_undo_has_opened_again_stays_with_the_person(generated_project: Path) -> None:
    project = Project(generated_project)
    leases, queue, now = project.ledger.leases, Queue(project), time.time()
    decisions = Decisions(project.ledger, lease_seconds=60.0)
    query, *_ = queue.lease("ann", "cluster", 2)
    decisions.record("ann", Decision("key-of-ann/0", query, "true"))
    assert query not in leases.held("ann", now)
    decisions.undo("ann", 1, "key-of-undo")
    assert query in leases.held("ann", now)
    assert query not in queue.lease("bob", "cluster", 100)
