"""The lock of a project's folder: one process at a time runs steps, moves data or repairs.

Knows the folder; must not know what is done in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twostream.base import lock
from twostream.base.errors import ProjectError

LOCK_NAME = ".lock"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other processes out. If this process is killed, the operating system releases the lock.

    Raises:
        ProjectError: another process works in the project, or the folder cannot be written.
    """
    try:
        handle = lock.try_lock(root / LOCK_NAME)
    except OSError as error:
        raise ProjectError(
            f"{root} cannot be written ({error.strerror}), so no step can be done there. `status`, `report -o FILE` "
            f"and `export` only read it; to go on, copy the folder to a disk that can be written."
        ) from None
    if handle is None:
        raise ProjectError(f"another process is at work in {root}; wait until it ends, or stop it.")
    with handle:
        yield


def is_locked(root: Path) -> bool:
    """Whether a process works in the project at this moment."""
    return lock.is_locked(root / LOCK_NAME)
