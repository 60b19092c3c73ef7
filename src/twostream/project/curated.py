"""The curated data set: the objects of a round, corrected by the answers, as a volume and tables.

``docs/curated.md`` explains what is in it and every column. Knows candidates, answers and volumes; must not import
torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from twostream.base.atomic import write_folder, write_text
from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.project.dataset.coco import CocoSections
from twostream.project.dataset.facts import dataset_facts, summary
from twostream.project.dataset.hand_labels import HandLabels
from twostream.project.dataset.objects import COLUMNS, CuratedObject, Objects, gather
from twostream.project.dataset.painting import BoxIndex, paint
from twostream.project.probabilities import Probabilities, read_probabilities
from twostream.project.project import Project
from twostream.project.tables import latest_round, with_source_ids, write_rows
from twostream.volume import Volume, create_volume
from twostream.volume.formats import FORMATS

COCO = "coco"
"""The format that is no volume."""
MIN_PROBABILITY = 0.5
"""Unanswered objects below this probability are left out: the scorer believes them rather false than true. The score
``curated_accuracy`` draws the line at the same place."""
IMPROBABLE, LABELS_BOX, COVERED, JOINED = "improbable", "labels box", "covered", "joined"
"""Why an object is left out, where it is not the answers that decide it."""
COVERED_SHARE = 0.5
"""An unanswered object that loses a larger share of its voxels to what people gave is a rest, not an object."""
DENIED_SHARE = 0.25
"""An unanswered object of which the labels call a larger share background is none: a true one would have been labelled.
Two people who outline the same object differ by less."""
JOINED_SHARE = 0.5
"""Share of an object's voxels in the labels box that must lie on one labelled object, for the two to be one."""


