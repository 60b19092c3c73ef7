"""The benchmark of strategies: curves, rows that can be resumed, comparisons against scipy and plain forms."""

import json
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.bench.candidates import Candidates
from twostream.bench.compare import IDENTITY, as_text, experiments, table, title
from twostream.bench.cost import Cost
from twostream.bench.efficiency import curve, scores
from twostream.bench.recipes import RECIPES, Recipe, get_recipe, kinds_at, scene_of
from twostream.bench.runs import RowsFile
from twostream.bench.summary import (
    areas,
    compare,
    curves,
    foreground_rate,
    holm,
    mean_ranks,
    needed,
    share_needed,
    win_matrix,
)  # fmt: skip
from twostream.project.records import Answer
from twostream.query import Scorer
from twostream.task.answers import MEANING, AnswerKind
from twostream.volume import open_ignore_mask, open_volume
from twostream.volume.synthetic import Tissue
from twostream.volume.synthetic.sites import KINDS


def candidates_of(number=80, num_held_out=20, seed=0):
    rng = np.random.default_rng(seed)
    streams = {"supervised": rng.normal(size=(number, 3)), "unsupervised": rng.normal(size=(number, 4))}
    y = (streams["supervised"][:, 0] + 0.3 * rng.normal(size=number) > 0).astype(float)
    return Candidates(
        streams, rng.random(number), rng.integers(10, 99, number), rng.integers(1, 9, number), rng.random((number, 3)),
        np.where(y == 1, "true", "shape"), y, np.arange(number) < num_held_out, np.where(y == 1, "good", "bad"),
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
    other = {n: np.where(found.is_held_out[:, None], rng.normal(size=a.shape), a) for n, a in found.streams.items()}
    moved = replace(
        found, streams=other,
        score=np.where(found.is_held_out, 0.5, found.score), y=np.where(found.is_held_out, 1 - found.y, found.y),
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
        "level": "candidates", "set": "s", "side": "", "project": "p", "strategy": strategy,
        "settings": "{}", "batch_size": 5, "num_rounds": len(areas_),
        "error_rate": 0.0, "seed": seed,
    } | more  # fmt: skip
    spent = [
        {
            "num_answers": 5 * n,
            "told": {"true": 2 * n, "shape": 3 * n},
            "further_sections": n,
            "foreground_voxels": 700 * n,
        }
        for n in range(len(areas_) + 1)
    ]
    points = enumerate(zip((0.1, *areas_), spent, strict=True))
    return [one | {"round": number, "accuracy": value} | more for number, (value, more) in points]


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
        found = areas(curves(rows, "accuracy"), "accuracy")
        assert {name: list(runs.values()) for name, runs in found.items()} == {
            "random": [pytest.approx(0.55)], "a": [pytest.approx(0.55)], 'a {"b": 1}': [1.0],
        }  # fmt: skip
        assert curves(rows, "other") == {}

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
        assert lines[0]["answers"][0] < 1 < lines[2]["answers"][0] and "answers" not in lines[1]
        assert lines[0]["foreground"] > 1 > lines[2]["foreground"]
        text = as_text(lines)
        assert len(text) == 4 and "+0.2000 [+0.2000, +0.2000]" in text[1] and len(set(map(len, text))) == 1
        with pytest.raises(InputError, match="no row has the score 'held_out_auc'"):
            table(rows, "held_out_auc")

    def test_each_experiment_has_a_table_of_its_own(self):
        rows = [*run_of(), *run_of("a"), *run_of(batch_size=9), *run_of(side="development"), *run_of(error_rate=0.1)]
        found = experiments(rows)
        assert [len(some) for some in found.values()] == [6, 3, 3, 3]
        said = [title(some, "accuracy") for some in found.values()]
        assert len(set(said)) == 4 and "s, development: 2 batches of 5" in said[2] and "10% of the answers" in said[3]

    def test_what_is_needed_is_the_first_crossing_on_straight_lines(self):
        (points,) = curves(run_of(areas_=(0.5, 0.4, 0.8)), "accuracy")["random"].values()
        fine = np.interp(np.linspace(0, 15, 15001), [0, 5, 10, 15], [0.1, 0.5, 0.4, 0.8])
        for level in (0.1, 0.2, 0.45, 0.5, 0.55, 0.8):
            first = np.linspace(0, 15, 15001)[np.flatnonzero(fine >= level - 1e-9)[0]]
            assert needed(points, "accuracy", level, lambda row: row["num_answers"]) == pytest.approx(first, abs=2e-3)
        with pytest.raises(ValueError, match=r"reaches 0\.9"):
            needed(points, "accuracy", 0.9, lambda row: row["num_answers"])

    def test_a_strategy_that_needs_half_the_answers_needs_half(self):
        fast = curves([r for s in range(4) for r in run_of(seed=s, areas_=(0.5, 0.9, 0.9))], "accuracy")["random"]
        slow = curves([r for s in range(4) for r in run_of(seed=s, areas_=(0.3, 0.5, 0.5))], "accuracy")["random"]
        fast = dict(zip(slow, fast.values(), strict=True))
        ratio = share_needed(fast, slow, "accuracy", lambda row: row["num_answers"])
        assert ratio == pytest.approx((0.5, 0.5, 0.5))  # both reach 0.5: after 5 and after 10 answers
        back = share_needed(slow, fast, "accuracy", lambda row: row["num_answers"])
        assert back == pytest.approx((2, 2, 2))
        level = curves(run_of(areas_=(0.1, 0.05)), "accuracy")["random"]
        assert share_needed(level, level, "accuracy", lambda row: row["num_answers"]) is None

    def test_the_rate_of_an_exponential_is_found(self):
        runs = []
        for start in (0.2, 0.4):
            values = [1 - (1 - start) * np.exp(-0.3 * 0.7 * n) for n in range(5)]
            runs.append([row | {"accuracy": v} for row, v in zip(run_of(areas_=(0.0,) * 4), values, strict=True)])
        assert foreground_rate(runs, "accuracy") == pytest.approx(0.3, rel=1e-4)

    def test_wins_of_both_make_one(self):
        rows = [
            row
            for seed in range(5)
            for name, v in (("random", 0.5), ("a", 0.4 + 0.05 * seed))
            for row in run_of(name, seed, (v,))
        ]
        found = win_matrix(areas(curves(rows, "accuracy"), "accuracy"))
        assert found == {"random": {"a": 0.5}, "a": {"random": 0.5}}


class TestCost:
    def test_seconds_by_kind_and_section(self):
        cost = Cost({"true": 2.0, "shape": 5.0}, per_section=0.5)
        assert cost.of({"true": 3, "shape": 1}, 4) == 3 * 2 + 5 + 4 * 0.5
        assert cost.overridden(["true=1", "section=0"]).of({"true": 3, "shape": 1}, 4) == 3 + 5
        with pytest.raises(InputError, match="'nothing' has no seconds; give some with --seconds nothing=4"):
            cost.of({"nothing": 1}, 0)

    @pytest.mark.parametrize(
        "text, said",
        [("tru=1", "--seconds names 'tru'"), ("true", "--seconds is 'true'"), ("true=-1", "--seconds is 'true=-1'"),
         ("true=nan", "'true=nan'"), ("true=x", "'true=x'"), ("=3", "names ''")],
    )  # fmt: skip
    def test_what_is_no_seconds_is_refused(self, text, said):
        with pytest.raises(InputError, match=said):
            Cost().overridden([text])

    def test_every_kind_about_a_candidate_has_seconds(self):
        kinds = [kind for kind, meaning in MEANING.items() if not np.isnan(meaning.y)]
        assert Cost().of(dict.fromkeys(kinds, 1), 0) > 0

    def test_people_are_measured_and_simulations_are_not(self):
        class Told:
            def answers_after(self, number):
                slow = [Answer(1, AnswerKind.TRUE, "ann", seconds=v) for v in (1, 2, 3, 9, 9)]
                return [*slow, Answer(2, AnswerKind.SHAPE, "ann", seconds=1), Answer(3, "retracted", "ann", seconds=1),
                        *[Answer(3, AnswerKind.TRUE, "simulated", seconds=400)] * 9]  # fmt: skip

        cost = Cost().measured(Told())
        assert cost.of({"true": 1, "shape": 1}, 7) == 3 + Cost().seconds["shape"]
        with pytest.raises(InputError, match="nobody has given 5 answers of one kind"):
            Cost().measured(type("None_", (), {"answers_after": lambda self, number: []})())


def volume_file(path, rows=40, width=300, every=5):
    """An image with small squares as labels, one in ``every`` pixels, and one of them ignored."""
    labels = np.zeros((3, rows, width), np.uint16)
    corners = [(y, x) for y in range(1, rows - 3, every) for x in range(1, width - 3, every)]
    for one, (y, x) in enumerate(corners):
        labels[:, y : y + 3, x : x + 3] = one + 1
    grey = np.random.default_rng(0).integers(0, 255, labels.shape, dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.attrs["voxel_size_nm"] = (40.0, 8.0, 8.0)
        file["image"], file["m"], file["m_ignore"] = grey, labels, (labels == 3).astype(np.uint8)
    return labels


class TestRecipes:
    tiny = Recipe("tiny", "mitochondria", 10, 5, "a.h5", "m", development_rows=20)

    def test_a_side_is_its_rows_and_its_boxes_lie_in_it(self, tmp_path):
        labels = volume_file(tmp_path / "a.h5")
        for side, first in (("development", 0), ("confirmation", 20)):
            made = scene_of(self.tiny, 3, side, tmp_path / side, tmp_path)
            found = open_volume(made.labels)
            assert (found.read(found.box) == labels[:, first : first + 20]).all()
            assert open_ignore_mask(made.labels).read(found.box).sum() == (labels[:, first : first + 20] == 3).sum()
            box = Box.parse(made.labels_box)
            assert made.test_box == "0:3,0:20,200:300" and box.stop_zyx[2] <= 200 - 64
            assert len(np.unique(found.read(box))) > 10 and box.shape_zyx[1] < 20  # it has grown as far as it must

    def test_a_test_volume_lies_beside_with_a_gap_of_which_nothing_is_known(self, tmp_path):
        first = volume_file(tmp_path / "a.h5")
        second = volume_file(tmp_path / "b.h5", every=9)
        recipe = replace(self.tiny, development_rows=0, test_file="b.h5")
        assert recipe.sides == ("confirmation",)
        made = scene_of(recipe, 0, "confirmation", tmp_path / "s", tmp_path)
        found = open_volume(made.labels)
        values, box = found.read(found.box), Box.parse(made.test_box)
        assert box.offset_zyx == (0, 0, 428) and values.shape == (3, 40, 728)
        assert (values[:, :, :300] == first).all() and not values[:, :, 300:428].any()
        assert ((values[:, :, 428:] > 0) == (second > 0)).all() and values[:, :, 428:][second > 0].min() > first.max()
        ignored = open_ignore_mask(made.labels).read(found.box)
        assert ignored[:, :, 300:428].all() and (ignored[:, :, :300] == (first == 3)).all()

    def test_what_cannot_be_made_says_why(self, tmp_path):
        with pytest.raises(InputError, match=r"a\.h5 is not in any folder, as --data is not given"):
            scene_of(self.tiny, 0, "development", tmp_path / "x", None)
        with pytest.raises(InputError, match=r"a\.h5 is not in .*'image' and 'm'"):
            scene_of(self.tiny, 0, "development", tmp_path / "x", tmp_path)
        volume_file(tmp_path / "a.h5", every=40)
        with pytest.raises(InputError, match="more than 10 objects"):
            scene_of(self.tiny, 0, "development", tmp_path / "x", tmp_path)
        with pytest.raises(InputError, match="--recipe is 'fafbb'; expected one of synthetic, fafb"):
            get_recipe("fafbb")
        with pytest.raises(InputError, match="--side is 'development'; vnc has confirmation"):
            RECIPES["vnc"].seeds("development", 3)

    def test_confirmation_seeds_of_tissue_are_apart(self):
        assert RECIPES["synthetic"].seeds("confirmation", 2) == [1000, 1001]
        assert RECIPES["fafb"].seeds("confirmation", 2) == RECIPES["fafb"].seeds("development", 2) == [0, 1]

    def test_the_nearest_contact_gives_the_kind(self):
        tissue, box = Tissue(3), Box.whole((16, 128, 128))
        objects = tissue.objects(box)
        contacts = objects[np.isin(objects["kind"], KINDS)]
        project = SimpleNamespace(image=SimpleNamespace(voxel_size_nm=tissue.voxel_size_nm, shape_zyx=box.shape_zyx))
        at = (contacts["centre_zyx"] + 0.5) * tissue.voxel_size_nm
        assert kinds_at(RECIPES["synthetic"], 3, project, at).tolist() == contacts["kind"].tolist()
        assert kinds_at(RECIPES["synthetic"], 3, project, at[:1] + 9e4).tolist() == ["none"]
        assert kinds_at(RECIPES["fafb"], 3, project, at) is None
