"""Are image, labels and source still those with which the project was made? Small boxes of them are compared.

Checksums of boxes spread over the whole volume are stated in the ledger when the project is made. A volume that was
replaced under the same path is noticed if it differs in one of the boxes; a change between them is not.

Knows volumes and the ledger's facts; must not know what is computed from the volumes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twostream.base.errors import ProjectError, TwoStreamError
from twostream.base.geometry import Box
from twostream.project.project import Project
from twostream.volume import Volume, open_volume
from twostream.volume.checks import states_no_voxel_size
from twostream.volume.uri import Uri

NUM_BOXES = 32
"""Boxes of a volume, and as many again in the labels box, because labels are empty in most places."""
BOX_ZYX = (4, 64, 64)
"""Shape of a box in voxels: few enough that it touches one chunk or a few."""
BASES = (2, 3, 5)
"""Bases of the Halton sequence, which spreads points evenly however many there are."""

INPUTS = ("image", "labels", "source")

Checksums = dict[str, str]
"""{box as text, or "file": checksum of what is there}."""


def sample_boxes(whole: Box, num_boxes: int = NUM_BOXES) -> list[Box]:
    """Boxes spread evenly over ``whole``, the same ones every time; ``whole`` itself if that is not more to read."""
    if whole.num_voxels <= num_boxes * math.prod(BOX_ZYX):
        return [whole]
    shape = [min(side, room) for side, room in zip(BOX_ZYX, whole.shape_zyx, strict=True)]
    room = [all_ - side for all_, side in zip(whole.shape_zyx, shape, strict=True)]
    found = []
    for number in range(1, num_boxes + 1):
        where = [round(_halton(number, base) * left) for base, left in zip(BASES, room, strict=True)]
        found.append(Box((where[0], where[1], where[2]), (shape[0], shape[1], shape[2])).shifted(whole.offset_zyx))
    return list(dict.fromkeys(found))


def checksums(volume: Volume, boxes: Sequence[Box]) -> Checksums:
    """Checksum of each box; "" for a box that reaches outside. The dtype does not matter, only the values do."""
    found = {}
    for box in boxes:
        inside = volume.box.contains(box)
        found[str(box)] = _digest(volume.read(box)) if inside else ""
    return found


def fingerprint(volume: Volume, labels_boxes: Sequence[Box] = ()) -> Checksums:
    """Checksums of boxes spread over a volume, and over the labels boxes if they are given."""
    boxes = sample_boxes(volume.box) + [box for labels_box in labels_boxes for box in sample_boxes(labels_box)]
    return checksums(volume, boxes)


def state_inputs(project: Project, names: Sequence[str] = INPUTS) -> None:
    """Record in the ledger what image, labels and source hold now."""
    for name in names:
        found = _now(project, name, None)
        if found is not None:
            project.ledger.state(fact_of(name), json.dumps(found))


def check_inputs(project: Project, *, accept: bool = False) -> None:
    """Compare image, labels and source with what they held when the project was made.

    What cannot be read is left to the step that needs it. Projects of older versions have stated nothing; for them what
    is there now counts from now on.

    Args:
        project: the project.
        accept: whether what is there now is meant: it is recorded instead of refused.

    Raises:
        ProjectError: one of them differs.
    """
    for name in INPUTS:
        stated = project.ledger.fact(fact_of(name))
        try:
            found = _now(project, name, json.loads(stated) if stated else None)
        except TwoStreamError:
            continue
        if found is None:
            continue
        problem = difference(json.loads(stated), found) if stated else ""
        if problem and not accept:
            raise refusal(project, name, problem)
        if problem or not stated:
            state_inputs(project, [name])


def check_moved(project: Project, name: str, volume: Volume) -> None:
    """Compare a volume that is said to be the image or the labels of a project with what was stated of them.

    Raises:
        ProjectError: it differs.
    """
    stated: Checksums = json.loads(project.ledger.fact(fact_of(name)) or "{}")
    if problem := difference(stated, checksums(volume, [Box.parse(text) for text in stated])):
        raise refusal(project, name, problem, f"--{name}", volume.uri)


def difference(before: Checksums, now: Checksums) -> str:
    """What differs, as the end of a sentence; "" if nothing does."""
    changed = [key for key, value in before.items() if now.get(key) != value]
    if not changed:
        return ""
    if changed == ["file"]:
        return "the file has another content"
    return (
        f"{len(changed)} of {len(before)} boxes differ that were compared, the first at {changed[0]} (Z, Y, X voxels)"
    )


def refusal(project: Project, name: str, problem: str, *options: str) -> ProjectError:
    """The error about an input that differs.

    Args:
        project: the project.
        name: of the input.
        problem: from ``difference``.
        options: of the command that has brought the input.
    """
    return ProjectError(
        f"the {name} is not the one with which {project.root} was made: {problem}. Put the old one back. If the new "
        f"one is meant, because it was corrected, `{project.command('run', *options, '--accept-changed')}` goes on "
        f"with it; rounds before and after that cannot be compared."
    )


def _now(project: Project, name: str, stated: Checksums | None) -> Checksums | None:
    """What an input holds now: in the boxes of ``stated``, or in new ones.

    None if the project has no such input, or if its URI says all that it holds (``synthetic://``).
    """
    settings = getattr(project.config, name)
    if settings is None or Uri.parse(settings.uri).driver == "synthetic":
        return None
    if name == "source":
        uri = project.locate(name, settings.uri)
        if settings.kind == "objects":
            return {"file": hashlib.blake2b(Path(uri).read_bytes(), digest_size=8).hexdigest()}
        size = settings.voxel_size_nm or (project.image.voxel_size_nm if states_no_voxel_size(uri) else None)
        volume = open_volume(uri, size)
    else:
        volume = project.image if name == "image" else project.labels
    if stated is not None:
        return checksums(volume, [Box.parse(text) for text in stated])
    return fingerprint(volume, project.boxes.labels if name == "labels" else ())


def fact_of(name: str) -> str:
    """Name of the fact that holds the checksums of an input."""
    return f"content of {name}"


def _digest(array: np.ndarray) -> str:
    """Checksum of the values of an array, whatever its dtype and byte order."""
    plain = array.astype("<f8" if array.dtype.kind == "f" else "<i8")
    return hashlib.blake2b(np.ascontiguousarray(plain).tobytes(), digest_size=8).hexdigest()


def _halton(number: int, base: int) -> float:
    """The element ``number`` (from 1) of the Halton sequence, in (0, 1)."""
    result, share = 0.0, 1.0
    while number:
        share /= base
        number, digit = divmod(number, base)
        result += share * digit
    return result