@dataclass(frozen=True)
class Curated:
    """A curated data set that is ready to be painted.

    Attributes:
        project: the project.
        round: round whose candidates it is made of.
        objects: in the order of painting.
        hand: the labels box, which is painted over them.
        left_out: rows of what is left out, with a column ``reason``.
        probabilities: of the round; None where an older version has stored none.
        min_probability: unanswered objects below it are left out.
    """

    project: Project
    round: int
    objects: list[CuratedObject]
    hand: HandLabels
    left_out: list[dict[str, Any]]
    probabilities: Probabilities | None
    min_probability: float

    @property
    def next_id(self) -> int:
        """The first id above all objects."""
        return self.hand.next_id

    def paint(self, volume: Volume, shift: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Paint all objects into ``volume``, and measure them there.

        Args:
            volume: (Z, Y, X) uint64 of the image's extent, to write.
            shift: is added to the ids in the volume; those of the tables stay.

        Returns:
            Rows of ``objects.csv`` and of ``left_out.csv``, each sorted by id.
        """
        extents = paint(volume, self.project.task, self.objects, self.hand, shift)
        joined: dict[int, list[str]] = {}
        kept, left_out = [], list(self.left_out)
        for one in self.objects:
            if one.paint_as:
                joined.setdefault(one.paint_as, []).append(str(one.id))
            elif one.id in extents:
                kept.append(one.row)
            else:
                left_out.append(one.row | {"reason": COVERED})
        empty = dict.fromkeys(COLUMNS)
        kept += [empty | row | {"joined": " ".join(joined.get(row["id"], [])) or None} for row in self.hand.rows()]
        rows = [row | {"box": str(extents[row["id"]].box), "num_voxels": extents[row["id"]].num_voxels} for row in kept]
        return sorted(rows, key=lambda row: int(row["id"])), sorted(left_out, key=lambda row: int(row["id"]))

    @property
    def provenance(self) -> dict[int, dict[str, Any]]:
        """{id of an object that may stand in the volume: its row of ``objects.csv``, before it is painted}."""
        return {
            int(row["id"]): row for row in (*(one.row for one in self.objects if not one.paint_as), *self.hand.rows())
        }

    def facts(self, rows: Sequence[dict[str, Any]], left_out: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Content of ``dataset.json``; the arguments are what ``paint`` returned."""
        return dataset_facts(self.project, self.round, rows, left_out, self.probabilities, self.min_probability)


def export_dataset(project: Project, output: Path, format_: str = "zarr", min_probability: float | None = None) -> str:
    """Write the curated data set of the newest scored round into a folder.

    ``segmentation.zarr`` is (Z, Y, X) uint64 with the id of the object as its value (polarity: 2*id-1 presynaptic,
    2*id postsynaptic); in COCO's format ``annotations.json`` and ``images/`` stand in its place (``dataset/coco.py``).
    ``objects.csv`` has a row per object with its provenance, ``left_out.csv`` a row per object that is not in the
    volume, with the reason. ``dataset.json`` describes the whole.

    Args:
        project: the project.
        output: folder to make.
        format_: driver of the volume's format, or ``COCO`` for pictures and annotations in its place.
        min_probability: unanswered objects that the scorer gives less are left out; None takes ``MIN_PROBABILITY``, or
            0 as long as the scorer has learned from no answers.

    Returns:
        A few lines that say what was written.

    Raises:
        ProjectError: no round has proposed candidates yet.
        InputError: ``min_probability`` was given, and the round has stored no probabilities.
    """
    curated = curate(project, min_probability)
    facts: dict[str, Any] = {}

    def fill(path: Path) -> None:
        path.mkdir(parents=True)
        if format_ == COCO:
            rows, left_out = _write_coco(path, curated, facts)
        else:
            rows, left_out = curated.paint(new_labels(volume_uri(path, "segmentation", format_), project))
            facts.update(curated.facts(rows, left_out))
        write_tables(path, with_source_ids(project, rows, key="id"), with_source_ids(project, left_out, key="id"))
        write_text(path / "dataset.json", json.dumps(facts, indent=1) + "\n")

    write_folder(output, fill)
    lines = [f"curated data set of round {curated.round} written to {output}", *summary(facts)]
    if coco := facts.get("coco"):
        lines.append(f"  {coco['num_annotations']} annotations in {coco['num_images']} pictures of sections")
    return "\n".join(lines)


def curate(project: Project, min_probability: float | None = None) -> Curated:
    """Decide what the curated data set of a project holds; for the arguments and errors see ``export_dataset``."""
    round_number = _round(project)
    probabilities = read_probabilities(project, round_number)
    least = _min_probability(min_probability, probabilities, round_number)
    found = gather(project, round_number)
    hand = HandLabels(project, found.next_id)
    of_id = probabilities.of_id if probabilities else {}
    for one in (*found.proposed, *found.given):
        one.row["probability"] = of_id.get(one.id)
    for row in found.left_out:
        row["probability"] = of_id.get(row["id"])
    objects, left_out = _settled(project, found, hand, least)
    return Curated(project, round_number, objects, hand, [*found.left_out, *left_out], probabilities, least)


def _round(project: Project) -> int:
    """The newest round that has been scored; before the first one, the newest that has proposed candidates."""
    scored = [round_number for round_number, step in project.ledger.finished_steps() if step == "score"]
    return max(scored) if scored else latest_round(project, "propose")


def _min_probability(given: float | None, probabilities: Probabilities | None, round_number: int) -> float:
    """The threshold for leaving out."""
    if given is None:
        return MIN_PROBABILITY if probabilities and probabilities.learned else 0.0
    if not 0 <= given <= 1:
        raise InputError(f"--min-probability is {given:g}; expected a probability from 0 to 1; 0 keeps all objects.")
    if given > 0 and probabilities is None:
        raise InputError(
            f"--min-probability is {given:g}, but round {round_number} has no stored probabilities: it was not scored "
            f"yet, or by an older version. Leave the option out, which keeps all objects, or run another round."
        )
    return given


def _settled(
    project: Project, found: Objects, hand: HandLabels, min_probability: float
) -> tuple[list[CuratedObject], list[dict[str, Any]]]:
    """What is painted, in that order, and rows of what is left out.

    The labels box decides first, so that a labelled object does not depend on the scorer; then the scorer, then what
    people's objects leave of an unanswered one.
    """
    above = BoxIndex(one.box for one in found.given)
    objects, left_out = [], []
    for one in (*found.proposed, *found.given):
        mask, probability = one.mask > 0, one.row["probability"]
        known, denied, joined_to = np.zeros(mask.shape, bool), 0.0, 0
        if hand.touches(one.box):
            known, denied, joined_to = _against_labels(project, one, hand)
        if not (mask & ~known).any():
            left_out.append(one.row | {"reason": LABELS_BOX})
        elif joined_to:
            left_out.append(one.row | {"reason": JOINED, "joined": str(joined_to)})
            objects.append(replace(one, paint_as=joined_to))
        elif denied > DENIED_SHARE and not one.is_given:
            left_out.append(one.row | {"reason": LABELS_BOX})
        elif one.is_model and probability is not None and probability < min_probability:
            left_out.append(one.row | {"reason": IMPROBABLE})
        elif one.is_given or _uncovered(mask, known, one.box, [found.given[row] for row in above.meeting(one.box)]):
            objects.append(one)
        else:
            left_out.append(one.row | {"reason": COVERED})
    return objects, left_out


def _uncovered(mask: np.ndarray, covered: np.ndarray, box: Box, others: Sequence[CuratedObject]) -> bool:
    """Whether enough of a mask is left, apart from ``covered`` and other objects (``COVERED_SHARE``).

    Args:
        mask, covered: (Z, Y, X) bool over ``box``.
        box: of the mask.
        others: objects that are painted above it.
    """
    covered = covered.copy()
    for other in others:
        part = other.box.intersection(box)
        covered[part.relative_to(box).slices] |= other.mask[part.relative_to(other.box).slices] > 0
    return bool((covered & mask).sum() <= COVERED_SHARE * mask.sum())


def _against_labels(project: Project, one: CuratedObject, hand: HandLabels) -> tuple[np.ndarray, float, int]:
    """How an object stands to the labels box.

    An object that reaches out of the labels box continues a labelled object if at least ``JOINED_SHARE`` of its voxels
    in the box lie on it, and a voxel of it outside the box touches it.

    Returns:
        (Z, Y, X) bool over its box, the voxels that the labels decide; the share of the object that they call
        background; and the id of the labelled object that it continues, else 0.
    """
    grown = one.box.grown((1, 1, 1)).intersection(project.image.box)
    at = one.box.relative_to(grown).slices
    labels, known = hand.read(grown)
    instance, mask = project.task.instances(labels), np.zeros(grown.shape_zyx, bool)
    mask[at] = one.mask > 0
    inside, outside = mask & known, mask & ~known
    ids, counts = np.unique(instance[inside], return_counts=True)
    counts = np.where(ids > 0, counts, 0)
    joined_to = 0
    if len(ids) and counts.max() >= max(1, JOINED_SHARE * inside.sum()):
        largest = int(ids[counts.argmax()])
        touching = ndimage.binary_dilation(outside) & (instance == largest)
        joined_to = largest if touching.any() else 0
    denied = float((inside & (labels == 0)).sum() / mask.sum())
    return known[at], denied, joined_to


# -- files ------------------------------------------------------------------------------------------------------------


def _write_coco(folder: Path, curated: Curated, facts: dict[str, Any]) -> tuple[list[dict[str, Any]], ...]:
    """Write pictures and annotations; returns what ``Curated.paint`` does, and adds to ``facts``."""
    project = curated.project
    with CocoSections(folder, project.image, project.task, curated.provenance) as sections:
        rows, left_out = curated.paint(sections)
        facts.update(curated.facts(rows, left_out))
        sections.finish({"description": f"Curated data set of the project {facts['name']}"} | facts)
    facts["coco"] = {"num_images": sections.num_images, "num_annotations": sections.num_annotations}
    return rows, left_out


def volume_uri(folder: Path, name: str, format_: str) -> str:
    """URI of a volume called ``name`` in a folder; ``format_`` is the driver of its format."""
    suffixes = FORMATS[format_].suffixes
    return str(folder / f"{name}{suffixes[0]}") if suffixes else f"{format_}://{folder / name}"


def new_labels(uri: str, project: Project) -> Volume:
    """Create a label volume, (Z, Y, X) uint64, of the extent and at the place of a project's image."""
    image = project.image
    return create_volume(
        uri,
        shape_zyx=image.shape_zyx,
        dtype=np.uint64,
        voxel_size_nm=image.voxel_size_nm,
        offset_nm=image.offset_nm,
    )


def write_tables(folder: Path, rows: list[dict[str, Any]], left_out: list[dict[str, Any]]) -> None:
    """Write ``objects.csv`` and ``left_out.csv``."""
    write_rows(rows, folder / "objects.csv", "csv", COLUMNS)
    write_rows(left_out, folder / "left_out.csv", "csv", [*COLUMNS, "reason"])
