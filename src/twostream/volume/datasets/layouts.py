"""How each public set is laid out and what its labels mean: from fetched files to ``image`` and labels in HDF5.

Knows the sets' archives; must not know where they come from. Every function is a ``Convert``.
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
    arrays_of,
    as_grey,
    as_labels,
    one_channel,
    open_archive,
    open_hdf5,
    slabs,
    some_of,
    store,
)

Paths = Mapping[str, Path]
Convert = Callable[[Paths, str, h5py.File], Sequence[float] | None]
"""(files by name, volume, HDF5 file to fill) -> voxel size (z, y, x) nm that the source states, or None."""

CLEFT_BACKGROUND = np.uint64(0xFFFFFFFFFFFFFFFF)
CLEFT_UNKNOWN = (np.uint64(0xFFFFFFFFFFFFFFFD), np.uint64(0xFFFFFFFFFFFFFFFE))
"""Reserved values of CREMI: public scoring code leaves out voxels of these, and takes the highest for background."""
MIN_SYNAPSE_VOXELS = 16
"""Of labels that only say before and after, smaller pieces are specks (METHOD section 6, published code)."""
SIZE_ATTRIBUTES = ("voxel_size_nm", "resolution")


# -- cremi ----------------------------------------------------------------------------------------------------------


def cremi(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """A CREMI sample: raw and clefts of one HDF5 file; padded samples place their labels by ``offset`` (nm)."""
    (path,) = files.values()
    with open_hdf5(path) as sample:
        wanted = ("volumes/raw", "volumes/labels/clefts")
        raw, clefts = (sample.get(name) for name in wanted)
        if not isinstance(raw, h5py.Dataset) or not isinstance(clefts, h5py.Dataset):
            raise InputError(
                f"{path} holds {some_of(arrays_of(sample))}; expected {' and '.join(wanted)}. Test samples (A+, B+, "
                f"C+) have no public labels."
            )
        size = raw.attrs.get("resolution")
        shift: tuple[int, ...] = (0, 0, 0)
        if size is not None and "offset" in clefts.attrs:
            shift = tuple(round(float(o) / float(s)) for o, s in zip(clefts.attrs["offset"], size, strict=True))
        stop = [o + n for o, n in zip(shift, clefts.shape, strict=True)]
        if min(shift) < 0 or any(b > s for b, s in zip(stop, raw.shape, strict=True)):
            raise InputError(
                f"{path}: the labels ({clefts.shape} voxels at {shift}) reach outside the image of {raw.shape}."
            )
        highest, has_background, has_unknown = _range_of_clefts(clefts)
        store(file, "image", (as_grey(section, f"{path}:volumes/raw") for section in slabs(raw)), raw.shape, np.uint8)
        planes = _Placed(raw.shape, shift, clefts.shape)
        # Beside the reserved value for background, 0 is an id like any other.
        zero = np.uint64(highest + 1 if has_background else 0)

        def ids(section: np.ndarray) -> np.ndarray:
            known = np.where(section >= min(CLEFT_UNKNOWN), np.uint64(0), section)
            return np.where(section == 0, zero, known).astype(np.uint32)

        store(file, "clefts", planes.of(map(ids, slabs(clefts)), 0, np.uint32), raw.shape, np.uint32)
        if has_unknown or clefts.shape != raw.shape:
            unknown = (np.isin(section, CLEFT_UNKNOWN).astype(np.uint8) for section in slabs(clefts))
            store(file, "clefts_ignore", planes.of(unknown, 1, np.uint8), raw.shape, np.uint8)
        return None if size is None else [float(v) for v in size]


def _range_of_clefts(clefts: h5py.Dataset) -> tuple[int, bool, bool]:
    """Largest id, and whether the reserved values for background and for unknown occur; raises InputError."""
    highest, has_background, has_unknown = 0, False, False
    for section in slabs(clefts):
        values = section[section < min(CLEFT_UNKNOWN)]
        highest = max(highest, int(values.max()) if values.size else 0)
        has_background |= bool((section == CLEFT_BACKGROUND).any())
        has_unknown |= bool(np.isin(section, CLEFT_UNKNOWN).any())
    if highest >= 2**32 - 1:
        raise InputError(
            f"{clefts.file.filename}: cleft {highest} occurs; expected ids below 2^32 - 1, and 2^64 - 1 for none."
        )
    return highest, has_background, has_unknown


@dataclass(frozen=True)
class _Placed:
    """A volume of ``shape`` that lies at ``shift`` in one of ``outer``; voxels and sections, (z, y, x)."""

    outer: tuple[int, int, int]
    shift: tuple[int, ...]
    shape: tuple[int, int, int]

    def of(self, sections: Iterable[np.ndarray], fill: int, dtype: Any) -> Iterator[np.ndarray]:
        """The inner volume's ``sections`` as sections of the outer one, ``fill`` where there are none."""
        inner = iter(sections)
        z, y, x = self.shift
        for at in range(self.outer[0]):
            section = np.full(self.outer[1:], fill, dtype)
            if z <= at < z + self.shape[0]:
                section[y : y + self.shape[1], x : x + self.shape[2]] = next(inner)
            yield section


