"""Do answers make S better? S_0 against S refitted on its answers, on the same answers shuffled, and on none.

For every seed: a labelled box of at most 3 percent of the volume, S_0, its candidates outside that box and away from
the test box, --answers of them drawn at random and judged by the truth rule, then one refit for each arm:

    answers     as given
    shuffled    the same candidates, the same answers, dealt out anew; a drawing moves to the candidate it is dealt to
    replay      as many steps on the labelled box alone

With --corrects a badly shaped candidate is not only called so: the true objects in its place are drawn.

All arms share S_0, the steps and the seed of the crops. One JSON row per seed and arm, appended to --out as it comes;
rows that are there are not computed again. --summary prints paired differences with 95 percent intervals.

    python benchmarks/answers_improve.py --data DIR --set fafb --seeds 0 1 2 3 4 --out rows.jsonl
    python benchmarks/answers_improve.py --set synthetic --seeds 1000 1001 1002 1003 1004 --out rows.jsonl
    python benchmarks/answers_improve.py --summary --out rows.jsonl
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command line does

import numpy as np
from segmentation_quality import in_memory

from twostream.base.config import apply_overrides, parse_config
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, extract
from twostream.candidates.thresholds import (
    CandidateConfig,
    final_threshold,
    mean_scores_at,
    min_score_by_answers,
    min_score_by_labels,
    proposing_threshold,
)
from twostream.candidates.truth import Truth
from twostream.models.segmentation.config import RefitConfig, SegmentationConfig, shapes_for
from twostream.models.segmentation.lessons import Lesson, Lessons
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter, crop_shape, new_segmenter, train
from twostream.models.training import use_threads
from twostream.query import get_strategy
from twostream.rounds.lessons import LabelledCrops
from twostream.rounds.refit import refit
from twostream.rounds.score import scores_on_test_box
from twostream.task import DecodingConfig, Task, get_task
from twostream.task.answers import MEANING, AnswerKind
from twostream.volume import MemoryVolume, Volume, open_ignore_mask, open_volume

ARMS = ("answers", "shuffled", "replay")
SHOWN = ("instance_f1", "average_precision", "candidate_recall", "candidate_accuracy", "foreground_iou")
MIN_OBJECTS = 10
VAL_SHARE = 0.2
TISSUE_SHAPE = (32, 960, 1280)
LABELS_SIDE_PX = {"fafb": 214, "synthetic": 190}
"""Labelled boxes of 1.5 and 2.9 percent of the volume."""


Said = tuple[AnswerKind, tuple[Box, np.ndarray] | None]
"""Kind of an answer, and what was drawn."""


@dataclass(frozen=True)
class World:
    """A volume with its truth, and where S learns, is asked and is tested."""

    task: Task
    image: Volume
    labels: Volume
    ignore: Volume | None
    labels_box: Box
    val_box: Box
    test_box: Box
    guarded_box: Box
    pool_box: Box


def make_world(name: str, data: Path, seed: int, side: str, side_px: int, decoding: DecodingConfig) -> World:
    """The world of a seed: another place for the labelled box, on synthetic tissue another tissue.

    Args:
        name: "fafb" or "synthetic".
        data: where the real sets are.
        seed: of the place, or of the tissue.
        side: "development" or "confirmation"; synthetic tissue is of the side that its seed is of.
        side_px: in plane, of the labelled box.
        decoding: of the task.
    """
    if name == "fafb":
        uri = f"{data / 'fafb_mito_8slices.h5'}:"
        volumes = [
            open_volume(uri + "image"),
            open_volume(uri + "mitochondria"),
            open_ignore_mask(uri + "mitochondria"),
        ]
        height = 868 if side == "development" else 1736
        image, labels, ignore = (in_memory(v, Box((0, 0, 0), (8, height, 1736))) for v in volumes if v is not None)
        task = get_task("mitochondria", image.voxel_size_nm, decoding)
        test_box = Box((0, 0, 1200), (8, 868, 536)) if side == "development" else Box((0, 868, 0), (8, 868, 1736))
        pool_box, size, guard = Box((0, 0, 0), (8, 868, 1736)), (8, side_px, side_px), (3, 160, 160)
    else:
        uri = f"synthetic://seed={seed}&shape={','.join(map(str, TISSUE_SHAPE))}&kind="
        image, labels = (in_memory(open_volume(uri + kind), Box.whole(TISSUE_SHAPE)) for kind in ("image", "synapses"))
        ignore, task = None, get_task("polarity", image.voxel_size_nm, decoding)
        test_box, pool_box = Box((0, 0, 960), (32, 960, 320)), Box.whole(TISSUE_SHAPE)
        size, guard = (32, side_px, side_px), (3, 64, 64)
    guarded = test_box.grown(guard)
    rng = np.random.default_rng(seed)
    while True:  # a labelled box with enough objects to learn from
        corner = [int(rng.integers(p - s + 1)) for p, s in zip(pool_box.shape_zyx, size, strict=True)]
        labels_box = Box(tuple(corner), size)
        known = task.instances(labels.read(labels_box))
        if not labels_box.intersects(guarded) and len(np.unique(known)) > MIN_OBJECTS:
            break
    width = round(VAL_SHARE * size[2])
    val_box = Box((corner[0], corner[1], corner[2] + size[2] - width), (*size[:2], width))
    return World(task, image, labels, ignore, labels_box, val_box, test_box, guarded, pool_box)


def lessons_of(
    world: World,
    segmenter: Segmenter,
    config: SegmentationConfig,
    lessons: Sequence[Lesson] = (),
    settings: RefitConfig | None = None,
    belief: Volume | None = None,
) -> Lessons:
    settings = settings or RefitConfig()
    return Lessons(
        world.image, world.labels, world.ignore, world.task, labels_box=world.labels_box, val_box=world.val_box,
        test_box=world.test_box, guarded_box=world.guarded_box, crop_shape_zyx=crop_shape(segmenter, config),
        lessons=lessons, rim_nm=settings.rim_nm, previous_probability=None if settings.hold is None else belief,
        min_confidence=settings.hold or 0.5, emphasis=settings.emphasis,
        margin_nm=settings.margin_nm,
    )  # fmt: skip


def first_s(world: World, config: SegmentationConfig, seed: int, folder: Path) -> Segmenter:
    grey = world.image.read(world.labels_box)
    segmenter = new_segmenter(
        world.task, config, voxel_size_nm=world.image.voxel_size_nm, num_sections=world.image.shape_zyx[0],
        grey=(float(grey.mean()), float(grey.std())), seed=seed,
    )  # fmt: skip
    crops = LabelledCrops(lessons_of(world, segmenter, config), config)
    train(
        segmenter, crops, config, num_steps=config.num_steps, learning_rate=config.learning_rate, seed=seed,
        resume_path=folder / "s0.resume", description="train S_0",
    )  # fmt: skip
    return segmenter


def predicted(world: World, segmenter: Segmenter, config: SegmentationConfig, regions: Sequence[Box]) -> MemoryVolume:
    shape = (len(world.task.channels), *world.image.shape_zyx)
    output = MemoryVolume(np.zeros(shape, np.uint8), world.image.voxel_size_nm)
    for region in regions:
        predict(segmenter, world.image, output, config, region=region)
    return output


@dataclass(frozen=True)
class Thresholds:
    """Of proposing and of the final segmentation, chosen as a project does."""

    propose: float
    final: float
    min_score: float


def thresholds(world: World, output: Volume, config: CandidateConfig, min_voxels: int) -> Thresholds:
    probability, known = output.read(world.labels_box), world.labels.read(world.labels_box)
    hidden = None if world.ignore is None else world.ignore.read(world.labels_box)
    threshold, _ = proposing_threshold(probability, known, hidden, world.task, config, min_voxels)
    inside = world.val_box.relative_to(world.labels_box).slices
    level, known = probability[(slice(None), *inside)], known[inside]
    hidden = None if hidden is None else hidden[inside]
    final = config.final_threshold or final_threshold(level, known, hidden, world.task)
    segmentation = clean(world.task.decode(level, final), world.task, min_voxels)
    believed = min_score_by_labels(segmentation, level[world.task.foreground], known, hidden, world.task)
    return Thresholds(threshold, final, believed)


def candidates_in(
    world: World, output: Volume, box: Box, threshold: float, min_voxels: int
) -> tuple[np.ndarray, list[Candidate]]:
    probability = output.read(box)
    segmentation = clean(world.task.decode(probability, threshold), world.task, min_voxels)
    return segmentation, extract(segmentation, probability[world.task.foreground], world.task, box.offset_zyx)


def ask(pool: Sequence[Candidate], options: argparse.Namespace, seed: int) -> list[Candidate]:
    """The candidates that a strategy asks about when nothing has been answered: S's score is all it has."""
    score = np.array([c.score for c in pool])
    strategy = get_strategy(options.ask, random_state=seed)
    rows = strategy.query(
        np.zeros((len(pool), 1)), np.full(len(pool), np.nan), batch_size=min(options.answers, len(pool)),
        probability=score,
    )  # fmt: skip
    return [pool[i] for i in rows]


