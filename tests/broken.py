"""Implementations with one fault each, and the test of the exam that must find it; run by test_exams.py."""

import itertools
import json
import math
import pickle
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from twostream.base.errors import LedgerError, VolumeError
from twostream.project.answer_log import LoggedAnswer
from twostream.project.ledger import Ledger
from twostream.project.records import Verdict
from twostream.query import Selection, Strategy, register_strategy
from twostream.query.pool import spread_out
from twostream.task import DecodingConfig, Judgement, Mitochondria, SynapsePolarity
from twostream.task.answers import AnswerKind
from twostream.testing import ExecutorExam, LedgerExam, StrategyExam, TaskExam, VolumeExam
from twostream.volume import Volume, register_format
from twostream.volume.execution import Executor, InProcess
from twostream.volume.uri import Uri
from twostream.volume.volume import Metadata

# -- volumes ------------------------------------------------------------------------------------------------------


class Faultless(Volume):
    """A format without a fault: a .npy file and a .json file; the faulty ones below change one method."""

    def __init__(self, uri, voxel_size_nm=None):
        self.uri, self.path = uri, Path(Uri.parse(uri).path)
        self.load(voxel_size_nm)
        self.num_channels = self.array.shape[0] if self.array.ndim == 4 else 0
        self.shape_zyx, self.dtype = self.array.shape[-3:], self.array.dtype

    def load(self, voxel_size_nm):
        try:
            self.array = np.load(self.path, mmap_mode="r")
            stored = tuple(json.loads(self.path.with_suffix(".json").read_text()))
        except (OSError, EOFError, ValueError) as error:
            raise VolumeError(f"{self.uri}: {error!r}") from None
        self.voxel_size_nm, place = stored[:3], stored[3:]
        self.offset_nm = place or None
        self.metadata = Metadata(("c", "z", "y", "x")[-self.array.ndim :], "", "json", "json" if place else "")
        if voxel_size_nm is not None and tuple(voxel_size_nm) != stored[:3]:
            raise VolumeError(f"{self.uri} has {stored[:3]}; expected Z, Y, X as passed.")

    def _read(self, box):
        return np.array(self.array[(..., *box.slices)])

    def __reduce__(self):
        return type(self), (self.uri,)


class FaultlessExam(VolumeExam):
    kind: type

    def make(self, folder, array, voxel_size_nm, offset_nm=None):
        np.save(folder / "a.npy", array)
        (folder / "a.json").write_text(json.dumps([*voxel_size_nm, *(offset_nm or ())]))
        register_format(self.kind.__name__.lower(), self.kind)
        return self.kind(f"{self.kind.__name__.lower()}://{folder}/a.npy")


class TestWithoutAFault(FaultlessExam):
    kind = Faultless


class Flipped(Faultless):
    def _read(self, box):
        return np.array(self.array[..., ::-1, :, :][(..., *box.slices)])


class TestFlipped(FaultlessExam):
    kind, fails = Flipped, "test_every_box_holds_what_was_stored"


class OneLess(Faultless):
    """Empty boxes are right; the others lack nothing but their first plane, which is that of the plane before."""

    def _read(self, box):
        found = np.array(self.array[(..., *box.slices)])
        if box.offset_zyx[0] and box.shape_zyx[0]:
            found[..., 0, :, :] = self.array[(..., box.offset_zyx[0] - 1, *box.slices[1:])]
        return found


class TestOneLess(FaultlessExam):
    kind, fails = OneLess, "test_every_box_holds_what_was_stored"


class WrapsRound(Faultless):
    def read(self, box):
        return self._read(box)


class TestWrapsRound(FaultlessExam):
    kind, fails = WrapsRound, "test_a_box_outside_is_refused"


class LeavesOutNegative(Faultless):
    def _check_inside(self, box, verb):
        if min(box.offset_zyx) >= 0:
            super()._check_inside(box, verb)


class TestLeavesOutNegative(FaultlessExam):
    kind, fails = LeavesOutNegative, "test_a_box_outside_is_refused"


