"""The shared scorer: what it computes, checked against brute force; what it must bear; how far it can be believed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit, logit

from twostream.base.errors import InputError
from twostream.query import Scorer
from twostream.query import pool as pool_module
from twostream.query.scorer import CONSTANT_VARIANCE, PLAIN_VARIANCE, SCORE_WEIGHT, STREAM_VARIANCE, laplace


class World:
    """Candidates whose answers follow the scorer's own model: weights drawn from its prior."""

    def __init__(self, number=300, widths=(4, 6), seed=0):
        rng = np.random.default_rng(seed)
        self.X = {f"stream {i}": rng.normal(size=(number, d)).astype(np.float32) for i, d in enumerate(widths)}
        strength, size = rng.normal(size=number), rng.normal(size=number)
        self.score, self.num_voxels = expit(2 + 0.7 * strength), np.exp(5 + size)
        log_odds = rng.normal(SCORE_WEIGHT, np.sqrt(PLAIN_VARIANCE)) * strength
        log_odds += rng.normal(0, np.sqrt(PLAIN_VARIANCE)) * size + rng.normal(0, 1)
        for array in self.X.values():
            log_odds += array @ rng.normal(0, 1 / np.sqrt(array.shape[1]), array.shape[1])
        self.truth = (rng.random(number) < expit(log_odds)).astype(float)

    def answered(self, number, seed=0):
        """(N,) answers to random candidates, both kinds among them."""
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(self.truth))[:number]
        rows = np.union1d(rows, [np.flatnonzero(self.truth == v)[0] for v in (0, 1)])
        y = np.full(len(self.truth), np.nan)
        y[rows] = self.truth[rows]
        return y

    def predict(self, y, **settings):
        return Scorer(**settings).predict(self.X, y, score=self.score, num_voxels=self.num_voxels)

    def ensemble(self, y, **settings):
        return Scorer(**settings).predict_ensemble(self.X, y, score=self.score, num_voxels=self.num_voxels)


def test_it_is_the_score_of_s_until_the_first_answer():
    world = World(20)
    nothing = np.full(20, np.nan)
    np.testing.assert_array_equal(world.predict(nothing), world.score)
    np.testing.assert_array_equal(world.ensemble(nothing, num_members=3), np.tile(world.score, (3, 1)))


def test_one_answer_of_either_kind_teaches_and_answers_of_one_kind_settle_nothing():
    world = World(200, seed=1)
    for rows in ([3], [3, 50, 120, 7, 90, 30, 61, 11, 150, 199]):
        said = {value: np.full(200, np.nan) for value in (0, 1)}
        for value, y in said.items():
            y[rows] = value
        no, yes = (world.predict(said[value]) for value in (0, 1))
        assert (yes[rows] > 0.5).all() and (no[rows] < 0.5).all()
        assert yes.mean() - no.mean() > 0.1 and yes.max() < 0.99 and no.min() > 0.01
        assert world.ensemble(said[1], num_members=200).std(0).min() > 0.01


def test_excluded_rows_get_a_probability_and_change_no_other():
    world = World(60)
    y = world.answered(20)
    strange = np.isnan(y) & (np.arange(60) % 3 == 0)
    for array in world.X.values():
        array[strange] += 50  # would move every mean and deviation
    without = Scorer().predict(
        {name: array[~strange] for name, array in world.X.items()}, y[~strange],
        score=world.score[~strange], num_voxels=world.num_voxels[~strange],
    )  # fmt: skip
    probability = Scorer().predict(world.X, y, score=world.score, num_voxels=world.num_voxels, excluded=strange)
    np.testing.assert_allclose(probability[~strange], without, rtol=1e-9)
    assert ((probability[strange] >= 0) & (probability[strange] <= 1)).all()
    assert not np.allclose(world.predict(y)[~strange], without, rtol=1e-3)


