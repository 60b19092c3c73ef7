"""What do the streams know of an answer, and what do they add to score and size? One JSON row per set of features.

Candidates come from the frozen weak S of --data by a fixed threshold, answers from the truth rule. Streams see raw
pixels and predicted masks, never an answer. For every set of features a logistic probe is fitted and scored by ROC-AUC
on folds grouped by 3-D object and spatial block; once on all candidates and once on those of which S is confident.
Gains are paired: over the probe that has score and size alone, with an interval from resampled blocks.

    python benchmarks/stream_probe.py --data DIR --set fafb --side development
    python benchmarks/stream_probe.py --data DIR --set fafb --side confirmation --out rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command line does

import h5py
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from twostream.base.config import apply_overrides, parse_config
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, extract
from twostream.candidates.cutting import cut_all, random_patches
from twostream.candidates.patches import PatchConfig
from twostream.candidates.truth import Truth
from twostream.models.segmentation.config import SegmentationConfig, shapes_for
from twostream.models.segmentation.features import pooled_features
from twostream.models.segmentation.lessons import Lessons
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter, crop_shape, new_segmenter, train
from twostream.models.streams.config import StreamConfig, StreamsConfig
from twostream.models.streams.draw import Draw, ImageDraw, MaskDraw, image_input, mask_input
from twostream.models.streams.encode import encode
from twostream.models.streams.fit import fit_stream, new_stream
from twostream.models.streams.stream import Stream
from twostream.models.training import use_threads
from twostream.rounds.lessons import LabelledCrops
from twostream.task import Task, get_task
from twostream.task.answers import MEANING
from twostream.volume import MemoryVolume
from twostream.volume.synthetic import Tissue

SETS = {
    "fafb": ("fafb_mito_8slices.h5", "mitochondria", "mitochondria"),
    "vnc": ("vnc_stack1.h5", "mitochondria", "mitochondria"),
    "vnc_synapse": ("vnc_stack1.h5", "synapses", "cleft"),
    "epfl": ("epfl_hippocampus_train_10nm.h5", "mitochondria", "mitochondria"),
}
THRESHOLD = 0.5
CONFIDENT_SCORE = 0.8
"""Above the mean score of most candidates: where S says *object* and means it."""
BLOCK_NM = 1500.0
TISSUE, TISSUE_NM, TISSUE_LABELLED = (32, 960, 1280), (30.0, 8.0, 8.0), (190, 190)
FIRST_CONFIRMATION_SEED = 1000
NUM_FOLDS = 5
NUM_FOLDINGS = 4
NUM_BOOTSTRAP = 1000
NUM_RANDOM_PATCHES = 4096
NUM_NEIGHBOURS = 10


@dataclass(frozen=True)
class World:
    """The raw image, for patches; the same at the voxel size of the weak S, what that S said, and where it learned.

    Attributes:
        by: voxels of ``raw`` in one of ``image``, in plane.
        probability: (C, Z, Y, X) uint8 of the weak S, over ``image``.
        segmenter: the weak S, where its network is to be had.
    """

    task: Task
    raw: MemoryVolume
    by: int
    image: MemoryVolume
    labels: MemoryVolume
    ignore: MemoryVolume | None
    labels_box: Box
    probability: np.ndarray
    segmenter: Segmenter | None = None


@dataclass(frozen=True)
class Candidates:
    """Candidates of a weak S, as everything after sees them.

    Attributes:
        members: (N,) in raster order.
        image_patch: (N, P, W, W) uint8, mask_patch: (N, P, W, W) int8.
        y: (N,) 1 or 0.
        group: (N,) block in which the object lies.
    """

    members: list[Candidate]
    image_patch: np.ndarray
    mask_patch: np.ndarray
    y: np.ndarray
    group: np.ndarray

    @property
    def score(self) -> np.ndarray:
        return np.array([c.score for c in self.members])


def load(
    name: str, data: Path, patches: PatchConfig, side: str, s_config: dict[str, object], seed: int
) -> tuple[World, Candidates, SegmentationConfig]:
    """The world of a set, its candidates outside the labelled box of the weak S, and settings of an S of ours."""
    if name == "synthetic":
        seed = seed + FIRST_CONFIRMATION_SEED if side == "confirmation" else seed
        world, config = synthetic_world(seed, s_config)
    else:
        world = real_world(name, data)
        shapes = shapes_for(world.image.voxel_size_nm, world.task.pixel_size_nm)
        config = parse_config(SegmentationConfig, shapes | s_config, source="--override")
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
    found = Candidates(
        kept, np.stack([pairs[i].image for i in range(len(kept))]), np.stack([pairs[i].mask for i in range(len(kept))]),
        answers[~np.isnan(answers)], blocks_of(kept, task.instances(world.labels.read(world.labels.box)), size),
    )  # fmt: skip
    return world, found, config


def real_world(name: str, data: Path) -> World:
    """A set with the frozen probability that comes with it."""
    file, labels_name, task_name = SETS[name]
    with h5py.File(data / "weak_probability.h5") as weak, h5py.File(data / file) as full:
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
        Box.from_corners(start, stop), probability[None],
    )  # fmt: skip


def synthetic_world(seed: int, s_config: dict[str, object]) -> tuple[World, SegmentationConfig]:
    """Synapses of a tissue that is grown here, and a weak S of ours that has learned from a corner of it."""
    task, tissue, box = get_task("polarity", TISSUE_NM), Tissue(seed=seed, voxel_size_nm=TISSUE_NM), Box.whole(TISSUE)
    image, labels = MemoryVolume(tissue.image(box), TISSUE_NM), tissue.synapses(box)
    settings = shapes_for(TISSUE_NM, 16.0) | {"max_pixel_size_nm": 16.0, "exclusive": True} | s_config
    config = parse_config(SegmentationConfig, settings, source="--override")
    labelled = Box((0, 0, 0), (TISSUE[0], *TISSUE_LABELLED))
    nothing = np.zeros((len(task.channels), *TISSUE), np.uint8)
    world = World(task, image, 1, image, MemoryVolume(counted(labels, task), TISSUE_NM), None, labelled, nothing)
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
    everywhere = random_patches(world.raw, NUM_RANDOM_PATCHES, patches, world.task.patch_pixel_size_nm, seed)
    raw = ImageDraw(everywhere, found.image_patch, config.random_crop_share, patches.planes)
    return {"mask": MaskDraw(found.mask_patch, patches.planes), "image": raw}


def fitted(draw: Draw, config: StreamConfig, patches: PatchConfig, seed: int, name: str) -> Stream:
    """A stream trained here."""
    network = new_stream((patches.num_planes, patches.width_px, patches.width_px), config, seed)
    with tempfile.TemporaryDirectory() as folder:
        fit_stream(network, draw, config, seed=seed, resume_path=Path(folder) / "resume", name=name)
    return network


def counted(labels: np.ndarray, task: Task) -> np.ndarray:
    """(Z, Y, X) uint32 in the task's convention: ids of synthetic objects are as wide as space is; here they count."""
    sides = np.uint64(task.num_sides)
    number = np.unique((labels + sides - 1) // sides, return_inverse=True)[1].reshape(labels.shape)
    if task.num_sides == 2:
        number = np.where(number > 0, 2 * number - (labels % 2).astype(np.int64), 0)
    return number.astype(np.uint32)


def small_s(world: World, config: SegmentationConfig, seed: int) -> Segmenter:
    """An S of ours, trained on the labelled box of the weak one, whose network is not to be had."""
    grey = world.image.read(world.labels_box)
    segmenter = new_segmenter(
        world.task, config, voxel_size_nm=world.image.voxel_size_nm, num_sections=world.image.shape_zyx[0],
        grey=(float(grey.mean()), float(grey.std())), seed=seed,
    )  # fmt: skip
    box = world.labels_box
    val_box = Box((*box.offset_zyx[:2], box.stop_zyx[2] - 8), (*box.shape_zyx[:2], 8))
    lessons = Lessons(
        world.image, world.labels, world.ignore, world.task, labels_box=box, val_box=val_box, test_box=None,
        guarded_box=None, crop_shape_zyx=crop_shape(segmenter, config),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        train(
            segmenter, LabelledCrops(lessons, config), config, num_steps=config.num_steps, seed=seed,
            learning_rate=config.learning_rate, resume_path=Path(folder) / "resume", description="train S",
        )  # fmt: skip
    return segmenter


def latents(
    world: World,
    found: Candidates,
    config: StreamsConfig,
    s_config: SegmentationConfig,
    patches: PatchConfig,
    seed: int,
) -> dict[str, np.ndarray]:
    """Features by every stream: mask VAE, image VAE, self-supervised, S; each trained here, on this image."""
    sources = draws(world, found, config, patches, seed)
    masks, images = mask_input(found.mask_patch), image_input(found.image_patch)
    raw = config.unsupervised
    plans: dict[str, tuple[StreamConfig, str, np.ndarray]] = {
        "mask": (config.supervised, "mask", masks),
        "image": (raw.model_copy(update={"method": "vae"}), "image", images),
        "simclr": (raw.model_copy(update={"method": "simclr"}), "image", images),
    }
    found_latents = {}
    for name, (stream, source, arrays) in plans.items():
        start = time.monotonic()
        found_latents[name] = encode(fitted(sources[source], stream, patches, seed, name), arrays)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    start = time.monotonic()
    instances = [(c.box, c.mask) for c in found.members]
    found_latents["s"] = pooled_features(
        world.segmenter or small_s(world, s_config, seed), world.image, instances, s_config
    )
    print(f"s: {time.monotonic() - start:.0f} s", flush=True)
    return found_latents


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


def out_of_fold(blocks: Sequence[np.ndarray], y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(N,) log-odds of a probe that has not seen the candidate's block; the mean over several ways to fold."""
    logit = np.zeros(len(y))
    for folding in range(NUM_FOLDINGS):
        for known, unseen in GroupKFold(NUM_FOLDS, shuffle=True, random_state=folding).split(y, y, group):
            logit[unseen] += logit_of(blocks, y, known)[unseen] / NUM_FOLDINGS
    return logit


def auc(y: np.ndarray, logit: np.ndarray, rows: np.ndarray) -> float:
    """ROC-AUC among ``rows``; NaN where one answer is missing."""
    return float(roc_auc_score(y[rows], logit[rows])) if len(set(y[rows])) == 2 else float("nan")


def paired_gain(found: Candidates, logit: np.ndarray, base: np.ndarray, rows: np.ndarray) -> tuple[float, float, float]:
    """Gain in AUC over ``base`` among ``rows``, with a 95 percent interval over resampled blocks."""
    rng = np.random.default_rng(0)
    groups = np.unique(found.group[rows])
    members = {g: rows[found.group[rows] == g] for g in groups}
    gains = []
    for _ in range(NUM_BOOTSTRAP):
        drawn = np.concatenate([members[g] for g in rng.choice(groups, len(groups))])
        gains.append(auc(found.y, logit, drawn) - auc(found.y, base, drawn))
    low, high = np.nanpercentile(gains, [2.5, 97.5])
    return auc(found.y, logit, rows) - auc(found.y, base, rows), float(low), float(high)


def purity(features: np.ndarray, y: np.ndarray) -> float:
    """Mean share of the nearest neighbours that have the same answer, balanced over both answers."""
    near = NearestNeighbors(n_neighbors=NUM_NEIGHBOURS + 1).fit(features).kneighbors(features)[1][:, 1:]
    same = (y[near] == y[:, None]).mean(1)
    return float(np.mean([same[y == value].mean() for value in (0, 1)]))


def score_and_size(found: Candidates) -> np.ndarray:
    """(N, 2): log-odds of S's mean score, logarithm of the number of voxels."""
    clipped = np.clip(found.score, 1e-4, 1 - 1e-4)
    return np.stack([np.log(clipped / (1 - clipped)), np.log([c.num_voxels for c in found.members])], axis=1)


def table(found: Candidates, streams: Mapping[str, np.ndarray]) -> list[dict[str, object]]:
    plain = score_and_size(found)
    pairs = [("mask", "image"), ("mask", "simclr"), ("s", "simclr"), ("mask", "s", "simclr")]
    combined = [(name,) for name in streams] + pairs
    sets = {" and ".join(names): [streams[name] for name in names] for names in combined}
    sets |= {f"{name}, score and size": [plain, *blocks] for name, blocks in sets.items()}
    everything = np.arange(len(found.y))
    confident = np.flatnonzero(found.score >= CONFIDENT_SCORE)
    base = out_of_fold([plain], found.y, found.group)
    rows: list[dict[str, object]] = []
    for name, blocks in ({"score and size": [plain]} | sets).items():
        logit = out_of_fold(blocks, found.y, found.group)
        gain, low, high = paired_gain(found, logit, base, everything)
        sure, sure_low, sure_high = paired_gain(found, logit, base, confident)
        rows.append(
            {
                "features": name, "dimensions": sum(block.shape[1] for block in blocks),
                "auc": round(auc(found.y, logit, everything), 4), "gain": [round(v, 4) for v in (gain, low, high)],
                "auc_confident": round(auc(found.y, logit, confident), 4),
                "gain_confident": [round(v, 4) for v in (sure, sure_low, sure_high)],
                "purity": round(purity(balanced(blocks, everything), found.y), 4),
            }
        )  # fmt: skip
    return rows


def settings_of(overrides: Sequence[str]) -> tuple[StreamsConfig, PatchConfig, dict[str, object]]:
    """Settings of streams and patches, and what is said of S."""
    settings = apply_overrides({}, overrides)
    streams = parse_config(StreamsConfig, settings.get("streams", {}), source="--override")
    patches = parse_config(PatchConfig, settings.get("patches", {}), source="--override")
    return streams, patches, settings.get("segmentation", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--set", dest="name", choices=[*SETS, "synthetic"], default="fafb")
    parser.add_argument("--side", choices=["development", "confirmation"], default="development")
    parser.add_argument("--override", action="append", default=[], metavar="A.B=VALUE", help="settings of the streams")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads(options.threads)
    config, patches, s_settings = settings_of(options.override)
    world, found, s_config = load(options.name, options.data, patches, options.side, s_settings, options.seed)
    print(f"{len(found.y)} candidates, {int(found.y.sum())} true, {len(set(found.group.tolist()))} blocks", flush=True)
    streams = latents(world, found, config, s_config, patches, options.seed)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    head = {"name": "stream_probe", "set": options.name, "side": options.side, "seed": options.seed}
    head |= {"overrides": options.override, "commit": commit.strip()}
    for row in table(found, streams):
        print(json.dumps(row), flush=True)
        if options.out:
            with options.out.open("a") as handle:
                handle.write(json.dumps(head | row) + "\n")


if __name__ == "__main__":
    main()
