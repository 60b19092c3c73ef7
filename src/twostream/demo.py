"""The demonstration: the whole loop on synthetic tissue with a simulated annotator, beside asking at random.

Knows the loop, the tissue and a terminal. The demo folder is a project like any other; the random run that shares
its round 0 lies inside it.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from twostream.base import progress
from twostream.base.atomic import write_folder
from twostream.base.errors import InputError, TwoStreamError
from twostream.base.geometry import grid
from twostream.project.create import create_project, fork_project
from twostream.project.project import CONFIG_NAME, Project
from twostream.report import write_report
from twostream.rounds.loop import run
from twostream.volume import create_volume, open_volume

# A demonstration has ten minutes on two cores for seven models; pixels and steps are what it saves on.
COMMON = (
    "num_threads=1",
    "segmentation.max_pixel_size_nm=16",
    "segmentation.filters=[8,16,32,48]",
    "segmentation.patch_shape_zyx=[8,64,64]",
    "streams.supervised.num_steps=150",
    "streams.unsupervised.num_steps=200",
)


@dataclass(frozen=True)
class Scene:
    """What is shown for one task.

    Attributes:
        labels: kind of truth that the tissue gives.
        shape_zyx: voxels of tissue; mitochondria are fewer than synapses, so they get more.
        labels_box: where S learns first.
        budget: answers per round.
        overrides: settings of the project.
    """

    labels: str
    shape_zyx: tuple[int, int, int]
    labels_box: str
    budget: int
    overrides: tuple[str, ...]


SCENES = {
    "polarity": Scene(
        "synapses",
        (32, 384, 640),
        "0:32,0:384,0:112",
        25,
        (*COMMON, "segmentation.num_steps=300", "refit.num_steps=100", "streams.active_clustering.num_steps=40"),
    ),
    "mitochondria": Scene(
        "mitochondria",
        (36, 480, 800),
        "0:36,0:480,0:144",
        8,
        (*COMMON, "segmentation.num_steps=200", "refit.num_steps=80"),
    ),
}
SHORT = {
    "candidate_recall": "cand.\nrec.",
    "candidate_accuracy": "cand.\nacc.",
    "roi_accuracy": "roi\nacc.",
    "average_precision": "AP",
    "instance_f1": "inst.\nF1",
    "foreground_iou": "fg.\nIoU",
    "curated_accuracy": "cur.\nacc.",
}
"""The scores that a terminal of 80 columns has room for; the others are in the report."""


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
    if task not in SCENES:
        raise InputError(f"--task is {task!r}; expected one of {', '.join(SCENES)}.")
    if rounds < 1:
        raise InputError(f"--rounds is {rounds}; expected at least 1.")
    scene = SCENES[task]
    _check_free(out, task, seed)
    image, labels = (_tissue(out, kind, seed, scene.shape_zyx) for kind in ("image", scene.labels))
    project = _project(out, task, seed, image, labels)
    run(project, rounds=0, truth_uri=labels)
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


def _tissue(out: Path, kind: str, seed: int, shape_zyx: tuple[int, int, int]) -> str:
    """Synthetic tissue as OME-Zarr in the demo folder; its URI."""
    path = out / "tissue" / f"{kind}.zarr"
    z, y, x = shape_zyx
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


def _check_free(out: Path, task: str, seed: int) -> None:
    """Raise InputError where ``out`` holds a demonstration of something else."""
    if not (out / CONFIG_NAME).exists():
        return
    config = Project(out).config
    if (config.task, config.seed) != (task, seed):
        raise InputError(
            f"{out} holds a demonstration of {config.task} with seed {config.seed}; "
            f"choose another folder with --out, or remove it."
        )


def _project(out: Path, task: str, seed: int, image: str, labels: str) -> Project:
    if (out / CONFIG_NAME).exists():
        return Project(out)
    scene = SCENES[task]
    return create_project(
        out,
        task=task,
        image=image,
        labels=labels,
        labels_box=scene.labels_box,
        seed=seed,
        budget=scene.budget,
        overrides=scene.overrides,
    )


def _print_scores(projects: list[Project]) -> None:
    table = Table(
        title="Scores on the test box, by what was asked",
        caption="cand. candidates · rec. recall · acc. accuracy · cur. curated pool; definitions are in the report",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for column in ("", "round", "asked", *SHORT.values()):
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)
    for project in projects:
        for round_number, metrics in project.ledger.scores().items():
            values = [metrics["scores"].get(name) for name in SHORT]
            shown = ["–" if value is None else f"{value:.2f}" for value in values]
            table.add_row(project.config.query.strategy, str(round_number), str(metrics["num_answers"]), *shown)
        table.add_section()
    Console().print(table)
