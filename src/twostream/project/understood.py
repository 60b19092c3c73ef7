"""What was understood of an image and its labels, as sentences for a person to check before anything is trained.

`twostream look` and `twostream init` print the same ones. A *question* is something that looks unusual but may be
right; what contradicts itself has been refused before.

Knows volumes, labels and words; must not know the folder of a project, nor import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.geometry import grid
from twostream.candidates.labels import Labels
from twostream.task import Task
from twostream.volume import Volume
from twostream.volume.alignment import CLEARLY, CLOSELY, MIN_OBJECTS, Fit, better_reading
from twostream.volume.grey import NUM_SAMPLES, SAMPLE_ZYX, spread_boxes

BLOCK_ZYX = (32, 512, 512)
"""Voxels of the labels in memory at once, while objects are counted."""
NOT_STATED = "not stated: that of the image is taken"
"""Of the voxel size of labels."""
MUCH_PADDING = 0.25
"""Share of constant places from which padding is questioned."""


@dataclass(frozen=True)
class Understood:
    """What was understood.

    Attributes:
        lines: as sentences.
        questions: what looks unusual but may be right, as sentences.
    """

    lines: tuple[str, ...]
    questions: tuple[str, ...] = ()

    def __add__(self, other: Understood) -> Understood:
        return Understood(self.lines + other.lines, self.questions + other.questions)

    @property
    def printed(self) -> list[str]:
        """All sentences, the questions last and marked."""
        return [*self.lines, *(f"question: {line}" for line in self.questions)]


def of_image(image: Volume) -> Understood:
    """What was understood of an image: axes, extent, place, grey values, what is missing.

    Reads ``NUM_SAMPLES`` places spread over the whole volume.
    """
    lines = [f"image {image.uri}", *_of_volume(image, "as given")]
    questions = []
    constant, places = _constant_places(image)
    if constant:
        lines.append(f"  {constant} of {places} sampled places hold one grey value: padding, or nothing stored")
    if constant > MUCH_PADDING * places:
        questions.append(
            f"{constant / places:.0%} of {image.uri} seems to be empty. Is it the right volume, and whole?"
        )
    lines += _absent(image)
    return Understood(tuple(lines), tuple(questions))


def of_labels(labels: Labels, image: Volume, task: Task, found: list[Fit], name: str = "labels") -> Understood:
    """What was understood of labels: kind, objects, what is unknown, and whether they lie on the image.

    Args:
        labels: the labels.
        image: (Z, Y, X) uint8.
        task: gives the label convention.
        found: how well the labels fit the image in each reading of their axes (``volume.alignment.fits``); empty for
            points, which have no borders.
        name: what they are, "labels" or "segmentation".
    """
    volume = labels.volume
    lines = [f"{name} {volume.uri}", *(_of_volume(volume, NOT_STATED) if labels.kind != "points" else [])]
    lines += [f"  {note}" for note in labels.notes if note not in volume.metadata.notes]
    sizes, hidden, known = _sizes(labels, task)
    if sizes:
        lines.append(f"  {labels.kind}: {len(sizes):,} {_noun(task)} of {_size_range(sizes, image)}")
    share = 1 - known / image.box.num_voxels
    lines.append(f"  covered: {labels.covered} (Z, Y, X voxels of the image); {share:.0%} of the image is unknown")
    if hidden:
        lines.append(f"  ignored inside: {hidden / max(1, labels.covered.num_voxels):.1%}")
    lines += _absent(volume)
    if not found:
        return Understood((*lines, "  balls around points have no borders that could be compared with the image"))
    placed = _on_image(volume.uri, found)
    return Understood((*lines, *placed.lines), (*labels.questions, *placed.questions))


def _on_image(uri: str, found: list[Fit]) -> Understood:
    """Whether the labels lie on the image, by the contrast at the borders of objects."""
    given, better = found[0], better_reading(found)
    if given.num_objects < MIN_OBJECTS:
        return Understood(("  too few objects to see whether they lie on the image",))
    line = f"  contrast at the borders of {given.num_objects} sampled objects: {given.contrast:.1f} standard errors"
    if better is not None:
        return Understood(
            (f"{line}, {better.contrast:.1f} if the axes are read as {better.reading}",),
            (
                f"{uri} does not seem to lie on the image. It fits much better if its axes are read as "
                f"{better.reading} (minus: backwards). Look at the picture, and turn the file if the picture says so.",
            ),
        )
    if given.contrast < CLEARLY:
        return Understood(
            (line,),
            (
                f"the image is hardly darker or brighter at the borders of the objects of {uri} than anywhere. "
                f"Do they belong to this image? Look at the picture.",
            ),
        )
    if given.per_object < CLOSELY:
        return Understood(
            (line,),
            (
                f"the objects of {uri} fit the image only roughly. Are they shifted, by a section or some pixels, or "
                f"drawn coarsely? Look at the picture.",
            ),
        )
    return Understood((f"{line}; they lie on the image",))


def _of_volume(volume: Volume, not_stated: str) -> list[str]:
    """Axes, extent, voxel size, place and dtype of a volume as its file has them, and what was made of it.

    Args:
        volume: the volume as it is used here.
        not_stated: what is said of the voxel size where the file does not state it.
    """
    facts, stored = volume.metadata, volume.as_stored
    axes = f"named by {facts.axes_from}" if facts.axes_from else "presumed, as nothing names them"
    size = f"from {facts.voxel_size_from}" if facts.voxel_size_from else not_stated
    extent = [n * v / 1000 for n, v in zip(stored.shape_zyx, stored.voxel_size_nm, strict=True)]
    place = "states no place"
    if stored.offset_nm is not None:
        source = f", from {facts.offset_from}" if facts.offset_from else ""
        place = f"begins at {_numbers(stored.offset_nm)} nm{source}"
    lines = [
        f"  axes {' '.join(facts.axes)}, {axes}",
        f"  {_numbers(stored.shape_zyx)} voxels of {_numbers(stored.voxel_size_nm)} nm ({size}): "
        f"{' x '.join(f'{e:.3g}' for e in extent)} µm (Z, Y, X)",
        f"  {place}; {stored.dtype}",
    ]
    return [*lines, *(f"  {note}" for note in facts.notes)]


def _absent(volume: Volume) -> list[str]:
    counted = volume.num_absent_chunks()
    if not counted or not counted[0]:
        return []
    return [f"  {counted[0]:,} of {counted[1]:,} chunks of {volume.uri} are not stored and read as 0"]


def _constant_places(image: Volume) -> tuple[int, int]:
    """How many sampled places hold a single grey value, and of how many."""
    boxes = spread_boxes(image.shape_zyx, NUM_SAMPLES, SAMPLE_ZYX)
    arrays = (image.read(box) for box in boxes)
    return sum(int(array.min() == array.max()) for array in arrays), len(boxes)


def _sizes(labels: Labels, task: Task) -> tuple[list[int], int, int]:
    """Voxels of each object, voxels that are ignored inside the covered box, and voxels that are known."""
    sizes: dict[int, int] = {}
    hidden = 0
    for block in grid(labels.covered, BLOCK_ZYX):
        values, counts = np.unique(task.instances(labels.volume.read(block.write_box)), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            sizes[value] = sizes.get(value, 0) + count
        if labels.ignore is not None:
            hidden += int(np.count_nonzero(labels.ignore.read(block.write_box)))
    sizes.pop(0, None)
    return list(sizes.values()), hidden, labels.covered.num_voxels - hidden


def _size_range(sizes: Sequence[int], image: Volume) -> str:
    """Smallest, median and largest object, in voxels and, for the median, as the diameter of a ball."""
    voxel_nm3 = float(np.prod(image.voxel_size_nm))
    diameter_nm = (6 / np.pi * float(np.median(sizes)) * voxel_nm3) ** (1 / 3)
    return (
        f"{min(sizes):,} to {max(sizes):,} voxels; the median, {np.median(sizes):,.0f}, is a ball of "
        f"{diameter_nm:,.0f} nm"
    )


def _noun(task: Task) -> str:
    return {"polarity": "synapses", "cleft": "clefts"}.get(task.name, task.name)


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
