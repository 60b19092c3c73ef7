"""Looking ahead: what an answer is expected to remove, against a plain form and against really answering."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

from twostream.query import LookAhead, Scorer
from twostream.query.look_ahead import Answer, Outlook, Rooms, greedy
from twostream.query.pool import check_pool
from twostream.query.scorer import log_odds


def pool_of(number=50, num_answered=12, seed=0):
    """A checked pool in which the streams say something about the answers, with the scorer's probabilities."""
    rng = np.random.default_rng(seed)
    streams = {"supervised": rng.normal(size=(number, 2)), "unsupervised": rng.normal(size=(number, 3))}
    truth = rng.random(number) < expit(2 * streams["supervised"][:, 0] + streams["unsupervised"][:, 1])
    y = np.full(number, np.nan)
    asked = rng.choice(number, num_answered, replace=False)
    y[asked] = truth[asked]
    p = Scorer().predict(streams, y, score=rng.uniform(0.2, 0.8, number), num_voxels=np.ones(number))
    return check_pool(streams, y, p).in_own_order()


def every_target(pool):
    return np.arange(len(pool.askable))


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_the_log_odds_after_an_answer_are_the_most_probable_ones(y):
    rng = np.random.default_rng(0)
    means = np.concatenate([rng.normal(0, 4, 40), [0.0, 30.0, -30.0]])
    variances = np.concatenate([rng.gamma(1, 3, 40), [100.0, 100.0, 100.0]])
    found = Answer.foreseen(means, variances, y)
    sign = 1 if y else -1
    for row, (mean, variance) in enumerate(zip(means, variances, strict=True)):
        best = minimize_scalar(
            lambda e, m=mean, v=variance: (e - m) ** 2 / (2 * v) - log_expit(sign * e),
            bounds=(mean - variance, mean + variance), method="bounded", options={"xatol": 1e-9},
        ).x  # fmt: skip
        assert found.residual[row] == pytest.approx((best - mean) / variance, abs=1e-5)
        assert found.curvature[row] == pytest.approx(expit(best) * expit(-best), abs=1e-4)


def plain_gains(pool):
    """The gain of every askable candidate, one pair at a time, with all askable candidates as targets."""
    believed = pool.mean_probability if len(pool.answered) else np.full(len(pool.y), 0.5)
    odds = log_odds(believed)
    columns = []
    for array in (odds[:, None], *pool.streams.values()):
        rows = np.concatenate([pool.answered, pool.askable])
        width = array[rows].std(0) * (1 if array.shape[1] == 1 else np.sqrt(array.shape[1]))
        columns.append((array - array[rows].mean(0)) / np.where(width > 0, width, np.inf))
    phi = np.hstack([*columns, np.ones((len(odds), 1))])
    variances = np.array([3.0, *[1.0] * (phi.shape[1] - 2), 2.0])
    precision = np.diag(1 / variances)
    for row in pool.answered:
        precision += believed[row] * (1 - believed[row]) * np.outer(phi[row], phi[row])
    sigma = np.linalg.inv(precision)
    variance = np.array([f @ sigma @ f for f in phi])
    mean = odds * np.sqrt(1 + np.pi * variance / 8)

    def error(m, v):
        p = expit(m / np.sqrt(1 + np.pi * v / 8))
        return p * (1 - p)

    gains = []
    for j in pool.askable:
        p, gain = expit(odds[j]), error(mean[j], variance[j])
        answers = {y: Answer.foreseen(mean[[j]], variance[[j]], y) for y in (0.0, 1.0)}
        for t in pool.askable:
            if t == j:
                continue
            shared = phi[t] @ sigma @ phi[j]
            after = 0.0
            for y, chance in ((1.0, p), (0.0, 1 - p)):
                d, omega = answers[y].residual[0], answers[y].curvature[0]
                left = variance[t] - shared**2 * omega / (1 + omega * variance[j])
                after += chance * error(mean[t] + shared * d, left)
            gain += error(mean[t], variance[t]) - after
        gains.append(gain)
    return np.array(gains)


@pytest.mark.parametrize("num_answered", [0, 1, 12])
def test_gains_equal_the_plain_form(num_answered):
    pool = pool_of(25, num_answered)
    np.testing.assert_allclose(Outlook(pool, every_target(pool)).all_gains(), plain_gains(pool), rtol=1e-8)


def test_nothing_is_foreseen_of_a_candidate_before_it_is_asked():
    pool = pool_of(30, 8)
    outlook = Outlook(pool, every_target(pool))
    _, features = next(outlook._blocks(every_target(pool)))
    variance = np.einsum("ij,jk,ik->i", features, outlook.covariance, features)
    found = expit(outlook._mean / np.sqrt(1 + np.pi / 8 * variance))
    np.testing.assert_allclose(found, pool.mean_probability[pool.askable])


