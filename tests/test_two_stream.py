"""Two-stream: its k-means against scikit-learn's, and what the adaptive variant does beyond the published one."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from test_query import StrategyExam
from threadpoolctl import threadpool_info, threadpool_limits

from twostream.base.errors import InputError
from twostream.query import TwoStream, lloyd, quick
from twostream.query.clustering import nearest
from twostream.query.pool import mean_and_variance
from twostream.query.two_stream import apportion, distance_to


def groups(number, width, num_groups=12, seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_groups, width))
    return centers[rng.integers(num_groups, size=number)] + spread * rng.normal(size=(number, width))


def streams(number=300, seed=0):
    return {"supervised": groups(number, 4, seed=seed), "unsupervised": groups(number, 6, seed=seed + 100)}


def alone(model, features):
    """Fitted on one thread: with more, a tie may come out otherwise."""
    with threadpool_limits(1):
        return model.fit(features)


def quickly(features, k, *, seed, weights=None):
    return quick.kmeans([quick.Problem(features.__getitem__, len(features), len(features), weights)], k, seed=seed)[0]


@pytest.mark.parametrize(
    ("number", "width", "k", "restarts"),
    [(50, 2, 1, 1), (50, 3, 50, 2), (400, 5, 10, 10), (300, 40, 7, 10), (2000, 8, 30, 1), (20_000, 6, 40, 1)],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("held", [0, lloyd.HELD_SCORES])
def test_kmeans_is_that_of_scikit_learn(monkeypatch, number, width, k, restarts, seed, held):
    monkeypatch.setattr(lloyd, "HELD_SCORES", held)
    features = groups(number, width, seed=seed)
    with ThreadPoolExecutor(2) as executor:
        ours = lloyd.kmeans([features], k, seed=seed, restarts=restarts, executor=executor)[0]
    theirs = KMeans(k, random_state=seed, n_init=restarts).fit(features)
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-12)
    assert ours.inertia == pytest.approx(theirs.inertia_, abs=1e-9)


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["normal", "lattice", "far"])
@pytest.mark.parametrize("held", [0, lloyd.HELD_SCORES])
def test_ties_are_left_to_scikit_learn(monkeypatch, ratio, kind, held):
    monkeypatch.setattr(lloyd, "HELD_SCORES", held)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        number, width = int(rng.integers(20, 200)), int(rng.integers(1, 6))
        features = {
            "normal": rng.normal(size=(number, width)),
            "lattice": rng.integers(0, 9, (number, width)).astype(float),
            "far": rng.normal(size=(number, width)) + 1e6,
        }[kind]
        k = min(max(1, int(ratio * number)), len(np.unique(features, axis=0)))
        theirs = alone(KMeans(k, random_state=seed, n_init=2), features).labels_
        np.testing.assert_array_equal(lloyd.kmeans([features], k, seed=seed, restarts=2)[0].labels, theirs)


def test_an_oversize_coarse_cluster_is_read_by_blocks(monkeypatch):
    X, y = streams(600), np.full(600, np.nan)  # noqa: N806
    y[::40] = 1.0
    for settings in ({"exact": False}, {"variant": "adaptive", "share": "spread"}, {"variant": "published"}):
        strategy = TwoStream(num_clusters=(3, 4), **settings)
        whole = strategy.suggest(X, y, batch_size=12)
        with monkeypatch.context() as patch:
            patch.setattr("twostream.query.two_stream.GATHERED_BYTES", 1)
            patch.setattr("twostream.query.pool.BLOCK_BYTES", 3000)
            parts = strategy.suggest(X, y, batch_size=12)
        assert parts.rows.tolist() == whole.rows.tolist()
        assert [r["stands_for"] for r in parts.reasons] == [r["stands_for"] for r in whole.reasons]


def test_kmeans_stops_as_early_as_scikit_learn():
    features = groups(3000, 4, spread=2.0)
    for max_iter, tol in ((1, 0.0), (2, 0.0), (300, 0.05)):
        ours = lloyd.kmeans([features], 9, seed=0, restarts=3, max_iter=max_iter, tol=tol)[0]
        theirs = KMeans(9, random_state=0, n_init=3, max_iter=max_iter, tol=tol).fit(features)
        np.testing.assert_array_equal(ours.labels, theirs.labels_)
        np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-12)


def test_rows_far_from_the_origin_do_not_mislead_single_precision():
    features = groups(2000, 4) * 1e-3 + 1e4
    np.testing.assert_array_equal(
        lloyd.kmeans([features], 8, seed=0, restarts=2)[0].labels,
        KMeans(8, random_state=0, n_init=2).fit(features).labels_,
    )


def test_equal_rows_leave_clusters_without_rows_as_in_scikit_learn():
    features = np.repeat(groups(5, 3), 20, axis=0)
    found = lloyd.kmeans([features], 8, seed=0, restarts=3)[0]
    assert len(np.unique(found.labels)) == 5 and found.inertia == pytest.approx(0, abs=1e-12)
    assert len(np.unique(quickly(features, 8, seed=0).labels)) == 5


@pytest.mark.parametrize("held", [0, lloyd.HELD_SCORES])
def test_problems_side_by_side_are_solved_as_if_alone(monkeypatch, held):
    monkeypatch.setattr(lloyd, "HELD_SCORES", held)
    tied = np.repeat(groups(5, 6), 20, axis=0)  # scikit-learn itself is asked about this one, and about no other
    problems = [groups(400, 6, seed=1), tied, groups(90, 6, seed=2, spread=2.0), groups(8, 6, seed=3) + 100]
    found = lloyd.kmeans(problems, 8, seed=0, restarts=4)
    for features, ours in zip(problems, found, strict=True):
        with warnings.catch_warnings(action="ignore"):
            theirs = alone(KMeans(8, random_state=0, n_init=4), features)
        np.testing.assert_array_equal(ours.labels, theirs.labels_)
        assert ours.inertia == pytest.approx(theirs.inertia_, abs=1e-9)


@pytest.mark.parametrize("kind", [lloyd._HeldScores, lloyd._Margins])
def test_every_look_finds_the_nearest_and_keeps_the_sums(kind):
    problems, rng = [groups(900, 5), groups(300, 5, seed=1)], np.random.default_rng(0)
    data = lloyd._Data(problems, None)
    x = [data.x[rows] for rows in data.rows]
    centers = np.stack([part[rng.choice(len(part), (3, 7), replace=False), :-2] for part in x])
    fit = kind(data, centers)
    for step, gone in ((0.0, None), (0.3, None), (0.001, 4), (1.0, 0), (0.0, 3), (0.1, 0)):
        if gone is not None:
            runs = np.arange(len(fit.problem)) != gone
            fit.keep(runs, runs[fit.run])
        moves = step * rng.normal(size=fit.centers[..., :-1].shape) * (rng.random((*fit.centers.shape[:2], 1)) < 0.5)
        fit.centers = lloyd._for_scores(fit.centers[..., :-1] + moves)
        fit.moved(np.sqrt((moves**2).sum(2)))
        before = fit.label.copy()
        changes = fit.look()
        for run, problem in enumerate(fit.problem):
            label = fit.label[fit.run == run]
            distance2 = ((x[problem][:, None, :-2] - fit.centers[run, :, :-1]) ** 2).sum(2)
            np.testing.assert_array_equal(label, distance2.argmin(1))
            assert changes[run] == (label != before[fit.run == run]).sum()
            np.testing.assert_allclose(fit.sums[run], (label == np.arange(7)[:, None]) @ x[problem], atol=1e-8)
    assert fit.number.tolist() == [2, 3] and len(fit.label) == 1200


def test_of_runs_that_end_alike_the_first_is_best():
    features = np.array([[0.0], [0.1], [5.0], [5.1]])
    fit = lloyd._HeldScores(lloyd._Data([features], None), np.array([[[[-2.0], [2.0]], [[2.0], [-2.0]]]]))
    fit.iterate(10, np.zeros(1))
    best = fit.best(0)
    assert best.number == 0 and best.inertia == pytest.approx(0.01)
    assert [lloyd._by_rows(fit.data.x, end) for end in fit._ends[0]] == pytest.approx([0.01, 0.01])


@pytest.mark.parametrize("held", [0, lloyd.HELD_SCORES])
@pytest.mark.parametrize("features", [[[2.9], [0.1], [-2.9], [-0.1]], [[7, 0], [6, 7], [0, 7], [7, 6]]])
def test_of_runs_that_are_as_good_and_unlike_scikit_learn_says_which(monkeypatch, features, held):
    monkeypatch.setattr(lloyd, "HELD_SCORES", held)
    features = np.array(features, float)
    found = lloyd.kmeans([groups(50, features.shape[1]), features], 2, seed=0, restarts=10)[1]
    np.testing.assert_array_equal(found.labels, alone(KMeans(2, random_state=0, n_init=10), features).labels_)


def test_a_tie_does_not_hang_on_the_number_of_threads(monkeypatch):
    limits = []

    class Seen(KMeans):
        def fit(self, features):
            limits.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"})
            return super().fit(features)

    monkeypatch.setattr(lloyd, "KMeans", Seen)
    tied = np.repeat(groups(5, 3), 200, axis=0)
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lloyd.kmeans, [tied], 8, seed=0, restarts=2).result()
    assert limits == [{1}]


@pytest.mark.parametrize("kind", [lloyd._HeldScores, lloyd._Margins])
def test_single_precision_that_is_not_sure_is_not_believed(monkeypatch, kind):
    """Two heaps far apart: within one of them single precision confuses what is nearly as near."""
    features = groups(3000, 20) * 1e-2
    features[::2] += 1.0
    data = lloyd._Data([features], None)
    centers = data.x[np.random.default_rng(0).choice(3000, (1, 3, 6), replace=False), :-2]
    expected = ((data.x[:, None, None, :-2] - centers[0]) ** 2).sum(3).argmin(2).T
    for is_believed in (False, True):
        if is_believed:
            monkeypatch.setattr(lloyd._Data, "error", lambda self, length2: 0.0)
        fit = kind(data, centers)
        fit.look()
        assert (fit.label.reshape(3, -1) != expected).any() == is_believed


@pytest.mark.parametrize(("number", "width", "k"), [(3000, 8, 10), (30_000, 8, 10), (800, 30, 10), (40_000, 4, 40)])
def test_quick_is_nearly_as_good(number, width, k):
    features = groups(number, width, num_groups=60)
    best = KMeans(k, random_state=0, n_init=10).fit(features).inertia_
    found = quickly(features, k, seed=0)
    explicit = ((features - found.centers[found.labels]) ** 2).sum()
    assert found.inertia == pytest.approx(explicit, rel=1e-4)
    assert explicit < 1.03 * best  # one run of scikit-learn is off by up to four percent here


def test_quick_begins_on_some_columns_and_ends_on_all():
    features = groups(1000, 400, num_groups=8, spread=5.0)
    best = KMeans(8, random_state=0, n_init=10).fit(features).inertia_
    found = quickly(features, 8, seed=0)
    distance2 = ((features[:, None] - found.centers) ** 2).sum(2)
    np.testing.assert_array_equal(found.labels, distance2.argmin(1))
    assert found.inertia < 1.02 * best


@pytest.mark.parametrize(("varying", "expected"), [(100, 100), (300, quick.SOME_COLUMNS)])
def test_columns_that_do_not_vary_are_left_out(varying, expected):
    x = np.full((500, 1000), 7.0)
    x[:, 50 : 50 + varying] = np.random.default_rng(0).normal(size=(500, varying))
    share = quick._Share(quick.Problem(x.__getitem__, 500, 500), 10, seed=0)
    assert share.narrow.shape == (500, quick.SOME_COLUMNS) and (share.narrow.std(0) > 0).sum() == expected


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

    exact = lloyd.kmeans([features], k, seed=0)[0]
    assert inertia(quickly(features, k, seed=0).labels) < 1.05 * inertia(exact.labels)
    distance = nearest(features[:50], features[700:800])[1]
    expected = np.sqrt(((features[:50, None] - features[700:800]) ** 2).sum(2))
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-5)


def test_weights_decide_who_is_in_the_share():
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
    assert quick.rows_at_once(10, 1) == lloyd.ROWS_AT_ONCE
    assert quick.rows_at_once(100, 16) == 2621
    assert quick.rows_at_once(10, 1024) == 256
    assert quick.rows_at_once(20_000, 128) == 128
    assert quick.rows_at_once(300_000, 128) == 13
    assert quick.rows_at_once(10**8, 128) == 1


def test_problems_side_by_side_are_those_one_by_one():
    features = [groups(number, 200, num_groups=6, seed=number) for number in (40, 90, 91, 500, 1800, 3000, 7)]
    problems = [quick.Problem(x.__getitem__, len(x), 1000, np.full(len(x), 2.0)) for x in features]
    for found, problem in zip(quick.kmeans(problems, 6, seed=0), problems, strict=True):
        alone = quick.kmeans([problem], 6, seed=0)[0]
        assert adjusted_rand_score(found.labels, alone.labels) == 1  # a last digit may number them otherwise
        np.testing.assert_allclose(np.sort(found.centers, 0), np.sort(alone.centers, 0), atol=1e-4)
        assert found.inertia == pytest.approx(alone.inertia, rel=1e-4)


def test_what_only_fills_up_is_never_drawn():
    weight = np.array([[0.0, 2.0, 1.0, 0.0], [1e-30, 0.0, 0.0, 0.0], [0.0, 0.0, 1e30, 1e30]], np.float32)
    draws = np.tile([0.0, 0.5, 0.7, 1 - 1e-12], (3, 1))
    assert quick._drawn(weight, draws).tolist() == [[1, 1, 2, 2], [0, 0, 0, 0], [2, 3, 3, 3]]
    assert quick._drawn(np.zeros((2, 3), np.float32), draws[:2]).max() < 3  # all rows alike


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_of_blocks_are_those_of_the_whole(dtype):
    features = (1000 + np.random.default_rng(0).normal(size=(700, 5))).astype(dtype)
    features[:, 2] = 0.1
    mean, variance = mean_and_variance(features[start : start + 64] for start in range(0, 700, 64))
    np.testing.assert_allclose(mean, features.mean(0, dtype=float))
    np.testing.assert_allclose(variance, features.var(0, dtype=float), rtol=1e-6, atol=1e-20)
    assert variance[2] == 0


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_quick_does_not_mind_where_the_origin_is(offset):
    features = groups(5000, 8)
    there, here = quickly(features + offset, 10, seed=0), quickly(features, 10, seed=0)
    assert there.inertia == pytest.approx(here.inertia, rel=0.02)
    explicit = ((features + offset - there.centers[there.labels]) ** 2).sum()
    assert explicit == pytest.approx(there.inertia, rel=0.01)
    index, distance = nearest(features + offset, features[:50] + offset)
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
    with ThreadPoolExecutor(2) as executor:
        labels, found = quick.nearest(x, centers, executor)
    np.testing.assert_array_equal(labels, distance2.argmin(1))
    np.testing.assert_allclose(found, distance2.min(1), atol=1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_distances_to_more_answers_than_fit_at_once(exact, monkeypatch):
    monkeypatch.setattr(quick, "VALUES_AT_ONCE", 500)
    monkeypatch.setattr(quick, "MOST_VALUES", 500)
    assert quick.rows_at_once(90, 3) == 5
    rng = np.random.default_rng(0)
    x, answers = rng.normal(size=(70, 3)), rng.normal(size=(90, 3))
    found = distance_to(x, answers, exact)
    np.testing.assert_allclose(found, np.sqrt(((x[:, None] - answers) ** 2).sum(2)).min(1), atol=1e-3)


class VariantExam(StrategyExam):
    """The exam again, for what the default settings do not touch."""

    __test__ = False
    name = "two-stream"
    settings: ClassVar[dict]

    def strategy(self, seed=0):
        return TwoStream(num_clusters=(4, 3), random_state=seed, **self.settings)


class TestAdaptive(VariantExam):
    __test__ = True
    settings: ClassVar[dict] = {"variant": "adaptive"}


class TestAdaptiveUnsupervisedFirst(VariantExam):
    __test__ = True
    settings: ClassVar[dict] = {"variant": "adaptive", "first": "unsupervised", "share": "even", "random_share": 0.3}


class TestAdaptiveBySpread(VariantExam):
    __test__ = True
    settings: ClassVar[dict] = {"variant": "adaptive", "share": "spread", "standardise": False}


class TestAdaptiveByError(VariantExam):
    __test__ = True
    settings: ClassVar[dict] = {"variant": "adaptive", "share": "error", "weight": "uncertainty"}


class TestAdaptiveOnAShare(VariantExam):
    __test__ = True
    settings: ClassVar[dict] = {"variant": "adaptive", "exact": False}


class TestCorrectedOnAShare(VariantExam):
    __test__ = True
    settings: ClassVar[dict] = {"exact": False}


class TestPublished(VariantExam):
    __test__ = True
    settings: ClassVar[dict] = {"variant": "published"}


def test_columns_count_alike_where_they_are_standardised():
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(5), 40)
    loud = rng.normal(0, 1e3, 200)  # says nothing, and drowns the column that says everything
    telling = np.eye(5)[kind] + rng.normal(0, 0.01, (200, 5))
    X = {"supervised": np.column_stack([loud, telling]), "unsupervised": rng.normal(size=(200, 2))}  # noqa: N806
    label = np.full(200, -1)
    for standardise, purity in ((True, 0.9), (False, 0.5)):
        strategy = TwoStream(num_clusters=(5, 40), variant="adaptive", standardise=standardise)
        selection = strategy.suggest(X, np.full(200, np.nan), batch_size=200)
        label[selection.rows] = [r["coarse"] for r in selection.reasons]
        largest = sum(np.bincount(kind[label == name]).max() for name in np.unique(label)) / 200
        assert (largest > purity) == standardise


def test_adaptive_keeps_away_from_answers_of_other_coarse_clusters_too():
    rng = np.random.default_rng(0)
    coarse = np.repeat([0.0, 50.0], 60)
    fine = np.tile(np.repeat([0.0, 100.0], 30), 2)
    X = {  # noqa: N806
        "supervised": coarse[:, None] + rng.normal(0, 0.1, (120, 1)),
        "unsupervised": fine[:, None] + rng.normal(0, 1, (120, 1)),
    }
    y = np.full(120, np.nan)
    y[:30] = 1.0  # the kind "near 0" of the first coarse cluster is answered, and one of "near 100" of the second
    y[119] = 0.0
    selection = TwoStream(num_clusters=(2, 1), variant="adaptive", standardise=False).suggest(X, y, batch_size=2)
    by_coarse = dict(zip(coarse[selection.rows], fine[selection.rows], strict=True))
    # In the second coarse cluster nobody has looked near 0, but in the first somebody has.
    assert by_coarse[0.0] == 100.0
    assert all(r["distance_to_answer"] is not None for r in selection.reasons)
    near = [np.abs(X["unsupervised"][row] - X["unsupervised"][~np.isnan(y)]).min() for row in selection.rows]
    assert [r["distance_to_answer"] for r in selection.reasons] == pytest.approx(near)


def test_the_batch_is_shared_by_what_is_asked_for():
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1, 2], [200, 50, 50])
    X = {  # noqa: N806
        "supervised": 100.0 * kind[:, None] + rng.normal(0, 0.1, (300, 1)),
        "unsupervised": rng.normal(0, np.array([1.0, 1.0, 4.0])[kind][:, None], (300, 1)),
    }
    p = np.array([0.99, 0.5, 0.99])[kind]
    y = np.full(300, np.nan)

    def counts(**settings):
        strategy = TwoStream(num_clusters=(3, 10), variant="adaptive", standardise=False, **settings)
        return np.bincount(kind[strategy.query(X, y, batch_size=30, probability=p)], minlength=3).tolist()

    assert counts(share="even") == [10, 10, 10]
    assert counts(share="size") == [20, 5, 5]
    assert counts(share="error")[1] > 25
    spread = counts(share="spread")
    assert spread[2] > spread[0] > spread[1]


def test_what_fills_up_is_far_from_the_answers():
    second = np.zeros((400, 2))
    second[200:, 0] = 10
    X, y = {"supervised": np.zeros((400, 2)), "unsupervised": second}, np.full(400, np.nan)  # noqa: N806
    y[0] = 1
    for exact in (True, False):
        rows = TwoStream(num_clusters=(1, 20), variant="adaptive", exact=exact).query(X, y, batch_size=20)
        assert (rows >= 200).sum() >= 19


def test_distances_in_reasons_are_those_to_the_mean_and_to_the_nearest_answer():
    X, y = streams(200), np.full(200, np.nan)  # noqa: N806
    y[:3] = 1
    for exact in (True, False):
        strategy = TwoStream(num_clusters=(1, 1), variant="adaptive", exact=exact, standardise=False)
        selection, x = strategy.suggest(X, y, batch_size=1), X["unsupervised"]
        (reason,), (row,) = selection.reasons, selection.rows
        to_answer = np.sqrt(((x[:, None] - x[:3]) ** 2).sum(2)).min(1)
        far = 3 + np.argsort(to_answer[3:])[-int(197 / (1 + 3)) :]  # one query beside three answers
        assert reason["distance_to_answer"] == pytest.approx(to_answer[row], rel=1e-5)
        assert reason["stands_for"] == len(far)
        assert reason["distance_to_center"] == pytest.approx(np.linalg.norm(x[row] - x[far].mean(0)), rel=1e-4)


def test_a_share_is_said_where_there_is_one():
    X, y = streams(3000), np.full(3000, np.nan)  # noqa: N806
    p = np.random.default_rng(0).random(3000)
    for settings, is_said in (
        ({"exact": False, "num_clusters": (20, 5)}, False),
        ({"exact": False, "num_clusters": (2, 5)}, True),
        ({"exact": True, "num_clusters": (2, 5)}, False),
        ({"exact": True, "num_clusters": (2, 5), "weight": "uncertainty"}, True),
    ):
        strategy = TwoStream(variant="adaptive", **settings)
        batch_size = np.prod(strategy.num_clusters)
        assert bool(strategy.suggest(X, y, batch_size=batch_size, probability=p).notes) == is_said


def test_uncertain_candidates_draw_the_medoids():
    rng = np.random.default_rng(0)
    X = {"supervised": rng.normal(size=(200, 1)), "unsupervised": rng.normal(size=(200, 2))}  # noqa: N806
    p = np.where(X["unsupervised"][:, 0] > 0, 0.5, 0.999)
    y = np.full(200, np.nan)
    plain, weighted = (
        TwoStream(num_clusters=(1, 10), variant="adaptive", weight=weight).query(X, y, batch_size=10, probability=p)
        for weight in ("none", "uncertainty")
    )
    assert (p[weighted] == 0.5).sum() > (p[plain] == 0.5).sum()


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"exact": False}, {"share": "spread"}])
def test_chance_may_take_all_of_a_small_pool(number, settings):
    strategy = TwoStream(num_clusters=(3, 3), variant="adaptive", random_share=0.9, **settings)
    selection = strategy.suggest(streams(number), np.full(number, np.nan), batch_size=8)
    assert sorted(selection.rows) == list(range(number)) and [r["coarse"] for r in selection.reasons] == [-1] * number


def test_a_random_share_is_drawn_at_random():
    X, y = streams(), np.full(300, np.nan)  # noqa: N806
    selection = TwoStream(num_clusters=(2, 5), variant="adaptive", random_share=0.5).suggest(X, y, batch_size=20)
    assert sum(r["coarse"] == -1 for r in selection.reasons) == 10 and len(set(selection.rows.tolist())) == 20


def test_large_pools_are_clustered_on_a_share_and_say_so(tmp_path):
    number = 30_000
    paths = {}
    for name, array in streams(number).items():
        paths[name] = tmp_path / f"{name}.npy"
        np.save(paths[name], array.astype(np.float16))
    X = {name: np.load(path, mmap_mode="r") for name, path in paths.items()}  # noqa: N806
    y = np.full(number, np.nan)
    y[::300] = 1.0
    for variant in ("corrected", "adaptive"):
        selection = TwoStream(num_clusters=(5, 4), variant=variant).suggest(X, y, batch_size=20)
        assert len(set(selection.rows.tolist())) == 20 and np.isnan(y[selection.rows]).all()
        assert selection.notes == ("30000 candidates: cluster centres were found on a share of them",)
    exact = TwoStream(num_clusters=(5, 4), exact=True).suggest(X, y, batch_size=20)
    assert exact.notes == ()


@pytest.mark.parametrize(
    ("weights", "sizes", "batch", "expected"),
    [
        ([1, 1, 1], [9, 9, 9], 7, [3, 2, 2]),
        ([8, 1, 1], [3, 9, 9], 10, [3, 4, 3]),  # what does not fit goes to the others
        ([0, 0, 0], [4, 2, 2], 4, [2, 1, 1]),
        ([1, 0, 0], [2, 5, 5], 6, [2, 2, 2]),
        ([5, 5], [1, 1], 2, [1, 1]),
    ],
)
def test_apportion(weights, sizes, batch, expected):
    assert apportion(np.array(weights, float), sizes, batch) == expected


def test_apportion_never_fails_to_share_out_everything():
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = rng.integers(1, 9, rng.integers(1, 8)).tolist()
        batch = int(rng.integers(1, sum(sizes) + 1))
        budget = apportion(rng.random(len(sizes)) * rng.integers(0, 2, len(sizes)), sizes, batch)
        assert sum(budget) == batch and all(0 <= b <= s for b, s in zip(budget, sizes, strict=True))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"share": "sizes", "variant": "adaptive"}, "share is 'sizes'; expected 'size' or 'even'"),
        ({"weight": "p", "variant": "adaptive"}, "weight is 'p'; expected 'none' or 'uncertainty'"),
        ({"random_share": 1.0, "variant": "adaptive"}, "random_share is 1; expected less"),
        ({"exact": "yes"}, "exact is 'yes'; expected None or True or False"),
        ({"share": "even"}, "share is a setting of variant='adaptive'; the variant is 'corrected'"),
    ],
)
def test_bad_settings_are_named(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        TwoStream(**settings)


def test_a_share_by_error_needs_a_probability():
    with pytest.raises(InputError, match="TwoStream needs a probability"):
        TwoStream(variant="adaptive", share="error").query(streams(), np.full(300, np.nan), batch_size=4)
