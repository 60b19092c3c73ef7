"""The contract of a task, and the truth rule.

Knows numpy, label conventions and overlaps; must not know torch, files or the loop.

Labels of a polarity volume: synapse n has its presynaptic side at 2n-1 and its postsynaptic side at 2n.
Mitochondria and clefts: instance n at n. 0 is background everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.errors import InputError
from twostream.task.answers import AnswerKind
from twostream.task.decoding import DecodingConfig
from twostream.task.metrics import Overlaps, match_one_to_one

GOOD_IOU = 0.5
NOTHING_SHARE = 0.1
"""A candidate with less than this share of its voxels in any truth object shows nothing."""
FOUND_IOU = 0.2
"""A truth object counts as proposed, and a region of interest as right, beyond this IoU (Lin 2019, evaluate_syn)."""
MAX_LABEL = 2**62
"""Above this no data set numbers its objects; values there stand for "unlabelled"."""
IGNORED_SHARE = 0.5
"""A candidate that lies mostly on ignored voxels is judged neither right nor wrong."""


@dataclass(frozen=True)
class Judgement:
    """What the truth says of one candidate.

    Attributes:
        kind: TRUE, NOTHING or SHAPE; UNSURE if the truth is to be ignored there.
        truth: label of the instance it was matched with, 0 if none.
        best_iou: the largest IoU with any truth instance.
    """

    kind: AnswerKind
    truth: int
    best_iou: float


class Task(ABC):
    """A kind of object to look for, at a voxel size.

    Args:
        voxel_size_nm: (z, y, x) nm of the image.
        decoding: how S's probability becomes instances.

    Attributes:
        name: as on the command line.
        channels: names of S's output channels.
        foreground: the channel that holds the probability of the whole object.
        num_sides: label values per instance, 2 for polarity, else 1.
        pixel_size_nm: in-plane size at which S looks at the tissue.
        patch_pixel_size_nm: size at which the streams do: the object fills a good part of a patch of 64 pixels.
        min_object_nm3: smaller candidates are dust.
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
        """Voxels of the smallest seed of a watershed."""
        return max(1, round(self.decoding.min_seed_nm3 / float(np.prod(self.voxel_size_nm))))

    @property
    def reach_voxels(self) -> tuple[int, int, int]:
        """How far, along Z, Y, X, a target looks around a voxel."""
        return 1, 1, 1

    @abstractmethod
    def target(self, segmentation: np.ndarray) -> np.ndarray:
        """Training target for S: (Z, Y, X) labels -> (C, Z, Y, X) uint8 levels, channels as ``channels``."""

    @property
    @abstractmethod
    def background(self) -> np.ndarray:
        """(C,) uint8 levels of a voxel of which it is known that no object is there."""

    @abstractmethod
    def decode(self, probability: np.ndarray, threshold: float) -> np.ndarray:
        """Instances: (C, Z, Y, X) uint8 probability (255 = 1), threshold in [0, 1] -> (Z, Y, X) uint32 labels."""

    def check_values(self, values: set[int], source: str) -> None:
        """Check the label values of a whole volume.

        Args:
            values: all that occur, 0 included or not.
            source: the volume; opens the error message.

        Raises:
            InputError: a negative value, one that stands for "unlabelled" elsewhere, or no pairs where there must be.
        """
        odd = sorted(v for v in values if v < 0 or v > MAX_LABEL)
        if odd:
            raise InputError(
                f"{source} holds the label {odd[0]}; expected 0 for background and instances up to 2^62. "
                f"Some data sets mark unlabelled voxels so; set those to 0 first."
            )
        pairs = {(v + 1) // 2 for v in values if v}
        whole = sum({2 * n - 1, 2 * n} <= values for n in pairs)
        if self.num_sides == 2 and pairs and whole == 0:
            raise InputError(
                f"{source}: of {len(pairs)} synapses none has both sides; expected the presynaptic side of "
                f"synapse n at 2n-1 and the postsynaptic one at 2n. Are these instance labels without polarity?"
            )

    def instances(self, segmentation: np.ndarray) -> np.ndarray:
        """Labels with the sides of one object joined: (v + 1) // 2 for polarity, v otherwise; any shape."""
        # Not (v + 1) // 2: the highest value of a type would wrap round to 0.
        return segmentation if self.num_sides == 1 else segmentation // 2 + segmentation % 2

    def crop(self, segmentation: np.ndarray, label: int) -> np.ndarray:
        """Mask of instance ``label``: uint8, 1 inside; polarity: 1 pre, 2 post. Same shape as ``segmentation``."""
        if self.num_sides == 1:
            return (segmentation == label).astype(np.uint8)
        return (segmentation == 2 * label - 1) + 2 * (segmentation == 2 * label).astype(np.uint8)

    def judge(self, overlaps: Overlaps) -> dict[int, Judgement]:
        """The truth rule for every candidate of a segmentation.

        Args:
            overlaps: of the segmentation's values with the truth's values, both in this task's label convention.

        Returns:
            {instance label: Judgement} for each candidate.
        """
        table = self.instance_overlaps(overlaps)
        matched = match_one_to_one(table, GOOD_IOU)
        sizes = table.candidate_sizes()
        best: dict[int, float] = {}
        inside: dict[int, int] = {}
        for label, iou in zip(*[v.tolist() for v in table.iou()[::2]], strict=True):
            best[label] = max(best.get(label, 0.0), iou)
        for c, t, n in zip(table.candidate.tolist(), table.truth.tolist(), table.count.tolist(), strict=True):
            if c and t:
                inside[c] = inside.get(c, 0) + n
        result = {}
        for label in sorted(set(sizes) | set(table.ignored)):
            size, ignored = sizes.get(label, 0), table.ignored.get(label, 0)
            truth = matched.get(label, (0, 0.0))[0]
            if truth and self.same_way_round(overlaps, label, truth):
                kind = AnswerKind.TRUE
            elif ignored >= IGNORED_SHARE * (size + ignored):
                kind, truth = AnswerKind.UNSURE, 0
            elif inside.get(label, 0) < NOTHING_SHARE * size:
                kind, truth = AnswerKind.NOTHING, 0
            else:
                kind, truth = AnswerKind.SHAPE, 0
            result[label] = Judgement(kind, truth, best.get(label, 0.0))
        return result

    def instance_overlaps(self, overlaps: Overlaps) -> Overlaps:
        """The table with the sides of one object joined."""
        if self.num_sides == 1:
            return overlaps
        ignored: dict[int, int] = {}
        for value, count in overlaps.ignored.items():
            ignored[(value + 1) // 2] = ignored.get((value + 1) // 2, 0) + count
        return overlaps.renamed(self.instances(overlaps.candidate), self.instances(overlaps.truth), ignored)

    def same_way_round(self, overlaps: Overlaps, label: int, truth: int) -> bool:
        """Whether the sides of candidate ``label`` lie on the like sides of truth instance ``truth``."""
        if self.num_sides == 1:
            return True
        like = unlike = 0
        mine = (overlaps.candidate == 2 * label - 1) | (overlaps.candidate == 2 * label)
        for c, t, n in zip(overlaps.candidate[mine], overlaps.truth[mine], overlaps.count[mine], strict=True):
            if (int(t) + 1) // 2 == truth and t:
                like, unlike = (like + n, unlike) if c % 2 == t % 2 else (like, unlike + n)
        return like > unlike
