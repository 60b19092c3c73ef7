"""One function per public data set that converts its downloaded files to an HDF5 file with image and labels.

The functions ``cremi``, ``jwr15``, ``lucchi`` and ``mitoem`` have the type ``Convert``. They read and write a few
sections at a time where the format allows it. Facts about the sets: ``docs/method.md``, section Data sets.

Knows the layout of each set's files and the meaning of its labels; must not know where the files come from.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import cv2
import h5py
import numpy as np
from scipy import ndimage

from twostream.base import progress
from twostream.base.errors import InputError
from twostream.volume.datasets.arrays import (
    array_names,
    as_grey,
    as_labels,
    first_few,
    one_channel,
    open_archive,
    open_hdf5,
    read_sections,
    write_sections,
)

Paths = Mapping[str, Path]
Convert = Callable[[Paths, str, h5py.File], Sequence[float] | None]
"""(paths of the downloads by file name, name of the volume, HDF5 file to fill) -> voxel size (z, y, x) in nm, or None.

The returned voxel size is the one that the downloads state; None if they state none. Raises ``InputError`` if they do
not contain what was expected."""

CLEFT_BACKGROUND = np.uint64(0xFFFFFFFFFFFFFFFF)
CLEFT_UNKNOWN = (np.uint64(0xFFFFFFFFFFFFFFFD), np.uint64(0xFFFFFFFFFFFFFFFE))
"""Values that CREMI reserves: its public scoring code ignores voxels with these two, and the highest is background."""
MIN_SYNAPSE_VOXELS = 16
"""Connected pieces of semantic labels that are smaller than this are dropped, as in the published code.

