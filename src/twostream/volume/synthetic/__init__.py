"""Synthetic electron-microscopy images of brain tissue, with exact labels.

``Tissue(seed).image(box)`` returns the image of any box of a practically unlimited volume; ``synapses``, ``clefts``,
``mitochondria``, ``neurites`` and ``objects`` return its labels. Voxels are computed when they are asked for, nothing
is stored, and the same voxel has the same value whichever box it is read in.

How the tissue is built, with the modules in the order in which they import each other:

1. ``hashing``: pseudo-random numbers that are functions of a place; ``noise``: smooth random fields made of them.
2. ``neurites``: space is divided into neurites, with a membrane between each two.
3. ``sites``: synapses, and contacts that look like synapses, are placed on membranes; ``organelles``: mitochondria and
   lysosomes are placed inside neurites; ``vesicles``: vesicles are placed inside presynaptic neurites.
4. ``render``: labels and darkness are drawn, one small tile at a time; ``stamps``: vesicles are drawn.
5. ``sections``: the defects and the noise of the microscope are added.
6. ``tissue``: all of this for one box.

Knows boxes and errors; must not know files, tasks or neural networks.
"""

from twostream.volume.synthetic.tissue import Tissue

__all__ = ["Tissue"]
