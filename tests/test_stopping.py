"""The criteria for stopping: compared with brute force, and with what they should advise in simulated runs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import cohen_kappa_score

from twostream.base.errors import InputError
from twostream.project.probabilities import POOL_NAME, Probabilities, write_probabilities
from twostream.project.status import stopping_lines
from twostream.query import Scorer, get_strategy
from twostream.query.scorer import has_answers
from twostream.query.stopping import (
    STABLE,
    TARGET,
    WINDOW,
    Estimate,
    agreement,
    audited_right,
    expected_right,
    has_stabilised,
    is_right_enough,
    kappa,
    recent_agreement,
)
from twostream.rounds.pool import RoundPool
from twostream.rounds.score import stopping_criteria
from twostream.task.metrics import wilson_interval


def kappa_by_counting(before, now):
    """Kappa from the shares of the four pairs of labels (Cohen 1960)."""
    pairs = list(zip(before, now, strict=True))
    share = {ab: pairs.count(ab) / len(pairs) for ab in [(a, b) for a in (False, True) for b in (False, True)]}
    observed = share[False, False] + share[True, True]
    yes, no = (
        (share[v, False] + share[v, True]) * (share[False, v] + share[True, v]) for v in (True, False)
    )  # fmt: skip
    return (observed - yes - no) / (1 - yes - no)


@pytest.mark.parametrize("seed", range(20))
def test_kappa_equals_the_formula_and_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    before = rng.random(rng.integers(5, 60)) < rng.uniform(0.2, 0.8)
    now = before ^ (rng.random(len(before)) < rng.uniform(0, 0.6))
    assert len(set(before)) == 2
    assert kappa(before, now) == pytest.approx(kappa_by_counting(before.tolist(), now.tolist()))
    assert kappa(before, now) == pytest.approx(cohen_kappa_score(before, now))
    assert kappa(now, before) == pytest.approx(kappa(before, now))
    assert kappa(~before, ~now) == pytest.approx(kappa(before, now))


def test_kappa_of_equal_opposite_constant_and_empty_labels():
    half = np.arange(10) < 5
    assert kappa(half, half) == 1 and kappa(half, ~half) == -1
    assert kappa(np.ones(6, bool), np.arange(6) < 3) == 0
    for constant in (np.zeros(6, bool), np.ones(6, bool), np.zeros(0, bool)):
        assert math.isnan(kappa(constant, constant))
    with pytest.raises(InputError, match=r"labels have shapes \(3,\) and \(4,\); expected two of"):
        kappa(np.zeros(3, bool), np.zeros(4, bool))


def test_agreement_compares_candidates_with_the_same_id():
    rng = np.random.default_rng(0)
    ids_before, ids_now = rng.permutation(60)[:40], rng.permutation(60)[:45]
    before, now = rng.random(40), rng.random(45)
    then = dict(zip(ids_before.tolist(), before >= 0.5, strict=True))
    pairs = [(then[i], p >= 0.5) for i, p in zip(ids_now.tolist(), now, strict=True) if i in then]
    found, number = agreement(ids_before, before, ids_now, now)
    assert number == len(pairs) and 22 < number < 45
    assert found == pytest.approx(kappa_by_counting(*zip(*pairs, strict=True)))


def test_agreement_is_undefined_if_most_candidates_are_new():
    p = np.tile([0.2, 0.8], 5)
    assert agreement(np.arange(10), p, np.arange(5, 15), p) == (pytest.approx(-0.48 / 0.52), 5)
    found, number = agreement(np.arange(10), p, np.arange(6, 16), p)
    assert math.isnan(found) and number == 4
    found, number = agreement(np.zeros(0, int), np.zeros(0), np.zeros(0, int), np.zeros(0))
    assert math.isnan(found) and number == 0


def test_recent_agreement_needs_every_one_of_the_last_rounds():
    assert recent_agreement([0.1, 1.0, 0.99, 0.98]) == pytest.approx(0.99)
    for too_little in ([], [1.0, 1.0], [1.0, None, 1.0], [1.0, 1.0, math.nan]):
        assert math.isnan(recent_agreement(too_little)) and not has_stabilised(too_little)
    assert has_stabilised([None, 1.0, 0.995, STABLE]) and not has_stabilised([1.0, 1.0, 0.96])
    assert has_stabilised([0.9], window=1, stable=0.9)


# -- simulated runs ---------------------------------------------------------------------------------------------------


class Run:
    """Simulated rounds in a pool. The first column of X predicts the truth, the better the larger ``steepness`` is."""

    def __init__(self, steepness, seed=0, number=400):
        rng = np.random.default_rng(seed)
        self.X = rng.normal(size=(number, 3))
        self.truth = (rng.random(number) < expit(steepness * self.X[:, 0])).astype(float)
        self.known = {"score": rng.uniform(0.6, 0.9, number), "num_voxels": rng.integers(20, 90, number)}
        self.y = np.where(np.arange(number) < 10, self.truth, np.nan)

    def rounds(self, number):
        """(agreements so far, probability) of every round; then 10 candidates are asked by entropy."""
        agreements, before = [], None
        for _ in range(number):
            p = Scorer().predict(self.X, self.y, **self.known)
            ids = np.arange(len(p))
            if before is not None:
                agreements.append(agreement(ids, before, ids, p)[0])
            yield agreements, p
            asked = get_strategy("entropy").query(self.X, self.y, batch_size=10, probability=p)
            self.y[asked], before = self.truth[asked], p


@pytest.mark.parametrize("seed", range(3))
def test_labels_stabilise_once_the_scorer_has_learned(seed):
    run = Run(steepness=1e9, seed=seed)
    fired = [number for number, (agreements, _) in enumerate(run.rounds(25)) if has_stabilised(agreements)]
    assert fired and fired[0] > WINDOW
    p = Scorer().predict(run.X, run.y, **run.known)
    assert np.mean((p >= 0.5) == run.truth) > 0.97


@pytest.mark.parametrize("seed", range(3))
def test_labels_do_not_stabilise_while_they_still_change(seed):
    """The truth is random, so that what the scorer learns from some answers is contradicted by the next."""
    run = Run(steepness=0, seed=seed)
    assert not any(has_stabilised(agreements) for agreements, _ in run.rounds(12))


# -- how many labels are right ----------------------------------------------------------------------------------------


def test_the_audited_share_has_wilsons_interval():
    p, y = np.array([0.5, 0.9, 0.4, 0.2, 0.7]), np.array([1, 0, 0, 0, 1])
    found = audited_right(p, y)
    assert (found.value, found.num) == (0.8, 5)
    assert (found.low, found.high) == pytest.approx(wilson_interval(4, 5), abs=1e-5)  # which rounds z to 1.96
    z, share = 1.959964, 0.8
    middle, half = share + z**2 / 10, z * math.sqrt(share * 0.2 / 5 + z**2 / 100)
    assert (found.low, found.high) == pytest.approx(
        ((middle - half) / (1 + z**2 / 5), (middle + half) / (1 + z**2 / 5))
    )
    nothing = audited_right(np.zeros(0), np.zeros(0))
    assert math.isnan(nothing.value) and (nothing.low, nothing.high, nothing.num) == (0, 1, 0)
    assert audited_right(p, y, confidence=0.5).low > found.low


def test_the_expected_share_equals_its_formula():
    rng = np.random.default_rng(0)
    p, committee = rng.random(30), rng.random((7, 30))
    found = expected_right(p, committee, confidence=0.9)
    assert found.value == pytest.approx(sum(max(v, 1 - v) for v in p) / 30) and found.num == 30
    right = [sum(m if v >= 0.5 else 1 - m for v, m in zip(p, member, strict=True)) / 30 for member in committee]
    chance = [sum(m * (1 - m) for m in member) / 30**2 for member in committee]
    spread = sum((v - sum(right) / 7) ** 2 for v in right) / 6
    half = 1.644854 * math.sqrt(spread + sum(chance) / 7)
    assert (found.low, found.high) == pytest.approx((found.value - half, min(1, found.value + half)))


def test_the_expected_share_of_certain_undecided_and_no_labels():
    sure = np.array([0.0, 1, 1])
    assert expected_right(sure, np.tile(sure, (3, 1))) == Estimate(1, 1, 1, 3)
    blind = expected_right(np.full(4, 0.5), np.array([np.zeros(4), np.ones(4)]))
    assert blind.value == 0.5 and (blind.low, blind.high) == (0, 1)
    nothing = expected_right(np.zeros(0), np.zeros((3, 0)))
    assert math.isnan(nothing.value) and (nothing.low, nothing.high, nothing.num) == (0, 1, 0)
    for p, committee in ((np.zeros(3), np.zeros((1, 3))), (np.zeros(3), np.zeros((2, 4))), (np.zeros(3), np.zeros(3))):
        with pytest.raises(InputError, match="probability and ensemble have shapes"):
            expected_right(p, committee)


def test_the_interval_contains_the_truth_if_the_scorers_model_is_right():
    from test_scorer import World

    inside, widths = [], []
    for seed in range(60):
        world = World(150, seed=seed)
        y = world.answered(15, seed)
        unseen = np.isnan(y)
        p, committee = world.predict(y)[unseen], world.ensemble(y, num_members=20)[:, unseen]
        found = expected_right(p, committee)
        inside.append(found.low <= np.mean((p >= 0.5) == (world.truth[unseen] == 1)) <= found.high)
        widths.append(found.high - found.low)
    assert np.mean(inside) >= 0.9 and np.mean(widths) < 0.5


def test_the_expected_share_can_be_wrong_where_audits_are_right():
    """Candidates that nobody asked about follow the opposite rule. The scorer cannot know this; audits show it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))  # noqa: N806
    unasked = X[:, 1] > 0.3
    truth = ((X[:, 0] > 0) ^ unasked).astype(float)
    known = {"score": np.full(600, 0.7), "num_voxels": np.full(600, 9)}
    y = np.where(~unasked & (np.arange(600) < 450), truth, np.nan)
    p = Scorer().predict(X, y, **known)
    rest = np.isnan(y)
    believed = expected_right(p[rest], Scorer().predict_ensemble(X, y, **known)[:, rest])
    audits = rng.choice(np.flatnonzero(rest), 60, replace=False)
    measured = audited_right(p[audits], truth[audits])
    assert believed.low > 0.8 and measured.high < 0.6
    assert measured.low <= np.mean((p >= 0.5) == truth, where=rest) <= measured.high