class ThroughFloats(Faultless):
    def _read(self, box):
        return self.array[(..., *box.slices)].astype(np.float64).astype(self.dtype)


class TestThroughFloats(FaultlessExam):
    kind, fails = ThroughFloats, "test_every_dtype_comes_back_to_the_last_bit"
    dtypes = ("uint64",)


class ChannelsLast(Faultless):
    def _read(self, box):
        found = super()._read(box)
        return np.moveaxis(found, 0, -1) if self.num_channels else found


class TestChannelsLast(FaultlessExam):
    kind, fails = ChannelsLast, "test_channels_come_first"


class SwappedSize(Faultless):
    def load(self, voxel_size_nm):
        super().load(voxel_size_nm)
        self.voxel_size_nm = self.voxel_size_nm[::-1]


class TestSwappedSize(FaultlessExam):
    kind, fails = SwappedSize, "test_it_knows_its_extent_and_its_voxels"


class NumpyIntegers(Faultless):
    def __init__(self, uri, voxel_size_nm=None):
        super().__init__(uri, voxel_size_nm)
        self.shape_zyx = tuple(np.array(self.shape_zyx))


class TestNumpyIntegers(FaultlessExam):
    kind, fails = NumpyIntegers, "test_it_knows_its_extent_and_its_voxels"


class Lends(Faultless):
    def load(self, voxel_size_nm):
        super().load(voxel_size_nm)
        self.array = np.array(self.array)

    def _read(self, box):
        return self.array[(..., *box.slices)]


class TestLends(FaultlessExam):
    kind, fails = Lends, "test_arrays_that_were_read_may_be_changed"


class ReadOnlyArrays(Faultless):
    def _read(self, box):
        return self.array[(..., *box.slices)]


class TestReadOnlyArrays(FaultlessExam):
    kind, fails = ReadOnlyArrays, "test_arrays_that_were_read_may_be_changed"


class OnePosition(Faultless):
    """All threads share one position in the file."""

    def _read(self, box):
        self.place = box
        time.sleep(1e-4)
        return np.array(self.array[(..., *self.place.slices)])


class TestOnePosition(FaultlessExam):
    kind, fails = OnePosition, "test_eight_threads_read_at_once"


class TakesVoxelsAlong(Faultless):
    def __reduce__(self):
        return pickle.loads, (pickle.dumps(np.array(self.array)),)


class TestTakesVoxelsAlong(FaultlessExam):
    kind, fails = TakesVoxelsAlong, "test_it_can_be_pickled"


class TakesAnySize(Faultless):
    def load(self, voxel_size_nm):
        super().load(None)
        self.voxel_size_nm = tuple(voxel_size_nm or self.voxel_size_nm)


class AxesNotTurned(Faultless):
    """Takes X, Y, Z as the file has them for Z, Y, X."""

    def load(self, voxel_size_nm):
        super().load(voxel_size_nm)
        self.array = self.array.T


class TestAxesNotTurned(FaultlessExam):
    kind, fails = AxesNotTurned, "test_it_knows_its_extent_and_its_voxels"


class AxesTurnedInTheShapeAlone(Faultless):
    def _read(self, box):
        whole = np.array(self.array).reshape(-1)
        return whole.reshape(self.array.shape[::-1]).T[(..., *box.slices)].copy()


class TestAxesTurnedInTheShapeAlone(FaultlessExam):
    kind, fails = AxesTurnedInTheShapeAlone, "test_every_box_holds_what_was_stored"


class SaysTheWrongAxes(Faultless):
    def load(self, voxel_size_nm):
        super().load(voxel_size_nm)
        self.metadata = Metadata()


class TestSaysTheWrongAxes(FaultlessExam):
    kind, fails = SaysTheWrongAxes, "test_it_says_how_it_was_understood"


class TestTakesAnySize(FaultlessExam):
    kind, fails = TakesAnySize, "test_a_voxel_size_is_demanded_or_must_agree"


