"""A cache of decoded pages and tiles with a limit, one for each process, shared by all volumes that use it.

Knows arrays; must not know formats.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

CACHE_BYTES = 256 * 2**20
"""Of decoded pages and tiles, in each process; more would be multiplied by the number of worker processes."""


class DecodedCache:
    """The arrays that were used last.

    Args:
        max_bytes: of all arrays together; an array that is larger is not kept.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Of all arrays that are kept."""
        return self._num_bytes

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of ``key``, which ``make`` makes if it is not kept; not to be changed."""
        with self._lock:
            found = self._arrays.get(key)
            if found is not None:
                self._arrays.move_to_end(key)
                return found
        array = make()
        with self._lock:
            if key not in self._arrays and array.nbytes <= self._max_bytes:
                self._arrays[key] = array
                self._num_bytes += array.nbytes
                while self._num_bytes > self._max_bytes:
                    self._num_bytes -= self._arrays.popitem(last=False)[1].nbytes
        return array


CACHE = DecodedCache()
"""That of this process."""
