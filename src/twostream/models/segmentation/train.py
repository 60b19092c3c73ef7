"""S: building it for a task and a voxel size, fitting it to crops, storing it whole.

Knows arrays, crops and checkpoints; where crops come from (labelled box or answers) is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostream.base.errors import InputError
from twostream.models.segmentation.augment import augment
from twostream.models.segmentation.config import SegmentationConfig, fold_for
from twostream.models.segmentation.heads import ExclusiveHead, Head, IndependentHead, head_of
from twostream.models.segmentation.lessons import Crop
from twostream.models.segmentation.network import FoldedUNet, build, strides_for, total_stride
from twostream.models.training import DAMAGED, FitModule, best_of, fit, save_whole
from twostream.task import CERTAIN, IGNORE, Task

Draw = Callable[[np.random.Generator], Crop]
"""Generator -> a crop of the training crop's shape."""
NUM_PANELS = 2
"""Crops of the validation box that TensorBoard shows."""


@dataclass
class Segmenter:
    """S with all it needs to be used again.

    Attributes:
        network: image_B1ZYX -> logit_BLZYX.
        architecture: plain description that ``network.build`` and ``heads.head_of`` understand.
        mean: grey value that is mapped to 0.
        std: grey values that are mapped to 1.
    """

    network: FoldedUNet
    architecture: dict[str, Any]
    mean: float
    std: float

    @property
    def head(self) -> Head:
        """What the logits mean."""
        return head_of(self.architecture["head"])

    def normalise(self, image: np.ndarray) -> np.ndarray:
        """uint8 of any shape -> float32 of mean 0 and deviation 1 on the labelled box."""
        grey = image.astype(np.float32)
        grey -= np.float32(self.mean)
        grey /= np.float32(self.std)
        return grey

    def restart(self, seed: int) -> None:
        """Forget everything learned: new weights from ``seed``."""
        self.network = build(self.architecture, seed)

    def save(
        self, path: Path, training: Training | None = None, *, weights: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Write ``weights`` (None: its own) and all that is needed to use them, with the history of the training."""
        state = {"weights": weights or self.network.state_dict(), "architecture": self.architecture}
        history = {} if training is None else {"losses": training.losses, "looks": training.looks}
        save_whole(state | {"mean": self.mean, "std": self.std} | history, path)

    @classmethod
    def load(cls, path: Path) -> Segmenter:
        """Raises InputError where the file is missing or no checkpoint of S."""
        try:
            state = torch.load(path, weights_only=True)
            network = build(state["architecture"], seed=0)
            network.load_state_dict(state["weights"])
            network.eval()
            return cls(network, state["architecture"], state["mean"], state["std"])
        except (*DAMAGED, OSError) as error:
            why = str(error).strip().rstrip(".")
            raise InputError(
                f"{path} is no checkpoint of S: {why}. Put it back from a copy (`last.ckpt` beside it, where there is "
                f"one, is S as its training ended); without it this project cannot go on: make a new one."
            ) from None


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
    strides, depth = strides_for(voxel_size_nm, fold_zyx, len(config.filters), num_sections)
    if config.sections == "2d":
        strides, depth = [(1, y, x) for _, y, x in strides], [1] * len(depth)
    head = ExclusiveHead() if config.exclusive else IndependentHead(task.channels)
    architecture = {
        "num_logits": head.num_logits,
        "filters": list(config.filters),
        "fold_zyx": list(fold_zyx),
        "strides": [list(s) for s in strides],
        "depth": depth,
        "head": head.description,
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


class SegmentationModule(FitModule):
    """S being fitted.

    Args:
        segmenter: its network is trained.
        config: loss, optimizer, watch.
        learning_rate: peak.
        validation: images (N, Z, Y, X) uint8 and levels (N, C, Z, Y, X) uint8 that are looked at, or None.
        freeze_norm: keep the statistics of batch normalisation, so that a few unusual crops do not shift them.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        config: SegmentationConfig,
        learning_rate: float,
        *,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        freeze_norm: bool = False,
    ) -> None:
        super().__init__(
            segmenter.network,
            learning_rate,
            optimizer=config.optimizer.name,
            weight_decay=config.optimizer.weight_decay,
            warmup_steps=config.optimizer.warmup_steps,
            look_every=config.watch.every_steps if validation is not None else 0,
            patience=config.watch.patience,
        )
        self._head, self._loss = segmenter.head, config.loss
        self._freeze_norm = freeze_norm
        self.fingerprint = {"segmentation": config.model_dump(mode="json"), "freeze_norm": freeze_norm}
        self._validation = None
        if validation is not None:
            image = segmenter.normalise(validation[0])[:, None]
            self._validation = torch.from_numpy(image), torch.from_numpy(validation[1])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Not at the start of an epoch: Lightning leaves that out in the first one after a resume.
        if self._freeze_norm:
            for layer in self.network.modules():
                if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                    layer.eval()

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        image, target, weight = batch
        return self._head.loss(self.network(image).float(), target, self._loss, weight)

    def look(self) -> float:
        assert self._validation is not None
        losses = []
        for number, (image, target) in enumerate(zip(*self._validation, strict=True)):
            logit = self.network(image[None].to(self.device)).float()
            losses.append(float(self._head.loss(logit, target[None].to(self.device), self._loss)))
            if self.logger and number < NUM_PANELS:
                panel = _panel(image[0], target, self._head.probability(logit)[0].cpu())
                self.logger.experiment.add_image(f"validation/{number}", panel, self.global_step)
        return float(np.mean(losses))


