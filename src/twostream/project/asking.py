"""A batch becomes rows: which candidates and windows a round may ask about, and that it asks only once.

Knows the ledger's database; must not know who answers, or what an answer means.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from twostream.base.errors import LedgerError
from twostream.base.geometry import Box
from twostream.project.database import Database, now
from twostream.project.records import Query, Verdict, Window
from twostream.project.rows import query_values, window_values


class Asking:
    """Records the batches of rounds in a ledger's database.

    Args:
        database: of the ledger.
        task_name: for queries and windows that do not state theirs.
    """

    def __init__(self, database: Database, task_name: str) -> None:
        self._database, self._task_name = database, task_name

    def ask(
        self,
        round_number: int,
        queries: Sequence[Query],
        windows: Sequence[Window],
        *,
        next_id: int,
        verdicts: Mapping[int, Verdict],
        closed_boxes: Collection[tuple[str, Box]],
    ) -> None:
        """Add the batch of a round, inside a transaction of the caller; see ``Ledger.ask``.

        Args:
            round_number: the round.
            queries, windows: the batch.
            next_id: the first id of a candidate that was never registered.
            verdicts: of the candidates that were asked about before.
            closed_boxes: (volume, box) of the windows that may not be asked again.

        Raises:
            LedgerError: the round has asked something else before, or may not ask this.
        """
        ids = [query.candidate.id for query in queries]
        unknown = sorted(i for i in ids if not 1 <= i < next_id)
        if unknown:
            raise LedgerError(f"candidate {unknown[0]} was never registered; ask only about candidates of the round.")
        for window in windows:
            window.check()
        if self._has_asked(round_number, [*ids, *(str(window.box) for window in windows)]):
            return
        closed = sorted(i for i, verdict in verdicts.items() if not verdict.askable)
        if closed:
            raise LedgerError(f"candidate {closed[0]} has been asked before and is not to be asked again.")
        _check_windows(windows, closed_boxes)
        audited = self._asked_as_audit(ids)
        for position, query in enumerate(queries):
            if audited.get(query.candidate.id, query.is_audit) != query.is_audit:
                raise LedgerError(f"candidate {query.candidate.id} cannot change between audit and ordinary query.")
            row = query_values(query) | {"task": query.task or self._task_name, "asked_at": now()}
            self._database.insert("query", round=round_number, position=position, **row)
        for position, window in enumerate(windows, start=len(queries)):
            row = window_values(window) | {"task": window.task or self._task_name, "asked_at": now()}
            self._database.insert("query", round=round_number, position=position, **row)

    def _has_asked(self, round_number: int, batch: Sequence[int | str]) -> bool:
        """Whether a round has asked this very batch before: ids of candidates, and boxes of windows as text.

        Raises:
            LedgerError: it has asked another one.
        """
        rows = self._database.rows("SELECT candidate, box FROM query WHERE round = ? ORDER BY position", round_number)
        asked = [row["box"] if row["candidate"] is None else row["candidate"] for row in rows]
        if asked and asked != list(batch):
            num_windows = sum(isinstance(one, str) for one in asked)
            beside = f" and {num_windows} windows" if num_windows else ""
            raise LedgerError(
                f"round {round_number} has asked {len(asked) - num_windows} candidates{beside} already; it asks only "
                f"once."
            )
        return bool(asked)

    def _asked_as_audit(self, ids: Sequence[int]) -> dict[int, bool]:
        """{candidate id: whether its newest query was an audit} of those among ``ids`` that were asked before."""
        rows = self._database.rows(
            "SELECT candidate, is_audit FROM query WHERE candidate IN (SELECT value FROM json_each(?)) ORDER BY round",
            json.dumps(list(ids)),
        )
        return {row["candidate"]: bool(row["is_audit"]) for row in rows}


def _check_windows(windows: Sequence[Window], closed_boxes: Collection[tuple[str, Box]]) -> None:
    """Raise LedgerError if a box is asked about twice, or was searched before."""
    closed = set(closed_boxes)
    for window in windows:
        if (window.volume, window.box) in closed:
            raise LedgerError(f"the window at {window.box} has been asked before and is not to be asked again.")
        closed.add((window.volume, window.box))
