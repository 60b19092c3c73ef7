"""The command `tune`: decoding settings are tried on the validation box and listed, best first.

Knows a round's probability, labels and the settings of decoding; must not know S, candidates or answers.
"""

from __future__ import annotations

from twostream.base.errors import ProjectError
from twostream.candidates.tuning import tune
from twostream.project.project import CONFIG_NAME, Project
from twostream.rounds.predict import probability_of

FEW_OBJECTS = 10
"""With fewer objects in the validation box, the order of the settings is mostly chance."""
NUM_SHOWN = 10
"""Number of settings that `tune` prints."""


def tune_project(project: Project, *, write: bool = False) -> list[str]:
    """Try decoding settings on the validation box, with the probability of the newest round that has one.

    Args:
        project: a project with labels.
        write: whether to write the best settings into ``twostream.yaml``.

    Returns:
        Lines for a terminal, the best settings first.

    Raises:
        ProjectError: the project has no labels, its source brings instances, or no round has been predicted.
        InputError: the validation box holds no object.
    """
    source = project.config.source
    if project.config.labels is None:
        raise ProjectError(
            f"{project.root} has no labels to compare with, so decoding cannot be tuned. Set `decoding` and "
            f"`candidates.final_threshold` in {project.root / CONFIG_NAME} by hand."
        )
    if source and source.brings_instances:
        raise ProjectError(
            f"the candidates of {project.root} are the instances of a {source.name} as they are; nothing is decoded, "
            f"so there is nothing to tune."
        )
    predicted = [n for n, step in project.ledger.finished_steps() if step == "predict"]
    if not predicted:
        raise ProjectError(f"{project.root} has no probability yet; run `{project.command('predict')}` first.")
    round_number = max(predicted)
    val_box = project.boxes.validation
    probability = probability_of(project, round_number).read(val_box)
    ignore = None if project.labels_ignore is None else project.labels_ignore.read(val_box)
    trials = tune(probability, project.labels.read(val_box), ignore, project.task, project.min_voxels)
    num_truth = trials[0].num_truth
    lines = [f"round {round_number}, validation box {val_box}: {num_truth} objects, {len(trials)} different results"]
    if num_truth < FEW_OBJECTS:
        lines.append(f"fewer than {FEW_OBJECTS} objects: the order below is mostly chance")
    for trial in trials[:NUM_SHOWN]:
        words = " ".join(f"{k}={v}" for k, v in trial.decoding.items())
        lines.append(
            f"F1 {trial.instance_f1:.3f}  foreground IoU {trial.foreground_iou:.3f}  "
            f"candidates.final_threshold={trial.threshold} {words}  (min_score {trial.min_score:g})"
        )
    if write:
        best = trials[0]
        changes = {f"decoding.{k}": v for k, v in best.decoding.items()}
        kept = project.rewrite(changes | {"candidates.final_threshold": best.threshold})
        lines.append(f"the first settings are now in {project.root / CONFIG_NAME}; the old file is kept as {kept.name}")
    return lines
