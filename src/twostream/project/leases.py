"""Leases: who is looking at which query at this moment, so that two people are not given the same one by accident.

A lease runs out by itself, so that the queries of a closed browser come back. It is a courtesy and no lock: an answer
without a lease is recorded like any other. So giving one does not wait for the disk.

Knows the ledger's database; must not know in which order queries are shown or how many people should see each.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from twostream.project.database import Database
from twostream.task.answers import RETRACTED


class Leases:
    """The leases in a ledger's file.

    Args:
        database: of the ledger.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(
        self,
        annotator: str,
        queries: Sequence[int],
        *,
        number: int,
        wanted: Mapping[int, int],
        until: float,
        now: float,
    ) -> list[int]:
        """Lease up to ``number`` queries to an annotator; what they hold already is renewed and counts.

        Args:
            annotator: name of the person.
            queries: ids of queries that the person may be given, best first.
            number: how many queries the person should hold.
            wanted: {query id: how many people should answer it}; 1 for those that it lacks.
            until: time at which the leases run out, in seconds since 1970.
            now: the time.

        Returns:
            The leased queries, in the order of ``queries``.
        """
        taken: list[int] = []
        with self._database.transaction(durable=False):
            self._database.rows("DELETE FROM lease WHERE until <= ?", now)
            held = {
                row["query"] for row in self._database.rows("SELECT query FROM lease WHERE annotator = ?", annotator)
            }
            others: dict[int, set[str]] = {}
            for row in self._database.rows("SELECT query, annotator FROM lease WHERE annotator != ?", annotator):
                others.setdefault(row["query"], set()).add(row["annotator"])
            for query in queries:
                if len(taken) >= number:
                    break
                # A query may have been answered since the caller looked.
                if query in held or self._has_room(query, annotator, others.get(query, set()), wanted.get(query, 1)):
                    taken.append(query)
            for query in taken:
                self._database.rows("INSERT OR REPLACE INTO lease VALUES (?, ?, ?)", query, annotator, until)
        return taken

    def _has_room(self, query: int, annotator: str, leased_to: Collection[str], wanted: int) -> bool:
        """Whether fewer people than wanted have answered a query or look at it."""
        if len(leased_to) >= wanted:
            return False
        rows = self._database.rows(
            "SELECT annotator, kind FROM answer WHERE query = ? AND "
            "NOT EXISTS (SELECT 1 FROM answer AS later WHERE later.supersedes = answer.id)",
            query,
        )
        answered = {row["annotator"] for row in rows if row["kind"] != RETRACTED}
        return annotator not in answered and len(answered | set(leased_to)) < wanted

    def held(self, annotator: str, now: float) -> list[int]:
        """Queries that are leased to an annotator."""
        rows = self._database.rows("SELECT query FROM lease WHERE annotator = ? AND until > ?", annotator, now)
        return [row["query"] for row in rows]

    def held_by_others(self, annotator: str, now: float) -> set[int]:
        """Queries that are leased to somebody else."""
        rows = self._database.rows("SELECT query FROM lease WHERE annotator != ? AND until > ?", annotator, now)
        return {row["query"] for row in rows}

    def renew(self, annotator: str, queries: Sequence[int], until: float) -> None:
        """Lease queries to an annotator who looks at them again, whoever else does."""
        with self._database.transaction(durable=False):
            for query in queries:
                self._database.rows("INSERT OR REPLACE INTO lease VALUES (?, ?, ?)", query, annotator, until)

    def end(self, annotator: str, query: int) -> None:
        """End the lease of a query that the annotator answers, inside the transaction that records the answer.

        Leases are then as few as the queries that people look at, however many they have answered.
        """
        self._database.rows("DELETE FROM lease WHERE query = ? AND annotator = ?", query, annotator)

    def give_back(self, annotator: str, queries: Sequence[int] | None = None) -> None:
        """End leases of an annotator: those of ``queries``, or all."""
        with self._database.transaction(durable=False):
            if queries is None:
                self._database.rows("DELETE FROM lease WHERE annotator = ?", annotator)
            else:
                self._database.rows(
                    "DELETE FROM lease WHERE annotator = ? AND query IN (SELECT value FROM json_each(?))",
                    annotator,
                    json.dumps(list(queries)),
                )
