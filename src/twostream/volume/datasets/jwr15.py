"""JWR15: HDF5 files with images and synapse labels, in a zip archive or unpacked.

Knows the layout of the files and the meaning of their labels; must not know where the files come from.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from twostream.base import progress
from twostream.base.errors import InputError
from twostream.volume.datasets.arrays import (
    Paths,
    array_names,
    as_grey,
    as_labels,
    first_few,
    open_archive,
    open_hdf5,
    read_sections,
    write_sections,
)
from twostream.volume.pieces import number_synapses

PAIR = ("img.h5", "syn.h5")
"""Image and labels as the notebooks of the published code call them."""
_NUMBERED = frozenset({"vol3", "vol4"})
"""Folders of the volumes that the configurations of the published code name."""
SIZE_ATTRIBUTES = ("voxel_size_nm", "resolution")
"""HDF5 attributes that may state the voxel size, (z, y, x) in nm."""


def jwr15_volumes(files: Paths) -> tuple[str, ...]:
    """Which volumes the downloads hold: those of the folders vol3 and vol4, the pair of the notebooks, or all three.

    Args:
        files: the archive, or the unpacked files of ``PAIR``.

    Raises:
        InputError: the archive is damaged, one of the pair is missing, or there are several pairs.
    """
    if PAIR[0] in files:
        return ("jwr15",)
    (path,) = files.values()
    with open_archive(path) as (_, names):
        numbered = any(not _NUMBERED.isdisjoint(name.split("/")[:-1]) for name in names)
        pair = _pair(path, names, needed=not numbered)
    if pair and numbered:
        progress.say(f"{path} holds vol3 and vol4, and {pair[0]} with {pair[1]}: all three are converted")
    return (*(("jwr15_vol3", "jwr15_vol4") if numbered or not pair else ()), *(("jwr15",) if pair else ()))


def jwr15(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """Convert one volume; its image and its synapse labels are HDF5 files.

    They lie in the folder vol3 or vol4 of the archive (configurations of the published code), or are called as ``PAIR``
    says (its notebooks), in the archive or beside it.
    """
    image, labelled = _sources(files, volume)
    with image.opened() as source:
        grey = _only_array(source, image.name)
        stated = next((a.attrs[n] for a in (grey, source) for n in SIZE_ATTRIBUTES if n in a.attrs), None)
        repeat = _row_repeat(grey.shape)
        sections = (np.repeat(as_grey(s, image.name), repeat, axis=0) for s in read_sections(grey))
        write_sections(file, "image", sections, _repeated(grey.shape, repeat), np.uint8)
    with labelled.opened() as source:
        labels = _only_array(source, labelled.name)
        _store_synapses(file, labels, labelled.name, _row_repeat(labels.shape))
    if repeat > 1:
        progress.say(f"{volume}: each row is repeated, as in the published configuration, so that pixels are square")
    if stated is None:
        progress.say(
            f"{volume} states no voxel size; 30, 8, 8 nm (Z, Y, X) is assumed. Pass --voxel-size if that is wrong."
        )
        return None
    z, y, x = (float(v) for v in stated)
    return z, y / repeat, x


@dataclass(frozen=True)
class _Source:
    """An HDF5 file, on its own or in the archive.

    Attributes:
        path: the file, or the archive.
        member: its name in the archive; None if it is not in one.
    """

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.member or str(self.path)

    @contextmanager
    def opened(self) -> Iterator[h5py.File]:
        """The open file. HDF5 needs random access, which a zip archive does not give: a member is unpacked first."""
        if self.member is None:
            with open_hdf5(self.path) as file:
                yield file
            return
        unpacked = self.path.with_name(f"{self.path.name}.unpacked.partial")
        try:
            with (
                open_archive(self.path) as (archive, _),
                archive.open(self.member) as source,
                open(unpacked, "wb") as out,
            ):
                shutil.copyfileobj(source, out, 2**20)
            with open_hdf5(unpacked) as file:
                yield file
        finally:
            unpacked.unlink(missing_ok=True)


def _sources(files: Paths, volume: str) -> tuple[_Source, _Source]:
    """Image and labels of a volume.

    Raises:
        InputError: one of them is missing.
    """
    if PAIR[0] in files:
        return _Source(files[PAIR[0]]), _Source(files[PAIR[1]])
    (path,) = files.values()
    with open_archive(path) as (_, names):
        members = _pair(path, names, needed=True) if volume == "jwr15" else _numbered(path, names, volume[-4:])
    assert members is not None
    return _Source(path, members[0]), _Source(path, members[1])


def _pair(path: Path, names: Sequence[str], *, needed: bool) -> tuple[str, str] | None:
    """Names in the archive of the notebooks' pair, in whatever folder; None if there is none.

    Args:
        path: the archive.
        names: its files.
        needed: whether there is nothing else to convert, so that half a pair is an error.

    Raises:
        InputError: one of the two is missing although ``needed``, or several folders hold a pair.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if file in PAIR and _NUMBERED.isdisjoint(folder.split("/")):
            found.setdefault(f"{folder}/" if folder else "", []).append(name)
    pairs = [folder for folder, members in found.items() if len(members) == len(PAIR)]
    if len(pairs) > 1:
        raise InputError(
            f"{path} holds {' and '.join(PAIR)} in {len(pairs)} folders ({', '.join(pairs)}); expected one pair. Put "
            f"the two files that you want beside the archive, and move the archive away."
        )
    for folder, members in found.items():
        if folder not in pairs:
            missing = next(f"{folder}{file}" for file in PAIR if f"{folder}{file}" not in members)
            if needed and not pairs:
                raise InputError(
                    f"{path} holds {members[0]} but no {missing}; the image ({PAIR[0]}) and its labels ({PAIR[1]}) are "
                    f"needed in one folder. Is the archive complete?"
                )
            progress.say(f"{path}: {members[0]} is not used, because there is no {missing}")
    return (f"{pairs[0]}{PAIR[0]}", f"{pairs[0]}{PAIR[1]}") if pairs else None


def _numbered(path: Path, names: Sequence[str], folder: str) -> tuple[str, str]:
    """Names of the image and of the labels in the folder vol3 or vol4 of the archive.

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
                f"{path} holds {first_few(names)}; expected {folder}/im_Yx2.h5 and {folder}/syn_Yx2.h5 (or other names "
                f"that begin with im and syn), or {PAIR[0]} and {PAIR[1]} in one folder. Otherwise make an HDF5 file "
                f"with datasets `image` and `synapses` by hand."
            )
        # Files named Yx2 have square pixels; in the others the rows are twice as far apart as the columns.
        found.append(min(matches, key=lambda name: ("Yx2" not in name, name)))
    if ("Yx2" in found[0]) != ("Yx2" in found[1]):
        progress.say(
            f"{path}: only one of {found[0]} and {found[1]} is named Yx2; their shapes decide whether rows are repeated"
        )
    return found[0], found[1]


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
