"""Networks and their training: S in ``segmentation``, the two streams in ``streams``. Only this room knows torch."""
