"""Public data sets by name: fetched whole or not at all, and turned into HDF5 files that ``twostream init`` opens.

Knows where the sets lie, how their archives are laid out and what their labels mean; must not know projects or models.

One file per volume: ``image`` (Z, Y, X) uint8, and labels of the same extent, uint32, 0 for background: ``synapses``
(synapse n is 2n-1 before and 2n after the cleft), ``clefts`` or ``mitochondria`` (one id per object). Where labels say
nothing, ``<labels>_ignore`` (uint8) is 1. Attributes of the file: ``voxel_size_nm`` (z, y, x), ``source``, ``license``,
``citation``.

What is known of each address and layout, and from where, is in ``DataSet.notes``: nothing of it could be tried over a
network where this was written. Where a checksum has been published, a file that differs is refused. Where none has,
the sha256 of the first download is printed and kept beside the file (``NAME.sha256``, as ``sha256sum -c`` reads it):
compare it between machines; a later download must agree with it.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import cv2
import h5py
import numpy as np
from scipy import ndimage

from twostream import progress
from twostream.atomic import write_text
from twostream.errors import InputError

DOWNLOADS = "downloads"
SLAB = 8
"""Sections that are written at once, one chunk thick on disk: with sections of 4096 x 4096, 1.2 GB of memory in all."""
CHUNK_PX = 128
TIMEOUT_SECONDS = 60
CLEFT_BACKGROUND = np.uint64(0xFFFFFFFFFFFFFFFF)
CLEFT_UNKNOWN = np.uint64(0xFFFFFFFFFFFFFFFE)
MIN_SYNAPSE_VOXELS = 16
"""Of labels that only say before and after, smaller pieces are specks (METHOD section 6, published code)."""
UNKNOWN_LICENSE = "none stated in what could be read; ask the authors before you pass it on"


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Attributes:
        name: under ``downloads/``, and on a mirror.
        urls: where it lies; tried in turn.
        sha256: as published, or None.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None


Paths = Mapping[str, Path]
Convert = Callable[[Paths, str, h5py.File], Sequence[float] | None]
"""(files by name, volume, HDF5 file to fill) -> voxel size (z, y, x) nm that the source states, or None."""


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        name: as on the command line.
        title: what it shows.
        labels: dataset of the labels in the converted files.
        voxel_size_nm: (z, y, x) nm, where the source does not say.
        size: of the downloads, in words.
        citation: what to cite.
        notes: what is known of addresses and layout, and from where.
        recipe: the recipe that uses it.
        files: what is fetched.
        volumes: file names without suffix, one per converted volume, and the remote files that each needs.
        convert: fills one of them.
        license: in words.
    """

    name: str
    title: str
    labels: str
    voxel_size_nm: tuple[float, float, float]
    size: str
    citation: str
    notes: str
    recipe: str
    files: tuple[Remote, ...]
    volumes: Mapping[str, tuple[str, ...]]
    convert: Convert
    license: str = UNKNOWN_LICENSE


# -- the door -------------------------------------------------------------------------------------------------------


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
            files = {r.name: _fetch(r, downloads, _addresses(r, dataset, url)) for r in remotes}
            _convert(dataset, volume, files, path, voxel_size_nm)
    return results


