"""The report: what was run, how good it became, what was asked and what was said, as one HTML file.

Knows projects, ledgers and the files of rounds, and reads them only; must not know torch, models or strategies.
The file stands alone: it asks the network for nothing and names no folder of the machine it was made on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from twostream.base.atomic import write_text
from twostream.base.errors import ProjectError, TwoStreamError
from twostream.candidates.table import read_table
from twostream.models.streams.config import PICTURES_NAME
from twostream.project.project import LATER_STEPS, Project
from twostream.project.records import Answer, Query
from twostream.project.status import advice, agreements, why_no_agreement
from twostream.query.stopping import (
    STABLE,
    TARGET,
    WINDOW,
    Estimate,
    has_stabilised,
    is_right_enough,
    recent_agreement,
)
from twostream.report.figures import (
    NUM_SERIES,
    Curve,
    Marks,
    curve_panel,
    latent_panel,
    mask_path,
    patch_uri,
    principal_plane,
    score_levels,
    sheet_uri,
)
from twostream.task import TASKS
from twostream.task.answers import AnswerKind
from twostream.volume.uri import Uri

Metrics = Mapping[str, Any]
"""What ``metrics.json`` of a round holds."""
Scores = Mapping[int, Metrics]
"""{round: metrics} of a project."""
REPORT_NAME = "report.html"
NONE = "–"
BY_CHANCE = -1
"""Coarse cluster of what two-stream gives to chance."""
MAX_POINTS = 2000
"""Candidates drawn in latent space; more would only cover each other and make the file heavy. Asked ones always are."""
STREAMS = {"supervised": "supervised stream (masks)", "unsupervised": "unsupervised stream (raw image)"}

SHEETS = {
    "reconstructions": ("Reconstructions", "patches above, what the stream's decoder makes of their latents below"),
    "interpolations": ("From one patch to another", "decoded along the line between the latents of two of them"),
    "samples": ("Samples", "decoded from latents drawn at random"),
    "neighbours": ("Alike to the stream", "each row: a candidate, then those whose latents are nearest to its own"),
}

COUNTS = {
    "num_answers": ("answers", "answers paid for so far"),
    "annotation_seconds": ("annotation", "time spent on all answers so far"),
    "num_candidates": ("candidates", "instances proposed in the whole image"),
    "num_truth": ("truth", "true objects in the test box"),
}
SCORES = {
    "candidate_recall": ("candidate recall", "share of the true objects that some candidate overlaps with IoU > 0.2"),
    "candidate_accuracy": (
        "candidate accuracy",
        "share of the candidates that are good: matched one-to-one with a true object at IoU ≥ 0.5, polarity right",
    ),
    "roi_accuracy": ("ROI accuracy", "share of the candidates that overlap some true object with IoU > 0.2"),
    "average_precision": (
        "average precision",
        "area under the precision-recall curve of the candidates, ranked by their score, over all true objects",
    ),
    "instance_f1": ("instance F1", "F1 of the final segmentation's instances against the truth, one-to-one at IoU 0.5"),
    "foreground_iou": ("foreground IoU", "intersection over union of the final segmentation and the truth, in voxels"),
    "curated_accuracy": (
        "curated accuracy",
        "share of the whole pool whose label is right: the answer where there is one, else the shared scorer's guess",
    ),
}

CRITERIA = {
    "agreement": (
        "agreement with the round before",
        "Cohen's kappa of the shared scorer's labels of two successive rounds, over the candidates of both: 1 where no "
        "label changed, 0 where no more are alike than by chance (Bloodgood and Vijay-Shanker 2009)",
        STABLE,
    ),
    "audited": (
        "labels right, audited",
        "share of the audited candidates whose label by the scorer is the answer that it never saw, with Wilson's 95 "
        "percent interval",
        TARGET,
    ),
    "expected": (
        "labels right, by the scorer's belief",
        "share of the unanswered labels that the scorer expects to be right, the mean of max(p, 1 − p), with a 95 "
        "percent interval from a committee of scorers (Zhu, Wang and Hovy 2008): a belief, not a measurement",
        TARGET,
    ),
}
"""What speaks for stopping: (title, meaning, value to be reached)."""


@dataclass(frozen=True)
class AnswerStyle:
    """How an answer is shown.

    Attributes:
        text: in words.
        glyph: sign beside the words, so that colour never stands alone.
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
REASONS: dict[str, Callable[[Any], str]] = {
    "stands_for": lambda v: f"stands for {v} candidate{'' if v == 1 else 's'}",
    "distance_to_center": lambda v: "" if v is None else f"{formatted(v, 2)} from its cluster's centre",
    "distance_to_answer": lambda v: (
        "no answer in its cluster yet" if v is None else f"{formatted(v, 2)} from the nearest answer"
    ),
    "distance": lambda v: (
        "nothing was answered or chosen yet" if v is None else f"{formatted(v, 2)} from all that is answered or chosen"
    ),
    "covers": lambda v: f"covers {v} candidate{'' if v == 1 else 's'}",
    "mutual_information": lambda v: f"scorers disagree by {formatted(v, 3)} nats",
    "probability": lambda v: f"scorer's probability {formatted(v, 2)}",
}
"""Reasons of the strategies of the house, in words; nothing where there is nothing to say. ``coarse`` and ``fine``
stand in the card's head."""


