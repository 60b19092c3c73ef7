"""Do answers make S better? S_0 against S refitted on its answers, on the same answers shuffled, and on none.

For every seed: a labelled box of at most 3 percent of the volume, S_0, its candidates outside that box and away from
the test box, --answers of them drawn at random and judged by the truth rule, then one refit for each arm:

    answers     as given
    shuffled    the same candidates and the same answers in random order; a drawing moves to its new candidate
    replay      as many steps on the labelled box alone

With --corrects a badly shaped candidate is not only called so: the true objects in its place are drawn.

All arms share S_0, the steps and the seed of the crops. With --rows, arms that the file holds are not computed again,
and the paired differences are those of all its seeds.

    python benchmarks/answers_improve.py
    python benchmarks/answers_improve.py --full --sets synthetic --seeds 1000 1001 1002 1003 1004 --rows rows.jsonl
    python benchmarks/answers_improve.py --full --data DIR --sets fafb --seeds 0 1 2 3 4 --rows rows.jsonl
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import options as common_options
from common.results import Data, Results, together
from common.sets import open_real, open_synthetic

from twostream.base.config import apply_overrides, parse_config
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, extract
from twostream.candidates.thresholds import Beliefs, CandidateConfig, LabelledBox, Thresholds, choose_thresholds
from twostream.candidates.truth import Truth
from twostream.models.segmentation.config import RefitConfig, SegmentationConfig, shapes_for
from twostream.models.segmentation.lessons import Lesson, Lessons
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter, crop_shape, new_segmenter, train
from twostream.models.training import use_threads
from twostream.query import get_strategy
from twostream.rounds.refit import refit
from twostream.rounds.score import scores_on_test_box
from twostream.rounds.teaching import LabelledCrops
from twostream.task import DecodingConfig, Task, get_task
from twostream.task.answers import MEANING, AnswerKind
from twostream.volume import MemoryVolume, Volume

ARMS = ("answers", "shuffled", "replay")
COMPARED = (("answers", "S_0"), ("answers", "shuffled"), ("answers", "replay"))
SCORES = {
    "instance_f1": "F1", "average_precision": "AP", "candidate_recall": "share", "candidate_accuracy": "share",
    "foreground_iou": "IoU",
}  # fmt: skip
MIN_OBJECTS = 10
VAL_SHARE = 0.2
FULL_TISSUE, QUICK_TISSUE = (32, 960, 1280), (16, 384, 640)
LABELS_SIDE_PX = {"fafb": 214, "synthetic": 190}
"""LabelledBox boxes of 1.5 and 2.9 percent of the full volumes."""
QUICK = (*(f"segmentation.{setting}" for setting in common_options.QUICK_S), "refit.num_steps=60")

Answer = tuple[AnswerKind, tuple[Box, np.ndarray] | None]
"""Kind of an answer, and what was drawn."""


@dataclass(frozen=True)
class World:
    """A volume with its truth.

    Attributes:
        labels_box, val_box: what S_0 is trained on, and the part of it where thresholds are chosen.
        test_box, guarded_box: where S is scored, and the box around it in which nothing is asked.
        pool_box: where candidates are asked about.
        data: what a result row says of the set.
    """

    task: Task
    image: Volume
    labels: Volume
    ignore: Volume | None
    labels_box: Box
    val_box: Box
    test_box: Box
    guarded_box: Box
    pool_box: Box
    data: Data

    def labelled(self, box: Box) -> LabelledBox:
        return LabelledBox(box, self.labels.read(box), None if self.ignore is None else self.ignore.read(box))


def make_world(options: argparse.Namespace, name: str, seed: int, decoding: DecodingConfig) -> World:
    """The world of a seed: another place of the labelled box, and on synthetic tissue another tissue.

    Args:
        options: of the command line.
        name: "fafb" or "synthetic"; synthetic tissue is of the side that its seed belongs to.
        seed: of the place, or of the tissue.
        decoding: of the task.
    """
    side_px = options.labels_side or LABELS_SIDE_PX[name]
    if name == "fafb":
        is_development = options.side == "development"
        opened = open_real(options.data, "fafb", Box((0, 0, 0), (8, 868 if is_development else 1736, 1736)))
        task = get_task("mitochondria", opened.image.voxel_size_nm, decoding)
        test_box = Box((0, 0, 1200), (8, 868, 536)) if is_development else Box((0, 868, 0), (8, 868, 1736))
        pool_box, size, guard = Box((0, 0, 0), (8, 868, 1736)), (8, side_px, side_px), (3, 160, 160)
    else:
        depth, height, width = shape = FULL_TISSUE if options.full else QUICK_TISSUE
        opened = open_synthetic(seed, shape)
        task = get_task("polarity", opened.image.voxel_size_nm, decoding)
        test_box, pool_box = Box((0, 0, 3 * width // 4), (depth, height, width // 4)), Box.whole(shape)
        size, guard = (depth, side_px, side_px), (3, 64, 64)
    guarded = test_box.grown(guard)
    rng = np.random.default_rng(seed)
    while True:  # a labelled box with enough objects to learn from
        corner = [int(rng.integers(p - s + 1)) for p, s in zip(pool_box.shape_zyx, size, strict=True)]
        labels_box = Box(tuple(corner), size)
        known = task.instances(opened.labels.read(labels_box))
        if not labels_box.intersects(guarded) and len(np.unique(known)) > MIN_OBJECTS:
            break
    width = round(VAL_SHARE * size[2])
    val_box = Box((corner[0], corner[1], corner[2] + size[2] - width), (*size[:2], width))
    return World(
        task, opened.image, opened.labels, opened.ignore, labels_box, val_box, test_box, guarded, pool_box, opened.data
    )


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
        world.image, world.labels, world.ignore, world.task, labels_boxes=[world.labels_box], val_box=world.val_box,
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


def thresholds(
    world: World,
    output: Volume,
    config: CandidateConfig,
    min_voxels: int,
    asked: Sequence[Candidate] = (),
    y: np.ndarray | None = None,
) -> Thresholds:
    """Thresholds of a round, chosen as a project chooses them."""
    believed = None
    if y is not None:  # nothing is propagated here: only what was answered is believed
        known = np.flatnonzero(~np.isnan(y))
        true = y[known]
        believed = Beliefs([asked[row] for row in known], true, int((true == 1).sum()), int((true == 0).sum()))
    return choose_thresholds(
        output, world.task, config, min_voxels, labels=[world.labelled(world.labels_box)],
        validation=world.labelled(world.val_box), believed=believed,
    )  # fmt: skip


def candidates_in(
    world: World, output: Volume, box: Box, threshold: float, min_voxels: int
) -> tuple[np.ndarray, list[Candidate]]:
    probability = output.read(box)
    segmentation = clean(world.task.decode(probability, threshold), world.task, min_voxels)
    return segmentation, extract(segmentation, probability[world.task.foreground], world.task, box.offset_zyx)


def ask(pool: Sequence[Candidate], options: argparse.Namespace, seed: int) -> list[Candidate]:
    """The candidates that a strategy asks about before any answer, with S's score as the probability."""
    score = np.array([c.score for c in pool])
    strategy = get_strategy(options.ask, random_state=seed)
    rows = strategy.query(
        np.zeros((len(pool), 1)), np.full(len(pool), np.nan), batch_size=min(options.answers, len(pool)),
        probability=score,
    )  # fmt: skip
    return [pool[i] for i in rows]