def answer(truth: Truth, candidate: Candidate, corrects: bool) -> Said:
    """What the simulated annotator says and, if it corrects, draws."""
    kind = truth.judge(candidate).kind
    if corrects and kind is AnswerKind.SHAPE:
        return AnswerKind.CORRECTED, truth.drawing(candidate)
    return kind, None


def dealt(asked: Sequence[Candidate], said: Sequence[Said], order: np.ndarray) -> list[Lesson]:
    """Lessons where candidate i is told what was said of candidate ``order[i]``."""
    lessons = []
    for row, candidate in enumerate(asked):
        kind, drawing = said[order[row]]
        if drawing is not None:
            source = asked[order[row]].box
            place = [
                a + s // 2 - b - t // 2
                for a, s, b, t in zip(
                    candidate.box.offset_zyx, candidate.box.shape_zyx, source.offset_zyx, source.shape_zyx, strict=True
                )
            ]
            box, mask = drawing
            lessons.append(Lesson.corrected(candidate.box, candidate.mask, box.shifted(place), mask))
        elif MEANING[kind].teaches:
            lessons.append(Lesson(candidate.box, candidate.mask, MEANING[kind].teaches))
    return lessons


def score(
    world: World, truth: Truth, output: Volume, chosen: Thresholds, min_voxels: int, min_score: float
) -> dict[str, Any]:
    segmentation, candidates = candidates_in(world, output, world.test_box, chosen.propose, min_voxels)
    whole = np.zeros(world.image.shape_zyx, np.uint32)
    whole[world.test_box.slices] = segmentation
    scores = scores_on_test_box(
        MemoryVolume(whole, world.image.voxel_size_nm), output, truth, candidates, world.test_box,
        threshold=chosen.final, min_voxels=min_voxels, min_score=min_score,
    )  # fmt: skip
    rounded = {k: None if v != v else round(float(v), 4) for k, v in scores.items()}
    return {"threshold": chosen.propose, "final_threshold": chosen.final, "min_score": round(min_score, 3)} | rounded


