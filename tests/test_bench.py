"""The benchmark of strategies: curves, rows that can be resumed, comparisons against scipy and plain forms."""

import json

import numpy as np
import pytest
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from twostream.base.errors import InputError
from twostream.bench.candidates import Candidates
from twostream.bench.compare import IDENTITY, as_text, table
from twostream.bench.efficiency import curve, scores
from twostream.bench.runs import RowsFile
from twostream.bench.summary import areas, compare, holm, mean_ranks
from twostream.query import Scorer


def candidates_of(number=80, num_held_out=20, seed=0):
    rng = np.random.default_rng(seed)
    streams = {"supervised": rng.normal(size=(number, 3)), "unsupervised": rng.normal(size=(number, 4))}
    y = (streams["supervised"][:, 0] + 0.3 * rng.normal(size=number) > 0).astype(float)
    return Candidates(
        streams, rng.random(number), rng.integers(10, 99, number), rng.random((number, 3)), y,
        np.arange(number) < num_held_out,
    )  # fmt: skip


@pytest.mark.parametrize("strategy", ["random", "bald", "two-stream", "random-space", "look-ahead"])
def test_a_curve_has_one_point_for_each_batch(strategy):
    found = candidates_of()
    points = curve(found, strategy, batch_size=7, num_rounds=4, seed=3)
    assert [(p["round"], p["num_answers"]) for p in points] == [(r, 7 * r) for r in range(5)]
    assert points == curve(found, strategy, batch_size=7, num_rounds=4, seed=3)
    assert points[0] == curve(found, "random", batch_size=7, num_rounds=1, seed=9)[0]  # nobody has chosen yet


def test_a_pool_that_is_all_answered_is_right_and_ends_the_curve():
    points = curve(candidates_of(30, 10), "random", batch_size=8, num_rounds=9, seed=0)
    assert [p["num_answers"] for p in points] == [0, 8, 16, 20]
    assert (points[-1]["accuracy"], points[-1]["average_precision"], points[-1]["brier"]) == (1, 1, 0)


def test_what_is_held_out_is_never_asked_about_and_changes_nothing():
    found = candidates_of()
    rng = np.random.default_rng(1)
    moved = Candidates(
        {n: np.where(found.is_held_out[:, None], rng.normal(size=a.shape), a) for n, a in found.streams.items()},
        np.where(found.is_held_out, 0.5, found.score), found.num_voxels, found.position_nm,
        np.where(found.is_held_out, 1 - found.y, found.y), found.is_held_out,
    )  # fmt: skip
    for first, second in zip(
        *(curve(c, "look-ahead", batch_size=5, num_rounds=3, seed=0) for c in (found, moved)), strict=True
    ):
        for name in ("accuracy", "average_precision", "brier"):
            assert first[name] == pytest.approx(second[name])


def test_scores_equal_their_definitions():
    found = candidates_of()
    y = np.where(np.arange(80) % 4 == 1, found.y, np.nan)
    y[found.is_held_out] = np.nan
    p = Scorer().predict(found.streams, y, score=found.score, num_voxels=found.num_voxels, excluded=found.is_held_out)
    right, squares = [], []
    for row in np.flatnonzero(~found.is_held_out):
        known = p[row] if np.isnan(y[row]) else y[row]
        right.append((known >= 0.5) == (found.y[row] == 1))
        squares.append((known - found.y[row]) ** 2)
    got = scores(found, y, p)
    assert got["accuracy"] == pytest.approx(np.mean(right)) and got["brier"] == pytest.approx(np.mean(squares))
    outside = found.is_held_out
    assert got["held_out_auc"] == pytest.approx(roc_auc_score(found.y[outside], p[outside]))
    cost = [-np.log(q if t else 1 - q) for q, t in zip(p[outside], found.y[outside], strict=True)]
    assert got["held_out_log_loss"] == pytest.approx(np.mean(cost))
    alone = scores(candidates_of(60, 0), np.full(60, np.nan), np.full(60, 0.5))
    assert set(alone) == {"accuracy", "average_precision", "brier"}


def test_wrong_answers_are_learned_and_the_truth_is_still_the_truth():
    found = candidates_of(60, 0)
    last = curve(found, "random", batch_size=60, num_rounds=1, seed=0, error_rate=1.0)[-1]
    assert last["accuracy"] == 0
    some = curve(found, "random", batch_size=60, num_rounds=1, seed=0, error_rate=0.2)[-1]["accuracy"]
    assert 0.6 < some < 0.95


def run_of(strategy="random", seed=0, areas_=(0.5, 0.6), **more):
    one = {
        "set": "s", "project": "p", "strategy": strategy, "settings": "{}", "batch_size": 5, "num_rounds": len(areas_),
        "error_rate": 0.0, "seed": seed,
    } | more  # fmt: skip
    return [one | {"round": number, "accuracy": value} for number, value in enumerate((0.1, *areas_))]


