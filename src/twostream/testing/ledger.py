from __future__ import annotations


class LedgerExam:
    pass
