"""The objects of the curated data set, each with its provenance, before anything is painted.

Knows candidates and answers; must not know volumes, and must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, sides_swapped
from twostream.candidates.table import BOX_COLUMNS, pack_mask, read_table, unpack_mask
from twostream.project.project import Project
from twostream.project.records import Answer, Query, Verdict
from twostream.task.answers import MEANING, AnswerKind

MODEL, DISPUTED, LABELS = "model", "disputed", "labels"
"""Origins of objects; all other origins are kinds of answers."""
ANSWERED_FALSE, NOT_PROPOSED = "answered false", "not proposed"
"""Why an object is left out, as far as the answers decide it; see also ``curated.py``."""
COLUMNS = (
    "id",
    "project",
    "task",
    "box",
    "num_voxels",
    "score",
    "probability",
    "origin",
    "asked_by",
    "asked_in_round",
    "audit",
    "answered_by",
    "answers",
    "answered_at",
    "seconds",
    "label",
    "joined",
)
"""Columns of ``objects.csv``; ``left_out.csv`` has ``reason`` as well."""
NEWEST = 2**31
"""Later than every round."""


@dataclass(frozen=True)
class CuratedObject:
    """An object of the data set, or one that was left out.

    Attributes:
        id: the candidate's id; objects that were drawn get ids above all candidates.
        box: its bounding box, in voxels of the image.
        packed: its mask over ``box``, compressed by ``pack_mask``: a data set holds more masks than fit into memory.
        row: its provenance, {column: value}; the columns are explained in ``docs/curated.md``.
        is_given: whether a person confirmed or drew it.
        paint_as: id under which its voxels are painted, if they belong to another object; else 0.
    """

    id: int
    box: Box
    packed: bytes = field(repr=False)
    row: dict[str, Any]
    is_given: bool
    paint_as: int = 0

    @property
    def mask(self) -> np.ndarray:
        """(Z, Y, X) uint8 over ``box``, with the values of ``Candidate.mask``."""
        return unpack_mask(self.packed, self.box)

    @property
    def is_model(self) -> bool:
        """Whether it is as S proposed it, and nobody has said anything about it."""
        return bool(self.row["origin"] == MODEL)


@dataclass(frozen=True)
class Objects:
    """What there is to paint.

    Attributes:
        proposed: candidates of the round without an answer that decides: unanswered, *unsure* or disputed.
        given: objects that a person confirmed or drew, in the order in which they are painted.
        left_out: what the answers leave out: rows with a column ``reason``.
        next_id: the first id above all of them.
    """

    proposed: list[CuratedObject]
    given: list[CuratedObject]
    left_out: list[dict[str, Any]]
    next_id: int


def gather(project: Project, round_number: int) -> Objects:
    """The objects of a round, corrected by all answers.

    ``y`` of the verdict decides. With 1 the object stands as it was asked about; with 0 it is left out, or replaced by
    what the annotator drew. With NaN (no answer, nobody was sure, or annotators disagree) the candidate of the round
    stands. Missed objects are added, with ids above those of all candidates.

    Args:
        project: the project.
        round_number: round whose candidates are used.
    """
    told = _Told(project)
    proposed, left_out, seen = [], [], set()
    columns = ["id", *BOX_COLUMNS, "num_voxels", "score", "mask"]
    table = read_table(project.path(round_number, "candidates.parquet"))
    faint = project.candidates(round_number).faint.tolist()
    for row, is_faint in zip(table.select(columns).to_pylist(), faint, strict=True):
        identity = row["id"]
        seen.add(identity)
        if told.decides(identity) or is_faint:  # S did not propose it, so it stands only where a person confirmed it
            continue
        box = Box.from_corners([row[name] for name in BOX_COLUMNS[:3]], [row[name] for name in BOX_COLUMNS[3:]])
        provenance = told.row(identity, box, row["num_voxels"], row["score"])
        proposed.append(CuratedObject(identity, box, row["mask"], provenance, is_given=False))
    given = []
    for identity, query in sorted(told.queries.items()):
        candidate = query.candidate
        row = told.row(identity, candidate.box, candidate.num_voxels, candidate.score)
        if not told.decides(identity):
            if identity not in seen:
                left_out.append(row | {"reason": NOT_PROPOSED})
        elif shape := _shape(candidate, told.verdicts[identity]):
            box, mask = shape
            given.append(CuratedObject(identity, box, pack_mask(mask), row, is_given=True))
        else:
            left_out.append(row | {"reason": ANSWERED_FALSE})
    next_id = project.ledger.next_id(NEWEST)
    for answer in told.missed:
        assert answer.drawing is not None
        box, mask = answer.drawing
        given.append(CuratedObject(next_id, box, pack_mask(mask), told.row_of_missed(next_id, answer), True))
        next_id += 1
    return Objects(proposed, given, left_out, next_id)


def _shape(candidate: Candidate, verdict: Verdict) -> tuple[Box, np.ndarray] | None:
    """Box and mask of an object on which the answers decide; None if they say that there is none."""
    if verdict.teaches == "exchanged":
        return candidate.box, sides_swapped(candidate.mask)
    if verdict.teaches == "drawn":
        assert verdict.answer is not None
        return verdict.answer.drawing
    return (candidate.box, candidate.mask) if verdict.y == 1 else None


class _Told:
    """What people were asked and what they said, by candidate."""

    def __init__(self, project: Project) -> None:
        ledger = project.ledger
        self._project, self._task = project.id, project.config.task
        self.verdicts = ledger.verdicts()
        self.queries: dict[int, Query] = ledger.newest_queries(NEWEST)
        self._all = ledger.all_answers()
        self._replaced = {answer.supersedes for answer in self._all}
        self._of: dict[int, list[Answer]] = {}
        for answer in self._all:
            if answer.candidate is not None and not answer.is_retraction:
                self._of.setdefault(answer.candidate, []).append(answer)

    @cached_property
    def missed(self) -> list[Answer]:
        """Objects that people added, oldest first."""
        return [a for a in self._all if a.kind == AnswerKind.MISSED and a.drawing and a.id not in self._replaced]

    def decides(self, identity: int) -> bool:
        """Whether the answers say what the object is: right, wrong or drawn."""
        verdict = self.verdicts.get(identity)
        return verdict is not None and (not math.isnan(verdict.y) or verdict.teaches == "drawn")

    def row(self, identity: int, box: Box, num_voxels: int, score: float) -> dict[str, Any]:
        """The row of a candidate."""
        answers, query = self._of.get(identity, []), self.queries.get(identity)
        current = [a for a in answers if a.id not in self._replaced]
        origin = self._origin(identity, current)
        said = [] if origin == MODEL else current
        return self._row(identity, box, num_voxels, score, origin, query, said, sum(a.seconds for a in answers))

    def row_of_missed(self, identity: int, answer: Answer) -> dict[str, Any]:
        """The row of an object that a person added; seconds of the drawings that it replaces count as well."""
        assert answer.drawing is not None
        box, mask = answer.drawing
        by_id = {a.id: a for a in self._all}
        seconds, newest = 0.0, by_id.get(answer.id)
        while newest is not None:
            seconds, newest = seconds + newest.seconds, by_id.get(newest.supersedes or 0)
        num_voxels = int(np.count_nonzero(mask))
        return self._row(identity, box, num_voxels, None, str(answer.kind), None, [answer], seconds)

    def _origin(self, identity: int, answers: Sequence[Answer]) -> str:
        verdict = self.verdicts.get(identity)
        if verdict is None or not answers:
            return MODEL
        if verdict.kind is None:
            return DISPUTED
        return MODEL if MEANING[verdict.kind].may_be_asked_again else str(verdict.kind)

    def _row(
        self,
        identity: int,
        box: Box,
        num_voxels: int,
        score: float | None,
        origin: str,
        query: Query | None,
        said: Sequence[Answer],
        seconds: float,
    ) -> dict[str, Any]:
        return {
            "id": identity,
            "project": self._project,
            "task": self._task,
            "box": str(box),
            "num_voxels": num_voxels,
            "score": score,
            "probability": None,
            "origin": origin,
            "asked_by": query.strategy if query else None,
            "asked_in_round": query.round if query else None,
            "audit": query.is_audit if query else None,
            "answered_by": ", ".join(dict.fromkeys(a.annotator for a in said)) or None,
            "answers": ", ".join(f"{a.annotator}: {a.kind}" for a in said) or None,
            "answered_at": max((a.answered_at for a in said), default=None),
            "seconds": seconds or None,
            "label": None,  # of hand labels, like the next one
            "joined": None,
        }
