"""How this program is called from the shell where it runs, so that a printed command can be pasted as it stands.

Knows the command line of this process and nothing of ours.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "twostream"


def command(*words: object) -> str:
    """A command of this program, quoted for a shell.

    The program is called by its name where the shell finds it, else, as from an environment that is not activated, by
    the path under which it was started.
    """
    started_as = sys.argv[0]
    is_found = Path(started_as).name != NAME or shutil.which(NAME) is not None
    return shlex.join([NAME if is_found else started_as, *map(str, words)])