def answer(truth: Truth, candidate: Candidate, corrects: bool) -> Answer:
    """Answer of the simulated annotator and, if it corrects, its drawing."""
    kind = truth.judge(candidate).kind
    if corrects and kind is AnswerKind.SHAPE:
        return AnswerKind.CORRECTED, truth.drawing(candidate)
    return kind, None


def dealt(asked: Sequence[Candidate], answers: Sequence[Answer], order: np.ndarray) -> list[Lesson]:
    """Lessons where candidate i gets the answer to candidate ``order[i]``."""
    lessons = []
    for row, candidate in enumerate(asked):
        kind, drawing = answers[order[row]]
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


def score(world: World, truth: Truth, output: Volume, chosen: Thresholds, min_voxels: int) -> dict[str, float]:
    """Scores on the test box."""
    segmentation, candidates = candidates_in(world, output, world.test_box, chosen.threshold, min_voxels)
    whole = np.zeros(world.image.shape_zyx, np.uint32)
    whole[world.test_box.slices] = segmentation
    return scores_on_test_box(
        MemoryVolume(whole, world.image.voxel_size_nm), output, truth, {c.label: c.score for c in candidates},
        world.test_box,
        threshold=chosen.final_threshold, min_voxels=min_voxels, min_score=chosen.min_score,
    )  # fmt: skip


