"""The page: gathers what the template shows and writes ``report.html``.

The file stands alone: it asks the network for nothing and names no folder of the machine on which it was made.
Reads projects, ledgers and the files of rounds; must not know torch, models or strategies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from twostream.base.atomic import write_text
from twostream.base.errors import ProjectError
from twostream.project.project import Project
from twostream.project.recall import recall_estimate, said
from twostream.query.stopping import WINDOW
from twostream.report.answer_styles import answer_styles
from twostream.report.figures import NUM_LEVELS, NUM_SERIES
from twostream.report.gains import gains, num_answers, sharing_round_0
from twostream.report.gallery import galleries, mask_legend, score_meaning
from twostream.report.latent_space import latent_space, training_pictures
from twostream.report.overview import facts, next_step, project_names, series_number, summary
from twostream.report.reproduction import reproduction
from twostream.report.scores import COUNTS, SCORES, audit_rows, refit_rows, score_panels, score_rows
from twostream.report.stopping import CRITERIA, stopping_panels, stopping_rows
from twostream.report.times import times
from twostream.report.words import MISSING

REPORT_NAME = "report.html"


def write_report(projects: Sequence[Project], output: Path | None = None) -> Path:
    """Write the report, whole or not at all; a report that is there is replaced.

    Args:
        projects: one or several; several are compared and should share round 0 (see ``fork_project``).
        output: the file to write; None writes ``report.html`` into the first project's folder.

    Returns:
        Path of the file.

    Raises:
        ProjectError: the sequence is empty, or the file cannot be written.
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
    text = environment.get_template("report.html").render(**template_values(projects))
    path = output or projects[0].root / REPORT_NAME
    try:
        write_text(path, text)
    except OSError as error:
        raise ProjectError(f"{path} cannot be written ({error.strerror}). Name another file with -o FILE.") from None
    return path


def template_values(projects: Sequence[Project]) -> dict[str, Any]:
    """Everything that the template shows, as plain values."""
    names = project_names(projects)
    metrics = [project.ledger.scores() for project in projects]
    controls = [not project.config.refit.use_answers for project in projects]
    named = list(zip(projects, names, strict=True))
    alike = sharing_round_0(metrics)
    lead = [metrics[row] for row in alike], [controls[row] for row in alike]
    stopping = stopping_rows(names, metrics)
    seeds = {(p.config.query.strategy, p.config.seed) for p in projects}
    return {
        "names": names,
        "series": [series_number(position) for position in range(len(projects))],
        "num_series": NUM_SERIES,
        "num_levels": NUM_LEVELS,
        "answer_styles": answer_styles(),
        "summary": summary(projects),
        "has_test_box": projects[0].config.boxes.test is not None,
        "facts": facts(projects, names),
        "next_steps": [next_step(project) for project in projects],
        "gains": gains(*lead),
        "gain_answers": num_answers(*lead),
        "gain_columns": [(row, names[row]) for row in alike],
        "apart": [name for row, name in enumerate(names) if row not in alike],
        "has_control": any(lead[1]),
        "control_command": "twostream fork DIR NEW --set refit.use_answers=false",
        "score_rows": score_rows(names, metrics),
        "score_names": list(SCORES),
        "num_counts": len(COUNTS),
        "definitions": COUNTS | SCORES,
        "audits": audit_rows(names, metrics),
        "refits": refit_rows(names, metrics),
        "searched": [(name, said(found.row())) for project, name in named if (found := recall_estimate(project))],
        "score_panels": score_panels(metrics),
        "one_seed": len(seeds) == len({strategy for strategy, _ in seeds}),
        "stopping": stopping,
        "has_audits": any(row["audited"][0] != MISSING for row in stopping),
        "stopping_panels": stopping_panels(metrics),
        "criteria": CRITERIA,
        "window": WINDOW,
        "galleries": galleries(projects, names),
        "mask_legend": mask_legend(projects[0]),
        "score_meaning": score_meaning(projects[0]),
        "latent_spaces": [space for project, name in named if (space := latent_space(project, name))],
        "training_pictures": training_pictures(projects[0]),
        "times": [times(project, name) for project, name in named],
        "reproductions": [reproduction(project, name) for project, name in named],
    }
