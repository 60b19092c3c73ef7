"""The demonstration: the whole loop on synthetic tissue with a simulated annotator, beside two controls.

Knows the loop, synthetic tissue and the terminal. The demo folder is a project like any other. Two more projects, which
share its round 0, lie inside it: one asks at random, the other learns from no answer.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
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
from twostream.report.gains import gains, num_answers
from twostream.report.overview import project_names
from twostream.rounds.loop import run
from twostream.volume import create_volume, open_volume

# With coarse pixels and few steps of training, three rounds take less than ten minutes on two cores.
COMMON = (
    "num_threads=1",
    "segmentation.max_pixel_size_nm=16",
    "segmentation.filters=[8,16,32,48]",
    "segmentation.patch_shape_zyx=[8,64,64]",
    "streams.supervised.num_steps=150",
    "streams.unsupervised.num_steps=200",
    "segmentation.num_steps=1200",
    "refit.num_steps=250",
)


@dataclass(frozen=True)
class Scene:
    """Tissue and settings of the demonstration of one task.

    Attributes:
        labels: which labels of the synthetic tissue are the truth.
        shape_zyx: voxels of tissue.
        labels_box: where S is trained in round 0, as Z0:Z1,Y0:Y1,X0:X1.
        test_box: where S is scored; None takes the default. With few objects, F1 says more about chance than about S.
        budget: answers per round.
        overrides: settings of the project, as ``a.b=value``.
    """

    labels: str
    shape_zyx: tuple[int, int, int]
    labels_box: str
    test_box: str | None
    budget: int
    overrides: tuple[str, ...]


SCENES = {
    "polarity": Scene(
        "synapses",
        (32, 384, 960),
        "0:32,0:384,0:112",
        "0:32,0:384,512:960",
        25,
        (*COMMON, "streams.active_clustering.num_steps=40"),
    ),
    "mitochondria": Scene(
        "mitochondria",
        (36, 480, 800),
        "0:36,0:160,0:112",
        None,
        8,
        COMMON,
    ),
}
BESIDE: dict[str, tuple[str, ...]] = {
    "random": ("query.strategy=random",),
    # One refit for as many steps as those of the others together is enough where nothing is learned from answers.
    "no_answers": ("refit.use_answers=false", "rounds=1"),
}
"""{folder: settings} of the projects beside the demonstration's: asking at random, and learning from no answer."""
SCORE_COLUMNS = {
    "candidate_recall": "cand.\nrec.",
    "candidate_accuracy": "cand.\nacc.",
    "roi_accuracy": "roi\nacc.",
    "average_precision": "AP",
    "instance_f1": "inst.\nF1",
    "foreground_iou": "fg.\nIoU",
    "curated_accuracy": "cur.\nacc.",
}
"""{score: heading} of the scores that fit into a terminal of 80 columns; the report shows them with their meanings."""


def run_demo(out: Path, *, task: str, rounds: int, seed: int) -> Path:
    """Run the demonstration in ``out``, or continue one that was stopped.

    Args:
        out: folder, created if it does not exist.
        task: "polarity" or "mitochondria".
        rounds: how many batches of queries to ask, at least 1.
        seed: seed of the tissue and of the project.

    Returns:
        Path of the report.

    Raises:
        InputError: the task is another one, ``rounds`` is less than 1, or ``out`` holds a demonstration with another
            task or seed.
        TwoStreamError: a project beside it failed; its log says why.
    """
    if task not in SCENES:
        raise InputError(f"--task is {task!r}; expected one of {', '.join(SCENES)}.")
    if rounds < 1:
        raise InputError(f"--rounds is {rounds}; expected at least 1.")
    scene = SCENES[task]
    _check_free(out, task, seed)
    image, labels = (write_tissue(out, kind, seed, scene.shape_zyx) for kind in ("image", scene.labels))
    project = _project(out, task, seed, image, labels)
    run(project, rounds=0, truth_uri=labels)
    for name, settings in BESIDE.items():
        if not (out / name / CONFIG_NAME).exists():
            num_steps = project.config.refit.num_steps * (rounds if name == "no_answers" else 1)
            fork_project(project, out / name, [*settings, f"refit.num_steps={num_steps}"])
    beside = [Project(out / name) for name in BESIDE]
    _run_all(project, beside, rounds, labels)
    projects = [project, *beside]
    _print_gains(projects)
    _print_scores(projects)
    waiting = run(project, rounds=rounds + 1)  # without the truth: this batch waits for a person
    report = write_report(projects)
    console = Console(soft_wrap=True)
    console.print(f"One seed: an illustration, not evidence. Report: {report}")
    if waiting.num_open:
        console.print(f"The next {waiting.num_open} queries wait for you. To answer them in the browser:")
        console.print(project.command("serve", "--allow-run"), markup=False, highlight=False)
    return report