def test_the_weights_are_the_most_probable_ones_and_their_precision_is_the_curvature():
    rng = np.random.default_rng(0)
    features, y = rng.normal(size=(30, 4)), (rng.random(30) < 0.3).astype(float)
    expected, precision = np.array([1.0, 0, 0, 0]), np.array([0.3, 1, 5, 0.01])

    def cost(w):
        right = [p if t == 1 else 1 - p for p, t in zip(expit(features @ w), y, strict=True)]
        return -sum(np.log(right)) + sum(0.5 * q * (v - e) ** 2 for q, v, e in zip(precision, w, expected, strict=True))

    def gradient(w):
        return approx_fprime(w, cost, 1e-6)

    weights, factor = laplace(features, y, expected, precision)
    np.testing.assert_allclose(weights, minimize(cost, np.zeros(4), tol=1e-12).x, atol=1e-4)
    curvature = np.stack([(gradient(weights + d) - gradient(weights - d)) / 2e-3 for d in 1e-3 * np.eye(4)])
    np.testing.assert_allclose(factor @ factor.T, curvature, rtol=1e-2, atol=1e-2)
    assert (np.triu(factor, 1) == 0).all()


def test_newton_ends_at_the_maximum_from_far_away():
    """Answers against a strong expectation: the first whole steps overshoot."""
    features = np.array([[30.0, 1], [-30, 1], [29, 1], [-31, 1]])
    y = np.array([0.0, 1, 0, 1])
    weights, _ = laplace(features, y, np.array([5.0, 0]), np.array([0.1, 0.01]))
    gradient = features.T @ (expit(features @ weights) - y) + np.array([0.1, 0.01]) * (weights - [5, 0])
    np.testing.assert_allclose(gradient, 0, atol=1e-8)


@pytest.mark.parametrize("answers", [[0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1]])
def test_a_probability_is_the_mean_over_all_weights_that_could_be_right(answers):
    """Two weights matter here, score and intercept; their posterior is summed up on a grid."""
    score = expit(np.linspace(-2, 3, 21))
    y = np.full(21, np.nan)
    y[[2, 5, 14, 17, 19][: len(answers)]] = answers
    found = Scorer().predict(np.zeros((21, 1)), y, score=score, num_voxels=np.full(21, 7))
    z = logit(score)
    z = (z - z.mean()) / z.std()
    slope, shift = np.meshgrid(np.linspace(-8, 12, 301), np.linspace(-15, 15, 301))
    log = -0.5 * (slope - SCORE_WEIGHT) ** 2 / PLAIN_VARIANCE - 0.5 * shift**2 / CONSTANT_VARIANCE
    for i in np.flatnonzero(~np.isnan(y)):
        log += np.log(expit((2 * y[i] - 1) * (slope * z[i] + shift)))
    weight = np.exp(log - log.max())
    exact = [float((weight * expit(slope * v + shift)).sum() / weight.sum()) for v in z]
    if len(set(answers)) == 2:
        np.testing.assert_allclose(found, exact, atol=0.06)
    else:  # the posterior is skewed, and a Gaussian around its maximum is more cautious
        sure = np.array(exact) if answers[0] == 1 else 1 - np.array(exact)
        believed = found if answers[0] == 1 else 1 - found
        assert (believed > 0.55).all() and (believed < sure).all()


def test_the_posterior_is_what_probabilities_are_computed_from():
    world = World(80)
    known = {"score": world.score, "num_voxels": world.num_voxels}
    for y in (world.answered(12), np.where(np.arange(80) == 5, 1, np.nan)):
        posterior = Scorer().posterior(world.X, y, **known)
        rows = np.array([7, 5, 60])
        (part, features), *others = posterior.blocks(rows)
        assert (part, others) == (slice(0, 3), []) and features.shape == (3, 2 + 4 + 6 + 1)
        exact = []
        for x in features:
            middle = sum(a * b for a, b in zip(x, posterior.mean, strict=True))
            variance = sum(x[i] * posterior.covariance[i, j] * x[j] for i in range(13) for j in range(13))
            exact.append(expit(middle / np.sqrt(1 + np.pi * variance / 8)))
        np.testing.assert_allclose(world.predict(y)[rows], exact, rtol=1e-9)
        drawn = np.random.default_rng(0).multivariate_normal(posterior.mean, posterior.covariance, 20_000)
        committee = world.ensemble(y, num_members=4000)[:, rows]
        np.testing.assert_allclose(committee.std(0), expit(drawn @ features.T).std(0), atol=0.02)


