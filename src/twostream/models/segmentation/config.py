"""Settings of S. Knows numbers; must not import torch, so that a project can be read anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from twostream.base.config import Config

ISOTROPIC_RATIO = 2.0
"""Sections thicker than this many pixels are thick: the first level of S does not look across them."""
COARSE_PIXEL_NM = 12.0
"""At coarser pixels 64 of them are a micrometre."""
Chance = Annotated[float, Field(ge=0, le=1)]


class AugmentConfig(Config):
    """How often each variation happens to a training crop, and how strong it is.

    Attributes:
        flip: whether crops are flipped along each axis and turned by quarters, each with chance 1/2.
        rescale, elastic, grey, noise, missing_section, missing_part, misalignment, motion_blur, cut_noise, cut_blur:
            chance per crop.
        rotate: chance of a turn in plane by any angle.
        rescale_range: in-plane factors.
        elastic_sigma_px: width of the in-plane displacement field; elastic_alpha_px its largest displacement.
        misalignment_px: largest shift of a section, or of all sections from one on, against the rest.
    """

    flip: bool = True
    rotate: Chance = 0.2
    rescale: Chance = 0.2
    rescale_range: tuple[PositiveFloat, PositiveFloat] = (0.8, 1.25)
    elastic: Chance = 0.2
    elastic_sigma_px: float = Field(12.0, gt=0)
    elastic_alpha_px: float = Field(6.0, ge=0)
    grey: Chance = 0.8
    noise: Chance = 0.5
    missing_section: Chance = 0.1
    missing_part: Chance = 0.1
    misalignment: Chance = 0.1
    misalignment_px: int = Field(8, ge=0)
    motion_blur: Chance = 0.1
    cut_noise: Chance = 0.1
    cut_blur: Chance = 0.1

    @model_validator(mode="after")
    def _low_to_high(self) -> AugmentConfig:
        if self.rescale_range[0] > self.rescale_range[1]:
            raise ValueError(f"rescale_range is {self.rescale_range}; expected the smaller factor first")
        return self


class LossConfig(Config):
    """What S is punished for. Terms of weight 0 are not computed.

    Attributes:
        cross_entropy: weight of the (class-weighted) cross-entropy.
        dice: weight of the Dice loss.
        non_overlap: weight of mean(P(pre) P(post) stop-gradient P(union)): no voxel is before and after at once.
            Polarity only; the exclusive form needs none.
        distance: weight of the squared error of a signed-distance channel.
        max_positive_weight: clip of the ratio of background to foreground voxels that weighs foreground. Published
            configurations have 19, which swells masks until neighbours merge: measured in LOG.md.
        dice_smooth: voxels added to both sides of the fraction.
    """

    cross_entropy: float = Field(1.0, ge=0)
    dice: float = Field(1.0, ge=0)
    non_overlap: float = Field(0.0, ge=0)
    distance: float = Field(1.0, ge=0)
    max_positive_weight: float = Field(2.0, ge=1)
    dice_smooth: float = Field(100.0, gt=0)

    @model_validator(mode="after")
    def _something_to_learn(self) -> LossConfig:
        if not self.cross_entropy and not self.dice:
            raise ValueError("cross_entropy and dice are both 0, and nothing would be learned; give one a weight")
        return self


class OptimizerConfig(Config):
    """The optimizer and its schedule: linear warm-up, then a cosine to zero.

    Attributes:
        name: "adamw", or "sgd" with momentum 0.9.
        weight_decay: of the optimizer.
        warmup_steps: None is a tenth of all steps.
        precision: as Lightning writes it; "16-mixed" is for GPUs. "bf16-mixed" is faster on CPUs that multiply bfloat16
            (`avx512_bf16` or `amx_bf16` among the flags of /proc/cpuinfo) as well, and slower on others.
        devices: GPUs to use; on a CPU always one process.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int | None = Field(None, ge=0)
    precision: Literal["32", "16-mixed", "bf16-mixed"] = "32"
    devices: int = Field(1, ge=1)


class WatchConfig(Config):
    """What is watched while S trains.

    Attributes:
        every_steps: steps between two looks at the validation box; 0 never looks.
        patience: looks without a better loss after which training stops; None never stops early.
        tensorboard: whether curves and image panels are written for TensorBoard.
    """

    every_steps: int = Field(0, ge=0)
    patience: int | None = Field(None, ge=1)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _patience_needs_looks(self) -> WatchConfig:
        if self.patience is not None and not self.every_steps:
            raise ValueError("patience counts looks at the validation box; set every_steps as well")
        return self


