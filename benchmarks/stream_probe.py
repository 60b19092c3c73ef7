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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command line does

import h5py
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from twostream.annotator import Truth
from twostream.answers import MEANING
from twostream.candidates import Candidate, clean, extract
from twostream.config import apply_overrides, parse_config
from twostream.geometry import Box
from twostream.patches import PatchConfig, cut, random_patches
from twostream.streams.config import StreamsConfig
from twostream.streams.encode import encode, image_input, mask_input
from twostream.streams.fit import Draw, fit_stream, new_stream
from twostream.task import get_task
from twostream.training import use_threads
from twostream.volume import MemoryVolume

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
NUM_FOLDS = 5
NUM_BOOTSTRAP = 1000
NUM_RANDOM_PATCHES = 4000
NUM_NEIGHBOURS = 10


@dataclass(frozen=True)
class Candidates:
    """Candidates of a weak S, as everything after sees them.

    Attributes:
        image_patch: (N, W, W) uint8, mask_patch: (N, W, W) int8.
        y: (N,) 1 or 0.
        score: (N,) S's mean probability; num_voxels: (N,).
        group: (N,) block in which the object lies.
        center_zyx: (N, 3) voxels.
    """

    image_patch: np.ndarray
    mask_patch: np.ndarray
    y: np.ndarray
    score: np.ndarray
    num_voxels: np.ndarray
    group: np.ndarray
    center_zyx: np.ndarray


def load(name: str, data: Path, patches: PatchConfig, side: str) -> tuple[MemoryVolume, Candidates, float]:
    """The image at the voxel size of the weak S, its candidates outside its labelled box, and a patch's pixel size."""
    file, labels_name, task_name = SETS[name]
    with h5py.File(data / "weak_probability.h5") as weak, h5py.File(data / file) as full:
        probability = weak[name][:]
        by = int(weak[name].attrs["in_plane_downsampling"])
        size = tuple(float(v) for v in weak[name].attrs["voxel_size_nm"])
        start, stop = np.asarray(weak[name].attrs["labels_box_zyx"]).T.tolist()
        whole = full["image"][:]
        depth, height, width = probability.shape
        grey = whole.reshape(depth, height, by, width, by).mean((2, 4)).round().astype(np.uint8)
        truth_labels = full[labels_name][:, ::by, ::by].astype(np.uint32)
        ignore_name = f"{labels_name}_ignore"
        ignore = full[ignore_name][:, ::by, ::by] if ignore_name in full else None
    task = get_task(task_name, size)
    image, labels = MemoryVolume(grey, size), MemoryVolume(truth_labels, size)
    truth = Truth(labels, None if ignore is None else MemoryVolume(ignore, size), task)
    min_voxels = max(1, round(task.min_object_nm3 / float(np.prod(size))))
    segmentation = clean(task.decode(probability[None], THRESHOLD), task, min_voxels)
    labelled = Box.from_corners(start, stop)
    proposed = [c for c in extract(segmentation, probability, task, (0, 0, 0)) if not c.box.intersects(labelled)]
    if name == "fafb":
        in_half = [(c.center_zyx[1] >= height / 2) == (side == "confirmation") for c in proposed]
        proposed = [c for c, mine in zip(proposed, in_half, strict=True) if mine]
    answers = np.array([MEANING[truth.judge(c).kind].y for c in proposed])
    kept = [c for c, y in zip(proposed, answers, strict=True) if not np.isnan(y)]
    pairs = [cut(image, c, patches, task.pixel_size_nm) for c in kept]
    found = Candidates(
        np.stack([p.image for p in pairs]), np.stack([p.mask for p in pairs]), answers[~np.isnan(answers)],
        np.array([c.score for c in kept]), np.array([c.num_voxels for c in kept]),
        blocks_of(kept, truth_labels, size), np.array([c.center_zyx for c in kept]),
    )  # fmt: skip
    return image, found, task.pixel_size_nm


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


