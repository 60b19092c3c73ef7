"""What every room may use: errors, boxes of voxels, strict settings, files written whole or not at all, progress."""
