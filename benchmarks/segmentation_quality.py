"""How good is S, trained on the labels of one region and scored on another? One JSON row per run.

Laptop sizes, at most 20 minutes of training on 2 cores. Real sets are read from --data; the synthetic one is grown
where it is read: trained on one seed below 1000, scored on seeds from 1000.

    python benchmarks/segmentation_quality.py --data DIR --set fafb
    python benchmarks/segmentation_quality.py --set synthetic --test-seeds 1000 1001 1002
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command line does

import numpy as np

from twostream.base.config import apply_overrides, parse_config
from twostream.base.geometry import Box
from twostream.candidates.candidate import clean, extract
from twostream.candidates.thresholds import CandidateConfig, proposing_threshold
from twostream.candidates.truth import Truth
from twostream.candidates.tuning import tune
from twostream.models.segmentation.config import SegmentationConfig, shapes_for
from twostream.models.segmentation.lessons import Lessons
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter, crop_shape, new_segmenter, train
from twostream.models.training import use_threads
from twostream.rounds.lessons import LabelledCrops, validation_crops
from twostream.rounds.score import scores_on_test_box
from twostream.task import DecodingConfig, Task, get_task
from twostream.volume import MemoryVolume, Volume, open_ignore_mask, open_volume


@dataclass(frozen=True)
class Case:
    """A training region and a test region.

    Attributes:
        task: what is looked for.
        train: file or URI of the training volume, test likewise; a URI is formatted with the seed.
        labels: dataset of the labels.
        labels_box, val_box, test_box: Z0:Z1,Y0:Y1,X0:X1; the validation box lies in the labels box.
        settings: of S, over the laptop preset.
        decoding: of the task, over its defaults.
    """

    task: str
    train: str
    test: str
    labels: str
    labels_box: str
    val_box: str
    test_box: str
    settings: dict[str, Any] = field(default_factory=dict)
    decoding: dict[str, Any] = field(default_factory=dict)


EPFL = "epfl_hippocampus_{}_10nm.h5"
TISSUE = "synthetic://seed={}&shape={}&kind="
CASES = {
    "fafb": Case(
        "mitochondria", "fafb_mito_8slices.h5", "fafb_mito_8slices.h5", "mitochondria",
        "0:8,0:868,0:1736", "0:8,0:868,1389:1736", "0:8,868:1736,0:1736",
    ),
    "epfl": Case(
        "mitochondria", EPFL.format("train"), EPFL.format("test"), "mitochondria",
        "0:82,0:384,0:512", "0:82,0:384,410:512", "0:82,0:384,0:512",
    ),
    "vnc": Case(
        "mitochondria", "vnc_stack1.h5", "vnc_stack1.h5", "mitochondria",
        "0:15,0:1024,0:1024", "0:15,0:1024,820:1024", "15:20,0:1024,0:1024",
    ),
    "vnc-cleft": Case(
        "cleft", "vnc_stack1.h5", "vnc_stack1.h5", "synapses",
        "0:15,0:1024,0:1024", "0:15,0:1024,820:1024", "15:20,0:1024,0:1024",
    ),
    "synthetic": Case(
        "polarity", TISSUE, TISSUE, "synapses",
        "0:48,0:768,0:768", "0:48,0:768,640:768", "2:34,32:544,32:544",
    ),
}  # fmt: skip


def in_memory(volume: Volume, box: Box) -> MemoryVolume:
    """``box`` of a volume; boxes of the copy begin at 0."""
    return MemoryVolume(np.ascontiguousarray(volume.read(box)), volume.voxel_size_nm)


def load(case: Case, source: str, data: Path, seed: int, shape: str) -> tuple[Volume, Volume, Volume | None]:
    """Image, labels and ignore mask, in memory."""
    if source.startswith("synthetic://"):
        uri = source.format(seed, shape)
        image, labels, ignore = open_volume(uri + "image"), open_volume(uri + case.labels), None
    else:
        uri = f"{data / source}:"
        image, labels = open_volume(uri + "image"), open_volume(uri + case.labels)
        ignore = open_ignore_mask(uri + case.labels)
    return (
        in_memory(image, image.box),
        in_memory(labels, labels.box),
        None if ignore is None else in_memory(ignore, ignore.box),
    )


@dataclass(frozen=True)
class Fitted:
    """S with what its validation box gave: the threshold of proposing, and the tuned final decoding."""

    segmenter: Segmenter
    config: SegmentationConfig
    task: Task
    tuned: Task
    threshold: float
    final_threshold: float
    min_score: float
    min_voxels: int
    train_seconds: float


def fit(
    case: Case, data: Path, seed: int, train_seed: int, overrides: list[str], resume: Path, stored: Path | None = None
) -> Fitted:
    """Train S on the case's labels, or take the one that was ``stored``; then choose thresholds."""
    labels_box, val_box, test_box = (Box.parse(b) for b in (case.labels_box, case.val_box, case.test_box))
    shape = ",".join(str(s) for s in labels_box.shape_zyx)
    image, labels, ignore = load(case, case.train, data, train_seed, shape)
    task = get_task(case.task, image.voxel_size_nm, DecodingConfig(**case.decoding))
    pixel_size_nm = case.settings.get("max_pixel_size_nm") or task.pixel_size_nm
    settings = {**shapes_for(image.voxel_size_nm, pixel_size_nm), **case.settings}
    config = parse_config(SegmentationConfig, apply_overrides(settings, overrides), source="--override")
    hidden = test_box if case.train == case.test and "://" not in case.train else None
    grey = image.read(labels_box)
    segmenter = new_segmenter(
        task, config, voxel_size_nm=image.voxel_size_nm, num_sections=image.shape_zyx[0],
        grey=(float(grey.mean()), float(grey.std())), seed=seed,
    )  # fmt: skip
    shape_zyx = crop_shape(segmenter, config)
    lessons = Lessons(
        image, labels, ignore, task, labels_box=labels_box, val_box=val_box, test_box=hidden, guarded_box=hidden,
        crop_shape_zyx=shape_zyx,
    )  # fmt: skip
    looked_at = None
    if config.watch.every_steps:
        looked_at = validation_crops(image, labels, ignore, task, val_box, hidden, shape_zyx)
    start = time.monotonic()
    if stored is not None and stored.exists():
        segmenter = Segmenter.load(stored)
    else:
        history = train(
            segmenter, LabelledCrops(lessons, config), config, num_steps=config.num_steps, seed=seed,
            learning_rate=config.learning_rate, resume_path=resume, description="train S", validation=looked_at,
        )  # fmt: skip
        if stored is not None:
            segmenter.save(stored, history)
    seconds = time.monotonic() - start
    min_voxels = max(1, round(task.min_object_nm3 / float(np.prod(image.voxel_size_nm))))
    output = MemoryVolume(np.zeros((len(task.channels), *image.shape_zyx), np.uint8), image.voxel_size_nm)
    # Both thresholds come from the validation box: S has not seen it, and the rest need not be predicted.
    region = _folded(val_box, segmenter.network.fold_zyx)
    predict(segmenter, image, output, config, region=region)
    known, probability = labels.read(val_box), output.read(val_box)
    unknown = None if ignore is None else ignore.read(val_box)
    threshold, _ = proposing_threshold(probability, known, unknown, task, CandidateConfig(), min_voxels)
    best = tune(probability, known, unknown, task, min_voxels)[0]  # what `twostream tune --write` would write
    tuned = get_task(case.task, image.voxel_size_nm, task.decoding.model_copy(update=best.decoding))
    return Fitted(segmenter, config, task, tuned, threshold, best.threshold, best.min_score, min_voxels, seconds)


