"""Agreement between annotators, what they disagree about, and how fast they answer."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from twostream.project.agreement import (
    agreements,
    cohen_kappa,
    disagreements,
    kind_of,
)
from twostream.project.records import Answer, adjudicate
from twostream.web.queue import Queue


def told(*rows, **settings):
    """Answers from (query, kind, annotator); the candidate of a query is 100 above it."""
    return [
        Answer(query, kind, name, id=i, candidate=None if query is None else query + 100, **settings)
        for i, (query, kind, name) in enumerate(rows, start=1)
    ]


@pytest.mark.parametrize("num_labels", [2, 3, 5])
def test_kappa_is_that_of_scikit_learn(num_labels):
    rng = np.random.default_rng(num_labels)
    for _ in range(50):
        one = rng.integers(0, num_labels, rng.integers(1, 40))
        other = np.where(rng.random(len(one)) < 0.6, one, rng.integers(0, num_labels, len(one)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it divides by 0 where kappa is not defined
            expected = cohen_kappa_score(one, other)
        kappa, why_not = cohen_kappa(one.tolist(), other.tolist())
        assert (kappa is None) == bool(np.isnan(expected)) == bool(why_not)
        assert kappa is None or kappa == pytest.approx(expected, abs=1e-12)


def test_kappa_of_a_table_that_was_computed_by_hand():
    """20 both yes, 5 and 10 apart, 15 both no: observed 0.7, expected 0.5, so kappa is 0.4."""
    one, other = "y" * 25 + "n" * 25, "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15
    assert cohen_kappa(one, other) == (pytest.approx(0.4), "")
    assert cohen_kappa("yn", "yn") == (1.0, "") and cohen_kappa("yn", "ny") == (-1.0, "")
    assert cohen_kappa("yy", "yn") == (0.0, "")  # one of them always says the same: no better than chance


def test_where_kappa_is_not_defined_the_reason_is_said():
    assert cohen_kappa("", "") == (None, "They have answered no query in common.")
    kappa, why_not = cohen_kappa(["true"] * 3, ["true"] * 3)
    assert (
        kappa is None and why_not == "Both have given one and the same answer, true, to all 3 queries that they share."
    )


def test_all_pairs_are_compared_on_what_both_have_answered():
    answers = told(
        (1, "true", "ann"), (2, "nothing", "ann"), (3, "shape", "ann"), (4, "true", "ann"),
        (1, "true", "eve"), (2, "shape", "eve"), (3, "shape", "eve"), (5, "true", "eve"),
        (5, "unsure", "bob"), (None, "true", "bob"),
    )  # fmt: skip
    by_truth, by_kind = agreements(answers), agreements(answers, kind_of)
    assert [one.annotators for one in by_truth] == [("ann", "bob"), ("ann", "eve"), ("bob", "eve")]
    assert [(one.num_common, one.num_agreed) for one in by_truth] == [(0, 0), (3, 3), (1, 0)]
    assert [one.kappa for one in by_truth] == [None, 1.0, 0.0] and "no query in common" in by_truth[0].why_not
    assert (by_kind[1].num_agreed, by_kind[1].kappa) == (2, pytest.approx((2 / 3 - 1 / 3) / (1 - 1 / 3)))


def test_what_is_no_opinion_of_ones_own_does_not_count():
    ann = told((1, "true", "ann"), (2, "skipped", "ann"), (3, "retracted", "ann"))
    judge = told((1, "nothing", "eve"), adjudicates=True)
    assert agreements(ann + judge) == []  # eve has seen what ann said
    (pair,) = agreements(ann + told((2, "true", "eve"), (1, "true", "eve"), (3, "true", "eve")))
    assert pair.num_common == 1


def test_disagreements_are_those_that_the_verdict_leaves_open():
    answers = told(
        (1, "true", "ann"), (1, "true", "eve"),
        (2, "nothing", "ann"), (2, "shape", "eve"),
        (3, "true", "ann"), (3, "unsure", "eve"),
        (4, "true", "ann"), (4, "skipped", "eve"),
        (6, "true", "ann"), (6, "nothing", "eve"),
        (5, "true", "ann"), (5, "nothing", "eve"),
    )  # fmt: skip
    settled = told((6, "true", "bob"), adjudicates=True)
    found = disagreements(answers + settled)
    assert [(one.query, one.about_truth) for one in found] == [(2, False), (3, True), (5, True)]
    assert [(a.annotator, a.kind) for a in found[0].answers] == [("ann", "nothing"), ("eve", "shape")]
    of_query = {n: [a for a in answers + settled if a.query == n] for n in range(1, 7)}
    open_ = [n for n, given in of_query.items() if adjudicate(given).kind is None]
    assert [one.query for one in found] == open_ and [one.candidate for one in found] == [102, 103, 105]


def test_an_answer_in_a_later_round_counts_for_the_same_candidate():
    answers = told((1, "true", "ann"), (7, "nothing", "eve"))
    answers = [Answer(a.query, a.kind, a.annotator, id=a.id, candidate=42) for a in answers]
    assert [(one.query, one.candidate) for one in disagreements(answers)] == [(7, 42)]


def people(answers):
    """What each person has done, as the queue of the page counts it."""
    ledger = SimpleNamespace(answers_after=lambda last: [a for a in answers if a.id > last])
    queue = Queue(SimpleNamespace(ledger=ledger))
    queue.refresh()
    return queue.people


def test_progress_counts_answers_decisions_and_active_time():
    def answer(identity, name, seconds, kind="true", supersedes=None, query=1):
        return Answer(query, kind, name, seconds=seconds, id=identity, supersedes=supersedes, candidate=query)

    answers = [
        answer(1, "eve", 2.0), answer(2, "eve", 4.0, "nothing", 1), answer(3, "eve", 0.0, query=2),
        answer(4, "ann", 3.0, query=3), answer(5, "ann", 0.0, "retracted", 4, query=3),
    ]  # fmt: skip
    found = people(answers)
    assert (found["eve"].answers, found["eve"].seconds) == (2, 6.0)
    assert found["eve"].per_minute == 20.0  # two decisions in 6 seconds; of the third the time is not known
    assert (found["ann"].answers, found["ann"].seconds, found["ann"].per_minute) == (0, 3.0, 20.0)  # taken back
    assert people([]) == {}
    assert people([answer(1, "eve", 0.0)])["eve"].per_minute is None
    retraction = answer(2, "eve", 1.0, "retracted", 1)
    assert people([answer(1, "eve", 2.0), retraction])["eve"].decided == 1, "a retraction is no decision"


def test_an_answer_that_somebody_else_replaced_does_not_count_for_its_author():
    answers = [Answer(1, "true", "ann", id=1), Answer(1, "nothing", "eve", id=2, supersedes=1, adjudicates=True)]
    assert {name: person.answers for name, person in people(answers).items()} == {"ann": 0, "eve": 1}
