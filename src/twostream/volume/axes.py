"""From the axes of a stored array to (Z, Y, X), or (C, Z, Y, X): the one place where axes are turned.

A format says how many axes its array has and, if its metadata say so, what they are called. Names decide the order;
where there are none, the order is (Z, Y, X) or (C, Z, Y, X), slowest first. Further axes are dropped if their length is
one, and the volume says so. Anything else is refused.

Knows shapes and names; must not know formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box, Vector

CHANNEL_NAMES = ("c", "ch", "channel", "channels")
COLOURS = (3, 4)
"""Lengths of a last axis that holds red, green, blue and perhaps opacity."""
NARROWEST = 8
"""Beside a Y at least this long, an X of three or four pixels is no section of tissue."""


@dataclass(frozen=True)
class Axes:
    """How a stored array is turned.

    Attributes:
        names: of the stored axes, slowest first, lower case.
        order: positions, among the stored axes, of Z, Y and X, or of C, Z, Y and X.
        shape: of the stored array.
        named: whether the file named its axes; False if they were taken by position.
    """

    names: tuple[str, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]
    named: bool

    @classmethod
    def understand(cls, shape: Sequence[int], names: Sequence[str] | None, uri: str) -> Axes:
        """Work out the order of the axes.

        Args:
            shape: of the stored array, slowest axis first.
            names: of its axes in the same order, in any case; None if the file does not name them.
            uri: of the volume, for errors.

        Raises:
            VolumeError: Z, Y and X cannot be told, or an axis that is none of C, Z, Y, X is longer than one.
        """
        shape = tuple(int(n) for n in shape)
        named = names is not None
        words = _by_position(shape, uri) if names is None else tuple(str(n).strip().lower() for n in names)
        words = tuple("c" if word in CHANNEL_NAMES else word for word in words)
        if len(words) != len(shape):
            raise VolumeError(f"{uri} has {len(shape)} axes, {shape}, but names {len(words)}: {', '.join(words)}.")
        missing = [name for name in "zyx" if words.count(name) != 1]
        if missing or words.count("c") > 1:
            raise VolumeError(
                f"{uri} has the axes {', '.join(words)} with {shape} voxels; expected z, y and x once each, and "
                f"at most one axis c."
            )
        for word, length in zip(words, shape, strict=True):
            if word not in "czyx" and length != 1:
                raise VolumeError(
                    f"{uri} has an axis {word!r} of length {length}; expected z, y, x and perhaps c. Save one position "
                    f"along {word!r} as a volume of its own."
                )
        wanted = ("c", "z", "y", "x") if "c" in words else ("z", "y", "x")
        return cls(words, tuple(words.index(name) for name in wanted), shape, named)

    @property
    def num_channels(self) -> int:
        """Length of the axis C; 0 if there is none."""
        return self.shape[self.order[0]] if len(self.order) == 4 else 0

    @property
    def shape_zyx(self) -> Vector:
        """Extent (z, y, x) in voxels."""
        z, y, x = (self.shape[axis] for axis in self.order[-3:])
        return z, y, x

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped or turned, as sentences."""
        dropped = [name for axis, name in enumerate(self.names) if axis not in self.order]
        notes = [f"axis {name} has length one and is dropped" for name in dropped]
        if list(self.order) != sorted(self.order):
            notes.append(f"axes are stored as {' '.join(self.names)} and are turned to z y x")
        return tuple(notes)

    def zyx(self, values: Sequence[float]) -> tuple[float, float, float]:
        """The values of Z, Y and X among one value per stored axis."""
        z, y, x = (float(values[axis]) for axis in self.order[-3:])
        return z, y, x

    @property
    def _is_plain(self) -> bool:
        """Whether the array is stored as Z, Y, X and nothing else; small boxes are then cut twice as fast."""
        return self.order == (0, 1, 2) and len(self.shape) == 3

    def cut(self, box: Box) -> tuple[slice | int, ...]:
        """Index that cuts ``box``, with all channels, out of the stored array; dropped axes are taken at 0."""
        if self._is_plain:
            return box.slices
        index: list[slice | int] = [0 if axis not in self.order else slice(None) for axis in range(len(self.shape))]
        for axis, part in zip(self.order[-3:], box.slices, strict=True):
            index[axis] = part
        return tuple(index)

    def turn(self, array: np.ndarray) -> np.ndarray:
        """What ``cut`` cut out, as (Z, Y, X) or (C, Z, Y, X); a view."""
        return array if self._is_plain else array.transpose(_ranks(self.order))

    def turn_back(self, array: np.ndarray) -> np.ndarray:
        """(Z, Y, X) or (C, Z, Y, X) as it is stored, without the dropped axes; the inverse of ``turn``."""
        return array.transpose(np.argsort(_ranks(self.order)))


def _ranks(order: Sequence[int]) -> tuple[int, ...]:
    """Position of each wanted axis among the stored axes that are kept."""
    return tuple(sorted(order).index(axis) for axis in order)


def _by_position(shape: tuple[int, ...], uri: str) -> tuple[str, ...]:
    """Names by position: z y x, or c z y x; axes of length one before or behind them are dropped."""
    if len(shape) < 3:
        raise VolumeError(f"{uri} has shape {shape}; expected three axes, (Z, Y, X), or four, (C, Z, Y, X).")
    front = len(shape)
    while front > 4 and shape[len(shape) - front] == 1:
        front -= 1
    kept = shape[len(shape) - front :]
    if len(kept) == 4 and kept[-1] == 1 and kept[0] != 1:
        words: tuple[str, ...] = ("z", "y", "x", "last")
    elif len(kept) == 4 and kept[-1] in COLOURS and (kept[0] not in COLOURS or kept[-2] >= NARROWEST):
        raise VolumeError(
            f"{uri} has shape {shape}; its last axis of {kept[-1]} looks like colours. Expected grey values (Z, Y, X), "
            f"or (C, Z, Y, X) with the channels first."
        )
    elif len(kept) in (3, 4):
        words = ("c", "z", "y", "x")[-len(kept) :]
    else:
        raise VolumeError(
            f"{uri} has shape {shape} and does not name its axes; expected (Z, Y, X) or (C, Z, Y, X), and nothing else "
            f"that is longer than one."
        )
    return tuple(f"axis{i}" for i in range(len(shape) - front)) + words
