"""Strategies: the published selections, and ours take the exam of a strategy."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from twostream.base.errors import InputError
from twostream.query import STRATEGIES, Entropy, Random, Scorer, TwoStream, get_strategy, register_strategy
from twostream.query.budget import share_budget
from twostream.query.strategy import Strategy
from twostream.testing import StrategyExam

GOLDEN = sorted((Path(__file__).parent / "golden").glob("two_stream_*.npz"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_the_published_selections_are_matched_exactly(path, variant):
    data = np.load(path)
    y = np.full(len(data["supervised"]), np.nan)
    y[data["answered"]] = 1.0
    coarse, fine = (int(n) for n in data["clusters"])
    X = {"supervised": data["supervised"], "unsupervised": data["unsupervised"]}  # noqa: N806
    strategy = TwoStream(num_clusters=(coarse, fine), variant=variant)
    np.testing.assert_array_equal(strategy.query(X, y, batch_size=coarse * fine), data[variant])


class TestTwoStreamExam(StrategyExam):
    name = "two-stream"
    settings: ClassVar = {"num_clusters": (4, 3)}


class TestRandomExam(StrategyExam):
    name = "random"


class TestRandomSpaceExam(StrategyExam):
    name = "random-space"


class TestEntropyExam(StrategyExam):
    name = "entropy"


class TestMarginExam(StrategyExam):
    name = "margin"


class TestLeastConfidentExam(StrategyExam):
    name = "least-confident"


class TestBaldExam(StrategyExam):
    name = "bald"


class TestClaspPeExam(StrategyExam):
    name = "clasp-pe"


class TestLookAheadExam(StrategyExam):
    name = "look-ahead"


class TestCoreSetExam(StrategyExam):
    name = "core-set"


class TestKMeansExam(StrategyExam):
    name = "k-means"


class TestWeightedKMeansExam(StrategyExam):
    name = "weighted-k-means"


class TestBadgeExam(StrategyExam):
    name = "badge"


class TestTypiClustExam(StrategyExam):
    name = "typiclust"


class TestProbCoverExam(StrategyExam):
    name = "probcover"


class TestProbCoverOfAShareExam(StrategyExam):
    name = "probcover"
    settings: ClassVar = {"max_rows": 20}


class TestSkActiveMLExam(StrategyExam):
    name = "skactiveml"
    settings: ClassVar = {"name": "CoreSet"}


class TestSubSamplingExam(StrategyExam):
    name = "sub-sampling"
    settings: ClassVar = {"strategy": "core-set", "max_rows": 20}


def test_every_registered_strategy_takes_the_exam():
    assert {cls.name for cls in StrategyExam.__subclasses__()} == set(STRATEGIES)


def test_two_stream_asks_one_of_each_kind():
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(6), 20)  # 2 coarse x 3 fine
    streams = {
        "supervised": np.stack([kind // 3 * 10.0, kind * 0.0], 1) + rng.normal(0, 0.1, (120, 2)),
        "unsupervised": np.stack([kind % 3 * 10.0, kind * 0.0], 1) + rng.normal(0, 0.1, (120, 2)),
    }
    selection = TwoStream(num_clusters=(2, 3)).suggest(streams, np.full(120, np.nan), batch_size=6)
    assert sorted(kind[selection.rows].tolist()) == [0, 1, 2, 3, 4, 5]
    assert all(reason["stands_for"] == 20 and reason["distance_to_answer"] is None for reason in selection.reasons)


def test_the_two_orders_swap_the_streams():
    rng = np.random.default_rng(0)
    a, b, y = rng.normal(size=(80, 3)), rng.normal(size=(80, 3)), np.full(80, np.nan)
    one = TwoStream(num_clusters=(4, 3), first="supervised").query(
        {"supervised": a, "unsupervised": b}, y, batch_size=12
    )
    other = TwoStream(num_clusters=(4, 3), first="unsupervised").query(
        {"supervised": b, "unsupervised": a}, y, batch_size=12
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("sizes", "batch", "fine", "expected"),
    [
        ([10, 10, 10], 6, 2, [2, 2, 2]),
        ([1, 10, 10], 6, 2, [1, 3, 2]),  # what is left goes to the first of the largest
        ([1, 4, 10], 9, 3, [1, 4, 4]),
        ([1, 3, 10], 9, 3, [1, 3, 5]),
        ([3, 5, 9], 2, 1, [0, 1, 1]),  # more clusters than queries: the largest are asked
    ],
)
def test_budget_is_shared_as_published(sizes, batch, fine, expected):
    assert share_budget(sizes, batch, fine) == expected


def test_entropy_asks_what_is_least_certain():
    p = np.array([0.01, 0.5, 0.9, 0.45, 0.99])
    assert Entropy().query(np.zeros((5, 1)), np.full(5, np.nan), batch_size=2, probability=p).tolist() == [1, 3]


def test_random_is_uniform():
    counts = np.zeros(10)
    for seed in range(2000):
        counts[Random(random_state=seed).query(np.zeros((10, 1)), np.full(10, np.nan), batch_size=3)] += 1
    assert abs(counts - 600).max() < 100  # five standard deviations


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected a whole number of at least 1"),
        ({"y": np.array([0.5] * 4)}, "y is 0.5 in row 0; expected 1, 0, or NaN"),
        ({"y": np.full(3, np.nan)}, r"has shape \(4, 2\); expected \(3, D\)"),
        ({"probability": np.array([0.5, 2.0, 0, 0])}, r"outside \[0, 1\]"),
        ({"probability": np.zeros(3)}, r"probability has shape \(3,\); expected \(4,\) or \(M, 4\)"),
        ({"excluded": np.zeros(3, bool)}, r"excluded has shape \(3,\)"),
        ({"excluded": np.zeros(4, int)}, r"excluded has dtype int64; expected bool"),
        ({"position_nm": np.zeros((4, 2))}, r"position_nm has shape \(4, 2\); expected \(4, 3\)"),
        ({"X": np.array([["a"]] * 4)}, r"stream 'features' has dtype <U1; expected numbers"),
        ({"batch_size": 2.0}, r"batch_size is 2.0; expected a whole number"),
    ],
)
def test_bad_input_is_named(change, sentence):
    values = {"X": np.zeros((4, 2)), "y": np.full(4, np.nan), "batch_size": 2} | change
    with pytest.raises(InputError, match=sentence):
        Random().query(**values)


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="Entropy needs a probability"):
        Entropy().query(np.zeros((4, 2)), np.full(4, np.nan), batch_size=1)
    with pytest.raises(InputError, match="expected X = "):
        TwoStream().query(np.zeros((4, 2)), np.full(4, np.nan), batch_size=1)
    with pytest.raises(InputError, match="variant is 'adaptiv'"):
        TwoStream(variant="adaptiv")
    with pytest.raises(InputError, match="strategy is 'best'; expected one of"):
        get_strategy("best")
    with pytest.raises(InputError, match="strategy 'random' has no setting 'clusters'"):
        get_strategy("random", {"clusters": 3})
    for bad in ([2.5, 1], ["a", 2], [3], 0):
        with pytest.raises(InputError, match="expected two whole numbers"):
            TwoStream(num_clusters=bad)
    with pytest.raises(InputError, match="D >= 1"):
        Random().query(np.zeros((4, 0)), np.full(4, np.nan), batch_size=1)


def test_a_strategy_of_ones_own():
    @register_strategy("first-come")
    class FirstCome(Strategy):
        def _select(self, pool, batch_size, rng):
            from twostream.query import Selection

            return Selection(pool.askable[:batch_size], np.full(len(pool.y), np.nan))

    try:
        assert get_strategy("first-come").query(
            np.zeros((3, 1)), np.array([1, np.nan, np.nan]), batch_size=5
        ).tolist() == [1, 2]
    finally:
        del STRATEGIES["first-come"]


class TestScorer:
    def test_it_is_the_score_of_s_until_the_first_answer(self):
        score, y = np.array([0.2, 0.9, 0.5]), np.full(3, np.nan)
        np.testing.assert_array_equal(Scorer().predict(np.zeros((3, 1)), y, score=score, num_voxels=np.ones(3)), score)

    def test_then_it_learns(self):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(300, 4))  # noqa: N806
        truth = (X[:, 0] > 0).astype(float)
        y = np.where(np.arange(300) < 60, truth, np.nan)
        p = Scorer().predict(X, y, score=np.full(300, 0.5), num_voxels=np.full(300, 9))
        assert ((p[60:] > 0.5) == (truth[60:] == 1)).mean() > 0.9


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        (
            "two-stream",
            {"random_share": "abc", "variant": "adaptive"},
            "random_share is 'abc'; expected a number from 0",
        ),
        (
            "two-stream",
            {"variant": "adaptive", "pick": "look-ahead", "share": "error"},
            "share is a setting of pick='medoids'",
        ),
        ("two-stream", {"pick": "look-ahead"}, "pick is a setting of variant='adaptive'"),
        ("two-stream", {"num_clusters": (np.inf, 2)}, "expected two whole numbers"),
        ("two-stream", {"num_clusters": (True, 2)}, "expected two whole numbers"),
        ("sub-sampling", {"strategy": [1]}, r"strategy is \[1\]; expected one of"),
        ("sub-sampling", {"strategy": "random", "settings": 5}, "settings of random is 5; expected a mapping"),
        ("skactiveml", {"name": "CoreSet", "settings": "abc"}, "settings is 'abc'; expected a mapping"),
        ("random", 5, "settings of random is 5; expected a mapping"),
    ],
)
def test_settings_of_the_wrong_kind_are_named(name, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        get_strategy(name, settings)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "a", None, True])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(InputError, match=r"random_state is .*; expected a whole number from 0 to"):
        Random(random_state=seed)


def test_the_type_of_the_features_does_not_matter():
    values = np.random.default_rng(0).integers(-4, 5, (300, 3)).astype(np.float32)
    y = np.full(300, np.nan)
    rows = Random().query(values, y, batch_size=9)
    for same in (values.astype(np.float64), values.astype(">f4"), values.astype(np.float16), values.astype(int)):
        np.testing.assert_array_equal(Random().query(same, y, batch_size=9), rows)
    np.testing.assert_array_equal(Random().query(np.where(values == 0, -0.0, values), y, batch_size=9), rows)


def test_equal_features_with_other_probabilities_keep_their_order():
    rng = np.random.default_rng(0)
    X, p, order = np.repeat(rng.normal(size=(4, 3)), 50, axis=0), rng.random(200), rng.permutation(200)  # noqa: N806
    y = np.full(200, np.nan)
    for name in ("badge", "clasp-pe"):
        ask = get_strategy(name).query
        moved = order[ask(X[order], y, batch_size=9, probability=p[order])]
        assert moved.tolist() == ask(X, y, batch_size=9, probability=p).tolist()


def test_as_many_scorers_as_candidates_are_not_taken_for_candidates():
    rng = np.random.default_rng(0)
    X, p, order = np.zeros((20, 2)), rng.random((20, 20)), rng.permutation(20)  # noqa: N806
    rows = Random().query(X, np.full(20, np.nan), batch_size=5, probability=p)
    moved = order[Random().query(X, np.full(20, np.nan), batch_size=5, probability=p[:, order])]
    assert moved.tolist() == rows.tolist()


def test_what_would_overflow_is_refused():
    X = np.ones((5, 2))  # noqa: N806
    X[3, 1] = 1e18
    with pytest.raises(InputError, match=r"is not below 1e[+]15 in row 3"):
        Random().query(X, np.full(5, np.nan), batch_size=1)


def test_a_strategy_is_not_replaced_by_another_of_its_name():
    with pytest.raises(InputError, match="the strategy 'random' exists already"):

        @register_strategy("random")
        class Mine(Strategy):
            pass

    assert STRATEGIES["random"].__name__ == "Random"
    for name in ("Bad Name !", "", "Upper"):
        with pytest.raises(InputError, match="lower-case words joined by hyphens"):
            register_strategy(name)
