"""What leaves a project as files and comes back: queries, answers, candidates, the curated data set.

Knows the ledger, tables and volumes; must not import torch. Exports are written, never read back by the loop;
answers come in through ``Ledger.tell`` like anybody's.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from twostream.base.atomic import write_folder, write_jsonl, write_text
from twostream.base.errors import InputError, ProjectError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, from_table, read_table
from twostream.project.ledger import Answer, Query
from twostream.project.project import Project
from twostream.task import TASKS
from twostream.task.answers import MEANING, AnswerKind
from twostream.volume import create_volume, open_volume

FORMATS = {
    "answers": ("csv", "jsonl"),
    "queries": ("csv", "jsonl"),
    "candidates": ("csv", "jsonl", "parquet"),
    "segmentation": ("zarr", "hdf5"),
    "dataset": ("zarr",),
}
ANSWERABLE = tuple(kind.value for kind in AnswerKind if MEANING[kind].teaches != "drawn")
"""Kinds that a table can carry; the others need a drawn mask."""


def query_row(query: Query) -> dict[str, Any]:
    """A query as plain values; positions in voxels of the image."""
    z, y, x = query.candidate.center_zyx.tolist()
    return {
        "query": query.id,
        "round": query.round,
        "candidate": query.candidate.id,
        "strategy": query.strategy,
        "audit": query.is_audit,
        "center_z": round(z, 1),
        "center_y": round(y, 1),
        "center_x": round(x, 1),
        "box": str(query.candidate.box),
        "score": round(query.candidate.score, 4),
        "reason": query.reason,
    }


def answer_row(answer: Answer) -> dict[str, Any]:
    """An answer as plain values."""
    return {
        "answer": answer.id,
        "round": answer.round,
        "query": answer.query,
        "candidate": answer.candidate,
        "kind": answer.kind.value,
        "annotator": answer.annotator,
        "reason": answer.reason,
        "drawing": str(answer.drawing[0]) if answer.drawing else None,
        "seconds": answer.seconds,
        "answered_at": answer.answered_at,
        "supersedes": answer.supersedes,
        "adjudicates": answer.adjudicates,
    }


def source_ids(project: Project) -> dict[int, Any]:
    """{candidate id: what the source calls it}; empty where the source names nothing, or S proposes."""
    result: dict[int, Any] = {}
    source = project.config.source
    if source is None or not source.brings_instances:
        return result
    for number, step in project.ledger.finished_steps():
        if step == "propose":
            table = read_table(project.path(number, "candidates.parquet"), ["id", "source_id"]).to_pydict()
            result |= dict(zip(table["id"], table["source_id"], strict=True))
    return result


def with_source_ids(project: Project, rows: list[dict[str, Any]], key: str = "candidate") -> list[dict[str, Any]]:
    """Rows with a column ``source_id`` behind ``key``, where the source names what it proposed."""
    names = source_ids(project)
    if not names:
        return rows
    return [
        {k: v for name, value in row.items() for k, v in _named(name, value, key, names.get(row[key]))} for row in rows
    ]


def _named(name: str, value: Any, key: str, source_id: Any) -> list[tuple[str, Any]]:
    return [(name, value), ("source_id", source_id)] if name == key else [(name, value)]


def export_queries(project: Project, number: int) -> None:
    """queries.jsonl of a round."""
    rows = with_source_ids(project, [query_row(q) for q in project.ledger.queries(number)])
    write_jsonl(project.path(number, "queries.jsonl"), rows)


def export_answers(project: Project, number: int) -> None:
    """answers.jsonl of a round."""
    rows = [answer_row(a) for a in project.ledger.all_answers() if a.round == number]
    write_jsonl(project.path(number, "answers.jsonl"), with_source_ids(project, rows))


def read_answers(project: Project, path: Path, annotator: str) -> int:
    """Record answers from a CSV with columns ``query`` and ``kind``, optional ``reason`` and ``seconds``.

    Rows without a kind are left open. All rows are checked before the first is recorded.

    Returns:
        How many answers were recorded.

    Raises:
        InputError: no such file, no such column, an unknown kind or a query that is not open.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}.") from None
    if rows and not {"query", "kind"} <= set(rows[0]):
        raise InputError(f"{path} has the columns {', '.join(map(str, rows[0]))}; expected query and kind among them.")
    waiting = {query.id for query in project.ledger.open_queries()}
    answers: dict[int, Answer] = {}
    for line, row in enumerate(rows, start=2):
        kind = (row["kind"] or "").strip().lower()
        if not kind:
            continue
        if kind not in ANSWERABLE:
            raise InputError(f"{path}, line {line}: kind is {kind!r}; expected one of {', '.join(ANSWERABLE)}.")
        try:
            number, seconds = int(row["query"]), float(row.get("seconds") or 0)
        except (TypeError, ValueError):
            raise InputError(f"{path}, line {line}: query and seconds must be numbers.") from None
        if number not in waiting or number in answers:
            raise InputError(f"{path}, line {line}: query {number} is not open (never asked, or answered already).")
        if not math.isfinite(seconds) or seconds < 0:
            raise InputError(f"{path}, line {line}: seconds is {seconds}; expected a time of at least 0.")
        answers[number] = Answer(number, AnswerKind(kind), annotator, reason=row.get("reason") or "", seconds=seconds)
    return len(project.ledger.tell_all(list(answers.values())))


