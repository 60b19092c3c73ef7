"""What was asked: a card for each query, grouped by cluster, and a gallery for each round.

A card shows the patch, the candidate's mask, the reason for asking, and the answer. Knows projects, queries and
answers; must not know HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from twostream.project.project import Project
from twostream.project.records import Answer, Query, QueryLine
from twostream.report.answer_styles import answer_styles, answers_by_query, style_name
from twostream.report.overview import series_number
from twostream.report.pictures import mask_path, patch_uri
from twostream.report.words import formatted, plural
from twostream.task import TASKS
from twostream.task.answers import AnswerKind

DRAWN_AT_RANDOM = -1
"""Coarse cluster of the queries that the strategy two-stream drew at random."""
REASONS: dict[str, Callable[[Any], str]] = {
    "stands_for": lambda v: f"stands for {plural(v, 'candidate')}",
    "distance_to_center": lambda v: "" if v is None else f"{formatted(v, 2)} from its cluster's centre",
    "distance_to_answer": lambda v: (
        "no answer in its cluster yet" if v is None else f"{formatted(v, 2)} from the nearest answer"
    ),
    "distance": lambda v: (
        "no other was answered or chosen before"
        if v is None
        else f"{formatted(v, 2)} from the nearest answered or chosen one"
    ),
    "covers": lambda v: f"covers {plural(v, 'candidate')}",
    "mutual_information": lambda v: f"scorers disagree by {formatted(v, 3)} nats",
    "probability": lambda v: f"scorer's probability {formatted(v, 2)}",
    "inclusion": lambda v: f"drawn with probability {formatted(v, 3)}",
    "faint": lambda v: f"S faintly saw {formatted(v, 0)} voxels there" if v else "S saw nothing there",
}
"""{name of a reason: its value in words, "" where there is nothing to say}. Reasons that are not listed are shown by
name; ``coarse`` and ``fine`` stand in the head of the group and of the card instead."""


def galleries(projects: Sequence[Project], names: Sequence[str]) -> list[dict[str, Any]]:
    """One gallery per project and round, by round and then by project.

    Args:
        projects: whose queries are shown.
        names: one per project.
    """
    result = []
    for i, (project, name) in enumerate(zip(projects, names, strict=True)):
        current = project.ledger.current_answers()
        answers = answers_by_query(current)
        missed = [a for a in current if a.kind is AnswerKind.MISSED]
        queries = project.ledger.queries()
        for round_number in sorted({q.round for q in queries}):
            batch = [q for q in queries if q.round == round_number]
            result.append(
                {
                    "round": round_number,
                    "name": name,
                    "series": series_number(i),
                    "groups": groups([card(q, answers.get(q.id, [])) for q in by_cluster(batch)]),
                    "tally": tally([style_name(answers.get(q.id, [])) for q in batch]),
                    "num": len(batch),
                    "num_missed": sum(a.round == round_number for a in missed),
                    "num_windows": len(project.ledger.windows(round_number)),
                    "width": _patch_width(project, batch[0].patch.image.shape[-1]),
                }
            )
    return sorted(result, key=lambda gallery: gallery["round"])


AnyQuery = TypeVar("AnyQuery", Query, QueryLine)


def by_cluster(queries: Sequence[AnyQuery]) -> list[AnyQuery]:
    """Queries by coarse and then by fine cluster, else in the order in which they were asked.

    Queries without a coarse (fine) cluster come after those of the same level that have one.
    """

    def place(query: AnyQuery) -> tuple[float, float]:
        coarse, fine = query.reason.get("coarse"), query.reason.get("fine")
        return math.inf if coarse in (None, DRAWN_AT_RANDOM) else coarse, math.inf if fine is None or fine < 0 else fine

    return sorted(queries, key=place)


def groups(cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cards that follow each other and share a group, under the group's name."""
    result: list[dict[str, Any]] = []
    for one in cards:
        if not result or result[-1]["name"] != one["group"]:
            result.append({"name": one["group"], "cards": []})
        result[-1]["cards"].append(one)
    return result