def _folded(box: Box, fold_zyx: tuple[int, int, int]) -> Box:
    """``box`` moved out to begin on a folded voxel."""
    start = [o // f * f for o, f in zip(box.offset_zyx, fold_zyx, strict=True)]
    return Box.from_corners(start, box.stop_zyx)


def score(fitted: Fitted, case: Case, data: Path, test_seed: int) -> dict[str, Any]:
    """Scores on the test box."""
    test_box = Box.parse(case.test_box)
    # Tissue goes on around the test box, so that objects cut by its border are known to be cut, and do not count.
    shape = [b + a for a, b in zip(test_box.offset_zyx, test_box.stop_zyx, strict=True)]
    image, labels, ignore = load(case, case.test, data, test_seed, ",".join(map(str, shape)))
    output = MemoryVolume(np.zeros((len(fitted.task.channels), *image.shape_zyx), np.uint8), image.voxel_size_nm)
    start = time.monotonic()
    predict(fitted.segmenter, image, output, fitted.config, region=test_box)
    seconds = time.monotonic() - start
    probability = output.read(output.box)
    inside = probability[(slice(None), *test_box.slices)]
    segmentation = np.zeros(image.shape_zyx, np.uint32)
    proposed = clean(fitted.task.decode(inside, fitted.threshold), fitted.task, fitted.min_voxels)
    segmentation[test_box.slices] = proposed
    candidates = extract(proposed, inside[fitted.task.foreground], fitted.task, test_box.offset_zyx)
    scores = scores_on_test_box(
        MemoryVolume(segmentation, image.voxel_size_nm), output, Truth(labels, ignore, fitted.tuned), candidates,
        test_box, threshold=fitted.final_threshold, min_voxels=fitted.min_voxels, min_score=fitted.min_score,
    )  # fmt: skip
    rounded = {name: None if value != value else round(float(value), 4) for name, value in scores.items()}
    return {"predict_seconds": round(seconds, 1)} | rounded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="case", choices=list(CASES), required=True)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--override", action="append", default=[], metavar="A.B=VALUE", help="settings of S")
    parser.add_argument("--decoding", action="append", default=[], metavar="A=VALUE", help="settings of the decoding")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-seed", type=int, default=0, help="of the synthetic tissue S learns from")
    parser.add_argument("--test-seeds", type=int, nargs="+", default=[1000])
    parser.add_argument("--test-box", help="score another box")
    parser.add_argument("--labels-box", help="learn from another box; give --val-box too")
    parser.add_argument("--val-box")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stored", type=Path, help="S: loaded from there if it is there, stored there if not")
    options = parser.parse_args()
    use_threads(options.threads)
    case = CASES[options.case]
    boxes = {name: getattr(options, name) for name in ("test_box", "labels_box", "val_box") if getattr(options, name)}
    decoding = apply_overrides(case.decoding, options.decoding)
    case = Case(**(vars(case) | boxes | {"decoding": decoding}))
    resume = Path(f".{options.case}-{os.getpid()}.resume")
    fitted = fit(case, options.data, options.seed, options.train_seed, options.override, resume, options.stored)
    resume.unlink(missing_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    for test_seed in options.test_seeds if "://" in case.test else [0]:
        row = {
            "name": "segmentation_quality", "set": options.case, "seed": options.seed, "test_seed": test_seed,
            "overrides": options.override, "num_steps": fitted.config.num_steps,
            "train_seconds": round(fitted.train_seconds, 1), "threshold": fitted.threshold,
            "final_threshold": fitted.final_threshold, "min_score": fitted.min_score,
            "decoding": fitted.tuned.decoding.method,
            "seed_threshold": fitted.tuned.decoding.seed_threshold, "commit": commit.strip(),
        } | score(fitted, case, options.data, test_seed)  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