def write_report(projects: Sequence[Project]) -> Path:
    """Write ``report.html`` into the first project's folder, whole or not at all.

    Args:
        projects: one or several; several are compared and should share round 0 (see ``fork_project``).

    Returns:
        Path of the file.

    Raises:
        ProjectError: no project came.
    """
    if not projects:
        raise ProjectError("a report was asked of 0 projects; pass at least one.")
    environment = Environment(
        loader=PackageLoader("twostream.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html").render(**page(projects))
    path = projects[0].root / REPORT_NAME
    write_text(path, text)
    return path


def page(projects: Sequence[Project]) -> dict[str, Any]:
    """Everything that the template shows, as plain values."""
    names = series_names(projects)
    scores = [project.ledger.scores() for project in projects]
    seeds = {(p.config.query.strategy, p.config.seed) for p in projects}
    stopping = [row for i, s in enumerate(scores) for row in stopping_rows(names[i], s, series_of(i))]
    stopping.sort(key=lambda row: row["round"])
    return {
        "names": names,
        "series": [series_of(row) for row in range(len(projects))],
        "summary": summary(projects),
        "facts": facts(projects, names),
        "state": [state(project) for project in projects],
        "score_rows": score_rows(names, scores),
        "audits": [row for name, s in zip(names, scores, strict=True) for row in audit_rows(name, s)],
        "definitions": COUNTS | SCORES,
        "score_names": list(SCORES),
        "panels": panels(scores),
        "stopping": stopping,
        "has_audits": any(row["audited"][0] != NONE for row in stopping),
        "stopping_panels": stopping_panels(scores),
        "criteria": CRITERIA,
        "window": WINDOW,
        "one_seed": len(seeds) == len({strategy for strategy, _ in seeds}),
        "galleries": galleries(projects, names),
        "latents": [latents for p, name in zip(projects, names, strict=True) if (latents := latent_space(p, name))],
        "learned": learned(projects[0]),
        "times": [times(project, name) for project, name in zip(projects, names, strict=True)],
        "recipes": [recipe(project, name) for project, name in zip(projects, names, strict=True)],
        "said": ANSWER_STYLES,
        "sides": sides(projects[0]),
        "score_meaning": score_meaning(projects[0]),
        "has_test_box": projects[0].config.boxes.test is not None,
        "num_series": NUM_SERIES,
    }


# -- what was run -----------------------------------------------------------------------------------------------------


def series_names(projects: Sequence[Project]) -> list[str]:
    """A name for each project: its strategy, with the folder's name where strategies repeat."""
    strategies = [p.config.query.strategy for p in projects]
    return [
        s if strategies.count(s) == 1 else f"{s} ({p.root.name})" for s, p in zip(strategies, projects, strict=True)
    ]


def series_of(row: int) -> int:
    """Number of a project's colour."""
    return row % NUM_SERIES


def voxel_size_nm(project: Project) -> Sequence[float] | None:
    """(z, y, x) nm; None where neither the image nor the settings tell: a report may outlive its data."""
    try:
        return project.image.voxel_size_nm
    except (TwoStreamError, OSError):
        return project.config.image.voxel_size_nm


def num_voxels(project: Project) -> tuple[int, ...] | None:
    """(Z, Y, X) voxels of the image; None where it cannot be opened any more."""
    try:
        return project.image.shape_zyx
    except (TwoStreamError, OSError):
        return None


def summary(projects: Sequence[Project]) -> str:
    """One plain sentence about what was run."""
    config = projects[0].config
    rounds = max((q.round + 1 for p in projects for q in p.ledger.queries()), default=0)
    strategies = list(dict.fromkeys(p.config.query.strategy for p in projects))
    budgets = sorted({p.config.query.budget for p in projects})
    what = {"polarity": "synapses with their polarity", "cleft": "synaptic clefts"}.get(config.task, config.task)
    budget, by = " or ".join(map(str, budgets)), " and by ".join(strategies)
    asked = f"{plural(rounds, 'round')} of up to {budget} questions each, chosen by {by}"
    if not rounds:
        asked = f"nothing has been asked yet; questions will be chosen by {by}"
    image = Uri.parse(config.image.uri).short
    if config.source:
        given = "A table of objects" if config.source.kind == "objects" else f"Another model's {config.source.kind}"
        who = "the streams learn" if config.streams.learn_from_answers else "the scorer learns"
        return f"{given} proposes {what} in {image}; {who} from answers: {asked}."
    return f"A segmentation model S proposes {what} in {image} and learns from answers: {asked}."


def facts(projects: Sequence[Project], names: Sequence[str]) -> list[tuple[str, str]]:
    """Settings that describe the run: (name, value)."""
    config = projects[0].config
    shape, size = num_voxels(projects[0]), voxel_size_nm(projects[0])
    boxes = config.boxes
    rows = [
        ("task", config.task),
        ("image", Uri.parse(config.image.uri).short),
        ("labels", Uri.parse(config.labels.uri).short if config.labels else "none"),
        ("image size", f"{' × '.join(map(str, shape))} voxels (Z, Y, X)" if shape else NONE),
        ("voxel size", f"{' × '.join(f'{v:g}' for v in size)} nm (Z, Y, X)" if size else NONE),
        ("labels box", boxes.labels or "none"),
        ("validation box", f"{boxes.val} (part of the labels box)" if boxes.val else "none"),
        ("test box", boxes.test or "none: no truth covers one"),
    ]
    if config.source:
        rows.insert(2, (f"{config.source.name}, in place of S", Uri.parse(config.source.uri).short))
    rows += [(f"strategy{_behind(names, name)}", _strategy(p)) for p, name in zip(projects, names, strict=True)]
    seeds = sorted({p.config.seed for p in projects})
    return [*rows, ("seed", ", ".join(map(str, seeds)))]


def _behind(names: Sequence[str], name: str) -> str:
    return f" {list(names).index(name) + 1}" if len(names) > 1 else ""


def _strategy(project: Project) -> str:
    query = project.config.query
    settings = ", ".join(f"{k} {v}" for k, v in query.settings.items())
    return f"{query.strategy}{f' ({settings})' if settings else ''}, {query.budget} answers per round"


def state(project: Project) -> str:
    """Where the project stands, in one sentence."""
    round_number, step = project.next_step()
    num_open = len(project.ledger.open_queries())
    waiting = f"; {plural(num_open, 'query', 'queries')} not answered yet" if num_open else ""
    return f"next step: {step} of round {round_number}{waiting}"


# -- scores -----------------------------------------------------------------------------------------------------------


def score_rows(names: Sequence[str], scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """Rows of the table: round by round, strategy by strategy, each value as text."""
    rounds = sorted({r for s in scores for r in s})
    return [
        {"round": r, "name": names[i], "series": series_of(i), "cells": cells(s[r])}
        for r in rounds
        for i, s in enumerate(scores)
        if r in s
    ]


def cells(metrics: Metrics) -> list[str]:
    """A round's metrics as text, in the order of ``COUNTS`` and ``SCORES``."""
    values = metrics.get("scores") or {}
    counts = [duration(metrics.get(n)) if n == "annotation_seconds" else formatted(metrics.get(n), 0) for n in COUNTS]
    return counts + [formatted(values.get(n), 3) for n in SCORES]


def audit_rows(name: str, scores: Scores) -> list[dict[str, Any]]:
    """Accuracy as estimated from audits, of the rounds that have it."""
    rows = []
    for round_number, metrics in sorted(scores.items()):
        audit = metrics.get("audit")
        if audit:
            low, high = audit.get("interval") or (None, None)
            estimate = formatted(audit.get("candidate_accuracy"), 3)
            interval = f"{formatted(low, 2)} to {formatted(high, 2)}"
            num = formatted(audit.get("num_audited"), 0)
            rows.append({"round": round_number, "name": name, "estimate": estimate, "interval": interval, "num": num})
    return rows


def panels(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """One panel per score that has a value, and one for the number of candidates."""
    result = []
    for name, (title, meaning) in SCORES.items():
        curves = curves_of(scores, partial(score_of, name=name))
        if curves:
            svg = curve_panel(curves, label=f"{title} against answers", is_share=True)
            result.append({"title": title, "meaning": meaning, "svg": svg})
    curves = curves_of(scores, lambda metrics: metrics.get("num_candidates"))
    if curves:
        svg = curve_panel(curves, label="candidates against answers", is_share=False)
        result.append({"title": "number of candidates", "meaning": COUNTS["num_candidates"][1], "svg": svg})
    return result


def stopping_rows(name: str, scores: Scores, series: int) -> list[dict[str, Any]]:
    """What speaks for stopping, of the rounds that have it."""
    rows = []
    for round_number, metrics in sorted(scores.items()):
        said = metrics.get("stopping")
        if not said:
            continue
        agreed = agreements(scores, round_number)
        mean = recent_agreement(agreed)
        compared = NONE if said["num_shared"] is None else f"{said['num_shared']} of {said['num_pool']}"
        rows.append(
            {
                "round": round_number,
                "name": name,
                "series": series,
                "agreement": formatted(agreed[-1], 3),
                "why": "" if agreed[-1] is not None else why_no_agreement(said),
                "compared": compared,
                "mean": formatted(mean, 3),
                "stable": advice(has_stabilised(agreed)),
                "audited": _right(said["audited"]),
                "expected": _right(said["expected"]),
            }
        )
    return rows


def _right(found: Mapping[str, Any] | None) -> tuple[str, str]:
    """An estimate with its interval, and what it advises."""
    if found is None:
        return NONE, NONE
    share = Estimate(**found)
    text = f"{formatted(share.value, 3)} ({formatted(share.low, 3)} to {formatted(share.high, 3)}) of {share.num}"
    return text, advice(is_right_enough(share))


def stopping_panels(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """One panel per criterion that has a value."""
    result = []
    for name, (title, meaning, target) in CRITERIA.items():
        curves = curves_of(scores, partial(criterion_of, name=name))
        if curves:
            svg = curve_panel(curves, label=f"{title} against answers", is_share=True, target=target)
            result.append({"title": title, "meaning": f"{meaning}; dotted: {target:g}", "svg": svg})
    return result


def criterion_of(metrics: Metrics, name: str) -> float | None:
    """The value of one criterion, None where it is missing."""
    value = (metrics.get("stopping") or {}).get(name)
    found: float | None = value["value"] if isinstance(value, Mapping) else value
    return found


def score_of(metrics: Metrics, name: str) -> float | None:
    """One score of a round's metrics, None where it is missing."""
    value: float | None = (metrics.get("scores") or {}).get(name)
    return value


def curves_of(scores: Sequence[Scores], value: Callable[[Metrics], float | None]) -> list[Curve]:
    """A curve per project that has at least one value."""
    curves = []
    for i, rounds in enumerate(scores):
        x = [float(m.get("num_answers") or 0) for _, m in sorted(rounds.items())]
        y = [math.nan if (v := value(m)) is None else float(v) for _, m in sorted(rounds.items())]
        if any(v == v for v in y):
            curves.append(Curve(i, x, y))
    return curves


# -- galleries --------------------------------------------------------------------------------------------------------


def galleries(projects: Sequence[Project], names: Sequence[str]) -> list[dict[str, Any]]:
    """What was asked: one gallery per project and round, round by round."""
    result = []
    for i, (project, name) in enumerate(zip(projects, names, strict=True)):
        answers = answers_by_query(project.ledger.current_answers())
        missed = [a for a in project.ledger.current_answers() if a.kind is AnswerKind.MISSED]
        queries = project.ledger.queries()
        for round_number in sorted({q.round for q in queries}):
            batch = [q for q in queries if q.round == round_number]
            result.append(
                {
                    "round": round_number,
                    "name": name,
                    "series": series_of(i),
                    "groups": groups([card(q, answers.get(q.id, [])) for q in order(batch)]),
                    "tally": tally([kind_of(answers.get(q.id, [])) for q in batch]),
                    "num": len(batch),
                    "num_missed": sum(a.round == round_number for a in missed),
                    "width": _patch_width(project, batch[0].patch.image.shape[-1]),
                }
            )
    return sorted(result, key=lambda gallery: gallery["round"])


def _patch_width(project: Project, width_px: int) -> str:
    """How wide the patches of a project are, for the eye."""
    widths = project.config.patches.object_widths
    if widths is None:
        return f"{width_px * project.pixel_size_nm:g} nm wide"
    finest, widest = project.config.patches.pixel_range_nm(project.image.voxel_size_nm, project.pixel_size_nm)
    return f"{widths:g} times as wide as their object, from {width_px * finest:g} to {width_px * widest:g} nm"


def answers_by_query(answers: Iterable[Answer]) -> dict[int, list[Answer]]:
    """{query id: its answers, oldest first}."""
    result: dict[int, list[Answer]] = {}
    for answer in answers:
        if answer.query is not None:
            result.setdefault(answer.query, []).append(answer)
    return result


def kind_of(answers: Sequence[Answer]) -> str:
    """The answer that counts, a key of ``ANSWER_STYLES``: the newest adjudicated one, else what all say."""
    if not answers:
        return "open"
    settled = [a for a in answers if a.adjudicates]
    kinds = {settled[-1].kind} if settled else {a.kind for a in answers}
    kinds = kinds - {AnswerKind.SKIPPED} or kinds
    return str(kinds.pop()) if len(kinds) == 1 else "disagree"


def tally(kinds: Sequence[str]) -> list[tuple[str, int]]:
    """How often each answer was given, in the order of ``ANSWER_STYLES``; none that was not."""
    return [(kind, kinds.count(kind)) for kind in ANSWER_STYLES if kind in kinds]


def order(queries: Sequence[Query]) -> list[Query]:
    """By coarse, then fine cluster, else as asked; what no cluster brought comes last."""

    def place(query: Query) -> tuple[float, float]:
        coarse, fine = query.reason.get("coarse"), query.reason.get("fine")
        return math.inf if coarse in (None, BY_CHANCE) else coarse, math.inf if fine is None or fine < 0 else fine

    return sorted(queries, key=place)


def groups(cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cards that follow each other and share a coarse cluster."""
    result: list[dict[str, Any]] = []
    for card_ in cards:
        if not result or result[-1]["name"] != card_["group"]:
            result.append({"name": card_["group"], "cards": []})
        result[-1]["cards"].append(card_)
    return result


def card(query: Query, answers: Sequence[Answer]) -> dict[str, Any]:
    """What a query's card shows."""
    kind = kind_of(answers)
    coarse, fine = query.reason.get("coarse"), query.reason.get("fine")
    image, mask = query.patch.central
    said = [f"{a.annotator}: {ANSWER_STYLES[str(a.kind)].text}" for a in answers] if kind == "disagree" else []
    return {
        "id": query.candidate.id,
        "group": "audit, drawn at random" if query.is_audit else _group(coarse),
        "cluster": "" if fine is None or coarse == BY_CHANCE else "added" if fine < 0 else f"fine {fine}",
        "kind": kind,
        "said": ANSWER_STYLES[kind],
        "score": formatted(query.candidate.score, 2),
        "strategy": query.strategy,
        "why": " · ".join(reason_words(query.reason)),
        "notes": said + [a.reason for a in answers if a.reason],
        "patch": patch_uri(image),
        "width": len(image),
        "inside": mask_path(mask > 0),
        "post": mask_path(mask < 0),
        "where": where(query),
    }


def _group(coarse: int | None) -> str:
    if coarse is None:
        return ""
    return "drawn by chance" if coarse == BY_CHANCE else f"coarse cluster {coarse}"


def where(query: Query) -> str:
    """Where a patch was cut, in words."""
    text = f"section {query.patch.section}, box {query.candidate.box}, turned by {formatted(query.patch.angle_deg, 0)}°"
    return text + (f", {query.patch.padded:.0%} outside the image" if query.patch.padded > 0 else "")


def reason_words(reason: Mapping[str, Any]) -> list[str]:
    """Why a strategy asked, in words; a reason that is not known here is shown by its name."""
    if reason.get("coarse") == BY_CHANCE:  # there is no cluster to tell of
        reason = {
            k: v for k, v in reason.items() if k not in ("stands_for", "distance_to_center", "distance_to_answer")
        }
    shown = {k: v for k, v in reason.items() if k not in ("coarse", "fine")}
    words = [REASONS[k](v) if k in REASONS else f"{k.replace('_', ' ')}: {_short(v)}" for k, v in shown.items()]
    return [word for word in words if word]


def _short(value: Any) -> str:
    return formatted(value, 3) if isinstance(value, float) or value is None else str(value)


def score_meaning(project: Project) -> str:
    """What a candidate's score is, in a sentence."""
    source = project.config.source
    if source is None:
        return "The score is S's mean foreground probability inside the mask."
    if source.kind == "probability":
        return "The score is the mean of the given foreground probability inside the mask."
    if source.kind == "segmentation":
        return "The score is 0.5 throughout: a segmentation does not say how likely its objects are."
    return "The score is the table's, or 0.5 throughout where it gives none."


def sides(project: Project) -> list[tuple[str, str]]:
    """Legend of the mask's colours: (class of the style sheet, words)."""
    if TASKS[project.config.task].num_sides == 2:
        return [("pre", "presynaptic side"), ("post", "postsynaptic side")]
    return [("single", "candidate's mask")]


# -- latent space -----------------------------------------------------------------------------------------------------


def latent_space(project: Project, name: str) -> dict[str, Any] | None:
    """The newest round's candidates as both streams see them; None where no round has latents."""
    round_number = latest_latents(project)
    if round_number is None:
        return None
    ids = np.load(project.path(round_number, "ids.npy"))
    table = read_table(project.path(round_number, "candidates.parquet"), ["id", "score"]).to_pydict()
    by_id = dict(zip(table["id"], table["score"], strict=True))
    kinds = asked_kinds(project)
    rows = rows_to_draw(ids, kinds)
    score = np.array([by_id.get(i, 0.0) for i in ids[rows].tolist()], float)
    level, edges = score_levels(score)
    digits = 2 if edges[1] - edges[0] >= 0.02 else 3
    marks = marks_of(ids[rows].tolist(), kinds)
    return {
        "name": name,
        "round": round_number,
        "num": len(ids),
        "num_drawn": len(rows),
        "num_asked": len(kinds),
        "num_marked": sum(len(mark.rows) for mark in marks),
        "kinds": [mark.kind for mark in marks],
        "streams": [_stream(project, round_number, stream, rows, level, marks, name) for stream in STREAMS],
        "steps": [f"{formatted(a, digits)}–{formatted(b, digits)}" for a, b in pairwise(edges)],
    }


def _stream(
    project: Project,
    round_number: int,
    stream: str,
    rows: np.ndarray,
    level: np.ndarray,
    marks: Sequence[Marks],
    name: str,
) -> dict[str, Any]:
    """One stream's picture."""
    latents = np.load(project.path(round_number, f"latents_{stream}.npy"), mmap_mode="r")
    points, share = principal_plane(latents[rows])
    label = f"Candidates in the latent space of the {STREAMS[stream]}, {name}"
    svg = latent_panel(points, level, marks, label=label)
    return {"title": STREAMS[stream], "svg": svg, "share": f"{share:.0%}", "num_dimensions": latents.shape[1]}


def learned(project: Project) -> list[dict[str, Any]]:
    """What each stream that is a network has learned, as it showed itself when it was trained."""
    shown = []
    for stream in STREAMS:
        path = project.path(0, PICTURES_NAME.format(stream))
        if not path.is_file():
            continue
        with np.load(path, allow_pickle=False) as stored:
            sheets = [
                {"title": title, "note": note, "uri": sheet_uri(stored[name]), "width": stored[name].shape[1]}
                for name, (title, note) in SHEETS.items()
                if name in stored
            ]
        shown.append({"title": STREAMS[stream], "sheets": sheets})
    return shown


def latest_latents(project: Project) -> int | None:
    """The newest round whose candidates both streams have seen."""
    files = ("ids.npy", "candidates.parquet", *(f"latents_{stream}.npy" for stream in STREAMS))
    rounds = sorted(int(d.name) for d in (project.root / "rounds").glob("[0-9]*") if d.name.isdigit())
    whole = [r for r in rounds if all(project.path(r, name).is_file() for name in files)]
    return whole[-1] if whole else None


def asked_kinds(project: Project) -> dict[int, str]:
    """{candidate id: its newest answer, a key of ``ANSWER_STYLES``} of every candidate that was asked."""
    answers = answers_by_query(project.ledger.current_answers())
    return {q.candidate.id: kind_of(answers.get(q.id, [])) for q in project.ledger.queries()}


def rows_to_draw(ids: np.ndarray, asked: Iterable[int]) -> np.ndarray:
    """Positions of the candidates to draw: all, or ``MAX_POINTS`` evenly spread; the asked ones always."""
    even = np.linspace(0, max(len(ids) - 1, 0), min(len(ids), MAX_POINTS)).round().astype(np.int64)
    return np.union1d(even, np.flatnonzero(np.isin(ids, list(asked)))).astype(np.int64)


def marks_of(ids: Sequence[int], kinds: Mapping[int, str]) -> list[Marks]:
    """Marks of the asked ones among ``ids``, one per answer in the order of ``ANSWER_STYLES``."""
    rows = {kind: [row for row, i in enumerate(ids) if kinds.get(i) == kind] for kind in ANSWER_STYLES}
    return [Marks(rows[kind], kind, ANSWER_STYLES[kind].marker) for kind in ANSWER_STYLES if rows[kind]]


# -- time and recipe --------------------------------------------------------------------------------------------------


def times(project: Project, name: str) -> dict[str, Any]:
    """Computing time: a row per step, a column per round, and totals."""
    done = {
        key: float(detail["seconds"]) for key, detail in project.ledger.finished_steps().items() if key[1] != "answer"
    }
    rounds = sorted({r for r, _ in done})
    known = ("train", *LATER_STEPS)
    steps = [s for s in known if any(key[1] == s for key in done)] + sorted({s for _, s in done} - set(known))
    rows = [(step, [*(duration(done.get((r, step))) for r in rounds), _total(done, step=step)]) for step in steps]
    total = [*(_total(done, round_number=r) for r in rounds), duration(sum(done.values()))]
    spent = project.ledger.spent()
    return {
        "name": name,
        "rounds": rounds,
        "rows": rows,
        "total": total,
        "annotation": duration(spent[1]),
        "answers": spent[0],
    }


def _total(done: Mapping[tuple[int, str], float], *, step: str | None = None, round_number: int | None = None) -> str:
    return duration(sum(v for (r, s), v in done.items() if step in (None, s) and round_number in (None, r)))


def recipe(project: Project, name: str) -> dict[str, Any]:
    """What someone needs to run it again: seed, versions, settings without folders."""
    settings = project.config.model_dump(mode="json")
    for volume in ("image", "labels", "source"):
        if settings[volume]:
            settings[volume]["uri"] = Uri.parse(settings[volume]["uri"]).short
    text = yaml.safe_dump(settings, sort_keys=False)
    return {"name": name, "seed": project.config.seed, "versions": versions(project), "settings": text}


def versions(project: Project) -> dict[str, str]:
    """{package: version} that round 0 was made with; empty before."""
    path = project.path(0, "config.yaml")
    try:
        return {k: str(v) for k, v in (yaml.safe_load(path.read_text()).get("versions") or {}).items()}
    except (OSError, yaml.YAMLError, AttributeError):
        return {}


# -- words ------------------------------------------------------------------------------------------------------------


def formatted(value: float | None, digits: int) -> str:
    """A number as text; "–" where there is none."""
    return NONE if value is None or value != value else f"{value:,.{digits}f}"


def plural(value: int, one: str, many: str | None = None) -> str:
    """``1 round``, ``2 rounds``."""
    return f"{value} {one if value == 1 else many or one + 's'}"


def duration(seconds: float | None) -> str:
    """Seconds as text that is read at a glance."""
    if seconds is None or seconds != seconds:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
