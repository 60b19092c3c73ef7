"""The lock of a project's folder: one process at a time runs steps, moves data or repairs.

Knows the folder; must not know what is done in it.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from twostream.base.errors import ProjectError


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other processes out. If this process is killed, the operating system releases the lock.

    Raises:
        ProjectError: another process works in the project, or the folder cannot be written.
    """
    try:
        handle = open(root / ".lock", "w")  # noqa: SIM115 (closed below, and its errors are told from those inside)
    except OSError as error:
        raise ProjectError(
            f"{root} cannot be written ({error.strerror}), so no step can be done there. `status`, `report -o FILE` "
            f"and `export` only read it; to go on, copy the folder to a disk that can be written."
        ) from None
    with handle:
        if not _take(handle):
            raise ProjectError(f"another process is at work in {root}; wait until it ends, or stop it.")
        yield


def _take(handle: IO[str]) -> bool:
    """Take the lock. ``is_locked`` holds it for an instant as well, so a few attempts are made."""
    for pause in (0.0, 0.01, 0.05, 0.1):
        time.sleep(pause)
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def is_locked(root: Path) -> bool:
    """Whether a process works in the project at this moment."""
    try:
        with open(root / ".lock") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