class FillsUp(Faultless):
    def load(self, voxel_size_nm):
        try:
            super().load(voxel_size_nm)
        except VolumeError:
            self.array, self.voxel_size_nm = np.zeros((5, 17, 33), np.uint16), (40.0, 4.0, 5.0)


class TestFillsUp(FaultlessExam):
    kind, fails = FillsUp, "test_a_damaged_file_is_an_error_or_does_no_harm"


class TestFillsUpWhatIsMissing(FaultlessExam):
    kind, fails = FillsUp, "test_a_missing_file_is_named"


class RawErrors(Faultless):
    def load(self, voxel_size_nm):
        self.array = np.load(self.path, mmap_mode="r")
        self.voxel_size_nm = tuple(json.loads(self.path.with_suffix(".json").read_text()))


class TestRawErrors(FaultlessExam):
    kind, fails = RawErrors, "test_a_damaged_file_is_an_error_or_does_no_harm"


class Written(Faultless):
    """Can be written, without a fault."""

    def load(self, voxel_size_nm):
        super().load(voxel_size_nm)
        self.array = np.load(self.path, mmap_mode="r+")

    def _write(self, box, array):
        self.array[(..., *box.slices)] = array


class WrittenExam(FaultlessExam):
    kind = Written
    writes = True

    def create(self, folder, *, shape_zyx, dtype, voxel_size_nm, num_channels, offset_nm):
        if (folder / "a.npy").exists():
            raise VolumeError("exists already")
        shape = ((num_channels,) if num_channels else ()) + shape_zyx
        return self.make(folder, np.zeros(shape, dtype), voxel_size_nm, offset_nm)

    def test_a_volume_opened_for_reading_cannot_be_written(self):
        """This format has one class for both."""


class TestWrittenWithoutAFault(WrittenExam):
    pass


class DropsThePlace(Written):
    def load(self, voxel_size_nm):
        super().load(voxel_size_nm)
        self.offset_nm, self.metadata = None, Metadata()


class TestDropsThePlace(WrittenExam):
    kind, fails = DropsThePlace, "test_the_place_comes_back"


class PlaceInVoxels(Written):
    def load(self, voxel_size_nm):
        super().load(voxel_size_nm)
        if self.offset_nm:
            self.offset_nm = tuple(o / v for o, v in zip(self.offset_nm, self.voxel_size_nm, strict=True))


class TestPlaceInVoxels(WrittenExam):
    kind, fails = PlaceInVoxels, "test_the_place_comes_back"


class PlaceFromNowhere(Written):
    def load(self, voxel_size_nm):
        super().load(voxel_size_nm)
        self.offset_nm = self.offset_nm or tuple(5.0 * v for v in self.voxel_size_nm)


class TestPlaceFromNowhere(WrittenExam):
    kind, fails = PlaceFromNowhere, "test_a_volume_without_a_place_has_none_or_begins_at_zero"


class WritesTooMuch(Written):
    def _write(self, box, array):
        super()._write(box, array)
        if box.num_voxels and box.stop_zyx[2] < self.shape_zyx[2]:
            self.array[(..., *box.slices[:2], box.stop_zyx[2])] = 9


class TestWritesTooMuch(WrittenExam):
    kind, fails = WritesTooMuch, "test_a_box_is_written_and_nothing_else"


class WritesMemoryOrder(Written):
    def _write(self, box, array):
        self.array[(..., *box.slices)] = array.ravel("K").reshape(array.shape)


class TestWritesMemoryOrder(WrittenExam):
    kind, fails = WritesMemoryOrder, "test_a_box_is_written_and_nothing_else"


class Casts(Written):
    def write(self, box, array):
        self._check_inside(box, "write")
        self._write(box, array)


class TestCasts(WrittenExam):
    kind, fails = Casts, "test_invalid_writes_are_refused_and_change_nothing"


class TestCreatesOver(WrittenExam):
    fails = "test_nothing_is_created_over_what_is_there"

    def create(self, folder, **settings):
        (folder / "a.npy").unlink(missing_ok=True)
        return super().create(folder, **settings)


