"""The exam of a ledger."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostream.base.errors import LedgerError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.project.answer_log import ANSWERS_NAME, AnswerLog
from twostream.project.ledger import Ledger
from twostream.project.records import Answer, Query, Window
from twostream.task import Mitochondria, SynapsePolarity, Task
from twostream.task.answers import MEANING, RETRACTED, WINDOW_KINDS, AnswerKind, candidate_kinds

NUM_THREADS = 8
NUM_CANDIDATES = 200
ACKNOWLEDGED_BEFORE_THE_KILL = 20
CANDIDATE = ("label", "box", "mask", "score")
PATCH = ("image", "mask", "angle_deg", "section", "padded")
DRAWING = Box((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), np.uint8)
WINDOW_SHAPE = (1, 4, 4)


def query(candidate: int, **settings: Any) -> Query:
    """A query about ``candidate``, all of whose values differ from those of another candidate."""
    mask = np.array([[[1, 0], [2, 1]]], np.uint8)
    image = (np.arange(48, dtype=np.uint8) + np.uint8(candidate % 200)).reshape(3, 4, 4)
    sides = np.stack([np.eye(4, dtype=np.int8) * -1] * 3)
    return Query(
        Candidate(candidate, 5 + candidate, Box((1, 2, candidate), mask.shape), mask, 0.5 + 0.5 / (1 + candidate)),
        PatchPair(image, sides, 12.5 + candidate, 1, 0.25),
        "two-stream",
        {"coarse": 3, "distance": None, "utility": candidate / 7},
        **settings,
    )


def told(query_id: int | None, kind: str, annotator: str = "ann", **settings: Any) -> Answer:
    """An answer of any kind, with a drawing where the kind needs one."""
    if MEANING[kind].teaches == "drawn":
        settings.setdefault("drawing", DRAWING)
    return Answer(query_id, kind, annotator, **settings)


def window(number: int, **settings: Any) -> Window:
    """The window ``number`` of a row of windows that share no voxel; ``DRAWING`` lies in window 0."""
    settings.setdefault("inclusion", 0.25 + 0.25 / (1 + number))
    return Window(Box((0, 0, 4 * number), WINDOW_SHAPE), reason={"faint": number / 7, "of": None}, **settings)


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def state(ledger: Ledger) -> tuple[Any, ...]:
    """All that a ledger says, as values that can be compared."""
    verdicts = {i: (str(v.y), v.kind, v.askable) for i, v in ledger.verdicts().items()}
    answers = [(a.id, a.query, a.kind, a.annotator, a.supersedes, a.window) for a in ledger.all_answers()]
    asked = [q.id for q in ledger.queries()], [q.id for q in ledger.open_queries()]
    of_windows = [(i, v.kind, v.askable) for i, v in ledger.window_verdicts().items()]
    windows = ledger.windows(), [w.id for w in ledger.open_windows()], of_windows
    return *asked, answers, verdicts, ledger.counts(), windows


def keep_telling(exam: LedgerExam, folder: Path, acknowledged: Connection) -> None:
    """Answer one query after the other, two at a time, and say so after each pair, until killed."""
    ledger = exam.open(folder, answers_path=folder / ANSWERS_NAME)
    waiting = [q.id for q in ledger.open_queries()]
    for pair in zip(waiting[::2], waiting[1::2], strict=True):
        ledger.tell_all([told(i, AnswerKind.TRUE) for i in pair])
        acknowledged.send(pair)


def lines(folder: Path) -> dict[int, bytes]:
    """{id: line} of ``answers.jsonl``, in which every line must be whole and every answer stand once."""
    found, num_torn = AnswerLog(folder / ANSWERS_NAME).answers()
    assert num_torn == 0 and len({one.answer.id for one in found}) == len(found)
    return {one.answer.id: one.line() for one in found}


class LedgerExam:
    """What every ledger must do.

    Supply ``open``. The test class must be importable by its module's name, because a process of its own uses it.

    Examined: that ids are given once and a repeated registration changes nothing; that a round asks once, all of
    its batch or nothing, only about registered candidates that may be asked; that snapshots come back as they were
    asked; open queries in order; every kind of answer, registered ones too, with its y, its place in the budget and
    whether it may be asked again; windows, the objects that are marked in them, and what takes either back; asking
    again; several annotators, for every pair of kinds; superseding; retractions; keys; leases; what is refused, and
    that it changes nothing; that nothing is forgotten; audits; drawings; steps and scores; that a second opening
    sees everything at once; a process that is killed between its answers; eight threads, on one object and on
    eight; that every answer is also a line of ``answers.jsonl``, whoever else writes it, and counts where the line
    cannot be written; that answers are restored from it with their ids and times, and their ids are given to no
    other; that a ledger which has lost answers is refused; copies; facts.
    """

    def open(
        self,
        folder: Path,
        *,
        create: bool = False,
        image_box: Callable[[], Box | None] | None = None,
        task: type[Task] | None = None,
        answers_path: Path | None = None,
    ) -> Ledger:
        """The ledger in ``folder``, always the same one; the arguments are those of ``Ledger``."""
        raise NotImplementedError

    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Ledger:
        """A new ledger whose round 0 has the candidates 1 to 200."""
        ledger = self.open(tmp_path, create=True)
        ledger.register(0, range(1, NUM_CANDIDATES + 1))
        return ledger

    def refused(self, ledger: Ledger, sentence: str, act: Callable[..., Any], *arguments: Any) -> None:
        """``act`` raises a LedgerError that says ``sentence``, and changes nothing."""
        before = state(ledger)
        with pytest.raises(LedgerError, match=sentence):
            act(*arguments)
        assert state(ledger) == before

    # -- registering and asking -----------------------------------------------------------------------------------

    def test_ids_are_given_once_and_the_same_however_often_asked(self, tmp_path: Path) -> None:
        ledger = self.open(tmp_path, create=True)
        assert ledger.next_id(0) == 1
        for _ in range(2):  # a step that is repeated after a kill
            ledger.register(0, [1, 2, 3])
        assert ledger.next_id(0) == 1 and ledger.next_id(1) == 4
        ledger.register(1, [2, 4, 5])
        assert ledger.next_id(2) == 6 and self.open(tmp_path).next_id(2) == 6
        for ids in ([7], [6, 6], [6, 8], [0, 6], [-1]):
            with pytest.raises(LedgerError, match="repeat or leave gaps; new ones start at 6"):
                ledger.register(2, ids)
        with pytest.raises(LedgerError, match="has registered 2 new ids, now 1 came"):
            ledger.register(1, [2, 4])
        assert ledger.next_id(3) == 6

    def test_a_snapshot_comes_back_as_it_was_asked(self, ledger: Ledger, tmp_path: Path) -> None:
        asked = [query(7), query(2, is_audit=True), query(9, volume="block-7", task="cleft")]
        ledger.ask(0, asked)
        for reader in (ledger, self.open(tmp_path)):
            found = reader.open_queries()
            assert [q.candidate.id for q in found] == [7, 2, 9]  # the order of asking, which a strategy chose
            for q, original in zip(found, asked, strict=True):
                assert (q.strategy, q.reason, q.is_audit) == (original.strategy, original.reason, original.is_audit)
                assert (q.round, q.volume) == (0, original.volume)
                assert reader.query(q.id).candidate.id == original.candidate.id
                for part, attributes in (("candidate", CANDIDATE), ("patch", PATCH)):
                    for name in attributes:
                        value, wanted = (getattr(getattr(whole, part), name) for whole in (q, original))
                        assert type(value) is type(wanted) and np.array_equal(value, wanted), name
                        assert np.asarray(value).dtype == np.asarray(wanted).dtype, name
            assert found[2].task == "cleft" and len({q.id for q in found}) == 3
        ledger.tell(told(found[2].id, AnswerKind.TRUE))
        (answer,) = ledger.all_answers()
        assert (answer.query, answer.candidate, answer.round) == (found[2].id, 9, 0)
        assert (answer.volume, answer.task) == ("block-7", "cleft") and answer.answered_at

    def test_a_round_asks_once_and_only_what_may_be_asked(self, ledger: Ledger) -> None:
        for _ in range(2):  # a step that is repeated after a kill
            ledger.ask(0, [query(1), query(2)])
        assert ledger.counts().asked == 2
        self.refused(ledger, "round 0 has asked 2 candidates already", ledger.ask, 0, [query(3)])
        self.refused(ledger, "round 0 has asked 2 candidates already", ledger.ask, 0, [query(2), query(1)])
        self.refused(ledger, "candidate 777 was never registered", ledger.ask, 1, [query(3), query(777)])
        # Candidate 1 waits for its answer; candidate 3 of the same batch must not be asked either.
        self.refused(ledger, "candidate 1 has been asked before", ledger.ask, 1, [query(3), query(1)])
        ledger.ask(1, [query(3)])
        assert [q.candidate.id for q in ledger.queries(1)] == [3] and len(ledger.queries()) == 3
        assert [q.candidate.id for q in ledger.queries(0)] == [1, 2]

    def test_audits_stay_audits(self, ledger: Ledger) -> None:
        ledger.ask(0, [query(1), query(2, is_audit=True)])
        ledger.tell_all([told(q.id, AnswerKind.SKIPPED) for q in ledger.open_queries()])
        for other in (query(1, is_audit=True), query(2)):
            self.refused(ledger, "cannot change between audit and ordinary query", ledger.ask, 1, [other])
        ledger.ask(1, [query(1), query(2, is_audit=True)])
        assert [q.round for q in ledger.newest_queries(2).values()] == [1, 1]
        assert [q.round for q in ledger.newest_queries(1).values()] == [0, 0]

    # -- answers --------------------------------------------------------------------------------------------------

    def test_every_kind_of_answer_has_its_meaning(self, ledger: Ledger, tmp_path: Path) -> None:
        kinds = candidate_kinds()
        ledger.ask(0, [query(i) for i in range(1, len(kinds) + 1)])
        assert all(math.isnan(v.y) and not v.askable and v.kind is None for v in ledger.verdicts().values())
        num_paid = 0
        for q, kind in zip(ledger.open_queries(), kinds, strict=True):
            meaning = MEANING[kind]
            ledger.tell(told(q.id, kind, seconds=2.0, reason="why"))
            num_paid += meaning.in_budget
            for reader in (ledger, self.open(tmp_path)):
                verdict = reader.verdicts()[q.candidate.id]
                assert same(verdict.y, meaning.y), kind
                assert (verdict.kind, verdict.askable, verdict.teaches) == (
                    kind,
                    meaning.may_be_asked_again,
                    meaning.teaches,
                )
                assert verdict.answer is not None and verdict.answer.seconds == 2.0 and verdict.answer.reason == "why"
                assert q.id not in {other.id for other in reader.open_queries()}
                assert reader.spent()[0] == num_paid
        assert ledger.spent()[1] == 2.0 * len(kinds)
        for number, kind in enumerate(kinds, start=1):
            if MEANING[kind].may_be_asked_again:
                ledger.ask(number, [query(number)])
                assert [q.candidate.id for q in ledger.open_queries()] == [number]
                ledger.tell(told(ledger.open_queries()[0].id, AnswerKind.TRUE))
                assert ledger.verdicts()[number].y == 1.0
            else:
                self.refused(ledger, "has been asked before", ledger.ask, number, [query(number)])

    def test_two_annotators(self, ledger: Ledger) -> None:
        pairs = [(a, b) for a in candidate_kinds() for b in candidate_kinds()]
        ledger.ask(0, [query(i) for i in range(1, len(pairs) + 1)])
        for q, (a, b) in zip(ledger.open_queries(), pairs, strict=True):
            ledger.tell_all([told(q.id, a, "ann"), told(q.id, b, "bob")])
        verdicts = ledger.verdicts()
        for number, (a, b) in enumerate(pairs, start=1):
            verdict = verdicts[number]
            opinions = [kind for kind in (a, b) if kind != AnswerKind.SKIPPED] or [a]
            values = [MEANING[kind].y for kind in opinions]
            agreed = values[0] == values[-1] or len(set(opinions)) == 1
            assert same(verdict.y, values[0] if agreed else math.nan), (a, b)
            assert verdict.kind == (opinions[0] if len(set(opinions)) == 1 else None), (a, b)
            alone = MEANING[opinions[0]].teaches if len(set(opinions)) == 1 else "ignore" if verdict.y == 0 else ""
            assert verdict.teaches == alone, (a, b)
            assert verdict.askable == (MEANING[a].may_be_asked_again and MEANING[b].may_be_asked_again), (a, b)
        assert ledger.counts().answers == 2 * len(pairs)

    def test_an_adjudicating_answer_decides(self, ledger: Ledger) -> None:
        ledger.ask(0, [query(1)])
        for annotator, kind in (("ann", AnswerKind.TRUE), ("bob", AnswerKind.SHAPE)):
            ledger.tell(told(1, kind, annotator))
        assert math.isnan(ledger.verdicts()[1].y) and ledger.verdicts()[1].answer is None
        ledger.tell(told(1, AnswerKind.CORRECTED, "eve", adjudicates=True))
        ledger.tell(told(1, AnswerKind.TRUE, "tom"))
        verdict = ledger.verdicts()[1]
        assert (verdict.y, verdict.kind) == (0.0, AnswerKind.CORRECTED)
        assert verdict.answer is not None and verdict.answer.annotator == "eve"
        ledger.tell(told(1, AnswerKind.TRUE, "ann", adjudicates=True))  # whoever answered may adjudicate as well
        assert ledger.verdicts()[1].y == 1.0

    def test_a_changed_mind_supersedes_and_nothing_is_forgotten(self, ledger: Ledger) -> None:
        ledger.ask(0, [query(1), query(2)])
        first = ledger.tell(told(1, AnswerKind.TRUE, seconds=3.0))
        self.refused(
            ledger,
            rf"ann has answered query 1 already \(answer {first}\)",
            ledger.tell,
            told(1, AnswerKind.NOTHING),
        )
        second = ledger.tell(told(1, AnswerKind.NOTHING, seconds=2.0, supersedes=first))
        assert ledger.verdicts()[1].y == 0.0 and ledger.spent() == (1, 5.0)
        for query_id, supersedes in ((1, first), (2, second), (1, 999)):
            answer = told(query_id, AnswerKind.TRUE, supersedes=supersedes)
            self.refused(ledger, "no current answer", ledger.tell, answer)
        third = ledger.tell(told(1, AnswerKind.SHAPE, supersedes=second))
        assert first < second < third
        assert [a.id for a in ledger.current_answers()] == [third] == [a.id for a in ledger.current_answers(1)]
        assert ledger.current_answers(2) == []
        history = [(a.id, a.kind, a.supersedes) for a in ledger.all_answers()]
        assert history == [(first, "true", None), (second, "nothing", first), (third, "shape", second)]
        counts = ledger.counts()
        assert (counts.asked, counts.open, counts.answers) == (2, 1, 1)

    def test_a_retraction_opens_the_query_again(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.ask(0, [query(1), query(2)])
        before = state(ledger)[1], state(ledger)[3], ledger.counts()
        first = ledger.tell(told(1, AnswerKind.TRUE, seconds=3.0))
        self.refused(ledger, "is by ann; bob cannot", ledger.tell, Answer(1, RETRACTED, "bob", supersedes=first))
        self.refused(ledger, "names the answer", ledger.tell, Answer(1, RETRACTED, "ann"))
        self.refused(ledger, "no current answer", ledger.tell, Answer(2, RETRACTED, "ann", supersedes=first))
        taken_back = ledger.tell(Answer(1, RETRACTED, "ann", supersedes=first))
        for reader in (ledger, self.open(tmp_path)):
            assert (state(reader)[1], state(reader)[3], reader.counts()) == before
            assert reader.current_answers() == [] and reader.spent() == (0, 3.0)
        self.refused(ledger, "no current answer", ledger.tell, Answer(1, RETRACTED, "ann", supersedes=taken_back))
        ledger.tell(told(1, AnswerKind.NOTHING))
        assert ledger.verdicts()[1].y == 0.0 and [q.id for q in ledger.open_queries()] == [2]
        assert [a.kind for a in ledger.all_answers()] == ["true", RETRACTED, "nothing"]
        assert [a.kind for a in ledger.newest_answers_of("ann", 0, 2)] == [RETRACTED, "nothing"]
        assert [a.kind for a in ledger.answers_after(taken_back)] == ["nothing"]
        missed = ledger.tell(told(None, AnswerKind.MISSED))
        ledger.tell(Answer(None, RETRACTED, "ann", supersedes=missed))
        assert [a.kind for a in ledger.current_answers()] == ["nothing"]

    def test_a_retraction_leaves_the_answers_of_others(self, ledger: Ledger) -> None:
        ledger.ask(0, [query(1)])
        first, _ = ledger.tell_all([told(1, AnswerKind.TRUE, "ann"), told(1, AnswerKind.NOTHING, "bob")])
        ledger.tell(Answer(1, RETRACTED, "ann", supersedes=first))
        assert ledger.open_queries() == [] and ledger.verdicts()[1].y == 0.0

    def test_an_answer_that_is_sent_twice_is_recorded_once(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.ask(0, [query(1), query(2)])
        answer = told(1, AnswerKind.TRUE, key="k1")
        first = ledger.tell(answer)
        assert self.open(tmp_path).tell(answer) == first and ledger.counts().answers == 1
        ids = ledger.tell_all([answer, told(2, AnswerKind.TRUE, key="k2"), told(2, AnswerKind.TRUE, key="k2")])
        assert ids[0] == first and ids[1] == ids[2] != first and ledger.counts().answers == 2
        self.refused(ledger, "belongs to answer", ledger.tell, told(2, AnswerKind.NOTHING, key="k1"))
        found = ledger.answer_with_key("k2")
        assert found is not None and (found.query, found.key) == (2, "k2")
        assert ledger.answer_with_key("k3") is None

    def test_leases_keep_two_people_apart_and_run_out(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.ask(0, [query(i) for i in range(1, 7)])
        ids, leases, other = [1, 2, 3, 4, 5, 6], ledger.leases, self.open(tmp_path).leases
        settings: dict[str, Any] = {"wanted": {6: 2}, "until": 110.0, "now": 100.0}
        assert leases.take("ann", ids, number=2, **settings) == [1, 2]
        assert other.take("bob", ids, number=3, **settings) == [3, 4, 5]
        assert leases.take("ann", ids, number=3, **settings) == [1, 2, 6]
        assert other.take("bob", ids, number=9, **settings) == [3, 4, 5, 6]  # 6 is wanted twice
        assert leases.take("eve", ids, number=9, **settings) == []
        assert sorted(leases.held("ann", 109.0)) == [1, 2, 6] and leases.held("ann", 110.0) == []
        ledger.tell(told(1, AnswerKind.TRUE, "ann"))
        assert sorted(leases.held("ann", 109.0)) == [2, 6]  # an answer ends the lease
        assert other.take("bob", [1], number=1, **settings) == []
        leases.give_back("bob")
        assert leases.take("eve", ids, number=9, **settings) == [3, 4, 5, 6]
        leases.renew("bob", [3], 110.0)
        assert leases.held("bob", 109.0) == [3] and leases.held_by_others("ann", 109.0) == {3, 4, 5, 6}
        settings |= {"now": 120.0, "until": 130.0}
        assert other.take("bob", ids, number=9, **settings) == [2, 3, 4, 5, 6]

    def test_invalid_answers_are_refused_and_change_nothing(self, ledger: Ledger) -> None:
        ledger.ask(0, [query(1), query(2)])
        good = told(2, AnswerKind.TRUE)
        mask = DRAWING[1]
        for sentence, bad in (
            ("there is no query 9", told(9, AnswerKind.TRUE)),
            ("only 'missed' has none", told(None, AnswerKind.TRUE)),
            ("only 'missed' has none", told(1, AnswerKind.MISSED)),
            ("expected a time of at least 0", told(1, AnswerKind.TRUE, seconds=-1.0)),
            ("expected a time of at least 0", told(1, AnswerKind.TRUE, seconds=math.nan)),
            ("an answer 'maybe' came", Answer(1, "maybe", "ann")),
            ("needs a drawn mask", Answer(1, AnswerKind.CORRECTED, "ann")),
            ("a drawn mask is", told(1, AnswerKind.CORRECTED, drawing=(DRAWING[0], mask[:, :, :1]))),
            ("a drawn mask is", told(1, AnswerKind.CORRECTED, drawing=(DRAWING[0], 0 * mask))),
            ("a drawn mask is", told(1, AnswerKind.CORRECTED, drawing=(DRAWING[0], mask > 0))),
        ):
            self.refused(ledger, sentence, ledger.tell, bad)
            self.refused(ledger, sentence, ledger.tell_all, [good, bad])
        with pytest.raises(LedgerError, match="there is no query 9"):
            ledger.query(9)
        assert len(ledger.tell_all([good, told(1, AnswerKind.SHAPE)])) == 2

    def test_drawings_come_back_and_fit_the_image_and_the_task(self, tmp_path: Path) -> None:
        box = Box((2, 3, 4), (1, 2, 2))
        outside, mask = Box((0, 7, 7), (1, 2, 2)), np.array([[[0, 1], [1, 1]]], np.uint8)
        tasks: Sequence[type[Task]] = (Mitochondria, SynapsePolarity)
        for task in tasks:
            folder = tmp_path / task.name
            folder.mkdir()
            ledger = self.open(folder, create=True, image_box=lambda: Box.whole((4, 8, 8)), task=task)
            for sentence, drawing in (
                ("outside the image, which holds 0:4,0:8,0:8", (outside, mask)),
                (f"holds the value {task.num_sides + 1}; expected 0 outside and 1", (box, mask * (task.num_sides + 1))),
            ):
                answer = told(None, AnswerKind.MISSED, drawing=drawing)
                self.refused(ledger, sentence, ledger.tell, answer)
            ledger.tell(told(None, AnswerKind.MISSED, drawing=(box, mask * task.num_sides), volume="block-7"))
            (answer,) = self.open(folder).current_answers()
            assert answer.drawing is not None and answer.drawing[0] == box
            np.testing.assert_array_equal(answer.drawing[1], mask * task.num_sides, strict=True)
            assert (answer.query, answer.candidate, answer.volume, answer.task) == (None, None, "block-7", task.name)
            assert ledger.spent()[0] == 1 and ledger.verdicts() == {}
            ledger.register(0, [1])
            ledger.ask(0, [query(1)])
            assert ledger.query(ledger.open_queries()[0].id).task == task.name

    def test_verdicts_of_some_candidates_are_those_of_all(self, ledger: Ledger) -> None:
        ledger.ask(0, [query(i) for i in (5, 3, 1, 2, 4)])
        ledger.tell_all([told(i, kind) for i, kind in ((1, "true"), (2, "shape"), (3, "skipped"))])
        every = ledger.verdicts()
        assert list(every) == [1, 2, 3, 4, 5]
        for ids in ([5, 4, 77], [], [1, 3]):
            some = ledger.verdicts(ids)
            assert list(some) == sorted(set(ids) & set(every))
            assert all(same(v.y, every[i].y) and v.kind == every[i].kind for i, v in some.items())

    def test_steps_and_scores_are_recorded_once(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.store_score(0, {"a": 1.0})
        ledger.store_score(0, {"a": 1.0})  # a step that is repeated after a kill
        with pytest.raises(LedgerError, match="scored already"):
            ledger.store_score(0, {"a": 2.0})
        ledger.finish_step(0, "train", 1.5, {"num_steps": 3})
        ledger.finish_step(0, "predict", 2.5, {})
        expected = {(0, "train"): {"num_steps": 3, "seconds": 1.5}, (0, "predict"): {"seconds": 2.5}}
        for reader in (ledger, self.open(tmp_path)):
            assert reader.scores() == {0: {"a": 1.0}}
            assert reader.finished_steps() == expected and list(reader.finished_steps()) == list(expected)

    # -- windows ---------------------------------------------------------------------------------------------------

    def test_windows_are_asked_beside_candidates(self, ledger: Ledger, tmp_path: Path) -> None:
        batch = [query(1), query(2)], [window(0), window(3, volume="block-7", task="cleft")]
        for _ in range(2):  # a step that is repeated after a kill
            ledger.ask(0, *batch)
        for reader in (ledger, self.open(tmp_path)):
            assert [q.candidate.id for q in reader.open_queries()] == [1, 2] == [q.id for q in reader.queries(0)]
            assert [one.candidate for one in reader.query_lines(0)] == [1, 2] == list(reader.newest_queries(1))
            assert list(reader.verdicts()) == [1, 2] and reader.newest_asked_round() == 0
            found = reader.open_windows()
            assert found == reader.windows() == reader.windows(0) and reader.windows(1) == []
            for one, asked in zip(found, batch[1], strict=True):
                assert (one.box, one.inclusion, one.strategy) == (asked.box, asked.inclusion, "window")
                assert (one.reason, one.volume, one.round) == (asked.reason, asked.volume, 0)
                assert reader.window(one.id) == one
            assert found[1].task == "cleft" and [one.id for one in found] == [3, 4]
            counts = reader.counts()
            assert (counts.asked, counts.open, counts.windows, counts.open_windows) == (4, 4, 2, 2)
        other = [window(0), window(1)]
        self.refused(ledger, "has asked 2 candidates and 2 windows already", ledger.ask, 0, batch[0], other)
        self.refused(ledger, "has asked 2 candidates and 2 windows already", ledger.ask, 0, batch[0])
        self.refused(ledger, "expected a box", ledger.ask, 1, [query(3)], [window(5, inclusion=0.0)])
        self.refused(ledger, "expected a box", ledger.ask, 1, [query(3)], [Window(Box((0, 0, 0), (0, 1, 1)), 1.0)])
        self.refused(ledger, "has been asked before", ledger.ask, 1, [query(3)], [window(5), window(5)])
        self.refused(ledger, "has been asked before", ledger.ask, 1, [query(3)], [window(0)])  # it waits
        ledger.ask(1, [], [window(5)])  # a round may consist of windows
        assert [one.id for one in ledger.windows(1)] == [5] and ledger.newest_asked_round() == 1
        for act, wrong in ((ledger.query, 3), (ledger.window, 1), (ledger.window, 99)):
            with pytest.raises(LedgerError, match="window"):
                act(wrong)

    def test_what_is_said_of_a_window_closes_it(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.ask(0, [query(1)], [window(i) for i in range(len(WINDOW_KINDS))])
        for one, kind in zip(ledger.open_windows(), WINDOW_KINDS, strict=True):
            ledger.tell(told(one.id, kind, seconds=2.0))
            for reader in (ledger, self.open(tmp_path)):
                verdict = reader.window_verdicts()[one.id]
                assert (verdict.kind, verdict.askable) == (kind, kind == AnswerKind.SKIPPED) and math.isnan(verdict.y)
                assert one.id not in {other.id for other in reader.open_windows()}
        assert ledger.spent() == (2, 6.0) and ledger.counts().open == 1  # skipping costs no answer
        assert ledger.open_windows() == [] and list(ledger.verdicts()) == [1]
        closed = {box.offset_zyx[2] // 4 for _, box in ledger.closed_boxes()}
        assert closed == {i for i, kind in enumerate(WINDOW_KINDS) if kind != AnswerKind.SKIPPED}
        for number, kind in enumerate(WINDOW_KINDS):
            if kind == AnswerKind.SKIPPED:
                ledger.ask(1, [], [window(number)])
            else:
                self.refused(ledger, "has been asked before", ledger.ask, 1, [], [window(number)])
        said = [told(i, kind, "bob") for i, kind in enumerate(WINDOW_KINDS, start=2)]
        ledger.tell_all([*said[1:], said[0]])
        assert [v.kind for v in ledger.window_verdicts().values()][: len(WINDOW_KINDS)] == list(WINDOW_KINDS)
        ledger.tell(told(2, AnswerKind.UNSURE, "eve"))
        assert ledger.window_verdicts()[2].kind is None and not ledger.window_verdicts()[2].askable

    def test_objects_are_marked_in_windows(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.ask(0, [query(1)], [window(0, volume="block-7", task="cleft"), window(3)])
        ledger.ask(1, [query(2)])
        marked = ledger.tell(told(None, AnswerKind.MISSED, window=2, seconds=3.0))
        outside = ledger.tell(told(None, AnswerKind.MISSED))
        for reader in (ledger, self.open(tmp_path)):
            first, second = reader.missed_objects()
            assert (first.id, first.window, first.query, first.candidate) == (marked, 2, None, None)
            assert (first.round, first.volume, first.task) == (0, "block-7", "cleft")  # those of its window
            assert (second.id, second.window, second.round) == (outside, None, 1)
            assert [one.id for one in reader.open_windows()] == [2, 3] and reader.spent() == (2, 3.0)
            assert [a.window for a in reader.answers_after(0)] == [2, None]
        self.refused(ledger, "which holds 0:1,0:4,12:16", ledger.tell, told(None, AnswerKind.MISSED, window=3))
        for wrong in (1, 99):
            self.refused(ledger, f"no window {wrong}", ledger.tell, told(None, AnswerKind.MISSED, window=wrong))
        self.refused(ledger, "only an object that is marked", ledger.tell, told(2, AnswerKind.UNSURE, window=2))
        for kind in MEANING:
            if kind not in (*WINDOW_KINDS, AnswerKind.MISSED):
                self.refused(ledger, "which is a window; expected", ledger.tell, told(2, kind))
        self.refused(ledger, "is about candidate 1; expected", ledger.tell, told(1, AnswerKind.NONE_MISSED))

    def test_a_mark_and_the_end_of_a_window_are_taken_back(self, ledger: Ledger) -> None:
        ledger.ask(0, [], [window(0), window(1)])
        marked = ledger.tell(told(None, AnswerKind.MISSED, window=1))
        end = ledger.tell(told(1, AnswerKind.NONE_MISSED, seconds=2.0))
        self.refused(ledger, "has answered query 1 already", ledger.tell, told(1, AnswerKind.UNSURE))
        assert [one.id for one in ledger.open_windows()] == [2] and ledger.spent()[0] == 2
        ledger.tell(Answer(1, RETRACTED, "ann", supersedes=end))
        assert [one.id for one in ledger.open_windows()] == [1, 2] and ledger.spent() == (1, 2.0)
        self.refused(
            ledger,
            "was not marked there",
            ledger.tell,
            told(None, AnswerKind.MISSED, supersedes=marked, window=2),
        )
        changed = ledger.tell(told(None, AnswerKind.MISSED, supersedes=marked))
        assert [(a.id, a.window) for a in ledger.missed_objects()] == [(changed, 1)]  # it stays in its window
        ledger.tell(Answer(None, RETRACTED, "ann", supersedes=changed))
        assert ledger.missed_objects() == [] and [a.window for a in ledger.all_answers()] == [1, None, None, 1, 1]
        assert [one.id for one in ledger.open_windows()] == [1, 2] and ledger.spent() == (0, 2.0)
        ledger.tell(told(1, AnswerKind.NONE_MISSED))
        assert ledger.window_verdicts()[1].kind == AnswerKind.NONE_MISSED and ledger.spent() == (1, 2.0)

    def test_windows_are_leased_like_queries(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.ask(0, [query(1)], [window(0), window(1)])
        settings: dict[str, Any] = {"wanted": {}, "until": 110.0, "now": 100.0}
        assert ledger.leases.take("ann", [1, 2, 3], number=2, **settings) == [1, 2]
        assert self.open(tmp_path).leases.take("bob", [1, 2, 3], number=2, **settings) == [3]
        ledger.tell(told(None, AnswerKind.MISSED, window=2))
        assert sorted(ledger.leases.held("ann", 109.0)) == [1, 2]  # a mark is not the end of a window
        ledger.tell(told(2, AnswerKind.NONE_MISSED))
        assert ledger.leases.held("ann", 109.0) == [1]

    # -- several at once, and kills -------------------------------------------------------------------------------

    def test_a_missing_ledger_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match="is missing"):
            self.open(tmp_path)

    def test_a_second_opening_sees_changes_at_once(self, ledger: Ledger, tmp_path: Path) -> None:
        other = self.open(tmp_path)
        ledger.ask(0, [query(1), query(2)])
        assert state(other) == state(ledger)
        other.tell(told(1, AnswerKind.TRUE, "bob"))
        assert state(other) == state(ledger) and ledger.counts().open == 1
        assert [q.id for q in ledger.open_queries()] == [2] and ledger.verdicts()[1].y == 1.0
        with pytest.raises(LedgerError, match="bob has answered query 1 already"):
            ledger.tell(told(1, AnswerKind.TRUE, "bob"))

    def test_recorded_answers_survive_a_kill(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.ask(0, [query(i) for i in range(1, NUM_CANDIDATES + 1)])
        context = multiprocessing.get_context("spawn")
        mine, its = context.Pipe(duplex=False)
        process = context.Process(target=keep_telling, args=(self, tmp_path, its))
        process.start()
        its.close()
        acknowledged: set[int] = set()
        try:
            while len(acknowledged) < ACKNOWLEDGED_BEFORE_THE_KILL:
                assert mine.poll(120), "the process that answers said nothing for two minutes"
                acknowledged.update(mine.recv())
        finally:
            process.kill()
            process.join()
        while mine.poll():
            try:
                acknowledged.update(mine.recv())
            except EOFError:
                break
        reader = self.open(tmp_path, answers_path=tmp_path / ANSWERS_NAME)
        answered = {a.query for a in reader.all_answers()}
        assert acknowledged <= answered
        assert acknowledged <= {one.answer.query for one in AnswerLog(tmp_path / ANSWERS_NAME).answers()[0]}
        assert len(answered) % 2 == 0 and len(answered - acknowledged) <= 2  # told together, there together
        assert {q.id for q in reader.open_queries()} == {q.id for q in reader.queries()} - answered
        waiting = reader.open_queries()
        reader.tell_all([told(q.id, AnswerKind.NOTHING) for q in waiting])
        assert reader.counts().answers == NUM_CANDIDATES and reader.counts().open == 0
        assert {one.answer.id for one in AnswerLog(tmp_path / ANSWERS_NAME).answers()[0]} == {
            a.id for a in reader.all_answers()
        }

    @pytest.mark.parametrize("shared", [True, False], ids=["one object", "eight objects"])
    def test_eight_threads_lose_nothing(self, ledger: Ledger, tmp_path: Path, shared: bool) -> None:
        ledger.ask(0, [query(i) for i in range(1, NUM_CANDIDATES + 1)])
        waiting = [q.id for q in ledger.open_queries()]

        def work(worker: int) -> list[int]:
            mine = ledger if shared else self.open(tmp_path)
            ids = []
            for number, query_id in enumerate(waiting[worker::NUM_THREADS]):
                ids.append(mine.tell(told(query_id, AnswerKind.TRUE, f"ann{worker}")))
                if number % 5 == 0:  # what a page asks for between two answers
                    assert query_id not in {q.id for q in mine.open_queries()}
                    assert mine.verdicts([mine.query(query_id).candidate.id]).popitem()[1].y == 1.0
                    assert mine.counts().answers >= len(ids)
            return ids

        with ThreadPoolExecutor(NUM_THREADS) as pool:
            ids = [i for found in pool.map(work, range(NUM_THREADS)) for i in found]
        assert len(set(ids)) == NUM_CANDIDATES == len(ledger.all_answers()) and ledger.open_queries() == []
        assert {a.query for a in ledger.all_answers()} == set(waiting)

    @pytest.mark.parametrize("shared", [True, False], ids=["one object", "eight objects"])
    def test_eight_threads_answer_a_query_only_once(self, ledger: Ledger, tmp_path: Path, shared: bool) -> None:
        ledger.ask(0, [query(i) for i in range(1, 11)])

        def work(_: int) -> int:
            mine, num_heard = ledger if shared else self.open(tmp_path), 0
            for query_id in range(1, 11):
                try:
                    mine.tell(told(query_id, AnswerKind.TRUE))
                    num_heard += 1
                except LedgerError as error:
                    assert f"has answered query {query_id} already" in str(error)
            return num_heard

        with ThreadPoolExecutor(NUM_THREADS) as pool:
            assert sum(pool.map(work, range(NUM_THREADS))) == 10 == len(ledger.all_answers())

    # -- the second copy of every answer --------------------------------------------------------------------------

    def answered(self, folder: Path, copied: Path | None = None) -> Ledger:
        """A ledger with answers of every kind, one of them changed and adjudicated, and one missed object.

        Args:
            folder: its folder.
            copied: where to copy the ledger after the queries were asked, before anything is answered.
        """
        ledger = self.open(folder, create=True, answers_path=folder / ANSWERS_NAME)
        ledger.register(0, range(1, NUM_CANDIDATES + 1))
        kinds = candidate_kinds()
        batch = [query(i, volume="block-7") for i in range(1, len(kinds) + 1)]
        ledger.ask(0, batch, [window(i) for i in range(len(WINDOW_KINDS))])
        if copied:
            ledger.copy_to(copied)
        ids = ledger.tell_all([told(i, kind, "ann é", seconds=0.1 + i) for i, kind in enumerate(kinds, start=1)])
        ledger.tell(told(1, AnswerKind.NOTHING, "ann é", supersedes=ids[0], reason="two\nlines", adjudicates=True))
        mask = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
        ledger.tell(told(None, AnswerKind.MISSED, "bob", drawing=(Box((5, 6, 7), mask.shape), mask), volume="block-8"))
        first = len(kinds) + 1
        marked = ledger.tell(told(None, AnswerKind.MISSED, "eve", window=first))
        ledger.tell_all([told(first + i, kind, "eve") for i, kind in enumerate(WINDOW_KINDS)])
        ledger.tell(Answer(None, RETRACTED, "eve", supersedes=marked))
        return ledger

    def test_every_answer_is_also_a_line(self, tmp_path: Path) -> None:
        ledger = self.answered(tmp_path)
        ledger.tell(told(2, AnswerKind.UNSURE, "eve"))
        assert lines(tmp_path) == {one.answer.id: one.line() for one in ledger.logged()}
        missed, marked = (a for a in ledger.all_answers() if a.kind == AnswerKind.MISSED)
        assert missed.window is None and marked.window == ledger.windows()[0].id
        found = {one.answer.id: one for one in AnswerLog(tmp_path / ANSWERS_NAME).answers()[0]}
        for answer in ledger.all_answers():
            copy = found[answer.id].answer
            assert found[answer.id].project == ledger.project_id != ""
            assert (copy.drawing is None) == (answer.drawing is None)
            for name in vars(answer).keys() - {"drawing"}:
                assert getattr(copy, name) == getattr(answer, name), name
        assert missed.drawing is not None
        drawing = found[missed.id].answer.drawing
        assert drawing is not None and drawing[0] == missed.drawing[0]
        np.testing.assert_array_equal(drawing[1], missed.drawing[1], strict=True)

    def test_what_is_refused_is_no_line(self, tmp_path: Path) -> None:
        ledger = self.answered(tmp_path)
        before = lines(tmp_path)
        with pytest.raises(LedgerError):
            ledger.tell_all([told(2, AnswerKind.TRUE, "eve"), told(999, AnswerKind.TRUE)])
        assert lines(tmp_path) == before

    def test_an_answer_counts_where_its_line_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / ANSWERS_NAME).mkdir()  # opening it for writing fails for every account
        ledger = self.answered(tmp_path)
        assert len(ledger.all_answers()) > 3 and len(self.open(tmp_path).all_answers()) == len(ledger.all_answers())
        (tmp_path / ANSWERS_NAME).rmdir()
        ledger.tell(told(2, AnswerKind.TRUE, "eve"))
        assert sorted(lines(tmp_path)) == [a.id for a in ledger.all_answers()]

    def test_lost_answers_are_restored_as_they_were(self, tmp_path: Path) -> None:
        (tmp_path / "older").mkdir()
        ledger = self.answered(tmp_path, copied=tmp_path / "older" / "ledger.sqlite")
        kept, num_torn = AnswerLog(tmp_path / ANSWERS_NAME).answers()
        older = self.open(tmp_path / "older")
        assert older.all_answers() == [] and older.project_id == ledger.project_id and num_torn == 0
        with pytest.raises(LedgerError, match="lacks answers"):
            self.open(tmp_path / "older", answers_path=tmp_path / ANSWERS_NAME)
        stranger = told(999, AnswerKind.TRUE, "eve", id=77, answered_at="2026-01-01", candidate=5)
        refused = older.restore([*(one.answer for one in reversed(kept)), stranger])
        assert list(refused) == [77] and "no query 999" in refused[77]
        assert state(older) == state(ledger)
        assert [one.line() for one in older.logged()] == [one.line() for one in ledger.logged()]
        assert older.restore([one.answer for one in kept]) == {}  # a second time
        assert state(self.open(tmp_path / "older", answers_path=tmp_path / ANSWERS_NAME)) == state(ledger)

    def test_the_id_of_a_lost_answer_is_given_to_no_other(self, tmp_path: Path) -> None:
        (tmp_path / "older").mkdir()
        self.answered(tmp_path)
        before = lines(tmp_path)
        older = self.open(tmp_path / "older", create=True, answers_path=tmp_path / ANSWERS_NAME)
        older.register(0, [1])
        older.ask(0, [query(1)])
        assert older.tell(told(1, AnswerKind.TRUE, "eve")) == max(before) + 1
        assert before.items() < lines(tmp_path).items()

    def test_answers_of_another_project_are_refused(self, tmp_path: Path) -> None:
        self.answered(tmp_path)
        (tmp_path / "other").mkdir()
        self.open(tmp_path / "other", create=True)
        with pytest.raises(LedgerError, match="holds answers of project"):
            self.open(tmp_path / "other", answers_path=tmp_path / ANSWERS_NAME)

    def test_a_torn_line_costs_no_other(self, tmp_path: Path) -> None:
        ledger = self.answered(tmp_path)
        whole = (tmp_path / ANSWERS_NAME).read_bytes()
        for num_cut in (1, 2, 40, len(whole.splitlines()[-1]) - 2):
            (tmp_path / ANSWERS_NAME).write_bytes(whole[:-num_cut])
            ledger.append_to_log()
            found, num_torn = AnswerLog(tmp_path / ANSWERS_NAME).answers()
            assert {one.line() for one in found} == {one.line() for one in ledger.logged()} and num_torn <= 1

    @pytest.mark.parametrize("shared", [True, False], ids=["one object", "eight objects"])
    def test_the_lines_of_eight_threads_are_whole(self, ledger: Ledger, tmp_path: Path, shared: bool) -> None:
        ledger.ask(0, [query(i) for i in range(1, NUM_CANDIDATES + 1)])
        one = self.open(tmp_path, answers_path=tmp_path / ANSWERS_NAME)
        rng = np.random.default_rng(0)
        large = Box((0, 0, 0), (8, 128, 128)), rng.integers(0, 2, (8, 128, 128), dtype=np.uint8)  # longer than a page

        def work(worker: int) -> None:
            mine = one if shared else self.open(tmp_path, answers_path=tmp_path / ANSWERS_NAME)
            for query_id in range(1 + worker, 1 + NUM_CANDIDATES, NUM_THREADS):
                mine.tell(told(query_id, AnswerKind.CORRECTED, f"ann{worker}", drawing=large))

        with ThreadPoolExecutor(NUM_THREADS) as pool:
            list(pool.map(work, range(NUM_THREADS)))
        assert lines(tmp_path) == {line.answer.id: line.line() for line in ledger.logged()}
        assert len(lines(tmp_path)) == NUM_CANDIDATES

    def test_the_newest_fact_counts(self, tmp_path: Path) -> None:
        ledger = self.open(tmp_path, create=True)
        assert ledger.fact("place") is None and ledger.is_untouched()
        ledger.state("place", "here")
        ledger.state("time", "now")
        ledger.state("place", "there")
        assert [self.open(tmp_path).fact(name) for name in ("place", "time", "other")] == ["there", "now", None]
        assert ledger.is_untouched()  # facts are no work
        ledger.register(0, [1])
        assert not self.open(tmp_path).is_untouched()
