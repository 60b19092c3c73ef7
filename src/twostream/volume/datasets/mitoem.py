"""MitoEM: zip archives with one image file per section.

Knows the layout of the files and the meaning of their labels; must not know where the files come from.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np

from twostream.base import progress
from twostream.base.errors import InputError
from twostream.volume.datasets.arrays import (
    Paths,
    as_grey,
    as_labels,
    first_few,
    one_channel,
    open_archive,
    write_sections,
)


def mitoem(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """Convert two zip archives with one image file per section.

    The images are im/im0000.png and so on, the labels mito-train-v2/seg0000.tif ... and mito-val-v2/seg0400.tif ...
    Only the first sections are labelled; ``mitochondria_ignore`` is 1 in the others.
    """
    image_path = next(path for name, path in files.items() if "-im" in name)
    label_path = next(path for name, path in files.items() if "-mito" in name)
    with open_archive(image_path) as (images, image_names), open_archive(label_path) as (labels, label_names):
        grey_names = _sections_in_order(image_path, image_names, "im", "im/im0000.png")
        labelled = _sections_in_order(label_path, label_names, "seg", "mito-train-v2/seg0000.tif")
        if len(labelled) > len(grey_names):
            raise InputError(
                f"{label_path} holds {len(labelled)} sections, {image_path} only {len(grey_names)}; "
                f"expected at least as many images as labels."
            )
        shape = (len(grey_names), *_read_section(images, grey_names[0]).shape)
        grey = (as_grey(_read_section(images, name), name) for name in grey_names)
        write_sections(file, "image", grey, shape, np.uint8)
        write_sections(file, "mitochondria", _with_unique_ids(labels, labelled), shape, np.uint32)
        if len(labelled) < len(grey_names):
            ignore = (np.full(shape[1:], z >= len(labelled), np.uint8) for z in range(len(grey_names)))
            write_sections(file, "mitochondria_ignore", ignore, shape, np.uint8)
    return None


def _sections_in_order(path: Path, names: Sequence[str], prefix: str, example: str) -> list[str]:
    """Names of the archive's files called <prefix>NUMBER, sorted by number.

    Raises:
        InputError: the numbers do not run from 0 without gaps and duplicates.
    """
    pattern = re.compile(rf"(?:.*/)?{prefix}(\d+)\.(?:png|tiff?)$", re.IGNORECASE)
    found: dict[int, str] = {}
    for name in names:
        match = pattern.match(name)
        if match:
            number = int(match[1])
            if number in found:
                raise InputError(f"{path} holds section {number} twice: {found[number]} and {name}.")
            found[number] = name
    missing = next((n for n in range(len(found)) if n not in found), None)
    if not found or missing is not None:
        what = f"section {missing} is missing from its {len(found)}" if found else f"it holds {first_few(names)}"
        raise InputError(f"{path}: {what}; expected {example} and so on, one image file per section.")
    return [found[number] for number in sorted(found)]


def _read_section(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read one image file of an archive as (Y, X).

    Raises:
        InputError: it is neither PNG nor TIFF, or it is a colour image.
    """
    array = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise InputError(f"{archive.filename}: {name} cannot be read as an image (PNG or TIFF).")
    return one_channel(array, name)


def _with_unique_ids(archive: zipfile.ZipFile, names: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield the label sections of all folders, with ids that are unique among the folders.

    A folder whose ids do not continue those of the section before it has started counting at 1 again: then the largest
    id so far is added to its ids.
    """
    previous: np.ndarray | None = None
    folder, shift, highest = names[0].rpartition("/")[0], 0, 0
    for name in names:
        section = as_labels(_read_section(archive, name), name)
        if name.rpartition("/")[0] != folder and previous is not None and previous.shape == section.shape:
            folder = name.rpartition("/")[0]
            both = (previous > 0) & (section > 0)
            # Neighbouring sections overlap: with continued ids, most voxels labelled in both have the same id.
            if both.any() and (previous == section)[both].mean() < 0.5:
                shift = highest
                progress.say(f"{folder} numbers its mitochondria from 1 again; {shift} is added to its ids")
        section = np.where(section > 0, section + np.uint32(shift), 0).astype(np.uint32)
        previous, highest = section, max(highest, int(section.max()))
        yield section
