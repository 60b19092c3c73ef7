"""The door: a data set by its name, fetched and converted; and the table of all."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py

from twostream.base import progress
from twostream.base.errors import InputError
from twostream.volume.datasets.fetch import addresses, fetch
from twostream.volume.datasets.layouts import Paths
from twostream.volume.datasets.sets import DATASETS, DataSet

DOWNLOADS = "downloads"


def find_dataset(name: str) -> DataSet:
    """The data set called ``name``.

    Raises:
        InputError: there is none; the nearest name is given.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no data set {name!r}; did you mean {near!r}? There are: {', '.join(DATASETS)}.")
    return DATASETS[name]


def get_dataset(
    name: str, folder: Path, *, url: str | None = None, voxel_size_nm: Sequence[float] | None = None
) -> list[Path]:
    """Fetch a data set and convert it; what is there already is left as it is.

    Args:
        name: see ``DATASETS``.
        folder: where the HDF5 files go; what is fetched goes to ``downloads/`` in it, and may be deleted afterwards.
        url: a folder on another server with the set's files under their usual names, or the address of its only file.
        voxel_size_nm: (z, y, x) nm, where what the source says, or does not say, is wrong.

    Returns:
        The HDF5 files, in the order of ``DataSet.volumes``.

    Raises:
        InputError: no such set, a download that failed or came damaged, an archive that holds something else, or a
            disk that is full.
    """
    dataset = find_dataset(name)
    results = [folder / f"{volume}.h5" for volume in dataset.volumes]
    downloads = folder / DOWNLOADS
    with _disk(folder):
        for path, (volume, needed) in zip(results, dataset.volumes.items(), strict=True):
            if path.exists():
                progress.say(f"{path} is there already; delete it to have it made anew")
                continue
            downloads.mkdir(parents=True, exist_ok=True)
            remotes = [remote for remote in dataset.files if remote.name in needed]
            files = {r.name: fetch(r, downloads, addresses(r, dataset.files, url)) for r in remotes}
            _convert(dataset, volume, files, path, voxel_size_nm)
    return results


def table() -> str:
    """All data sets as lines of text: name, what, size, license, recipe."""
    heads = ("NAME", "WHAT", "DOWNLOAD", "LICENSE", "RECIPE")
    rows = [heads, *((d.name, d.title, d.size, d.license, d.recipe) for d in DATASETS.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _convert(dataset: DataSet, volume: str, files: Paths, path: Path, voxel_size_nm: Sequence[float] | None) -> None:
    """Fill ``path``, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    progress.say(f"writing {path}")
    try:
        with h5py.File(partial, "w") as file:
            stated = dataset.convert(files, volume, file)
            size = [float(v) for v in voxel_size_nm or stated or dataset.voxel_size_nm]
            image, labels = file["image"], file[dataset.labels]
            if image.shape != labels.shape:
                raise InputError(
                    f"{volume}: the image has {image.shape} voxels, the labels have {labels.shape}; they must be "
                    f"alike. Is one of {', '.join(str(p) for p in files.values())} cut short?"
                )
            sources = [address for remote in dataset.files if remote.name in files for address in remote.urls[:1]]
            file.attrs["voxel_size_nm"] = size
            file.attrs["source"] = " ".join(sources)
            file.attrs["license"], file.attrs["citation"] = dataset.license, dataset.citation
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """What the system refuses becomes a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC or "No space left" in str(error) or "errno = 28" in str(error):
            raise InputError(
                f"the disk of {folder} is full. Nothing half-made was kept; make room, or choose another folder, and "
                f"call again: files that came whole are not fetched again."
            ) from None
        raise InputError(f"{folder}: the system refused: {' '.join(str(error).split())}.") from None
