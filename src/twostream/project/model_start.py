"""A project that begins with a finished model in place of labels: the settings that follow from its card.

Knows cards and settings; must not know the folder of a project, and must not import torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twostream.base.errors import InputError
from twostream.models.segmentation.card import Model
from twostream.volume import Volume


def settings_of_model(path: Path, task: str, image: Volume) -> dict[str, Any]:
    """Settings of a new project whose S of round 0 is a finished model.

    Thresholds are those of the card, because there are no labels on which to choose them.

    Args:
        path: ``card.json``, or its folder.
        task: name of the task of the project.
        image: the image, (Z, Y, X).

    Raises:
        InputError: there is no such model, a file is missing or another one, or task or voxel size do not fit.
        ConfigError: the card is not valid.
    """
    model = Model(path)
    card = model.card
    if card.task != task:
        raise InputError(f"{model.path} is a model for {card.task}, but --task is {task}. Pass --task {card.task}.")
    model.check_fits(image)
    model.file("checkpoint")  # refuse now what would stop round 0
    return {
        "model": {"uri": os.path.abspath(model.path), "sha256": card.files["checkpoint"].sha256},
        "segmentation": card.segmentation.model_dump(mode="json"),
        "decoding": card.decoding.model_dump(mode="json"),
        "candidates": {
            "threshold": card.thresholds.threshold,
            "final_threshold": card.thresholds.final_threshold,
            "min_object_nm3": card.thresholds.min_object_nm3,
        },
    }
