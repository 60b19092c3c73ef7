"""Connected pieces of masks as instances.

Knows arrays; must not know volumes.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from twostream.volume.components import components

MIN_SYNAPSE_VOXELS = 16
"""Connected pieces of semantic labels that are smaller than this are dropped, as in the published code.

See ``docs/method.md``, section Aligned patches."""


def number_pieces(mask: np.ndarray) -> np.ndarray:
    """Number the connected pieces of a mask; voxels that share a corner are connected.

    Args:
        mask: (Z, Y, X), above 0 inside.

    Returns:
        (Z, Y, X) uint32: 1, 2, ... inside the pieces, 0 outside.
    """
    return components(mask > 0)


def number_synapses(sides: np.ndarray) -> np.ndarray:
    """Number the synapses of a semantic label volume.

    Voxels that are connected after dilation by one voxel are one synapse; synapses of fewer than ``MIN_SYNAPSE_VOXELS``
    voxels are dropped. This is the rule of the published code (``docs/method.md``, section Aligned patches).

    Args:
        sides: (Z, Y, X) integers: 1 presynaptic, 2 postsynaptic, 0 background.

    Returns:
        (Z, Y, X) uint32: 2n-1 presynaptic and 2n postsynaptic voxels of synapse n, 0 background.
    """
    grown = ndimage.binary_dilation(sides > 0)
    instance = components(grown)
    instance[sides == 0] = 0
    keep = np.bincount(instance.ravel()) >= MIN_SYNAPSE_VOXELS
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)[instance]
    return np.where(number > 0, 2 * number - (sides == 1), 0).astype(np.uint32)
