"""The demonstration: the whole loop on synthetic tissue with a simulated annotator, beside asking at random.

Knows the loop, the tissue and a terminal. The demo folder is a project like any other; the random run that shares
its round 0 lies inside it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from twostream import progress
from twostream.errors import InputError, TwoStreamError
from twostream.geometry import grid
from twostream.loop import run
from twostream.project import CONFIG_NAME, Project, create_project, fork_project, write_folder
from twostream.report import write_report
from twostream.volume import create_volume, open_volume

SHAPE_ZYX = (32, 384, 640)
LABELS_BOX = "0:32,0:384,0:112"
KIND = {"polarity": "synapses", "mitochondria": "mitochondria"}
BUDGET = 25
# A demonstration has ten minutes on two cores for seven models; steps are what it saves on.
SETTINGS = {
    "polarity": ("segmentation.num_steps=300", "refit.num_steps=100"),
    "mitochondria": ("segmentation.num_steps=200", "refit.num_steps=80"),
}
COMMON = (
    "num_threads=1",
    "segmentation.filters=[8,16,32,48]",
    "segmentation.max_pixel_size_nm=16",
    "segmentation.patch_shape_zyx=[8,64,64]",
    "streams.supervised.num_steps=150",
    "streams.unsupervised.num_steps=200",
    "streams.active_clustering.num_steps=40",
)


def run_demo(out: Path, *, task: str, rounds: int, seed: int) -> Path:
    """Run the demonstration in ``out``, or go on with one that was stopped.

    Args:
        out: folder; made if need be.
        task: "polarity" or "mitochondria".
        rounds: batches to ask.
        seed: of the tissue and of the project.

    Returns:
        The report.

    Raises:
        InputError: another task, or ``out`` holds a demonstration of other settings.
    """
    if task not in KIND:
        raise InputError(f"--task is {task!r}; expected one of {', '.join(KIND)}.")
    if rounds < 1:
        raise InputError(f"--rounds is {rounds}; expected at least 1.")
    image, labels = (_tissue(out, kind, seed) for kind in ("image", KIND[task]))
    project = _project(out, task, seed, image, labels)
    run(project, rounds=0)
    rival = out / "random"
    if not (rival / CONFIG_NAME).exists():
        fork_project(project, rival, ["query.strategy=random"])
    _run_both(project, Project(rival), rounds, labels)
    projects = [project, Project(rival)]
    _print_scores(projects)
    report = write_report(projects)
    Console().print(f"One seed: an illustration, not evidence. Report: {report}")
    return report


def _run_both(project: Project, rival: Project, rounds: int, truth_uri: str) -> None:
    """Both strategies at once, one core each: the rival as a process of its own, with a log beside it."""
    log = rival.root / "run.log"
    command = [sys.executable, "-m", "twostream", "run", str(rival.root), "--rounds", str(rounds), "--truth", truth_uri]
    progress.say(f"asking by {rival.config.query.strategy} beside it, in a second process (see {log})")
    with open(log, "w") as handle:
        other = subprocess.Popen(command, stdout=handle, stderr=handle)
        try:
            run(project, rounds=rounds, truth_uri=truth_uri)
            if other.poll() is None:
                progress.say(f"waiting for the {rival.config.query.strategy} run")
            status = other.wait()
        finally:
            # A run that is interrupted takes its companion along; both go on where they stopped when called again.
            other.terminate()
    if status != 0:
        raise TwoStreamError(f"the {rival.config.query.strategy} run failed; its last words are in {log}.")


def _tissue(out: Path, kind: str, seed: int) -> str:
    """Synthetic tissue as OME-Zarr in the demo folder; its URI."""
    path = out / "tissue" / f"{kind}.zarr"
    z, y, x = SHAPE_ZYX
    if not path.exists():
        source = open_volume(f"synthetic://seed={seed}&kind={kind}&shape={z},{y},{x}")
        path.parent.mkdir(parents=True, exist_ok=True)

        def fill(partial: Path) -> None:
            target = create_volume(
                str(partial), shape_zyx=source.shape_zyx, dtype=source.dtype, voxel_size_nm=source.voxel_size_nm
            )
            blocks = list(grid(source.box, (16, 128, 128)))
            with progress.task(f"grow tissue: {kind}", total=len(blocks)) as advance:
                for block in blocks:
                    target.write(block.write_box, source.read(block.write_box))
                    advance(1)

        write_folder(path, fill)
    return str(path)


def _project(out: Path, task: str, seed: int, image: str, labels: str) -> Project:
    if (out / CONFIG_NAME).exists():
        project = Project(out)
        if (project.config.task, project.config.seed) != (task, seed):
            raise InputError(
                f"{out} holds a demonstration of {project.config.task} with seed {project.config.seed}; "
                f"choose another folder with --out, or remove it."
            )
        return project
    overrides = [*SETTINGS[task], *COMMON]
    return create_project(
        out,
        task=task,
        image=image,
        labels=labels,
        labels_box=LABELS_BOX,
        seed=seed,
        budget=BUDGET,
        overrides=overrides,
    )


def _print_scores(projects: list[Project]) -> None:
    table = Table(title="Scores on the test box, by what was asked", caption="Definitions are in the report.")
    names = list(projects[0].ledger.scores()[0]["scores"])
    for column in ("strategy", "round", "answers", *(name.replace("_", " ") for name in names)):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for project in projects:
        for number, metrics in project.ledger.scores().items():
            values = [metrics["scores"].get(name) for name in names]
            shown = ["–" if value is None else f"{value:.3f}" for value in values]
            table.add_row(project.config.query.strategy, str(number), str(metrics["num_answers"]), *shown)
        table.add_section()
    Console().print(table)
