"""The loop as it is run: what do answers add to S, round by round?

For every set and seed one project is made and its round 0 run; every arm is a fork of it, run with a simulated
annotator. After every round S is scored on the test box, by the thresholds of its round, and on synthetic sets also on
fresh tissue that no project has seen.

    replay       S is refitted once on the labels boxes alone, for as many steps as all refits together: the control
    answers      answers, nothing propagated
    two-stream   the default
    random       the default, asking at random
    corrections  the default; badly shaped candidates are corrected by drawing
    windows      the default; a fifth of the batch are windows
    unjudged     the default, but every refit is taken
    first        the default, but every refit begins with S_0
    finish       the model that `twostream finish` makes of the last round of "two-stream", which must be run before it
    finish-drawn the same of the last round of "corrections"
    ceiling      round 0 of a project whose labels are the truth of the whole pool, with twice the steps

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import options as common_options
from common.results import Data, Results, commit, mean_interval
from common.scenes import DEMO_SETS, data_of, fresh, scene, side_of

from twostream.base.geometry import Box
from twostream.bench.recipes import RECIPES, Scene
from twostream.candidates.candidate import clean, drop_low_scores, extract
from twostream.candidates.truth import Truth
from twostream.models.segmentation.card import CARD_NAME, CHECKPOINT_NAME, FINISHED, ModelCard
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter
from twostream.models.training import use_threads
from twostream.project.create import fork_project
from twostream.project.project import CONFIG_NAME, Project
from twostream.rounds.finish import finish
from twostream.rounds.loop import open_truth, run, run_step
from twostream.rounds.predict import probability_of
from twostream.rounds.score import Region, scores_on_test_box
from twostream.volume import MemoryVolume, Volume

ARMS: dict[str, tuple[str, ...]] = {
    "replay": ("refit.use_answers=false",),
    "answers": ("refit.propagate=0",),
    "two-stream": (),
    "random": ("query.strategy=random",),
    "corrections": ("annotator.corrects=true",),
    "windows": ("query.window_share=0.2",),
    "unjudged": ("refit.judged=false",),
    "first": ("refit.start=first",),
    "finish": (),
    "finish-drawn": (),
    "ceiling": (),
}
FINISHED_ARM = {"finish": "two-stream", "finish-drawn": "corrections"}
"""{arm: the arm whose last round is finished}."""
SCORES = {
    "instance_f1": "F1", "average_precision": "AP", "foreground_iou": "IoU", "curated_accuracy": "share",
}  # fmt: skip
"""{score: unit} of the rows; the records of --raw hold all scores."""
DECIMALS = 3
"""Of rows: a test box holds some forty objects."""
MIN_SEEDS = 3
"""An interval over fewer seeds says nothing."""
THRESHOLDS = ("threshold", "final_threshold", "min_score")
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Scored:
    """An S that is scored: of a round, or the finished one.

    Attributes:
        project: gives task, settings and boxes.
        segmenter: S.
        thresholds: {name: value} of ``THRESHOLDS``.
    """

    project: Project
    segmenter: Segmenter
    thresholds: dict[str, float]

    @classmethod
    def of_round(cls, project: Project, number: int) -> Scored:
        proposed = project.ledger.finished_steps()[(number, "propose")]
        path = project.path(number, "checkpoint.ckpt")
        return cls(project, Segmenter.load(path), {name: proposed[name] for name in THRESHOLDS})

    @classmethod
    def of_finished(cls, project: Project) -> Scored:
        folder = project.root / FINISHED
        found = ModelCard.model_validate_json((folder / CARD_NAME).read_text()).thresholds
        thresholds = {name: getattr(found, name) for name in THRESHOLDS}
        return cls(project, Segmenter.load(folder / CHECKPOINT_NAME), thresholds)

    def predicted(self, image: Volume) -> MemoryVolume:
        """(C, Z, Y, X) uint8, 255 = 1."""
        shape = len(self.project.task.channels), *image.shape_zyx
        output = MemoryVolume(np.zeros(shape, np.uint8), image.voxel_size_nm)
        predict(self.segmenter, image, output, self.project.config.segmentation)
        return output

    def scores(self, probability: MemoryVolume, truth: Truth, box: Box) -> dict[str, float]:
        """Scores in a box of an image whose probability is given."""
        task, at = self.project.task, self.thresholds
        level = probability.read(probability.box)
        segmentation = clean(task.decode(level, at["threshold"]), task, self.project.min_voxels)
        candidates = extract(segmentation, level[task.foreground], task, (0, 0, 0))
        scores = scores_on_test_box(
            MemoryVolume(segmentation.astype(np.uint32), probability.voxel_size_nm), probability, truth,
            {c.label: c.score for c in candidates}, box,
            threshold=at["final_threshold"], min_voxels=self.project.min_voxels, min_score=at["min_score"],
        )  # fmt: skip
        return {name: None if value is None else round(float(value), 4) for name, value in scores.items()}

    def units(self, probability: Volume, truth: Truth) -> dict[str, Any]:
        """What the bootstrap of F1 resamples: which objects of the test box the final segmentation finds, and misses.

        Returns:
            "found": {label of a truth object: 0 or 1}; "false": number of instances that are none.
        """
        task, box = self.project.task, self.project.boxes.test
        assert box is not None
        level = probability.read(box)
        final = clean(task.decode(level, self.thresholds["final_threshold"]), task, self.project.min_voxels)
        final = drop_low_scores(final, level[task.foreground], task, self.thresholds["min_score"])
        ignore = None if truth.ignore is None else truth.ignore.read(box)
        region = Region.of(final, truth.labels.read(box), ignore, task, box, truth.labels.box)
        detection = region.detection()
        hits = {label for label in detection.truth_of.values() if label}
        return {
            "found": {str(label): int(label in hits) for label in sorted(region.truth)},
            "false": sum(label == 0 for label in detection.truth_of.values()),
        }


def rounds_of(arm: str, options: argparse.Namespace) -> list[int]:
    """The rounds of an arm. One is enough where nothing is learned from answers."""
    if arm in FINISHED_ARM:
        return [options.rounds]
    if arm == "ceiling":
        return [0]
    return list(range(1, 2 if "refit.use_answers=false" in ARMS[arm] else options.rounds + 1))


class Seed:
    """One seed of a set: its projects, and the records of their rounds.

    Args:
        options: of the command line.
        name: of the set.
        seed: of the project.
        records: of all seeds; those of this one are appended.
        folder: keeps the projects.
    """

    def __init__(
        self, options: argparse.Namespace, name: str, seed: int, records: list[dict[str, Any]], folder: Path
    ) -> None:
        self._options, self._records, self._folder, self._seed = options, records, folder, seed
        self._shared = {"set": name, "side": side_of(options, name, seed), "tag": options.tag, "seed": seed}
        self._have = {
            (row["arm"], row["round"]) for row in records if all(row[k] == v for k, v in self._shared.items())
        }
        self._name = name

    def run(self) -> None:
        """Append the records of all rounds of all arms that are not there yet."""
        arms = {arm: rounds_of(arm, self._options) for arm in self._options.arms}
        missing = {arm: rounds for arm, rounds in arms.items() if not self._have.issuperset((arm, r) for r in rounds)}
        if not missing and ("S_0", 0) in self._have:
            return
        options = self._options
        made = scene(options, self._name, self._seed, self._folder)
        base = made.project(self._folder / "base", self._seed, options.override)
        use_threads(base.config.num_threads)
        run(base, rounds=0, truth_uri=made.labels)
        self._truth, self._fresh = open_truth(base, made.labels), None
        if (opened := fresh(options, self._name, self._seed)) is not None:
            self._fresh = opened.image, Truth(opened.labels, None, base.task)
        self._add("S_0", base, 0)
        for arm, rounds in missing.items():
            if arm in FINISHED_ARM or arm == "ceiling":
                scored = self._ceiling(base, made) if arm == "ceiling" else self._finished(arm, made)
                probability, box = scored.predicted(base.image), base.boxes.test
                assert box is not None
                scores, units = scored.scores(probability, self._truth, box), scored.units(probability, self._truth)
                self._append(arm, rounds[0], scored, {"scores": scores, "units": units})
            else:
                self._loop(arm, rounds, base, made)

    def _loop(self, arm: str, rounds: list[int], base: Project, made: Scene) -> None:
        root = self._folder / arm
        if not (root / CONFIG_NAME).exists():
            settings = list(ARMS[arm])
            if arm == "replay":
                settings.append(f"refit.num_steps={self._options.rounds * base.config.refit.num_steps}")
            fork_project(base, root, settings)
        project = Project(root)
        for number in rounds:  # one at a time: only the newest round keeps its probability
            run(project, rounds=number, truth_uri=made.labels)
            self._add(arm, project, number)

    def _ceiling(self, base: Project, made: Scene) -> Scored:
        """S of a project with the truth of the whole pool as labels."""
        (depth, height, _), guarded = base.image.shape_zyx, base.guarded_box
        assert guarded is not None
        pool = Box((0, 0, 0), (depth, height, guarded.offset_zyx[2]))  # all test boxes lie at the right
        taught = replace(made, labels_box=str(pool), test_box=str(base.boxes.test))
        steps = f"segmentation.num_steps={2 * base.config.segmentation.num_steps}"
        project = taught.project(self._folder / "ceiling", self._seed, [*self._options.override, steps])
        for step in ("train", "predict", "propose"):  # there is nothing left to ask about, so no streams
            run_step(project, step)
        return Scored.of_round(project, 0)

    def _finished(self, arm: str, made: Scene) -> Scored:
        project = Project(self._folder / FINISHED_ARM[arm])
        if not (project.root / FINISHED).exists():
            finish(project, truth_uri=made.labels)
        return Scored.of_finished(project)

    def _add(self, arm: str, project: Project, number: int) -> None:
        """Record a scored round."""
        if (arm, number) in self._have:
            return
        metrics, steps = project.ledger.scores()[number], project.ledger.finished_steps()
        scored = Scored.of_round(project, number)
        self._append(arm, number, scored, {
            "num_answers": metrics["num_answers"], "num_truth": metrics["num_truth"], "scores": metrics["scores"],
            "units": scored.units(probability_of(project, number), self._truth),
            "refit": steps.get((number, "refit"), {}).get("judged"),
            "seconds": {s: round(d["seconds"], 1) for (r, s), d in steps.items() if r == number},
        })  # fmt: skip

    def _append(self, arm: str, number: int, scored: Scored, found: dict[str, Any]) -> None:
        named = {"arm": arm, "round": number, "commit": commit(), "thresholds": scored.thresholds}
        record = self._shared | named | found
        if self._fresh:
            image, truth = self._fresh
            record["fresh"] = scored.scores(scored.predicted(image), truth, image.box)
        self._records.append(record)
        self._have.add((arm, number))
        if self._options.raw:
            with self._options.raw.open("a") as file:
                file.write(json.dumps(record) + "\n")


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
            # A finished model and a ceiling have no pool that could be curated.
            values = {key: found for key, found in values.items() if not np.isnan(found).any()}
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
            scored = [arm for arm in options.arms if (arm, last[arm]) in values]
            for arm in scored:
                end, start = values[(arm, last[arm])], values[("S_0", 0)]
                for base in ("S_0", *(a for a in ("replay", "random") if a in scored and a != arm)):
                    gain = end - values[(base, last[base])]
                    add_gain(results, score, gain, unit, data, shared | {"where": where}, f"{arm} - {base}")
                if "ceiling" in scored and arm != "ceiling":
                    reached = np.mean(end - start) / np.mean(values[("ceiling", 0)] - start)
                    results.add(
                        f"{score}_gap_closed", round(float(reached), 2), "share of ceiling - S_0", data=data, **shared,
                        where=where, run=arm,
                    )  # fmt: skip
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
    parser.add_argument("--sets", nargs="+", choices=[*DEMO_SETS, *RECIPES], default=["demo-polarity"])
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
                Seed(options, name, seed, records, folder).run()
        if not options.only_raw:
            summarise(results, options, name, records)


if __name__ == "__main__":
    main()