# -- jwr15 ----------------------------------------------------------------------------------------------------------


def jwr15(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """One volume of the archive: an image and labels of synapses, each an HDF5 file in a folder vol3 or vol4."""
    (path,) = files.values()
    folder = volume.rpartition("_")[2]
    with open_archive(path) as (archive, names):
        image_name, label_name = _jwr15_members(path, names, folder)
        # HDF5 wants to seek: both are unpacked under names of ours, which are gone afterwards.
        unpacked = path.with_name(f"{volume}.unpacked.partial")
        try:
            _unpack(archive, image_name, unpacked)
            with open_hdf5(unpacked) as source:
                grey = _only_array(source, image_name)
                stated = next((a.attrs[n] for a in (grey, source) for n in SIZE_ATTRIBUTES if n in a.attrs), None)
                repeat = _row_repeat(grey.shape)
                sections = (np.repeat(as_grey(s, image_name), repeat, axis=0) for s in slabs(grey))
                store(file, "image", sections, _repeated(grey.shape, repeat), np.uint8)
            _unpack(archive, label_name, unpacked)
            with open_hdf5(unpacked) as source:
                labels = _only_array(source, label_name)
                _store_synapses(file, labels, label_name, _row_repeat(labels.shape))
        finally:
            unpacked.unlink(missing_ok=True)
    if repeat > 1:
        progress.say(f"{volume}: rows are doubled, as in the published configuration, so that pixels are square")
    if stated is None:
        progress.say(
            f"{volume} states no voxel size; 30, 8, 8 nm are assumed. Pass --voxel-size where you know better."
        )
        return None
    z, y, x = (float(v) for v in stated)
    return z, y / repeat, x


def _jwr15_members(path: Path, names: Sequence[str], folder: str) -> tuple[str, str]:
    """Names of the image and of the labels of ``folder``; raises InputError."""
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
                f"{path} holds {some_of(names)}; expected {folder}/im_Yx2.h5 and {folder}/syn_Yx2.h5 (or other names "
                f"that begin with im and syn). Make an HDF5 file with `image` and `synapses` of it by hand."
            )
        # Rows of the other files are twice as far apart as their columns.
        found.append(min(matches, key=lambda name: ("Yx2" not in name, name)))
    if ("Yx2" in found[0]) != ("Yx2" in found[1]):
        progress.say(f"{path}: {found[0]} and {found[1]} are not named alike; their extents decide")
    return found[0], found[1]


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    with archive.open(name) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, 2**20)


def _only_array(file: h5py.File, source: str) -> h5py.Dataset:
    """The dataset ``main``, or the only one of three axes; raises InputError."""
    names = arrays_of(file)
    if "main" not in names and len(names) != 1:
        raise InputError(f"{source} holds {some_of(names)}; expected one dataset of axes (Z, Y, X), called main.")
    return file["main" if "main" in names else names[0]]


def _row_repeat(shape_zyx: Sequence[int]) -> int:
    """2 where the rows of a square field of view are half as many as its columns, else 1."""
    return 2 if 1.8 < shape_zyx[2] / shape_zyx[1] < 2.2 else 1


def _repeated(shape_zyx: Sequence[int], repeat: int) -> tuple[int, int, int]:
    return shape_zyx[0], shape_zyx[1] * repeat, shape_zyx[2]


def _store_synapses(file: h5py.File, labels: h5py.Dataset, source: str, repeat: int) -> None:
    """Labels as they are if they number the synapses; numbered here if they only say 1 before, 2 after."""
    shape = _repeated(labels.shape, repeat)
    highest = max((int(section.max()) for section in slabs(labels)), default=0)
    sections: Iterable[np.ndarray]
    if highest > 2:
        sections = (np.repeat(as_labels(s, source), repeat, axis=0) for s in slabs(labels))
    else:
        sides = np.repeat(as_labels(labels[...], source), repeat, axis=1)
        sections = number_synapses(sides)
    store(file, "synapses", sections, shape, np.uint32)