def run_seed(results: Results, options: argparse.Namespace, name: str, seed: int) -> World:
    """Rows of S_0 and of every arm of one seed."""
    settings = apply_overrides({}, [*(() if options.full else QUICK), *options.override])
    refitting = parse_config(RefitConfig, settings.get("refit", {}), source="--override")
    proposing = parse_config(CandidateConfig, settings.get("candidates", {}), source="--override")
    decoding = parse_config(DecodingConfig, settings.get("decoding", {}), source="--override")
    world = make_world(options, name, seed, decoding)
    shared = {"set": name, "side": options.side, "tag": options.tag}
    arms = [arm for arm in options.arms if not results.find("instance_f1", **shared, seed=seed, arm=arm)]
    has_first = bool(results.find("instance_f1", **shared, seed=seed, arm="S_0"))
    if not arms and has_first:
        return world
    chosen = settings.get("segmentation", {})
    size_nm = chosen.get("max_pixel_size_nm") or world.task.pixel_size_nm
    chosen = {**shapes_for(world.image.voxel_size_nm, size_nm), **chosen}
    config = parse_config(SegmentationConfig, chosen, source="--override")
    min_voxels = max(1, round(world.task.min_object_nm3 / float(np.prod(world.image.voxel_size_nm))))
    truth = Truth(world.labels, world.ignore, world.task)

    def add(arm: str, scores: dict[str, float], **more: object) -> None:
        for measure, unit in SCORES.items():
            results.add(
                measure, scores[measure], unit, data=world.data, **shared, seed=seed, arm=arm,
                overrides=options.override, **more,
            )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        stored = options.stored and options.stored / f"{name}-{options.side}-{seed}-{options.s0}.ckpt"
        if stored and stored.exists():
            first = Segmenter.load(stored)
        else:
            first = first_s(world, config, seed, Path(folder))
            if stored:
                stored.parent.mkdir(parents=True, exist_ok=True)
                first.save(stored)
        output = belief = predicted(world, first, config, [world.pool_box, world.test_box])
        found = thresholds(world, output, proposing, min_voxels)
        _, proposed = candidates_in(world, output, world.pool_box, found.threshold, min_voxels)
        untouchable = (world.labels_box, world.guarded_box)
        pool = [c for c in proposed if not any(c.box.intersects(box) for box in untouchable)]
        rng = np.random.default_rng([seed, 1])
        asked = ask(pool, options, seed)
        answers = [answer(truth, c, options.corrects) for c in asked]
        if not has_first:
            kinds = dict(Counter(str(kind) for kind, _ in answers))
            add("S_0", score(world, truth, output, found, min_voxels), pool=len(pool), answers=kinds)
        for arm in arms:
            order = rng.permutation(len(asked)) if arm == "shuffled" else np.arange(len(asked))
            lessons = [] if arm == "replay" else dealt(asked, answers, order)
            segmenter = copy.deepcopy(first)
            refit(
                segmenter, lessons_of(world, segmenter, config, lessons, refitting, belief),
                np.zeros(len(lessons), np.int64), config, refitting, seed=seed + 1,
                resume_path=Path(folder) / f"{arm}.resume",
            )  # fmt: skip
            output = predicted(world, segmenter, config, [world.pool_box, world.test_box])
            y = np.array([MEANING[answers[i][0]].y for i in order], float) if lessons else np.full(len(asked), np.nan)
            found = thresholds(world, output, proposing, min_voxels, asked, y)
            add(arm, score(world, truth, output, found, min_voxels), lessons=len(lessons))
    return world


def summarise(results: Results, options: argparse.Namespace, name: str, data: Data) -> None:
    """Paired differences over the seeds that have every arm, so that means and differences are of the same seeds."""
    shared = {"set": name, "side": options.side, "tag": options.tag}
    for measure, unit in SCORES.items():
        by_arm = {
            arm: {row["settings"]["seed"]: row["number"] for row in results.find(measure, **shared, arm=arm)}
            for arm in ("S_0", *options.arms)
        }
        seeds = sorted(set.intersection(*(set(values) for values in by_arm.values())))
        if results.find(f"{measure}_mean", **shared, seeds=seeds, arm="S_0"):
            continue  # summarised by an earlier run
        for arm, values in by_arm.items():
            mean = float(np.mean([values[seed] for seed in seeds]))
            results.add(f"{measure}_mean", mean, unit, data=data, **shared, seeds=seeds, arm=arm)
        for better, base in COMPARED:
            if better in by_arm and base in by_arm:
                pair = ([by_arm[arm][seed] for seed in seeds] for arm in (better, base))
                results.differences(measure, *pair, unit, data=data, **shared, seeds=seeds, arm=f"{better} - {base}")


def main() -> None:
    parser = common_options.parser(__doc__)
    common_options.add_sets(parser, ["fafb"])
    common_options.add_overrides(parser)
    parser.add_argument("--side", choices=["development", "confirmation"], default="development")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="synthetic tissue: from 1000 for confirmation"
    )
    parser.add_argument("--answers", type=int, default=30)
    parser.add_argument("--corrects", action="store_true", help="draw what is badly shaped as it should be")
    parser.add_argument("--labels-side", type=int, metavar="PX", help="side of the labelled box")
    parser.add_argument("--ask", default="random", metavar="STRATEGY", help="random, entropy")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=["answers", "shuffled"])
    parser.add_argument("--tag", default="default", help="name of these settings in the rows")
    parser.add_argument("--s0", default="default", help="name of the stored S_0, shared by tags that refit differently")
    parser.add_argument("--stored", type=Path, metavar="FOLDER", help="keeps every S_0")
    full = {"side": "confirmation", "seeds": list(range(5)), "answers": 100, "arms": list(ARMS)}
    options = common_options.parse(parser, full=full)
    use_threads(options.threads)
    results = Results("answers_improve", options)
    for name in common_options.chosen_sets(options, ["fafb"]):
        data = [run_seed(results, options, name, seed).data for seed in options.seeds]
        summarise(results, options, name, together(data))


if __name__ == "__main__":
    main()
