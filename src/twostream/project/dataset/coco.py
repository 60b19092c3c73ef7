"""A curated data set in COCO's instance format: annotations, and a picture of every section that holds objects.

Objects are painted whole sections at a time, and each section is written before the next one, so that what is in memory
does not grow with the depth of the image or the number of objects. ``docs/curated.md`` explains every key.

Knows label values, sections and JSON; must not know which objects belong into a data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from twostream.base.geometry import Box
from twostream.task import Task
from twostream.volume import Volume

ANNOTATIONS, IMAGES = "annotations.json", "images"


class CocoSections(Volume):
    """A volume that can only be written, whole sections in their order, and becomes annotations.

    To be used as a context manager; ``finish`` completes the file.

    Args:
        folder: in which ``annotations.json`` and ``images/`` are made.
        image: (Z, Y, X) uint8, the image.
        task: gives the label convention and the categories.
        provenance: {id of an object: its row of ``objects.csv``}.
    """

    def __init__(self, folder: Path, image: Volume, task: Task, provenance: Mapping[int, Mapping[str, Any]]) -> None:
        self.uri, self.dtype, self.num_channels = str(folder), np.dtype(np.uint64), 0
        self.shape_zyx, self.voxel_size_nm, self.offset_nm = image.shape_zyx, image.voxel_size_nm, image.offset_nm
        self._folder, self._image, self._task, self._provenance = folder, image, task, provenance
        self._images: list[dict[str, Any]] = []
        self.num_annotations = 0
        (folder / IMAGES).mkdir()
        self._file = open(folder / ANNOTATIONS, "w", encoding="utf-8")  # noqa: SIM115 - __exit__ closes it
        self._file.write('{"annotations": [')

    def __enter__(self) -> CocoSections:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def num_images(self) -> int:
        """Number of sections that hold objects, so far."""
        return len(self._images)

    def finish(self, info: Mapping[str, Any]) -> None:
        """Complete the file.

        Args:
            info: what is said of the data set as a whole.
        """
        rest = {"images": self._images, "categories": categories(self._task), "licenses": [], "info": dict(info)}
        self._file.write("\n]")
        for key, value in rest.items():
            self._file.write(f',\n"{key}": {json.dumps(value)}')
        self._file.write("}\n")
        self._file.close()

    def _read(self, box: Box) -> np.ndarray:
        raise NotImplementedError("annotations are written and not read back")

    def _write(self, box: Box, array: np.ndarray) -> None:
        for z, labels in enumerate(array, start=box.offset_zyx[0]):
            if labels.any():
                self._write_section(z, labels)

    def _write_section(self, z: int, labels: np.ndarray) -> None:
        """Write the picture and the annotations of a section, (Y, X) uint64 labels."""
        height, width = labels.shape
        name = f"{IMAGES}/section_{z:05d}.png"
        grey = self._image.read(Box((z, 0, 0), (1, height, width)))[0]
        Image.fromarray(grey).save(self._folder / name)
        image = {"id": z + 1, "file_name": name, "width": width, "height": height, "section": z}
        self._images.append(image)
        for label, counts, bbox, area in runs_of_section(labels):
            self.num_annotations += 1
            identity = self._task.instance_of(label)
            row = self._provenance[identity]
            annotation = {
                "id": self.num_annotations,
                "image_id": image["id"],
                "category_id": 1 if self._task.num_sides == 1 or label % 2 else 2,
                "segmentation": {"counts": counts, "size": [height, width]},
                "area": area,
                "bbox": bbox,
                "iscrowd": 0,
                "object": identity,
                "source": row["origin"],
                "annotator": row.get("answered_by"),
                "probability": row.get("probability"),
            }
            self._file.write(("," if self.num_annotations > 1 else "") + "\n" + json.dumps(annotation))


def categories(task: Task) -> list[dict[str, Any]]:
    """COCO's categories of a task: its name, or for objects with two sides one category for each side."""
    names = [task.name] if task.num_sides == 1 else ["presynaptic", "postsynaptic"]
    return [{"id": i, "name": name, "supercategory": task.name} for i, name in enumerate(names, start=1)]


def runs_of_section(labels: np.ndarray) -> Iterator[tuple[int, list[int], list[int], int]]:
    """The runs of every label in a section, as COCO's uncompressed RLE has them.

    Args:
        labels: (Y, X), whole numbers; 0 is background.

    Yields:
        For each label, ascending: the label; lengths of its runs in column-major order (Y fastest), the first one
        outside it, then in turns inside and outside, adding up to Y * X; [x, y, width, height]; and its pixels.
    """
    height, num = labels.shape[0], labels.size
    flat = labels.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [num]])
    inside = np.flatnonzero(flat[starts])
    if len(inside) == 0:
        return
    values = flat[starts[inside]]
    order = np.argsort(values, kind="stable")
    found, first = np.unique(values[order], return_index=True)
    for label, rows in zip(found.tolist(), np.split(inside[order], first[1:]), strict=True):
        begin, end = starts[rows], stops[rows]
        counts = np.diff(np.stack([begin, end], axis=1).ravel(), prepend=0).tolist()
        if end[-1] < num:
            counts.append(int(num - end[-1]))
        yield int(label), counts, _bbox(begin, end - 1, height), int((end - begin).sum())


def _bbox(first: np.ndarray, last: np.ndarray, height: int) -> list[int]:
    """[x, y, width, height] of runs, from (N,) positions of their first and last pixels in column-major order."""
    x0, x1 = int(first.min()) // height, int(last.max()) // height
    if (first // height != last // height).any():  # a run goes on in the next column, from the bottom to the top
        return [x0, 0, x1 - x0 + 1, height]
    y0, y1 = int((first % height).min()), int((last % height).max())
    return [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
