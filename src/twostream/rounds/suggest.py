"""The strategy chooses, and the ledger asks."""

from __future__ import annotations

import numpy as np

from twostream.base import progress
from twostream.base.errors import ProjectError
from twostream.project.project import Detail, Project
from twostream.project.records import Query
from twostream.project.tables import export_queries
from twostream.rounds.embed import cut_pairs
from twostream.rounds.pool import RoundPool, pool_of


def suggest_step(project: Project, round_number: int) -> Detail:
    """The strategy chooses; the ledger asks -> queries.jsonl."""
    config = project.config.query
    if asked := project.ledger.queries(round_number):  # killed after the batch was asked
        export_queries(project, round_number)
        return {"num_queries": len(asked), "num_audits": sum(q.is_audit for q in asked)}
    pool = pool_of(project, round_number)
    num_askable = int((~pool.excluded).sum())
    if num_askable == 0:
        raise ProjectError(
            f"no candidate is left to ask in round {round_number}: all {len(pool.y)} of the pool are answered, "
            f"labelled, or near the test box. Make the labels or test box smaller, or stop here."
        )
    if num_askable < config.budget:
        progress.say(
            f"  {num_askable} candidates are left to ask, fewer than the budget of {config.budget}: asking them all"
        )
    batch_size = min(config.budget, num_askable)
    audits = _draw_audits(project, round_number, pool, batch_size)
    excluded = pool.excluded | _asked_as(project, round_number, pool, audit=True)
    excluded[audits] = True
    strategy = project.strategy(project.seed(round_number, "query"))
    queries = []
    notes: tuple[str, ...] = ()
    if batch_size > len(audits):
        committee = pool.ensemble(project.seed(round_number, "committee")) if strategy.needs_ensemble else None
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
    project.ledger.ask(round_number, batch)
    export_queries(project, round_number)
    return {"num_queries": len(batch), "num_audits": len(audits)} | ({"notes": list(notes)} if notes else {})


def _draw_audits(project: Project, round_number: int, pool: RoundPool, batch_size: int) -> np.ndarray:
    """Rows asked at random to estimate accuracy, where there is no test box to measure it on."""
    if project.boxes.test is not None:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(project.seed(round_number, "audit"))
    free = np.flatnonzero(~(pool.excluded | _asked_as(project, round_number, pool, audit=False)))
    return rng.choice(free, min(len(free), round(project.config.query.audit_share * batch_size)), replace=False)


def _asked_as(project: Project, round_number: int, pool: RoundPool, *, audit: bool) -> np.ndarray:
    """(N,) bool: asked before as an audit (or not), and skipped; it must not change sides."""
    before = {i: query.is_audit for i, query in project.ledger.newest_queries(round_number).items()}
    return np.array([before.get(c.id) is audit for c in pool.candidates], bool)
