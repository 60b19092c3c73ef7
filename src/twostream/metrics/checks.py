"""Arrays that are scored together must lie on one grid. Knows shapes; must not know what the voxels mean."""

from __future__ import annotations

import numpy as np

from twostream.errors import InputError


def check_one_shape(**arrays: np.ndarray | None) -> None:
    """Check that all arrays have the shape of the first, so that none is silently repeated along an axis.

    Args:
        arrays: by the name that the error shall say; None is passed over.

    Raises:
        InputError: two shapes differ.
    """
    shapes = [(name, np.shape(array)) for name, array in arrays.items() if array is not None]
    first, wanted = shapes[0]
    for name, shape in shapes[1:]:
        if shape != wanted:
            raise InputError(
                f"{name} has shape {shape}, {first} {wanted}; expected one shape (Z, Y, X). "
                f"Were both read over the same box?"
            )