def test_without_answers_the_posterior_is_the_prior():
    world = World(30)
    posterior = Scorer().posterior(world.X, np.full(30, np.nan), score=world.score, num_voxels=world.num_voxels)
    np.testing.assert_array_equal(posterior.mean, [SCORE_WEIGHT, *[0] * 12])
    variances = [PLAIN_VARIANCE, PLAIN_VARIANCE, *[STREAM_VARIANCE] * 10, CONSTANT_VARIANCE]
    np.testing.assert_allclose(posterior.covariance, np.diag(variances), atol=1e-12)


def test_the_committee_scatters_about_the_probability_and_closes_ranks_with_answers():
    world = World()
    few, many = world.answered(6), world.answered(200)
    committee, p = world.ensemble(few, num_members=4000), world.predict(few)
    assert committee.shape == (4000, 300) and (committee >= 0).all() and (committee <= 1).all()
    np.testing.assert_allclose(committee.mean(0), p, atol=0.03)
    assert np.abs(expit(logit(committee).mean(0)) - p).max() > 0.1  # the middle of the posterior is surer than its mean
    assert committee.std(0).mean() > 2 * world.ensemble(many, num_members=400).std(0).mean()
    one_each = np.where(np.isin(np.arange(300), [np.argmax(world.truth == v) for v in (0, 1)]), world.truth, np.nan)
    assert world.ensemble(one_each, num_members=50).std(0).min() > 0.01


def test_seeds():
    world = World()
    y = world.answered(20)
    np.testing.assert_array_equal(world.ensemble(y, random_state=3), world.ensemble(y, random_state=3))
    assert np.abs(world.ensemble(y, random_state=3) - world.ensemble(y, random_state=4)).max() > 0.05
    np.testing.assert_array_equal(world.predict(y, random_state=3), world.predict(y, random_state=4))


@pytest.mark.parametrize("duplicates", [False, True])
def test_the_order_of_the_rows_does_not_matter(duplicates):
    world = World()
    y, order = world.answered(25), np.random.default_rng(1).permutation(300)
    if duplicates:  # features do not tell these rows apart, answers and sizes do
        for array in world.X.values():
            array[:150] = array[0]
    p, committee = world.predict(y), world.ensemble(y)
    world.X = {name: array[order] for name, array in world.X.items()}
    world.score, world.num_voxels = world.score[order], world.num_voxels[order]
    np.testing.assert_allclose(world.predict(y[order]), p[order], atol=1e-9)
    np.testing.assert_allclose(world.ensemble(y[order]), committee[:, order], atol=1e-9)


def test_one_answer_of_each_kind_constant_columns_and_contradictions():
    y = np.array([1, 0, np.nan, np.nan])
    same = {"X": np.full((4, 3), 0.1, np.float32), "score": np.full(4, 0.5), "num_voxels": np.full(4, 9)}
    X = same.pop("X")  # noqa: N806
    np.testing.assert_allclose(Scorer().predict(X, y, **same), 0.5, atol=1e-6)
    for extreme in (0.0, 1.0):
        same["score"] = np.array([extreme, 0.5, extreme, 0.5])
        p = Scorer().predict(X, y, **same)
        assert np.isfinite(p).all() and (p > 0.01).all() and (p < 0.99).all()
    assert np.isfinite(Scorer().predict_ensemble(X[:2], y[:2], score=same["score"][:2], num_voxels=[1, 10**9])).all()


