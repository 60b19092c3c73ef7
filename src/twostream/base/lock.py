"""A lock that one process at a time can hold: a file that the operating system releases when the process ends.

Knows files; must not know what is kept apart.
"""

from __future__ import annotations

import fcntl
import time
from contextlib import suppress
from pathlib import Path
from typing import IO


def try_lock(path: Path) -> IO[str] | None:
    """Take the lock; it is held until the file is closed, or the process ends, however it ends.

    Args:
        path: of the file, which is made.

    Returns:
        The open file; None if another process holds the lock.

    Raises:
        OSError: the file cannot be made.
    """
    handle = path.open("w")
    for pause in (0.0, 0.01, 0.05, 0.1):  # ``is_locked`` holds it for an instant as well
        time.sleep(pause)
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
    handle.close()
    return None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock at this moment. A file that is not there, or cannot be read, is not locked."""
    try:
        with path.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
