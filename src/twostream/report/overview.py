"""What was run: the names of the projects, one sentence about them, their settings, and the next step of each.

Knows projects and their settings; must not know scores, queries' cards or HTML.
"""

from __future__ import annotations

from collections.abc import Sequence

from twostream.base.errors import TwoStreamError
from twostream.project.project import Project
from twostream.report.figures import NUM_SERIES
from twostream.report.words import MISSING, plural
from twostream.volume.uri import Uri

NO_ANSWERS = "no answers"
"""Name of a project whose S learns from none (``refit.use_answers``): the control."""
TASK_NOUNS = {"polarity": "synapses with their polarity", "cleft": "synaptic clefts"}
"""What a task proposes, where the task's name does not say it."""


def project_names(projects: Sequence[Project]) -> list[str]:
    """A name for each project: its strategy, or that it is the control; with the folder's name where two are alike."""
    strategies = [p.config.query.strategy if p.config.refit.use_answers else NO_ANSWERS for p in projects]
    return [
        s if strategies.count(s) == 1 else f"{s} ({p.root.name})" for s, p in zip(strategies, projects, strict=True)
    ]


def series_number(position: int) -> int:
    """Number of the colour of the project at ``position`` (0 first); after the last colour they start again."""
    return position % NUM_SERIES


def summary(projects: Sequence[Project]) -> str:
    """One plain sentence about what was run."""
    config = projects[0].config
    rounds = max((-1 if (r := p.ledger.newest_asked_round()) is None else r for p in projects), default=-1) + 1
    strategies = " and by ".join(dict.fromkeys(p.config.query.strategy for p in projects))
    budgets = " or ".join(map(str, sorted({p.config.query.budget for p in projects})))
    objects = TASK_NOUNS.get(config.task, config.task)
    asked = f"{plural(rounds, 'round')} of up to {budgets} questions each, chosen by {strategies}"
    if not rounds:
        asked = f"nothing has been asked yet; questions will be chosen by {strategies}"
    image = Uri.parse(config.image.uri).short
    if config.source:
        given = "A table of objects" if config.source.kind == "objects" else f"Another model's {config.source.kind}"
        learner = "the streams learn" if config.streams.learn_from_answers else "the scorer learns"
        return f"{given} proposes {objects} in {image}; {learner} from answers: {asked}."
    if config.model:
        return f"A finished model proposes {objects} in {image} and learns from answers: {asked}."
    return f"A segmentation model S proposes {objects} in {image} and learns from answers: {asked}."


def facts(projects: Sequence[Project], names: Sequence[str]) -> list[tuple[str, str]]:
    """Settings that describe the run, as (name, value).

    Args:
        projects: the first one gives the settings that all share; strategies and seeds are listed for each.
        names: one per project, see ``project_names``.
    """
    config = projects[0].config
    shape, size = _shape_zyx(projects[0]), _voxel_size_nm(projects[0])
    boxes = projects[0].boxes
    rows = [
        ("task", config.task),
        ("image", Uri.parse(config.image.uri).short),
        ("labels", Uri.parse(config.labels.uri).short if config.labels else "none"),
        ("image size", f"{' × '.join(map(str, shape))} voxels (Z, Y, X)" if shape else MISSING),
        ("voxel size", f"{' × '.join(f'{v:g}' for v in size)} nm (Z, Y, X)" if size else MISSING),
        ("labels boxes" if len(boxes.labels) > 1 else "labels box", boxes.labels_text),
        ("validation box", f"{boxes.val} (not trained on)" if boxes.val else "none"),
        ("test box", str(boxes.test or "none: no labels cover one")),
    ]
    if config.source:
        rows.insert(2, (f"{config.source.name}, in place of S", Uri.parse(config.source.uri).short))
    if config.model:
        rows.insert(2, ("finished model, S of round 0", Uri.parse(config.model.uri).short))
    for project, name in zip(projects, names, strict=True):
        # Names repeat where the same folder is given twice; both then bear the first one's number.
        number = f" {list(names).index(name) + 1}" if len(names) > 1 else ""
        rows.append((f"strategy{number}", _strategy_text(project)))
    seeds = sorted({p.config.seed for p in projects})
    return [*rows, ("seed", ", ".join(map(str, seeds)))]


def next_step(project: Project) -> str:
    """The next step of the project, and how many answers it waits for."""
    round_number, step = project.next_step()
    num_open = project.ledger.counts().open
    waiting = f"; {plural(num_open, 'query', 'queries')} not answered yet" if num_open else ""
    return f"{step} of round {round_number}{waiting}"


def _strategy_text(project: Project) -> str:
    """A project's strategy with its settings and its budget."""
    query = project.config.query
    settings = ", ".join(f"{k} {v}" for k, v in query.settings.items())
    learns = "" if project.config.refit.use_answers else ", from which nothing learns"
    return f"{query.strategy}{f' ({settings})' if settings else ''}, {query.budget} answers per round{learns}"


def _voxel_size_nm(project: Project) -> Sequence[float] | None:
    """(z, y, x) nm. Where the image cannot be opened any more: what the settings say, or None."""
    try:
        return project.image.voxel_size_nm
    except (TwoStreamError, OSError):
        return project.config.image.voxel_size_nm


def _shape_zyx(project: Project) -> tuple[int, ...] | None:
    """(Z, Y, X) voxels of the image; None where it cannot be opened any more."""
    try:
        return project.image.shape_zyx
    except (TwoStreamError, OSError):
        return None