def test_few_answers_give_cautious_probabilities():
    world = World(seed=3)
    y = np.full(300, np.nan)
    for value in (0, 1):
        y[np.flatnonzero(world.truth == value)[:2]] = value
    p = world.predict(y)
    assert p.min() > 0.05 and p.max() < 0.97
    sure = world.predict(world.answered(250))
    assert np.minimum(sure, 1 - sure).mean() < np.minimum(p, 1 - p).mean()


def test_many_columns_of_noise_do_not_drown_the_score():
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.5
    score = expit(2 + np.where(truth, 0.8, -0.8) + 0.4 * rng.normal(size=400))
    y = np.where(np.arange(400) < 30, truth, np.nan)
    noise = rng.normal(size=(400, 1000)).astype(np.float32)
    p = Scorer().predict(noise, y, score=score, num_voxels=np.full(400, 5))
    assert ((p >= 0.5) == truth)[30:].mean() > 0.88


def test_expected_errors_come_true():
    """Over pools of its own kind the error that it expects is the error that it makes."""
    expected, true = [], []
    for seed in range(60):
        world = World(200, seed=seed)
        y = world.answered(12, seed)
        unseen = np.isnan(y)
        p = world.predict(y)[unseen]
        expected.append(np.minimum(p, 1 - p).mean())
        true.append(np.mean((p >= 0.5) != (world.truth[unseen] == 1)))
    gap = np.array(expected) - true
    assert abs(gap.mean()) < 0.03


def test_features_are_read_in_blocks(tmp_path, monkeypatch):
    number, width = 100_000, 64
    path = tmp_path / "latents.npy"
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(number, width))
    rng = np.random.default_rng(0)
    for start in range(0, number, 10_000):
        stored[start : start + 10_000] = rng.normal(size=(10_000, width))
    truth = stored[:, 0] > 0
    y = np.where(np.arange(number) % 1000 == 0, truth, np.nan)
    known = {"score": np.full(number, 0.5), "num_voxels": np.full(number, 9.0)}
    del stored
    latents = np.load(path, mmap_mode="r")
    whole = Scorer().predict(latents, y, **known)
    monkeypatch.setattr(pool_module, "BLOCK_BYTES", 2**20)
    tracemalloc.start()
    p = Scorer().predict(latents, y, **known)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < number * width * 4  # bytes of the features as they lie on disk: 26 MB
    np.testing.assert_allclose(p, whole, atol=1e-9)
    assert ((p >= 0.5) == truth).mean() > 0.7


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"score": np.full(4, 1.5)}, r"outside \[0, 1\]"),
        ({"score": np.full((2, 4), 0.5)}, r"score has shape \(2, 4\); expected \(4,\)"),
        ({"score": np.full(3, 0.5)}, r"has shape \(3,\); expected \(4,\)"),
        ({"num_voxels": np.full(3, 1)}, r"num_voxels has shape \(3,\); expected \(4,\), one per candidate"),
        ({"num_voxels": np.zeros(4)}, "expected a number above 0"),
        ({"y": np.array([1, 0, 2, 0])}, "y is 2.0 in row 2"),
        ({"X": np.full((4, 2), np.inf)}, r"is not finite in row 0 \(4 such rows\)"),
    ],
)
def test_bad_input_is_named(change, sentence):
    values = {"X": np.zeros((4, 2)), "y": np.array([1, 0, np.nan, np.nan]), "score": np.full(4, 0.5)}
    values |= {"num_voxels": np.ones(4)} | change
    with pytest.raises(InputError, match=sentence):
        Scorer().predict(**values)
    with pytest.raises(InputError, match=sentence):
        Scorer().predict_ensemble(**values)
    with pytest.raises(InputError, match="num_members is 0; expected a whole number of at least 1"):
        Scorer(num_members=0)
