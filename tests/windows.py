"""A project whose round asks about candidates and windows, for tests of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import toy_arrays
from served import make_queue
from test_answer_tables import FAINT, blob_at

from twostream.base.geometry import Box
from twostream.project.ledger import Ledger
from twostream.project.project import Project
from twostream.project.records import Window

BUDGET = 6
"""Queries about candidates."""
BOXES = ("0:8,16:48,80:112", "0:8,16:48,112:144", "0:8,48:80,128:160")
"""Of the windows, as they are asked: one blob was missed in each of the first two, none in the last."""


def make_windows(folder: Path) -> Project:
    """A project whose queries and windows of round 0 wait; the probability shows two blobs too faintly for them to be
    proposed."""
    level = np.where(toy_arrays()[0] > 115, 220, 5).astype(np.uint8)
    for place in FAINT:
        level[blob_at(place)] = 76
    ask = Ledger.ask

    def with_windows(self, number, queries, windows=()):
        ask(
            self,
            number,
            queries,
            [Window(Box.parse(box), 0.25, reason={"faint": 12.0, "inclusion": 0.25}) for box in BOXES],
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "ask", with_windows)
        return make_queue(folder, BUDGET, level)
