"""Folders of images, one file for each section, as volumes: TIFF, PNG or JPEG.

    folder/            a folder that holds such files
    images://folder    the same, said explicitly

Sections are sorted by the number in their names: s9 comes before s10. Names must be alike but for one number, which rises
by one from section to section; anything else is refused. The voxel size is told.

Knows image files; must not know what the voxels show.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.byte_files import is_remote, refuse_remote, why
from twostream.volume.decoded import CACHE
from twostream.volume.tiff_pages import PageReader, check_page, heard, open_tiff_file, page_notes, segment_shape
from twostream.volume.uri import Uri
from twostream.volume.volume import Metadata, Volume, agreed_voxel_size

TIFFS, PNGS, JPEGS = (".tif", ".tiff"), (".png",), (".jpg", ".jpeg")
ENDINGS = (*TIFFS, *PNGS, *JPEGS)
MODES = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16", "1": "bool"}
"""Modes of Pillow that are grey values, and their dtype."""
MAX_NAMED = 5
Image.MAX_IMAGE_PIXELS = None  # sections of electron microscopes are larger than what Pillow takes for an attack


@dataclass(frozen=True)
class Section:
    """What the header of one image says.

    Attributes:
        shape_yx: pixels.
        dtype: of a pixel.
        chunk_yx: pixels of the part that is decoded at a time.
        notes: what is unusual.
    """

    shape_yx: tuple[int, int]
    dtype: str
    chunk_yx: tuple[int, int]
    notes: tuple[str, ...] = ()


class StackVolume(Volume):
    """A folder of sections, opened for reading.

    Args:
        uri: the folder, or ``images://folder``.
        voxel_size_nm: (z, y, x) in nm.

    Raises:
        VolumeError: there is no such folder, numbers are missing or occur twice, sections differ in shape or type, or
            one holds colours or cannot be read.
        NoVoxelSizeError: the voxel size is not passed.
    """

    def __init__(self, uri: str, voxel_size_nm: Sequence[float] | None = None) -> None:
        parsed = Uri.parse(uri)
        self.uri, self._folder = str(parsed), parsed.path
        refuse_remote(parsed.path, "folders of images")
        self._names, passed_over = _sections(parsed.path, self.uri)
        first = _uniform(Path(parsed.path), self._names, self.uri)
        self.shape_zyx, self.num_channels = (len(self._names), *first.shape_yx), 0
        self.dtype, self.chunk_shape_zyx = np.dtype(first.dtype), (1, *first.chunk_yx)
        self.voxel_size_nm = agreed_voxel_size(None, voxel_size_nm, self.uri, "files")
        notes = [f"{len(self._names)} sections, {self._names[0]} to {self._names[-1]}", *first.notes]
        if passed_over:
            more = f" and {len(passed_over) - MAX_NAMED} more" if len(passed_over) > MAX_NAMED else ""
            notes.append(f"passed over: {', '.join(passed_over[:MAX_NAMED])}{more}")
        self.metadata = Metadata(notes=tuple(notes))
        self._token = object()

    def _read(self, box: Box) -> np.ndarray:
        (z0, z1), (y0, y1), (x0, x1) = ((part.start, part.stop) for part in box.slices)
        out = np.empty(box.shape_zyx, self.dtype)
        if out.size:
            for z in range(z0, z1):
                self._section(z, out[z - z0], slice(y0, y1), slice(x0, x1))
        return out

    def _section(self, z: int, out: np.ndarray, rows: slice, columns: slice) -> None:
        path = Path(self._folder, self._names[z])
        if path.name.lower().endswith(TIFFS):
            with heard(str(path)), open_tiff_file(str(path), str(path)) as tif:
                page = tif.pages[0]
                self._check_same(path, (page.imagelength, page.imagewidth), page.dtype)
                PageReader(tif, str(path), (self._token, z)).read(page, out, rows, columns)
            return
        array = CACHE.get((self._token, z), lambda: _decode(path))
        self._check_same(path, array.shape, array.dtype)
        out[...] = array[rows, columns]

    def _check_same(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        if shape != self.shape_zyx[1:] or dtype != self.dtype:
            raise VolumeError(
                f"{path} has changed: it has {shape} pixels of {dtype}, before {self.shape_zyx[1:]} of {self.dtype}."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_token"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Not opened again: looking at thousands of headers takes longer than sending their names.
        self.__dict__.update(state)
        self._token = object()


def is_stack(path: str) -> bool:
    """Whether ``path`` is a folder with images in it."""
    if is_remote(path) or not Path(path).is_dir():
        return False
    with os.scandir(path) as entries:
        return any(_is_image(entry.name) for entry in entries)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def _sections(folder: str, uri: str) -> tuple[list[str], list[str]]:
    """(names of the sections in order, names of other files).

    Raises:
        VolumeError: there are none, names are of several kinds, or numbers are missing or occur twice.
    """
    try:
        listed = sorted(os.listdir(folder))
    except FileNotFoundError:
        raise VolumeError(f"{folder} does not exist; check the path of the folder.") from None
    except OSError as error:
        raise VolumeError(f"{folder} cannot be listed: {why(error)}") from None
    images = [name for name in listed if _is_image(name)]
    others = [name for name in listed if name not in set(images) and not name.startswith(".")]
    if not images:
        raise VolumeError(f"{folder} holds no images; expected files that end in {', '.join(ENDINGS)}.")
    if len(images) == 1:
        return images, others
    kinds: dict[str, list[str]] = {}
    for name in images:
        kinds.setdefault(re.sub(r"\d+", "#", name.lower()), []).append(name)
    if len(kinds) > 1:
        told = "; ".join(f"{len(names)} like {names[0]}" for names in list(kinds.values())[:MAX_NAMED])
        raise VolumeError(f"{uri} mixes several series of images: {told}. Move each into a folder of its own.")
    numbers = [[int(n) for n in re.findall(r"\d+", name)] for name in images]
    varying = [i for i in range(len(numbers[0])) if len({row[i] for row in numbers}) > 1]
    if len(varying) > 1:
        raise VolumeError(
            f"{uri}: {len(varying)} numbers differ between names such as {images[0]} and {images[-1]}; expected one, the "
            f"number of the section. Are these tiles, or several series? Move each series into a folder of its own."
        )
    position = varying[0] if varying else len(numbers[0]) - 1
    by_number: dict[int, str] = {}
    for name, row in zip(images, numbers, strict=True):
        number = row[position] if row else 0
        if number in by_number:
            raise VolumeError(f"{uri}: {by_number[number]} and {name} have the same number. Remove one of them.")
        by_number[number] = name
    _check_gaps(sorted(by_number), uri)
    return [by_number[number] for number in sorted(by_number)], others


def _check_gaps(numbers: list[int], uri: str) -> None:
    absent = numbers[-1] - numbers[0] + 1 - len(numbers)
    if absent:
        known, named = set(numbers), []
        for number in range(numbers[0], numbers[-1]):
            if number not in known:
                named.append(str(number))
            if len(named) == MAX_NAMED:
                break
        more = " and more" if absent > len(named) else ""
        raise VolumeError(
            f"{uri}: {absent} numbers between {numbers[0]} and {numbers[-1]} are missing: {', '.join(named)}{more}. "
            f"Sections would move together. Add the files (black ones for lost sections), or number them without gaps."
        )


def _uniform(folder: Path, names: list[str], uri: str) -> Section:
    """Header of the first section, which all must share."""
    first = _header(folder / names[0])
    for name in names[1:]:
        found = _header(folder / name)
        if (found.shape_yx, found.dtype) != (first.shape_yx, first.dtype):
            raise VolumeError(
                f"{uri}: {name} has {found.shape_yx} pixels of {found.dtype}, {names[0]} has {first.shape_yx} of "
                f"{first.dtype} (Y, X). Expected sections of one shape and type; pad or remove it."
            )
    return first


def _header(path: Path) -> Section:
    """Shape and type of an image, without decoding it.

    Raises:
        VolumeError: it cannot be read, or does not hold grey values.
    """
    if path.name.lower().endswith(TIFFS):
        return _tiff_header(path)
    try:
        with Image.open(path) as image:
            (width, height), mode, kind = image.size, image.mode, image.format
        bits = _png_bits(path) if kind == "PNG" else 8
    except (OSError, SyntaxError, ValueError) as error:
        raise VolumeError(f"{path} cannot be read: {_reason(error)}") from None
    if mode not in MODES:
        what = "palette colours" if mode == "P" else f"colours ({mode})"
        raise VolumeError(f"{path} holds {what}; expected one grey value or label in each pixel. Convert it to grey.")
    if bits in (2, 4):
        raise VolumeError(f"{path} has {bits} bits a pixel, which readers stretch to 8. Save it with 8 or 16 bits.")
    notes = ("sections are saved as JPEG, which changes values: not for labels",) if kind == "JPEG" else ()
    return Section((height, width), MODES[mode], (height, width), notes)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return why(error)
    return "it is damaged, or no image of that kind."


def _png_bits(path: Path) -> int:
    with open(path, "rb") as file:
        return file.read(25)[24]


def _tiff_header(path: Path) -> Section:
    with heard(str(path)), open_tiff_file(str(path), str(path)) as tif:
        if len(tif.pages) != 1:
            raise VolumeError(
                f"{path} holds {len(tif.pages)} pages; expected one section in each file. A multi-page file is a volume "
                f"of its own: open it by its name."
            )
        page = tif.pages[0]
        check_page(page, str(path))
        shape, name = (page.imagelength, page.imagewidth), np.dtype(page.dtype).name
        return Section(shape, name, segment_shape(page), tuple(page_notes(page)))


def _decode(path: Path) -> np.ndarray:
    """(Y, X) of a PNG or JPEG."""
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise VolumeError(f"{path} has changed: it holds {image.mode}.")
            return np.asarray(image).astype(MODES[image.mode], copy=False)
    except VolumeError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise VolumeError(f"{path} cannot be read: {_reason(error)}") from None
