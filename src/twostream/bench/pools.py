"""What strategies are compared on: projects whose round 0 is done, of a user or of a recipe.

Projects of a recipe are made once and kept; both levels of the benchmark use them. Knows recipes, projects and the
loop; must not know strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np

from twostream.base import progress
from twostream.bench.candidates import Candidates
from twostream.bench.recipes import Recipe, kinds_at, scene_of
from twostream.project.project import Project
from twostream.rounds.loop import open_truth, run


@dataclass(frozen=True)
class Pool:
    """One project, and the seed with which strategies ask about its candidates.

    Attributes:
        set_name: data set, in the rows.
        side: "development" or "confirmation"; "" for a project of a user.
        name: tells pools of one set apart, in the rows.
        seed: of the strategies.
        opened: makes or opens the project, once.
    """

    set_name: str
    side: str
    name: str
    seed: int
    opened: Callable[[], OpenedPool]


@dataclass(frozen=True)
class OpenedPool:
    """A project with a finished round 0.

    Attributes:
        project: the project.
        truth_uri: labels of the whole image.
        folder: for forks.
        kinds: what lies at positions, see ``Candidates.of_round``.
    """

    project: Project
    truth_uri: str
    folder: Path
    kinds: Callable[[np.ndarray], np.ndarray | None] = lambda position_nm: None

    @cached_property
    def candidates(self) -> Candidates:
        """Those of round 0."""
        truth = open_truth(self.project, self.truth_uri)
        return Candidates.of_round(self.project, truth, kinds_at=self.kinds)


def pools_of_project(project: Project, truth_uri: str, set_name: str, num_seeds: int, folder: Path) -> list[Pool]:
    """The pool of a user's project, once for each seed; ``folder`` is for its forks."""
    opened = OpenedPool(project, truth_uri, folder / project.id)
    return [Pool(set_name, "", project.id, seed, lambda: opened) for seed in range(num_seeds)]


def pools_of_recipe(
    recipe: Recipe, side: str, num_seeds: int, folder: Path, data: Path | None, *, quick: bool = False
) -> list[Pool]:
    """A pool for each seed of a recipe, which is made when it is opened and kept in ``folder``.

    Raises:
        InputError: the set does not have the side.
    """
    name = f"{recipe.name}-quick" if quick else recipe.name

    @cache
    def opened(seed: int) -> OpenedPool:
        place = folder / f"{name}-{side}-{seed}"
        scene = scene_of(recipe, seed, side, place, data, quick=quick)
        project = scene.project(place / "base", seed)
        if (0, "score") not in project.ledger.finished_steps():
            progress.say(f"{name}, {side}, seed {seed}: round 0")
            run(project, rounds=0, truth_uri=scene.labels)
        return OpenedPool(project, scene.labels, place, partial(kinds_at, recipe, seed, project))

    return [Pool(name, side, str(seed), seed, partial(opened, seed)) for seed in recipe.seeds(side, num_seeds)]


def seconds_of_rounds_0(projects: Sequence[Project]) -> float:
    """Seconds that the rounds 0 of projects took, together."""
    steps = (project.ledger.finished_steps() for project in projects)
    return sum(float(d["seconds"]) for found in steps for (number, _), d in found.items() if number == 0)