# -- engines ------------------------------------------------------------------------------------------------------


class Engine(Executor):
    """An engine from a function of (fn, list of blocks)."""

    def __init__(self, run):
        self.run = run

    def map(self, fn, blocks):
        return iter(self.run(fn, list(blocks)))


def passes_over(fn, blocks):
    for block in blocks:
        try:
            yield block, fn(block)
        except Exception:
            continue


def passes_over_the_disk(fn, blocks):
    for block in blocks:
        try:
            yield block, fn(block)
        except OSError:
            continue


def wraps(fn, blocks):
    for block in blocks:
        try:
            yield block, fn(block)
        except Exception as error:
            raise RuntimeError(f"block {block} failed") from error


def twice(fn, blocks):
    for block in blocks:
        try:
            fn(block)
        finally:
            pass
        yield block, fn(block)


def another_order(fn, blocks):
    return zip(blocks, [fn(block) for block in blocks][::-1], strict=True)


class TestPassesOver(ExecutorExam):
    fails = "test_an_exception_comes_out_as_it_was_raised"

    def make(self):
        return Engine(passes_over)


class TestPassesOverTheDisk(ExecutorExam):
    fails = "test_an_exception_comes_out_as_it_was_raised"

    def make(self):
        return Engine(passes_over_the_disk)


class TestTires(ExecutorExam):
    fails = "test_many_blocks_come_as_well"

    def make(self):
        return Engine(lambda fn, blocks: [(block, fn(block)) for block in blocks[:100]])


class TestWraps(ExecutorExam):
    fails = "test_an_exception_comes_out_as_it_was_raised"

    def make(self):
        return Engine(wraps)


class TestStopsSilently(ExecutorExam):
    fails = "test_a_stop_iteration_in_a_block_is_an_error"

    def make(self):
        return Engine(lambda fn, blocks: map(lambda block: (block, fn(block)), blocks))  # noqa: C417


class TestTwice(ExecutorExam):
    fails = "test_every_block_runs_once"

    def make(self):
        return Engine(twice)


class TestMixesUp(ExecutorExam):
    fails = "test_every_block_comes_once_with_its_own_result"

    def make(self):
        return Engine(another_order)


class TestDropsEqual(ExecutorExam):
    fails = "test_equal_blocks_are_all_run"

    def make(self):
        return Engine(lambda fn, blocks: [(block, fn(block)) for block in dict.fromkeys(blocks)])


class TestDropsNone(ExecutorExam):
    fails = "test_results_may_be_large_or_none"

    def make(self):
        return Engine(lambda fn, blocks: [(b, r) for b in blocks if (r := fn(b)) is not None])


class TestNeedsABlock(ExecutorExam):
    fails = "test_any_iterable_will_do"

    def make(self):
        return Engine(lambda fn, blocks: [(blocks[0], fn(blocks[0])), *((b, fn(b)) for b in blocks[1:])])


class Breaks(InProcess):
    broken = False

    def map(self, fn, blocks):
        if self.broken:
            return
        self.broken = True
        yield from super().map(fn, blocks)
        self.broken = False


class TestBreaks(ExecutorExam):
    fails = "test_it_works_after_an_error_and_after_an_early_stop"

    def make(self):
        return Breaks()


# -- strategies ---------------------------------------------------------------------------------------------------


def strategy(name, choose, **attributes):
    """Register a strategy: ``choose(pool, batch_size, rng)`` gives rows."""

    def select(self, pool, batch_size, rng):
        rows = np.asarray(choose(pool, batch_size, rng), np.int64)
        return Selection(rows, np.full(len(pool.y), np.nan), [{} for _ in rows])

    register_strategy(name)(type(name, (Strategy,), {"_select": select, **attributes}))


def remembers(pool, batch_size, rng, calls=itertools.count()):  # noqa: B008 - that is the fault
    return pool.askable[(np.arange(batch_size) + next(calls)) % len(pool.askable)]


def changes_p(pool, batch_size, rng):
    pool.probability[:] = 0.5
    return pool.askable[:batch_size]


