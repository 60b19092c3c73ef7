"""The base model S: it sees the image and says, voxel by voxel, what is there.

Settings are in ``config`` (free of torch); network, losses, training and prediction have a file each.
"""
