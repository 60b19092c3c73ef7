"""The scorer's probabilities of a round, and what the test box says about its candidates: ``pool.npz``.

The step `score` writes the file; the next round, and the curated data set, read it. Knows ids and arrays; must not know
how a probability is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twostream.base.atomic import write_arrays
from twostream.base.errors import InputError
from twostream.project.project import Project

POOL_NAME = "pool.npz"


@dataclass(frozen=True)
class Probabilities:
    """The probability of a True of N candidates: all of the round's, and all that were asked about before.

    Attributes:
        ids: (N,) uint64.
        probability: (N,) float in [0, 1], by the scorer that all strategies share, before the round asked.
        in_pool: (N,) bool, whether the candidate is in the pool. Those that are not touch the labels box or the guarded
            test box, or lie on padding, and nobody is asked about them; or are faint and no proposals.
        learned: whether the scorer has learned from answers; until then its probability is S's score.
        on_test_box: (N,) float, 1 or 0 where the truth of the test box says that a candidate is true or false, else
            NaN.
    """

    ids: np.ndarray
    probability: np.ndarray
    in_pool: np.ndarray
    learned: bool
    on_test_box: np.ndarray

    @property
    def of_id(self) -> dict[int, float]:
        """{candidate id: probability}."""
        return dict(zip(self.ids.tolist(), self.probability.tolist(), strict=True))


def write_probabilities(project: Project, round_number: int, found: Probabilities) -> None:
    """Write ``pool.npz`` of a round."""
    arrays = {
        "ids": found.ids,
        "probability": found.probability,
        "in_pool": found.in_pool,
        "learned": np.array(found.learned),
        "on_test_box": found.on_test_box,
    }
    write_arrays(project.path(round_number, POOL_NAME), arrays)


def read_probabilities(project: Project, round_number: int) -> Probabilities | None:
    """Read ``pool.npz`` of a round.

    Returns:
        None if there is no such file: older versions wrote none. Others wrote the candidates of the pool alone, and
        nothing about the test box.

    Raises:
        InputError: the file is damaged.
    """
    path = project.path(round_number, POOL_NAME)
    return _read(path) if path.exists() else None


def _read(path: Path) -> Probabilities:
    try:
        with np.load(path, allow_pickle=False) as stored:
            ids, probability, learned = stored["ids"], stored["probability"], bool(stored["learned"])
            in_pool = stored["in_pool"] if "in_pool" in stored else np.ones(len(ids), bool)
            on_test_box = stored["on_test_box"] if "on_test_box" in stored else np.full(len(ids), np.nan)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Put it back from a copy, or delete it and let `twostream repair` make it "
            f"again."
        ) from None
    return Probabilities(ids, probability, in_pool, learned, on_test_box)
