"""The wheel contains every file of the package, and works without the source tree; the errors form one hierarchy."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def files_of(folder):
    """Files of the package below ``folder``, without what Python has compiled."""
    paths = (path for path in (folder / "twostream").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder) for path in paths}


def test_wheel_is_complete_and_importable(tmp_path):
    copy = tmp_path / "checkout"  # setuptools leaves a build folder behind, whose files would get into the next wheel
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("twostream_connectomics-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "unpacked")
    shipped, there = files_of(tmp_path / "unpacked"), files_of(ROOT / "src")
    assert Path("twostream/report/templates/report.html") in there
    assert (there - shipped, shipped - there) == (set(), set())  # modules, templates, scripts, schemas
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "unpacked")}
    code = "import twostream.cli, sys; print(twostream.cli.__file__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert found.stdout.strip().startswith(str(tmp_path)), found.stderr


def test_errors_are_one_documented_hierarchy():
    from twostream.base import errors

    classes = [c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__]
    assert all(issubclass(c, errors.TwoStreamError) for c in classes)
    assert all(c.__name__ in errors.__doc__ for c in classes)
