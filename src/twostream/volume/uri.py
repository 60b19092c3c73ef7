"""The grammar of volume URIs, written once: which driver, which path, which dataset inside the file.

    file.h5:dataset         HDF5; the dataset is ``main`` where none is named
    path.zarr               Zarr or OME-Zarr; path.zarr:dataset or path.zarr/dataset for an array or a level inside
    https://host/path.zarr  the same behind http(s), in S3 (s3://bucket/path) or Google Cloud Storage (gs://bucket/path)
    file:///path            a path of this machine, percent-encoded
    synthetic://seed=...    generated tissue
    driver://path           any registered format, for a file or folder with another ending; the path may be remote
    URI[Z0:Z1,Y0:Y1,X0:X1]  a part of any of these, in its voxels

Which drivers and endings there are is in the table of formats. Knows text and paths; must not open anything.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from twostream.volume.formats import FORMATS, split_dataset

REMOTE = ("http", "https", "s3", "gs")
"""Schemes of places that are no paths of this machine."""
PART = re.compile(r"(?P<whole>.+)\[(?P<part>[\d\s-]+:[\d\s-]+(,[\d\s-]+:[\d\s-]+){2})\]", re.DOTALL)
"""A URI with a box in brackets behind it; a file or folder that is called so is that file or folder."""
LIKE_PART = re.compile(r"\[[\d\s:,.+-]*[:,][\d\s:,.+-]*(\]|$)")
"""What somebody may have written to name a part."""
MAX_NAMES = 20
"""Datasets that an error lists."""


@dataclass(frozen=True)
class Uri:
    """A volume URI in its parts.

    Attributes:
        driver: of the format, or an unregistered scheme as it was written; "" without a scheme and a known ending.
        path: of the file or folder, with its scheme if it is remote; for a driver without files, all that stands behind
            ``://``.
        dataset: name inside a file or folder that holds several arrays, else "".
        has_scheme: whether the text began with ``driver://``.
        part: what stands in brackets at the end, the box that is read; "" for the whole volume.
    """

    driver: str
    path: str
    dataset: str = ""
    has_scheme: bool = False
    part: str = ""

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Read a URI; any text is one, and a driver or a part that is not known is for ``open_volume`` to refuse."""
        in_part = PART.fullmatch(text)
        if in_part and not os.path.lexists(_local(text)):
            whole = cls.parse(in_part["whole"])
            return replace(whole, part=f"{whole.part}][{in_part['part']}" if whole.part else in_part["part"])
        scheme, separator, rest = text.partition("://")
        if not separator or scheme in (*REMOTE, "file"):
            found, path, dataset = split_dataset(_local(text))
            return cls(found.driver if found else "", path, dataset)
        known = FORMATS.get(scheme)
        if known is None or not known.is_path:
            return cls(scheme, rest, has_scheme=True)
        return cls(scheme, *_split(_local(rest), known.default_dataset), has_scheme=True)

    @property
    def is_remote(self) -> bool:
        """Whether it lies behind http(s), in S3 or in Google Cloud Storage."""
        scheme, separator, _ = self.path.partition("://")
        return bool(separator) and scheme in REMOTE

    @property
    def is_path(self) -> bool:
        """Whether it names a file or folder of this machine."""
        if self.is_remote:
            return False
        return not self.has_scheme or (self.driver in FORMATS and FORMATS[self.driver].is_path)

    def __str__(self) -> str:
        scheme = f"{self.driver}://" if self.has_scheme else ""
        return scheme + self.path + self._inside

    @property
    def _inside(self) -> str:
        return (f":{self.dataset}" if self.dataset else "") + (f"[{self.part}]" if self.part else "")

    @property
    def short(self) -> str:
        """Without the folders it lies in, so that a page may show it: ``/home/me/a.h5:raw`` becomes ``a.h5:raw``."""
        if not self.is_path and not self.is_remote:
            return str(self)
        return Path(self.path).name + self._inside


def _local(text: str) -> str:
    """``text`` with a path in place of ``file://`` and ``~``."""
    if text.startswith("file://"):
        # Not by urlsplit: "#" and "?" are letters of a path here. What stands before the first "/" is no host, because
        # files of other machines are not reached in this way; people write file://a.h5 for a relative path.
        path = unquote(text.removeprefix("file://"))
        return path.removeprefix("localhost") if path.startswith("localhost/") else path
    return _with_home(text)


def _with_home(text: str) -> str:
    """``text`` with a home folder in place of ``~`` or ``~name``; as it is if nobody is called so."""
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        return text


def _split(path: str, default_dataset: str | None) -> tuple[str, str]:
    """Path and dataset of what stands behind ``driver://``, where the path may have any ending."""
    if default_dataset is None:
        return path, ""
    head, separator, dataset = path.rpartition(":")
    host = head.partition("://")[2]
    is_scheme_or_port = dataset.startswith("//") or bool(host and "/" not in host)
    if separator and head and dataset and not is_scheme_or_port:
        return head, dataset
    found, inside, name = split_dataset(path)
    return (inside, name) if found is not None else (path, default_dataset)


def absolute_uri(text: str, folder: Path | None = None) -> str:
    """``text`` with an absolute path; a relative one is taken to begin in ``folder`` (None: the working directory)."""
    uri = Uri.parse(text)
    if not uri.is_path:
        return text
    path = Path(folder or ".") / _with_home(uri.path)
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


def listed(root: str, names: list[str], wanted: str) -> str:
    """The end of an error that lists the datasets of a file or folder and suggests one.

    Args:
        root: the file or folder.
        names: of its datasets.
        wanted: the name that was asked for, of which the nearest is suggested; "" to suggest the first.
    """
    if not names:
        return ". Nothing that it holds could be listed; name the array inside it as PATH:ARRAY."
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4) if wanted else names[:1]
    hint = f" Did you mean {root}:{near[0]}?" if near else ""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"; it holds: {', '.join(names[:MAX_NAMES])}{more}.{hint}"
