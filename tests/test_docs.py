"""The code in docs/extending.md does what is said there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from twostream.project.settings import QueryConfig
from twostream.query import STRATEGIES, get_strategy

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
YAML = [code for language, code in BLOCKS if language == "yaml"]


@pytest.fixture
def own_strategy():
    """The strategy of the page, known while a test runs."""
    before = dict(STRATEGIES)
    (code,) = (code for code in PYTHON if code.startswith("# my_strategies.py"))
    exec(compile(code, "my_strategies.py", "exec"), {"__name__": "my_strategies"})
    yield
    STRATEGIES.clear()
    STRATEGIES.update(before)


def test_the_notebook_runs(capsys):
    cells = [code for code in PYTHON if not code.startswith("# ")]
    names = {}
    for cell in cells:
        exec(compile(cell, "extending.md", "exec"), names)
    assert len(cells) == 3 and len(set(names["chosen"].rows.tolist())) == 20 == len(names["rows"])
    assert "gradient" in capsys.readouterr().out


def test_the_settings_are_taken(own_strategy):
    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2 + np.where(np.arange(60) < 9, 0, np.nan)  # noqa: N806
    assert len(YAML) == 2
    for text in YAML:
        config = QueryConfig(**yaml.safe_load(text)["query"])
        strategy = get_strategy(config.strategy, config.settings)
        assert len(strategy.query(X, y, batch_size=7, probability=np.full(60, 0.5))) == 7


def test_the_strategy_passes_the_exam(tmp_path):
    for code in PYTHON:
        if found := re.match(r"# (\w+\.py)\n", code):
            (tmp_path / found[1]).write_text(code)
    path = os.pathsep.join([str(ROOT / "tests"), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_strategies.py"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 15


def test_every_strategy_is_in_the_table():
    rows = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set(STRATEGIES)