def where_p_is_large(pool, batch_size, rng):
    return pool.askable[np.argsort(-pool.probability.mean(0)[pool.askable])[:batch_size]]


def only_different_rows(pool, batch_size, rng):
    return pool.askable[np.unique(pool.take(pool.askable), axis=0, return_index=True)[1][:batch_size]]


strategy("broken-repeats", lambda pool, n, rng: rng.choice(pool.askable, n))
strategy("broken-asks-all", lambda pool, n, rng: rng.permutation(len(pool.y))[:n])
strategy("broken-order", lambda pool, n, rng: np.sort(pool.askable)[:n])
strategy("broken-global", lambda pool, n, rng: np.random.permutation(pool.askable)[:n])  # noqa: NPY002
strategy("broken-global-python", lambda pool, n, rng: np.array(random.sample(pool.askable.tolist(), n)))
strategy("broken-memory", remembers)
strategy("broken-changes", changes_p)
strategy("broken-needs", where_p_is_large)
strategy(
    "broken-short", lambda pool, n, rng: np.unique(pool.take(pool.askable).round(3), axis=0, return_index=True)[1][:n]
)
strategy("broken-one-class", lambda pool, n, rng: pool.askable[:n] if len(set(pool.y[pool.answered])) != 1 else [])


class TestRepeats(StrategyExam):
    name, fails = "broken-repeats", "test_exact_count_without_repeats_among_the_askable"


class TestAsksAll(StrategyExam):
    name, fails = "broken-asks-all", "test_exact_count_without_repeats_among_the_askable"


class TestOrder(StrategyExam):
    name, fails = "broken-order", "test_the_order_of_the_rows_does_not_matter"


class TestGlobalSeed(StrategyExam):
    name, fails = "broken-global", "test_the_global_seed_is_neither_read_nor_moved"


class TestGlobalSeedOfPython(StrategyExam):
    name, fails = "broken-global-python", "test_the_global_seed_is_neither_read_nor_moved"


class TestMemory(StrategyExam):
    name, fails = "broken-memory", "test_a_strategy_object_keeps_no_state"


class TestChanges(StrategyExam):
    name, fails = "broken-changes", "test_same_seed_same_rows_and_the_pool_untouched"


class TestNeeds(StrategyExam):
    name, fails = "broken-needs", "test_it_needs_what_it_says_and_nothing_more"


class TestShort(StrategyExam):
    name, fails = "broken-short", "test_rows_that_do_not_differ_much"


class TestOneClass(StrategyExam):
    name, fails = "broken-one-class", "test_all_may_be_answered_alike"


@register_strategy("broken-report")
class Report(Strategy):
    def _select(self, pool, batch_size, rng):
        rows = pool.askable[:batch_size]
        return Selection(rows, np.zeros(len(pool.y)), [{"utility": math.nan} for _ in rows])


class TestUtilities(StrategyExam):
    name, fails = "broken-report", "test_utilities_are_nan_where_nothing_may_be_asked"


class TestReasons(StrategyExam):
    name, fails = "broken-report", "test_every_row_has_a_reason_of_plain_values"


@register_strategy("broken-yaml")
class Tuples(Strategy):
    def __init__(self, *, sizes=(), random_state=0):
        super().__init__(random_state=random_state)
        self.sizes = {sizes: 1}

    def _select(self, pool, batch_size, rng):
        return Selection(pool.askable[:batch_size], spread_out(pool, 0.0))


class TestTuples(StrategyExam):
    name, fails = "broken-yaml", "test_settings_may_come_from_yaml"
    settings: ClassVar = {"sizes": (1, 2)}


# -- tasks --------------------------------------------------------------------------------------------------------


class BrokenTask(TaskExam):
    kind: type

    def make(self, voxel_size_nm):
        return self.kind(voxel_size_nm)


class SwappedSides(SynapsePolarity):
    def target(self, segmentation):
        return super().target(segmentation)[[1, 0, 2]]


