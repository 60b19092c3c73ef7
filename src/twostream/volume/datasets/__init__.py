"""Public data sets by name: fetched whole or not at all, and turned into HDF5 files that ``twostream init`` opens.

Knows where the sets lie, how their archives are laid out and what their labels mean; must not know projects or models.

One file per volume: ``image`` (Z, Y, X) uint8, and labels of the same extent, uint32, 0 for background: ``synapses``
(synapse n is 2n-1 before and 2n after the cleft), ``clefts`` or ``mitochondria`` (one id per object). Where labels say
nothing, ``<labels>_ignore`` (uint8) is 1. Attributes of the file: ``voxel_size_nm`` (z, y, x), ``source``, ``license``,
``citation``.

What is known of each address and layout, and from where, is in ``DataSet.notes`` (``sets.py``): nothing of it could be
tried over a network where this was written. Where a checksum has been published, a file that differs is refused. Where
none has, the sha256 of the first download is printed and kept beside the file (``NAME.sha256``, as ``sha256sum -c``
reads it): compare it between machines; a later download must agree with it.
"""

from twostream.volume.datasets.fetch import Remote
from twostream.volume.datasets.get import find_dataset, get_dataset, table
from twostream.volume.datasets.sets import DATASETS, DataSet

__all__ = ["DATASETS", "DataSet", "Remote", "find_dataset", "get_dataset", "table"]
