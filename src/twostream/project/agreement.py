"""How far annotators agree, and where they do not.

Pure functions over answers as the ledger gives them. Knows answers and their meanings; must not know the ledger, images
or pages. ``docs/answers.md`` says what the figures mean.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from twostream.project.records import Answer
from twostream.task.answers import MEANING, RETRACTED, AnswerKind

NO_OPINION = (AnswerKind.SKIPPED, RETRACTED)


def truth_of(answer: Answer) -> str:
    """What an answer says of its candidate: "true", "false" or "unsure"."""
    y = MEANING[answer.kind].y
    return "unsure" if math.isnan(y) else "true" if y == 1 else "false"


def kind_of(answer: Answer) -> str:
    """The kind of an answer."""
    return str(answer.kind)


# -- Cohen's kappa ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How far two annotators agree on the queries that both have answered.

    Attributes:
        annotators: the two names, sorted.
        num_common: how many queries both have answered.
        num_agreed: on how many of these they agree.
        kappa: Cohen's kappa: 1 if they agree on all, 0 if no more often than chance would have it, below 0 if less
            often; None where it is not defined.
        why_not: why ``kappa`` is None, as a sentence; else "".
    """

    annotators: tuple[str, str]
    num_common: int
    num_agreed: int
    kappa: float | None
    why_not: str = ""


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> tuple[float | None, str]:
    """Cohen's kappa of two annotators: (observed - expected) / (1 - expected) agreement.

    Args:
        one: N labels that the first annotator gave.
        other: the N labels that the second one gave to the same things.

    Returns:
        Kappa and "", or None and the reason why it is not defined, as a sentence.
    """
    num = len(one)
    if num == 0:
        return None, "They have answered no query in common."
    first, second = Counter(one), Counter(other)
    by_chance = sum(first[label] * second[label] for label in first)  # of num^2 pairs; whole numbers, so exact
    if by_chance == num * num:
        return None, f"Both have given one and the same answer, {one[0]}, to all {num} queries that they share."
    agreed = sum(a == b for a, b in zip(one, other, strict=True))
    return (agreed * num - by_chance) / (num * num - by_chance), ""


def agreements(current: Iterable[Answer], label: Callable[[Answer], str] = truth_of) -> list[Agreement]:
    """Cohen's kappa of all pairs of annotators.

    Adjudicating answers are left out, because an adjudicator has seen the others' answers; so are skipped queries,
    windows, and missed objects, which have no query.

    Args:
        current: answers that no other one supersedes.
        label: what is compared: ``truth_of`` or ``kind_of``.

    Returns:
        One entry for each pair, sorted by names. Empty with fewer than two annotators.
    """
    said: dict[str, dict[int, str]] = {}
    for answer in current:
        if answer.candidate is not None and answer.query and answer.kind not in NO_OPINION and not answer.adjudicates:
            said.setdefault(answer.annotator, {})[answer.query] = label(answer)
    return [_agreement(a, said[a], b, said[b]) for a, b in itertools.combinations(sorted(said), 2)]


def _agreement(a: str, of_a: dict[int, str], b: str, of_b: dict[int, str]) -> Agreement:
    common = sorted(of_a.keys() & of_b.keys())
    one, other = [of_a[query] for query in common], [of_b[query] for query in common]
    kappa, why_not = cohen_kappa(one, other)
    return Agreement((a, b), len(common), sum(x == y for x, y in zip(one, other, strict=True)), kappa, why_not)


# -- disagreements ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disagreement:
    """A candidate about which annotators disagree, and that nobody has adjudicated.

    Attributes:
        candidate: id of the candidate.
        query: the newest query about it that has one of these answers. An adjudicating answer to it settles the matter.
        answers: the answers that count, oldest first; skipped ones left out.
        about_truth: whether they disagree about True, False or unsure; else only about the kind, as *nothing* and
            *shape* do.
    """

    candidate: int
    query: int
    answers: tuple[Answer, ...]
    about_truth: bool


def disagreements(current: Iterable[Answer]) -> list[Disagreement]:
    """Candidates whose current answers differ in kind, and that have no adjudicating answer.

    All answers to a candidate count together, as in its verdict (``records.adjudicate``).

    Args:
        current: answers that no other one supersedes, oldest first.

    Returns:
        Sorted by query.
    """
    of_candidate: dict[int, list[Answer]] = {}
    for answer in current:
        if answer.query is not None and answer.candidate is not None and answer.kind not in NO_OPINION:
            of_candidate.setdefault(answer.candidate, []).append(answer)
    found = []
    for candidate, answers in of_candidate.items():
        if len(set(map(kind_of, answers))) > 1 and not any(answer.adjudicates for answer in answers):
            query = max(answer.query for answer in answers if answer.query is not None)
            found.append(Disagreement(candidate, query, tuple(answers), len(set(map(truth_of, answers))) > 1))
    return sorted(found, key=lambda one: one.query)
