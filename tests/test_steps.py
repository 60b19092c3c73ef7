"""What the step `suggest` gives a strategy and records of its choice, and what `score` keeps of the pool."""

from __future__ import annotations

import numpy as np
import pytest

from twostream.project.probabilities import read_probabilities
from twostream.query import STRATEGIES, Selection, Strategy, register_strategy
from twostream.rounds.asking import may_be_asked
from twostream.rounds.loop import run
from twostream.rounds.pool import NUM_MEMBERS, pool_of


def test_a_strategy_gets_a_committee_and_positions_and_its_notes_are_recorded(make_project, toy_file, capfd):
    seen = []

    @register_strategy("recording")
    class Recording(Strategy):
        needs_ensemble = needs_position = True

        def _select(self, pool, batch_size, rng):
            seen.append(pool)
            reasons = [{"position": i} for i in range(batch_size)]
            notes = ("a note by the strategy",)
            return Selection(pool.askable[:batch_size], np.full(len(pool.y), np.nan), reasons, notes)

    try:
        project = make_project(overrides=("query.strategy=recording",))
        run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria")
    finally:
        del STRATEGIES["recording"]
    (given,) = seen
    pool = pool_of(project, 0)
    assert given.probability.shape == (NUM_MEMBERS, len(pool.y))
    boxes = [c.box for c in pool.candidates]
    centres = [[(o + s / 2) for o, s in zip(b.offset_zyx, b.shape_zyx, strict=True)] for b in boxes]
    np.testing.assert_allclose(given.position_nm, np.array(centres) * (30, 10, 10))
    asked = {q.candidate.id: q.reason for q in project.ledger.queries(0)}
    probability = {c.id: p for c, p in zip(pool.candidates, pool.probability, strict=True)}
    for position, (identity, reason) in enumerate(asked.items()):
        assert reason == {"position": position, "probability": round(float(probability[identity]), 4)}
    assert project.ledger.finished_steps()[0, "suggest"]["notes"] == ["a note by the strategy"]
    assert "  a note by the strategy" in capfd.readouterr().err

    assert "stopping" not in project.ledger.scores()[0]
    criteria = project.ledger.scores()[1]["stopping"]
    later = pool_of(project, 1)
    assert criteria["num_pool"] == len(later.y) and criteria["agreement"] is None  # round 0 had no answers
    stored = read_probabilities(project, 1)
    assert stored.learned == criteria["learned"]
    assert stored.ids[stored.in_pool].tolist() == [c.id for c in later.candidates]
    np.testing.assert_array_equal(stored.probability[stored.in_pool], later.probability)
    rest = set(stored.ids[~stored.in_pool].tolist())  # those that touch the labels box or the guarded test box
    proposed = project.candidates(1)
    assert rest == set(proposed.take(~may_be_asked(project, proposed)).ids.tolist()) and rest
    assert ((stored.probability >= 0) & (stored.probability <= 1)).all()
    metrics = project.ledger.scores()[1]
    assert np.isfinite(stored.on_test_box).sum() == metrics["num_test_candidates"] > 0
    assert np.nanmean(stored.on_test_box) == pytest.approx(metrics["scores"]["candidate_accuracy"], abs=1e-6)
