"""``answers.jsonl``: a second copy of every answer, one line each, appended as soon as the answer is in the ledger.

The loop never reads it; ``twostream repair`` restores answers from it. A line that could not be written (a full disk, a
kill between the two) is added together with the next answer, because each time all answers are appended that are newer
than the last line.

Knows answers and lines of JSON; must not know how the ledger stores them.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.table import pack_mask, unpack_mask
from twostream.project.records import Answer
from twostream.task.answers import MEANING, answer_kind

ANSWERS_NAME = "answers.jsonl"
BLOCK = 1 << 16
"""Bytes that are read at once while the last line is looked for."""


def pack_drawing(box: Box, mask: np.ndarray) -> dict[str, str]:
    """A drawn mask, (Z, Y, X) uint8 over ``box``, as values of JSON: ``mask`` is zlib in base64."""
    return {"box": str(box), "mask": base64.b64encode(pack_mask(mask)).decode()}


def unpack_drawing(drawn: Mapping[str, str]) -> tuple[Box, np.ndarray]:
    """Box and mask from the values of ``pack_drawing``.

    Raises:
        Exception: of any kind, if they are not such values.
    """
    box = Box.parse(drawn["box"])
    return box, unpack_mask(base64.b64decode(drawn["mask"], validate=True), box)


@dataclass(frozen=True)
class LoggedAnswer:
    """A line of the file.

    Attributes:
        answer: the answer, with the id, time, candidate and round that the ledger gave it.
        project: id of the project.
    """

    answer: Answer
    project: str

    def row(self) -> dict[str, Any]:
        """The answer as plain values, {column: value}; the columns are explained in ``docs/answers.md``."""
        a = self.answer
        return {
            "answer": a.id,
            "query": a.query,
            "candidate": a.candidate,
            "round": a.round,
            "kind": str(a.kind),
            "annotator": a.annotator,
            "reason": a.reason,
            "seconds": a.seconds,
            "time": a.answered_at,
            "supersedes": a.supersedes,
            "adjudicates": a.adjudicates,
            "key": a.key,
            "window": a.window,
            "drawing": None if a.drawing is None else pack_drawing(*a.drawing),
            "project": self.project,
            "volume": a.volume,
            "task": a.task,
        }

    def line(self) -> bytes:
        """The line, with its newline at the end."""
        return (json.dumps(self.row()) + "\n").encode()

    @classmethod
    def parse(cls, line: bytes) -> LoggedAnswer | None:
        """The answer in a line; None if the line is not whole, or is none of ours."""
        try:
            row = json.loads(line)
            drawing = unpack_drawing(row["drawing"]) if row["drawing"] else None
            names = ("query", "candidate", "round", "annotator", "reason", "seconds", "supersedes", "adjudicates")
            fields: dict[str, Any] = {name: row[name] for name in (*names, "volume", "task")}
            fields["key"] = str(row.get("key", ""))  # lines of older versions have none
            fields["window"] = row.get("window")
            times: dict[str, Any] = {"id": int(row["answer"]), "answered_at": str(row["time"])}
            kind, project = str(row["kind"]), str(row["project"])
        except Exception:  # a torn line can be anything
            return None
        # A kind of a package that is not loaded stays as it is written; it is refused where it is restored.
        return cls(
            Answer(kind=answer_kind(kind) if kind in MEANING else kind, drawing=drawing, **fields, **times), project
        )


class AnswerLog:
    """The file at ``path``. Threads and processes that append wait for each other, so lines are never interleaved.

    Args:
        path: ``answers.jsonl``; made with the first answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: tuple[int, LoggedAnswer | None] = (0, None)  # size of the file, and its last answer

    def last(self) -> LoggedAnswer | None:
        """The answer in the last whole line; None if there is none.

        Raises:
            OSError: the file cannot be read.
        """
        known = self._known
        try:
            if self.path.stat().st_size == known[0]:
                return known[1]
            with open(self.path, "rb") as handle:
                return self._last(handle.fileno())
        except FileNotFoundError:
            return None

    def answers(self) -> tuple[list[LoggedAnswer], int]:
        """All answers, and how many lines are none because they are torn or were written by somebody else.

        Raises:
            OSError: the file cannot be read.
        """
        if not self.path.exists():
            return [], 0
        lines = [line for line in self.path.read_bytes().split(b"\n") if line.strip()]
        found = [LoggedAnswer.parse(line) for line in lines]
        return [one for one in found if one is not None], sum(one is None for one in found)

    def append(self, newer_than: Callable[[int], Sequence[LoggedAnswer]]) -> None:
        """Append the answers that the file lacks.

        Args:
            newer_than: returns all answers of the ledger whose id is above the one it is given, sorted by id.

        Raises:
            OSError: the file cannot be written. Nothing is lost: the answers are appended with the next one.
        """
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            last = self._last(handle)
            missing = newer_than(last.answer.id if last else 0)
            if not missing:
                return
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            rest = memoryview((b"\n" if torn else b"") + b"".join(one.line() for one in missing))
            while rest:
                rest = rest[os.write(handle, rest) :]
            self._known = os.fstat(handle).st_size, missing[-1]
        finally:
            os.close(handle)

    def _last(self, handle: int) -> LoggedAnswer | None:
        """The answer in the last whole line of an open file."""
        size = os.fstat(handle).st_size
        if size != self._known[0]:
            found = (one for line in _backwards(handle, size) if (one := LoggedAnswer.parse(line)) is not None)
            self._known = size, next(found, None)
        return self._known[1]


def _backwards(handle: int, size: int) -> Iterator[bytes]:
    """Lines of an open file, the last one first."""
    rest, start = b"", size
    while start > 0:
        num = min(BLOCK, start)
        start -= num
        first, *whole = (os.pread(handle, num, start) + rest).split(b"\n")
        yield from reversed(whole)
        rest = first
    yield rest
