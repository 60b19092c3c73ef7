"""A finished model applied to an image: probability, segmentation and table of candidates in one folder.

torch computes the model where it is installed, else onnxruntime. Knows cards, volumes and candidates; must not know
projects or rounds. torch is imported only where it computes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from twostream.base import progress
from twostream.base.atomic import write_folder
from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.candidate import write_segmentation
from twostream.candidates.identity import Named
from twostream.candidates.proposing import propose
from twostream.candidates.table import parts_of, write_parts
from twostream.models.segmentation.blending import WindowModel, write_probability
from twostream.models.segmentation.card import CARD_NAME, Model
from twostream.models.segmentation.onnx_model import EXTRA, OnnxWindows, is_installed
from twostream.volume import Volume, continue_volume, create_volume
from twostream.volume.checks import check_all_chunks
from twostream.volume.execution import Executor, InProcess
from twostream.volume.grey import open_grey, open_values, robust_window, spread_boxes
from twostream.volume.stage import Journal, Stage
from twostream.volume.uri import absolute_uri

if TYPE_CHECKING:
    from twostream.models.segmentation.train import Segmenter

Engine = Literal["torch", "onnx"]
PROBABILITY_NAME = "probability.zarr"
NUM_SAMPLES, SAMPLE_ZYX = 64, (8, 32, 32)
"""Boxes of the image whose grey values are compared with those of the training image."""
FAR_FROM_MEAN = 1.0
"""A mean grey value that is farther than this from that of training, in standard deviations, is told."""


def open_image(uri: str, voxel_size_nm: Sequence[float] | None, window: Sequence[float] | None) -> Volume:
    """The image as (Z, Y, X) uint8; without a window one is found out where it does not hold 8 bits.

    Raises:
        InputError: it cannot be read, or holds no grey values.
    """
    uri = absolute_uri(uri)
    raw = open_values(uri, voxel_size_nm)
    if window is None and raw.dtype != np.uint8:
        window = robust_window(raw)
        progress.say(f"  {uri} holds {raw.dtype}: {window[0]:g} is shown as 0 and {window[1]:g} as 255 (--window)")
    return open_grey(uri, voxel_size_nm, window)


def apply_model(
    model: Model,
    image: Volume,
    output: Path,
    *,
    engine: Engine | None = None,
    num_threads: int | None = None,
    executor: Executor | None = None,
    memory_limit: int | None = None,
) -> str:
    """Predict an image and write the folder ``output``.

    Until it is whole it is called ``output.partial``, with what is done of it, and the same call goes on with that.

    It holds ``probability.zarr`` ((C, Z, Y, X) uint8, 255 = 1), ``segmentation.zarr`` ((Z, Y, X) uint32, the final
    segmentation in the task's label convention; both OME-Zarr), and ``candidates.parquet``: a row per instance of the
    final segmentation, whose ``id`` is its number there.

    Args:
        model: card and files.
        image: (Z, Y, X) uint8.
        output: folder to make.
        engine: what computes the model; None takes torch where it is installed, else onnxruntime.
        num_threads: of the engine; None: as many as it takes by itself, one per core.
        executor: runs the blocks; None: in this process, one after the other.
        memory_limit: bytes that each process may hold; None: as many as a block needs.

    Returns:
        A line for a terminal.

    Raises:
        InputError: the voxel size does not fit, ``output`` exists, or the model cannot be computed here.
        BlocksError: blocks could not be read, computed or written.
    """
    model.check_fits(image)
    if output.exists():
        raise InputError(f"{output} exists already; choose another folder for -o.")
    engine = engine or ("torch" if is_installed("torch") else "onnx")
    windows = _windows(model, engine, num_threads)
    _tell_grey(model, image)
    with Journal(output.with_name(output.name + ".partial"), _work(model, image, engine)) as journal:
        stage, folder = Stage(executor or InProcess(), journal, memory_limit), journal.folder / "whole"
        number = _fill(folder, model, windows, image, stage)
        os.replace(folder, output)
        journal.discard()
    found = f"{number} objects ({model.card.task})"
    return f"{output}: {found}, probability, segmentation and candidates.parquet, by {engine}"


def _fill(folder: Path, model: Model, windows: WindowModel, image: Volume, stage: Stage) -> int:
    """Make the contents of the folder, or go on with them; returns the number of candidates."""
    card, task = model.card, model.task(image.voxel_size_nm)
    place: dict[str, Any] = {"shape_zyx": image.shape_zyx, "voxel_size_nm": image.voxel_size_nm}
    place |= {"offset_nm": image.offset_nm}
    if not folder.exists():
        if stage.journal:
            stage.journal.restart()
        write_folder(
            folder,
            lambda partial: create_volume(
                str(partial / PROBABILITY_NAME), dtype=np.uint8, num_channels=len(card.channels), **place
            ),
        )
    probability = continue_volume(str((folder / PROBABILITY_NAME).absolute()))
    write_probability(windows, image, probability, card.segmentation, stage)
    check_all_chunks(probability)
    limits = card.thresholds
    instances = propose(probability, task, limits.final_threshold, model.min_voxels(image.voxel_size_nm), stage=stage)
    found = instances.where(instances.scores >= limits.min_score)
    candidates = Named(found, np.arange(1, len(found) + 1), {})

    def paint(path: Path) -> None:
        write_segmentation(candidates, create_volume(str(path), dtype=np.uint32, **place), task)

    write_folder(folder / "segmentation.zarr", paint)
    write_parts(parts_of(candidates, task=task.name), folder / "candidates.parquet")
    return len(candidates)


def _work(model: Model, image: Volume, engine: Engine) -> dict[str, Any]:
    """All that the folder depends on; the card states the checksums of the model's files."""
    return {
        "card": model.card.model_dump(mode="json"),
        "image": image.uri,
        "content": [zlib.crc32(image.read(box).tobytes()) for box in _sample(image)],
        "shape_zyx": image.shape_zyx,
        "voxel_size_nm": image.voxel_size_nm,
        "offset_nm": image.offset_nm,
        "window": getattr(image, "window", None),
        "engine": engine,
    }


def _windows(model: Model, engine: Engine, num_threads: int | None) -> WindowModel:
    """The model, computed by ``engine``.

    Raises:
        InputError: neither torch nor the ONNX file is there, or a file is damaged.
    """
    card = model.card
    if engine == "torch":
        if not is_installed("torch"):
            raise InputError("torch is not installed; leave --engine out, or pass --engine onnx.")
        import torch

        from twostream.models.segmentation.predict import TorchWindows
        from twostream.models.segmentation.train import Segmenter

        if num_threads is not None:
            torch.set_num_threads(num_threads)
        segmenter = Segmenter.load(model.file("checkpoint"))
        _check_card(model, segmenter)
        return TorchWindows(segmenter, card.segmentation.test_time_flips, card.segmentation.average).on_device()
    if "onnx" not in card.files:
        raise InputError(
            f"{model.path} has no ONNX model (it was finished without the extra `onnx`), and it would be computed by "
            f"onnxruntime, because torch is not installed or --engine onnx says so. Install torch, or run "
            f"`twostream finish` again where onnx is installed: {EXTRA}."
        )
    return OnnxWindows(
        model.file("onnx"),
        fold_zyx=card.fold_zyx,
        stride_zyx=card.stride_zyx,
        head=card.head,
        average=card.segmentation.average,
        num_threads=num_threads or 0,
    )


def _check_card(model: Model, segmenter: Segmenter) -> None:
    """Compare what the card says of the network with the network.

    Raises:
        InputError: they differ.
    """
    from twostream.models.segmentation.train import stride_of

    network = {
        "head": segmenter.architecture["head"],
        "fold_zyx": segmenter.network.fold_zyx,
        "stride_zyx": stride_of(segmenter),
    }
    for name, value in network.items():
        said = getattr(model.card, name)
        if (dict(said) if name == "head" else tuple(said)) != (dict(value) if name == "head" else tuple(value)):
            raise InputError(
                f"{model.path} says {name} {said}, and its checkpoint has {value}. Take the card that `twostream "
                f"finish` wrote with it."
            )


def _sample(image: Volume) -> list[Box]:
    return spread_boxes(image.shape_zyx, NUM_SAMPLES, SAMPLE_ZYX)


def _tell_grey(model: Model, image: Volume) -> None:
    """Say so if the image is much brighter or darker than what the model was trained on."""
    mean, grey = float(np.mean([image.read(box).mean() for box in _sample(image)])), model.card.grey
    if abs(mean - grey.mean) > FAR_FROM_MEAN * grey.std:
        progress.say(
            f"  {image.uri} has a mean grey value of {mean:.0f}; the model was trained on {grey.mean:.0f} (standard "
            f"deviation {grey.std:.0f}). Look at the result before you trust it; is {CARD_NAME} that of another stain, "
            f"or the contrast inverted?"
        )
