"""The curve of one strategy on fixed candidates: after every batch, how good the curated pool and the scorer are.

Knows strategies and the shared scorer; must not know projects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from twostream.bench.candidates import Candidates
from twostream.query import Scorer, get_strategy
from twostream.rounds.pool import NUM_MEMBERS
from twostream.task.answers import AnswerKind


def curve(
    candidates: Candidates,
    strategy: str,
    settings: Mapping[str, Any] | None = None,
    *,
    batch_size: int,
    num_rounds: int,
    seed: int,
    error_rate: float = 0.0,
) -> list[dict[str, Any]]:
    """Let a strategy ask ``num_rounds`` batches, and score what is known before the first and after each.

    Args:
        candidates: what may be asked about, with the answers, and what is held out.
        strategy: its name; ``settings`` are its own.
        batch_size: queries in each round; fewer are asked when there are no more.
        num_rounds: batches.
        seed: of the strategy, the committee and the errors.
        error_rate: probability that an answer is wrong.

    Returns:
        For each number of answers, ``round``, what was ``spent`` on them and the scores (``scores``).
    """
    rng = np.random.default_rng(seed)
    asked_about = ~candidates.is_held_out
    is_wrong = rng.random(len(candidates.y)) < error_rate
    told = np.where(is_wrong, 1 - candidates.y, candidates.y)
    kinds = np.where(is_wrong, np.where(candidates.y == 1, AnswerKind.NOTHING, AnswerKind.TRUE), candidates.answer)
    y = np.full(len(told), np.nan)
    seeds = np.random.SeedSequence(seed).generate_state(num_rounds).tolist()
    rows = []
    for number in range(num_rounds + 1):
        p = _probability(candidates, y)
        had = ~np.isnan(y)
        foreground = int(candidates.num_voxels[had & (candidates.y == 1)].sum())
        row = {"round": number} | spent(kinds[had], candidates.num_sections[had], foreground)
        rows.append(row | _coverage(candidates, had) | scores(candidates, y, p))
        if number == num_rounds or not np.isnan(y[asked_about]).any():
            return rows
        chooser = get_strategy(strategy, settings, random_state=seeds[number])
        shown = np.flatnonzero(asked_about)
        believed = _committee(candidates, y, seeds[number]) if chooser.needs_ensemble else p
        chosen = chooser.query(
            {name: array[shown] for name, array in candidates.streams.items()},
            y[shown],
            batch_size=min(batch_size, int(np.isnan(y[shown]).sum())),
            probability=believed[..., shown],
            position_nm=candidates.position_nm[shown],
        )
        y[shown[chosen]] = told[shown[chosen]]
    raise AssertionError


def spent(told: np.ndarray, num_sections: np.ndarray, foreground_voxels: int) -> dict[str, Any]:
    """What was asked about, from which costs follow.

    Args:
        told: (A,) text, kinds of the answers given.
        num_sections: (A,) sections of their objects.
        foreground_voxels: of the objects that are right, together.

    Returns:
        ``num_answers``; ``told``: {kind: number}; ``further_sections``: without the first of each object;
        ``foreground_voxels``.
    """
    kinds, counts = np.unique(told, return_counts=True)
    return {
        "num_answers": len(told),
        "told": dict(zip(kinds.tolist(), counts.tolist(), strict=True)),
        "further_sections": int((num_sections - 1).sum()),
        "foreground_voxels": foreground_voxels,
    }


def scores(candidates: Candidates, y: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """What is known of the pool, and of candidates that are never asked about.

    Args:
        candidates: N rows.
        y: (N,) answers, NaN where there is none.
        probability: (N,) of a True.

    Returns:
        ``accuracy``: share of the pool with the right label, its answer or else whether p >= 0.5.
        ``average_precision``: of the pool ranked by answer, else p. ``brier``: mean squared error of the same.
        ``held_out_accuracy``, ``held_out_auc``, ``held_out_log_loss``: of the probability of held-out candidates,
        where there are some; the AUC only where they are of both kinds.
    """
    pool, outside = ~candidates.is_held_out, candidates.is_held_out
    truth, known = candidates.y, np.where(np.isnan(y), probability, y)
    found = {
        "accuracy": float(((known >= 0.5) == truth)[pool].mean()),
        "average_precision": float(average_precision_score(truth[pool], known[pool])),
        "brier": float(((known - truth) ** 2)[pool].mean()),
    }
    if outside.any():
        found["held_out_accuracy"] = float(((probability >= 0.5) == truth)[outside].mean())
        found["held_out_log_loss"] = float(log_loss(truth[outside], probability[outside], labels=[0, 1]))
        if len(np.unique(truth[outside])) == 2:
            found["held_out_auc"] = float(roc_auc_score(truth[outside], probability[outside]))
    return found


def _coverage(candidates: Candidates, answered: np.ndarray) -> dict[str, float]:
    """``kinds_seen``: share of the kinds in the pool of which one was answered; nothing where kinds are not known."""
    if candidates.kind is None:
        return {}
    there = set(candidates.kind[~candidates.is_held_out].tolist())
    return {"kinds_seen": len(set(candidates.kind[answered].tolist())) / len(there)}


def _probability(candidates: Candidates, y: np.ndarray) -> np.ndarray:
    """(N,) by the shared scorer. Held-out candidates shape nothing that it learns."""
    probability: np.ndarray = Scorer().predict(
        candidates.streams, y, score=candidates.score, num_voxels=candidates.num_voxels, excluded=candidates.is_held_out
    )
    return probability


def _committee(candidates: Candidates, y: np.ndarray, seed: int) -> np.ndarray:
    scorer = Scorer(num_members=NUM_MEMBERS, random_state=seed)
    members: np.ndarray = scorer.predict_ensemble(
        candidates.streams, y, score=candidates.score, num_voxels=candidates.num_voxels
    )
    return members
