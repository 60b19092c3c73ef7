"""The command line. Each command reads its options, calls one function and prints what it returns.

Modules that take long to import (torch, matplotlib) are imported inside the commands that need them, so that ``--help``
and ``status`` answer at once, even where torch is not installed.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

# Threads that wait by spinning make a shared machine ten times slower; this must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from twostream import __version__
from twostream.cli.app import app

# isort: off
# `--help` lists the commands in the order in which they are imported: as a user meets them.
from twostream.cli import making, running, serving, answering, choosing, benching

__all__ = ["answering", "app", "benching", "choosing", "making", "running", "serving"]


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Active learning for connectomics: two streams decide what an expert should look at."""
    if version:
        print(f"twostream {__version__}")
        raise typer.Exit
