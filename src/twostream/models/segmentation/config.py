"""Settings of S: architecture, training, prediction, and how answers change it.

Must not import torch, so that the settings of a project can be read on a machine without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from twostream.base.config import Config

ISOTROPIC_RATIO = 2.0
"""Where a section is at least this many pixels thick, the first level of S has no kernels across sections."""
MAX_REACH_NM = 10_000.0
"""No border or margin is wider than ten micrometres; a larger number has the wrong unit."""
COARSE_PIXEL_NM = 12.0
"""With pixels larger than this, a training crop of 64 pixels is already about a micrometre wide."""
Chance = Annotated[float, Field(ge=0, le=1)]


class AugmentConfig(Config):
    """Augmentation of training crops: the probability of each operation per crop, and its strength.

    The operations are those of PyTorch Connectomics (Lin et al. 2021). Lengths in pixels are voxels of the image, not
    folded ones.

    Attributes:
        flip: whether crops are flipped along each axis and rotated by 90 degrees, each with probability 1/2.
        transpose_zx: whether Z and X are exchanged with probability 1/2. For isotropic voxels; a crop that is not as
            deep as wide stays as it is.
        rotate: probability of an in-plane rotation by any angle.
        rescale: probability of in-plane magnification, by separate factors along Y and X.
        rescale_range: smallest and largest of these factors.
        elastic: probability of an in-plane elastic deformation.
        elastic_sigma_px: standard deviation of the Gaussian that smooths the random displacements.
        elastic_alpha_px: largest displacement.
        grey: probability of a change of contrast, brightness and gamma.
        noise: probability of white noise.
        missing_section: probability of replacing ``defect_sections`` sections by a constant.
        dropped_section: probability of removing ``defect_sections`` sections from image and target, so that those on
            either side become neighbours. The crop keeps its shape: sections that are ignored are added at one end.
        missing_part: probability of replacing part of one section by a constant.
        missing_band_px: width of a band that is missing instead, as published: where parts are missing, each section
            loses one with probability ``missing_part``, but at most one of three neighbours. None: as above.
        misalignment: probability of shifting one section, or all sections from one on, against the others.
        misalignment_px: largest such shift along Y and along X.
        misalignment_rotate: share of these misalignments that are rotations instead, by an angle at which no pixel
            moves by more than ``misalignment_px``.
        motion_blur: probability of blurring ``defect_sections`` sections along a line.
        defect_sections: number of sections that a missing or dropped section or a motion blur hits. A motion blur may
            hit the same one twice.
        cut_noise: probability of strong noise inside a cuboid.
        cut_blur: probability of a lower resolution inside a cuboid.
    """

    flip: bool = True
    transpose_zx: bool = False
    rotate: Chance = 0.2
    rescale: Chance = 0.2
    rescale_range: tuple[PositiveFloat, PositiveFloat] = (0.8, 1.25)
    elastic: Chance = 0.2
    elastic_sigma_px: float = Field(12.0, gt=0)
    elastic_alpha_px: float = Field(6.0, ge=0)
    grey: Chance = 0.8
    noise: Chance = 0.5
    missing_section: Chance = 0.1
    dropped_section: Chance = 0.0
    missing_part: Chance = 0.1
    missing_band_px: int | None = Field(None, ge=1)
    misalignment: Chance = 0.1
    misalignment_px: int = Field(8, ge=0)
    misalignment_rotate: Chance = 0.0
    motion_blur: Chance = 0.1
    defect_sections: int = Field(1, ge=1)
    cut_noise: Chance = 0.1
    cut_blur: Chance = 0.1

    @model_validator(mode="after")
    def _low_to_high(self) -> AugmentConfig:
        if self.rescale_range[0] > self.rescale_range[1]:
            raise ValueError(f"rescale_range is {self.rescale_range}; expected the smaller factor first")
        return self


class LossConfig(Config):
    """Weights of the terms of S's training loss (equations: ``heads``). A term of weight 0 is not computed.

    Attributes:
        cross_entropy: weight of the class-weighted cross-entropy.
        dice: weight of the Dice loss.
        non_overlap: weight of the penalty mean(P(pre) P(post) stop-gradient P(union)) on voxels that are presynaptic
            and postsynaptic at once. Polarity with independent channels only; exclusive classes cannot overlap.
        distance: weight of the squared error of the signed-distance channel, where there is one.
        max_positive_weight: foreground voxels are weighted by the ratio of background to foreground voxels in the
            batch, at most by this. The published configurations have 19; here that made masks grow until neighbouring
            objects merged (measured in LOG.md).
        dice_smooth: voxels added to numerator and denominator of the Dice coefficient.
        reduction: "batch": class weights and Dice are computed per channel over all crops of the batch, the
            cross-entropy is divided by the sum of the weights, and both terms are averaged over channels. "crop", as
            published: they are computed per crop and target (the three channels of polarity are one target, foreground
            and contour one each), whichever of foreground and background is rarer has the larger weight, the weighted
            cross-entropy is divided by the number of known voxels, and the targets are added up. Its gradient is up to
            1.9 times as large per target. Independent channels only.
    """

    cross_entropy: float = Field(1.0, ge=0)
    dice: float = Field(1.0, ge=0)
    non_overlap: float = Field(0.0, ge=0)
    distance: float = Field(1.0, ge=0)
    max_positive_weight: float = Field(2.0, ge=1)
    dice_smooth: float = Field(100.0, gt=0)
    reduction: Literal["batch", "crop"] = "batch"

    @model_validator(mode="after")
    def _something_to_learn(self) -> LossConfig:
        if not self.cross_entropy and not self.dice:
            raise ValueError("cross_entropy and dice are both 0, so nothing would be learned; set at least one above 0")
        return self


Precision = Annotated[
    Literal["32", "16-mixed", "bf16-mixed"],
    BeforeValidator(lambda value: str(value) if type(value) is int else value),  # YAML reads 32 as a number
]
"""Lightning's name of a precision."""


