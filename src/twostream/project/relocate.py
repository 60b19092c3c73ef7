"""Telling a project where its image or labels are now (`run --image`, `run --labels`).

Knows volumes and settings; must not know what is computed from them.
"""

from __future__ import annotations

from twostream.base.errors import InputError
from twostream.project.fingerprint import check_moved, state_inputs
from twostream.project.project import Project
from twostream.volume import Volume, open_volume
from twostream.volume.checks import check_extent
from twostream.volume.uri import portable_uri


def relocate(project: Project, *, accept: bool = False, **uris: str) -> None:
    """Tell a project where its image or labels are now; ``twostream.yaml`` is rewritten.

    Args:
        project: the project.
        accept: whether a volume with another content is meant.
        uris: ``image``, ``labels``, or both; relative paths start at the working directory.

    Raises:
        InputError: the project has no labels, or the volume differs in extent or voxel size from the volumes of the
            rounds.
        ProjectError: the volume holds something else than the one with which the project was made, or another process
            works in the project.
    """
    with project.locked():
        for name, uri in uris.items():
            volume = _open(project, name, uri)
            if not accept:
                check_moved(project, name, volume)
        project.rewrite({f"{name}.uri": portable_uri(uri, project.root) for name, uri in uris.items()})
        if accept:
            state_inputs(project, list(uris))


def _open(project: Project, name: str, uri: str) -> Volume:
    """Open the volume ``name`` at its new place, and check that it fits the project."""
    if getattr(project.config, name) is None:
        raise InputError(f"--{name} {uri} was given, but {project.root} was made without {name}; leave it out.")
    volume = project.open_moved(name, uri)
    for kind in ("segmentation", "probability"):
        if made := sorted(project.root.glob(f"rounds/*/{kind}.zarr")):
            check_extent(volume, open_volume(str(made[-1])))
            break
    for box in (*project.boxes.labels, project.boxes.test):
        if box is not None and not volume.box.contains(box):
            raise InputError(
                f"{volume.uri} holds {volume.box}, and {project.root} has the box {box} (Z, Y, X voxels). "
                f"Is it the volume that the project was made with?"
            )
    return volume
