"""What became of the rows of a table of answers, counted and in words.

Knows counts and names; must not know tables or the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Recorded:
    """What became of the rows of a table.

    Attributes:
        new: answers to queries that this annotator had not answered, and missed objects.
        second: how many of ``new`` are second opinions: another annotator had answered the query.
        beside: names of those annotators.
        corrected: answers that replace an earlier one.
        retracted: answers that take an earlier one back.
        passed_over: rows that are recorded already.
        empty: rows without a kind.
        reopened: how many of ``empty`` this annotator had answered; those answers stand.
        late: how many of ``new`` and ``corrected`` are about a round from which a later one has learned already.
        notes: what else to say, one line each.
    """

    new: int = 0
    second: int = 0
    beside: set[str] = field(default_factory=set)
    corrected: int = 0
    retracted: int = 0
    passed_over: int = 0
    empty: int = 0
    reopened: int = 0
    late: int = 0
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What became of the rows, for a terminal."""
        beside = ", ".join(sorted(self.beside))
        second = f" ({self.second} of them second opinions beside {beside})" if self.second else ""
        counts = [f"{self.new} answer{'s' if self.new != 1 else ''} recorded{second}"]
        counts += [f"{self.corrected} corrected"] if self.corrected else []
        counts += [f"{self.retracted} taken back"] if self.retracted else []
        counts += [f"{self.passed_over} passed over, as recorded before"] if self.passed_over else []
        counts += [f"{self.empty} left empty"] if self.empty else []
        lines = [*self.notes, ", ".join(counts)]
        if self.reopened:
            lines.append(f"{self.reopened} of the empty rows were answered before; those answers stand")
        if self.late:
            lines.append(f"{self.late} of them are about earlier rounds: the next round learns from them")
        return lines