def _run_all(project: Project, beside: Sequence[Project], rounds: int, truth_uri: str) -> None:
    """Run the projects at the same time, one core each: those beside it in a second process, one after the other."""
    log = project.root / "beside.log"
    progress.say(f"beside it, in a second process: asking at random, and learning from no answer (see {log})")
    command = [sys.executable, "-m", "twostream.demo", str(rounds), truth_uri, *(str(one.root) for one in beside)]
    with open(log, "w") as handle:
        process = subprocess.Popen(command, stdout=handle, stderr=handle)
        try:
            run(project, rounds=rounds, truth_uri=truth_uri)
            if process.poll() is None:
                progress.say("waiting for the second process")
            status = process.wait()
        finally:
            # Interrupting the demonstration stops both; both go on when it is called again.
            process.terminate()
    if status != 0:
        raise TwoStreamError(f"the runs beside it failed; see {log}. Repeat the command to continue.")


def write_tissue(out: Path, kind: str, seed: int, shape_zyx: tuple[int, int, int]) -> str:
    """Write synthetic tissue, or its labels, as OME-Zarr into the demo folder, unless it is there; return its URI."""
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
            with progress.task(f"make tissue: {kind}", total=len(blocks)) as advance:
                for block in blocks:
                    target.write(block.write_box, source.read(block.write_box))
                    advance(1)

        write_folder(path, fill)
    return str(path)


def _check_free(out: Path, task: str, seed: int) -> None:
    """Raise InputError where ``out`` holds a demonstration with another task or seed."""
    if not (out / CONFIG_NAME).exists():
        return
    config = Project(out).config
    if (config.task, config.seed) != (task, seed):
        raise InputError(
            f"{out} holds a demonstration of {config.task} with seed {config.seed}; "
            f"choose another folder with --out, or remove it."
        )


def _project(out: Path, task: str, seed: int, image: str, labels: str) -> Project:
    """The project in ``out``, created if it does not exist."""
    if (out / CONFIG_NAME).exists():
        return Project(out)
    scene = SCENES[task]
    return create_project(
        out,
        task=task,
        image=image,
        labels=labels,
        labels_box=scene.labels_box,
        test_box=scene.test_box,
        seed=seed,
        budget=scene.budget,
        overrides=scene.overrides,
    )


def _print_gains(projects: list[Project]) -> None:
    """Print what the answers bought, as the report's first table has it."""
    metrics = [project.ledger.scores() for project in projects]
    table = Table(title="What the answers bought", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("", "before", *project_names(projects)):
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)
    controls = [not project.config.refit.use_answers for project in projects]
    for row in gains(metrics, controls):
        table.add_row(row.title, row.before, *row.after)
    table.add_row("answers learned", "0", *num_answers(metrics, controls))
    Console().print(table)


def _print_scores(projects: list[Project]) -> None:
    """Print the scores of each round of each project as a table."""
    table = Table(
        title="Scores by number of answers",
        caption="cand. candidate · rec. recall · acc. accuracy · inst. instance · fg. foreground · cur. curated; "
        "measured on the test box, curated accuracy on the pool; the report explains them",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for column in ("", "round", "answers", *SCORE_COLUMNS.values()):
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)
    for project in projects:
        if not project.config.refit.use_answers:
            continue
        for round_number, metrics in project.ledger.scores().items():
            values = [metrics["scores"].get(name) for name in SCORE_COLUMNS]
            shown = ["–" if value is None else f"{value:.2f}" for value in values]
            table.add_row(project.config.query.strategy, str(round_number), str(metrics["num_answers"]), *shown)
        table.add_section()
    Console().print(table)


if __name__ == "__main__":  # the second process of ``_run_all``
    for root in sys.argv[3:]:
        one = Project(Path(root))
        run(one, rounds=min(int(sys.argv[1]), one.config.rounds), truth_uri=sys.argv[2])