def number_synapses(sides: np.ndarray) -> np.ndarray:
    """Sides of synapses (1 before, 2 after the cleft) -> numbered sides, 2n-1 and 2n; (Z, Y, X), held in memory.

    As METHOD section 6: what touches after growing by one voxel is one synapse; pieces below 16 voxels are dropped.
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
    """Two TIFF stacks, image and 0/255 mask; touching mitochondria are one object (held in memory, 0.7 GB)."""
    part = {"lucchi_train": "training", "lucchi_test": "testing"}[volume]
    image, labels = files[f"{part}.tif"], files[f"{part}_groundtruth.tif"]
    shape = _stack_shape(image)
    if _stack_shape(labels) != shape:
        raise InputError(
            f"{image} has {shape} pixels, {labels} has {_stack_shape(labels)}; they must be alike. Is one cut short? "
            f"Delete it and its .sha256 and fetch it again."
        )
    store(file, "image", (as_grey(page, str(image)) for page in _pages(image)), shape, np.uint8)
    mask = np.stack([as_labels(page, str(labels)) for page in _pages(labels)])
    values = np.unique(mask)
    if len(values) <= 2:
        mask = cc3d.connected_components(mask > 0, connectivity=26, out_dtype=np.uint32)
    store(file, "mitochondria", mask, shape, np.uint32)
    return None


def _stack_shape(path: Path) -> tuple[int, int, int]:
    first = next(_pages(path, 1))
    return cv2.imcount(str(path)), first.shape[0], first.shape[1]


def _pages(path: Path, number: int | None = None) -> Iterator[np.ndarray]:
    """(Y, X) pages of a TIFF, one at a time; raises InputError."""
    for page in range(number or cv2.imcount(str(path))):
        done, images = cv2.imreadmulti(str(path), start=page, count=1, flags=cv2.IMREAD_UNCHANGED)
        if not done or not images:
            raise InputError(
                f"page {page} of {path} cannot be read as TIFF. Delete it and its .sha256 and fetch it again; some "
                f"servers send a page of text in its place."
            )
        yield one_channel(images[0], str(path))


# -- mitoem ---------------------------------------------------------------------------------------------------------


def mitoem(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """Archives of sections: im/im0000.png ..., and mito-train-v2/seg0000.tif ..., mito-val-v2/seg0400.tif ..."""
    image_path = next(path for name, path in files.items() if "-im" in name)
    label_path = next(path for name, path in files.items() if "-mito" in name)
    with open_archive(image_path) as (images, image_names), open_archive(label_path) as (labels, label_names):
        numbered = _numbered(image_path, image_names, "im", "im/im0000.png")
        labelled = _numbered(label_path, label_names, "seg", "mito-train-v2/seg0000.tif")
        if len(labelled) > len(numbered):
            raise InputError(f"{label_path} holds {len(labelled)} sections, {image_path} only {len(numbered)}.")
        shape = (len(numbered), *_section(images, numbered[0]).shape)
        grey = (as_grey(_section(images, name), name) for name in numbered)
        store(file, "image", grey, shape, np.uint8)
        store(file, "mitochondria", _joined(labels, labelled), shape, np.uint32)
        if len(labelled) < len(numbered):
            ignore = (np.full(shape[1:], at >= len(labelled), np.uint8) for at in range(len(numbered)))
            store(file, "mitochondria_ignore", ignore, shape, np.uint8)
    return None


def _numbered(path: Path, names: Sequence[str], prefix: str, example: str) -> list[str]:
    """Members called <prefix>NUMBER, in the order of their numbers, which run from 0 without a gap."""
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
        what = f"section {missing} is missing from its {len(found)}" if found else f"it holds {some_of(names)}"
        raise InputError(f"{path}: {what}; expected {example} and so on, one picture per section.")
    return [found[number] for number in sorted(found)]


def _section(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """A picture of an archive as (Y, X); raises InputError."""
    array = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise InputError(f"{archive.filename}: {name} cannot be read as a picture (PNG or TIFF).")
    return one_channel(array, name)


def _joined(archive: zipfile.ZipFile, names: Sequence[str]) -> Iterator[np.ndarray]:
    """Label sections of all folders; where a folder counts its objects anew, its ids are moved beyond the others."""
    before: np.ndarray | None = None
    folder, shift, highest = names[0].rpartition("/")[0], 0, 0
    for name in names:
        section = as_labels(_section(archive, name), name)
        if name.rpartition("/")[0] != folder and before is not None and before.shape == section.shape:
            folder = name.rpartition("/")[0]
            both = (before > 0) & (section > 0)
            if both.any() and (before == section)[both].mean() < 0.5:
                shift = highest
                progress.say(f"{folder} counts its mitochondria anew; {shift} is added to its ids")
        section = np.where(section > 0, section + np.uint32(shift), 0).astype(np.uint32)
        before, highest = section, max(highest, int(section.max()))
        yield section