class TestSwappedSides(BrokenTask):
    kind, fails = SwappedSides, "test_decoding_a_target_restores_the_labels"


class FirstLabelOnly(Mitochondria):
    def target(self, segmentation):
        return super().target(np.where(segmentation <= 4, segmentation, 0))


class TestFirstLabelOnly(BrokenTask):
    kind, fails = FirstLabelOnly, "test_a_target_does_not_depend_on_label_numbers"


class Shrinks(Mitochondria):
    def target(self, segmentation):
        target = super().target(segmentation)
        target[:, 1:] = np.minimum(target[:, 1:], target[:, :-1])
        return target


class TestShrinks(BrokenTask):
    kind, fails = Shrinks, "test_a_target_holds_the_objects"


class OneWay(Mitochondria):
    """Fills one voxel to the right of every object."""

    def target(self, segmentation):
        target = super().target(segmentation)
        target[..., 1:] = np.maximum(target[..., 1:], target[..., :-1].copy())
        return target


class TestOneWay(BrokenTask):
    kind, fails = OneWay, "test_a_flipped_volume_has_the_flipped_target"


class ShortSighted(SynapsePolarity):
    reach_voxels = (1, 1, 1)


class TestShortSighted(BrokenTask):
    kind, fails = ShortSighted, "test_a_target_depends_on_nothing_beyond_its_reach"

    def objects(self, task):
        labels = super().objects(task)
        labels[..., 11:13] = 0
        return labels


class KnowsTooMuch(SynapsePolarity):
    """Takes a synapse that ends at a face for whole."""

    def uncertain(self, segmentation, unknown):
        return np.repeat(unknown[None], 3, axis=0)


class TestKnowsTooMuch(BrokenTask):
    kind, fails = KnowsTooMuch, "test_a_target_is_known_only_where_unknown_labels_do_not_change_it"

    def objects(self, task):
        labels = super().objects(task)
        labels[..., 11:13] = 0
        return labels


class Joins(Mitochondria):
    def decode(self, probability, threshold):
        return (probability[0] > 255 * threshold).astype(np.uint32)


class TestJoins(BrokenTask):
    kind, fails = Joins, "test_decoding_a_target_restores_the_labels"


class Swells(Mitochondria):
    def decode(self, probability, threshold):
        return super().decode(probability, threshold / 2)


class TestSwells(BrokenTask):
    kind, fails = Swells, "test_decoding_repeats_itself_and_keeps_to_the_threshold"


class LargestOnly(Mitochondria):
    """What it keeps of an object depends on the others."""

    def decode(self, probability, threshold):
        instance = super().decode(probability, threshold)
        size = np.bincount(instance.ravel())
        size[0] = 0
        return np.where(size[instance] >= size.max() / 20, instance, 0).astype(np.uint32)


class TestLargestOnly(BrokenTask):
    kind, fails = LargestOnly, "test_islands_are_decoded_by_themselves"


class JoinsFarther(SynapsePolarity):
    """Joins sides across gaps that it does not state."""

    joins_within_voxels = (1, 1, 1)

    def __init__(self, voxel_size_nm, decoding=None):
        super().__init__(voxel_size_nm, DecodingConfig(join_nm=150))


class TestJoinsFarther(BrokenTask):
    kind, fails = JoinsFarther, "test_islands_are_decoded_by_themselves"


class Forgiving(Mitochondria):
    def judge(self, overlaps):
        judged = super().judge(overlaps)
        return {n: Judgement(AnswerKind.TRUE, 1, j.best_iou) if j.best_iou > 0.4 else j for n, j in judged.items()}


class TestForgiving(BrokenTask):
    kind, fails = Forgiving, "test_the_truth_rule_equals_a_count_of_voxels"


class AnyWayRound(SynapsePolarity):
    def same_way_round(self, overlaps, label, truth):
        return True


class TestAnyWayRound(BrokenTask):
    kind, fails = AnyWayRound, "test_the_truth_rule_equals_a_count_of_voxels"


