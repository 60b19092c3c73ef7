"""The table of volume formats: which function opens which URI.

Our own formats are entered in ``open.py``; a format from outside is entered by ``register_format``, in the same way.
Knows names, endings and functions; must not open anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twostream.base.errors import VolumeError
from twostream.volume.volume import Volume


@dataclass(frozen=True)
class Format:
    """One volume format.

    Attributes:
        driver: the scheme of its URIs, ``driver://...``.
        open: opens a URI for reading; takes the arguments of ``open_volume``.
        suffixes: endings of its files or folders, lower case, such as ".h5"; with one of these a path needs no driver.
        create: makes a volume for writing; takes the arguments of ``create_volume``, ``offset_nm`` too. None for
            formats that are only read.
        recognises: whether a path without any known ending is of this format; takes the path. None: never.
        default_dataset: for files and folders that hold several arrays, the one that a URI without ``:dataset`` means,
            "" for the file or folder itself; None for formats with one array per file or folder.
        is_path: whether what stands behind ``driver://`` is a path of this machine.
    """

    driver: str
    open: Callable[..., Volume]
    suffixes: tuple[str, ...] = ()
    create: Callable[..., Volume] | None = None
    recognises: Callable[[str], bool] | None = None
    default_dataset: str | None = None
    is_path: bool = True


FORMATS: dict[str, Format] = {}
"""{driver: format}."""


def register_format(
    driver: str,
    open: Callable[..., Volume],
    *,
    suffixes: tuple[str, ...] = (),
    create: Callable[..., Volume] | None = None,
    recognises: Callable[[str], bool] | None = None,
    default_dataset: str | None = None,
    is_path: bool = True,
) -> None:
    """Make a format known to ``open_volume`` and ``create_volume``; the arguments are those of ``Format``.

    The same functions may be registered again, as when a cell of a notebook runs twice.

    Raises:
        VolumeError: the driver or a suffix belongs to another format, or is badly written.
    """
    if not driver.replace("-", "").replace("_", "").isalnum() or driver != driver.lower():
        raise VolumeError(f"driver is {driver!r}; expected lower-case letters and digits, such as 'n5'.")
    known = FORMATS.get(driver)
    if known is not None and _home(known.open) != _home(open):
        raise VolumeError(f"driver {driver!r} is registered already, by {_home(known.open)}; choose another name.")
    for suffix in suffixes:
        if not suffix.startswith(".") or suffix != suffix.lower():
            raise VolumeError(f"suffix of driver {driver!r} is {suffix!r}; expected lower case with its dot: '.raw'.")
        owner = next((f.driver for f in FORMATS.values() if suffix in f.suffixes and f.driver != driver), None)
        if owner is not None:
            raise VolumeError(f"suffix {suffix!r} of driver {driver!r} belongs to driver {owner!r}; leave it out.")
    FORMATS[driver] = Format(driver, open, tuple(suffixes), create, recognises, default_dataset, is_path)


def format_of_path(path: str) -> Format | None:
    """The format whose suffix ends ``path``, upper or lower case; of several the one with the longest suffix."""
    name = path.rstrip("/").lower()
    found = [(len(suffix), f) for f in FORMATS.values() for suffix in f.suffixes if name.endswith(suffix)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def split_dataset(path: str) -> tuple[Format | None, str, str]:
    """The format of a path, the path of the file or folder, and the dataset inside it.

    The dataset stands behind a colon, ``a.h5:raw``, or goes on as a path, ``a.zarr/raw/s0``: the last part of the path
    with a known suffix is then the file or folder.

    Returns:
        (format, path, dataset); (None, path, "") if no suffix is known.
    """
    holder, separator, dataset = path.rpartition(":")
    found = format_of_path(holder) if separator and dataset else None
    if found is not None and found.default_dataset is not None:
        return found, holder, dataset
    found = format_of_path(path)
    if found is not None:
        return found, path, found.default_dataset or ""
    parts = path.split("/")
    for end in range(len(parts) - 1, 0, -1):
        found = format_of_path(parts[end - 1])
        if found is not None and found.default_dataset is not None:
            return found, "/".join(parts[:end]), "/".join(parts[end:]).strip("/")
    return None, path, ""


def _home(function: Callable[..., Volume]) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', function)}"
