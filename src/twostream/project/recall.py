"""How many objects the candidates of a round find, estimated from its windows. Equations: ``docs/windows.md``.

Knows the ledger, the round's candidates and the scorer's probability; must not know the truth, and must not import
torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.identity import found_by
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.table import DEFAULT_VOLUME
from twostream.project.ledger import Ledger
from twostream.project.probabilities import read_probabilities
from twostream.project.project import Project
from twostream.project.records import Answer, Window
from twostream.project.tiles import Tiles, tiles_of
from twostream.task import FOUND_IOU
from twostream.task.answers import AnswerKind
from twostream.task.metrics import weighted_poisson_interval

Drawing = tuple[Box, np.ndarray]


@dataclass(frozen=True)
class RecallEstimate:
    """Recall of the candidates of a round in the tiles from which its windows were drawn.

    Attributes:
        round: the round.
        value: found / (found + missed); None if there seem to be no objects.
        low, high: 95 percent interval. It covers the chance of drawing these windows and no others; not what the scorer
            errs about ``found``.
        found: expected number of true candidates: those answered True, and the scorer's probability of the others.
        missed: estimated number of objects that no candidate finds.
        known_missed: how many of ``missed`` people had confirmed or drawn in earlier rounds, or confirmed as faint
            candidates of the round.
        marked: objects that were marked in the windows.
        windows: windows that were searched to their end.
        drawn: windows that were drawn; the others wait, were skipped, or nobody was sure.
        share_of_image: share of the image's voxels that the tiles cover.
    """

    round: int
    value: float | None
    low: float
    high: float
    found: float
    missed: float
    known_missed: int
    marked: int
    windows: int
    drawn: int
    share_of_image: float

    def row(self) -> dict[str, Any]:
        """As plain values, for ``metrics.json`` and ``dataset.json``."""
        values = asdict(self)
        interval = [values.pop("low"), values.pop("high")]
        return {"round": values.pop("round"), "value": values.pop("value"), "interval": interval} | values


def recall_estimate(project: Project, before_round: int | None = None) -> RecallEstimate | None:
    """The newest estimate that the windows allow.

    Args:
        project: the project.
        before_round: only windows of rounds before this one; None takes all.

    Returns:
        None if no window was searched to its end.
    """
    verdicts = project.ledger.window_verdicts()
    searched = [w for w in project.ledger.windows() if verdicts[w.id].kind == AnswerKind.NONE_MISSED]
    rounds = [
        w.round for w in searched if w.volume == DEFAULT_VOLUME and (before_round is None or w.round < before_round)
    ]
    if not rounds:
        return None
    number = max(rounds)
    return _of_round(project, number, [w for w in searched if w.round == number])


def said(estimate: Mapping[str, Any]) -> str:
    """An estimate in words, with its source; ``estimate`` is that of ``RecallEstimate.row``."""
    low, high = estimate["interval"]
    value = "unknown" if estimate["value"] is None else f"{estimate['value']:.2f}"
    windows = f"{estimate['windows']} window{'s' if estimate['windows'] != 1 else ''}"
    marked = f"{estimate['marked']} missed object{'s' if estimate['marked'] != 1 else ''}"
    return (
        f"recall of the candidates of round {estimate['round']} by windows: {value}, 95 percent interval {low:.2f} to "
        f"{high:.2f} ({marked} marked in {windows}; about {estimate['found']:.0f} found and {estimate['missed']:.0f} "
        f"missed in {100 * estimate['share_of_image']:.0f} percent of the image)"
    )


def _of_round(project: Project, round_number: int, searched: Sequence[Window]) -> RecallEstimate:
    """The estimate from the windows of one round."""
    ledger = project.ledger
    drawn = ledger.windows(round_number)
    shape = project.ledger.finished_steps().get((round_number, "suggest"), {}).get("window_shape_zyx")
    tiles = tiles_of(project, shape)
    candidates = project.candidates(round_number).proposed()
    marks = [_marked(ledger, window) for window in searched]
    weights = [len(drawn) / len(searched) / window.inclusion for window in searched]
    counts = [len(one) for one in marks]
    low, high = weighted_poisson_interval(counts, weights)
    known = len(_known_unfound(ledger, round_number, tiles, candidates))
    found = _expected_true(project, round_number, tiles, candidates)
    missed = float(np.dot(counts, weights)) + known

    def recall(num_missed: float) -> float:
        return found / (found + num_missed) if found + num_missed > 0 else math.nan

    value = recall(missed)
    ends = [0.0, 1.0] if math.isnan(value) else [recall(high + known), recall(low + known)]
    return RecallEstimate(
        round=round_number,
        value=None if math.isnan(value) else value,
        low=ends[0],
        high=ends[1],
        found=found,
        missed=missed,
        known_missed=known,
        marked=sum(counts),
        windows=len(searched),
        drawn=len(drawn),
        share_of_image=sum(box.num_voxels for box in tiles.boxes()) / tiles.whole.num_voxels,
    )


def _marked(ledger: Ledger, window: Window) -> list[Drawing]:
    """The objects that were marked in a window and belong to it; what two people have marked counts once."""
    drawn = [_drawn(answer) for answer in ledger.missed_objects() if answer.window == window.id]
    return _distinct([one for one in drawn if window.holds(one[0])])


def _distinct(objects: Sequence[Drawing]) -> list[Drawing]:
    """Objects without those that an earlier one of them finds."""
    kept: list[Drawing] = []
    for one in objects:
        if not found_by([one], kept, FOUND_IOU)[0]:
            kept.append(one)
    return kept


def _known_unfound(ledger: Ledger, round_number: int, tiles: Tiles, candidates: StoredCandidates) -> list[Drawing]:
    """Objects in the tiles that people confirmed or drew in earlier rounds, and that no candidate of a round finds.

    Faint candidates that were confirmed in the round itself are among them: they are outlined in its windows, so nobody
    marks them there.
    """
    verdicts = ledger.verdicts()
    earlier = ledger.newest_queries(round_number)
    asked = ledger.newest_queries(round_number + 1)
    known = [(q.candidate.box, q.candidate.mask) for i, q in asked.items() if verdicts[i].y == 1]
    known += [_drawn(verdicts[i].answer) for i in earlier if verdicts[i].teaches == "drawn"]
    known += [_drawn(a) for a in ledger.missed_objects() if a.round < round_number]
    known = [one for one in known if tiles.tile_of(one[0])]
    return _distinct([one for one in known if not found_by([one], candidates.touching(one[0]).shapes(), FOUND_IOU)[0]])


def _drawn(answer: Answer | None) -> Drawing:
    """What was drawn in an answer of a kind that has a drawing."""
    assert answer is not None and answer.drawing is not None  # the ledger demands it
    return answer.drawing


def _expected_true(project: Project, round_number: int, tiles: Tiles, candidates: StoredCandidates) -> float:
    """Expected number of true candidates in the tiles: answers where they were given, else the scorer's probability."""
    verdicts = project.ledger.verdicts()
    stored = read_probabilities(project, round_number)
    of_id = stored.of_id if stored else {}
    total = 0.0
    columns = candidates.ids.tolist(), candidates.column("score").tolist(), candidates.corners.tolist()
    for identity, score, corners in zip(*columns, strict=True):
        if tiles.tile_of(Box.from_corners(corners[:3], corners[3:])):
            verdict = verdicts.get(identity)
            known = verdict is not None and not math.isnan(verdict.y)
            total += verdict.y if verdict is not None and known else of_id.get(identity, score)
    return total