def export(project: Project, what: str, output: Path, format_: str | None) -> str:
    """Write ``what`` to ``output``; see ``FORMATS``.

    Returns:
        One line that says what was written.

    Raises:
        InputError: no such export or format, or the output exists.
        ProjectError: there is nothing to export yet.
    """
    if what not in FORMATS:
        raise InputError(f"--what is {what!r}; expected one of {', '.join(FORMATS)}.")
    chosen = format_ or _format_of(output, FORMATS[what])
    if chosen not in FORMATS[what]:
        raise InputError(f"--format is {chosen!r}; {what} can be written as {', '.join(FORMATS[what])}.")
    if output.exists():
        raise InputError(f"{output} exists already; remove it or choose another path.")
    output.parent.mkdir(parents=True, exist_ok=True)
    if what == "segmentation":
        return _export_segmentation(project, output, chosen)
    if what == "dataset":
        return _export_dataset(project, output)
    rows = _rows(project, what)
    _write_rows(rows, output, chosen)
    return f"{len(rows)} {what} written to {output}"


def latest_round(project: Project, step: str) -> int:
    """The latest round in which ``step`` is done.

    Raises:
        ProjectError: in none.
    """
    rounds = [number for number, name in project.ledger.finished_steps() if name == step]
    if not rounds:
        raise ProjectError(f"{project.root} has not come to {step!r} yet; run `twostream run {project.root}` first.")
    return max(rounds)


def _format_of(output: Path, formats: Sequence[str]) -> str:
    suffix = {"h5": "hdf5"}.get(output.suffix.lstrip("."), output.suffix.lstrip("."))
    return suffix if suffix in formats else formats[0]


def _rows(project: Project, what: str) -> list[dict[str, Any]]:
    if what == "answers":
        return with_source_ids(project, [answer_row(answer) for answer in project.ledger.all_answers()])
    if what == "queries":
        rows = [query_row(query) | {"kind": "", "seconds": ""} for query in project.ledger.open_queries()]
        return with_source_ids(project, rows)
    number = latest_round(project, "propose")
    table = read_table(project.path(number, "candidates.parquet"))
    return table.drop_columns(["mask"]).to_pylist()


