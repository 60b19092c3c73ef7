"""What the scorer expects becomes lessons: the equations in a plain form, and what gives no lesson."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.models.segmentation.config import RefitConfig
from twostream.project.records import Verdict
from twostream.query import Scorer
from twostream.rounds.pool import RoundPool
from twostream.rounds.propagation import MIN_CERTAINTY, expected, propagated

MASK = np.ones((1, 2, 2), np.uint8)
KIND_OF = {"mask": "true", "background": "nothing", "ignore": "shape", "": "unsure"}


def pool_of(teaches, num_more=40, audits=()):
    """Answered rows first; true objects have high features, *nothing* low ones, wrong shapes lie between."""
    rng = np.random.default_rng(0)
    middle = {"mask": 2.0, "ignore": 0.0, "background": -2.0, "": 0.0}
    of = [middle[kind] for kind in teaches] + [(-2.0, 2.0)[i % 2] for i in range(num_more)]
    features = np.array(of)[:, None] + rng.normal(0, 0.4, (len(of), 3))
    y = [{"mask": 1.0, "": math.nan}.get(kind, 0.0) for kind in teaches]
    y = [math.nan if i in audits else value for i, value in enumerate(y)] + [math.nan] * num_more
    candidates = [Candidate(i + 1, i + 1, Box((0, 0, 4 * i), MASK.shape), MASK, 0.5) for i in range(len(of))]
    pool = RoundPool(
        candidates, np.arange(len(of)) + 1, {"supervised": features, "unsupervised": features[:, :1]}, np.array(y),
        np.arange(len(of)) < len(teaches), np.full(len(of), 0.5), np.full(len(of), 0.5), np.full(len(of), 8),
        np.zeros((len(of), 3)), np.zeros(len(of), bool),
    )  # fmt: skip
    values = {"mask": 1.0, "": math.nan}
    verdicts = {i: Verdict(values.get(kind, 0.0), KIND_OF[kind], False) for i, kind in enumerate(teaches, start=1)}
    return pool, verdicts


def project_of(verdicts, **settings):
    return SimpleNamespace(
        config=SimpleNamespace(refit=RefitConfig(**settings)),
        ledger=SimpleNamespace(verdicts=lambda: verdicts),
        seed=lambda *_: 0,
    )


ANSWERS = ["mask"] * 6 + ["background"] * 6 + ["ignore"] * 4


def test_expectation_is_that_of_two_scorers():
    pool, _ = pool_of(ANSWERS)
    teaches = np.array(ANSWERS + [""] * 40, object)
    found = expected(pool, teaches)
    plain = {}
    for name, shape in (("true", 0), ("any", 1)):
        value = {"mask": 1, "background": 0, "ignore": shape}
        y = np.array([value.get(kind, math.nan) for kind in teaches], float)
        plain[name] = Scorer().predict(pool.streams, y, score=pool.score, num_voxels=pool.num_voxels)
    assert found.true == pytest.approx(plain["true"])
    nothing = [min(1 - a, 1 - t) for a, t in zip(plain["any"], plain["true"], strict=True)]
    assert found.nothing == pytest.approx(nothing) and (found.known <= 1 + 1e-9).all()
    assert found.share == pytest.approx(found.true / (found.true + found.nothing))


def test_lessons_come_from_unasked_candidates_and_say_what_they_are_likely_to_be():
    pool, verdicts = pool_of(ANSWERS)
    lessons = propagated(project_of(verdicts), pool)
    rows = [lesson.box.offset_zyx[2] // 4 for lesson in lessons]
    assert rows == sorted(rows) and min(rows) >= len(ANSWERS) and len(rows) > 20
    for row, lesson in zip(rows, lessons, strict=True):
        is_true = (row - len(ANSWERS)) % 2 == 1
        assert (lesson.share > 0.5) == is_true and 0 < lesson.weight <= 1
        assert lesson.surprise == pytest.approx(abs(lesson.share - pool.score[row]), abs=1e-5)
        certainty = abs(2 * lesson.share - 1) * lesson.weight
        assert certainty >= MIN_CERTAINTY - 1e-5


def test_each_cluster_and_kind_gives_a_limited_number():
    pool, verdicts = pool_of(ANSWERS)
    some = propagated(project_of(verdicts, propagate_per_cluster=1), pool)
    assert 2 <= len(some) <= 20  # ten clusters, two kinds
    assert len(propagated(project_of(verdicts, propagate_per_cluster=100), pool)) > len(some)


def test_nothing_is_propagated_without_answers_or_when_it_is_off():
    pool, verdicts = pool_of([""] * 4)
    assert propagated(project_of(verdicts), pool) == []
    pool, verdicts = pool_of(ANSWERS)
    assert propagated(project_of(verdicts, propagate=0.0), pool) == []


def test_hidden_answers_and_audits_have_no_influence():
    pool, verdicts = pool_of(ANSWERS)
    hidden = [1, 2, 7, 8]
    without, _ = pool_of(ANSWERS, audits=[i - 1 for i in hidden])
    assert propagated(project_of(verdicts), pool, hidden) == propagated(project_of(verdicts), without)
    assert propagated(project_of(verdicts), pool, hidden) != propagated(project_of(verdicts), pool)
