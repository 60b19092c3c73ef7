"""Which files of the rounds must be there, and which of them are gone.

Knows which step writes a file and how long it is needed; must not import torch. How a file is made again is in
``rounds/remake.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from twostream.base.errors import ProjectError
from twostream.models.streams.config import NETWORKS
from twostream.project.frozen import SETTINGS_NAME
from twostream.project.probabilities import POOL_NAME
from twostream.project.project import Project

SIDE_BY_SIDE_NAME = "side_by_side.npz"
"""File of a round with the map that puts the mask VAE's latents and S's features side by side (``vae+s``)."""


@dataclass(frozen=True, order=True)
class Missing:
    """A file of a round that is gone.

    Attributes:
        round: the round.
        name: of the file.
        is_read: whether a later step reads it; the others are for people, or can be done without.
    """

    round: int
    name: str
    is_read: bool


def missing_files(project: Project) -> list[Missing]:
    """Files of finished steps that are gone, sorted by round.

    ``probability.zarr`` and ``segmentation.zarr`` are not among them: they are made again where they are needed.
    """
    done = project.ledger.finished_steps()
    found = []
    for round_number in range(1 + max((r for r, _ in done), default=-1)):
        steps = {step for r, step in done if r == round_number}
        later = {step for r, step in done if r == round_number + 1}
        for name, step, is_read in _files(project, round_number, steps, refitted="refit" in later):
            if step in steps and not project.path(round_number, name).exists():
                found.append(Missing(round_number, name, is_read))
    return found


def check_files(project: Project) -> None:
    """Check that every file is there which a later step reads.

    Raises:
        ProjectError: one is gone.
    """
    gone = [project.path(one.round, one.name) for one in missing_files(project) if one.is_read]
    if gone:
        what = f"{len(gone)} files that later steps read are gone, among them {gone[0]}. Put them"
        if len(gone) == 1:
            what = f"{gone[0]}, which later steps read, is gone. Put it"
        raise ProjectError(
            f"{what} back from a copy of the project; or `{project.command('repair')}` makes again what is gone, which "
            f"may need a training."
        )


def _files(project: Project, round_number: int, steps: set[str], *, refitted: bool) -> list[tuple[str, str, bool]]:
    """(name, step that writes it, whether a later step reads it) of the files of a round.

    Args:
        project: the project.
        round_number: the round.
        steps: its finished steps.
        refitted: whether the next round has learned already, and so no longer needs the networks of this one.
    """
    first, streams = round_number == 0, project.config.streams
    learns = "train" if first else "refit"
    files = [
        (SETTINGS_NAME, learns, first),
        ("candidates.parquet", "propose", True),
        ("ids.npy", "embed", False),
        ("metrics.json", "score", False),
        ("queries.jsonl", "suggest", False),
        ("answers.jsonl", "answer", False),
    ]
    if project.config.source is None and not refitted:
        files.append(("checkpoint.ckpt", learns, True))
    if streams.supervised.method in NETWORKS and first:
        files.append(("supervised.ckpt", "embed", True))
    if streams.unsupervised.method in NETWORKS and not refitted:
        files.append(("unsupervised.ckpt", "embed" if first else "refit", True))
    if "suggest" not in steps:
        files += [(f"latents_{name}.npy", "embed", True) for name in ("supervised", "unsupervised")]
        if streams.supervised.method == "vae+s":
            files.append((SIDE_BY_SIDE_NAME, "embed", True))
    if not refitted:
        files.append((POOL_NAME, "score", False))
    return files
