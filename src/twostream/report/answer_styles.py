"""How answers look: the words, the sign and the marker of each, the same on cards, in legends and in plots.

Knows kinds of answers and the ledger's records of them; must not know projects or pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twostream.project.records import Answer, adjudicate
from twostream.task.answers import MEANING


@dataclass(frozen=True)
class AnswerStyle:
    """How one kind of answer is shown.

    Attributes:
        text: the answer in words.
        glyph: a sign beside the words, so that the answer can be told without its colour.
        marker: matplotlib's marker of the same shape.
        colour: name of the colour; the style sheet holds it as the variable ``--answer-NAME``.
    """

    text: str
    glyph: str
    marker: str
    colour: str


_STYLES = {
    "true": AnswerStyle("true", "▲", "^", "true"),
    "nothing": AnswerStyle("nothing there", "✖", "X", "nothing"),
    "shape": AnswerStyle("wrong shape", "◆", "D", "shape"),
    "swapped": AnswerStyle("sides swapped", "■", "s", "swapped"),
    "corrected": AnswerStyle("corrected", "✚", "P", "corrected"),
    "missed": AnswerStyle("missed object", "●", "o", "missed"),
    "none_missed": AnswerStyle("nothing missed", "○", "h", "missed"),
    "unsure": AnswerStyle("unsure", "▼", "v", "unsure"),
    "skipped": AnswerStyle("skipped", "◀", "<", "skipped"),
    "disagree": AnswerStyle("annotators disagree", "▶", ">", "disagree"),
    "open": AnswerStyle("not answered yet", "★", "*", "open"),
}
"""The built-in kinds of answers, and the two states of a query without an answer that counts: "disagree" and "open"."""
OTHER_COLOUR = "other"
"""Colour of the kinds of answers that other packages have registered."""
ANSWER_COLOURS = (*dict.fromkeys(style.colour for style in _STYLES.values()), OTHER_COLOUR)
"""Names of all colours of answers."""


def answer_styles() -> dict[str, AnswerStyle]:
    """{name: style} of everything that a query can be shown as.

    Kinds of answers that another package has registered come last, under their own names; they share one sign and one
    colour.
    """
    registered = [str(kind) for kind in MEANING if kind not in _STYLES]
    return _STYLES | {kind: AnswerStyle(kind, "◈", "d", OTHER_COLOUR) for kind in registered}


def style_name(answers: Sequence[Answer]) -> str:
    """The key in ``answer_styles()`` under which a query is shown.

    Args:
        answers: its current answers, oldest first.

    Returns:
        The kind of answer that counts (see ``adjudicate``), or "disagree", or "open" without an answer.
    """
    if not answers:
        return "open"
    kind = adjudicate(answers).kind
    return "disagree" if kind is None else str(kind)


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
