"""The exams find faults: each faulty implementation in broken.py fails the test that is named in it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from twostream import testing

HERE = Path(__file__).parent
SOUND = ("TestWithoutAFault", "TestWrittenWithoutAFault")


def faults():
    """Class::test of every faulty implementation; read and not imported, because broken.py registers strategies."""
    for cls in ast.parse((HERE / "broken.py").read_text()).body:
        for line in cls.body if isinstance(cls, ast.ClassDef) else ():
            if isinstance(line, ast.Assign):
                target, value = line.targets[0], line.value
                pairs = (
                    zip(target.elts, value.elts, strict=True) if isinstance(target, ast.Tuple) else [(target, value)]
                )
                yield from (f"{cls.name}::{given.value}" for name, given in pairs if name.id == "fails")


@pytest.fixture(scope="module")
def outcomes():
    """{Class::test: "PASSED", "SKIPPED", "FAILED" or "ERROR"} of broken.py, a parametrised test by its worst."""
    nodes = [f"broken.py::{node}" for node in (*faults(), *SOUND)]
    options = ["-q", "-rA", "--tb=no", "-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, *nodes], cwd=HERE, capture_output=True, text=True)
    found = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) broken\.py::(\w+::\w+)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    severity = ["PASSED", "SKIPPED", "FAILED", "ERROR"].index
    return {node: outcome for outcome, node in sorted(found, key=lambda row: severity(row[0]))}


def test_every_fault_is_found(outcomes):
    expected = dict.fromkeys(faults(), "FAILED")
    assert {node: outcomes.get(node) for node in expected} == expected


@pytest.mark.parametrize("exam", testing.__all__)
def test_every_exam_has_its_faults(exam):
    tested = {node.split("::")[1] for node in faults()} & set(vars(getattr(testing, exam)))
    assert len(tested) >= 7


def test_what_has_no_fault_passes(outcomes):
    sound = {node: outcome for node, outcome in outcomes.items() if node.startswith(SOUND)}
    assert len(sound) > 25 and set(sound.values()) == {"PASSED"}
