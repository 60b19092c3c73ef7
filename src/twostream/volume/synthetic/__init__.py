"""Synthetic electron-microscopy tissue with exact truth, any box of an endless volume.

``Tissue(seed).image(box)`` and the truth beside it (``synapses``, ``clefts``, ``mitochondria``,
``neurites``, ``kinds``) are computed where they are read: nothing is stored, nothing depends on
the order of reading. Import order, lowest first: hashing, noise, neurites, sites and organelles,
vesicles, render, stamps and sections, tissue.

Knows geometry and errors; must not know disks, tasks or networks.
"""

from twostream.volume.synthetic.tissue import Tissue

__all__ = ["Tissue"]
