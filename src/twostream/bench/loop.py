"""The curve of one strategy in the loop: S and the streams learn from every batch, and S is scored on the test box.

Knows projects and the loop; must not know rows or other strategies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from twostream.base.errors import InputError
from twostream.bench.efficiency import spent
from twostream.bench.pools import OpenedPool
from twostream.project.create import fork_project
from twostream.project.project import CONFIG_NAME, Project
from twostream.rounds.loop import run
from twostream.task.answers import MEANING


def loop_curve(
    pool: OpenedPool,
    strategy: str,
    settings: Mapping[str, Any] | None = None,
    *,
    batch_size: int,
    num_rounds: int,
    error_rate: float = 0.0,
) -> list[dict[str, Any]]:
    """Run the loop with a strategy in a fork of a project, which is kept and goes on where it was.

    Args:
        pool: a project with a finished round 0, which all strategies share.
        strategy: its name; ``settings`` are its own.
        batch_size: queries in each round.
        num_rounds: batches.
        error_rate: probability that an answer is wrong.

    Returns:
        For each round, ``round``, what was spent and the scores of the test box (docs/scores.md).

    Raises:
        InputError: the project has no test box.
    """
    if pool.project.boxes.test is None:
        raise InputError(
            f"{pool.project.root} has no test box, on which S could be scored; --level candidates needs none."
        )
    text = json.dumps(settings or {}, sort_keys=True)
    said = "" if text == "{}" else "-" + "".join(c if c.isalnum() else "-" for c in text).strip("-")
    root = pool.folder / f"loop-{strategy}{said}-{batch_size}-{error_rate:g}"
    if not (root / CONFIG_NAME).exists():
        fork_project(pool.project, root, [
            f"query.strategy={strategy}", f"query.settings={text}", f"query.budget={batch_size}",
            f"annotator.error_rate={error_rate}",
        ])  # fmt: skip
    project = Project(root)
    run(project, rounds=num_rounds, truth_uri=pool.truth_uri)
    return [_point(project, number, found) for number, found in project.ledger.scores().items() if number <= num_rounds]


def _point(project: Project, number: int, found: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked before a round, and the scores of its S."""
    asked = {query.id: query.candidate for query in project.ledger.queries() if query.round < number}
    answers = [answer for answer in project.ledger.all_answers() if answer.query in asked]
    members = [asked[answer.query] for answer in answers if answer.query is not None]
    foreground = sum(c.num_voxels for c, a in zip(members, answers, strict=True) if MEANING[a.kind].y == 1)
    sections = np.array([c.box.shape_zyx[0] for c in members], int)
    scores = {name: value for name, value in found["scores"].items() if value is not None}
    return {"round": number} | spent(np.array([str(a.kind) for a in answers]), sections, foreground) | scores
