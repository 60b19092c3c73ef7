"""Candidates of a fixed S with their true answers: what strategies are compared on.

Knows a project's round and the truth; must not know strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from twostream.base.atomic import read_array
from twostream.base.errors import InputError
from twostream.candidates.truth import Truth
from twostream.project.project import Project
from twostream.rounds.asking import may_be_asked
from twostream.rounds.embed import STREAMS
from twostream.task.answers import MEANING

Streams = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Candidates:
    """N candidates of one round.

    Attributes:
        streams: {"supervised": (N, Ds), "unsupervised": (N, Du)} float.
        score: (N,) float in [0, 1], mean probability by S inside the mask.
        num_voxels: (N,) int.
        num_sections: (N,) int, sections through the object.
        position_nm: (N, 3) float, (z, y, x) in nm.
        answer: (N,) text, the kind of answer that an expert who knows the truth would give (``AnswerKind``).
        y: (N,) float, 1 or 0, what that answer says.
        is_held_out: (N,) bool, True for those in the test box, which are never asked about.
        kind: (N,) text, what the candidate shows, where that is known; no strategy sees it.
    """

    streams: Streams
    score: np.ndarray
    num_voxels: np.ndarray
    num_sections: np.ndarray
    position_nm: np.ndarray
    answer: np.ndarray
    y: np.ndarray
    is_held_out: np.ndarray
    kind: np.ndarray | None = None

    @classmethod
    def of_round(
        cls,
        project: Project,
        truth: Truth,
        round_number: int = 0,
        *,
        kinds_at: Callable[[np.ndarray], np.ndarray | None] = lambda position_nm: None,
    ) -> Candidates:
        """The candidates of a round that may be asked about, and those in the test box.

        Those of which the truth says nothing, faint ones, and those near the test box or in the labels boxes are left
        out.

        Args:
            project: with a finished round.
            truth: of the whole image.
            round_number: the round.
            kinds_at: what lies at positions, (N, 3) in nm, as (N,) text.

        Raises:
            InputError: the round has no latents yet, or fewer than two candidates of either answer may be asked about.
        """
        paths = {name: project.path(round_number, f"latents_{name}.npy") for name in STREAMS}
        if not all(path.exists() for path in paths.values()):
            raise InputError(f"round {round_number} of {project.root} has no latents yet; `twostream run` makes them.")
        found = project.candidates(round_number)
        askable, test = may_be_asked(project, found), project.boxes.test
        held_out = np.array([test is not None and test.contains(c.box.middle) for c in found], bool)
        answer = np.array([str(truth.judge(c).kind) for c in found])
        y = np.array([MEANING[kind].y for kind in answer], float)
        rows = np.flatnonzero((askable | held_out) & ~np.isnan(y))
        members = found.take(rows)
        corners = members.corners
        position_nm = (corners[:, :3] + corners[:, 3:]) / 2 * project.image.voxel_size_nm
        made = cls(
            {name: read_array(path)[rows] for name, path in paths.items()},
            members.column("score"),
            members.column("num_voxels"),
            corners[:, 3] - corners[:, 0],
            position_nm,
            answer[rows],
            y[rows],
            held_out[rows],
            kinds_at(position_nm),
        )
        asked = made.y[~made.is_held_out]
        if min((asked == 1).sum(), (asked == 0).sum()) < 2:
            raise InputError(
                f"{project.root} has {int((asked == 1).sum())} true and {int((asked == 0).sum())} wrong candidates to "
                f"ask about; expected two of each, else there is nothing to choose between."
            )
        return made