class PostFirst(SynapsePolarity):
    def crop(self, segmentation, label):
        return np.where(found := super().crop(segmentation, label), 3 - found, 0).astype(np.uint8)


class TestPostFirst(BrokenTask):
    kind, fails = PostFirst, "test_labels_follow_the_convention"


class TakesAnyValue(Mitochondria):
    def check_values(self, values, source):
        pass


class TestTakesAnyValue(BrokenTask):
    kind, fails = TakesAnyValue, "test_label_values_are_checked"


class WrongBackground(Mitochondria):
    background = np.array([255], np.uint8)


class TestWrongBackground(BrokenTask):
    kind, fails = WrongBackground, "test_background_levels_are_those_of_an_empty_volume"


# -- ledgers ------------------------------------------------------------------------------------------------------


class BrokenLedger(LedgerExam):
    kind: type

    def open(self, folder, **settings):
        return self.kind(folder / "ledger.sqlite", **settings)


class AllRounds(Ledger):
    def queries(self, round_number=None):
        return super().queries(round_number or None)


class TestAllRounds(BrokenLedger):
    kind, fails = AllRounds, "test_a_round_asks_once_and_only_what_may_be_asked"


class AllAnswers(Ledger):
    def current_answers(self, query_id=None):
        return super().current_answers()


class TestAllAnswers(BrokenLedger):
    kind, fails = AllAnswers, "test_a_changed_mind_supersedes_and_nothing_is_forgotten"


class OneByOne(Ledger):
    def tell_all(self, answers):
        return [super(OneByOne, self).tell_all([answer])[0] for answer in answers]


class TestOneByOne(BrokenLedger):
    kind, fails = OneByOne, "test_invalid_answers_are_refused_and_change_nothing"


class Buffers(Ledger):
    """Writes to disk only after every twentieth call."""

    def __init__(self, path, **settings):
        super().__init__(path, **settings)
        self.held = []

    def tell_all(self, answers):
        self.held += answers
        if len(self.held) >= 30:
            super().tell_all(self.held)
            self.held = []
        return list(range(len(answers)))


class TestBuffers(BrokenLedger):
    kind, fails = Buffers, "test_recorded_answers_survive_a_kill"


class Caches(Ledger):
    def open_queries(self):
        self.found = getattr(self, "found", None) or super().open_queries()
        return self.found


class TestCaches(BrokenLedger):
    kind, fails = Caches, "test_a_second_opening_sees_changes_at_once"


class NewestWins(Ledger):
    def verdicts(self, ids=None):
        return {
            i: Verdict(v.y if a is None else float(a.kind == "true"), v.kind, v.askable, v.answer)
            for i, v in super().verdicts(ids).items()
            for a in [next((a for a in reversed(self.current_answers()) if a.candidate == i), None)]
        }


class TestNewestWins(BrokenLedger):
    kind, fails = NewestWins, "test_two_annotators"


class ById(Ledger):
    def open_queries(self):
        return sorted(super().open_queries(), key=lambda query: query.candidate.id)


class TestById(BrokenLedger):
    kind, fails = ById, "test_a_snapshot_comes_back_as_it_was_asked"


class ForgetsSuperseded(Ledger):
    def all_answers(self):
        return self.current_answers()


class TestForgetsSuperseded(BrokenLedger):
    kind, fails = ForgetsSuperseded, "test_a_changed_mind_supersedes_and_nothing_is_forgotten"


class AsksAgain(Ledger):
    def verdicts(self, ids=None):
        return {i: Verdict(v.y, v.kind, True, v.answer) for i, v in super().verdicts(ids).items()}


class TestAsksAgain(BrokenLedger):
    kind, fails = AsksAgain, "test_a_round_asks_once_and_only_what_may_be_asked"


class PaysForEverything(Ledger):
    def spent(self):
        return len(self.current_answers()), super().spent()[1]


class TestPaysForEverything(BrokenLedger):
    kind, fails = PaysForEverything, "test_every_kind_of_answer_has_its_meaning"


class BeginsAgain(Ledger):
    def __init__(self, path, **settings):
        super().__init__(path, **{**settings, "create": True})