def test_the_lower_end_of_the_interval_must_reach_the_target():
    assert is_right_enough(Estimate(0.97, TARGET, 0.99, 9))
    assert not is_right_enough(Estimate(0.97, TARGET - 0.001, 0.99, 9))
    assert is_right_enough(Estimate(0.9, 0.85, 0.95, 9), target=0.85)
    assert not is_right_enough(audited_right(np.ones(72), np.ones(72)))  # 72 correct audits in a row are not enough
    assert is_right_enough(audited_right(np.ones(73), np.ones(73)))


# -- in a project -----------------------------------------------------------------------------------------------------


class Rounds:
    """The part of a project that ``stopping_criteria`` uses. Features change a little from round to round."""

    def __init__(self, folder, number=60):
        rng = np.random.default_rng(0)
        self.folder, self.features = folder, rng.normal(size=(2 * number, 3))
        self.truth = (self.features[:, 0] > 0).astype(float)
        self.answers = {}
        self.ledger = SimpleNamespace(verdicts=lambda: {i: SimpleNamespace(y=y) for i, y in self.answers.items()})

    def path(self, number, name):
        (self.folder / str(number)).mkdir(exist_ok=True)
        return self.folder / str(number) / name

    def seed(self, number, purpose):
        return number

    def pool(self, ids, answered, audited=()):
        ids, rng = np.asarray(ids), np.random.default_rng(len(answered))
        self.answers = {i: self.truth[i] for i in (*answered, *audited)}
        X = self.features[ids] + rng.normal(0, 0.01, (len(ids), 3))  # noqa: N806
        y = np.array([self.truth[i] if i in answered else math.nan for i in ids])
        excluded = np.isin(ids, [*answered, *audited])
        score, size = np.full(len(ids), 0.7), np.full(len(ids), 30)
        p = Scorer().predict(X, y, score=score, num_voxels=size)
        candidates = [SimpleNamespace(id=int(i)) for i in ids]
        return RoundPool(
            candidates, ids, {"a": X}, y, excluded, p, score, size, np.zeros((len(ids), 3)), np.zeros(len(ids), bool)
        )