def latents(
    image: MemoryVolume, found: Candidates, config: StreamsConfig, patches: PatchConfig, pixel_nm: float, seed: int
) -> dict[str, np.ndarray]:
    """Features by every stream: mask VAE, image VAE, self-supervised; each trained here, on this image."""
    bank = random_patches(image, NUM_RANDOM_PATCHES, patches, pixel_nm, seed)

    def draw_mask(rng: np.random.Generator) -> np.ndarray:
        return mask_input(found.mask_patch[rng.integers(len(found.y))])

    def draw_raw(rng: np.random.Generator) -> np.ndarray:
        source = bank if rng.random() < config.random_crop_share else found.image_patch
        patch = np.rot90(source[rng.integers(len(source))], int(rng.integers(4)))
        return image_input(np.ascontiguousarray(patch[::-1] if rng.random() < 0.5 else patch))

    masks, images = mask_input(found.mask_patch), image_input(found.image_patch)
    raw = config.unsupervised
    plans: dict[str, tuple[object, Draw, np.ndarray]] = {
        "mask": (config.supervised, draw_mask, masks),
        "image": (raw.model_copy(update={"method": "vae"}), draw_raw, images),
        "simclr": (raw.model_copy(update={"method": "simclr"}), draw_raw, images),
    }
    found_latents = {}
    for name, (stream, draw, arrays) in plans.items():
        start = time.monotonic()
        network = new_stream(patches.width_px, stream, seed)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            fit_stream(network, draw, stream, seed=seed, resume_path=Path(folder) / "resume", name=name)  # type: ignore[arg-type]
        found_latents[name] = encode(network, arrays)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return found_latents


def out_of_fold(features: np.ndarray, y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(N,) log-odds of a probe that has not seen the candidate's block."""
    logit = np.zeros(len(y))
    for train, test in GroupKFold(NUM_FOLDS, shuffle=True, random_state=0).split(features, y, group):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        probe.fit(features[train], y[train])
        logit[test] = probe.decision_function(features[test])
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
    scaled = StandardScaler().fit_transform(features)
    near = NearestNeighbors(n_neighbors=NUM_NEIGHBOURS + 1).fit(scaled).kneighbors(scaled)[1][:, 1:]
    same = (y[near] == y[:, None]).mean(1)
    return float(np.mean([same[y == value].mean() for value in (0, 1)]))


def table(found: Candidates, streams: Mapping[str, np.ndarray]) -> list[dict[str, object]]:
    clipped = np.clip(found.score, 1e-4, 1 - 1e-4)
    plain = np.stack([np.log(clipped / (1 - clipped)), np.log(found.num_voxels)], axis=1)
    sets = {"score and size": plain} | dict(streams)
    sets["mask and image"] = np.hstack([streams["mask"], streams["image"]])
    sets["mask and simclr"] = np.hstack([streams["mask"], streams["simclr"]])
    sets |= {f"{name}, score and size": np.hstack([plain, x]) for name, x in sets.items() if name != "score and size"}
    everything = np.arange(len(found.y))
    confident = np.flatnonzero(found.score >= CONFIDENT_SCORE)
    base = out_of_fold(plain, found.y, found.group)
    rows: list[dict[str, object]] = []
    for name, features in sets.items():
        logit = out_of_fold(features, found.y, found.group)
        gain, low, high = paired_gain(found, logit, base, everything)
        sure, sure_low, sure_high = paired_gain(found, logit, base, confident)
        rows.append(
            {
                "features": name, "dimensions": features.shape[1], "auc": round(auc(found.y, logit, everything), 4),
                "gain": [round(v, 4) for v in (gain, low, high)],
                "auc_confident": round(auc(found.y, logit, confident), 4),
                "gain_confident": [round(v, 4) for v in (sure, sure_low, sure_high)],
                "purity": round(purity(features, found.y), 4),
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--set", dest="name", choices=list(SETS), default="fafb")
    parser.add_argument("--side", choices=["development", "confirmation"], default="development")
    parser.add_argument("--override", action="append", default=[], metavar="A.B=VALUE", help="settings of the streams")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads(options.threads)
    settings = apply_overrides({}, options.override)
    config = parse_config(StreamsConfig, settings.get("streams", {}), source="--override")
    patches = parse_config(PatchConfig, settings.get("patches", {}), source="--override")
    image, found, pixel_nm = load(options.name, options.data, patches, options.side)
    print(f"{len(found.y)} candidates, {int(found.y.sum())} true, {len(set(found.group.tolist()))} blocks", flush=True)
    streams = latents(image, found, config, patches, pixel_nm, options.seed)
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