class TestBeginsAgain(BrokenLedger):
    kind, fails = BeginsAgain, "test_a_missing_ledger_is_an_error"


class Racing(Ledger):
    """Looks first and writes later, with room for others in between."""

    def tell_all(self, answers):
        answered = {answer.query for answer in self.current_answers()}
        time.sleep(0.002)
        if any(answer.query in answered for answer in answers):
            raise LedgerError(f"ann has answered query {answers[0].query} already")
        return [self._database.insert("answer", **self._row(answer)) for answer in answers]

    def _row(self, a):
        row = {
            "query": a.query,
            "kind": str(a.kind),
            "annotator": a.annotator,
            "reason": a.reason,
            "seconds": a.seconds,
        }
        return {**row, "answered_at": "", "adjudicates": 0, **self._about(a)}


class TestRacing(BrokenLedger):
    kind, fails = Racing, "test_eight_threads_answer_a_query_only_once"


class AnywhereDrawn(Ledger):
    def __init__(self, path, **settings):
        super().__init__(path, **settings)
        self._telling.check_fit = lambda answer: None


class TestAnywhereDrawn(BrokenLedger):
    kind, fails = AnywhereDrawn, "test_drawings_come_back_and_fit_the_image_and_the_task"


class NeverCopies(Ledger):
    def append_to_log(self):
        pass


class TestNeverCopies(BrokenLedger):
    kind, fails = NeverCopies, "test_every_answer_is_also_a_line"


class CopiesFirst(Ledger):
    """Writes the line of an answer before it knows whether the ledger takes it."""

    def tell_all(self, answers):
        if self._log:
            lines = [LoggedAnswer(replace(a, id=1000 + i), self.project_id) for i, a in enumerate(answers)]
            self._log.append(lambda _: lines)
        return super().tell_all(answers)


class TestCopiesFirst(BrokenLedger):
    kind, fails = CopiesFirst, "test_what_is_refused_is_no_line"


class NeedsItsCopy(Ledger):
    def append_to_log(self):
        if self._log:
            self._log.append(self.logged)


class TestNeedsItsCopy(BrokenLedger):
    kind, fails = NeedsItsCopy, "test_an_answer_counts_where_its_line_cannot_be_written"


class Renumbers(Ledger):
    """Restores answers as if they were new."""

    def restore(self, answers):
        refused = {}
        for answer in sorted(answers, key=lambda one: one.id):
            try:
                self.tell(answer)
            except LedgerError as error:
                refused[answer.id] = str(error)
        return refused


class TestRenumbers(BrokenLedger):
    kind, fails = Renumbers, "test_lost_answers_are_restored_as_they_were"


class ReusesIds(Ledger):
    def _next_answer_id(self):
        return max((a.id for a in self.all_answers()), default=0) + 1


class TestReusesIds(BrokenLedger):
    kind, fails = ReusesIds, "test_the_id_of_a_lost_answer_is_given_to_no_other"


class TakesAnyCopy(Ledger):
    def _check_log(self, log, advice):
        pass


class TestTakesAnyCopy(BrokenLedger):
    kind, fails = TakesAnyCopy, "test_answers_of_another_project_are_refused"


class Interleaves(Ledger):
    """Writes a line in two parts, without waiting for the others."""

    def append_to_log(self):
        if self._log:
            last = self._log.last()
            with open(self._log.path, "ab", buffering=0) as file:
                for one in self.logged(last.answer.id if last else 0):
                    line = one.line()
                    file.write(line[:50])
                    time.sleep(0.001)
                    file.write(line[50:])


class TestInterleaves(BrokenLedger):
    kind, fails = Interleaves, "test_the_lines_of_eight_threads_are_whole"


class FirstFactCounts(Ledger):
    def state(self, name, value):
        if self.fact(name) is None:
            super().state(name, value)


class TestFirstFactCounts(BrokenLedger):
    kind, fails = FirstFactCounts, "test_the_newest_fact_counts"