def _panel(image: torch.Tensor, target: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """Middle section: image (Z, Y, X), then target and probability of each channel; (1, Y, X * (1 + 2 C)) in [0, 1]."""
    z = image.shape[0] // 2
    grey = ((image[z] + 2.5) / 5).clamp(0, 1)  # normalised grey values: 5 deviations fill the range
    level = torch.where(target[:, z] == IGNORE, 0.5, target[:, z].float() / CERTAIN)
    pairs = [part for c in range(len(target)) for part in (level[c], probability[c, z])]
    return torch.cat([grey, *pairs], 1)[None]


@dataclass(frozen=True)
class _CropSample:
    """Sample t of a training; travels to other processes."""

    segmenter: Segmenter
    crop: Draw
    config: SegmentationConfig
    seed: int

    def __call__(self, t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image (1, Z, Y, X), target (C, Z, Y, X), and weight (1, Z, Y, X)."""
        rng = np.random.default_rng([self.seed, t])
        crop = self.crop(rng)
        # The weights move as the levels do; where these are unknown, the weight is of no consequence.
        levels = np.concatenate([crop.target, crop.weight[None]])
        image, levels = augment(self.segmenter.normalise(crop.image), levels, self.config.augment, rng)
        target, weight = levels[:-1].copy(), levels[-1:].astype(np.float32)
        return torch.from_numpy(image[None]), torch.from_numpy(target), torch.from_numpy(weight)


def train(
    segmenter: Segmenter,
    crop: Draw,
    config: SegmentationConfig,
    *,
    num_steps: int,
    learning_rate: float,
    seed: int,
    resume_path: Path,
    description: str,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    freeze_norm: bool = False,
    fingerprint: Mapping[str, Any] | None = None,
) -> Training:
    """Fit S in place; see ``training.fit`` for resuming.

    Args:
        segmenter: changed in place: it ends with the weights of the best look at ``validation``, or the last ones.
        crop: draws a crop; sample t is drawn with a generator seeded by (seed, t).
        validation, freeze_norm: see ``SegmentationModule``.
        fingerprint: what else the weights depend on, such as a digest of what is learned from: where it has changed, a
            half-trained state is not taken up.

    Returns:
        The losses of the training.
    """
    module = SegmentationModule(
        segmenter,
        config,
        learning_rate,
        validation=validation,
        freeze_norm=freeze_norm,
    )
    module.fingerprint |= {"seed": seed, "description": description, **(fingerprint or {})}
    losses = fit(
        module,
        _CropSample(segmenter, crop, config, seed),
        num_steps=num_steps,
        batch_size=config.batch_size,
        resume_path=resume_path,
        description=description,
        precision=config.optimizer.precision,
        devices=config.optimizer.devices,
        tensorboard_dir=resume_path.parent / "tensorboard" if config.watch.tensorboard else None,
    )
    last = {name: value.clone() for name, value in segmenter.network.state_dict().items()}
    segmenter.network.load_state_dict(best_of(module))
    segmenter.network.eval()
    return Training(losses, module.looks, last)


@dataclass(frozen=True)
class Training:
    """The losses of a training.

    Attributes:
        losses: of every step.
        looks: (step, loss) on the validation box.
        last: the last weights, where S has those of the best look.
    """

    losses: list[float]
    looks: list[tuple[int, float]]
    last: dict[str, torch.Tensor]
