"""The curated data set: the objects of a round, corrected by the answers, as a volume and a table.

Knows candidates, answers and volumes; must not import torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.atomic import write_folder, write_text
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, sides_swapped
from twostream.candidates.table import from_table, read_table
from twostream.project.project import Project
from twostream.project.records import Answer, Query
from twostream.project.tables import latest_round, with_source_ids, write_rows
from twostream.task import TASKS
from twostream.task.answers import AnswerKind
from twostream.volume import create_volume


def export_dataset(project: Project, output: Path) -> str:
    """Write the curated data set of the newest round into a folder.

    ``segmentation.zarr`` is (Z, Y, X) uint64 with the id of the object as its value (polarity: 2*id-1 presynaptic,
    2*id postsynaptic). ``objects.csv`` has a row per object with its provenance. ``dataset.json`` describes the whole.

    Args:
        project: the project.
        output: folder to make.

    Returns:
        One line that says what was written.

    Raises:
        ProjectError: no round has proposed candidates yet.
    """
    round_number = latest_round(project, "propose")
    objects = curated_objects(project, round_number)

    def fill(path: Path) -> None:
        path.mkdir(parents=True)
        shape, size = project.image.shape_zyx, project.image.voxel_size_nm
        volume = create_volume(str(path / "segmentation.zarr"), shape_zyx=shape, dtype=np.uint64, voxel_size_nm=size)
        for identity, box, mask, _ in objects:
            values = volume.read(box)
            side, value = mask.astype(np.uint64), np.uint64(identity)
            labels = side * value if project.task.num_sides == 1 else np.uint64(2) * value - (np.uint64(2) - side)
            volume.write(box, np.where(mask > 0, labels, values))
        rows = []
        for identity, box, _, row in objects:
            # Later objects are painted over earlier ones. An object that was painted over completely is not listed.
            num_voxels = int((project.task.instances(volume.read(box)) == identity).sum())
            if num_voxels:
                rows.append(row | {"num_voxels": num_voxels})
        rows = with_source_ids(project, rows, key="id")
        write_rows(rows, path / "objects.csv", "csv")
        write_text(path / "dataset.json", json.dumps(_dataset_facts(project, round_number, rows), indent=1) + "\n")

    write_folder(output, fill)
    return f"curated data set written to {output}"


def curated_objects(project: Project, round_number: int) -> list[tuple[int, Box, np.ndarray, dict[str, Any]]]:
    """Objects of the curated data set, in the order in which they are painted: answered ones last, on top.

    ``y`` of the verdict decides. With 1 the object is kept as it was asked about; with 0 it is removed, or replaced by
    what the annotator drew. With NaN (no answer, nobody was sure, or annotators disagree) the candidate of the round
    is kept. Missed objects are added, with ids above those of all candidates.

    Args:
        project: the project.
        round_number: round whose candidates are used.

    Returns:
        (id, box, mask (Z, Y, X) uint8, row of ``objects.csv``) of each object.
    """
    verdicts = project.ledger.verdicts()
    queries = {query.candidate.id: query for query in project.ledger.queries()}
    people: dict[int | None, list[str]] = {}
    for answer in project.ledger.current_answers():
        people.setdefault(answer.candidate, []).append(answer.annotator)
    result = []
    for candidate in from_table(read_table(project.path(round_number, "candidates.parquet"))):
        verdict = verdicts.get(candidate.id)
        if verdict is None or math.isnan(verdict.y):
            disputed = verdict is not None and verdict.kind is None and candidate.id in people
            query = queries[candidate.id] if disputed else None
            result.append(_object(candidate, candidate.box, candidate.mask, query, people=people.get(candidate.id, ())))
    for identity, query in sorted(queries.items()):
        verdict, candidate = verdicts[identity], query.candidate
        box, mask = candidate.box, candidate.mask
        if verdict.teaches == "exchanged":
            mask = sides_swapped(mask)
        elif verdict.teaches == "drawn":
            assert verdict.answer is not None and verdict.answer.drawing is not None
            box, mask = verdict.answer.drawing
        elif verdict.y != 1:
            continue
        result.append(_object(candidate, box, mask, query, verdict.answer, people[identity]))
    next_id = project.ledger.next_id(round_number + 1)
    for answer in project.ledger.current_answers():
        if answer.kind is AnswerKind.MISSED and answer.drawing is not None:
            added = Candidate(next_id, 0, *answer.drawing, score=math.nan)
            result.append(_object(added, added.box, added.mask, answer=answer, people=[answer.annotator]))
            next_id += 1
    return result


def _object(
    candidate: Candidate,
    box: Box,
    mask: np.ndarray,
    query: Query | None = None,
    answer: Answer | None = None,
    people: Sequence[str] = (),
) -> tuple[int, Box, np.ndarray, dict[str, Any]]:
    """One object with its row of ``objects.csv``.

    Its origin is the kind of answer that counts; "disputed" if its annotators disagree about ``y`` or the kind; "model"
    if nobody has answered, or nobody was sure.
    """
    row = {
        "id": candidate.id,
        "box": str(box),
        "num_voxels": int(np.count_nonzero(mask)),
        "score": candidate.score,
        "origin": str(answer.kind) if answer else "disputed" if query else "model",
        "asked_by": query.strategy if query else "",
        "asked_in_round": query.round if query else "",
        "answered_by": ", ".join(dict.fromkeys(people)) if answer or query else "",
    }
    return candidate.id, box, mask, row


def _dataset_facts(project: Project, round_number: int, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Content of ``dataset.json``."""
    metrics = project.ledger.scores().get(round_number, {})
    scores = metrics.get("scores", {})
    answered = sum(row["origin"] != "model" for row in rows)
    return {
        "task": project.config.task,
        "value": "id" if TASKS[project.config.task].num_sides == 1 else "presynaptic 2*id-1, postsynaptic 2*id",
        "voxel_size_nm_zyx": list(project.image.voxel_size_nm),
        "round": round_number,
        "num_objects": len(rows),
        "num_answered": answered,
        "num_model_only": len(rows) - answered,
        "estimated_precision_from_audits": metrics.get("audit"),
        "measured_on_test_box": {k: scores.get(k) for k in ("candidate_accuracy", "candidate_recall")}
        if scores
        else None,
    }
