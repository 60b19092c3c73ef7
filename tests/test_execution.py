"""Our engines take the exam of an engine."""

import pickle

import pytest

from twostream.testing import ExecutorExam
from twostream.volume.execution import InProcess, PickledInProcess


class TestInProcess(ExecutorExam):
    def make(self):
        return InProcess()


class TestPickledInProcess(ExecutorExam):
    def make(self):
        return PickledInProcess()

    def test_function_that_cannot_be_pickled_is_an_error(self):
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError), match=r"(?i)pickle|local"):
            list(PickledInProcess().map(lambda block: None, [1]))
