"""Build S for a task and a voxel size, train it on crops, store it and load it.

The caller passes a function that draws crops; whether they come from the labels boxes or from answers makes no
difference here. Knows arrays, crops and checkpoints; must not know volumes, projects or answers.
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
from twostream.models.training import DAMAGED, FitModule, best_weights, fit, save_atomically
from twostream.task import CERTAIN, IGNORE, Task

Draw = Callable[[np.random.Generator], Crop]
"""Random generator -> one training crop; all crops of a training have the same shape."""
NUM_PANELS = 2
"""Number of validation crops of which TensorBoard shows image, target and probability."""


@dataclass
class Segmenter:
    """S: the network, the description from which it can be built again, and the normalisation of its input.

    Attributes:
        network: normalised image_B1ZYX float32 -> logit_BLZYX of the same Z, Y, X.
        architecture: plain values for ``network.build``; the entry "head" is for ``heads.head_of``.
        mean: mean grey value of the labels boxes.
        std: standard deviation of the grey values of the labels boxes.
    """

    network: FoldedUNet
    architecture: dict[str, Any]
    mean: float
    std: float

    @property
    def head(self) -> Head:
        """The head that turns logits into the probability of the task's channels."""
        return head_of(self.architecture["head"])

    def normalise(self, image: np.ndarray) -> np.ndarray:
        """Grey values, uint8 of any shape -> (grey - mean) / std, float32 of the same shape."""
        grey = image.astype(np.float32)
        grey -= np.float32(self.mean)
        grey /= np.float32(self.std)
        return grey

    def restart(self, seed: int) -> None:
        """Replace the network by an untrained one whose weights depend on ``seed`` alone."""
        self.network = build(self.architecture, seed)

    def save(
        self, path: Path, training: Training | None = None, *, weights: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Write a checkpoint that ``load`` reads.

        Args:
            path: replaced atomically.
            training: its losses are stored too.
            weights: a state dict to store in place of the network's own weights.
        """
        state = {"weights": weights or self.network.state_dict(), "architecture": self.architecture}
        history = {} if training is None else {"losses": training.losses, "looks": training.validation_losses}
        save_atomically(state | {"mean": self.mean, "std": self.std} | history, path)

    @classmethod
    def load(cls, path: Path) -> Segmenter:
        """S from a checkpoint, on the CPU in evaluation mode.

        Raises:
            InputError: the file is missing, damaged or not a checkpoint of S.
        """
        try:
            state = torch.load(path, weights_only=True)
            network = build(state["architecture"], seed=0)
            network.load_state_dict(state["weights"])
            network.eval()
            return cls(network, state["architecture"], state["mean"], state["std"])
        except (*DAMAGED, OSError) as error:
            why = str(error).strip().rstrip(".")
            raise InputError(
                f"{path} is not a checkpoint of S: {why}. Put it back from a copy, or from `last.ckpt` in the same "
                f"folder, if there is one (the weights of the last training step); or delete it and let `twostream "
                f"repair` train it again."
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
        task: determines the output channels and the default pixel size.
        config: filters, folding, dimensionality and head.
        voxel_size_nm: (z, y, x) nm of the image.
        num_sections: Z extent of the image; a thin stack is not down-sampled along Z.
        grey: mean and standard deviation of the grey values of the labels boxes, 0 to 255.
        seed: seed of the initial weights.
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
    """(z, y, x) voxels of the image of which the shape of S's input must be a multiple."""
    return total_stride(
        tuple(segmenter.architecture["fold_zyx"]), [tuple(s) for s in segmenter.architecture["strides"]]
    )


def crop_shape(segmenter: Segmenter, config: SegmentationConfig) -> tuple[int, int, int]:
    """Training crop, (z, y, x) voxels of the image: ``patch_shape_zyx`` times the fold, rounded up to S's stride."""
    fold_zyx, stride = segmenter.architecture["fold_zyx"], stride_of(segmenter)
    z, y, x = (-(-p * f // s) * s for p, f, s in zip(config.patch_shape_zyx, fold_zyx, stride, strict=True))
    return z, y, x


class SegmentationModule(FitModule):
    """The training of S, for ``training.fit``.

    Args:
        segmenter: S; its network is trained in place.
        config: settings of loss, optimizer and validation.
        learning_rate: its highest value.
        validation: crops for the validation checks: images (N, Z, Y, X) uint8 and target levels (N, C, Z, Y, X) uint8.
            None: no validation.
        freeze_norm: keep the running statistics of batch normalisation, so that unusual crops do not shift them.
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
            decay_norms=config.optimizer.decay_norms,
            clip_norm=config.optimizer.clip_norm,
            warmup_steps=config.optimizer.warmup_steps,
            validate_every=config.watch.every_steps if validation is not None else 0,
            patience=config.watch.patience if validation is not None else None,
        )
        self._head, self._loss = segmenter.head, config.loss
        self._freeze_norm = freeze_norm
        self.fingerprint = {"segmentation": config.model_dump(mode="json"), "freeze_norm": freeze_norm}
        self._validation = None
        if validation is not None:
            image = segmenter.normalise(validation[0])[:, None]
            self._validation = torch.from_numpy(image), torch.from_numpy(validation[1])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # For every batch: Lightning does not call the hook of an epoch's start in the first epoch after a resume.
        if self._freeze_norm:
            for layer in self.network.modules():
                if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                    layer.eval()

    def loss(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        image, target, weight = batch
        return self._head.loss(self.network(image).float(), target, self._loss, weight)

    def validation_loss(self) -> float:
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
    """The middle section of a crop as one picture for TensorBoard.

    Args:
        image: (Z, Y, X) float32, normalised.
        target: (C, Z, Y, X) uint8 levels; ignored voxels are shown medium grey.
        probability: (C, Z, Y, X) float32.

    Returns:
        (1, Y, X * (1 + 2 C)) float32 in [0, 1]: side by side the image, then target and probability of each channel.
    """
    z = image.shape[0] // 2
    grey = ((image[z] + 2.5) / 5).clamp(0, 1)  # black to white is -2.5 to 2.5 standard deviations
    level = torch.where(target[:, z] == IGNORE, 0.5, target[:, z].float() / CERTAIN)
    pairs = [part for c in range(len(target)) for part in (level[c], probability[c, z])]
    return torch.cat([grey, *pairs], 1)[None]


@dataclass(frozen=True)
class _CropSample:
    """t -> training sample t, drawn with a generator seeded by (seed, t). Can be pickled for other processes."""

    segmenter: Segmenter
    crop: Draw
    config: SegmentationConfig
    seed: int

    def __call__(self, t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image (1, Z, Y, X) float32, target levels (C, Z, Y, X) uint8, and weight (1, Z, Y, X) float32."""
        rng = np.random.default_rng([self.seed, t])
        crop = self.crop(rng)
        # Weights are transformed as another channel of the target. Where voxels come from outside the crop, they get a
        # meaningless weight (``IGNORE``), which has no effect because the target is ignored there as well.
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
    """Train S in place; a training that was killed is resumed (see ``training.fit``).

    Args:
        segmenter: S, changed in place. It ends with the weights of the validation check with the lowest loss; without
            validation, with those of the last step.
        crop: draws a training crop; that of sample t with a generator seeded by (seed, t).
        config: settings of S; ``num_steps`` and ``learning_rate`` are arguments, because refitting has its own.
        num_steps: optimizer steps.
        learning_rate: its highest value.
        seed: seed of the samples.
        resume_path: checkpoint of a training that is not finished; the caller deletes it afterwards.
        description: label of the progress bar.
        validation: see ``SegmentationModule``.
        freeze_norm: see ``SegmentationModule``.
        fingerprint: whatever else the weights depend on, such as a digest of the training data. If it differs from that
            of the checkpoint at ``resume_path``, training starts from the beginning.

    Returns:
        Losses and last weights.

    Raises:
        TrainingError: the loss is not finite.
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
    ends_with_last = module.patience is not None
    last = {} if ends_with_last else {name: value.clone() for name, value in segmenter.network.state_dict().items()}
    segmenter.network.load_state_dict(best_weights(module))
    segmenter.network.eval()
    is_cut_short = ends_with_last and bool(module.validation_losses) and module.cools_from is None
    return Training(losses, module.validation_losses, last, is_cut_short)


@dataclass(frozen=True)
class Training:
    """The result of a training, beside the weights that S ended with.

    Attributes:
        losses: training loss of every step.
        validation_losses: (step, loss) of every validation check.
        last: weights after the last step, which differ from those of S if an earlier validation check had a lower loss;
            empty where the settings let S end with its last weights (``watch.patience``).
        is_cut_short: whether the steps were spent before validation, which the settings let end the training, did.
    """

    losses: list[float]
    validation_losses: list[tuple[int, float]]
    last: dict[str, torch.Tensor]
    is_cut_short: bool = False
