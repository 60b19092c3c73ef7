"""The contract of a task, and the truth rule that judges candidates.

A task says what the segmentation network S is trained to predict, how S's output becomes instances, and when a
proposed instance agrees with the truth. Knows label conventions and tables of overlaps; must not know torch, files or
the loop of rounds.

Label convention: 0 is background everywhere. A mitochondrion or cleft has the label n. A synapse with a direction has
two sides: synapse n has the label 2n-1 on its presynaptic side and 2n on its postsynaptic side. In both cases n is the
instance label.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.errors import InputError
from twostream.task.answers import AnswerKind
from twostream.task.decoding import DecodingConfig
from twostream.task.metrics import GOOD_IOU, Detection, Overlaps

NOTHING_SHARE = 0.1
"""A candidate with less than this share of its voxels in truth objects shows no object at all."""
MAX_LABEL = 2**62
"""No data set numbers its objects this high; larger values are codes for "unlabelled", such as 2^64 - 1."""


@dataclass(frozen=True)
class Judgement:
    """What the truth says about one candidate.

    Attributes:
        kind: TRUE, NOTHING or SHAPE; UNSURE where at least half of the candidate lies in the ignore mask.
        truth: instance label of the truth object that a TRUE candidate was matched with, else 0.
        best_iou: largest IoU of the candidate with any truth object.
    """

    kind: AnswerKind
    truth: int
    best_iou: float


class Task(ABC):
    """A kind of object to look for in images of one voxel size.

    Args:
        voxel_size_nm: (z, y, x) nm of the image.
        decoding: how S's probability becomes instances; None takes the defaults.

    Attributes:
        name: the task's name in the command line and the configuration.
        channels: names of S's output channels.
        foreground: index of the channel that holds the probability of the whole object.
        num_sides: label values per instance: 2 for polarity (pre and post), else 1.
        pixel_size_nm: pixel size in nm of the grid on which S works; finer voxels are folded into channels first.
        patch_pixel_size_nm: pixel size in nm of the patches that the streams see, chosen so that an object fills a
            good part of a patch of 64 pixels.
        min_object_nm3: volume in nm^3 below which a proposed instance is dropped as too small.
    """

    name: str
    channels: tuple[str, ...]
    foreground: int = 0
    num_sides: int = 1
    pixel_size_nm: float
    patch_pixel_size_nm: float
    min_object_nm3: float

    def __init__(self, voxel_size_nm: Sequence[float], decoding: DecodingConfig | None = None) -> None:
        z, y, x = (float(v) for v in voxel_size_nm)
        self.voxel_size_nm = (z, y, x)
        self.decoding = decoding or DecodingConfig()

    @property
    def min_seed_voxels(self) -> int:
        """Voxels of the smallest component that may seed a watershed; at least 1."""
        return max(1, round(self.decoding.min_seed_nm3 / float(np.prod(self.voxel_size_nm))))

    @property
    def reach_voxels(self) -> tuple[int, int, int]:
        """Voxels along Z, Y, X on either side of a voxel on which its target value depends."""
        return 1, 1, 1

    @property
    def joins_within_voxels(self) -> tuple[int, int, int]:
        """Voxels along Z, Y, X between two parts of the foreground that ``decode`` may still join into one instance."""
        return 1, 1, 1

    @abstractmethod
    def target(self, segmentation: np.ndarray) -> np.ndarray:
        """Training target for S.

        Args:
            segmentation: (Z, Y, X) integer labels in the task's convention.

        Returns:
            (C, Z, Y, X) uint8 levels (see ``targets``), in the order of ``channels``.
        """

    def uncertain(self, segmentation: np.ndarray, unknown: np.ndarray) -> np.ndarray:
        """Where the target cannot be known, because it depends on voxels whose labels are not known.

        Without overriding it: at the unknown voxels themselves. A task whose target at one voxel depends on the labels
        of others must override it.

        Args:
            segmentation: (Z, Y, X) integer labels in the task's convention, 0 at unknown voxels.
            unknown: (Z, Y, X) bool, voxels that may hold any label.

        Returns:
            (C, Z, Y, X) bool. Elsewhere ``target(segmentation)`` is right, whatever the unknown voxels hold; graded
            levels up to rounding.
        """
        return np.repeat(unknown[None], len(self.channels), axis=0)

    @property
    @abstractmethod
    def background(self) -> np.ndarray:
        """(C,) uint8 target levels of a voxel that is known to lie outside every object."""

    @abstractmethod
    def decode(self, probability: np.ndarray, threshold: float) -> np.ndarray:
        """Turn S's output into instances.

        What becomes of a part of the foreground must depend on nothing but itself and the parts that lie within
        ``joins_within_voxels`` of it, or of which a chain of such parts leads to it: volumes that fit no memory are
        decoded in pieces (``candidates/proposing.py``).

        Args:
            probability: (C, Z, Y, X) uint8, 255 = probability 1.
            threshold: of the foreground probability, in [0, 1].

        Returns:
            (Z, Y, X) uint32 labels in the task's convention.
        """

    def check_values(self, values: set[int], source: str) -> None:
        """Check the label values of a whole volume.

        Args:
            values: all values that occur, with or without 0.
            source: name of the volume, for the error message.

        Raises:
            InputError: a value is negative or above 2^62, or the task has two sides and no object has both.
        """
        odd = sorted(v for v in values if v < 0 or v > MAX_LABEL)
        if odd:
            raise InputError(
                f"{source} holds the label {odd[0]}; expected 0 for background and instance labels from 1 to 2^62. "
                f"If it marks unlabelled voxels of labels, pass --ignore-value {odd[0]}; in a segmentation, set it to "
                f"0."
            )
        synapses = {self.instance_of(v) for v in values if v}
        complete = sum(set(self.values_of(n)) <= values for n in synapses)
        if self.num_sides == 2 and synapses and complete == 0:
            raise InputError(
                f"{source}: of {len(synapses)} synapses none has both sides; expected the presynaptic side of "
                f"synapse n at 2n-1 and the postsynaptic one at 2n. Are these instance labels without polarity?"
            )

    def instance_of(self, value: int) -> int:
        """Instance label of a label value: n for 2n-1 and 2n in the polarity task, else the value itself."""
        return value if self.num_sides == 1 else (value + 1) // 2

    def values_of(self, label: int) -> tuple[int, ...]:
        """Label values of an instance: (2n-1, 2n), pre and post, in the polarity task, else (n,)."""
        return (label,) if self.num_sides == 1 else (2 * label - 1, 2 * label)

    def instances(self, segmentation: np.ndarray) -> np.ndarray:
        """``instance_of`` for every element of an integer array of any shape; the dtype is kept."""
        # Not (v + 1) // 2, because the highest value of an integer type would wrap round to 0.
        return segmentation if self.num_sides == 1 else segmentation // 2 + segmentation % 2

    def crop(self, segmentation: np.ndarray, label: int) -> np.ndarray:
        """Mask of one instance.

        Args:
            segmentation: (Z, Y, X) integer labels in the task's convention.
            label: instance label.

        Returns:
            (Z, Y, X) uint8: 1 inside; polarity: 1 on the presynaptic and 2 on the postsynaptic side.
        """
        if self.num_sides == 1:
            return (segmentation == label).astype(np.uint8)
        return (segmentation == 2 * label - 1) + 2 * (segmentation == 2 * label).astype(np.uint8)

    def judge(self, overlaps: Overlaps) -> dict[int, Judgement]:
        """Apply the truth rule to every candidate of a segmentation.

        The first of these that applies: TRUE (the paper's "True") if the candidate hits a truth object, see
        ``detection``; UNSURE if it does not count because the ignore mask covers most of it; NOTHING if less than
        ``NOTHING_SHARE`` of its voxels lie in truth objects; else SHAPE: merged, split or badly bounded.

        Args:
            overlaps: of the segmentation's values with the truth's values, both in the task's label convention.

        Returns:
            {instance label of the candidate: Judgement}.
        """
        table, hits = self.instance_overlaps(overlaps), self.detection(overlaps).truth_of
        sizes, in_truth, best_iou = table.candidate_sizes(), table.candidate_voxels_in_truth(), table.best_iou()[0]
        result = {}
        for label in sorted(set(sizes) | set(table.ignored)):
            truth = hits.get(label, 0)
            if truth:
                kind = AnswerKind.TRUE
            elif label not in hits:
                kind = AnswerKind.UNSURE
            elif in_truth.get(label, 0) < NOTHING_SHARE * sizes[label]:
                kind = AnswerKind.NOTHING
            else:
                kind = AnswerKind.SHAPE
            result[label] = Judgement(kind, truth, best_iou.get(label, 0.0))
        return result

    def detection(self, overlaps: Overlaps) -> Detection:
        """Which candidates count, and which truth object each of them hits.

        A hit is a one-to-one match with an IoU of at least ``GOOD_IOU``; in the polarity task the IoU is that of both
        sides together, and the sides must be the right way round as well.

        Args:
            overlaps: as for ``judge``.

        Returns:
            By instance labels; see ``Detection``.
        """
        table = self.instance_overlaps(overlaps)
        return Detection.of(table, GOOD_IOU, is_right=lambda label, truth: self.same_way_round(overlaps, label, truth))

    def instance_overlaps(self, overlaps: Overlaps) -> Overlaps:
        """The table with label values replaced by instance labels, so that the sides of one object are joined."""
        if self.num_sides == 1:
            return overlaps
        ignored: dict[int, int] = {}
        for value, count in overlaps.ignored.items():
            label = self.instance_of(value)
            ignored[label] = ignored.get(label, 0) + count
        return overlaps.renamed(self.instances(overlaps.candidate), self.instances(overlaps.truth), ignored)

    def same_way_round(self, overlaps: Overlaps, label: int, truth: int) -> bool:
        """Whether a candidate has its sides where the truth object has them.

        Args:
            overlaps: as for ``judge``.
            label: instance label of the candidate.
            truth: instance label of the truth object.

        Returns:
            True if, of the voxels that both share, more lie on equal sides (pre on pre, post on post) than on opposite
            ones. Always True for tasks with one side.
        """
        if self.num_sides == 1:
            return True
        equal = opposite = 0
        mine = np.isin(overlaps.candidate, np.array(self.values_of(label), np.uint64))
        for c, t, n in zip(overlaps.candidate[mine], overlaps.truth[mine], overlaps.count[mine], strict=True):
            if t and self.instance_of(int(t)) == truth:
                equal, opposite = (equal + n, opposite) if c % 2 == t % 2 else (equal, opposite + n)
        return equal > opposite
