"""Settings of S. Knows numbers; must not import torch, so that a project can be read anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, NonNegativeInt, PositiveInt

from twostream.config import Config


class SegmentationConfig(Config):
    """S: an anisotropic residual U-Net, its training and its prediction.

    Attributes:
        filters: channels per level; the number of levels is their number.
        max_pixel_size_nm: in-plane, voxels finer than this are folded into channels before the first
            convolution (space to depth), so that nothing is lost and speed is won; the logits are interpolated
            back. None takes the task's pixel size.
        patch_shape_zyx: training crop, in folded voxels.
        batch_size: crops per step.
        num_steps: of the first training, on the labelled box.
        learning_rate: peak, of AdamW.
        foreground_share: share of the training crops that are centred on an object.
        augment: whether training crops are varied.
        block_shape_zyx: voxels predicted at once, in folded voxels, without context.
        context_zyx: folded voxels that S sees around what it predicts; also the guard around the test box.
    """

    filters: tuple[PositiveInt, ...] = Field((12, 24, 48, 64), min_length=3)
    max_pixel_size_nm: float | None = Field(None, gt=0, allow_inf_nan=False)
    patch_shape_zyx: tuple[PositiveInt, PositiveInt, PositiveInt] = (8, 96, 96)
    batch_size: int = Field(2, ge=1)
    num_steps: int = Field(300, ge=0)
    learning_rate: float = Field(3e-3, gt=0)
    foreground_share: float = Field(0.7, ge=0, le=1)
    augment: bool = True
    block_shape_zyx: tuple[PositiveInt, PositiveInt, PositiveInt] = (16, 160, 160)
    context_zyx: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (3, 24, 24)


class RefitConfig(Config):
    """How answers change S.

    Attributes:
        num_steps: fine-tuning steps per round.
        learning_rate: peak, of AdamW.
        replay_share: share of the crops that come from the labelled box.
        rim_nm: voxels this near the border of an answered mask are ignored: an annotator's True is about the
            object, not about its last voxel.
        recent_share: share of the answer crops taken from the newest round's answers.
    """

    num_steps: int = Field(120, ge=0)
    learning_rate: float = Field(1e-3, gt=0)
    replay_share: float = Field(0.5, ge=0, le=1)
    rim_nm: float = Field(10.0, ge=0)
    recent_share: float = Field(0.5, ge=0, le=1)


def fold_for(voxel_size_nm: Sequence[float], pixel_size_nm: float) -> tuple[int, int, int]:
    """In-plane voxels to fold, so that S looks at pixels of about ``pixel_size_nm``; sections are never folded."""
    factor = max(1, round(pixel_size_nm / max(voxel_size_nm[1:])))
    return 1, factor, factor


def context_voxels(config: SegmentationConfig, fold_zyx: Sequence[int]) -> tuple[int, int, int]:
    """What S sees around what it predicts, in voxels of the image, (z, y, x)."""
    z, y, x = (c * f for c, f in zip(config.context_zyx, fold_zyx, strict=True))
    return z, y, x
