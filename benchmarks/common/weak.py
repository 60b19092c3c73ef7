"""Candidates of a weak S, as the streams see them: aligned patches, answers by the truth rule, and trained streams.

On real sets the weak S is a stored probability volume that lies beside the data; on synthetic tissue it is trained
here, on a corner of the tissue. Shared by the benchmarks of streams and of the scorer.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from common import options as common_options
from common.results import Data, file_data
from common.sets import REAL_SETS, renumbered, synthetic_data
from twostream.base.config import apply_overrides, parse_config
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, extract
from twostream.candidates.crops import RandomCrops
from twostream.candidates.cutting import cut_all
from twostream.candidates.patches import PatchConfig
from twostream.candidates.truth import Truth
from twostream.models.segmentation.config import SegmentationConfig, shapes_for
from twostream.models.segmentation.lessons import Lessons
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter, crop_shape, new_segmenter, train
from twostream.models.streams.config import StreamConfig, StreamsConfig
from twostream.models.streams.draw import Draw, ImageDraw, MaskDraw
from twostream.models.streams.encoders import OnnxConfig
from twostream.models.streams.external import OnnxEncoder
from twostream.models.streams.fit import fit_stream, new_stream
from twostream.models.streams.stream import Stream
from twostream.rounds.teaching import LabelledCrops
from twostream.task import Task, get_task
from twostream.task.answers import MEANING
from twostream.volume import MemoryVolume
from twostream.volume.synthetic import Tissue

WEAK_FILE = "weak_probability.h5"
WEAK_SETS = ("fafb", "vnc", "vnc-cleft", "epfl")
"""Real sets with the stored probability of a weak S."""
THRESHOLD = 0.5
BLOCK_NM = 1500.0
"""Cross-validation keeps candidates of one block of this size together."""
TISSUE_NM = (30.0, 8.0, 8.0)
FULL_TISSUE, QUICK_TISSUE = (32, 960, 1280), (16, 480, 640)
LABELLED_PX = (190, 190)
FIRST_CONFIRMATION_SEED = 1000
FULL_STEPS = ("segmentation.num_steps=400",)
QUICK_STEPS = (
    *(f"segmentation.{setting}" for setting in common_options.QUICK_S), "streams.supervised.num_steps=60",
    "streams.unsupervised.num_steps=60", "streams.active_clustering.num_steps=20",
)  # fmt: skip
"""Settings of the two forms, before --override."""


@dataclass(frozen=True)
class World:
    """The raw image for patches, and the same image at the voxel size of the weak S with that S's prediction.

    Attributes:
        by: voxels of ``raw`` in one of ``image``, in plane.
        labels_box: what the weak S was trained on.
        probability: (C, Z, Y, X) uint8 of the weak S, over ``image``.
        data: what a result row says of the set.
        segmenter: the weak S; None where only its probability is stored.
    """

    task: Task
    raw: MemoryVolume
    by: int
    image: MemoryVolume
    labels: MemoryVolume
    ignore: MemoryVolume | None
    labels_box: Box
    probability: np.ndarray
    data: Data
    segmenter: Segmenter | None = None


@dataclass(frozen=True)
class Candidates:
    """Candidates of a weak S.

    Attributes:
        members: (N,) in raster order.
        image_patch: (N, P, W, W) uint8, mask_patch: (N, P, W, W) int8.
        y: (N,) 1 or 0.
        group: (N,) number of the block in which the object lies.
    """

    members: list[Candidate]
    image_patch: np.ndarray
    mask_patch: np.ndarray
    y: np.ndarray
    group: np.ndarray

    @property
    def score(self) -> np.ndarray:
        return np.array([c.score for c in self.members])


def parser(doc: str) -> argparse.ArgumentParser:
    """Options of the benchmarks that use these candidates."""
    made = common_options.parser(doc)
    common_options.add_sets(made, WEAK_SETS)
    common_options.add_overrides(made)
    made.add_argument("--side", choices=["development", "confirmation"], default="development")
    made.set_defaults(threads=1)
    return made


def load(
    options: argparse.Namespace, name: str, seed: int
) -> tuple[World, Candidates, StreamsConfig, PatchConfig, SegmentationConfig]:
    """A set, the candidates of its weak S outside the labelled box, and the settings of streams, patches and S.

    Args:
        options: of ``parser``.
        name: "synthetic" or one of ``WEAK_SETS``.
        seed: of synthetic tissue; from ``FIRST_CONFIRMATION_SEED`` on the confirmation side.
    """
    settings = apply_overrides({}, [*(FULL_STEPS if options.full else QUICK_STEPS), *options.override])
    streams = parse_config(StreamsConfig, settings.get("streams", {}), source="--override")
    patches = parse_config(PatchConfig, settings.get("patches", {}), source="--override")
    s_config = settings.get("segmentation", {})
    if name == "synthetic":
        seed = seed + FIRST_CONFIRMATION_SEED if options.side == "confirmation" else seed
        world, config = synthetic_world(seed, FULL_TISSUE if options.full else QUICK_TISSUE, s_config)
    else:
        world = real_world(name, options.data)
        shapes = shapes_for(world.image.voxel_size_nm, world.task.pixel_size_nm)
        config = parse_config(SegmentationConfig, shapes | s_config, source="--override")
    return world, candidates_of(world, name, options.side, patches), streams, patches, config


def candidates_of(world: World, name: str, side: str, patches: PatchConfig) -> Candidates:
    """Candidates that the truth rule can judge, with their patches."""
    task, size = world.task, world.image.voxel_size_nm
    truth = Truth(world.labels, world.ignore, task)
    min_voxels = max(1, round(task.min_object_nm3 / float(np.prod(size))))
    segmentation = clean(task.decode(world.probability, THRESHOLD), task, min_voxels)
    proposed = extract(segmentation, world.probability[task.foreground], task, (0, 0, 0))
    proposed = [c for c in proposed if not c.box.intersects(world.labels_box)]
    if name == "fafb":
        middle = world.image.shape_zyx[1] / 2
        proposed = [c for c in proposed if (c.center_zyx[1] >= middle) == (side == "confirmation")]
    answers = np.array([MEANING[truth.judge(c).kind].y for c in proposed])
    kept = [c for c, y in zip(proposed, answers, strict=True) if not np.isnan(y)]
    full_size = [at_full_size(c, world.by) for c in kept]
    pairs = dict(cut_all(world.raw, full_size, patches, task.patch_pixel_size_nm))
    return Candidates(
        kept, np.stack([pairs[i].image for i in range(len(kept))]), np.stack([pairs[i].mask for i in range(len(kept))]),
        answers[~np.isnan(answers)], blocks_of(kept, task.instances(world.labels.read(world.labels.box)), size),
    )  # fmt: skip


def real_world(name: str, data: Path) -> World:
    """A real set with the stored probability of its weak S."""
    file, labels_name, task_name = (getattr(REAL_SETS[name], key) for key in ("file", "labels", "task"))
    name = name.replace("vnc-cleft", "vnc_synapse")  # as the file has it
    with h5py.File(data / WEAK_FILE) as weak, h5py.File(data / file) as full:
        probability = weak[name][:]
        by = int(weak[name].attrs["in_plane_downsampling"])
        size = tuple(float(v) for v in weak[name].attrs["voxel_size_nm"])
        start, stop = np.asarray(weak[name].attrs["labels_box_zyx"]).T.tolist()
        whole = full["image"][:]
        depth, height, width = probability.shape
        grey = whole.reshape(depth, height, by, width, by).mean((2, 4)).round().astype(np.uint8)
        labels = full[labels_name][:, ::by, ::by].astype(np.uint32)
        ignore_name = f"{labels_name}_ignore"
        ignore = full[ignore_name][:, ::by, ::by] if ignore_name in full else None
    return World(
        get_task(task_name, size), MemoryVolume(whole, (size[0], size[1] / by, size[2] / by)), by,
        MemoryVolume(grey, size), MemoryVolume(labels, size), None if ignore is None else MemoryVolume(ignore, size),
        Box.from_corners(start, stop), probability[None], file_data(data / file),
    )  # fmt: skip


def synthetic_world(
    seed: int, shape_zyx: tuple[int, int, int], s_config: dict[str, object]
) -> tuple[World, SegmentationConfig]:
    """Synapses of synthetic tissue, and a weak S trained on a corner of it."""
    task, box = get_task("polarity", TISSUE_NM), Box.whole(shape_zyx)
    tissue = Tissue(seed=seed, voxel_size_nm=TISSUE_NM)
    image, labels = MemoryVolume(tissue.image(box), TISSUE_NM), tissue.synapses(box)
    settings = shapes_for(TISSUE_NM, 16.0) | {"max_pixel_size_nm": 16.0, "exclusive": True} | s_config
    config = parse_config(SegmentationConfig, settings, source="--override")
    labelled = Box((0, 0, 0), (shape_zyx[0], *LABELLED_PX))
    nothing = np.zeros((len(task.channels), *shape_zyx), np.uint8)
    truth = MemoryVolume(renumbered(labels, task), TISSUE_NM)
    data = synthetic_data(shape_zyx, [seed])
    world = World(task, image, 1, image, truth, None, labelled, nothing, data)
    segmenter = small_s(world, config, seed)
    predict(segmenter, image, MemoryVolume(nothing, TISSUE_NM), config)  # written into
    return replace(world, segmenter=segmenter), config


def at_full_size(candidate: Candidate, by: int) -> Candidate:
    """The same object in the voxels of the raw image, ``by`` times finer in plane."""
    (z, y, x), (depth, height, width) = candidate.box.offset_zyx, candidate.box.shape_zyx
    box = Box((z, y * by, x * by), (depth, height * by, width * by))
    return replace(candidate, box=box, mask=candidate.mask.repeat(by, 1).repeat(by, 2))


def blocks_of(candidates: list[Candidate], labels: np.ndarray, size_nm: tuple[float, ...]) -> np.ndarray:
    """(N,) group of each candidate: the block of the truth object it covers most, or its own, where it covers none."""
    places: list[np.ndarray] = []
    centers: dict[int, np.ndarray] = {}
    for candidate in candidates:
        inside = labels[candidate.box.slices][candidate.mask > 0]
        objects, counts = np.unique(inside[inside > 0], return_counts=True)
        if len(objects) == 0:
            places.append(candidate.center_zyx)
            continue
        one = int(objects[counts.argmax()])
        if one not in centers:
            centers[one] = np.argwhere(labels == one).mean(0)
        places.append(centers[one])
    cell = np.floor(np.array(places) * size_nm / BLOCK_NM).astype(int)
    return np.unique(cell, axis=0, return_inverse=True)[1].ravel()


def draws(world: World, found: Candidates, config: StreamsConfig, patches: PatchConfig, seed: int) -> dict[str, Draw]:
    """What the streams learn from: aligned masks, and raw patches of the whole image."""
    turned = config.augment_crops
    crops = RandomCrops(world.raw, patches, world.task.patch_pixel_size_nm, seed, turned=turned)
    raw = ImageDraw(crops, found.image_patch, config.random_crop_share, patches.planes, turned)
    return {"mask": MaskDraw(found.mask_patch, patches.planes), "image": raw}


def fitted(draw: Draw, config: StreamConfig, patches: PatchConfig, seed: int, name: str) -> Stream:
    """A stream trained here."""
    network = new_stream((patches.num_planes, patches.width_px, patches.width_px), config, seed)
    with tempfile.TemporaryDirectory() as folder:
        fit_stream(network, draw, config, seed=seed, resume_path=Path(folder) / "resume", name=name)
    return network


def encoded(world: World, found: Candidates, config: OnnxConfig) -> np.ndarray:
    """(N, D) features by an external encoder, of patches of its own."""
    encoder = OnnxEncoder(config, 1)
    encoder.check()
    full_size = [at_full_size(c, world.by) for c in found.members]
    pairs = dict(cut_all(world.raw, full_size, encoder.patches, world.task.patch_pixel_size_nm))
    images, masks = zip(*((pairs[i].image, pairs[i].mask) for i in range(len(pairs))), strict=True)
    return encoder.encode(np.stack(images), np.stack(masks))


def small_s(world: World, config: SegmentationConfig, seed: int) -> Segmenter:
    """S trained on the labelled box of the weak one, whose network is not stored."""
    grey = world.image.read(world.labels_box)
    segmenter = new_segmenter(
        world.task, config, voxel_size_nm=world.image.voxel_size_nm, num_sections=world.image.shape_zyx[0],
        grey=(float(grey.mean()), float(grey.std())), seed=seed,
    )  # fmt: skip
    box = world.labels_box
    val_box = Box((*box.offset_zyx[:2], box.stop_zyx[2] - 8), (*box.shape_zyx[:2], 8))
    lessons = Lessons(
        world.image, world.labels, world.ignore, world.task, labels_boxes=[box], val_box=val_box, test_box=None,
        guarded_box=None, crop_shape_zyx=crop_shape(segmenter, config),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        train(
            segmenter, LabelledCrops(lessons, config), config, num_steps=config.num_steps, seed=seed,
            learning_rate=config.learning_rate, resume_path=Path(folder) / "resume", description="train S",
        )  # fmt: skip
    return segmenter


def balanced(blocks: Sequence[np.ndarray], known: np.ndarray) -> np.ndarray:
    """(N, D): every block standardised by its known rows, then divided by the root of its width.

    A stream of 200 dimensions is penalised by the probe like one of 20: neither drowns score and size beside it.
    """
    scaled = [StandardScaler().fit(block[known]).transform(block) / np.sqrt(block.shape[1]) for block in blocks]
    return np.hstack(scaled)


def logit_of(blocks: Sequence[np.ndarray], y: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) log-odds of every candidate by a logistic probe that was fitted to ``known`` rows."""
    features = balanced(blocks, known)
    return LogisticRegression(C=1.0, max_iter=5000).fit(features[known], y[known]).decision_function(features)


def auc(y: np.ndarray, logit: np.ndarray, rows: np.ndarray) -> float:
    """ROC-AUC among ``rows``; NaN where one answer is missing."""
    return float(roc_auc_score(y[rows], logit[rows])) if len(set(y[rows])) == 2 else float("nan")


def score_and_size(found: Candidates) -> np.ndarray:
    """(N, 2): log-odds of S's mean score, logarithm of the number of voxels."""
    clipped = np.clip(found.score, 1e-4, 1 - 1e-4)
    return np.stack([np.log(clipped / (1 - clipped)), np.log([c.num_voxels for c in found.members])], axis=1)