class SegmentationConfig(Config):
    """S: an anisotropic residual U-Net, its training and its prediction.

    Attributes:
        filters: channels per level; the number of levels is their number.
        max_pixel_size_nm: voxels finer than this are folded into channels before the first convolution (space to
            depth), so that nothing is lost and speed is won; the logits are interpolated back. None takes the
            task's pixel size.
        sections: "3d" lets levels see neighbouring sections once their pixels are as coarse as sections are thick
            (2.5D on thick sections); "2d" never does.
        exclusive: polarity only: one class per voxel (softmax) instead of three independent channels.
        patch_shape_zyx: training crop, in folded voxels.
        batch_size: crops per step.
        num_steps: of the first training, on the labelled box.
        learning_rate: peak.
        foreground_share: share of the training crops that are centred on an object.
        reject_below_voxels: a crop with fewer foreground voxels (of the image) is drawn anew ...
        reject_chance: ... with this chance, a bounded number of times.
        window_shape_zyx: what the network sees at once when it predicts, in folded voxels.
        context_zyx: folded voxels by which windows overlap, so that S sees as much around what it predicts; also
            the guard around the test box.
        block_shape_zyx: unit of prediction work, read and written at once, in folded voxels.
        test_time_flips: predictions averaged over flips and quarter turns: 1 (none), 4, 8 or 16.
    """

    filters: tuple[PositiveInt, ...] = Field((12, 24, 48, 64), min_length=3)
    max_pixel_size_nm: float | None = Field(None, gt=0, le=500)
    sections: Literal["3d", "2d"] = "3d"
    exclusive: bool = False
    patch_shape_zyx: tuple[PositiveInt, PositiveInt, PositiveInt] = (8, 96, 96)
    batch_size: int = Field(2, ge=1)
    num_steps: int = Field(800, ge=0)
    learning_rate: float = Field(3e-3, gt=0)
    foreground_share: Chance = 0.7
    reject_below_voxels: int = Field(0, ge=0)
    reject_chance: Chance = 0.95
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    watch: WatchConfig = WatchConfig()
    window_shape_zyx: tuple[PositiveInt, PositiveInt, PositiveInt] = (16, 192, 192)
    block_shape_zyx: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 768, 768)
    context_zyx: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (3, 24, 24)
    test_time_flips: Literal[1, 4, 8, 16] = 1

    @model_validator(mode="after")
    def _windows_get_on(self) -> SegmentationConfig:
        for overlap, window, axis in zip(self.context_zyx[1:], self.window_shape_zyx[1:], "YX", strict=True):
            if 2 * overlap > window:
                raise ValueError(
                    f"context_zyx is {overlap} along {axis}, window_shape_zyx {window}; "
                    f"windows overlap by the context, expected at most half of one"
                )
        return self


class RefitConfig(Config):
    """How answers change S.

    Attributes:
        start: "warm" goes on from the S of the round before; "scratch" trains a new S on labels and answers, for as
            many steps as the first.
        num_steps: fine-tuning steps per round, from a warm start.
        learning_rate: peak, from a warm start.
        replay_share: share of the crops that come from the labelled box.
        rim_nm: voxels this near the border of an answered mask are ignored: an annotator's True is about the
            object, not about its last voxel.
        recent_share: share of the answer crops taken from the newest round's answers.
        hold: where nothing is known, S is held to what the S of the round before said, if that gave a probability of at
            least this to either side: the learner's belief stands in for labels, a guard against forgetting, and what
            keeps a small answered mask from filling a whole step. What it doubted is left free to follow the answers.
            0.5 holds everywhere; None holds nowhere.
        emphasis: what a voxel of an answered object, and of its margin, counts beside any other: objects are few among
            the voxels of a crop, and what is held of the rest would drown what a person said.
        margin_nm: width of that margin. About a wrong shape nothing is held.
        freeze_norm: keep the statistics of batch normalisation, another guard. Chosen on development (LOG.md).
    """

    start: Literal["warm", "scratch"] = "warm"
    num_steps: int = Field(400, ge=0)
    learning_rate: float = Field(3e-3, gt=0)
    replay_share: Chance = 0.5
    rim_nm: float = Field(20.0, ge=0)
    recent_share: Chance = 0.5
    hold: float | None = Field(0.9, ge=0.5, le=1)
    emphasis: int = Field(10, ge=1, le=254)
    margin_nm: float = Field(60.0, ge=0)
    freeze_norm: bool = True


def fold_for(voxel_size_nm: Sequence[float], pixel_size_nm: float) -> tuple[int, int, int]:
    """Voxels to fold into one along Z, Y, X, so that S looks at voxels of about ``pixel_size_nm`` or coarser."""
    in_plane = max(1, round(pixel_size_nm / max(voxel_size_nm[1:])))
    return max(1, round(pixel_size_nm / voxel_size_nm[0])), in_plane, in_plane


def shapes_for(voxel_size_nm: Sequence[float], pixel_size_nm: float) -> dict[str, tuple[int, int, int]]:
    """Crop, window, block and context for a new project, where nobody has chosen: the defaults are for thick sections.

    Crops are about a micrometre wide. Isotropic voxels get boxes as high as they are wide, of as many voxels: a crop
    of eight voxels would show a mitochondrion as a slice.

    Returns:
        Fields of ``SegmentationConfig``; empty where its defaults fit.
    """
    z, y = (v * f for v, f in zip(voxel_size_nm[:2], fold_for(voxel_size_nm, pixel_size_nm)[:2], strict=True))
    if z >= ISOTROPIC_RATIO * y:
        return {"patch_shape_zyx": (8, 64, 64)} if y > COARSE_PIXEL_NM else {}
    return {
        "patch_shape_zyx": (32, 48, 48),
        "window_shape_zyx": (64, 96, 96),
        "block_shape_zyx": (128, 384, 384),
        "context_zyx": (16, 16, 16),
    }


def context_voxels(config: SegmentationConfig, fold_zyx: Sequence[int]) -> tuple[int, int, int]:
    """What S sees around what it predicts, in voxels of the image, (z, y, x)."""
    z, y, x = (c * f for c, f in zip(config.context_zyx, fold_zyx, strict=True))
    return z, y, x
