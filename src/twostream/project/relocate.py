"""Telling a project where its image or labels are now (`run --image`, `run --labels`).

Knows volumes and settings; must not know what is computed from them.
"""

from __future__ import annotations

from twostream.base.errors import InputError
from twostream.project.project import Project
from twostream.volume import open_volume
from twostream.volume.checks import check_extent
from twostream.volume.uri import portable_uri


def relocate(project: Project, **uris: str) -> None:
    """Tell a project where its image or labels are now; ``twostream.yaml`` is rewritten.

    Args:
        project: the project.
        uris: ``image``, ``labels``, or both; relative paths start at the working directory.

    Raises:
        InputError: the project has no labels, or the volume differs in extent or voxel size from the volumes of the
            rounds.
    """
    made = sorted(project.root.glob("rounds/*/segmentation.zarr")) or sorted(
        project.root.glob("rounds/*/probability.zarr")
    )
    for name, uri in uris.items():
        if getattr(project.config, name) is None:
            raise InputError(f"--{name} {uri} was given, but {project.root} was made without {name}; leave it out.")
        volume = project.open_moved(name, uri)
        if made:
            check_extent(volume, open_volume(str(made[-1])))
        for box in (*project.boxes.labels, project.boxes.test):
            if box is not None and not volume.box.contains(box):
                raise InputError(
                    f"{volume.uri} holds {volume.box}, and {project.root} has the box {box} (Z, Y, X voxels). "
                    f"Is it the volume that the project was made with?"
                )
    project.rewrite({f"{name}.uri": portable_uri(uri, project.root) for name, uri in uris.items()})
