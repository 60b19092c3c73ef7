"""k-means: exact is scikit-learn's own, on a subsample it is nearly as good; distances and medoids."""

from threading import get_ident

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from test_two_stream import groups
from threadpoolctl import threadpool_info, threadpool_limits

from twostream.query.kmeans import distances, exact, subsampled
from twostream.query.kmeans.distances import distance_to_nearest, nearest_with_distance
from twostream.query.kmeans.exact import exact_kmeans
from twostream.query.kmeans.problem import Problem
from twostream.query.kmeans.solve import medoids
from twostream.query.kmeans.subsampled import subsampled_batches, subsampled_kmeans
from twostream.query.pool import mean_and_variance
from twostream.query.workers import Workers


def exactly(problems, k, *, seed, **settings):
    with Workers() as workers:
        return exact_kmeans(
            [Problem.of(x) for x in problems], [k] * len(problems), seed=seed, workers=workers, **settings
        )


def quickly(features, k, *, seed, weights=None):
    return subsampled_kmeans([Problem.of(features, weights)], k, seed=seed)[0]


@pytest.mark.parametrize(("number", "width", "k", "restarts"), [(50, 3, 50, 2), (400, 5, 10, 10), (2000, 8, 30, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_kmeans_is_that_of_scikit_learn(number, width, k, restarts, dtype):
    features = [groups(number, width, seed=seed).astype(dtype) for seed in range(3)]
    found = exactly(features, k, seed=5, restarts=restarts, max_iter=200)
    with threadpool_limits(1):
        theirs = [KMeans(k, random_state=5, n_init=restarts, max_iter=200).fit(x) for x in features]
    for ours, model in zip(found, theirs, strict=True):
        np.testing.assert_array_equal(ours.labels, model.labels_)
        np.testing.assert_array_equal(ours.centers, model.cluster_centers_)
        assert ours.inertia == model.inertia_


def test_every_problem_is_solved_on_one_thread(monkeypatch):
    """Sums in the same order on any number of cores, and no core waits for another."""
    seen = {}

    class Seen(KMeans):
        def fit(self, features):
            seen[len(features)] = {library["num_threads"] for library in threadpool_info()}
            return super().fit(features)

    monkeypatch.setattr(exact, "KMeans", Seen)
    before = {library["filepath"]: library["num_threads"] for library in threadpool_info()}
    exactly([groups(200 + i, 3) for i in range(6)], 4, seed=0)
    assert len(seen) == 6 and set().union(*seen.values()) == {1}
    assert {library["filepath"]: library["num_threads"] for library in threadpool_info()} == before


def test_workers_pass_errors_on_and_keep_the_order():
    with Workers() as workers:
        assert workers.map(lambda i: i * i, range(50)) == [i * i for i in range(50)]
        with pytest.raises(ZeroDivisionError):
            workers.map(lambda i: 1 // i, [1, 0])
        assert get_ident() not in workers.map(lambda _: get_ident(), range(4))


def test_equal_rows_leave_clusters_without_rows():
    features = np.repeat(groups(5, 3), 20, axis=0)
    (found,) = exactly([features], 8, seed=0, restarts=3)  # scikit-learn's warning is not passed on
    assert len(np.unique(found.labels)) == 5 and found.inertia == pytest.approx(0, abs=1e-12)
    assert len(np.unique(quickly(features, 8, seed=0).labels)) == 5


def test_medoids_and_rows_that_fill_up():
    distance2 = np.array([3.0, 1.0, 2.0, 0.5, 0.5, 9.0])
    labels = np.array([2, 2, 0, 0, 0, 2], np.int32)
    rows, clusters, sizes = medoids(distance2, labels, 2)
    assert rows.tolist() == [3, 1] and clusters.tolist() == [0, 2] and sizes.tolist() == [3, 3]
    rows, clusters, sizes = medoids(distance2, labels, 4)
    assert rows.tolist() == [3, 1, 5, 4] and clusters.tolist() == [0, 2, -1, -1] and sizes.tolist() == [3, 3, 1, 1]


def test_batches_are_those_one_by_one():
    ks = [3, 5, 3, 4, 5, 3, 3]
    # Groups far apart, so that no row is nearly as near to another centre, and no last digit decides.
    problems = [Problem.of(groups(100 + 50 * i, 4, num_groups=k, seed=i, spread=0.02)) for i, k in enumerate(ks)]
    with Workers() as workers:
        found = subsampled_batches(problems, ks, seed=0, workers=workers)
    for solution, problem, k in zip(found, problems, ks, strict=True):
        alone = subsampled_kmeans([problem], k, seed=0)[0]
        assert len(solution.centers) == k
        np.testing.assert_array_equal(solution.labels, alone.labels)


@pytest.mark.parametrize(("number", "width", "k"), [(3000, 8, 10), (30_000, 8, 10), (800, 30, 10), (40_000, 4, 40)])
def test_a_subsample_is_nearly_as_good(number, width, k):
    features = groups(number, width, num_groups=60)
    best = KMeans(k, random_state=0, n_init=10).fit(features).inertia_
    explicit = []
    for seed in range(5):
        found = quickly(features, k, seed=seed)
        explicit.append(((features - found.centers[found.labels]) ** 2).sum())
        assert found.inertia == pytest.approx(explicit[-1], rel=1e-4)
    # The median: one run, of scikit-learn as well, is off by up to four percent here.
    assert np.median(explicit) < 1.03 * best


def test_the_search_begins_on_some_columns_and_ends_on_all():
    features = groups(1000, 400, num_groups=8, spread=5.0)
    best = KMeans(8, random_state=0, n_init=10).fit(features).inertia_
    found = quickly(features, 8, seed=0)
    distance2 = ((features[:, None] - found.centers) ** 2).sum(2)
    np.testing.assert_allclose(distance2[np.arange(1000), found.labels], distance2.min(1), rtol=1e-5)
    assert found.inertia < 1.02 * best


@pytest.mark.parametrize(("varying", "expected"), [(100, 100), (300, subsampled.SOME_COLUMNS)])
def test_columns_that_do_not_vary_are_left_out(varying, expected):
    x = np.full((500, 1000), 7.0)
    x[:, 50 : 50 + varying] = np.random.default_rng(0).normal(size=(500, varying))
    sample = subsampled._Subsample(Problem.of(x), 10, seed=0)
    assert sample.narrow.shape == (500, subsampled.SOME_COLUMNS) and (sample.narrow.std(0) > 0).sum() == expected


def test_rare_kinds_far_away_are_seen_wherever_they_stand():
    rng = np.random.default_rng(0)
    rare = [rng.normal(size=(10, 8)) + 300 * rng.normal(size=8) for _ in range(8)]
    for features in (
        np.concatenate([rng.normal(size=(30_000, 8)), *rare]),
        np.concatenate([*rare, rng.normal(size=(30_000, 8))]),
    ):
        best = KMeans(12, random_state=0).fit(features).inertia_
        assert quickly(features, 12, seed=0).inertia < 1.02 * best


def test_heavy_tails_are_clustered_as_well():
    rng = np.random.default_rng(0)
    features = np.column_stack([1e7 * rng.lognormal(0, 1.5, 30_000), rng.normal(size=(30_000, 7))])  # a raw volume
    best = KMeans(10, random_state=0).fit(features).inertia_
    assert quickly(features, 10, seed=0).inertia < 1.1 * best


@pytest.mark.parametrize("far", [1e5, 1e7])
@pytest.mark.parametrize(("number", "k"), [(30_000, 100), (1000, 30)])
def test_one_row_far_away_leaves_the_others_their_clusters(far, number, k):
    features = groups(number, 16, num_groups=3 * k)
    features[777, 3] = far
    others = np.arange(len(features)) != 777

    def inertia(labels):
        left, labels = features[others], labels[others]
        return sum(((left[labels == c] - left[labels == c].mean(0)) ** 2).sum() for c in np.unique(labels))

    best = exactly([features], k, seed=0)[0]
    assert inertia(quickly(features, k, seed=0).labels) < 1.05 * inertia(best.labels)
    distance = nearest_with_distance(features[:50], features[700:800])[1]
    expected = np.sqrt(((features[:50, None] - features[700:800]) ** 2).sum(2))
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-5)


def test_weights_decide_which_rows_are_drawn():
    rng = np.random.default_rng(0)
    features = groups(50_000, 16, num_groups=60)
    weights = np.where(rng.random(50_000) < 0.01, 0.7, 1e-6)
    found = quickly(features, 10, seed=0, weights=weights)
    distance2 = ((features - found.centers[found.labels]) ** 2).sum(1)
    assert found.inertia == pytest.approx(weights @ distance2, rel=1e-3)
    best = KMeans(10, random_state=0, n_init=10).fit(features, sample_weight=weights).inertia_
    assert found.inertia < 1.04 * best


def test_the_last_step_is_with_all_rows():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(30_000, 3)), rng.random(30_000)
    for w in (np.ones(30_000), weights):
        found = quickly(features, 1, seed=0, weights=w)
        mean = np.average(features, axis=0, weights=w)
        np.testing.assert_allclose(found.centers[0], mean, atol=1e-5)
        assert found.inertia == pytest.approx(w @ ((features - mean) ** 2).sum(1), rel=1e-5)


def test_blocks_are_neither_too_small_nor_too_large():
    assert distances.rows_at_once(10, 1) == distances.ROWS_AT_ONCE
    assert distances.rows_at_once(100, 16) == 2621
    assert distances.rows_at_once(10, 1024) == 256
    assert distances.rows_at_once(20_000, 128) == 128
    assert distances.rows_at_once(300_000, 128) == 13
    assert distances.rows_at_once(10**8, 128) == 1


def test_problems_side_by_side_are_those_one_by_one():
    features = [groups(number, 200, num_groups=6, seed=number) for number in (40, 90, 91, 500, 1800, 3000, 7)]
    problems = [Problem(x.__getitem__, len(x), 1000, np.full(len(x), 2.0)) for x in features]
    for found, problem in zip(subsampled_kmeans(problems, 6, seed=0), problems, strict=True):
        alone = subsampled_kmeans([problem], 6, seed=0)[0]
        assert adjusted_rand_score(found.labels, alone.labels) == 1  # a last digit may number them otherwise
        np.testing.assert_allclose(np.sort(found.centers, 0), np.sort(alone.centers, 0), atol=1e-4)
        assert found.inertia == pytest.approx(alone.inertia, rel=1e-4)


def test_rows_that_only_fill_up_are_never_drawn():
    weight = np.array([[0.0, 2.0, 1.0, 0.0], [1e-30, 0.0, 0.0, 0.0], [0.0, 0.0, 1e30, 1e30]], np.float32)
    draws = np.tile([0.0, 0.5, 0.7, 1 - 1e-12], (3, 1))
    assert subsampled._drawn(weight, draws).tolist() == [[1, 1, 2, 2], [0, 0, 0, 0], [2, 3, 3, 3]]
    assert subsampled._drawn(np.zeros((2, 3), np.float32), draws[:2]).max() < 3  # all rows alike


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_large_offset_changes_nothing(offset):
    features = groups(5000, 8)
    there, here = quickly(features + offset, 10, seed=0), quickly(features, 10, seed=0)
    assert there.inertia == pytest.approx(here.inertia, rel=0.02)
    explicit = ((features + offset - there.centers[there.labels]) ** 2).sum()
    assert explicit == pytest.approx(there.inertia, rel=0.01)
    index, distance = nearest_with_distance(features + offset, features[:50] + offset)
    exact = np.sqrt(((features[:, None] - features[:50]) ** 2).sum(2))
    np.testing.assert_allclose(distance, exact.min(1), atol=1e-3)
    assert (index == exact.argmin(1)).mean() > 0.999


def test_weights_draw_centres():
    features = np.array([[0.0], [1.0], [10.0], [11.0]])
    heavy = quickly(features, 2, seed=0, weights=np.array([1.0, 3.0, 1.0, 1.0]))
    assert sorted(heavy.centers.ravel().tolist()) == pytest.approx([0.75, 10.5])
    only = quickly(features, 1, seed=0, weights=np.array([0.0, 0.0, 0.0, 2.0]))
    assert only.centers.ravel().tolist() == [11.0] and only.inertia == pytest.approx(0)


def test_nearest_agrees_with_all_distances():
    rng = np.random.default_rng(0)
    x, centers = rng.normal(size=(20_000, 5)), rng.normal(size=(7, 5))
    distance2 = ((x[:, None] - centers) ** 2).sum(2)
    with Workers() as workers:
        labels, found = distances.nearest(x, centers, workers)
    np.testing.assert_allclose(distance2[np.arange(20_000), labels], distance2.min(1), atol=1e-4)
    np.testing.assert_allclose(found, distance2.min(1), atol=1e-4)


@pytest.mark.parametrize("is_exact", [True, False])
def test_distances_to_more_answers_than_fit_at_once(is_exact, monkeypatch):
    monkeypatch.setattr(distances, "VALUES_AT_ONCE", 500)
    monkeypatch.setattr(distances, "MOST_VALUES", 500)
    assert distances.rows_at_once(90, 3) == 5
    rng = np.random.default_rng(0)
    x, answers = rng.normal(size=(70, 3)), rng.normal(size=(90, 3))
    found = distance_to_nearest(x, answers, exact=is_exact)
    np.testing.assert_allclose(found, np.sqrt(((x[:, None] - answers) ** 2).sum(2)).min(1), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_of_blocks_are_those_of_the_whole(dtype):
    features = (1000 + np.random.default_rng(0).normal(size=(700, 5))).astype(dtype)
    features[:, 2] = 0.1
    mean, variance = mean_and_variance(features[start : start + 64] for start in range(0, 700, 64))
    np.testing.assert_allclose(mean, features.mean(0, dtype=float))
    np.testing.assert_allclose(variance, features.var(0, dtype=float), rtol=1e-6, atol=1e-20)
    assert variance[2] == 0
