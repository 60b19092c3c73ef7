"""Lucchi (EPFL hippocampus): TIFF stacks, an image and a mask.

Knows the layout of the files and the meaning of their labels; must not know where the files come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np

from twostream.base.errors import InputError
from twostream.volume.datasets.arrays import Paths, as_grey, as_labels, one_channel, write_sections
from twostream.volume.pieces import number_pieces


def lucchi(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """Convert two TIFF stacks, an image and a mask with values 0 and 255.

    The mask is split into connected components, so mitochondria that touch become one object; a mask with more than two
    values is taken as instance labels. It is held in memory, which needs 0.7 GB.
    """
    part = {"lucchi_train": "training", "lucchi_test": "testing"}[volume]
    image, labels = files[f"{part}.tif"], files[f"{part}_groundtruth.tif"]
    shape = _stack_shape(image)
    if _stack_shape(labels) != shape:
        raise InputError(
            f"{image} has {shape} pixels (Z, Y, X), {labels} has {_stack_shape(labels)}; they must be equal. Is one "
            f"incomplete? Delete it and its .sha256 and fetch it again."
        )
    write_sections(file, "image", (as_grey(page, str(image)) for page in _pages(image)), shape, np.uint8)
    mask = np.stack([as_labels(page, str(labels)) for page in _pages(labels)])
    values = np.unique(mask)
    if len(values) <= 2:
        mask = number_pieces(mask)
    write_sections(file, "mitochondria", mask, shape, np.uint32)
    return None


def _stack_shape(path: Path) -> tuple[int, int, int]:
    """Shape (z, y, x) of a TIFF stack."""
    first = next(_pages(path, 1))
    return cv2.imcount(str(path)), first.shape[0], first.shape[1]


def _pages(path: Path, number: int | None = None) -> Iterator[np.ndarray]:
    """Yield the first ``number`` pages of a TIFF stack (None: all), each (Y, X).

    Raises:
        InputError: a page cannot be read.
    """
    for page in range(number or cv2.imcount(str(path))):
        done, images = cv2.imreadmulti(str(path), start=page, count=1, flags=cv2.IMREAD_UNCHANGED)
        if not done or not images:
            raise InputError(
                f"page {page} of {path} cannot be read as TIFF. Delete the file and its .sha256 and fetch it "
                f"again; some servers send an HTML page instead of the file."
            )
        yield one_channel(images[0], str(path))
