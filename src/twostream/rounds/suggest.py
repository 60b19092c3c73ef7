"""The step `suggest`: the strategy chooses a batch of candidates, and the ledger records them as queries.

Knows the pool, strategies and the ledger; must not know S or how the streams are trained.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from twostream.base import progress
from twostream.base.errors import ProjectError
from twostream.project.project import Detail, Project
from twostream.project.records import Query
from twostream.project.tables import export_queries
from twostream.query import Selection
from twostream.rounds.embed import cut_pairs
from twostream.rounds.pool import RoundPool, pool_of


def suggest_step(project: Project, round_number: int) -> Detail:
    """Ask the batch of a round and write ``queries.jsonl``.

    Raises:
        ProjectError: no candidate of the pool is left to ask about.
        InputError: the strategy cannot work with this pool.
    """
    config = project.config.query
    if asked := project.ledger.queries(round_number):  # the process was killed after the batch was asked
        export_queries(project, round_number)
        return {"num_queries": len(asked), "num_audits": sum(q.is_audit for q in asked)}
    pool = pool_of(project, round_number)
    num_askable = int((~pool.excluded).sum())
    if num_askable == 0:
        raise ProjectError(
            f"no candidate is left to ask in round {round_number}: all {len(pool.y)} of the pool are answered, "
            f"labelled, near the test box, or on padding. Stop here, or make a new project with a smaller labels or "
            f"test box."
        )
    if num_askable < config.budget:
        progress.say(
            f"  {num_askable} candidates are left to ask, fewer than the budget of {config.budget}: asking them all"
        )
    batch_size = min(config.budget, num_askable)
    audit_rows = _draw_audits(project, round_number, pool, batch_size)
    chosen = _choose(project, round_number, pool, audit_rows, batch_size - len(audit_rows))
    rows = [*chosen.rows.tolist(), *audit_rows.tolist()]
    reasons = [*chosen.reasons, *({} for _ in audit_rows)]
    audits = [False] * len(chosen.rows) + [True] * len(audit_rows)
    candidates = [pool.candidates[row] for row in rows]
    pairs = cut_pairs(project, candidates)
    batch = [
        Query(candidate, pair, "audit" if is_audit else config.strategy, reason, is_audit)
        for candidate, pair, reason, is_audit in zip(candidates, pairs, reasons, audits, strict=True)
    ]
    project.ledger.ask(round_number, batch)
    export_queries(project, round_number)
    notes = {"notes": list(chosen.notes)} if chosen.notes else {}
    return {"num_queries": len(batch), "num_audits": len(audit_rows)} | notes


def _draw_audits(project: Project, round_number: int, pool: RoundPool, batch_size: int) -> np.ndarray:
    """(A,) int64, rows drawn at random to estimate accuracy; none if there is a test box to measure it on."""
    if project.boxes.test is not None:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(project.seed(round_number, "audit"))
    free = np.flatnonzero(~(pool.excluded | _asked_as(project, round_number, pool, audit=False)))
    return rng.choice(free, min(len(free), round(project.config.query.audit_share * batch_size)), replace=False)


def _choose(project: Project, round_number: int, pool: RoundPool, audit_rows: np.ndarray, batch_size: int) -> Selection:
    """What the strategy chooses beside the audits; the scorer's probability is added to each reason."""
    if batch_size == 0:
        return Selection(np.zeros(0, np.int64), np.full(len(pool.y), np.nan))
    excluded = pool.excluded | _asked_as(project, round_number, pool, audit=True)
    excluded[audit_rows] = True
    strategy = project.strategy(project.seed(round_number, "query"))
    committee = pool.ensemble(project.seed(round_number, "committee")) if strategy.needs_ensemble else None
    chosen = strategy.suggest(
        pool.streams,
        pool.y,
        batch_size=batch_size,
        probability=pool.probability if committee is None else committee,
        excluded=excluded,
        position_nm=pool.position_nm,
    )
    for note in chosen.notes:
        progress.say(f"  {note}")
    reasons = [
        reason | {"probability": round(float(pool.probability[row]), 4)}
        for row, reason in zip(chosen.rows, chosen.reasons, strict=True)
    ]
    return replace(chosen, reasons=reasons)


def _asked_as(project: Project, round_number: int, pool: RoundPool, *, audit: bool) -> np.ndarray:
    """(N,) bool, rows that were last asked as an audit (or, with ``audit=False``, as an ordinary query).

    Those that may be asked again were skipped. They must stay what they were, because audits are a random sample.
    """
    before = {i: query.is_audit for i, query in project.ledger.newest_queries(round_number).items()}
    return np.array([before.get(c.id) is audit for c in pool.candidates], bool)