def criteria_after(rounds, number, pool):
    """The criteria of a round whose probabilities are stored; two candidates outside the pool change nothing."""
    ids = np.array([c.id for c in pool.candidates] + [10**6, 10**6 + 1], np.uint64)
    in_pool = np.arange(len(ids)) < len(pool.y)
    probability = np.concatenate([pool.probability, [0.1, 0.9]])
    stored = Probabilities(ids, probability, in_pool, has_answers(pool.y), np.full(len(ids), np.nan))
    write_probabilities(rounds, number, stored)
    return stopping_criteria(rounds, number, pool)


def test_a_round_is_compared_with_the_previous_round(tmp_path):
    rounds = Rounds(tmp_path)
    first, second = rounds.pool(range(60), range(12)), rounds.pool(range(20, 70), range(20, 40))
    assert criteria_after(rounds, 0, first) == {}
    criteria = criteria_after(rounds, 1, second)
    assert (criteria["learned"], criteria["num_pool"], criteria["num_shared"]) == (True, 50, 40)
    labels = first.probability[20:] >= 0.5, second.probability[:40] >= 0.5
    assert (
        criteria["agreement"] == pytest.approx(kappa_by_counting(*(v.tolist() for v in labels)))
        and criteria["agreement"] < 1
    )
    assert criteria["audited"] is None and criteria["expected"]["num"] == 30
    assert (
        criteria_after(rounds, 1, second) == criteria
    )  # as after a kill between writing the file and recording the scores
    assert not list(tmp_path.rglob("*.partial"))


