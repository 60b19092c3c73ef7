"""Everything in docs/extending.md is run as a reader would run it."""

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays

from twostream.project.settings import QueryConfig
from twostream.query import STRATEGIES, get_strategy

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
YAML = [code for language, code in BLOCKS if language == "yaml"]
SHELL = [line for language, code in BLOCKS if language == "shell" for line in code.splitlines()]
FILES = {found[1]: code for code in PYTHON if (found := re.match(r"# (\w+\.py)\n", code))}


@pytest.fixture
def folder(tmp_path):
    """A folder with every file of the page."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    return tmp_path


def run(folder, *words):
    done = subprocess.run([sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_every_block_is_run():
    assert {language for language, _ in BLOCKS} == {"python", "shell", "yaml"}
    tests = {name for name in FILES if name.startswith("test_")}
    assert tests == {"test_my_formats.py", "test_my_strategies.py", "test_my_answers.py"}
    assert set(FILES) - tests == {"my_formats.py", "my_strategies.py", "my_answers.py", "my_lab.py"}


def test_the_notebook_runs(capsys):
    cells = [code for code in PYTHON if code not in FILES.values()]
    names = {}
    for cell in cells:
        exec(compile(cell, "extending.md", "exec"), names)
    assert len(cells) == 3 and len(set(names["chosen"].rows.tolist())) == 20 == len(names["rows"])
    assert "gradient" in capsys.readouterr().out


@pytest.fixture
def own_strategy():
    """The strategy of the page, known while a test runs."""
    before = dict(STRATEGIES)
    exec(compile(FILES["my_strategies.py"], "my_strategies.py", "exec"), {"__name__": "my_strategies"})
    yield
    STRATEGIES.clear()
    STRATEGIES.update(before)


def test_the_settings_are_taken(own_strategy):
    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2 + np.where(np.arange(60) < 9, 0, np.nan)  # noqa: N806
    assert len(YAML) == 2
    for text in YAML:
        config = QueryConfig(**yaml.safe_load(text)["query"])
        strategy = get_strategy(config.strategy, config.settings)
        assert len(strategy.query(X, y, batch_size=7, probability=np.full(60, 0.5))) == 7


@pytest.mark.parametrize(("name", "least"), [("my_formats", 15), ("my_strategies", 25), ("my_answers", 18)])
def test_the_examples_pass_their_exams(folder, name, least):
    code, said = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{name}.py")
    assert code == 0, said
    assert int(re.search(r"(\d+) passed", said)[1]) >= least


def test_all_of_them_work_on_the_command_line(folder):
    image, truth = toy_arrays()
    for name, array in (("em", image), ("objects", truth)):
        array.tofile(folder / f"{name}.raw")
        stored = {"shape": array.shape, "dtype": array.dtype.name, "voxel_size_nm": VOXEL_SIZE_NM}
        (folder / f"{name}.json").write_text(json.dumps(stored))
    small = [word for setting in ("query.budget=6", *TINY) for word in ("--set", setting)]
    commands = [shlex.split(line) for line in SHELL]
    assert [words[:2] for words in commands] == [["python", "my_lab.py"]] * 5
    for _, *words in commands:
        if words[1] == "init":
            words += ["--test-box", TEST_BOX, *small]
        if words[1] == "answer":
            with open(folder / "queries.csv", newline="") as handle:
                rows = list(csv.DictReader(handle))
            assert {row["strategy"] for row in rows} == {"doubtful-and-new"}
            with open(folder / "queries.csv", "w", newline="") as handle:
                writer = csv.writer(handle)
                writer.writerows([["query", "kind"], *([row["query"], "artefact"] for row in rows)])
        code, said = run(folder, *words)
        assert code == 0, said
    answers = folder / "answers.csv"
    code, said = run(folder, "my_lab.py", "export", "DIR", "--what", "answers", "-o", answers)
    assert code == 0, said
    with open(answers, newline="") as handle:
        assert [row["kind"] for row in csv.DictReader(handle)] == ["artefact"] * 6
    code, said = run(folder, "-m", "twostream", "run", "DIR")
    assert code == 1 and "strategy is 'doubtful-and-new'; expected one of" in said, said


def test_every_strategy_is_in_the_table():
    rows = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set(STRATEGIES)
