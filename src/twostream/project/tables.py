"""Tables of queries and answers: how they are written, and how answers are read from a CSV.

The loop never reads the tables that it writes. Answers from a CSV go through ``Ledger.tell_all``, like all others.

Knows the ledger and tables; must not import torch.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from twostream.base.atomic import write_jsonl
from twostream.base.errors import InputError, ProjectError
from twostream.candidates.table import read_table
from twostream.project.project import Project
from twostream.project.records import Answer, Query
from twostream.task.answers import MEANING, answer_kind


def answerable() -> list[str]:
    """Kinds of answers that a table can hold; the others need a drawn mask."""
    return [str(kind) for kind, meaning in MEANING.items() if meaning.teaches != "drawn"]


def query_row(query: Query) -> dict[str, Any]:
    """A query as plain values: {column: value}. Positions are in voxels of the image."""
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
    """An answer as plain values: {column: value}."""
    return {
        "answer": answer.id,
        "round": answer.round,
        "query": answer.query,
        "candidate": answer.candidate,
        "kind": str(answer.kind),
        "annotator": answer.annotator,
        "reason": answer.reason,
        "drawing": str(answer.drawing[0]) if answer.drawing else None,
        "seconds": answer.seconds,
        "answered_at": answer.answered_at,
        "supersedes": answer.supersedes,
        "adjudicates": answer.adjudicates,
    }


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


def export_queries(project: Project, round_number: int) -> None:
    """Write ``queries.jsonl`` of a round."""
    rows = with_source_ids(project, [query_row(q) for q in project.ledger.queries(round_number)])
    write_jsonl(project.path(round_number, "queries.jsonl"), rows)


def export_answers(project: Project, round_number: int) -> None:
    """Write ``answers.jsonl`` of a round."""
    rows = [answer_row(a) for a in project.ledger.all_answers() if a.round == round_number]
    write_jsonl(project.path(round_number, "answers.jsonl"), with_source_ids(project, rows))


def read_answers(project: Project, path: Path, annotator: str) -> int:
    """Record the answers of a CSV with the columns ``query`` and ``kind``, and optionally ``reason`` and ``seconds``.

    Rows without a kind leave their query open. Either all answers are recorded or, after an error, none. Several people
    may answer the queries of the newest round, each of them once.

    Args:
        project: the project.
        path: the CSV.
        annotator: name of the person who answered.

    Returns:
        The number of answers recorded.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds an unknown kind, a bad number, or a query that is
            not one of the newest round or that this annotator has answered.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}.") from None
    if rows and not {"query", "kind"} <= set(rows[0]):
        raise InputError(f"{path} has the columns {', '.join(map(str, rows[0]))}; expected query and kind among them.")
    queries = project.ledger.queries()
    newest = max((query.round for query in queries), default=0)
    answered = {answer.query for answer in project.ledger.current_answers() if answer.annotator == annotator}
    waiting = {query.id for query in queries if query.round == newest} - answered
    answers: dict[int, Answer] = {}
    for line, row in enumerate(rows, start=2):
        kind = (row["kind"] or "").strip().lower()
        if not kind:
            continue
        if kind not in answerable():
            raise InputError(f"{path}, line {line}: kind is {kind!r}; expected one of {', '.join(answerable())}.")
        try:
            query_id, seconds = int(row["query"]), float(row.get("seconds") or 0)
        except (TypeError, ValueError):
            raise InputError(f"{path}, line {line}: query and seconds must be numbers.") from None
        if query_id not in waiting or query_id in answers:
            raise InputError(
                f"{path}, line {line}: query {query_id} is not open for {annotator} (never asked, of an earlier "
                f"round, or answered already)."
            )
        if not math.isfinite(seconds) or seconds < 0:
            raise InputError(f"{path}, line {line}: seconds is {seconds}; expected a time of at least 0.")
        answers[query_id] = Answer(
            query_id, answer_kind(kind), annotator, reason=row.get("reason") or "", seconds=seconds
        )
    return len(project.ledger.tell_all(list(answers.values())))


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