def test_undefined_criteria_are_none(tmp_path):
    rounds = Rounds(tmp_path)
    criteria_after(rounds, 0, rounds.pool(range(60), []))
    criteria = criteria_after(rounds, 1, rounds.pool(range(60), range(12)))
    assert (
        criteria["learned"] and criteria["agreement"] is None and criteria["num_shared"] is None
    )  # the scorer of round 0 had learned nothing
    rounds.path(1, POOL_NAME).unlink()  # older versions wrote no such file
    assert criteria_after(rounds, 2, rounds.pool(range(60), range(20)))["agreement"] is None
    unlearned = criteria_after(rounds, 3, rounds.pool(range(60), []))
    assert not unlearned["learned"] and unlearned["expected"] is None and unlearned["agreement"] is None
    everything = criteria_after(rounds, 4, rounds.pool(range(20), range(20)))
    assert everything["learned"] and everything["expected"] is None


def test_audits_measure_labels_and_are_not_learned_from(tmp_path):
    rounds = Rounds(tmp_path)
    pool = rounds.pool(range(60), range(12), audited=range(50, 60))
    criteria = criteria_after(rounds, 1, pool)
    right = np.sum((pool.probability[50:] >= 0.5) == rounds.truth[50:60])
    assert criteria["audited"]["num"] == 10 and criteria["audited"]["value"] == right / 10
    assert criteria["expected"]["num"] == 38


def scored(**criteria):
    nothing = {"learned": True, "num_pool": 50, "num_shared": 48, "agreement": None, "audited": None, "expected": None}
    return {"scores": {}, "stopping": nothing | criteria}


def test_status_shows_the_criteria_for_stopping():
    audit = {"value": 0.9, "low": 0.7, "high": 0.97, "num": 20}
    expected = {"value": 0.98, "low": 0.95, "high": 1.0, "num": 30}
    scores = {0: {"scores": {}}, 1: scored(agreement=0.97), 2: scored(agreement=0.995), 3: scored(agreement=0.985)}
    scores[4] = scored(agreement=1.0, audited=audit, expected=expected)
    assert stopping_lines(scores, 0) == []
    assert stopping_lines(scores, 1) == [
        "  stopping: predictions agree 0.970 with the round before (stop at 0.99 over 3 rounds): go on"
    ]
    assert stopping_lines(scores, 3) == [
        "  stopping: predictions agree 0.985 with the round before, 0.983 over 3 rounds (stop at 0.99): go on"
    ]
    assert stopping_lines(scores, 4) == [
        "  stopping: predictions agree 1.000 with the round before, 0.993 over 3 rounds (stop at 0.99): may stop",
        "  stopping: 0.900 of 20 audited labels are right (0.700 to 0.970; stop when 0.95 is sure): go on",
        "  stopping: 0.980 of 30 unanswered labels are right, the scorer believes (0.950 to 1.000; stop when 0.95 is "
        "sure): may stop",
    ]


@pytest.mark.parametrize(
    ("criteria", "why"),
    [
        ({"learned": False, "num_shared": None}, "the scorer needs an answer"),
        ({"num_shared": None}, "which had learned nothing to compare with"),
        ({"num_shared": 20}, "which knew 20 of 50 candidates"),
        ({}, "all labels are the same"),
    ],
)
def test_status_says_why_rounds_cannot_be_compared(criteria, why):
    scores = {1: scored(agreement=1.0), 2: scored(agreement=1.0), 3: scored(**criteria)}
    assert stopping_lines(scores, 3) == [
        f"  stopping: predictions cannot be compared with the round before ({why}): go on"
    ]