def _write_rows(rows: list[dict[str, Any]], output: Path, format_: str) -> None:
    if format_ == "jsonl":
        write_jsonl(output, rows)
        return
    flat = [{k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in row.items()} for row in rows]
    partial = output.with_name(output.name + ".partial")
    if format_ == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), partial)
    else:
        with open(partial, "w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(flat[0]) if flat else ["query", "kind"])
            writer.writeheader()
            writer.writerows(flat)
    os.replace(partial, output)


def _export_segmentation(project: Project, output: Path, format_: str) -> str:
    number = latest_round(project, "propose")
    volume = open_volume(str(project.path(number, "segmentation.zarr")))
    if format_ == "zarr":
        write_folder(output, lambda path: shutil.copytree(project.path(number, "segmentation.zarr"), path))
    else:
        partial = output.with_name(output.name + ".partial")
        with h5py.File(partial, "w") as file:
            dataset = file.create_dataset("main", data=volume.read(volume.box), compression="gzip", chunks=True)
            dataset.attrs["voxel_size_nm"] = volume.voxel_size_nm
        os.replace(partial, output)
    return f"segmentation of round {number} written to {output} (label = column `label` of the candidates)"


def _export_dataset(project: Project, output: Path) -> str:
    """The curated data set: segmentation.zarr (value = id; polarity 2*id-1 and 2*id), objects.csv, dataset.json."""
    number = latest_round(project, "propose")
    objects = curated_objects(project, number)

    def fill(path: Path) -> None:
        path.mkdir(parents=True)
        shape, size = project.image.shape_zyx, project.image.voxel_size_nm
        volume = create_volume(str(path / "segmentation.zarr"), shape_zyx=shape, dtype=np.uint64, voxel_size_nm=size)
        for identity, box, mask, _ in objects:
            values = volume.read(box)
            painted = mask.astype(np.uint64)
            value = np.uint64(identity)
            labels = painted * value if project.task.num_sides == 1 else np.uint64(2) * value - (np.uint64(2) - painted)
            volume.write(box, np.where(mask > 0, labels, values))
        rows = []
        for identity, box, _, row in objects:
            # Later objects are painted over earlier ones: what an answer has replaced is gone, and is not listed.
            left = int((project.task.instances(volume.read(box)) == identity).sum())
            if left:
                rows.append(row | {"num_voxels": left})
        rows = with_source_ids(project, rows, key="id")
        _write_rows(rows, path / "objects.csv", "csv")
        write_text(path / "dataset.json", json.dumps(_dataset_facts(project, number, rows), indent=1) + "\n")

    write_folder(output, fill)
    return f"curated data set written to {output}"


def curated_objects(project: Project, number: int) -> list[tuple[int, Box, np.ndarray, dict[str, Any]]]:
    """Objects of the curated data set, in the order in which they are painted: answered ones last, on top.

    False ones are gone, true ones stand as they were asked, corrections as they were drawn; the unanswered are S's.

    Returns:
        (id, box, mask (Z, Y, X) uint8, provenance row) for each. Added objects get ids above all candidates'.
    """
    verdicts = project.ledger.pool()
    queries = {query.candidate.id: query for query in project.ledger.queries()}
    result = []
    for candidate in from_table(read_table(project.path(number, "candidates.parquet"))):
        verdict = verdicts.get(candidate.id)
        if verdict is None or verdict.kind in (None, AnswerKind.UNSURE, AnswerKind.SKIPPED):
            result.append(_object(candidate, candidate.box, candidate.mask, None, None))
    for identity, query in sorted(queries.items()):
        kind, candidate = verdicts[identity].kind, query.candidate
        box, mask = candidate.box, candidate.mask
        if kind is AnswerKind.SWAPPED:
            mask = np.where(mask > 0, 3 - mask, 0).astype(np.uint8)
        elif kind is AnswerKind.CORRECTED:
            answer = verdicts[identity].answer
            assert answer is not None and answer.drawing is not None
            box, mask = answer.drawing
        elif kind is not AnswerKind.TRUE:
            continue
        result.append(_object(candidate, box, mask, query, verdicts[identity].answer))
    next_id = project.ledger.next_id(number + 1)
    for answer in project.ledger.current_answers():
        if answer.kind is AnswerKind.MISSED and answer.drawing is not None:
            added = Candidate(next_id, 0, *answer.drawing, score=math.nan)
            result.append(_object(added, added.box, added.mask, None, answer))
            next_id += 1
    return result


def _object(
    candidate: Candidate, box: Box, mask: np.ndarray, query: Query | None, answer: Answer | None
) -> tuple[int, Box, np.ndarray, dict[str, Any]]:
    row = {
        "id": candidate.id,
        "box": str(box),
        "num_voxels": int(np.count_nonzero(mask)),
        "score": candidate.score,
        "origin": answer.kind.value if answer else "model",
        "asked_by": query.strategy if query else "",
        "asked_in_round": query.round if query else "",
        "answered_by": answer.annotator if answer else "",
    }
    return candidate.id, box, mask, row


def _dataset_facts(project: Project, number: int, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    metrics = project.ledger.scores().get(number, {})
    scores = metrics.get("scores", {})
    answered = sum(row["origin"] != "model" for row in rows)
    facts = {
        "task": project.config.task,
        "value": "id" if TASKS[project.config.task].num_sides == 1 else "presynaptic 2*id-1, postsynaptic 2*id",
        "voxel_size_nm_zyx": list(project.image.voxel_size_nm),
        "round": number,
        "num_objects": len(rows),
        "num_answered": answered,
        "num_model_only": len(rows) - answered,
        "estimated_precision_from_audits": metrics.get("audit"),
        "measured_on_test_box": {k: scores.get(k) for k in ("candidate_accuracy", "candidate_recall")}
        if scores
        else None,
    }
    return facts