def table() -> str:
    """All data sets as lines of text: name, what, size, license, recipe."""
    heads = ("NAME", "WHAT", "DOWNLOAD", "LICENSE", "RECIPE")
    rows = [heads, *((d.name, d.title, d.size, d.license, d.recipe) for d in DATASETS.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


# -- fetching -------------------------------------------------------------------------------------------------------


def _addresses(remote: Remote, dataset: DataSet, url: str | None) -> tuple[str, ...]:
    """Where to look for ``remote``: its own addresses, or the one on the mirror ``url``."""
    if url is None:
        return remote.urls
    base = url.rstrip("/")
    last = base.rpartition("/")[2]
    if last in {file.name for file in dataset.files}:
        base = base.rpartition("/")[0]
    elif len(dataset.files) == 1 and Path(last).suffix == Path(remote.name).suffix:
        return (base,)
    return (f"{base}/{remote.name}",)


def _fetch(remote: Remote, downloads: Path, urls: Sequence[str]) -> Path:
    """``remote`` in ``downloads``, whole, with the right checksum; raises InputError."""
    import pooch

    path, record = downloads / remote.name, downloads / f"{remote.name}.sha256"
    known = remote.sha256 or (record.read_text().split()[0] if record.exists() else None)
    if path.exists() and (known is None or pooch.file_hash(str(path)) == known):
        progress.say(f"{path} is there already")
    else:
        refusals: list[str] = []
        if not any(_download(url, path, known, remote.sha256 is not None, refusals) for url in urls):
            hint = "" if remote.sha256 or not known else f" The sha256 is that of the first download, in {record}."
            raise InputError(
                f"{' '.join(refusals)}{hint} Try again later, pass --url with a mirror, or put the file there by hand "
                f"as {path} and call again."
            )
    if known is None:
        digest = pooch.file_hash(str(path))
        write_text(record, f"{digest}  {remote.name}\n")
        progress.say(f"{remote.name}: no checksum is published; this one has sha256 {digest}, kept in {record}")
    return path


def _download(url: str, path: Path, sha256: str | None, published: bool, refusals: list[str]) -> bool:
    """Fetch one address; where that fails, add a sentence to ``refusals``."""
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    if not url.startswith(("http://", "https://")):
        refusals.append(f"{url} is no http(s) address.")
        return False

    # A folder of its own, so that what a killed download leaves behind is found and cleared by the next.
    partial = path.with_name(f"{path.name}.partial")
    known = None if sha256 is None else f"sha256:{sha256}"

    def fetch(**options: Any) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        bar = _Bar(path.name)
        get = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**20, timeout=TIMEOUT_SECONDS, **options)
        try:
            os.replace(pooch.retrieve(url, known, fname=path.name, path=str(partial), downloader=get), path)
        finally:
            bar.end()
            shutil.rmtree(partial, ignore_errors=True)

    progress.say(f"fetching {url}")
    try:
        try:
            fetch()
        except requests.exceptions.SSLError:
            if not published:
                raise
            # A published sha256 proves the content better than the host's certificate does, which may have expired.
            progress.say(f"{url}: its certificate is not valid; the published sha256 vouches for the content instead")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fetch(verify=False)
    except requests.exceptions.RequestException as error:
        refusals.append(f"{url} {_refusal(error)}.")
        return False
    except ValueError as error:
        if "hash" not in str(error):
            raise
        refusals.append(
            f"{url} sent a file whose checksum is not the expected sha256 {sha256}: damaged on the way, or another "
            f"version; nothing of it was kept."
        )
        return False
    return True


def _refusal(error: Exception) -> str:
    """What went wrong on the network, in words."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, exceptions.SSLError):
        return "has no valid certificate"
    if isinstance(error, exceptions.ChunkedEncodingError) or "Read timed out" in str(error):
        return "broke off before the file was whole, and nothing of it was kept"
    if isinstance(error, exceptions.Timeout):
        return f"did not answer within {TIMEOUT_SECONDS} s; is there a network"
    if isinstance(error, exceptions.ConnectionError):
        return "cannot be reached; is there a network"
    return f"could not be fetched: {' '.join(str(error).split())}"


class _Bar:
    """What pooch tells of its progress, shown in megabytes."""

    def __init__(self, name: str) -> None:
        self.name, self.total = name, 0
        self._task: Any = None
        self._done = self._shown = 0

    def update(self, num_bytes: int) -> None:
        if self._task is None:
            self._task = progress.task(f"{self.name} (MB)", total=max(1, self.total // 10**6))
            self._advance = self._task.__enter__()
        self._done += num_bytes
        now = min(self._done, self.total or self._done) // 10**6
        self._advance(now - self._shown)
        self._shown = now

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Called by pooch where all went well."""

    def end(self) -> None:
        if self._task is not None:
            self._task.__exit__(None, None, None)


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


# -- converting -----------------------------------------------------------------------------------------------------


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


def _store(file: h5py.File, name: str, sections: Iterable[np.ndarray], shape_zyx: Sequence[int], dtype: Any) -> None:
    """Write (Y, X) ``sections`` as a (Z, Y, X) dataset, a slab at a time; raises InputError where one has another size.

    What the sections do not reach stays 0.
    """
    chunks = tuple(min(s, c) for s, c in zip(shape_zyx, (SLAB, CHUNK_PX, CHUNK_PX), strict=True))
    dataset = file.create_dataset(name, shape=tuple(shape_zyx), dtype=dtype, chunks=chunks, compression=1)
    slab: list[np.ndarray] = []
    start = 0
    with progress.task(name, total=shape_zyx[0]) as advance:
        for section in sections:
            if section.shape != tuple(shape_zyx[1:]):
                at, expected = start + len(slab), tuple(shape_zyx[1:])
                raise InputError(f"section {at} of {name} has {section.shape} pixels, expected {expected}.")
            slab.append(section)
            if len(slab) == SLAB:
                dataset[start : start + SLAB] = np.stack(slab)
                start, slab = start + SLAB, []
                advance(SLAB)
        if slab:
            dataset[start : start + len(slab)] = np.stack(slab)
            advance(len(slab))


def _grey(array: np.ndarray, source: str) -> np.ndarray:
    """``array`` if it holds grey values; raises InputError."""
    if array.dtype != np.uint8:
        raise InputError(f"{source} holds {array.dtype}; expected grey values, uint8. Is it the image?")
    return array


def _whole(array: np.ndarray, source: str) -> np.ndarray:
    """``array`` as uint32 labels; raises InputError."""
    if array.dtype.kind not in "uib" or (array.size and (int(array.min()) < 0 or int(array.max()) >= 2**32)):
        raise InputError(f"{source} holds {array.dtype} that are no labels; expected whole numbers from 0 to 2^32 - 1.")
    return array.astype(np.uint32)


def _slabs(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """Sections of an HDF5 dataset, read a slab at a time."""
    for start in range(0, dataset.shape[0], SLAB):
        yield from dataset[start : start + SLAB]


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise InputError(
            f"{path} is no HDF5 file: {' '.join(str(error).split())}. Delete it and fetch it again; some servers send "
            f"a page of text in its place."
        ) from None
    with file:
        yield file


def _datasets_of(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) and o.ndim == 3 else None)
    return names


@contextmanager
def _archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[str]]]:
    """An archive and its members, all of which stay inside; raises InputError. Members are read, never unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            for name in names:
                parts = name.replace("\\", "/").split("/")
                if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
                    raise InputError(f"{path} holds {name!r}, which would land outside its folder; not opened.")
            yield archive, [n for n in names if "__MACOSX" not in n and not n.rpartition("/")[2].startswith(".")]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path} is no whole zip archive: {error}. Delete it and fetch it again.") from None


def _found(names: Sequence[str]) -> str:
    """A few of ``names``, for an error message."""
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "nothing"


# -- cremi ----------------------------------------------------------------------------------------------------------


def _cremi(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """A CREMI sample: raw and clefts of one HDF5 file; padded samples place their labels by ``offset`` (nm)."""
    (path,) = files.values()
    with _hdf5(path) as sample:
        wanted = ("volumes/raw", "volumes/labels/clefts")
        raw, clefts = (sample.get(name) for name in wanted)
        if not isinstance(raw, h5py.Dataset) or not isinstance(clefts, h5py.Dataset):
            raise InputError(
                f"{path} holds {_found(_datasets_of(sample))}; expected {' and '.join(wanted)}. Test samples (A+, B+, "
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
        _store(file, "image", (_grey(section, f"{path}:volumes/raw") for section in _slabs(raw)), raw.shape, np.uint8)
        planes = _Placed(raw.shape, shift, clefts.shape)
        # Beside the reserved value for background, 0 is an id like any other.
        zero = np.uint64(highest + 1 if has_background else 0)

        def ids(section: np.ndarray) -> np.ndarray:
            known = np.where((section == CLEFT_BACKGROUND) | (section == CLEFT_UNKNOWN), np.uint64(0), section)
            return np.where(section == 0, zero, known).astype(np.uint32)

        _store(file, "clefts", planes.of(map(ids, _slabs(clefts)), 0, np.uint32), raw.shape, np.uint32)
        if has_unknown or clefts.shape != raw.shape:
            unknown = ((section == CLEFT_UNKNOWN).astype(np.uint8) for section in _slabs(clefts))
            _store(file, "clefts_ignore", planes.of(unknown, 1, np.uint8), raw.shape, np.uint8)
        return None if size is None else [float(v) for v in size]


def _range_of_clefts(clefts: h5py.Dataset) -> tuple[int, bool, bool]:
    """Largest id, and whether the reserved values for background and for unknown occur; raises InputError."""
    highest, has_background, has_unknown = 0, False, False
    for section in _slabs(clefts):
        values = section[section < CLEFT_UNKNOWN]
        highest = max(highest, int(values.max()) if values.size else 0)
        has_background |= bool((section == CLEFT_BACKGROUND).any())
        has_unknown |= bool((section == CLEFT_UNKNOWN).any())
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


def _jwr15(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """One volume of the archive: an image and labels of synapses, each an HDF5 file in a folder vol3 or vol4."""
    (path,) = files.values()
    folder = volume.rpartition("_")[2]
    with _archive(path) as (archive, names):
        image_name, label_name = _jwr15_members(path, names, folder)
        # HDF5 wants to seek: both are unpacked under names of ours, which are gone afterwards.
        unpacked = path.with_name(f"{volume}.unpacked.partial")
        try:
            _unpack(archive, image_name, unpacked)
            with _hdf5(unpacked) as source:
                grey = _only_array(source, image_name)
                stated = next((a.attrs[n] for a in (grey, source) for n in _SIZES if n in a.attrs), None)
                repeat = _row_repeat(grey.shape)
                sections = (np.repeat(_grey(s, image_name), repeat, axis=0) for s in _slabs(grey))
                _store(file, "image", sections, _repeated(grey.shape, repeat), np.uint8)
            _unpack(archive, label_name, unpacked)
            with _hdf5(unpacked) as source:
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


_SIZES = ("voxel_size_nm", "resolution")


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
                f"{path} holds {_found(names)}; expected {folder}/im_Yx2.h5 and {folder}/syn_Yx2.h5 (or other names "
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
    names = _datasets_of(file)
    if "main" not in names and len(names) != 1:
        raise InputError(f"{source} holds {_found(names)}; expected one dataset of axes (Z, Y, X), called main.")
    return file["main" if "main" in names else names[0]]


def _row_repeat(shape_zyx: Sequence[int]) -> int:
    """2 where the rows of a square field of view are half as many as its columns, else 1."""
    return 2 if 1.8 < shape_zyx[2] / shape_zyx[1] < 2.2 else 1


def _repeated(shape_zyx: Sequence[int], repeat: int) -> tuple[int, int, int]:
    return shape_zyx[0], shape_zyx[1] * repeat, shape_zyx[2]


def _store_synapses(file: h5py.File, labels: h5py.Dataset, source: str, repeat: int) -> None:
    """Labels as they are if they number the synapses; numbered here if they only say 1 before, 2 after."""
    shape = _repeated(labels.shape, repeat)
    highest = max((int(section.max()) for section in _slabs(labels)), default=0)
    sections: Iterable[np.ndarray]
    if highest > 2:
        sections = (np.repeat(_whole(s, source), repeat, axis=0) for s in _slabs(labels))
    else:
        sides = np.repeat(_whole(labels[...], source), repeat, axis=1)
        sections = number_synapses(sides)
    _store(file, "synapses", sections, shape, np.uint32)


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


def _lucchi(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """Two TIFF stacks, image and 0/255 mask; touching mitochondria are one object (held in memory, 0.7 GB)."""
    part = {"lucchi_train": "training", "lucchi_test": "testing"}[volume]
    image, labels = files[f"{part}.tif"], files[f"{part}_groundtruth.tif"]
    shape = _stack_shape(image)
    if _stack_shape(labels) != shape:
        raise InputError(
            f"{image} has {shape} pixels, {labels} has {_stack_shape(labels)}; they must be alike. Is one cut short? "
            f"Delete it and its .sha256 and fetch it again."
        )
    _store(file, "image", (_grey(page, str(image)) for page in _pages(image)), shape, np.uint8)
    mask = np.stack([_whole(page, str(labels)) for page in _pages(labels)])
    values = np.unique(mask)
    if len(values) <= 2:
        mask = cc3d.connected_components(mask > 0, connectivity=26, out_dtype=np.uint32)
    _store(file, "mitochondria", mask, shape, np.uint32)
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
        yield _one_channel(images[0], str(path))


def _one_channel(array: np.ndarray, source: str) -> np.ndarray:
    """A picture whose colours are alike, as (Y, X); raises InputError."""
    if array.ndim == 2:
        return array
    if not (array[..., :3] == array[..., :1]).all():
        raise InputError(f"{source} is coloured, shape {array.shape}; expected grey values or labels, one channel.")
    return np.ascontiguousarray(array[..., 0])


# -- mitoem ---------------------------------------------------------------------------------------------------------


def _mitoem(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """Archives of sections: im/im0000.png ..., and mito-train-v2/seg0000.tif ..., mito-val-v2/seg0400.tif ..."""
    image_path = next(path for name, path in files.items() if "-im" in name)
    label_path = next(path for name, path in files.items() if "-mito" in name)
    with _archive(image_path) as (images, image_names), _archive(label_path) as (labels, label_names):
        numbered = _numbered(image_path, image_names, "im", "im/im0000.png")
        labelled = _numbered(label_path, label_names, "seg", "mito-train-v2/seg0000.tif")
        if len(labelled) > len(numbered):
            raise InputError(f"{label_path} holds {len(labelled)} sections, {image_path} only {len(numbered)}.")
        shape = (len(numbered), *_section(images, numbered[0]).shape)
        grey = (_grey(_section(images, name), name) for name in numbered)
        _store(file, "image", grey, shape, np.uint8)
        _store(file, "mitochondria", _joined(labels, labelled), shape, np.uint32)
        if len(labelled) < len(numbered):
            ignore = (np.full(shape[1:], at >= len(labelled), np.uint8) for at in range(len(numbered)))
            _store(file, "mitochondria_ignore", ignore, shape, np.uint8)
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
        what = f"section {missing} is missing from its {len(found)}" if found else f"it holds {_found(names)}"
        raise InputError(f"{path}: {what}; expected {example} and so on, one picture per section.")
    return [found[number] for number in sorted(found)]


def _section(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """A picture of an archive as (Y, X); raises InputError."""
    array = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise InputError(f"{archive.filename}: {name} cannot be read as a picture (PNG or TIFF).")
    return _one_channel(array, name)


def _joined(archive: zipfile.ZipFile, names: Sequence[str]) -> Iterator[np.ndarray]:
    """Label sections of all folders; where a folder counts its objects anew, its ids are moved beyond the others."""
    before: np.ndarray | None = None
    folder, shift, highest = names[0].rpartition("/")[0], 0, 0
    for name in names:
        section = _whole(_section(archive, name), name)
        if name.rpartition("/")[0] != folder and before is not None and before.shape == section.shape:
            folder = name.rpartition("/")[0]
            both = (before > 0) & (section > 0)
            if both.any() and (before == section)[both].mean() < 0.5:
                shift = highest
                progress.say(f"{folder} counts its mitochondria anew; {shift} is added to its ids")
        section = np.where(section > 0, section + np.uint32(shift), 0).astype(np.uint32)
        before, highest = section, max(highest, int(section.max()))
        yield section


# -- the sets -------------------------------------------------------------------------------------------------------

_EPFL = "https://documents.epfl.ch/groups/c/cv/cvlab-unit/www/data/%20ElectronMicroscopy_Hippocampus"
_HUB = "https://huggingface.co/datasets/pytc"
_MITOEM_CITATION = (
    "Wei et al., MitoEM Dataset: Large-Scale 3D Mitochondria Instance Segmentation from EM Images, MICCAI 2020, "
    "doi:10.1007/978-3-030-59722-1_7"
)
_MITOEM_NOTES = (
    "Addresses, sha256 and the names im/im0000.png, mito-train-v2/seg0000.tif, mito-val-v2/seg0400.tif: from public "
    "data loaders that fetch this set. Not verified from here."
)

DATASETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        DataSet(
            name="cremi",
            title="fruit fly brain, samples A, B, C: synaptic clefts; 40 x 4 x 4 nm",
            labels="clefts",
            voxel_size_nm=(40.0, 4.0, 4.0),
            size="three files of about 0.2 GB",
            citation="Funke, Saalfeld, Bock, Turaga, Perlman: MICCAI Challenge on Circuit Reconstruction from Electron "
            "Microscopy Images (CREMI), 2016, https://cremi.org",
            notes="Addresses and sha256: from public data loaders that fetch this set; layout: https://cremi.org/data. "
            "The host's certificate was reported as expired; the sha256 then vouches for the content. Not verified "
            "from here.",
            recipe="cremi_cleft",
            files=tuple(
                Remote(
                    f"sample_{sample}_20160501.hdf",
                    (f"https://cremi.org/static/data/sample_{sample}_20160501.hdf",),
                    sha,
                )
                for sample, sha in (
                    ("A", "4c563d1b78acb2bcfb3ea958b6fe1533422f7f4a19f3e05b600bfa11430b510d"),
                    ("B", "887e85521e00deead18c94a21ad71f278d88a5214c7edeed943130a1f4bb48b8"),
                    ("C", "2874496f224d222ebc29d0e4753e8c458093e1d37bc53acd1b69b19ed1ae7052"),
                )
            ),
            volumes={f"cremi_{s.lower()}": (f"sample_{s}_20160501.hdf",) for s in "ABC"},
            convert=_cremi,
        ),
        DataSet(
            name="jwr15",
            title="rat cortex (EM-R50), two volumes: synapses with polarity; about 30 x 8 x 8 nm",
            labels="synapses",
            voxel_size_nm=(30.0, 8.0, 8.0),
            size="not known",
            citation="Lin et al., Two Stream Active Query Suggestion for Active Learning in Connectomics, ECCV 2020, "
            "doi:10.1007/978-3-030-58523-5_7",
            notes="Address: PyTorch Connectomics' synapse tutorial. Names inside (vol3, vol4; im_Yx2.h5, syn_Yx2.h5): "
            "its configurations of other copies. Voxel size derived, not stated. No checksum published. Not verified "
            "from here.",
            recipe="jwr15_polarity",
            files=(Remote("jwr15_synapse.zip", ("http://rhoana.rc.fas.harvard.edu/dataset/jwr15_synapse.zip",)),),
            volumes={f"jwr15_{v}": ("jwr15_synapse.zip",) for v in ("vol3", "vol4")},
            convert=_jwr15,
        ),
        DataSet(
            name="lucchi",
            title="mouse hippocampus (EPFL), training and test volume: mitochondria; 5 x 5 x 5 nm",
            labels="mitochondria",
            voxel_size_nm=(5.0, 5.0, 5.0),
            size="four files, 0.5 GB in all if uncompressed",
            citation="Lucchi, Li, Fua: Learning for Structured Prediction Using Approximate Subgradient Descent with "
            "Working Sets, CVPR 2013; https://www.epfl.ch/labs/cvlab/data/data-em/",
            notes="Addresses (with the space before ElectronMicroscopy): several public programs that fetch this set. "
            "No checksum published. Not verified from here.",
            recipe="lucchi_mitochondria",
            files=tuple(
                Remote(name, (f"{_EPFL}/{name}",))
                for name in ("training.tif", "training_groundtruth.tif", "testing.tif", "testing_groundtruth.tif")
            ),
            volumes={
                "lucchi_train": ("training.tif", "training_groundtruth.tif"),
                "lucchi_test": ("testing.tif", "testing_groundtruth.tif"),
            },
            convert=_lucchi,
        ),
        DataSet(
            name="mitoem-r",
            title="rat cortex, 1000 sections, 500 labelled: mitochondria; 30 x 8 x 8 nm",
            labels="mitochondria",
            voxel_size_nm=(30.0, 8.0, 8.0),
            size="about 15 GB, and as much again converted",
            citation=_MITOEM_CITATION,
            notes=_MITOEM_NOTES,
            recipe="mitoem_r",
            files=(
                Remote(
                    "EM30-R-im.zip",
                    (f"{_HUB}/EM30/resolve/main/EM30-R-im.zip",),
                    "6a2cac68adde5d01984542d3ee1d7753d1fa3e6eb2a042ce15ce297c95885bbe",
                ),
                Remote(
                    "EM30-R-mito-train-val-v2.zip",
                    (
                        f"{_HUB}/MitoEM/resolve/main/EM30-R-mito-train-val-v2.zip",
                        "https://www.dropbox.com/s/stncdytayhr8ggz/EM30-R-mito-train-val-v2.zip?dl=1",
                    ),
                    "c56380ac575428a818bd293ca3509d1249999846c3702ccbf11d308acdd2ae86",
                ),
            ),
            volumes={"mitoem_r": ("EM30-R-im.zip", "EM30-R-mito-train-val-v2.zip")},
            convert=_mitoem,
        ),
        DataSet(
            name="mitoem-h",
            title="human cortex, 1000 sections, 500 labelled: mitochondria; 30 x 8 x 8 nm",
            labels="mitochondria",
            voxel_size_nm=(30.0, 8.0, 8.0),
            size="about 15 GB, and as much again converted",
            citation=_MITOEM_CITATION,
            notes=_MITOEM_NOTES + " The copy of the images on the Hub is padded by 40 sections and is not used.",
            recipe="mitoem_h",
            files=(
                Remote(
                    "EM30-H-im.zip",
                    ("https://www.dropbox.com/s/z41qtu4y735j95e/EM30-H-im.zip?dl=1",),
                    "98fe259f36a7d8d43f99981b7a0ef8cdeba2ce2615ff91595f428ae57207a041",
                ),
                Remote(
                    "EM30-H-mito-train-val-v2.zip",
                    (
                        "https://www.dropbox.com/s/dhf89bc14kemw4e/EM30-H-mito-train-val-v2.zip?dl=1",
                        f"{_HUB}/MitoEM/resolve/main/EM30-H-mito-train-val-v2.zip",
                    ),
                    "0e8ed292cfcd0c58701d9f4299244a1b66d6aeb506c85754c34f98a4eda0ef1b",
                ),
            ),
            volumes={"mitoem_h": ("EM30-H-im.zip", "EM30-H-mito-train-val-v2.zip")},
            convert=_mitoem,
        ),
    )
}
