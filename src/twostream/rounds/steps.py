"""What each step of a round does: files of the round before in, files of this round out.

    round 0   train   predict  propose  embed  score  suggest
    round r   refit   predict  propose  embed  score  suggest

Knows how the rooms below fit together; must not know in which order steps are due, nor who answers. Every step
writes under a partial name and renames, so that one that was killed is simply done again, with the same outcome.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.atomic import read_array, write_arrays, write_folder, write_text
from twostream.base.errors import ProjectError
from twostream.candidates.candidate import (
    Candidate,
    from_table,
    identify,
    read_table,
    to_table,
    write_table,
)
from twostream.candidates.patches import candidate_angle
from twostream.candidates.sources import write_probability
from twostream.candidates.truth import Truth
from twostream.models.segmentation.describe import Description, describe
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter, Training, crop_shape, new_segmenter, train
from twostream.project.exchange import export_queries
from twostream.project.ledger import Query
from twostream.project.project import Project
from twostream.query import Scorer
from twostream.query.scorer import has_both
from twostream.query.stopping import agreement, audited_right, expected_right
from twostream.rounds.embed import STREAMS, cut_pairs, embed, latents_of, learn_from_answers
from twostream.rounds.propose import brought, decoded, known_candidates, may_be_asked, sides_of
from twostream.rounds.refit import LabelledCrops, collect, lessons_of, refit, validation_crops
from twostream.rounds.score import audit_estimate, curated_accuracy, plain, scores_on_test_box
from twostream.volume import create_volume, open_volume

Detail = dict[str, Any]
POOL_NAME = "pool.npz"
"""What the scorer believed of every candidate of a round, for the next round to compare with."""
NUM_MEMBERS = 20
"""Scorers of the committee that some strategies need, and that says how surely the labels are right."""


def new_s(project: Project) -> Segmenter:
    """S as round 0 begins it: untrained, its grey values those of the labelled box."""
    grey = project.image.read(project.labelled_boxes()[0])
    return new_segmenter(
        project.task,
        project.config.segmentation,
        voxel_size_nm=project.image.voxel_size_nm,
        num_sections=project.image.shape_zyx[0],
        grey=(float(grey.mean()), float(grey.std())),
        seed=project.seed(0, "S"),
    )


def describe_training(project: Project) -> Description:
    """What `train` would do.

    Raises:
        ProjectError: nothing would be trained.
    """
    if project.config.source:
        raise ProjectError(f"no S is trained in {project.root}: a {project.config.source.name} stands in its place.")
    return describe(new_s(project), project.config.segmentation, project.image.voxel_size_nm)


def train_step(project: Project, number: int, truth: Truth | None) -> Detail:
    """Round 0: S learns from the labelled box alone -> checkpoint.ckpt. Nothing to do where a source stands for S."""
    if project.config.source:
        progress.say(f"  no S is trained: a {project.config.source.name} stands in its place")
        return _no_s(project)
    config = project.config.segmentation
    segmenter = new_s(project)
    lessons = lessons_of(project, segmenter)
    path = project.path(number, "checkpoint.ckpt")
    training = train(
        segmenter,
        LabelledCrops(lessons, config),
        config,
        num_steps=config.num_steps,
        learning_rate=config.learning_rate,
        seed=project.seed(number, "crops"),
        resume_path=path.with_suffix(".resume"),
        description="train S",
        validation=_validation(project, segmenter),
        fingerprint={"lessons": lessons.digest},
    )
    return _store(segmenter, training, path)


def _no_s(project: Project) -> Detail:
    """What the ledger remembers of a step in which S would have been trained."""
    assert project.config.source is not None
    return {"no_s": f"a {project.config.source.name} stands in place of S"}


def _validation(project: Project, segmenter: Segmenter) -> tuple[np.ndarray, np.ndarray] | None:
    """Crops of the validation box, if they are to be looked at while S is trained."""
    if not project.config.segmentation.watch.every_steps:
        return None
    val_box, test_box = project.labelled_boxes()[1], project.boxes()[2]
    return validation_crops(
        project.image,
        project.labels,
        project.labels_ignore,
        project.task,
        val_box,
        test_box,
        crop_shape(segmenter, project.config.segmentation),
    )


def _store(segmenter: Segmenter, training: Training, path: Path) -> Detail:
    """S beside what is left of its training: best weights in ``path``; the last ones in last.ckpt where they differ."""
    if training.looks:
        segmenter.save(path.with_name("last.ckpt"), weights=training.last)
    segmenter.save(path, training)
    path.with_suffix(".resume").unlink(missing_ok=True)
    best = min(training.looks, key=lambda look: look[1])[0] if training.looks else None
    return {"num_steps": len(training.losses), "final_loss": _last(training.losses), "best_step": best}


def refit_step(project: Project, number: int, truth: Truth | None) -> Detail:
    """Round r > 0: S and the unsupervised stream learn from the answers -> both checkpoints."""
    path = project.path(number, "checkpoint.ckpt")
    found, asked_in = collect(project.ledger, before_round=number)
    detail: Detail = {}
    if project.config.source:
        who = "the streams learn" if project.config.streams.learn_from_answers else "what learns is the scorer"
        progress.say(f"  no S to refit, a {project.config.source.name} stands in its place; {who}")
        detail = _no_s(project)
    elif not path.exists():
        segmenter = Segmenter.load(project.path(number - 1, "checkpoint.ckpt"))
        belief = open_volume(str(project.path(number - 1, "probability.zarr")))
        training = refit(
            segmenter,
            lessons_of(project, segmenter, found, belief),
            asked_in,
            project.config.segmentation,
            project.config.refit,
            seed=project.seed(number, "crops"),
            resume_path=path.with_suffix(".resume"),
            validation=_validation(project, segmenter),
        )
        detail = _store(segmenter, training, path)
    stream_losses = learn_from_answers(project, number)
    return {"num_lessons": len(found), "active_clustering_steps": len(stream_losses)} | detail


def predict_step(project: Project, number: int, truth: Truth | None) -> Detail:
    """S over the whole image, or the source in its place -> probability.zarr."""
    source = project.config.source
    segmenter = None if source else Segmenter.load(project.path(number, "checkpoint.ckpt"))

    def fill(path: Path) -> None:
        output = create_volume(
            str(path),
            shape_zyx=project.image.shape_zyx,
            dtype=np.uint8,
            voxel_size_nm=project.image.voxel_size_nm,
            num_channels=len(project.task.channels),
        )
        if segmenter:
            predict(segmenter, project.image, output, project.config.segmentation)
        elif source:
            write_probability(source, project.image, project.task, output)

    write_folder(project.path(number, "probability.zarr"), fill)
    return {"num_voxels": project.image.box.num_voxels}


def propose_step(project: Project, number: int, truth: Truth | None) -> Detail:
    """Probability -> segmentation.zarr and candidates.parquet, ids from the ledger.

    A source that brings instances is taken at its word: nothing is thresholded, nothing is dropped as dust.
    """
    source = project.config.source
    found = brought(project) if source and source.brings_instances else decoded(project, number)

    def fill(path: Path) -> None:
        size = project.image.voxel_size_nm
        output = create_volume(str(path), shape_zyx=found.segmentation.shape, dtype=np.uint32, voxel_size_nm=size)
        output.write(output.box, found.segmentation)

    write_folder(project.path(number, "segmentation.zarr"), fill)
    candidates = identify(found.candidates, known_candidates(project, number), project.ledger.next_id(number))
    askable = [may_be_asked(project, c) for c in candidates]
    extra: dict[str, Sequence[object]] = {
        "angle_deg": [candidate_angle(c, project.image.voxel_size_nm) for c in candidates],
        "in_pool": askable,
    }
    extra |= found.columns
    if project.task.num_sides == 2:
        extra["sides"] = [sides_of(c) for c in candidates]
    table = to_table(candidates, **extra)
    write_table(table, project.path(number, "candidates.parquet"))
    project.ledger.register(number, [c.id for c in candidates])
    if number > 0:
        # Masks travel with the candidates, so the large volumes of earlier rounds have done their work.
        for name in ("probability.zarr", "segmentation.zarr"):
            shutil.rmtree(project.path(number - 1, name), ignore_errors=True)
    first = project.ledger.next_id(number)
    detail = {"num_candidates": len(candidates), "num_new": sum(c.id >= first for c in candidates)}
    if project.task.num_sides == 2:
        alone = sum(side != "both" for side in extra["sides"])
        detail["num_without_partner"] = alone
        if alone:
            progress.say(f"  {alone} of {len(candidates)} candidates have one side only (column `sides`)")
    return detail | {"num_in_pool": sum(askable)} | found.thresholds


def embed_step(project: Project, number: int, truth: Truth | None) -> Detail:
    """Both streams see every candidate -> ids.npy and the two latents files. Round 0 trains the streams first."""
    return {"num_candidates": embed(project, number)}


@dataclass(frozen=True)
class Pool:
    """What strategies see in a round: unanswered candidates of the pool, and all answered snapshots.

    Attributes:
        candidates: (N,) rows.
        streams: {"supervised": (N, Ds), "unsupervised": (N, Du)}.
        y: (N,) 1, 0, NaN.
        excluded: (N,) bool, True where a row may not be asked.
        probability: (N,) of the shared scorer.
        score: (N,) of S, as the candidate was asked or is proposed now.
        num_voxels: (N,) int.
        position_nm: (N, 3) float, centre of the box (z, y, x).
    """

    candidates: list[Candidate]
    streams: dict[str, np.ndarray]
    y: np.ndarray
    excluded: np.ndarray
    probability: np.ndarray
    score: np.ndarray
    num_voxels: np.ndarray
    position_nm: np.ndarray

    def ensemble(self, seed: int) -> np.ndarray:
        """(M, N) probabilities by a committee of scorers."""
        scorer = Scorer(num_members=NUM_MEMBERS, random_state=seed)
        return scorer.predict_ensemble(self.streams, self.y, score=self.score, num_voxels=self.num_voxels)


def pool_of(project: Project, number: int) -> Pool:
    """The pool of round ``number`` as it stood before that round asked."""
    verdicts = project.ledger.pool()
    asked = project.ledger.newest_queries(number)
    candidates = from_table(read_table(project.path(number, "candidates.parquet")))
    # Audits estimate, they do not teach: to every strategy and scorer they are rows that may not be asked.
    snapshots = [q for i, q in asked.items() if not verdicts[i].askable]
    gone = {q.candidate.id for q in snapshots}
    rows = [i for i, c in enumerate(candidates) if may_be_asked(project, c) and c.id not in gone]
    fresh = latents_of(project, number, [q.candidate for q in snapshots], [q.patch for q in snapshots])
    streams = {}
    for name in STREAMS:
        path = project.path(number, f"latents_{name}.npy")
        latents = read_array(path)
        if len(latents) != len(candidates):
            raise ProjectError(
                f"{path} has {len(latents)} rows, and there are {len(candidates)} candidates; it was changed since "
                f"it was made. Put it back, or make a new project."
            )
        streams[name] = np.concatenate([latents[rows], fresh[name]])
    y = np.array([math.nan] * len(rows) + [math.nan if q.is_audit else verdicts[q.candidate.id].y for q in snapshots])
    members = [candidates[i] for i in rows] + [q.candidate for q in snapshots]
    excluded = np.arange(len(y)) >= len(rows)
    score = np.array([c.score for c in members])
    num_voxels = np.array([c.num_voxels for c in members])
    probability = Scorer().predict(streams, y, score=score, num_voxels=num_voxels) if len(y) else score
    corners = np.array([(c.box.offset_zyx, c.box.stop_zyx) for c in members], float).reshape(-1, 2, 3)
    position_nm = corners.mean(1) * project.image.voxel_size_nm
    return Pool(members, streams, y, excluded, probability, score, num_voxels, position_nm)


def score_step(project: Project, number: int, truth: Truth | None) -> Detail:
    """metrics.json of the round."""
    if number in project.ledger.scores():  # killed after the score was recorded
        write_text(project.path(number, "metrics.json"), json.dumps(project.ledger.scores()[number], indent=1) + "\n")
        return {}
    num_answers, seconds = project.ledger.spent()
    detail = project.ledger.finished_steps()[(number, "propose")]
    labels_only = truth is None
    metrics: dict[str, Any] = {
        "round": number,
        "num_answers": num_answers,
        "annotation_seconds": seconds,
        "num_candidates": detail["num_candidates"],
        "num_truth": None,
        "scores": {},
    }
    test_box = project.boxes()[2]
    if test_box is not None and labels_only and project.config.labels is None:
        progress.say("  the test box is not scored: there are no labels, and no --truth came")
    elif test_box is not None:
        judge = truth or Truth(project.labels, project.labels_ignore, project.task)
        scores = scores_on_test_box(
            open_volume(str(project.path(number, "segmentation.zarr"))),
            open_volume(str(project.path(number, "probability.zarr"))),
            judge,
            from_table(read_table(project.path(number, "candidates.parquet"))),
            test_box,
            threshold=detail["final_threshold"],
            min_voxels=project.min_voxels,
            min_score=detail.get("min_score", 0.0),
        )
        metrics["num_truth"] = scores.pop("num_test_truth")
        metrics["num_test_candidates"] = scores.pop("num_test_candidates")
        metrics["scores"] = scores
    pool = pool_of(project, number)
    if not labels_only:
        assert truth is not None
        y = np.where(np.isnan(pool.y) & pool.excluded, _audited(project, pool), pool.y)
        metrics["scores"]["curated_accuracy"] = curated_accuracy(pool.probability, y, truth, pool.candidates)
    if stopping := _stopping(project, number, pool):
        metrics["stopping"] = stopping
    if test_box is None:
        # Accuracy never stands alone: without a test box, recall is known only where S has learned.
        metrics["audit"] = audit_estimate(project.ledger)
        metrics["candidate_recall_on_labels"] = detail["recall_on_labels"]
    metrics = plain(metrics)
    write_text(project.path(number, "metrics.json"), json.dumps(metrics, indent=1) + "\n")
    project.ledger.store_score(number, metrics)
    return {}


def _audited(project: Project, pool: Pool) -> np.ndarray:
    """Answers of rows, audits included: in the curated set an audited candidate is an answered one."""
    verdicts = project.ledger.pool()
    return np.array([verdicts[c.id].y if c.id in verdicts else math.nan for c in pool.candidates])


def _stopping(project: Project, number: int, pool: Pool) -> Detail:
    """What can be said of whether to stop -> pool.npz; nothing in round 0, which has no answers.

    Shown, never acted on. None stands for what cannot be said: agreement, where the scorer had learned nothing in one
    of the two rounds, or as in ``stopping.agreement``; the others, where there is nothing that they could rest on.
    """
    ids, learned = np.array([c.id for c in pool.candidates], np.uint64), has_both(pool.y)
    believed = {"ids": ids, "probability": pool.probability, "learned": np.array(learned)}
    write_arrays(project.path(number, POOL_NAME), believed)
    if number == 0:
        return {}
    said: Detail = {"learned": learned, "num_pool": len(ids), "agreement": None, "num_shared": None}
    path = project.path(number - 1, POOL_NAME)
    if learned and path.exists():  # rounds of an older version left none
        with np.load(path, allow_pickle=False) as before:
            if before["learned"]:
                said["agreement"], said["num_shared"] = agreement(
                    before["ids"], before["probability"], ids, pool.probability
                )
    audits, answers = pool.excluded & np.isnan(pool.y), _audited(project, pool)
    audits &= ~np.isnan(answers)
    audited = audited_right(pool.probability[audits], answers[audits])
    said["audited"] = asdict(audited) if audited.num else None
    said["expected"] = None
    if learned and not pool.excluded.all():
        committee = pool.ensemble(project.seed(number, "committee"))[:, ~pool.excluded]
        said["expected"] = asdict(expected_right(pool.probability[~pool.excluded], committee))
    return said


def suggest_step(project: Project, number: int, truth: Truth | None) -> Detail:
    """The strategy chooses; the ledger asks -> queries.jsonl."""
    config = project.config.query
    if asked := project.ledger.queries(number):  # killed after the batch was asked
        export_queries(project, number)
        return {"num_queries": len(asked), "num_audits": sum(q.is_audit for q in asked)}
    pool = pool_of(project, number)
    num_askable = int((~pool.excluded).sum())
    if num_askable == 0:
        raise ProjectError(
            f"no candidate is left to ask in round {number}: all {len(pool.y)} of the pool are answered, "
            f"labelled, or near the test box. Make the labels or test box smaller, or stop here."
        )
    if num_askable < config.budget:
        progress.say(
            f"  {num_askable} candidates are left to ask, fewer than the budget of {config.budget}: asking them all"
        )
    batch_size = min(config.budget, num_askable)
    audits = _draw_audits(project, number, pool, batch_size)
    excluded = pool.excluded | _asked_as(project, number, pool, audit=True)
    excluded[audits] = True
    strategy = project.strategy(project.seed(number, "query"))
    queries = []
    notes: tuple[str, ...] = ()
    if batch_size > len(audits):
        committee = pool.ensemble(project.seed(number, "committee")) if strategy.needs_ensemble else None
        chosen = strategy.suggest(
            pool.streams,
            pool.y,
            batch_size=batch_size - len(audits),
            probability=pool.probability if committee is None else committee,
            excluded=excluded,
            position_nm=pool.position_nm,
        )
        notes = chosen.notes
        for note in notes:
            progress.say(f"  {note}")
        reasons = [
            r | {"probability": round(float(pool.probability[i]), 4)}
            for i, r in zip(chosen.rows, chosen.reasons, strict=True)
        ]
        queries = [(int(i), config.strategy, r, False) for i, r in zip(chosen.rows, reasons, strict=True)]
    queries += [(int(i), "audit", {}, True) for i in audits]
    chosen_candidates = [pool.candidates[i] for i, *_ in queries]
    pairs = cut_pairs(project, chosen_candidates)
    batch = [Query(c, p, s, r, a) for c, p, (_, s, r, a) in zip(chosen_candidates, pairs, queries, strict=True)]
    project.ledger.ask(number, batch)
    export_queries(project, number)
    return {"num_queries": len(batch), "num_audits": len(audits)} | ({"notes": list(notes)} if notes else {})


def _draw_audits(project: Project, number: int, pool: Pool, batch_size: int) -> np.ndarray:
    """Rows asked at random to estimate accuracy, where there is no test box to measure it on."""
    if project.boxes()[2] is not None:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(project.seed(number, "audit"))
    free = np.flatnonzero(~(pool.excluded | _asked_as(project, number, pool, audit=False)))
    return rng.choice(free, min(len(free), round(project.config.query.audit_share * batch_size)), replace=False)


def _asked_as(project: Project, number: int, pool: Pool, *, audit: bool) -> np.ndarray:
    """(N,) bool: asked before as an audit (or not), and skipped; it must not change sides."""
    before = {i: query.is_audit for i, query in project.ledger.newest_queries(number).items()}
    return np.array([before.get(c.id) is audit for c in pool.candidates], bool)


def _last(losses: Sequence[float]) -> float | None:
    """Mean of the last tenth: a single step's loss is mostly its crop."""
    return round(float(np.mean(losses[-max(1, len(losses) // 10) :])), 4) if losses else None


STEPS: dict[str, Callable[[Project, int, Truth | None], Detail]] = {
    "train": train_step,
    "refit": refit_step,
    "predict": predict_step,
    "propose": propose_step,
    "embed": embed_step,
    "score": score_step,
    "suggest": suggest_step,
}