See ``docs/method.md``, section Aligned patches."""
SIZE_ATTRIBUTES = ("voxel_size_nm", "resolution")
"""HDF5 attributes that may state the voxel size, (z, y, x) in nm."""


# -- cremi ----------------------------------------------------------------------------------------------------------


def cremi(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """Convert a CREMI sample, one HDF5 file with raw image and clefts.

    In padded samples the labels are smaller than the image; their attribute ``offset``, in nm, says where they lie.
    """
    (path,) = files.values()
    with open_hdf5(path) as sample:
        wanted = ("volumes/raw", "volumes/labels/clefts")
        raw, clefts = (sample.get(name) for name in wanted)
        if not isinstance(raw, h5py.Dataset) or not isinstance(clefts, h5py.Dataset):
            raise InputError(
                f"{path} holds {first_few(array_names(sample))}; expected {' and '.join(wanted)}. The test samples "
                f"(A+, B+, C+) have no public labels."
            )
        size = raw.attrs.get("resolution")
        shift: tuple[int, ...] = (0, 0, 0)
        if size is not None and "offset" in clefts.attrs:
            shift = tuple(round(float(o) / float(s)) for o, s in zip(clefts.attrs["offset"], size, strict=True))
        stop = [o + n for o, n in zip(shift, clefts.shape, strict=True)]
        if min(shift) < 0 or any(b > s for b, s in zip(stop, raw.shape, strict=True)):
            raise InputError(
                f"{path}: the labels ({clefts.shape} voxels at {shift}) reach outside the image of {raw.shape} voxels."
            )
        highest, has_background, has_unknown = _scan_clefts(clefts)
        grey = (as_grey(section, f"{path}:volumes/raw") for section in read_sections(raw))
        write_sections(file, "image", grey, raw.shape, np.uint8)
        labelled = _Region(raw.shape, shift, clefts.shape)
        # If the reserved value for background occurs, 0 is an ordinary id and needs another number.
        zero = np.uint64(highest + 1 if has_background else 0)

        def ids(section: np.ndarray) -> np.ndarray:
            known = np.where(section >= min(CLEFT_UNKNOWN), np.uint64(0), section)
            return np.where(section == 0, zero, known).astype(np.uint32)

        numbered = map(ids, read_sections(clefts))
        write_sections(file, "clefts", labelled.padded(numbered, 0, np.uint32), raw.shape, np.uint32)
        if has_unknown or clefts.shape != raw.shape:
            unknown = (np.isin(section, CLEFT_UNKNOWN).astype(np.uint8) for section in read_sections(clefts))
            write_sections(file, "clefts_ignore", labelled.padded(unknown, 1, np.uint8), raw.shape, np.uint8)
        return None if size is None else [float(v) for v in size]


def _scan_clefts(clefts: h5py.Dataset) -> tuple[int, bool, bool]:
    """Find the largest id, and whether the reserved values for background and for unknown occur.

    Raises:
        InputError: an id is too large for uint32.
    """
    highest, has_background, has_unknown = 0, False, False
    for section in read_sections(clefts):
        values = section[section < min(CLEFT_UNKNOWN)]
        highest = max(highest, int(values.max()) if values.size else 0)
        has_background |= bool((section == CLEFT_BACKGROUND).any())
        has_unknown |= bool(np.isin(section, CLEFT_UNKNOWN).any())
    if highest >= 2**32 - 1:
        raise InputError(
            f"{clefts.file.filename}: a cleft has the id {highest}; expected ids below 2^32 - 1, and 2^64 - 1 for "
            f"background."
        )
    return highest, has_background, has_unknown


@dataclass(frozen=True)
class _Region:
    """Where a smaller volume lies in a larger one.

    Attributes:
        outer: shape (z, y, x) of the larger volume.
        shift: first voxel (z, y, x) of the smaller volume in it.
        shape: shape (z, y, x) of the smaller volume.
    """

    outer: tuple[int, int, int]
    shift: tuple[int, ...]
    shape: tuple[int, int, int]

    def padded(self, sections: Iterable[np.ndarray], fill: int, dtype: Any) -> Iterator[np.ndarray]:
        """Yield the sections of the larger volume, given those of the smaller one; voxels outside it are ``fill``."""
        inner = iter(sections)
        z, y, x = self.shift
        for index in range(self.outer[0]):
            section = np.full(self.outer[1:], fill, dtype)
            if z <= index < z + self.shape[0]:
                section[y : y + self.shape[1], x : x + self.shape[2]] = next(inner)
            yield section


# -- jwr15 ----------------------------------------------------------------------------------------------------------


def jwr15(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """Convert one volume of the archive; its image and its synapse labels are HDF5 files in the folder vol3 or vol4."""
    (path,) = files.values()
    folder = volume.rpartition("_")[2]
    with open_archive(path) as (archive, names):
        image_name, label_name = _jwr15_members(path, names, folder)
        # HDF5 needs random access, which a zip archive does not give: each file is unpacked and deleted afterwards.
        unpacked = path.with_name(f"{volume}.unpacked.partial")
        try:
            _unpack(archive, image_name, unpacked)
            with open_hdf5(unpacked) as source:
                grey = _only_array(source, image_name)
                stated = next((a.attrs[n] for a in (grey, source) for n in SIZE_ATTRIBUTES if n in a.attrs), None)
                repeat = _row_repeat(grey.shape)
                sections = (np.repeat(as_grey(s, image_name), repeat, axis=0) for s in read_sections(grey))
                write_sections(file, "image", sections, _repeated(grey.shape, repeat), np.uint8)
            _unpack(archive, label_name, unpacked)
            with open_hdf5(unpacked) as source:
                labels = _only_array(source, label_name)
                _store_synapses(file, labels, label_name, _row_repeat(labels.shape))
        finally:
            unpacked.unlink(missing_ok=True)
    if repeat > 1:
        progress.say(f"{volume}: each row is repeated, as in the published configuration, so that pixels are square")
    if stated is None:
        progress.say(
            f"{volume} states no voxel size; 30, 8, 8 nm (Z, Y, X) is assumed. Pass --voxel-size if that is wrong."
        )
        return None
    z, y, x = (float(v) for v in stated)
    return z, y / repeat, x


def _jwr15_members(path: Path, names: Sequence[str], folder: str) -> tuple[str, str]:
    """Find the names of the image and of the labels in a folder of the archive.

    Raises:
        InputError: one of them is missing.
    """
    found = []
    for prefix in ("im", "syn"):
        matches = [
            name
            for name in names
            if folder in name.split("/")[:-1]
            and name.rpartition("/")[2].startswith(prefix)
            and name.endswith((".h5", ".hdf5", ".hdf"))
        ]
        if not matches:
            raise InputError(
                f"{path} holds {first_few(names)}; expected {folder}/im_Yx2.h5 and {folder}/syn_Yx2.h5 (or "
                f"other names that begin with im and syn). Otherwise make an HDF5 file with datasets `image` and "
                f"`synapses` by hand."
            )
        # Files named Yx2 have square pixels; in the others the rows are twice as far apart as the columns.
        found.append(min(matches, key=lambda name: ("Yx2" not in name, name)))
    if ("Yx2" in found[0]) != ("Yx2" in found[1]):
        progress.say(
            f"{path}: only one of {found[0]} and {found[1]} is named Yx2; their shapes decide whether rows are repeated"
        )
    return found[0], found[1]


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    with archive.open(name) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, 2**20)


def _only_array(file: h5py.File, source: str) -> h5py.Dataset:
    """The dataset ``main``, or else the only dataset with three axes.

    Raises:
        InputError: there is no ``main``, and not exactly one dataset with three axes.
    """
    names = array_names(file)
    if "main" not in names and len(names) != 1:
        raise InputError(
            f"{source} holds {first_few(names)}; expected a dataset with axes (Z, Y, X) called main, or only one."
        )
    return file["main" if "main" in names else names[0]]


def _row_repeat(shape_zyx: Sequence[int]) -> int:
    """How often to repeat each row: 2 if there are half as many rows as columns of a square region, else 1."""
    return 2 if 1.8 < shape_zyx[2] / shape_zyx[1] < 2.2 else 1


def _repeated(shape_zyx: Sequence[int], repeat: int) -> tuple[int, int, int]:
    """Shape (z, y, x) after each row was repeated."""
    return shape_zyx[0], shape_zyx[1] * repeat, shape_zyx[2]


def _store_synapses(file: h5py.File, labels: h5py.Dataset, source: str, repeat: int) -> None:
    """Write the labels; semantic ones (1 presynaptic, 2 postsynaptic) are first split into numbered synapses."""
    shape = _repeated(labels.shape, repeat)
    highest = max((int(section.max()) for section in read_sections(labels)), default=0)
    sections: Iterable[np.ndarray]
    if highest > 2:
        sections = (np.repeat(as_labels(s, source), repeat, axis=0) for s in read_sections(labels))
    else:
        sides = np.repeat(as_labels(labels[...], source), repeat, axis=1)
        sections = number_synapses(sides)
    write_sections(file, "synapses", sections, shape, np.uint32)


def number_synapses(sides: np.ndarray) -> np.ndarray:
    """Number the synapses of a semantic label volume.

    Voxels that are connected after dilation by one voxel are one synapse; synapses of fewer than ``MIN_SYNAPSE_VOXELS``
    voxels are dropped. This is the rule of the published code (``docs/method.md``, section Aligned patches).

    Args:
        sides: (Z, Y, X) integers: 1 presynaptic, 2 postsynaptic, 0 background.

    Returns:
        (Z, Y, X) uint32: 2n-1 presynaptic and 2n postsynaptic voxels of synapse n, 0 background.
    """
    grown = ndimage.binary_dilation(sides > 0)
    instance = cc3d.connected_components(grown, connectivity=26, out_dtype=np.uint32)
    instance[sides == 0] = 0
    keep = np.bincount(instance.ravel()) >= MIN_SYNAPSE_VOXELS
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)[instance]
    return np.where(number > 0, 2 * number - (sides == 1), 0).astype(np.uint32)


# -- lucchi ---------------------------------------------------------------------------------------------------------


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
        mask = cc3d.connected_components(mask > 0, connectivity=26, out_dtype=np.uint32)
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


# -- mitoem ---------------------------------------------------------------------------------------------------------


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