def test_until_somebody_has_answered_the_score_of_s_is_not_believed():
    streams, y = {"supervised": np.random.default_rng(0).normal(size=(40, 3))}, np.full(40, np.nan)
    sure, doubtful = (np.random.default_rng(1).uniform(low, high, 40) for low, high in ((0.9, 1.0), (0.0, 1.0)))
    rows, gains = LookAhead().query(streams, y, batch_size=9, probability=sure, return_utilities=True)
    _, others = LookAhead().query(streams, y, batch_size=9, probability=doubtful, return_utilities=True)
    assert len(rows) == 9
    # Targets are drawn in hash order, which follows the probability; with 40 rows all of them are targets.
    np.testing.assert_allclose(gains, others)


def test_a_sample_of_targets_stands_for_all_of_them():
    pool = pool_of(600, 20)
    whole = Outlook(pool, every_target(pool)).all_gains()
    rng = np.random.default_rng(0)
    samples = [Outlook(pool, rng.choice(len(whole), 60, replace=False)).all_gains() for _ in range(40)]
    close = np.abs(np.mean(samples, 0) - whole)
    assert np.median(close / whole) < 0.05 and np.corrcoef(samples[0], whole)[0, 1] > 0.9


def test_each_choice_has_the_largest_gain_once_those_before_it_are_answered():
    pool = pool_of(80, 10)
    targets = np.random.default_rng(1).choice(len(pool.askable), 30, replace=False)
    outlook = Outlook(pool, targets)
    found = greedy(outlook, outlook.all_gains(), 15)
    plain, left = Outlook(pool, targets), list(range(len(pool.askable)))
    for position, gain in found:
        gains = plain.gains(np.array(left))
        assert gain == pytest.approx(gains[left.index(position)], rel=1e-9)
        assert gain >= gains.max() * 0.999  # gains of earlier choices are upper bounds almost everywhere
        plain.ask(position)
        left.remove(position)
    assert len({position for position, _ in found}) == 15


def test_no_cluster_gets_more_than_its_room():
    pool = pool_of(80, 10)
    cluster, room = np.random.default_rng(2).integers(0, 4, len(pool.askable)), np.array([3, 0, 9, 5])
    outlook = Outlook(pool, every_target(pool))
    gains = outlook.all_gains()
    found = greedy(outlook, gains, 17, Rooms(cluster, room))
    assert np.bincount(cluster[[position for position, _ in found]], minlength=4).tolist() == room.tolist()
    plain, left, taken = Outlook(pool, every_target(pool)), room.copy(), set()
    for position, gain in found:
        rivals = [i for i in range(len(cluster)) if i not in taken and left[cluster[i]]]
        assert gain >= plain.gains(np.array(rivals)).max() * 0.999
        plain.ask(position)
        taken.add(position)
        left[cluster[position]] -= 1
    free, outlook = Rooms(cluster, np.full(4, 80)), Outlook(pool, every_target(pool))
    assert greedy(outlook, gains, 9, free) == greedy(Outlook(pool, every_target(pool)), gains, 9)


def test_copies_of_one_candidate_are_not_asked_twice_while_others_are_as_doubtful():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(6, 4)) * 3
    streams = {"supervised": np.repeat(kinds, 20, axis=0), "unsupervised": np.repeat(kinds[:, :2], 20, axis=0)}
    rows = LookAhead().query(streams, np.full(120, np.nan), batch_size=6, probability=np.full(120, 0.5))
    assert len(set((rows // 20).tolist())) >= 5


def test_what_many_others_resemble_is_asked_before_a_loner_as_doubtful():
    rng = np.random.default_rng(0)
    crowd, loner = rng.normal([2, 0, 0], 0.1, (99, 3)), np.array([[0.0, 5.0, 0.0]])
    p = np.full(100, 0.5)
    rows = LookAhead().query(
        {"supervised": np.vstack([crowd, loner])}, np.full(100, np.nan), batch_size=1, probability=p
    )
    assert rows[0] < 99


def test_it_learns_faster_than_chance():
    """The mean Brier loss of the shared scorer over the pool, after 30 answers in batches of 5."""
    losses = {"ahead": [], "random": []}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        kinds = rng.normal(size=(12, 8))
        kind = rng.choice(12, 400, p=rng.dirichlet(np.full(12, 0.7)))
        streams = {"supervised": kinds[kind] + 0.3 * rng.normal(size=(400, 8))}
        truth = (rng.random(12) < 0.5)[kind].astype(float)
        shared = {"score": np.clip(0.5 + 0.2 * (truth - 0.5) + 0.2 * rng.normal(size=400), 0.01, 0.99)}
        shared["num_voxels"] = np.full(400, 50)
        for name in losses:
            y = np.full(400, np.nan)
            for batch in range(6):
                p = Scorer().predict(streams, y, **shared)
                if name == "ahead":
                    rows = LookAhead(random_state=batch).query(streams, y, batch_size=5, probability=p)
                else:
                    rows = rng.choice(np.flatnonzero(np.isnan(y)), 5, replace=False)
                y[rows] = truth[rows]
            p = Scorer().predict(streams, y, **shared)
            losses[name].append(float(np.mean((np.where(np.isnan(y), p, y) - truth) ** 2)))
    assert np.mean(losses["ahead"]) < 0.95 * np.mean(losses["random"])
