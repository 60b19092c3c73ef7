"""Entry points of this package: download and convert a data set by name, and list all data sets.

Knows where results go and how a conversion is made atomic; must not know archive layouts or projects.
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py

from twostream.base import progress
from twostream.base.errors import InputError
from twostream.volume.datasets.arrays import Paths
from twostream.volume.datasets.fetch import addresses, fetch
from twostream.volume.datasets.sets import DATASETS, DataSet

DOWNLOADS = "downloads"


def find_dataset(name: str) -> DataSet:
    """Look up a data set by name.

    Raises:
        InputError: there is no such data set; the message suggests the nearest name.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no data set {name!r}; did you mean {near!r}? There are: {', '.join(DATASETS)}.")
    return DATASETS[name]


def get_dataset(
    name: str, folder: Path, *, url: str | None = None, voxel_size_nm: Sequence[float] | None = None
) -> list[Path]:
    """Download a data set and convert it to HDF5. Files that exist already are neither downloaded nor converted again.

    Args:
        name: a key of ``DATASETS``.
        folder: where the HDF5 files go. Downloads go to ``downloads/`` in it, which may be deleted afterwards.
        url: a mirror to use instead of the published addresses: a folder that holds the files under their usual names,
            or the address of the set's only file.
        voxel_size_nm: (z, y, x) in nm, to replace the voxel size that the source states or that ``DataSet`` assumes.

    Returns:
        Paths of the HDF5 files, in the order of ``DataSet.volumes``; of a set that comes in several editions, those of
        the volumes that were found.

    Raises:
        InputError: there is no such set, a download failed or was damaged, an archive does not contain what was
            expected, or the disk is full.
    """
    dataset = find_dataset(name)
    downloads = folder / DOWNLOADS
    with _explain_system_errors(folder):
        volumes = _held_volumes(dataset, folder, downloads, url)
        for volume in volumes:
            path = folder / f"{volume}.h5"
            if path.exists():
                progress.say(f"{path} exists already; delete it to convert it again")
                continue
            files = _files(dataset, dataset.volumes[volume], downloads, url)
            _convert(dataset, volume, files, path, voxel_size_nm)
    return [folder / f"{volume}.h5" for volume in volumes]


def table() -> str:
    """All data sets as a table in plain text, one line each: name, content, download size, license, recipe."""
    heads = ("NAME", "WHAT", "DOWNLOAD", "LICENSE", "RECIPE")
    rows = [heads, *((d.name, d.title, d.size, d.license, d.recipe) for d in DATASETS.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _held_volumes(dataset: DataSet, folder: Path, downloads: Path, url: str | None) -> Sequence[str]:
    """Names of the volumes to convert: all of them, or those of the editions that the downloads hold.

    Raises:
        InputError: a download failed, or does not contain what was expected.
    """
    if dataset.held is None:
        return tuple(dataset.volumes)
    converted = [volume for volume in dataset.volumes if (folder / f"{volume}.h5").exists()]
    is_complete = any(set(edition) <= set(converted) for edition in dataset.editions)
    if is_complete and not any((downloads / n).exists() for n in (*dataset.unpacked, *(r.name for r in dataset.files))):
        return converted
    needed = {name for names in dataset.volumes.values() for name in names}
    return dataset.held(_files(dataset, needed, downloads, url))


def _files(dataset: DataSet, needed: Collection[str], downloads: Path, url: str | None) -> Paths:
    """Paths of the downloads called ``needed``, fetched if need be, or of the unpacked files in their place.

    Raises:
        InputError: a download failed, or one of the unpacked files is missing.
    """
    remotes = [remote for remote in dataset.files if remote.name in needed]
    beside = [name for name in dataset.unpacked if (downloads / name).exists()]
    if beside and not any((downloads / remote.name).exists() for remote in remotes):
        if missing := sorted(set(dataset.unpacked) - set(beside)):
            raise InputError(
                f"{downloads} holds {' and '.join(beside)} but not {' and '.join(missing)}; put it there too, or move "
                f"{' and '.join(beside)} away to fetch {' and '.join(remote.name for remote in remotes)}."
            )
        return {name: downloads / name for name in beside}
    downloads.mkdir(parents=True, exist_ok=True)
    return {remote.name: fetch(remote, downloads, addresses(remote, dataset.files, url)) for remote in remotes}


def _convert(dataset: DataSet, volume: str, files: Paths, path: Path, voxel_size_nm: Sequence[float] | None) -> None:
    """Write the HDF5 file of one volume, atomically: nothing is left at ``path`` if the conversion fails."""
    partial = path.with_name(path.name + ".partial")
    progress.say(f"writing {path}")
    try:
        with h5py.File(partial, "w") as file:
            stated = dataset.convert(files, volume, file)
            size = [float(v) for v in voxel_size_nm or stated or dataset.voxel_size_nm]
            image, labels = file["image"], file[dataset.labels]
            if image.shape != labels.shape:
                raise InputError(
                    f"{volume}: the image has {image.shape} voxels, the labels have {labels.shape} (Z, Y, X); they "
                    f"must be equal. Is one of {', '.join(str(p) for p in files.values())} incomplete?"
                )
            sources = [address for remote in dataset.files if remote.name in files for address in remote.urls[:1]]
            file.attrs["voxel_size_nm"] = size
            file.attrs["source"] = " ".join(sources)
            file.attrs["license"], file.attrs["citation"] = dataset.license, dataset.citation
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _explain_system_errors(folder: Path) -> Iterator[None]:
    """Turn an ``OSError``, for example of a full disk, into an ``InputError`` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC or "No space left" in str(error) or "errno = 28" in str(error):
            raise InputError(
                f"the disk of {folder} is full. Incomplete files were deleted; make room, or choose another folder, "
                f"and run the command again: complete downloads are not fetched again."
            ) from None
        raise InputError(f"{folder}: the operating system reports: {' '.join(str(error).split())}.") from None
