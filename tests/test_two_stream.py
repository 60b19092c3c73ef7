"""Two-stream: what the published script selects, and what the adaptive variant does beyond it."""

import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from twostream.base.errors import InputError
from twostream.query import TwoStream
from twostream.query.budget import apportion, most_of_batch
from twostream.testing import StrategyExam

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from common.published import as_published

GOLDEN = sorted((Path(__file__).parent / "golden").glob("two_stream_*.npz"))


def groups(number, width, num_groups=12, seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_groups, width))
    return centers[rng.integers(num_groups, size=number)] + spread * rng.normal(size=(number, width))


def streams(number=300, seed=0):
    return {"supervised": groups(number, 4, seed=seed), "unsupervised": groups(number, 6, seed=seed + 100)}


def test_an_oversize_coarse_cluster_is_read_by_blocks(monkeypatch):
    X, y = streams(600), np.full(600, np.nan)  # noqa: N806
    y[::40] = 1.0
    for settings in ({"exact": False}, {"variant": "adaptive", "share": "spread"}, {"variant": "published"}):
        strategy = TwoStream(num_clusters=(3, 4), **settings)
        whole = strategy.suggest(X, y, batch_size=12)
        with monkeypatch.context() as patch:
            patch.setattr("twostream.query.stream_features.GROUP_BYTES", 1)
            patch.setattr("twostream.query.pool.BLOCK_BYTES", 3000)
            parts = strategy.suggest(X, y, batch_size=12)
        assert parts.rows.tolist() == whole.rows.tolist()
        assert [r["stands_for"] for r in parts.reasons] == [r["stands_for"] for r in whole.reasons]


SMALL = {"num_clusters": (4, 3)}


class TestAdaptive(StrategyExam):
    name = "two-stream"
    settings: ClassVar = SMALL | {"variant": "adaptive"}


class TestAdaptiveUnsupervisedFirst(StrategyExam):
    name = "two-stream"
    settings: ClassVar = SMALL | {"variant": "adaptive", "first": "unsupervised", "share": "even", "random_share": 0.3}


class TestAdaptiveBySpread(StrategyExam):
    name = "two-stream"
    settings: ClassVar = SMALL | {"variant": "adaptive", "share": "spread", "standardise": False}


class TestAdaptiveByError(StrategyExam):
    name = "two-stream"
    settings: ClassVar = SMALL | {"variant": "adaptive", "share": "error", "weight": "uncertainty"}


class TestAdaptiveLooksAhead(StrategyExam):
    name = "two-stream"
    settings: ClassVar = SMALL | {"variant": "adaptive", "pick": "look-ahead"}


class TestAdaptiveOnAShare(StrategyExam):
    name = "two-stream"
    settings: ClassVar = SMALL | {"variant": "adaptive", "exact": False}


class TestCorrectedOnAShare(StrategyExam):
    name = "two-stream"
    settings: ClassVar = SMALL | {"exact": False}


class TestPublished(StrategyExam):
    name = "two-stream"
    settings: ClassVar = SMALL | {"variant": "published"}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_plain_re_derivation_selects_what_the_script_selects(path):
    data = np.load(path)
    clusters = [int(n) for n in data["clusters"]]
    for name in ("published", "corrected"):
        rows = as_published(
            data["supervised"], data["unsupervised"], data["answered"], *clusters, corrected=name == "corrected"
        )
        np.testing.assert_array_equal(rows, data[name])


@pytest.mark.parametrize("seed", [0, 1])
def test_large_pools_are_selected_as_by_the_script(seed):
    """Above 20,000 rows as well: ``published`` always, ``corrected`` where exact k-means is asked for."""
    X = {"supervised": groups(25_000, 5, seed=seed), "unsupervised": groups(25_000, 9, seed=seed + 7)}  # noqa: N806
    answered = np.random.default_rng(seed).choice(25_000, 400, replace=False)
    y = np.full(25_000, np.nan)
    y[answered] = 1.0
    for settings in ({"variant": "published"}, {"variant": "corrected", "exact": True}):
        rows = TwoStream(num_clusters=(20, 5), **settings).suggest(X, y, batch_size=100)
        corrected = settings["variant"] == "corrected"
        with threadpool_limits(1):
            theirs = as_published(X["supervised"], X["unsupervised"], answered, 20, 5, corrected=corrected)
        np.testing.assert_array_equal(rows.rows, theirs)
        assert rows.notes == ()
    (note,) = TwoStream(num_clusters=(20, 5)).suggest(X, y, batch_size=100).notes
    assert "centres were found on a subsample" in note


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
        assert selection.notes == ("30000 candidates: cluster centres were found on a subsample of them",)
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


def test_before_any_answer_coarse_clusters_share_the_batch_by_size():
    assert most_of_batch([60, 30, 10], None, 10).tolist() == [6, 3, 1]


def test_later_no_cluster_gets_more_than_twice_its_share_by_error():
    assert most_of_batch([60, 30, 10], [1.0, 3.0, 0.0], 10).tolist() == [5, 15, 0]
    assert most_of_batch([60, 3, 10], [1.0, 3.0, 0.0], 10).tolist() == [60, 3, 10]  # 5 and 3 would not be a batch
    assert most_of_batch([6, 5], [0.0, 0.0], 10).tolist() == [6, 5]


def test_looking_ahead_takes_from_every_coarse_cluster_at_first_and_says_which():
    X, y = streams(300), np.full(300, np.nan)  # noqa: N806
    strategy = TwoStream(num_clusters=(5, 4), variant="adaptive", pick="look-ahead")
    found = strategy.suggest(X, y, batch_size=20, probability=np.full(300, 0.8))
    counts = np.bincount([reason["coarse"] for reason in found.reasons], minlength=5)
    assert (counts > 0).all() and set(found.reasons[0]) == {"coarse", "gain", "probability_before"}
    medoids = TwoStream(num_clusters=(5, 4), variant="adaptive")
    medoids = medoids.suggest(X, y, batch_size=20, probability=np.full(300, 0.8))  # p decides the order of the rows
    assert np.bincount([reason["coarse"] for reason in medoids.reasons], minlength=5).tolist() == counts.tolist()
    y[found.rows] = np.arange(20) % 2
    again = strategy.suggest(X, y, batch_size=20, probability=np.full(300, 0.8))
    assert not set(again.rows) & set(found.rows) and np.isfinite(again.utilities).sum() == 280


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
        ({"exact": False, "variant": "published"}, "'published' is exact at every size"),
        ({"share": "even"}, "share is a setting of variant='adaptive'; the variant is 'corrected'"),
    ],
)
def test_bad_settings_are_named(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        TwoStream(**settings)


def test_a_share_by_error_needs_a_probability():
    with pytest.raises(InputError, match="TwoStream needs a probability"):
        TwoStream(variant="adaptive", share="error").query(streams(), np.full(300, np.nan), batch_size=4)
