"""Tables of queries, answers and candidates: their rows, and how they are written.

The loop never reads the tables that it writes. ``answer_tables`` reads the answers that people have filled in.

Knows the ledger and tables; must not import torch.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from twostream.base.atomic import write_jsonl
from twostream.base.errors import ProjectError
from twostream.candidates.table import read_table
from twostream.project.answer_log import LoggedAnswer
from twostream.project.project import Project
from twostream.project.records import Answer, Query, Window

ANSWER_COLUMNS = (
    "project",
    "volume",
    "task",
    "answer",
    "round",
    "query",
    "candidate",
    "box",
    "kind",
    "annotator",
    "reason",
    "seconds",
    "time",
    "supersedes",
    "adjudicates",
    "key",
    "window",
    "window_box",
    "drawing",
)
"""Columns of exported answers; where a source brings the instances, ``source_id`` follows ``candidate``."""


def query_row(query: Query) -> dict[str, Any]:
    """A query as plain values: {column: value}. Positions are in voxels of the image.

    The column is not called ``reason``, because that is what an annotator says.
    """
    z, y, x = query.candidate.center_zyx.tolist()
    return {
        "query": query.id,
        "about": "candidate",
        "round": query.round,
        "candidate": query.candidate.id,
        "strategy": query.strategy,
        "audit": query.is_audit,
        "center_z": round(z, 1),
        "center_y": round(y, 1),
        "center_x": round(x, 1),
        "box": str(query.candidate.box),
        "score": round(query.candidate.score, 4),
        "asked_because": query.reason,
    }


def window_row(window: Window) -> dict[str, Any]:
    """A window as plain values, with the columns of ``query_row``."""
    z, y, x = ((a + b - 1) / 2 for a, b in zip(window.box.offset_zyx, window.box.stop_zyx, strict=True))
    return {
        "query": window.id,
        "about": "window",
        "round": window.round,
        "candidate": None,
        "strategy": window.strategy,
        "audit": False,
        "center_z": round(z, 1),
        "center_y": round(y, 1),
        "center_x": round(x, 1),
        "box": str(window.box),
        "score": None,
        "asked_because": window.reason,
    }


def answer_rows(
    project: Project, answers: Sequence[Answer], queries: Sequence[Query], windows: Sequence[Window]
) -> list[dict[str, Any]]:
    """Answers as plain values, {column: value}; the columns are explained in ``docs/answers.md``.

    Args:
        project: the project.
        answers: of which each makes a row.
        queries: among them those that the answers are about.
        windows: among them those that the answers are about.
    """
    searched = {window.id: str(window.box) for window in windows}
    boxes = {query.id: str(query.candidate.box) for query in queries} | searched
    rows = []
    for answer in answers:
        values = LoggedAnswer(answer, project.id).row()
        values["box"] = (
            str(answer.drawing[0]) if answer.query is None and answer.drawing else boxes.get(answer.query or 0)
        )
        values["window_box"] = None if answer.window is None else searched[answer.window]
        rows.append({name: values[name] for name in ANSWER_COLUMNS})
    return with_source_ids(project, rows)


def source_ids(project: Project) -> dict[int, Any]:
    """{candidate id: its id in the source}; empty unless a source brings the instances."""
    result: dict[int, Any] = {}
    source = project.config.source
    if source is None or not source.brings_instances:
        return result
    for round_number, step in project.ledger.finished_steps():
        if step == "propose":
            table = read_table(project.path(round_number, "candidates.parquet"), ["id", "source_id"]).to_pydict()
            result |= dict(zip(table["id"], table["source_id"], strict=True))
    return result


def with_source_ids(project: Project, rows: list[dict[str, Any]], key: str = "candidate") -> list[dict[str, Any]]:
    """Rows with a further column ``source_id`` after the column ``key``, if a source brings the instances.

    Args:
        project: the project.
        rows: rows of a table.
        key: name of the column that holds the candidate's id.
    """
    ids = source_ids(project)
    if not ids:
        return rows
    result = []
    for row in rows:
        columns: dict[str, Any] = {}
        for name, value in row.items():
            columns[name] = value
            if name == key:
                columns["source_id"] = ids.get(value)
        result.append(columns)
    return result


def with_project(project: Project, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the project's id in a first column ``project``; a table that comes back is checked by it."""
    identity = project.id
    return [{"project": identity} | row for row in rows]


def export_queries(project: Project, round_number: int) -> None:
    """Write ``queries.jsonl`` of a round."""
    rows = with_source_ids(project, [query_row(q) for q in project.ledger.queries(round_number)])
    rows += [window_row(window) for window in project.ledger.windows(round_number)]
    write_jsonl(project.path(round_number, "queries.jsonl"), with_project(project, rows))


def export_answers(project: Project, round_number: int) -> None:
    """Write ``answers.jsonl`` of a round."""
    answers = [answer for answer in project.ledger.all_answers() if answer.round == round_number]
    ledger = project.ledger
    rows = answer_rows(project, answers, ledger.queries(round_number), ledger.windows(round_number))
    write_jsonl(project.path(round_number, "answers.jsonl"), rows)


def latest_round(project: Project, step: str) -> int:
    """The newest round in which ``step`` is done.

    Raises:
        ProjectError: it is done in none.
    """
    rounds = [round_number for round_number, name in project.ledger.finished_steps() if name == step]
    if not rounds:
        raise ProjectError(f"{project.root} has not done the step {step} yet; run `{project.command('run')}` first.")
    return max(rounds)


def write_rows(
    rows: list[dict[str, Any]], output: Path, format_: str, columns: Sequence[str] = ("query", "kind")
) -> None:
    """Write a table.

    Args:
        rows: {column: value} of each row.
        output: file to write.
        format_: "csv", "jsonl" or "parquet". In CSV lists and mappings are written as JSON, in Parquet
            mappings.
        columns: names of the columns, for a table without rows.
    """
    if format_ == "jsonl":
        write_jsonl(output, rows)
        return
    flat = [{k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in row.items()} for row in rows]
    partial = output.with_name(output.name + ".partial")
    if format_ == "parquet":
        # Mappings with other keys in each row have no common type, an empty one has none at all.
        typed = [{k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.items()} for row in rows]
        pa.parquet.write_table(pa.Table.from_pylist(typed) if typed else pa.table({c: [] for c in columns}), partial)
    else:
        with open(partial, "w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(flat[0]) if flat else list(columns))
            writer.writeheader()
            writer.writerows(flat)
    os.replace(partial, output)
