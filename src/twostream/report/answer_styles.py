"""How answers look: the words, the sign and the marker of each, the same on cards, in legends and in plots.

Knows kinds of answers and the ledger's records of them; must not know projects or pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twostream.project.records import Answer
from twostream.task.answers import AnswerKind


@dataclass(frozen=True)
class AnswerStyle:
    """How one kind of answer is shown.

    Attributes:
        text: the answer in words.
        glyph: a sign beside the words, so that the answer can be told without its colour.
        marker: matplotlib's marker of the same shape.
    """

    text: str
    glyph: str
    marker: str


ANSWER_STYLES = {
    "true": AnswerStyle("true", "▲", "^"),
    "nothing": AnswerStyle("nothing there", "✖", "X"),
    "shape": AnswerStyle("wrong shape", "◆", "D"),
    "swapped": AnswerStyle("sides swapped", "■", "s"),
    "corrected": AnswerStyle("corrected", "✚", "P"),
    "missed": AnswerStyle("missed object", "●", "o"),
    "unsure": AnswerStyle("unsure", "▼", "v"),
    "skipped": AnswerStyle("skipped", "◀", "<"),
    "disagree": AnswerStyle("annotators disagree", "▶", ">"),
    "open": AnswerStyle("not answered yet", "★", "*"),
}
"""Every kind of answer, and what a query can be without one that counts: "disagree" and "open"."""


def style_name(answers: Sequence[Answer]) -> str:
    """The key in ``ANSWER_STYLES`` under which a query with these answers is shown."""
    if not answers:
        return "open"
    settled = [a for a in answers if a.adjudicates]
    kinds = {settled[-1].kind} if settled else {a.kind for a in answers}
    kinds = kinds - {AnswerKind.SKIPPED} or kinds
    return str(kinds.pop()) if len(kinds) == 1 else "disagree"


def answers_by_query(answers: Iterable[Answer]) -> dict[int, list[Answer]]:
    """Group answers by query; answers without a query (missed objects) are left out.

    Args:
        answers: oldest first.

    Returns:
        {query id: its answers, oldest first}.
    """
    result: dict[int, list[Answer]] = {}
    for answer in answers:
        if answer.query is not None:
            result.setdefault(answer.query, []).append(answer)
    return result