class TestRows:
    def test_what_is_written_is_read(self, tmp_path):
        path = tmp_path / "deep" / "rows.jsonl"
        kept = RowsFile(path, IDENTITY)
        kept.add(run_of())
        kept.add(run_of(seed=1))
        again = RowsFile(path, IDENTITY)
        assert again.rows == kept.rows and len(again.rows) == 6
        assert again.has(run_of(seed=1)[0]) and not again.has(run_of(seed=2)[0])

    @pytest.mark.parametrize("cut", [1, 30, 200, 400])
    def test_half_a_run_is_none_and_is_written_again(self, tmp_path, cut):
        path = tmp_path / "rows.jsonl"
        kept = RowsFile(path, IDENTITY)
        kept.add(run_of())
        first = path.stat().st_size
        kept.add(run_of(seed=1))
        path.write_bytes(path.read_bytes()[: first + cut])
        again = RowsFile(path, IDENTITY)
        assert len(again.rows) == 3 and not again.has(run_of(seed=1)[0])
        again.add(run_of(seed=1))
        whole = RowsFile(path, IDENTITY)
        assert len(whole.rows) == 6 and all(json.loads(line) for line in path.read_text().splitlines())

    def test_two_processes_do_not_write_over_each_other(self, tmp_path):
        first, second = RowsFile(tmp_path / "r", IDENTITY), RowsFile(tmp_path / "r", IDENTITY)
        first.add(run_of())
        with pytest.raises(InputError, match="another process has written"):
            second.add(run_of(seed=1))
        assert len(RowsFile(tmp_path / "r", IDENTITY).rows) == 3

    @pytest.mark.parametrize("line", ["nonsense", "{}", "[1]", '{"of": "x"}', '{"of": 1}'])
    def test_another_file_is_refused(self, tmp_path, line):
        path = tmp_path / "rows.jsonl"
        path.write_text(line + "\n")
        with pytest.raises(InputError, match=r"line 1 of .*expected a row of this benchmark"):
            RowsFile(path, IDENTITY)
        assert path.read_text() == line + "\n"


class TestComparisons:
    def test_areas_leave_out_round_0_and_tell_settings_apart(self):
        rows = [*run_of(), *run_of("a"), *run_of("a", settings='{"b": 1}', areas_=(1.0, 1.0))]
        found = areas(rows, "accuracy")
        assert {name: list(runs.values()) for name, runs in found.items()} == {
            "random": [pytest.approx(0.55)], "a": [pytest.approx(0.55)], 'a {"b": 1}': [1.0],
        }  # fmt: skip
        assert areas(rows, "other") == {}

    def test_pairs_are_runs_that_both_have(self):
        rng = np.random.default_rng(0)
        second = {("s", k): float(v) for k, v in enumerate(rng.random(25))}
        first = {run: value + 0.1 + 0.1 * rng.normal() for run, value in second.items()} | {("t", 0): 9.0}
        found, gain = compare(first, second), np.array([first[run] - second[run] for run in second])
        assert (found.num_pairs, found.mean) == (25, pytest.approx(gain.mean()))
        assert found.p == pytest.approx(wilcoxon(gain).pvalue) and found.wins == (gain > 0).mean()
        half = 1.96 * gain.std(ddof=1) / 5
        assert found.low == pytest.approx(gain.mean() - half, abs=0.015)
        assert found.high == pytest.approx(gain.mean() + half, abs=0.015)
        same = compare(second, second)
        assert (same.mean, same.p, same.wins) == (0, 1, 0.5)
        with pytest.raises(ValueError, match="share no run"):
            compare({1: 0.0}, {2: 0.0})

    def test_holm_corrects_the_smallest_most_and_keeps_the_order(self):
        found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9})
        assert found == {"a": pytest.approx(0.04), "c": pytest.approx(0.09), "b": pytest.approx(0.09), "d": 0.9}
        assert holm({"a": 0.6, "b": 0.6}) == {"a": 1, "b": 1}

    def test_ranks_share_ties_and_leave_out_runs_that_one_lacks(self):
        found = {"a": {1: 0.9, 2: 0.5, 3: 0.1}, "b": {1: 0.8, 2: 0.5}, "c": {1: 0.1, 2: 0.1}}
        assert mean_ranks(found) == {"a": 1.25, "b": 1.75, "c": 3.0}

    def test_the_table_puts_the_best_first_beside_random(self):
        rows = [row for seed in range(8) for name, v in (("random", 0.5), ("good", 0.7), ("bad", 0.4))
                for row in run_of(name, seed, (v + 0.01 * seed, v))]  # fmt: skip
        lines = table(rows, "accuracy")
        assert [line["strategy"] for line in lines] == ["good", "random", "bad"]
        assert lines[0]["gain"] == pytest.approx(0.2) and lines[2]["gain"] == pytest.approx(-0.1)
        assert lines[0]["p"] == pytest.approx(2 * wilcoxon([0.2] * 8).pvalue) and "gain" not in lines[1]
        assert [line["rank"] for line in lines] == [1, 2, 3]
        text = as_text(lines, "accuracy")
        assert len(text) == 4 and "+0.2000 [+0.2000, +0.2000]" in text[1] and len(set(map(len, text))) == 1
        with pytest.raises(InputError, match="no row has the score 'held_out_auc'"):
            table(rows, "held_out_auc")
