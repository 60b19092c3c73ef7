"""What every other package may import: errors, boxes, the base class of settings, atomic file writing, progress.

Knows nothing about the rest of ``twostream`` and imports no other package of it.
"""
