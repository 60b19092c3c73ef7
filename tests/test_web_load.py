"""Several people at once over HTTP, and a server that is killed meanwhile: nothing is lost or recorded twice."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from common.serving import Size, make_project
from proofreading_load import decide_under_kills, served, what_was_kept

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
