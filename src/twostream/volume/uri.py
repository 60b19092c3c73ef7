"""The grammar of volume URIs, written once: which driver, which path, which dataset inside the file.

    file.h5:dataset         HDF5; the dataset is ``main`` where none is named
    path.zarr               Zarr or OME-Zarr
    synthetic://seed=...    generated tissue
    driver://path           any registered format, for a file or folder with another ending

Which drivers and endings there are is in the table of formats. Knows text and paths; must not open anything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from twostream.volume.formats import FORMATS, format_of_path


@dataclass(frozen=True)
class Uri:
    """A volume URI in its parts.

    Attributes:
        driver: of the format, or an unregistered scheme as it was written; "" without a scheme and a known ending.
        path: of the file or folder; for a driver without files, all that stands behind ``://``.
        dataset: name inside a file that holds several arrays, else "".
        has_scheme: whether the text began with ``driver://``.
    """

    driver: str
    path: str
    dataset: str = ""
    has_scheme: bool = False

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Read a URI; any text is one, and a driver that is not known is for ``open_volume`` to refuse."""
        scheme, separator, rest = text.partition("://")
        if separator:
            known = FORMATS.get(scheme)
            return cls(scheme, *_split(rest, known.default_dataset if known else None), has_scheme=True)
        path, separator, dataset = text.rpartition(":")
        holder = format_of_path(path) if separator and dataset else None
        if holder and holder.default_dataset:
            return cls(holder.driver, path, dataset)
        known = format_of_path(text)
        return cls(known.driver if known else "", text, (known.default_dataset if known else None) or "")

    @property
    def is_path(self) -> bool:
        """Whether it names a file or folder of this machine."""
        return not self.has_scheme or (self.driver in FORMATS and FORMATS[self.driver].is_path)

    def __str__(self) -> str:
        scheme = f"{self.driver}://" if self.has_scheme else ""
        return scheme + self.path + (f":{self.dataset}" if self.dataset else "")

    @property
    def short(self) -> str:
        """Without the folders it lies in, so that a page may show it: ``/home/me/a.h5:raw`` becomes ``a.h5:raw``."""
        if not self.is_path:
            return str(self)
        return Path(self.path).name + (f":{self.dataset}" if self.dataset else "")


def _split(rest: str, default_dataset: str | None) -> tuple[str, str]:
    """Path and dataset of what stands behind ``driver://``."""
    if default_dataset is None:
        return rest, ""
    path, separator, dataset = rest.rpartition(":")
    return (path, dataset) if separator and dataset else (rest, default_dataset)


def absolute_uri(text: str, folder: Path | None = None) -> str:
    """``text`` with an absolute path; a relative one is taken to begin in ``folder`` (None: the working directory)."""
    uri = Uri.parse(text)
    if not uri.is_path:
        return text
    path = Path(folder or ".") / Path(uri.path).expanduser()
    return str(replace(uri, path=os.path.abspath(path)))


def portable_uri(text: str, folder: Path) -> str:
    """``text`` as a project in ``folder`` stores it, so that both can be moved together.

    Args:
        text: URI; a relative path begins in the working directory.
        folder: of the project.

    Returns:
        A path inside ``folder``, or inside the folder that holds it, relative to ``folder``; any other path absolute.
    """
    uri = Uri.parse(absolute_uri(text))
    home = Path(os.path.abspath(folder))
    near = home if home.parent == home.parent.parent else home.parent  # everything lies beside a folder of the root
    if not uri.is_path or not Path(uri.path).is_relative_to(near):
        return str(uri)
    return str(replace(uri, path=os.path.relpath(uri.path, home)))
