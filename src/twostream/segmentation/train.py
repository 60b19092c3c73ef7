"""S: building it for a task and a voxel size, fitting it to crops, storing it whole.

Knows arrays, crops and checkpoints; where crops come from (labelled box or answers) is the caller's business.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostream.errors import InputError
from twostream.segmentation.augment import augment
from twostream.segmentation.config import SegmentationConfig, fold_for
from twostream.segmentation.losses import bce_dice
from twostream.segmentation.network import FoldedUNet, build, strides_for, total_stride
from twostream.task import Task
from twostream.training import FitModule, fit, save_whole

Crop = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Generator -> image (Z, Y, X) uint8 and target (C, Z, Y, X) uint8 of the training crop's shape."""


@dataclass
class Segmenter:
    """S with all it needs to be used again.

    Attributes:
        network: image_B1ZYX -> logit_BCZYX.
        architecture: plain description that ``network.build`` understands.
        mean: grey value that is mapped to 0.
        std: grey values that are mapped to 1.
    """

    network: FoldedUNet
    architecture: dict[str, Any]
    mean: float
    std: float

    def normalise(self, image: np.ndarray) -> np.ndarray:
        """(Z, Y, X) uint8 -> float32 of mean 0 and deviation 1 on the labelled box."""
        return (image.astype(np.float32) - np.float32(self.mean)) / np.float32(self.std)

    def save(self, path: Path, losses: Sequence[float]) -> None:
        state = {"weights": self.network.state_dict(), "architecture": self.architecture}
        save_whole(state | {"mean": self.mean, "std": self.std, "losses": list(losses)}, path)

    @classmethod
    def load(cls, path: Path) -> Segmenter:
        """Raises InputError where the file is missing or no checkpoint of S."""
        try:
            state = torch.load(path, weights_only=True)
            network = build(state["architecture"], seed=0)
            network.load_state_dict(state["weights"])
        except (OSError, KeyError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise InputError(f"{path} is no checkpoint of S: {error}. Run `twostream train` again.") from None
        network.eval()
        return cls(network, state["architecture"], state["mean"], state["std"])


def new_segmenter(
    task: Task,
    config: SegmentationConfig,
    *,
    voxel_size_nm: Sequence[float],
    num_sections: int,
    grey: tuple[float, float],
    seed: int,
) -> Segmenter:
    """An untrained S.

    Args:
        task: gives the output channels.
        config: its size.
        voxel_size_nm: (z, y, x) nm of the image.
        num_sections: Z extent of the image; a thin stack is not down-sampled along Z.
        grey: mean and standard deviation of the labelled box.
        seed: of the weights.
    """
    fold_zyx = fold_for(voxel_size_nm, config.max_pixel_size_nm or task.pixel_size_nm)
    architecture = {
        "num_channels": len(task.channels),
        "filters": list(config.filters),
        "fold_zyx": list(fold_zyx),
        "strides": [list(s) for s in strides_for(voxel_size_nm, fold_zyx, len(config.filters), num_sections)],
    }
    return Segmenter(build(architecture, seed), architecture, grey[0], max(grey[1], 1.0))


def stride_of(segmenter: Segmenter) -> tuple[int, int, int]:
    """Voxels along each axis of which S's input must be a multiple."""
    return total_stride(
        tuple(segmenter.architecture["fold_zyx"]), [tuple(s) for s in segmenter.architecture["strides"]]
    )


def crop_shape(segmenter: Segmenter, config: SegmentationConfig) -> tuple[int, int, int]:
    """Training crop in voxels of the image: the configured shape, unfolded, rounded up to S's stride."""
    fold_zyx, stride = segmenter.architecture["fold_zyx"], stride_of(segmenter)
    z, y, x = (-(-p * f // s) * s for p, f, s in zip(config.patch_shape_zyx, fold_zyx, stride, strict=True))
    return z, y, x


class _SegmentationModule(FitModule):
    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        image, target = batch
        return bce_dice(self.network(image), target)


def train(
    segmenter: Segmenter,
    crop: Crop,
    config: SegmentationConfig,
    *,
    num_steps: int,
    learning_rate: float,
    seed: int,
    resume_path: Path,
    description: str,
) -> list[float]:
    """Fit S in place; see ``training.fit`` for resuming.

    Args:
        segmenter: changed in place.
        crop: draws a crop; sample t is drawn with a generator seeded by (seed, t).

    Returns:
        The loss of every step.
    """

    def sample(t: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([seed, t])
        grey, target = crop(rng)
        image = segmenter.normalise(grey)
        image, target = augment(image, target, config.augment, rng)
        return torch.from_numpy(image[None]), torch.from_numpy(target)

    return fit(
        _SegmentationModule(segmenter.network, learning_rate),
        sample,
        num_steps=num_steps,
        batch_size=config.batch_size,
        resume_path=resume_path,
        description=description,
    )