def tally(style_names: Sequence[str]) -> list[tuple[str, int]]:
    """(name, how often it occurs) of each style that occurs, in the order of ``answer_styles()``."""
    return [(name, style_names.count(name)) for name in answer_styles() if name in style_names]


def card(query: Query, answers: Sequence[Answer]) -> dict[str, Any]:
    """Everything that the card of one query shows, as plain values.

    Args:
        query: what was asked.
        answers: its current answers, oldest first.
    """
    styles, name = answer_styles(), style_name(answers)
    coarse, fine = query.reason.get("coarse"), query.reason.get("fine")
    image, mask = query.patch.central
    each = [f"{a.annotator}: {styles[a.kind].text}" for a in answers] if name == "disagree" else []
    return {
        "id": query.candidate.id,
        "group": "audit, drawn at random" if query.is_audit else _group(coarse),
        "cluster": ""
        if fine is None or coarse == DRAWN_AT_RANDOM
        else "no fine cluster"
        if fine < 0
        else f"fine {fine}",
        "style_name": name,
        "style": styles[name],
        "score": formatted(query.candidate.score, 2),
        "strategy": query.strategy,
        "why": " · ".join(reason_words(query.reason)),
        "notes": each + [a.reason for a in answers if a.reason],
        "padded": f"{query.patch.padded:.0%} mirrored at the image's border" if query.patch.padded > 0.01 else "",
        "patch": patch_uri(image),
        "is_linked": False,
        "width": len(image),
        "outline": mask_path(mask > 0),
        "post_outline": mask_path(mask < 0),
        "origin": patch_origin(query),
    }


def _group(coarse: int | None) -> str:
    """Name of the group of cards of a coarse cluster; "" for strategies without clusters."""
    if coarse is None:
        return ""
    return "drawn at random" if coarse == DRAWN_AT_RANDOM else f"coarse cluster {coarse}"


def patch_origin(query: Query) -> str:
    """Where the patch of a query was cut, in words."""
    text = f"section {query.patch.section}, box {query.candidate.box}, turned by {formatted(query.patch.angle_deg, 0)}°"
    return text + (f", {query.patch.padded:.0%} outside the image" if query.patch.padded > 0 else "")


def reason_words(reason: Mapping[str, Any]) -> list[str]:
    """Why a strategy asked, in words.

    Args:
        reason: ``Query.reason``; a reason that is not in ``REASONS`` is shown by its name.
    """
    hidden = {"coarse", "fine"}
    if reason.get("coarse") == DRAWN_AT_RANDOM:  # then there is no cluster to describe
        hidden |= {"stands_for", "distance_to_center", "distance_to_answer"}
    words = [
        REASONS[k](v) if k in REASONS else f"{k.replace('_', ' ')}: {_value_text(v)}"
        for k, v in reason.items()
        if k not in hidden
    ]
    return [word for word in words if word]


def _value_text(value: Any) -> str:
    """The value of a reason that is not in ``REASONS``."""
    return formatted(value, 3) if isinstance(value, float) or value is None else str(value)


def score_meaning(project: Project) -> str:
    """What a candidate's score is, in a sentence."""
    source = project.config.source
    if source is None:
        return "The score is S's mean foreground probability inside the mask."
    if source.kind == "probability":
        return "The score is the mean of the given foreground probability inside the mask."
    if source.kind == "segmentation":
        return "Every score is 0.5, because a segmentation does not say how likely its objects are."
    return "The score is the one in the table of objects; in a table without scores, every score is 0.5."


def mask_legend(project: Project) -> list[tuple[str, str]]:
    """What the colours of the masks mean: (class in the style sheet, words)."""
    if TASKS[project.config.task].num_sides == 2:
        return [("pre", "presynaptic side"), ("post", "postsynaptic side")]
    return [("single", "candidate's mask")]


def _patch_width(project: Project, width_px: int) -> str:
    """How wide the patches of a project are, in words."""
    widths = project.config.patches.object_widths
    if widths is None:
        return f"{width_px * project.pixel_size_nm:g} nm wide"
    finest, widest = project.config.patches.pixel_range_nm(project.image.voxel_size_nm, project.pixel_size_nm)
    return f"{widths:g} times as wide as their object, from {width_px * finest:g} to {width_px * widest:g} nm"
