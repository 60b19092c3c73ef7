"""What is looked for: targets for S, decoding of its output, and the rule that calls a candidate good.

Knows numpy, label conventions and overlaps; must not know torch, files or the loop.

Labels of a polarity volume: synapse n has its presynaptic side at 2n-1 and its postsynaptic side at 2n.
Mitochondria and clefts: instance n at n. 0 is background everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy import ndimage

from twostream.answers import AnswerKind
from twostream.errors import ConfigError, InputError
from twostream.metrics import Overlaps, match_one_to_one

GOOD_IOU = 0.5
NOTHING_SHARE = 0.1
"""A candidate with less than this share of its voxels in any truth object shows nothing."""
FOUND_IOU = 0.2
"""A truth object counts as proposed, and a region of interest as right, beyond this IoU (Lin 2019, evaluate_syn)."""
CLEFT_PX = 7
"""In-plane gap between the sides of one synapse that the union target spans; a cleft and its membranes are 50 nm."""
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
    """A kind of object to look for.

    Attributes:
        name: as on the command line.
        channels: names of S's output channels.
        foreground: the channel that holds the probability of the whole object.
        num_sides: label values per instance, 2 for polarity, else 1.
        pixel_size_nm: in-plane size at which S and the streams look at the tissue.
        min_object_nm3: smaller candidates are dust.
    """

    name: str
    channels: tuple[str, ...]
    foreground: int
    num_sides: int = 1
    pixel_size_nm: float
    min_object_nm3: float

    @abstractmethod
    def target(self, segmentation: np.ndarray) -> np.ndarray:
        """Training target for S: (Z, Y, X) labels -> (C, Z, Y, X) uint8 of 0 and 1, channels as ``channels``."""

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
        return segmentation if self.num_sides == 1 else (segmentation + segmentation.dtype.type(1)) // 2

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


class Mitochondria(Task):
    """Mitochondria: one foreground channel, instances are 26-connected components."""

    name = "mitochondria"
    channels = ("foreground",)
    foreground = 0
    pixel_size_nm = 10.0
    min_object_nm3 = 1e6  # a cube of 100 nm: below any mitochondrion that spans two sections

    def target(self, segmentation: np.ndarray) -> np.ndarray:
        return (segmentation > 0)[None].astype(np.uint8)

    def decode(self, probability: np.ndarray, threshold: float) -> np.ndarray:
        return cc3d.connected_components(probability[0] > 255 * threshold, connectivity=26, out_dtype=np.uint32)


class SynapticCleft(Mitochondria):
    """Synaptic clefts: as mitochondria, but thin."""

    name = "cleft"
    pixel_size_nm = 8.0
    min_object_nm3 = 2e5


class SynapsePolarity(Task):
    """Synapses with direction: channels pre, post and their union, which also fills the cleft between."""

    name = "polarity"
    channels = ("pre", "post", "union")
    foreground = 2
    num_sides = 2
    pixel_size_nm = 8.0
    min_object_nm3 = 4e5

    def target(self, segmentation: np.ndarray) -> np.ndarray:
        pre = segmentation % 2 == 1
        post = (segmentation > 0) & ~pre
        union = pre | post
        # The union spans the cleft: without it the two sides of one synapse would be two components. Each synapse
        # is closed by itself, so that neighbours a few voxels apart stay two.
        instance = self.instances(segmentation)
        _, renumbered = np.unique(instance, return_inverse=True)  # ids of endless volumes are too large to index by
        renumbered = renumbered.reshape(instance.shape) + (1 if instance.all() else 0)
        for label, window in enumerate(ndimage.find_objects(renumbered), start=1):
            if window is not None:
                mask = np.pad(renumbered[window] == label, [(0, 0), (4, 4), (4, 4)])
                closed = ndimage.binary_closing(mask, np.ones((1, CLEFT_PX, CLEFT_PX), bool))
                union[window] |= closed[:, 4:-4, 4:-4]
        return np.stack([pre, post, union]).astype(np.uint8)

    def decode(self, probability: np.ndarray, threshold: float) -> np.ndarray:
        pre, post, union = probability
        level = 255 * threshold
        instance = cc3d.connected_components(union > level, connectivity=26, out_dtype=np.uint32)
        # The sides are read at half the level: beside a certain union a hesitant side is still the likelier one.
        instance[np.maximum(pre, post) <= level / 2] = 0
        side = np.where(pre >= post, np.uint32(1), np.uint32(0))
        return np.where(instance > 0, 2 * instance - side, np.uint32(0))


TASKS: dict[str, type[Task]] = {task.name: task for task in (SynapsePolarity, SynapticCleft, Mitochondria)}


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        ConfigError: no such task.
    """
    if name not in TASKS:
        raise ConfigError(f"task is {name!r}; expected one of {', '.join(TASKS)}.")
    return TASKS[name]()
