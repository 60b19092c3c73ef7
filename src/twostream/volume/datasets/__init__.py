"""Public data sets by name: downloaded, checked, and converted to HDF5 files that ``twostream init`` can open.

Each volume becomes one HDF5 file. Its dataset ``image`` is (Z, Y, X) uint8. The labels have the same shape, uint32, 0 =
background, and are called ``synapses`` (2n-1 on the presynaptic and 2n on the postsynaptic side of synapse n),
``clefts`` or ``mitochondria`` (one id per object). If some voxels are not annotated, a dataset ``<labels>_ignore``
(uint8) is 1 there. The file has the attributes ``voxel_size_nm`` (z, y, x), ``source``, ``license`` and ``citation``.

The addresses and archive layouts were collected from the places named in ``DataSet.notes`` (``sets.py``); this code was
written without network access, so none of them has been tried. A download whose published checksum does not match is
refused. Where no checksum is published, the sha256 of the first download is printed and saved beside the file
(``NAME.sha256``, readable by ``sha256sum -c``): compare it between machines; later downloads must match it.

Knows where the sets are published, how their archives are laid out and what their labels mean; must not know projects
or models.
"""

from twostream.volume.datasets.fetch import Remote
from twostream.volume.datasets.get import find_dataset, get_dataset, table
from twostream.volume.datasets.sets import DATASETS, DataSet

__all__ = ["DATASETS", "DataSet", "Remote", "find_dataset", "get_dataset", "table"]