class OptimizerConfig(Config):
    """The optimizer. The learning rate rises linearly during the warm-up and then falls to 0 along a cosine.

    Attributes:
        name: "adamw", or "sgd" with momentum 0.9.
        weight_decay: of the optimizer.
        decay_norms: whether the weight decay also acts on biases and on scale and shift of the normalisation layers.
        clip_norm: a gradient with a larger norm (over all parameters) is scaled down to this; None: never.
        warmup_steps: steps in which the learning rate rises; None: a tenth of all steps.
        precision: Lightning's name: "32", "16-mixed" (GPUs only) or "bf16-mixed". The last is also faster on CPUs with
            `avx512_bf16` in /proc/cpuinfo; on other CPUs it is slower, and on one with `amx_bf16` torch 2.13.0 crashed.
        devices: number of GPUs, one process each; training on a CPU always uses one process.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)
    decay_norms: bool = True
    clip_norm: float | None = Field(1.0, gt=0)
    warmup_steps: int | None = Field(None, ge=0)
    precision: Precision = "32"
    devices: int = Field(1, ge=1)


class WatchConfig(Config):
    """Validation and logging while S is trained.

    Attributes:
        every_steps: steps between two validation checks, which compute the loss on the validation box; 0: none.
        patience: after this many checks in a row without a lower loss the learning rate falls, and the training ends
            when it has fallen to 0 (``training.FitModule``). None: all steps are done, and the rate falls along a
            cosine.
        tensorboard: whether to log loss curves and image panels for TensorBoard.
    """

    every_steps: int = Field(0, ge=0)
    patience: int | None = Field(None, ge=1)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> WatchConfig:
        if self.patience is not None and not self.every_steps:
            raise ValueError("patience counts validation checks, and every_steps is 0 (none); set every_steps as well")
        return self


class SegmentationConfig(Config):
    """S: an anisotropic residual U-Net, its training and its prediction.

    A *folded voxel* is what the first convolution sees: ``fold_for`` voxels of the image, stacked as channels.

    Attributes:
        filters: channels of each level of the U-Net, finest level first; their count is the number of levels.
        max_pixel_size_nm: voxels smaller than this are folded into channels before the first convolution (space to
            depth), which saves time without discarding any voxel; the logits are interpolated back to the voxels of
            the image. None: the pixel size of the task.
        sections: "3d": a level has kernels across sections once its pixels are about as large as a section is thick
            (2.5D on thick sections, 3D on isotropic voxels). "2d": no level has.
        exclusive: polarity only: one class per voxel (softmax) instead of three independent channels.
        patch_shape_zyx: training crop, in folded voxels.
        batch_size: crops per step and device.
        num_steps: steps of the first training, on the labels boxes.
        learning_rate: its highest value in the first training.
        foreground_share: share of the crops of the labels boxes that have a foreground voxel in their middle half; the
            others are placed anywhere.
        reject_below_voxels: a crop of a labels box with fewer foreground voxels than this (of the image) is
            replaced by another one with probability ``reject_chance``, a bounded number of times.
        reject_chance: see ``reject_below_voxels``.
        window_shape_zyx: input of the network in prediction, in folded voxels.
        context_zyx: overlap of neighbouring windows, in folded voxels: what lies near the border of a window is farther
            inside the next one. The guard around the test box is at least as wide.
        block_shape_zyx: region that is predicted and written as one unit of work, in folded voxels.
        test_time_flips: orientations (flips and rotations by 90 degrees) over which the prediction is averaged: 1 (no
            averaging), 4, 8 or 16.
        average: what is averaged over orientations and over overlapping windows: "logit" or, as published,
            "probability".
        blend_sigma: standard deviation of the Gaussian weights of a window, as a share of its extent. Default after
            nnU-Net (Isensee 2021); published: 0.1.
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
    average: Literal["logit", "probability"] = "logit"
    blend_sigma: float = Field(0.125, gt=0)

    @model_validator(mode="after")
    def _overlap_is_at_most_half(self) -> SegmentationConfig:
        for overlap, window, axis in zip(self.context_zyx[1:], self.window_shape_zyx[1:], "YX", strict=True):
            if 2 * overlap > window:
                raise ValueError(
                    f"context_zyx is {overlap} along {axis} and window_shape_zyx {window}; expected at most half a "
                    f"window, because neighbouring windows overlap by the context"
                )
        return self

    @model_validator(mode="after")
    def _exclusive_classes_have_no_targets(self) -> SegmentationConfig:
        if self.exclusive and self.loss.reduction == "crop":
            raise ValueError(
                "loss.reduction is crop, the published loss of independent channels, but exclusive is true; set "
                "exclusive to false, or loss.reduction to batch"
            )
        return self


