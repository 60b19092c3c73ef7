"""The step `suggest`: candidates by the strategy, faint ones and windows are chosen, and the ledger records them.

Knows the pool, strategies and the ledger; must not know S or how the streams are trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from twostream.base import progress
from twostream.base.errors import ProjectError
from twostream.project.project import Detail, Project
from twostream.project.records import Query, Window
from twostream.project.tables import export_queries
from twostream.project.tiles import window_shape
from twostream.query import Selection
from twostream.rounds.embed import cut_pairs
from twostream.rounds.pool import RoundPool, pool_of
from twostream.rounds.windows import draw_windows

AUDIT, FAINT = "audit", "faint"
"""What chose a query, if not the strategy."""


def suggest_step(project: Project, round_number: int) -> Detail:
    """Ask the batch of a round and write ``queries.jsonl``.

    Raises:
        ProjectError: no candidate of the pool is left to ask about.
        InputError: the strategy cannot work with this pool.
    """
    config = project.config.query
    ledger = project.ledger
    asked, windows = ledger.queries(round_number), ledger.windows(round_number)
    if asked or windows:  # the process was killed after the batch was asked
        export_queries(project, round_number)
        return _detail(project, asked, windows)
    pool = pool_of(project, round_number)
    num_askable = int((~pool.excluded & ~pool.faint).sum())
    if num_askable == 0:
        raise ProjectError(
            f"no candidate is left to ask in round {round_number}: all {len(pool.y)} of the pool are answered, "
            f"labelled, near the test box, or on padding. Stop here, or make a new project with a smaller labels or "
            f"test box."
        )
    windows = draw_windows(project, round_number)
    faint_rows = _choose_faint(project, pool)
    wanted = config.budget - len(windows) - len(faint_rows)
    if num_askable < wanted:
        progress.say(f"  {num_askable} candidates are left to ask, fewer than the budget of {wanted}: asking them all")
    batch_size = min(wanted, num_askable)
    audit_rows = _draw_audits(project, round_number, pool, batch_size)
    chosen = _choose(project, round_number, pool, audit_rows, batch_size - len(audit_rows))
    rows = [*chosen.rows.tolist(), *faint_rows.tolist(), *audit_rows.tolist()]
    reasons = [*chosen.reasons, *(_belief(pool, row) for row in faint_rows), *({} for _ in audit_rows)]
    by = [config.strategy] * len(chosen.rows) + [FAINT] * len(faint_rows) + [AUDIT] * len(audit_rows)
    candidates = [pool.candidates[row] for row in rows]
    pairs = cut_pairs(project, candidates)
    batch = [
        Query(candidate, pair, name, reason, name == AUDIT)
        for candidate, pair, reason, name in zip(candidates, pairs, reasons, by, strict=True)
    ]
    ledger.ask(round_number, batch, windows)
    export_queries(project, round_number)
    notes = {"notes": list(chosen.notes)} if chosen.notes else {}
    return _detail(project, batch, windows) | notes


def _detail(project: Project, batch: Sequence[Query], windows: Sequence[Window]) -> Detail:
    """What the ledger records of the step."""
    detail: Detail = {"num_queries": len(batch) + len(windows), "num_audits": sum(q.is_audit for q in batch)}
    if num_faint := sum(q.strategy == FAINT for q in batch):
        detail["num_faint"] = num_faint
    if windows:
        detail |= {"num_windows": len(windows), "window_shape_zyx": list(window_shape(project))}
    return detail


def _choose_faint(project: Project, pool: RoundPool) -> np.ndarray:
    """(F,) int64, faint candidates for their share of the budget: those to which the scorer gives the most."""
    config = project.config.query
    free = np.flatnonzero(pool.faint & ~pool.excluded)
    order = np.argsort(-pool.probability[free], kind="stable")
    return free[order[: round(config.faint_share * config.budget)]]


def _belief(pool: RoundPool, row: int) -> dict[str, float]:
    """The scorer's probability as part of a reason."""
    return {"probability": round(float(pool.probability[row]), 4)}


def _draw_audits(project: Project, round_number: int, pool: RoundPool, batch_size: int) -> np.ndarray:
    """(A,) int64, rows drawn at random to estimate accuracy; none if there is a test box to measure it on."""
    if project.boxes.test is not None:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(project.seed(round_number, "audit"))
    free = np.flatnonzero(~(pool.excluded | pool.faint | _asked_as(project, round_number, pool, audit=False)))
    return rng.choice(free, min(len(free), round(project.config.query.audit_share * batch_size)), replace=False)


def _choose(project: Project, round_number: int, pool: RoundPool, audit_rows: np.ndarray, batch_size: int) -> Selection:
    """What the strategy chooses beside the audits; the scorer's probability is added to each reason."""
    if batch_size == 0:
        return Selection(np.zeros(0, np.int64), np.full(len(pool.y), np.nan))
    excluded = pool.excluded | _asked_as(project, round_number, pool, audit=True)
    excluded[audit_rows] = True
    strategy = project.strategy(project.seed(round_number, "query"))
    committee = pool.ensemble(project.seed(round_number, "committee")) if strategy.needs_ensemble else None
    probability = pool.probability if committee is None else committee
    shown = np.flatnonzero(~pool.faint)  # faint candidates are not the strategy's, and must not shape its clusters
    all_shown = len(shown) == len(pool.y)
    chosen = strategy.suggest(
        {name: latents if all_shown else latents[shown] for name, latents in pool.streams.items()},
        pool.y[shown],
        batch_size=batch_size,
        probability=probability[..., shown],
        excluded=excluded[shown],
        position_nm=pool.position_nm[shown],
    )
    for note in chosen.notes:
        progress.say(f"  {note}")
    rows = shown[chosen.rows]
    reasons = [reason | _belief(pool, row) for row, reason in zip(rows, chosen.reasons, strict=True)]
    return replace(chosen, rows=rows, reasons=reasons)


def _asked_as(project: Project, round_number: int, pool: RoundPool, *, audit: bool) -> np.ndarray:
    """(N,) bool, rows that were last asked as an audit (or, with ``audit=False``, as an ordinary query).

    Those that may be asked again were skipped. They must stay what they were, because audits are a random sample.
    """
    before = {i: query.is_audit for i, query in project.ledger.newest_queries(round_number).items()}
    return np.isin(pool.ids, [identity for identity, was_audit in before.items() if was_audit is audit])
