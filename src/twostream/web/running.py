"""The next round, as a process of its own: ``twostream run``, whose output the page shows.

The process outlives the server. Knows the project's folder and its lock; must not know requests.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from twostream.base.errors import ProjectError
from twostream.project.lock import is_locked
from twostream.project.project import Project

LOG_NAME = "serve_run.log"
NUM_LINES = 12
TAIL_BYTES = 16_384
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class RunState:
    """What the process does.

    Attributes:
        state: "idle", "running" (here, or started by somebody else), or "failed".
        lines: the last lines that it printed.
    """

    state: Literal["idle", "running", "failed"]
    lines: list[str]


class Runner:
    """Starts the next round of a project.

    Args:
        project: the project.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def log(self) -> Path:
        """File that holds what the process printed."""
        return self._project.root / LOG_NAME

    def start(self) -> None:
        """Start the next round.

        Raises:
            ProjectError: a process works in the project already, or queries wait for answers.
        """
        with self._lock:
            if self._is_running():
                raise ProjectError("the next round is being computed already.")
            num_open = self._project.ledger.counts().open
            if num_open:
                raise ProjectError(f"{num_open} queries wait for answers; the next round begins when there are none.")
            rounds = max(self._project.config.rounds, self._project.next_step()[0] + 2)
            command = [sys.executable, "-m", "twostream", "run", str(self._project.root), "--rounds", str(rounds)]
            with open(self.log, "wb") as log:
                # Its own session: the round goes on if the server is stopped.
                self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def state(self) -> RunState:
        """What the process does at this moment."""
        with self._lock:
            if self._is_running():
                return RunState("running", self._tail())
            failed = self._process is not None and self._process.returncode != 0
            return RunState("failed", self._tail()) if failed else RunState("idle", [])

    def _is_running(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        return is_locked(self._project.root)

    def _tail(self) -> list[str]:
        """The last lines of the log, as a terminal would show them."""
        if not self.log.exists():
            return []
        with open(self.log, "rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
        lines = [_CONTROL.sub("", line.split("\r")[-1]).rstrip() for line in text.split("\n")]
        return [line for line in lines if line][-NUM_LINES:]
