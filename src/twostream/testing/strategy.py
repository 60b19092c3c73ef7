"""The exam of a strategy."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from twostream.base.errors import InputError
from twostream.query import get_strategy
from twostream.query.strategy import Strategy

Streams = dict[str, np.ndarray]


class StrategyExam:
    """What every strategy must do.

    Supply ``name``, under which the strategy is registered, and ``settings`` if it cannot do without any. A strategy
    that fits other streams than "supervised" and "unsupervised" overrides ``pool``.

    Examined: as many rows as were wanted or may be asked, none twice, none that is answered or excluded; pools that are
    empty, short, equal, constant, of one row, answered all alike; that the same pool and seed give the same rows, also
    from one and the same object, whatever the global seeds of numpy and Python, and in whatever order the rows stand
    (unless ``keeps_row_order``); arguments that are not changed; features in half precision, memory-mapped, read-only;
    what the strategy says it needs; NaN; settings as they come from YAML; utilities and reasons.

    Attributes:
        name: as registered.
        settings: keyword arguments of its class.
    """

    name: str
    settings: ClassVar[Mapping[str, Any]] = {}

    def strategy(self, seed: int = 0) -> Strategy:
        return get_strategy(self.name, self.settings, random_state=seed)

    def pool(self, number: int = 60, num_answered: int = 10, seed: int = 0) -> tuple[Streams, np.ndarray, np.ndarray]:
        """Two streams (N, 3) and (N, 5), y (N,) with both answers in turn, probabilities (3, N) of three scorers."""
        rng = np.random.default_rng(seed)
        streams = {"supervised": rng.normal(size=(number, 3)), "unsupervised": rng.normal(size=(number, 5))}
        y = np.full(number, np.nan)
        y[rng.choice(number, num_answered, replace=False)] = np.arange(num_answered) % 2
        return streams, y, rng.random((3, number))

    def ask(self, streams: Streams, y: np.ndarray, p: np.ndarray, batch_size: int, **settings: Any) -> np.ndarray:
        """Rows that a new object chooses."""
        settings = {"position_nm": np.random.default_rng(1).random((len(y), 3))} | settings
        rows: np.ndarray = self.strategy().query(streams, y, batch_size=batch_size, probability=p, **settings)
        return rows

    @pytest.mark.parametrize("batch_size", [1, 7, 12, 50])
    def test_exact_count_without_repeats_among_the_askable(self, batch_size: int) -> None:
        streams, y, p = self.pool()
        excluded = np.zeros(len(y), bool)
        excluded[:5] = True
        rows = self.ask(streams, y, p, batch_size, excluded=excluded)
        askable = np.flatnonzero(np.isnan(y) & ~excluded)
        assert rows.dtype == np.int64 and rows.ndim == 1
        assert len(rows) == len(set(rows.tolist())) == min(batch_size, len(askable))
        assert set(rows.tolist()) <= set(askable.tolist())

    def test_same_seed_same_rows_and_the_pool_untouched(self) -> None:
        streams, y, p = self.pool()
        before = {k: v.copy() for k, v in streams.items()}, y.copy(), p.copy()
        np.testing.assert_array_equal(self.ask(streams, y, p, 9), self.ask(streams, y, p, 9))
        for name in streams:
            np.testing.assert_array_equal(streams[name], before[0][name])
        np.testing.assert_array_equal(y, before[1])
        np.testing.assert_array_equal(p, before[2])

    def test_a_strategy_object_keeps_no_state(self) -> None:
        place = np.random.default_rng(1).random((60, 3))
        strategy, (streams, y, p) = self.strategy(), self.pool()
        rows = strategy.query(streams, y, batch_size=9, probability=p, position_nm=place)
        other = self.pool(seed=5)
        strategy.query(other[0], other[1], batch_size=4, probability=other[2], position_nm=place)
        again = strategy.query(streams, y, batch_size=9, probability=p, position_nm=place)
        np.testing.assert_array_equal(again, rows)

    def test_the_global_seed_is_neither_read_nor_moved(self) -> None:
        streams, y, p = self.pool()
        kept = np.random.get_state()  # noqa: NPY002 - the global state is what is examined
        try:
            found = []
            for seed in (0, 1):
                np.random.seed(seed)  # noqa: NPY002
                random.seed(seed)
                of_library = random.getstate()
                before = np.random.get_state()  # noqa: NPY002
                found.append(self.ask(streams, y, p, 9))
                after = np.random.get_state()  # noqa: NPY002
                assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
                assert random.getstate() == of_library
        finally:
            np.random.set_state(kept)  # noqa: NPY002
        np.testing.assert_array_equal(found[0], found[1])

    def test_the_order_of_the_rows_does_not_matter(self) -> None:
        if self.strategy().keeps_row_order:
            pytest.skip("this strategy sees the rows as they stand")
        streams, y, p = self.pool()
        place, order = np.random.default_rng(1).random((len(y), 3)), np.random.default_rng(2).permutation(len(y))
        rows = self.ask(streams, y, p, 9, position_nm=place)
        moved = {name: array[order] for name, array in streams.items()}
        again = self.ask(moved, y[order], p[:, order], 9, position_nm=place[order])
        assert order[again].tolist() == rows.tolist()

    def test_nothing_need_be_answered(self) -> None:
        streams, y, p = self.pool(30, 0)
        assert len(set(self.ask(streams, y, p, 9).tolist())) == 9

    @pytest.mark.parametrize("answer", [0.0, 1.0])
    def test_all_may_be_answered_alike(self, answer: float) -> None:
        streams, y, p = self.pool()
        y[~np.isnan(y)] = answer
        rows = self.ask(streams, y, p, 9)
        assert len(set(rows.tolist())) == 9 and np.isnan(y[rows]).all()

    def test_empty_and_short_pools(self) -> None:
        streams, y, p = self.pool(8, 8)
        assert len(self.ask(streams, y, p, 3)) == 0
        streams, y, p = self.pool(8, 5)
        assert sorted(self.ask(streams, y, p, 30).tolist()) == np.flatnonzero(np.isnan(y)).tolist()
        assert len(self.ask(streams, y, p, 3, excluded=np.ones(8, bool))) == 0

    def test_one_row(self) -> None:
        streams, y, p = self.pool(1, 0)
        assert self.ask(streams, y, p, 5).tolist() == [0]

    @pytest.mark.parametrize("what", ["all rows equal", "many rows equal", "one cluster", "constant columns"])
    def test_rows_that_do_not_differ_much(self, what: str) -> None:
        streams, y, p = self.pool(40, 6)
        for array in streams.values():
            if what == "all rows equal":
                array[:] = 3
            elif what == "many rows equal":
                array[5:] = array[:5].repeat(7, axis=0)
            elif what == "one cluster":
                array[:] = 100 + 1e-9 * array
            else:
                array[:, :2] = -1
        assert len(set(self.ask(streams, y, p, 20).tolist())) == 20

    def test_probabilities_that_are_all_0_or_1(self) -> None:
        streams, y, p = self.pool()
        for certain in (np.round(p), np.zeros_like(p), np.ones_like(p), np.full_like(p, 0.5)):
            assert len(set(self.ask(streams, y, certain, 20).tolist())) == 20

    def test_one_scorer_or_several(self) -> None:
        streams, y, p = self.pool()
        if self.strategy().needs_ensemble:
            with pytest.raises(InputError, match="needs probabilities by two scorers or more"):
                self.ask(streams, y, p[0], 5)
        else:
            np.testing.assert_array_equal(self.ask(streams, y, p[0], 5), self.ask(streams, y, p[:1], 5))

    def test_it_needs_what_it_says_and_nothing_more(self) -> None:
        streams, y, p = self.pool()
        strategy, place = self.strategy(), np.random.default_rng(1).random((len(y), 3))
        needs_p = strategy.needs_probability or strategy.needs_ensemble
        least: dict[str, Any] = {"probability": p} if needs_p else {}
        least |= {"position_nm": place} if strategy.needs_position else {}
        assert len(strategy.query(streams, y, batch_size=9, **least)) == 9
        for name in least:
            with pytest.raises(InputError, match=f"{name}="):
                strategy.query(streams, y, batch_size=9, **{**least, name: None})

    def test_half_precision_and_files(self, tmp_path: Path) -> None:
        streams, y, p = self.pool()
        streams = {name: array.astype(np.float16) for name, array in streams.items()}
        rows = self.ask(streams, y, p, 9)
        for name, array in streams.items():
            np.save(tmp_path / f"{name}.npy", array)
        mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in streams}
        np.testing.assert_array_equal(self.ask(mapped, y, p, 9), rows)

    def test_nan_is_refused_with_its_row(self) -> None:
        streams, y, p = self.pool()
        name = list(streams)[-1]
        streams[name][17, -1] = np.nan
        with pytest.raises(InputError, match=rf"stream '{name}' is not finite in row 17 \(1 such rows\)"):
            self.ask(streams, y, p, 5)
        streams, y, p = self.pool()
        p[1, 4] = np.nan
        with pytest.raises(InputError, match=r"outside \[0, 1\] or NaN"):
            self.ask(streams, y, p, 5)

    def test_unknown_settings_are_refused(self) -> None:
        with pytest.raises(InputError, match=f"strategy '{self.name}' has no setting 'colour'"):
            get_strategy(self.name, {**self.settings, "colour": 1})

    def test_settings_may_come_from_yaml(self) -> None:
        """There, a tuple is a list; what else would not survive has no place in a settings file."""
        streams, y, p = self.pool()
        place = np.random.default_rng(1).random((len(y), 3))
        plain = get_strategy(self.name, json.loads(json.dumps(self.settings)), random_state=0)
        rows = plain.query(streams, y, batch_size=9, probability=p, position_nm=place)
        np.testing.assert_array_equal(rows, self.ask(streams, y, p, 9))

    def test_utilities_are_nan_where_nothing_may_be_asked(self) -> None:
        streams, y, p = self.pool()
        excluded = np.arange(len(y)) < 5
        rows, utilities = self.strategy().query(
            streams, y, batch_size=5, probability=p, excluded=excluded, position_nm=np.zeros((len(y), 3)),
            return_utilities=True,
        )  # fmt: skip
        assert utilities.shape == y.shape and np.isnan(utilities[excluded | ~np.isnan(y)]).all() and len(rows) == 5

    def test_every_row_has_a_reason_of_plain_values(self) -> None:
        streams, y, p = self.pool()
        selection = self.strategy().suggest(streams, y, batch_size=9, probability=p, position_nm=np.zeros((len(y), 3)))
        assert len(selection.reasons) == len(selection.rows)
        json.dumps(selection.reasons, allow_nan=False)
        assert all(isinstance(note, str) for note in selection.notes)
