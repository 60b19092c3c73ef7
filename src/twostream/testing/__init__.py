"""Exams of the contracts: test classes that whoever adds a format, an engine, a strategy, a task or a ledger inherits.

    from twostream.testing import StrategyExam

    class TestMine(StrategyExam):
        name = "mine"

and pytest runs the exam. Needs pytest: in a checkout, ``pip install -e '.[testing]'``. Our own implementations take
the same exams in ``tests/``. The docstring of each exam says what to supply, and what is examined.
"""

import pytest

# Before the exams are imported: only then does an assert in them show its values when it fails.
pytest.register_assert_rewrite(*(f"{__name__}.{exam}" for exam in ("executor", "ledger", "strategy", "task", "volume")))

from twostream.testing.executor import ExecutorExam
from twostream.testing.ledger import LedgerExam
from twostream.testing.strategy import StrategyExam
from twostream.testing.task import TaskExam
from twostream.testing.volume import VolumeExam

__all__ = ["ExecutorExam", "LedgerExam", "StrategyExam", "TaskExam", "VolumeExam"]