def run_seed(options: argparse.Namespace, seed: int, done: set[tuple[int, str]]) -> None:
    settings = apply_overrides({}, options.override)
    refitting = parse_config(RefitConfig, settings.get("refit", {}), source="--override")
    proposing = parse_config(CandidateConfig, settings.get("candidates", {}), source="--override")
    decoding = parse_config(DecodingConfig, settings.get("decoding", {}), source="--override")
    arms = [arm for arm in options.arms if (seed, arm) not in done]
    if not arms and (seed, "S_0") in done:
        return
    side_px = options.labels_side or LABELS_SIDE_PX[options.case]
    world = make_world(options.case, options.data, seed, options.side, side_px, decoding)
    chosen = settings.get("segmentation", {})
    size_nm = chosen.get("max_pixel_size_nm") or world.task.pixel_size_nm
    chosen = {**shapes_for(world.image.voxel_size_nm, size_nm), **chosen}
    config = parse_config(SegmentationConfig, chosen, source="--override")
    min_voxels = max(1, round(world.task.min_object_nm3 / float(np.prod(world.image.voxel_size_nm))))
    truth = Truth(world.labels, world.ignore, world.task)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    row = {"name": "answers_improve", "set": options.case, "side": options.side, "tag": options.tag, "seed": seed}
    row |= {"overrides": options.override, "commit": commit.strip()}

    def write(arm: str, values: dict[str, Any]) -> None:
        if (seed, arm) not in done:
            with options.out.open("a") as handle:
                handle.write(json.dumps(row | {"arm": arm} | values) + "\n")
            print(json.dumps({"seed": seed, "arm": arm} | {k: values.get(k) for k in SHOWN}), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        stored = options.out.with_name(f"{options.out.stem}-{options.case}-{options.side}-{seed}-{options.s0}.ckpt")
        if stored.exists():
            first = Segmenter.load(stored)
        else:
            first = first_s(world, config, seed, Path(folder))
            first.save(stored)
        trained = time.monotonic() - start
        output = belief = predicted(world, first, config, [world.pool_box, world.test_box])
        found = thresholds(world, output, proposing, min_voxels)
        _, proposed = candidates_in(world, output, world.pool_box, found.propose, min_voxels)
        untouchable = (world.labels_box, world.guarded_box)
        pool = [c for c in proposed if not any(c.box.intersects(box) for box in untouchable)]
        rng = np.random.default_rng([seed, 1])
        asked = ask(pool, options, seed)
        said = [answer(truth, c, options.corrects) for c in asked]
        counts = dict(Counter(str(kind) for kind, _ in said))
        first_scores = score(world, truth, output, found, min_voxels, found.min_score)
        write("S_0", {"seconds": round(trained, 1), "pool": len(pool), "answers": counts} | first_scores)
        for arm in arms:
            order = rng.permutation(len(asked)) if arm == "shuffled" else np.arange(len(asked))
            lessons = [] if arm == "replay" else dealt(asked, said, order)
            segmenter = copy.deepcopy(first)
            start = time.monotonic()
            refit(
                segmenter, lessons_of(world, segmenter, config, lessons, refitting, belief),
                np.zeros(len(lessons), np.int64), config, refitting, seed=seed + 1,
                resume_path=Path(folder) / f"{arm}.resume",
            )  # fmt: skip
            seconds = round(time.monotonic() - start, 1)
            output = predicted(world, segmenter, config, [world.pool_box, world.test_box])
            told = np.array([MEANING[said[i][0]].y for i in order]) if lessons else np.full(len(asked), np.nan)
            found = thresholds(world, output, proposing, min_voxels)
            final, _ = candidates_in(world, output, world.pool_box, found.final, min_voxels)
            here = [replace(c, box=c.box.relative_to(world.pool_box)) for c in asked]
            now = mean_scores_at(here, final, output.read(world.pool_box)[world.task.foreground], world.task)
            believed = min_score_by_answers(np.array([c.score for c in asked]), told, now, until_then=found.min_score)
            scores = score(world, truth, output, found, min_voxels, believed)
            write(arm, {"seconds": seconds, "lessons": len(lessons)} | scores)


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Paired differences over seeds: mean and a 95 percent interval (Student's t)."""
    from scipy import stats

    lines = []
    for key in sorted({(r["set"], r["side"], r["tag"]) for r in rows}):
        mine = {(r["seed"], r["arm"]): r for r in rows if (r["set"], r["side"], r["tag"]) == key}
        arms = [arm for arm in ("S_0", *ARMS) if any(a == arm for _, a in mine)]
        # A seed that was stopped half way would move the means, not the differences.
        seeds = sorted(seed for seed, arm in mine if arm == "S_0" and all((seed, a) in mine for a in arms))
        lines.append(f"{' '.join(key)}: {len(seeds)} seeds")
        for name in SHOWN:
            means = {a: np.mean([mine[s, a][name] for s in seeds]) for a in arms}
            lines.append(f"  {name:20s} " + "  ".join(f"{a} {m:.3f}" for a, m in means.items()))
            for a, b in (("answers", "S_0"), ("answers", "shuffled"), ("answers", "replay")):
                both = [s for s in seeds if (s, a) in mine and (s, b) in mine]
                d = np.array([mine[s, a][name] - mine[s, b][name] for s in both])
                if len(d) > 1:
                    half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
                    better = f"{int((d > 0).sum())} of {len(d)} seeds better"
                    lines.append(
                        f"    {a} - {b:9s} {d.mean():+.3f} [{d.mean() - half:+.3f}, {d.mean() + half:+.3f}]  {better}"
                    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="case", choices=["fafb", "synthetic"], default="fafb")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--side", choices=["development", "confirmation"], default="confirmation")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--answers", type=int, default=100)
    parser.add_argument("--corrects", action="store_true", help="draw what is badly shaped as it should be")
    parser.add_argument("--labels-side", type=int, metavar="PX", help="side of the labelled box")
    parser.add_argument("--ask", default="random", metavar="STRATEGY", help="random, entropy")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--override", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--tag", default="default", help="name of these settings in the rows")
    parser.add_argument("--s0", default="default", help="name of the stored S_0, shared by tags that refit differently")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.summary:
        print("\n".join(summary(rows)))
        return
    use_threads(options.threads)
    key = (options.case, options.side, options.tag)
    done = {(r["seed"], r["arm"]) for r in rows if (r["set"], r["side"], r["tag"]) == key}
    for seed in options.seeds:
        run_seed(options, seed, done)


if __name__ == "__main__":
    main()