class RefitConfig(Config):
    """Refitting: how S is trained on the answers after each round.

    Attributes:
        start: "warm" fine-tunes the S of the previous round on all answers; "first" fine-tunes the S of round 0;
            "scratch" trains a new S on labels and answers, as the first training does.
        judged: whether a refitted S is judged by what it has not learned from, and taken, blended with its predecessor
            or left (``rounds/judging.py``). A fifth of the answers is held out for this until ``finish``.
        use_answers: false trains on the labels boxes alone, with as many steps, and chooses thresholds without answers:
            the control that shows what answers add.
        num_steps: steps of each training that does not start from scratch.
        learning_rate: its highest value in these.
        replay_share: share of the crops that come from the labels boxes, so that S does not forget them.
        rim_nm: voxels of an answered mask that lie this close to its border are ignored: an annotator who answers
            True confirms the object, not the exact position of its border.
        recent_share: share of the answer crops that are drawn from the newest round's answers alone; the others are
            drawn from all answers.
        propagate: largest share of the crops around masks that are drawn around candidates which nobody was asked
            about, with what the scorer expects of them as the target (``rounds/propagation.py``). It is reached where
            the scorer contradicts S about all of them; 0 makes no such lessons.
        propagate_per_cluster: most candidates of each kind (true, nothing there) in each of ten clusters that become
            such lessons.
        hold: least confidence of pseudo-labels (Lee 2013; Li and Hoiem 2016). Where neither a label nor an answer says
            anything, the target is the probability that the previous round's S predicted, if it gave foreground or
            background at least this probability; less certain voxels are ignored. This guards against forgetting, and
            a small answered mask is then not the only known target of a crop. 0.5 uses all voxels; None uses none.
        emphasis: weight in the loss of the voxels of an answered mask and of its margin; all other voxels weigh 1.
            Answered masks are a small part of a crop, and pseudo-labels of the rest would outweigh them.
        margin_nm: width of the margin around an answered mask. Around a candidate that was answered to have a wrong
            shape, pseudo-labels are not used in the mask or in this margin.
        freeze_norm: keep the running statistics of batch normalisation in a warm start, because crops around answers
            are not typical of the volume. Chosen on development data (LOG.md).
    """

    start: Literal["first", "warm", "scratch"] = "warm"
    judged: bool = True
    use_answers: bool = True
    num_steps: int = Field(400, ge=0)
    learning_rate: float = Field(3e-3, gt=0)
    replay_share: Chance = 0.75
    rim_nm: float = Field(20.0, ge=0, le=MAX_REACH_NM)
    recent_share: Chance = 0.5
    propagate: Chance = 0.5
    propagate_per_cluster: int = Field(10, ge=1)
    hold: float | None = Field(0.9, ge=0.5, le=1)
    emphasis: int = Field(10, ge=1, le=254)
    margin_nm: float = Field(60.0, ge=0, le=MAX_REACH_NM)
    freeze_norm: bool = True

    @model_validator(mode="after")
    def _new_weights_cannot_be_blended(self) -> RefitConfig:
        if self.start == "scratch" and self.judged:
            raise ValueError(
                "start is scratch and judged is true, but weights of two trainings from scratch cannot be blended; set "
                "judged to false, or start to warm"
            )
        return self


