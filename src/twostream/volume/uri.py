"""The grammar of volume URIs, written once: which driver, which path, which dataset inside the file.

    file.h5:dataset         HDF5; the dataset is ``main`` where none is named
    path.zarr               Zarr or OME-Zarr; also zarr://path for a folder with another ending
    synthetic://seed=...    generated tissue

Knows text and paths; must not open anything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
DEFAULT_DATASET = "main"
"""The name under which this field's single-dataset HDF5 files store their array."""


@dataclass(frozen=True)
class Uri:
    """A volume URI in its parts.

    Attributes:
        driver: "hdf5", "zarr", "synthetic", another scheme as it was written, or "" where the text names none.
        path: of the file or folder; for a scheme without files, all that stands behind ``://``.
        dataset: name inside an HDF5 file, else "".
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
            return cls(scheme, rest, has_scheme=True)
        path, separator, dataset = text.rpartition(":")
        if separator and path.lower().endswith(HDF5_SUFFIXES):
            return cls("hdf5", path, dataset)
        if text.lower().endswith(HDF5_SUFFIXES):
            return cls("hdf5", text, DEFAULT_DATASET)
        return cls("zarr" if text.rstrip("/").endswith(".zarr") else "", text)

    @property
    def is_path(self) -> bool:
        """Whether it names a file or folder of this machine."""
        return not self.has_scheme or self.driver == "zarr"

    def __str__(self) -> str:
        scheme = f"{self.driver}://" if self.has_scheme else ""
        return scheme + self.path + (f":{self.dataset}" if self.dataset else "")

    @property
    def short(self) -> str:
        """Without the folders it lies in, so that a page may show it: ``/home/me/a.h5:raw`` becomes ``a.h5:raw``."""
        if not self.is_path:
            return str(self)
        return Path(self.path).name + (f":{self.dataset}" if self.dataset else "")


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
