"""The loop as it is run: what do answers add to S, round by round?

For every set and seed one project is made and its round 0 run; every arm is a fork of it, run with a simulated
annotator. After every round S is scored on the test box, by the thresholds of its round, and on synthetic sets also on
fresh tissue that no project has seen.

    replay       the default, but S is refitted on the labels boxes alone, for as many steps: the control
    answers      answers, nothing propagated
    two-stream   the default
    random       the default, asking at random
    corrections  the default; badly shaped candidates are corrected by drawing
    windows      the default; a fifth of the batch are windows
    before       refits as they were: a chain, never judged, 400 steps, nothing propagated

Every scored round is appended to --raw at once, and is not computed again; projects are kept in --stored, so that a
killed run goes on where it was. Rows are means over seeds, with paired differences.

    python benchmarks/answers_pay.py
    python benchmarks/answers_pay.py --full --sets demo-polarity demo-mitochondria --seeds 0 1 2 --stored DIR --raw FILE
    python benchmarks/answers_pay.py --full --data DIR --sets fafb --seeds 0 1 2 --stored DIR --raw FILE
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from common import options as common_options
from common.results import Data, Results, commit, file_data, mean_interval
from common.sets import REAL_SETS, Opened, open_real, open_synthetic

from twostream.base.geometry import Box
from twostream.candidates.candidate import clean, drop_low_scores, extract
from twostream.candidates.truth import Truth
from twostream.demo import COMMON, SCENES, write_tissue
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter
from twostream.models.training import use_threads
from twostream.project.create import create_project, fork_project
from twostream.project.project import CONFIG_NAME, Project
from twostream.rounds.loop import open_truth, run
from twostream.rounds.predict import probability_of
from twostream.rounds.score import Region, scores_on_test_box
from twostream.task import DecodingConfig, get_task
from twostream.volume import MemoryVolume, Volume

ARMS: dict[str, tuple[str, ...]] = {
    "replay": ("refit.use_answers=false",),
    "answers": ("refit.propagate=0",),
    "two-stream": (),
    "random": ("query.strategy=random",),
    "corrections": ("annotator.corrects=true",),
    "windows": ("query.window_share=0.2",),
    "before": ("refit.start=warm", "refit.judged=false", "refit.propagate=0", "refit.num_steps=400"),
}
SCORES = {
    "instance_f1": "F1", "average_precision": "AP", "foreground_iou": "IoU", "curated_accuracy": "share",
}  # fmt: skip
"""{score: unit} of the rows; the records of --raw hold all scores."""
DECIMALS = 3
"""Of rows: a test box holds some forty objects."""
MIN_SEEDS = 3
"""An interval over fewer seeds says nothing."""
THRESHOLDS = ("threshold", "final_threshold", "min_score")
DEMO_SETS = tuple(f"demo-{task}" for task in SCENES)
TISSUE = (32, 480, 800)
FAFB_HALF = 868
"""Rows of the development half; the confirmation half has as many."""
BUDGETS = {"fafb": 50, "synthetic": 25, "vnc-cleft": 20, "epfl": 5}
LABELS_SIDE_PX = {"fafb": 214, "synthetic": 190, "vnc-cleft": 460, "epfl": 230}
"""Side of the labels box, which holds all sections."""
MIN_OBJECTS, GUARD_PX = 10, 64
FRESH_SHAPE = (32, 448, 640)
"""Fresh tissue of a demonstration scene: at least 160 synapses, or mitochondria, in each."""
FRESH_SEED = 500
"""Added to the seed of a project, for tissue that it has not seen; below 1000 it stays development tissue."""
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Scene:
    """How a project of one set is made.

    Attributes:
        task: name of the task.
        image, labels: URIs.
        labels_box, test_box: as texts; None takes the default.
        budget: answers per round.
        overrides: settings.
        fresh: synthetic labels and seed of fresh tissue; None without.
    """

    task: str
    image: str
    labels: str
    labels_box: str
    test_box: str | None
    budget: int
    overrides: tuple[str, ...]
    fresh: tuple[str, int] | None


def scene_of(options: argparse.Namespace, name: str, seed: int, folder: Path) -> Scene:
    """The scene of a set and seed; tissue is written into ``folder``."""
    if name.startswith("demo-"):
        task = name.removeprefix("demo-")
        demo = SCENES[task]
        uris = [write_tissue(folder, kind, seed, demo.shape_zyx) for kind in ("image", demo.labels)]
        fresh_seed = seed + FRESH_SEED if seed < 1000 else seed + 10 * FRESH_SEED
        return Scene(
            task, *uris, demo.labels_box, None, demo.budget, demo.overrides,
            (demo.labels, fresh_seed),
        )  # fmt: skip
    task = "polarity" if name == "synthetic" else REAL_SETS[name].task
    source = folder / "volume.h5"
    opened = opened_of(options, name, seed)
    if not source.exists():
        write_file(source, opened)
    labels_box, test_box = boxes_of(name, seed, opened, task)
    settings = COMMON if name == "synthetic" else ("num_threads=1",)
    fresh = ("synapses", seed + FRESH_SEED if seed < 1000 else seed + 10 * FRESH_SEED) if name == "synthetic" else None
    return Scene(
        task, f"{source}:image", f"{source}:labels", str(labels_box), test_box and str(test_box), BUDGETS[name],
        settings, fresh,
    )  # fmt: skip


def opened_of(options: argparse.Namespace, name: str, seed: int) -> Opened:
    """The volumes of a set: the side of FAFB that --side names, the tissue of a seed, or all of the others."""
    if name == "synthetic":
        return open_synthetic(seed, TISSUE if options.full else (16, 256, 384))
    half = Box((0, 0 if options.side == "development" else FAFB_HALF, 0), (8, FAFB_HALF, 1736))
    return open_real(options.data, name, half if name == "fafb" else None)


def write_file(path: Path, opened: Opened) -> None:
    """The volumes of a set as one HDF5 file, which a project reads as it reads any other."""
    partial = path.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        file.attrs["voxel_size_nm"] = opened.image.voxel_size_nm
        for key, volume in (("image", opened.image), ("labels", opened.labels), ("labels_ignore", opened.ignore)):
            if volume is not None:
                file.create_dataset(key, data=volume.read(volume.box), compression="gzip", chunks=True)
    partial.rename(path)


def boxes_of(name: str, seed: int, opened: Opened, task_name: str) -> tuple[Box, Box | None]:
    """A labels box with at least ``MIN_OBJECTS`` objects, at a place that the seed draws, and the test box."""
    depth, height, width = opened.image.shape_zyx
    test_box = Box((0, 0, width - width // 3), (depth, height, width // 3))
    side = LABELS_SIDE_PX[name]
    task = get_task(task_name, opened.image.voxel_size_nm, DecodingConfig())
    rng = np.random.default_rng(seed)
    while True:
        corner = (
            0,
            int(rng.integers(0, height - side + 1)),
            int(rng.integers(0, width - width // 3 - side - GUARD_PX)),
        )
        labels_box = Box(corner, (depth, side, side))
        if len(np.unique(task.instances(opened.labels.read(labels_box)))) > MIN_OBJECTS:
            return labels_box, test_box
        side = min(side + 2, height)


def data_of(name: str, seeds: Sequence[int], folder: Path | None) -> Data:
    """What a row says of a set."""
    if name in REAL_SETS:
        assert folder is not None
        return file_data(folder / REAL_SETS[name].file)
    shape = ",".join(map(str, SCENES[name.removeprefix("demo-")].shape_zyx if name in DEMO_SETS else TISSUE))
    named = ",".join(map(str, seeds))
    called = f"demonstration, {name.removeprefix('demo-')}" if name in DEMO_SETS else "synthetic tissue, synapses"
    return Data(called, f"synthetic://seed={named}&shape={shape}")


def side_of(options: argparse.Namespace, name: str, seed: int) -> str:
    """Whether methods may be chosen on this seed of a set."""
    if name in ("synthetic", *DEMO_SETS):
        return "development" if seed < 1000 else "confirmation"
    return options.side if name == "fafb" else "confirmation"


def project_of(scene: Scene, root: Path, seed: int, more: Sequence[str]) -> Project:
    """The project whose round 0 all arms share, made unless it is there."""
    if (root / CONFIG_NAME).exists():
        return Project(root)
    return create_project(
        root, task=scene.task, image=scene.image, labels=scene.labels, labels_box=scene.labels_box,
        test_box=scene.test_box, seed=seed, budget=scene.budget, overrides=(*scene.overrides, *more),
    )  # fmt: skip


def unit_counts(project: Project, round_number: int, truth: Truth) -> dict[str, Any]:
    """What the bootstrap of F1 resamples: which objects of the test box the final segmentation finds, and its misses.

    Returns:
        "found": {label of a truth object: 0 or 1}; "false": number of instances that are none.
    """
    proposed = project.ledger.finished_steps()[(round_number, "propose")]
    box = project.boxes.test
    assert box is not None
    level = probability_of(project, round_number).read(box)
    task = project.task
    final = clean(task.decode(level, proposed["final_threshold"]), task, project.min_voxels)
    final = drop_low_scores(final, level[task.foreground], task, proposed["min_score"])
    ignore = None if truth.ignore is None else truth.ignore.read(box)
    region = Region.of(final, truth.labels.read(box), ignore, task, box, truth.labels.box)
    detection = region.detection()
    hits = {label for label in detection.truth_of.values() if label}
    return {
        "found": {str(label): int(label in hits) for label in sorted(region.truth)},
        "false": sum(label == 0 for label in detection.truth_of.values()),
    }


def fresh_scores(project: Project, round_number: int, fresh: tuple[Volume, Volume]) -> dict[str, float]:
    """Scores of S of a round on tissue that the project has not seen, by the thresholds of the round."""
    image, labels = fresh
    task = project.task
    proposed = project.ledger.finished_steps()[(round_number, "propose")]
    segmenter = Segmenter.load(project.path(round_number, "checkpoint.ckpt"))
    output = MemoryVolume(np.zeros((len(task.channels), *image.shape_zyx), np.uint8), image.voxel_size_nm)
    predict(segmenter, image, output, project.config.segmentation)
    level = output.read(output.box)
    segmentation = clean(task.decode(level, proposed["threshold"]), task, project.min_voxels)
    candidates = extract(segmentation, level[task.foreground], task, (0, 0, 0))
    return scores_on_test_box(
        MemoryVolume(segmentation.astype(np.uint32), image.voxel_size_nm), output, Truth(labels, None, task),
        candidates, image.box, threshold=proposed["final_threshold"], min_voxels=project.min_voxels,
        min_score=proposed["min_score"],
    )  # fmt: skip


def rounds_of(arm: str, options: argparse.Namespace) -> list[int]:
    """The rounds of an arm. One is enough where every refit begins with round 0 and learns nothing from answers."""
    return list(range(1, 2 if "refit.use_answers=false" in ARMS[arm] else options.rounds + 1))


def run_seed(options: argparse.Namespace, name: str, seed: int, records: list[dict[str, Any]], folder: Path) -> None:
    """Append the records of all rounds of all arms of one seed."""
    shared = {"set": name, "side": side_of(options, name, seed), "tag": options.tag, "seed": seed}
    wanted = [(arm, r) for arm in options.arms for r in rounds_of(arm, options)] + [("S_0", 0)]
    have = {(row["arm"], row["round"]) for row in records if all(row[k] == v for k, v in shared.items())}
    if have.issuperset(wanted):
        return
    scene = scene_of(options, name, seed, folder)
    base = project_of(scene, folder / "base", seed, options.override)
    use_threads(base.config.num_threads)
    run(base, rounds=0, truth_uri=scene.labels)
    truth = open_truth(base, scene.labels)
    fresh = None
    if scene.fresh:
        opened = open_synthetic(scene.fresh[1], FRESH_SHAPE if options.full else (16, 256, 256), scene.fresh[0])
        fresh = opened.image, opened.labels

    def add(arm: str, project: Project, round_number: int) -> None:
        if (arm, round_number) in have:
            return
        metrics = project.ledger.scores()[round_number]
        steps = project.ledger.finished_steps()
        record = shared | {
            "arm": arm, "round": round_number, "commit": commit(), "num_answers": metrics["num_answers"],
            "num_truth": metrics["num_truth"], "scores": metrics["scores"],
            "thresholds": {name: steps[(round_number, "propose")][name] for name in THRESHOLDS},
            "units": unit_counts(project, round_number, truth),
            "refit": steps.get((round_number, "refit"), {}).get("judged"),
            "seconds": {s: round(d["seconds"], 1) for (r, s), d in steps.items() if r == round_number},
        }  # fmt: skip
        if fresh:
            record["fresh"] = {k: round(float(v), 4) for k, v in fresh_scores(project, round_number, fresh).items()}
        records.append(record)
        if options.raw:
            with options.raw.open("a") as file:
                file.write(json.dumps(record) + "\n")

    add("S_0", base, 0)
    for arm in options.arms:
        if have.issuperset((arm, r) for r in rounds_of(arm, options)):
            continue
        root = folder / arm
        if not (root / CONFIG_NAME).exists():
            fork_project(base, root, list(ARMS[arm]))
        project = Project(root)
        for number in rounds_of(arm, options):  # one at a time: only the newest round keeps its probability
            run(project, rounds=number, truth_uri=scene.labels)
            add(arm, project, number)


def f1_difference(first: dict[str, Any], last: dict[str, Any], rng: np.random.Generator) -> tuple[float, float, float]:
    """F1 of the last round minus that of round 0 on one test box, with a bootstrap interval over objects.

    Truth objects are resampled in pairs, false instances of each round as independent Poisson counts.

    Returns:
        Difference, and the 2.5 and 97.5 percent points of the resampled differences.
    """
    labels = sorted(first["found"])
    before, after = (np.array([units["found"][label] for label in labels], float) for units in (first, last))

    def f1(found: np.ndarray, false: np.ndarray) -> np.ndarray:
        hits = found.sum(-1)
        return 2 * hits / np.maximum(hits + false + found.shape[-1], 1)

    rows = rng.integers(len(labels), size=(NUM_RESAMPLES, len(labels)))
    false_before, false_after = (rng.poisson(units["false"], NUM_RESAMPLES) for units in (first, last))
    drawn = f1(after[rows], false_after) - f1(before[rows], false_before)
    exact = f1(after, np.array(last["false"])) - f1(before, np.array(first["false"]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(exact), float(low), float(high)


def value_of(record: dict[str, Any], score: str, where: str) -> float:
    """A score of one round on the test box or on fresh tissue; NaN if it has none."""
    found = record["scores"] if where == "test box" else record.get("fresh", {})
    value = found.get(score)
    return float("nan") if value is None else float(value)


def summarise(results: Results, options: argparse.Namespace, name: str, records: Sequence[dict[str, Any]]) -> None:
    """Means of every arm and round, and paired differences of the last rounds, over the seeds that have every arm."""
    sides = {side_of(options, name, seed) for seed in options.seeds}
    if len(sides) > 1:
        raise SystemExit(f"--seeds of {name} mixes development and confirmation; summarise them apart.")
    side = sides.pop()
    rows = [
        r
        for r in records
        if (r["set"], r["side"], r["tag"]) == (name, side, options.tag) and r["seed"] in options.seeds
    ]
    at = {(r["seed"], r["arm"], r["round"]): r for r in rows}
    last = {arm: rounds_of(arm, options)[-1] for arm in options.arms} | {"S_0": 0}
    seeds = [
        s
        for s in options.seeds
        if all((s, arm, r) in at for arm in options.arms for r in rounds_of(arm, options)) and (s, "S_0", 0) in at
    ]
    if not seeds:
        return
    data = data_of(name, seeds, options.data)
    shared = {"set": name, "side": side, "tag": options.tag, "num_seeds": len(seeds)}
    for where in ("test box", *(["fresh tissue"] if "fresh" in at[(seeds[0], "S_0", 0)] else [])):
        for score, unit in SCORES.items():
            if all(np.isnan(value_of(at[(s, "S_0", 0)], score, where)) for s in seeds):
                continue
            values = {
                (arm, number): np.array([value_of(at[(s, arm, number)], score, where) for s in seeds])
                for arm, number in [("S_0", 0), *((a, r) for a in options.arms for r in rounds_of(a, options))]
            }
            for (arm, number), found in values.items():
                mean, low, high = mean_interval(found)
                enough = {
                    "spread": [round(low, DECIMALS), round(high, DECIMALS)],
                    "spread_is": f"95 percent, Student's t over {len(seeds)} seeds",
                }
                results.add(
                    score, round(mean, DECIMALS), unit, data=data, **shared, where=where, run=arm, round=number,
                    **(enough if len(seeds) >= MIN_SEEDS else {}),
                )  # fmt: skip
            for arm in options.arms:
                for base in ("S_0", *(a for a in ("replay", "random") if a in options.arms and a != arm)):
                    better, reference = (values[(one, last[one])] for one in (arm, base))
                    add_gain(
                        results, score, better - reference, unit, data, shared | {"where": where}, f"{arm} - {base}"
                    )
    rng = np.random.default_rng(0)
    for arm in options.arms:
        falls = 0
        for s in seeds:
            _, _, high = f1_difference(at[(s, "S_0", 0)]["units"], at[(s, arm, last[arm])]["units"], rng)
            falls += high < 0
        results.add("seeds_that_fall", falls, f"of {len(seeds)}", data=data, **shared, compared=f"{arm} - S_0")


def add_gain(
    results: Results, score: str, gain: np.ndarray, unit: str, data: Data, shared: dict[str, Any], compared: str
) -> None:
    """Mean paired difference over seeds, with its interval where there are enough of them."""
    mean, low, high = mean_interval(gain)
    enough = {
        "spread": [round(low, DECIMALS), round(high, DECIMALS)],
        "spread_is": f"95 percent, Student's t over {len(gain)} seeds",
    }
    results.add(
        f"{score}_gain", round(mean, DECIMALS), f"{unit} difference", data=data, **shared, compared=compared,
        **(enough if len(gain) >= MIN_SEEDS else {}),
    )  # fmt: skip


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=[*DEMO_SETS, *BUDGETS], default=["demo-polarity"])
    parser.add_argument("--side", choices=["development", "confirmation"], default="development", help="of FAFB")
    common_options.add_overrides(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", default=["replay", "two-stream"])
    parser.add_argument(
        "--vary", action="append", nargs="+", default=[], metavar=("NAME", "A.B=VALUE"), help="one more arm"
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tag", default="default", help="name of these settings in the rows")
    parser.add_argument("--raw", type=Path, metavar="FILE", help="keeps a record of every scored round")
    parser.add_argument("--stored", type=Path, metavar="FOLDER", help="keeps every project")
    parser.add_argument("--only-raw", action="store_true", help="no summary")
    options = common_options.parse(parser, full={"rounds": 3, "arms": ["replay", "two-stream", "random"]})
    if not options.full:
        options.override = [
            "segmentation.num_steps=60", "refit.num_steps=30", "streams.supervised.num_steps=20",
            "streams.unsupervised.num_steps=20", "streams.active_clustering.num_steps=5", *options.override,
        ]  # fmt: skip
    for arm, *settings in options.vary:
        ARMS[arm] = tuple(settings)
        options.arms.append(arm)
    results = Results("answers_pay", options)
    records = (
        [json.loads(line) for line in options.raw.read_text().splitlines()]
        if (options.raw and options.raw.exists())
        else []
    )
    for name in options.sets:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as temporary:
                side = side_of(options, name, seed)
                folder = (options.stored or Path(temporary)) / f"{name}-{side}-{options.tag}-{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                run_seed(options, name, seed, records, folder)
        if not options.only_raw:
            summarise(results, options, name, records)


if __name__ == "__main__":
    main()