def fold_for(voxel_size_nm: Sequence[float], pixel_size_nm: float) -> tuple[int, int, int]:
    """How many voxels to fold into one along each axis, so that a folded voxel is about ``pixel_size_nm`` or larger.

    Args:
        voxel_size_nm: (z, y, x) nm of the image.
        pixel_size_nm: wanted size of a folded voxel.

    Returns:
        (z, y, x), at least 1 each; Y and X alike.
    """
    in_plane = max(1, round(pixel_size_nm / max(voxel_size_nm[1:])))
    return max(1, round(pixel_size_nm / voxel_size_nm[0])), in_plane, in_plane


def shapes_for(voxel_size_nm: Sequence[float], pixel_size_nm: float) -> dict[str, tuple[int, int, int]]:
    """Shapes of crop, window, block and context for a new project, unless the user has chosen them.

    Crops are about a micrometre wide. The defaults of ``SegmentationConfig`` suit thick sections. Nearly isotropic
    voxels get shapes with about the same number of voxels but a greater extent along Z: in the default crop of eight
    sections a mitochondrion would be a thin slice.

    Args:
        voxel_size_nm: (z, y, x) nm of the image.
        pixel_size_nm: see ``fold_for``.

    Returns:
        Fields of ``SegmentationConfig`` that differ from their defaults.
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
    """``context_zyx`` in voxels of the image instead of folded voxels, (z, y, x)."""
    z, y, x = (c * f for c, f in zip(config.context_zyx, fold_zyx, strict=True))
    return z, y, x
