"""How good is S, trained on the labels of one region and scored on another?

The full form has laptop sizes, at most 20 minutes of training on 2 cores; the quick form trains a small S
on a small region. Synthetic tissue is trained on one seed below 1000 and scored on seeds from
1000.

    python benchmarks/segmentation_quality.py
    python benchmarks/segmentation_quality.py --full --sets synthetic --test-seeds 1000 1001 1002
    python benchmarks/segmentation_quality.py --full --data DIR --sets fafb
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import options as common_options
from common.measure import timed
from common.results import Results
from common.sets import Opened, open_real, open_synthetic

from twostream.base.config import apply_overrides, parse_config
from twostream.base.geometry import Box
from twostream.candidates.candidate import clean, extract
from twostream.candidates.thresholds import CandidateConfig, LabelledBox, proposing_threshold
from twostream.candidates.truth import Truth
from twostream.candidates.tuning import tune
from twostream.models.segmentation.config import SegmentationConfig, shapes_for
from twostream.models.segmentation.lessons import Lessons
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter, crop_shape, new_segmenter, train
from twostream.models.training import use_threads
from twostream.rounds.score import scores_on_test_box
from twostream.rounds.teaching import LabelledCrops, validation_crops
from twostream.task import DecodingConfig, Task, get_task
from twostream.volume import MemoryVolume


@dataclass(frozen=True)
class Case:
    """A training region and a test region.

    Attributes:
        task: what is looked for.
        train, test: names of real sets, or "synthetic".
        labels_box, val_box, test_box: Z0:Z1,Y0:Y1,X0:X1; the validation box lies in the labels box.
        settings: of S, over the laptop preset.
        decoding: of the task, over its defaults.
    """

    task: str
    train: str
    test: str
    labels_box: str
    val_box: str
    test_box: str
    settings: dict[str, Any] = field(default_factory=dict)
    decoding: dict[str, Any] = field(default_factory=dict)

    def hidden_box(self) -> Box | None:
        """The test box, where it lies in the volume that S is trained on."""
        return Box.parse(self.test_box) if self.train == self.test != "synthetic" else None


CASES = {
    "fafb": Case("mitochondria", "fafb", "fafb", "0:8,0:868,0:1736", "0:8,0:868,1389:1736", "0:8,868:1736,0:1736"),
    "epfl": Case("mitochondria", "epfl", "epfl-test", "0:82,0:384,0:512", "0:82,0:384,410:512", "0:82,0:384,0:512"),
    "vnc": Case("mitochondria", "vnc", "vnc", "0:15,0:1024,0:1024", "0:15,0:1024,820:1024", "15:20,0:1024,0:1024"),
    "vnc-cleft": Case(
        "cleft", "vnc-cleft", "vnc-cleft", "0:15,0:1024,0:1024", "0:15,0:1024,820:1024", "15:20,0:1024,0:1024"
    ),
    "synthetic": Case(
        "polarity", "synthetic", "synthetic", "0:48,0:768,0:768", "0:48,0:768,640:768", "2:34,32:544,32:544"
    ),
}
REAL_CASES = [name for name in CASES if name != "synthetic"]
QUICK_SYNTHETIC = {"labels_box": "0:16,0:256,0:384", "val_box": "0:16,0:256,256:384", "test_box": "2:18,32:288,32:288"}
UNITS = {
    "instance_f1": "F1", "instance_f1_75": "F1", "average_precision": "AP", "average_precision_75": "AP",
    "foreground_iou": "IoU", "mean_iou": "IoU",
}  # fmt: skip


def load(name: str, data: Path, seed: int, shape_zyx: tuple[int, int, int]) -> Opened:
    """Image, labels and ignore mask, in memory; ``shape_zyx`` of synthetic tissue."""
    return open_synthetic(seed, shape_zyx) if name == "synthetic" else open_real(data, name)


@dataclass(frozen=True)
class Fitted:
    """S with what was chosen on its validation box: the threshold of the candidates and the tuned final decoding."""

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
    labels_box, val_box, hidden = Box.parse(case.labels_box), Box.parse(case.val_box), case.hidden_box()
    opened = load(case.train, data, train_seed, labels_box.shape_zyx)
    image, labels, ignore = opened.image, opened.labels, opened.ignore
    task = get_task(case.task, image.voxel_size_nm, DecodingConfig(**case.decoding))
    pixel_size_nm = case.settings.get("max_pixel_size_nm") or task.pixel_size_nm
    settings = {**shapes_for(image.voxel_size_nm, pixel_size_nm), **case.settings}
    config = parse_config(SegmentationConfig, apply_overrides(settings, overrides), source="--override")
    grey = image.read(labels_box)
    segmenter = new_segmenter(
        task, config, voxel_size_nm=image.voxel_size_nm, num_sections=image.shape_zyx[0],
        grey=(float(grey.mean()), float(grey.std())), seed=seed,
    )  # fmt: skip
    shape_zyx = crop_shape(segmenter, config)
    lessons = Lessons(
        image, labels, ignore, task, labels_boxes=[labels_box], val_box=val_box, test_box=hidden, guarded_box=hidden,
        crop_shape_zyx=shape_zyx,
    )  # fmt: skip
    looked_at = None
    if config.watch.every_steps:
        looked_at = validation_crops(image, labels, ignore, task, val_box, hidden, shape_zyx)
    with timed() as seconds:
        if stored is not None and stored.exists():
            segmenter = Segmenter.load(stored)
        else:
            history = train(
                segmenter, LabelledCrops(lessons, config), config, num_steps=config.num_steps, seed=seed,
                learning_rate=config.learning_rate, resume_path=resume, description="train S", validation=looked_at,
            )  # fmt: skip
            if stored is not None:
                segmenter.save(stored, history)
    min_voxels = max(1, round(task.min_object_nm3 / float(np.prod(image.voxel_size_nm))))
    output = MemoryVolume(np.zeros((len(task.channels), *image.shape_zyx), np.uint8), image.voxel_size_nm)
    # Both thresholds come from the validation box: S has not seen it, and the rest need not be predicted.
    region = _folded(val_box, segmenter.network.fold_zyx)
    predict(segmenter, image, output, config, region=region)
    known, probability = labels.read(val_box), output.read(val_box)
    unknown = None if ignore is None else ignore.read(val_box)
    threshold, _ = proposing_threshold(
        output, [LabelledBox(val_box, known, unknown)], task, CandidateConfig(), min_voxels
    )
    best = tune(probability, known, unknown, task, min_voxels)[0]  # what `twostream tune --write` would write
    tuned = get_task(case.task, image.voxel_size_nm, task.decoding.model_copy(update=best.decoding))
    return Fitted(segmenter, config, task, tuned, threshold, best.threshold, best.min_score, min_voxels, seconds.wall)


def _folded(box: Box, fold_zyx: tuple[int, int, int]) -> Box:
    """``box`` moved out to begin on a folded voxel."""
    start = [o // f * f for o, f in zip(box.offset_zyx, fold_zyx, strict=True)]
    return Box.from_corners(start, box.stop_zyx)


def score(fitted: Fitted, case: Case, opened: Opened) -> dict[str, float]:
    """Scores on the test box."""
    image, test_box = opened.image, Box.parse(case.test_box)
    output = MemoryVolume(np.zeros((len(fitted.task.channels), *image.shape_zyx), np.uint8), image.voxel_size_nm)
    predict(fitted.segmenter, image, output, fitted.config, region=test_box)
    probability = output.read(output.box)
    inside = probability[(slice(None), *test_box.slices)]
    segmentation = np.zeros(image.shape_zyx, np.uint32)
    proposed = clean(fitted.task.decode(inside, fitted.threshold), fitted.task, fitted.min_voxels)
    segmentation[test_box.slices] = proposed
    candidates = extract(proposed, inside[fitted.task.foreground], fitted.task, test_box.offset_zyx)
    return scores_on_test_box(
        MemoryVolume(segmentation, image.voxel_size_nm), output, Truth(opened.labels, opened.ignore, fitted.tuned),
        {c.label: c.score for c in candidates}, test_box, threshold=fitted.final_threshold,
        min_voxels=fitted.min_voxels,
        min_score=fitted.min_score,
    )  # fmt: skip


def unit_of(name: str, value: float) -> str:
    """Of a score."""
    if name.endswith("_nm"):
        return "nm"
    return UNITS.get(name, "objects" if isinstance(value, int) or name.startswith("num_") else "share")


def run(results: Results, options: argparse.Namespace, name: str) -> None:
    """Rows of one case: S is trained once and scored on every test seed."""
    changed = {key: getattr(options, key) for key in ("test_box", "labels_box", "val_box") if getattr(options, key)}
    quick = QUICK_SYNTHETIC if name == "synthetic" and not options.full else {}
    base = CASES[name]
    case = Case(**(vars(base) | quick | changed | {"decoding": apply_overrides(base.decoding, options.decoding)}))
    overrides = [*(() if options.full else common_options.QUICK_S), *options.override]
    if options.steps:
        overrides.append(f"num_steps={options.steps}")
    with tempfile.TemporaryDirectory() as folder:
        resume = Path(folder) / "resume"
        fitted = fit(case, options.data, options.seed, options.train_seed, overrides, resume, options.stored)
    settings = {"set": name, "seed": options.seed, "steps": fitted.config.num_steps, "overrides": options.override}
    # Tissue goes on around the test box, so that objects cut by its border are known to be cut, and do not count.
    test_box = Box.parse(case.test_box)
    around = tuple(b + a for a, b in zip(test_box.offset_zyx, test_box.stop_zyx, strict=True))
    for test_seed in options.test_seeds if case.test == "synthetic" else [0]:
        opened = load(case.test, options.data, test_seed, around)
        for measure, value in score(fitted, case, opened).items():
            results.add(
                measure, value, unit_of(measure, value), data=opened.data, **settings, test_seed=test_seed,
                threshold=fitted.final_threshold, min_score=fitted.min_score,
                decoding=fitted.tuned.decoding.method, seed_threshold=fitted.tuned.decoding.seed_threshold,
            )  # fmt: skip
    if options.stored is None:
        results.add("train_seconds", fitted.train_seconds, "s", data=opened.data, **settings)


def main() -> None:
    parser = common_options.parser(__doc__)
    common_options.add_sets(parser, REAL_CASES)
    common_options.add_overrides(parser)
    parser.add_argument("--steps", type=int, help="of training")
    parser.add_argument("--decoding", action="append", default=[], metavar="A=VALUE", help="settings of the decoding")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-seed", type=int, default=0, help="of the synthetic tissue S learns from")
    parser.add_argument(
        "--test-seeds", type=int, nargs="+", default=[1000], help="of the synthetic tissue it is scored on"
    )
    parser.add_argument("--test-box", help="score another box")
    parser.add_argument("--labels-box", help="learn from another box; give --val-box too")
    parser.add_argument("--val-box")
    parser.add_argument("--stored", type=Path, help="file of S: read if it exists, else written")
    options = common_options.parse(parser, full={})
    use_threads(options.threads)
    results = Results("segmentation_quality", options)
    names = common_options.chosen_sets(options, REAL_CASES)
    if options.stored and len(names) > 1:
        raise SystemExit("--stored holds one S; give one name to --sets.")
    for name in names:
        run(results, options, name)


if __name__ == "__main__":
    main()
