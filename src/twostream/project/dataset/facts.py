"""What is said of a curated data set as a whole: ``dataset.json``, and the lines that the command prints.

Knows the rows of the tables, the ledger and the scores; must not know volumes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twostream.project.dataset.objects import DISPUTED, MODEL
from twostream.project.probabilities import Probabilities
from twostream.project.project import Project
from twostream.project.recall import recall_estimate, said
from twostream.task.answers import MEANING
from twostream.task.metrics import wilson_interval
from twostream.volume.uri import Uri

NO_RECALL = "no estimate yet: nothing shows which objects were missed; a test box with true objects or windows would"
Rows = Sequence[Mapping[str, Any]]


def dataset_facts(
    project: Project,
    round_number: int,
    rows: Rows,
    left_out: Rows,
    probabilities: Probabilities | None,
    min_probability: float,
) -> dict[str, Any]:
    """Content of ``dataset.json``; every entry is explained in ``docs/curated.md``.

    Args:
        project: the project.
        round_number: round whose candidates were used.
        rows: of ``objects.csv``.
        left_out: of ``left_out.csv``.
        probabilities: of the round, or None.
        min_probability: the threshold for leaving out.
    """
    origins = Counter(str(row["origin"]) for row in rows)
    boxes = project.boxes
    return {
        "project": project.id,
        "name": Path(project.root).resolve().name,
        "task": project.config.task,
        "image": Uri.parse(project.config.image.uri).short,
        "shape_zyx": list(project.image.shape_zyx),
        "voxel_size_nm_zyx": list(project.image.voxel_size_nm),
        "offset_nm_zyx": list(project.image.offset_nm) if project.image.offset_nm else None,
        "value": "id" if project.task.num_sides == 1 else "presynaptic 2*id-1, postsynaptic 2*id",
        "round": round_number,
        "labels_boxes": [str(box) for box in boxes.labels],
        "test_box": str(boxes.test) if boxes.test else None,
        "num_objects": len(rows),
        "num_objects_by_origin": dict(sorted(origins.items())),
        "num_left_out_by_reason": dict(sorted(Counter(str(row["reason"]) for row in left_out).items())),
        "min_probability": min_probability,
        "scorer": _scorer_facts(rows, probabilities),
        "num_answers": project.ledger.spent()[0],
        "annotation_seconds": project.ledger.spent()[1],
        "precision": _precision(project, origins, probabilities, min_probability),
        "recall": _recall(project, round_number, probabilities, min_probability),
    }


def summary(facts: Mapping[str, Any]) -> list[str]:
    """What the command prints of ``dataset.json``."""
    origins = ", ".join(f"{number} {name}" for name, number in facts["num_objects_by_origin"].items())
    lines = [f"  {facts['num_objects']} objects by origin: {origins or 'none'}"]
    reasons = facts["num_left_out_by_reason"]
    if reasons:
        told = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
        lines.append(f"  left out, with their reasons in left_out.csv: {told}")
    scorer, least = facts["scorer"], facts["min_probability"]
    if scorer is None:
        lines.append(
            "  the round has stored no probabilities of the scorer: that column is empty, none left out for it"
        )
    elif not scorer["learned"]:
        lines.append(f"  the scorer has learned from no answers yet, its probability is S's score; threshold {least:g}")
    else:
        lines.append(f"  left out as improbable: unanswered objects to which the scorer gives less than {least:g}")
    if scorer and scorer["num_without_probability"]:
        lines.append(f"  {scorer['num_without_probability']} of origin model have no probability, and are kept")
    return [*lines, *_said(facts)]


def _said(facts: Mapping[str, Any]) -> list[str]:
    """Precision and recall as lines, each with its source."""
    precision, recall = facts["precision"], facts["recall"]
    lines = []
    if precision["value"] is not None:
        low, high = precision["interval"]
        lines.append(
            f"  precision of origin model: {precision['value']:.3f}, 95 percent interval {low:.3f} to {high:.3f} "
            f"(measured on {precision['num_judged']}, {precision['source']})"
        )
    else:
        lines.append(
            "  precision of origin model: no estimate yet, as nothing has been judged by audits or on a test box"
        )
    if recall["source"] == "windows":
        lines.append(f"  {recall['meaning']}")
    elif recall["value"] is not None:
        lines.append(f"  recall: {recall['value']:.3f} of {recall['num_truth']} true objects ({recall['source']})")
    else:
        lines.append("  recall: no estimate yet, as nothing shows what was missed (a test box or windows would)")
    return lines


def _scorer_facts(rows: Rows, probabilities: Probabilities | None) -> dict[str, Any] | None:
    if probabilities is None:
        return None
    without = sum(row["origin"] == MODEL and row["probability"] is None for row in rows)
    return {
        "learned": probabilities.learned,
        "num_without_probability": without,
        "meaning": "probability that a person would answer True, by the scorer that all strategies of the project "
        "share, from the answers before this round"
        if probabilities.learned
        else "S's score: no True and False have been given yet from which the scorer could learn",
    }


def _precision(
    project: Project, origins: Mapping[str, int], probabilities: Probabilities | None, min_probability: float
) -> dict[str, Any]:
    """How many objects are right: measured on the kept ones that were judged at random, or on the test box."""
    if project.boxes.test is None:
        source, judged = "audits", _audits(project, probabilities, min_probability)
        how = (
            "audits, which were drawn at random from the unanswered candidates and not learned from; counted are those "
            "that this threshold keeps"
        )
    else:
        source, judged = "test box", _on_test_box(probabilities, min_probability)
        how = "the candidates of the test box that this threshold keeps, by the truth rule"
    low, high = wilson_interval(sum(judged), len(judged))
    value = sum(judged) / len(judged) if judged else None
    found: dict[str, Any] = {
        "value": value,
        "interval": [low, high],
        "num_judged": len(judged),
        "source": source if judged else None,
        "meaning": f"share of true ones among the objects of origin {MODEL}, estimated by {how}"
        if judged
        else "not known: no candidate that was kept has been judged, by an audit or on the test box",
    }
    return found | {"of_all_objects": _precision_of_all(origins, value, (low, high))}


def _precision_of_all(
    origins: Mapping[str, int], value: float | None, interval: tuple[float, float]
) -> dict[str, Any] | None:
    """The precision of model and given objects together, if those that people gave are right."""
    undecided = [name for name in origins if name == DISPUTED or (name in MEANING and _says_nothing(name))]
    given = sum(number for name, number in origins.items() if name != MODEL and name not in undecided)
    model = origins.get(MODEL, 0)
    if given + model == 0 or (model and value is None):
        return None

    def together(share: float) -> float:
        return (given + model * share) / (given + model)

    return {
        "value": together(value or 0.0),
        "interval": [together(end) for end in interval],
        "meaning": "the same for all objects, if everything is right that people confirmed or drew; without those "
        "that are disputed or of which nobody was sure",
    }


def _says_nothing(kind: str) -> bool:
    """Whether an answer of this kind leaves open what the object is."""
    return math.isnan(MEANING[kind].y) and MEANING[kind].teaches != "drawn"


def _audits(project: Project, probabilities: Probabilities | None, min_probability: float) -> list[bool]:
    """Whether each audited candidate that the threshold keeps was answered True."""
    verdicts, of_id = project.ledger.verdicts(), probabilities.of_id if probabilities else {}
    audited = sorted({query.candidate.id for query in project.ledger.queries() if query.is_audit})
    kept = [i for i in audited if min_probability == 0 or of_id.get(i, 0.0) >= min_probability]
    return [verdicts[i].y == 1 for i in kept if not math.isnan(verdicts[i].y)]


def _on_test_box(probabilities: Probabilities | None, min_probability: float) -> list[bool]:
    """Whether each candidate of the test box that counts, and that the threshold keeps, is true."""
    if probabilities is None:
        return []
    kept = np.isfinite(probabilities.on_test_box) & (probabilities.probability >= min_probability)
    return [bool(value) for value in probabilities.on_test_box[kept] == 1]


def _recall(
    project: Project, round_number: int, probabilities: Probabilities | None, min_probability: float
) -> dict[str, Any]:
    num_truth = project.ledger.scores().get(round_number, {}).get("num_truth")
    judged = _on_test_box(probabilities, min_probability)
    if not num_truth or probabilities is None or np.isnan(probabilities.on_test_box).all():
        if estimate := recall_estimate(project):
            row = estimate.row()
            return {"value": row["value"], "num_truth": None, "source": "windows", "meaning": said(row)} | {
                name: row[name] for name in ("interval", "round", "found", "missed", "windows")
            }
        return {"value": None, "num_truth": None, "source": None, "meaning": NO_RECALL}
    return {
        "value": sum(judged) / num_truth,
        "num_truth": num_truth,
        "source": "test box",
        "meaning": "share of the true objects of the test box that have an object of this data set at IoU >= 0.5",
    }
