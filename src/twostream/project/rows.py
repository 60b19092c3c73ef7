"""Rows of the ledger's tables, turned into queries and answers and back.

Knows the columns of ``database.py`` and the values of ``records.py``; must not know which rows are asked for.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.candidates.table import pack_mask, unpack_mask
from twostream.project.records import Answer, Query, QueryLine, Window
from twostream.task.answers import RETRACTED, answer_kind

ANSWERS = (
    "SELECT answer.*, drawing.box AS drawn_box, drawing.mask AS drawn_mask "
    "FROM answer LEFT JOIN drawing ON drawing.id = answer.drawing"
)
PLAIN = (
    "id, query, candidate, round, kind, annotator, reason, seconds, answered_at, supersedes, adjudicates, volume, "
    "task, key, window"
)
"""Columns of an answer without its drawing."""
CURRENT = (
    f"answer.kind != '{RETRACTED}' AND NOT EXISTS (SELECT 1 FROM answer AS later WHERE later.supersedes = answer.id)"
)


def query_values(query: Query) -> dict[str, Any]:
    """Columns of a query: {name: value}, without its round, position, task and time."""
    candidate, patch = query.candidate, query.patch
    return {
        "candidate": candidate.id,
        "strategy": query.strategy,
        "is_audit": int(query.is_audit),
        "reason": json.dumps(query.reason),
        "label": candidate.label,
        "box": str(candidate.box),
        "mask": pack_mask(candidate.mask),
        "score": candidate.score,
        "width_px": patch.image.shape[-1],
        "image_patch": patch.image.tobytes(),
        "mask_patch": patch.mask.tobytes(),
        "angle_deg": patch.angle_deg,
        "section": patch.section,
        "padded": patch.padded,
        "volume": query.volume,
    }


def window_values(window: Window) -> dict[str, Any]:
    """Columns of a window: {name: value}, without its round, position, task and time."""
    return {
        "candidate": None,
        "inclusion": window.inclusion,
        "strategy": window.strategy,
        "is_audit": 0,
        "reason": json.dumps(window.reason),
        "box": str(window.box),
        "volume": window.volume,
    }


def window_of(row: sqlite3.Row) -> Window:
    """The window of a row of ``query`` without a candidate."""
    reason = json.loads(row["reason"])
    box, inclusion = Box.parse(row["box"]), row["inclusion"]
    return Window(box, inclusion, row["strategy"], reason, row["volume"], row["task"], row["id"], row["round"])


def query_of(row: sqlite3.Row) -> Query:
    """The query of a row of ``query`` with a candidate."""
    box = Box.parse(row["box"])
    candidate = Candidate(row["candidate"], row["label"], box, unpack_mask(row["mask"], box), row["score"])
    shape = (-1, row["width_px"], row["width_px"])  # NumPy infers the number of planes from the length
    patch = PatchPair(
        image=np.frombuffer(row["image_patch"], np.uint8).reshape(shape),
        mask=np.frombuffer(row["mask_patch"], np.int8).reshape(shape),
        angle_deg=row["angle_deg"],
        section=row["section"],
        padded=row["padded"],
    )
    return Query(
        candidate,
        patch,
        row["strategy"],
        json.loads(row["reason"]),
        bool(row["is_audit"]),
        row["volume"],
        row["task"],
        row["id"],
        row["round"],
    )


def line_of(row: sqlite3.Row) -> QueryLine:
    """The query of a row of ``query``, in short."""
    reason = json.loads(row["reason"])
    return QueryLine(row["id"], row["candidate"], row["strategy"], reason, bool(row["is_audit"]), row["score"])


def answer_of(row: sqlite3.Row) -> Answer:
    """The answer of a row of ``answer``, joined with what was drawn (``drawn_box``, ``drawn_mask``)."""
    drawing = None
    if row["drawing"] is not None:
        box = Box.parse(row["drawn_box"])
        drawing = box, unpack_mask(row["drawn_mask"], box)
    return Answer(
        query=row["query"],
        kind=RETRACTED if row["kind"] == RETRACTED else answer_kind(row["kind"]),
        annotator=row["annotator"],
        reason=row["reason"],
        drawing=drawing,
        seconds=row["seconds"],
        supersedes=row["supersedes"],
        adjudicates=bool(row["adjudicates"]),
        volume=row["volume"],
        task=row["task"],
        key=row["key"] or "",
        window=row["window"],
        id=row["id"],
        answered_at=row["answered_at"],
        candidate=row["candidate"],
        round=row["round"],
    )
