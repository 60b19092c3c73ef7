"""The page's modules that need no browser, tested by node: masks, strokes, interpolation, undo, missed objects."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / "js").glob("*.test.mjs"))
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="node is not installed; the page's modules are tested with node 20 or later")
def test_the_modules_of_the_page():
    assert FILES
    command = [NODE, "--test", "--test-reporter=tap", *map(str, FILES)]
    environment = {name: value for name, value in os.environ.items() if name != "NODE_OPTIONS"}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=300)
    said = re.sub(r"^ *(ok .*|# Subtest.*|---|\.\.\.|duration_ms.*)\n", "", done.stdout, flags=re.MULTILINE)
    assert done.returncode == 0, said + done.stderr
    count = {
        name: int(number) for name, number in re.findall(r"^# (tests|pass|fail|skipped) (\d+)$", done.stdout, re.M)
    }
    named = sum(len(re.findall(r"^test\(", path.read_text(encoding="utf-8"), re.M)) for path in FILES)
    assert count == {"tests": named, "pass": named, "fail": 0, "skipped": 0}, said
