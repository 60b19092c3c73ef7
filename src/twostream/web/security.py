"""Who may do what: tokens, signed sessions, protection against forged requests, limits of sign-in attempts.

Everything is derived from one secret of the project, so that nothing has to be stored for each person and a restarted
server knows its sessions. Knows HMAC and time; must not know projects, queries or routes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from twostream.base.errors import InputError, ProjectError

SECRET_NAME = ".serve_secret"
SESSION_SECONDS = 30 * 24 * 3600
COOKIE = "twostream_session"
"""How the names of the cookies begin; cookies do not tell the ports of a machine apart, so each project has its own."""
CSRF_HEADER = "X-CSRF-Token"
NAME = re.compile(r"[^\W_][\w .@+-]{0,63}")
"""A name of a person: it begins with a letter or digit and has at most 64 letters, digits, spaces and . @ + - _"""
MAX_FAILURES = 5
"""Failed sign-ins within ``FAILURE_SECONDS`` after which further ones are refused unread."""
FAILURE_SECONDS = 60.0


def project_secret(root: Path) -> bytes:
    """The secret in a project's folder, drawn when it is asked for first; only its owner can read the file.

    Raises:
        ProjectError: it cannot be written or read.
    """
    path = root / SECRET_NAME
    try:
        if not path.exists():
            partial = root / f"{SECRET_NAME}.{secrets.token_hex(4)}.partial"
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
            try:
                os.link(partial, path)  # fails if another server was faster, whose secret then counts
            except FileExistsError:
                pass
            except OSError:  # a disk without hard links
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        if path.stat().st_mode & 0o077:  # a copy may have lost its mode
            with suppress(OSError):  # a disk without modes
                path.chmod(0o600)
        found = bytes.fromhex(path.read_text())
    except (OSError, ValueError) as error:
        raise ProjectError(
            f"{path} cannot be read or written ({error}). Make the folder writable, or delete the file."
        ) from None
    if len(found) != 32:
        raise ProjectError(f"{path} holds {len(found)} bytes; expected 32. Delete it; people must then sign in again.")
    return found


@dataclass(frozen=True)
class Session:
    """A person who has signed in.

    Attributes:
        annotator: their name, under which answers are recorded.
        csrf: text that every request which changes something must carry.
    """

    annotator: str
    csrf: str


class Security:
    """Tokens and sessions.

    Args:
        secret: 32 bytes.
        annotators: names of the people who may sign in, each with a token of their own; empty lets everybody in who
            has the one token that all share.

    Attributes:
        cookie: name of the session's cookie.

    Raises:
        InputError: a name is no name, or is given twice.
    """

    def __init__(self, secret: bytes, annotators: Sequence[str] = ()) -> None:
        for name in annotators:
            if not NAME.fullmatch(name) or name != name.strip():
                raise InputError(f"an annotator is called {name!r}; expected letters, digits, spaces and . @ + - _")
        if len(set(annotators)) != len(annotators):
            raise InputError("an annotator is named twice; each person has one name.")
        self._secret, self.annotators = secret, tuple(annotators)
        self.cookie = f"{COOKIE}_{self._sign('cookie')[:8]}"
        # Under a shared token anybody takes any name; once people are named, such a session must not count.
        self._purpose = "session of a named person" if annotators else "session"
        self._failures: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def token(self, name: str = "") -> str:
        """The token with which a person signs in; the same for all if nobody is named."""
        return self._sign("token", name if self.annotators else "")[:32]

    def capability(self, purpose: str) -> str:
        """A text that cannot be guessed, for addresses that are read without a session."""
        return self._sign("capability", purpose)[:32]

    def sign_in(self, name: str, token: str, address: str) -> str | None:
        """Check name and token.

        Args:
            name, token: as they came.
            address: from which machine; failures are counted for each.

        Returns:
            The value of the session's cookie; None if they are wrong.

        Raises:
            InputError: too many attempts have failed; the message says when to try again.
        """
        with self._lock:
            if len(self._failures) > 10_000:  # addresses come and go
                self._failures = {
                    a: f for a, f in self._failures.items() if f and f[-1] > time.time() - FAILURE_SECONDS
                }
            failures = self._failures.setdefault(address, deque(maxlen=MAX_FAILURES))
            if len(failures) == MAX_FAILURES and time.time() - failures[0] < FAILURE_SECONDS:
                wait = FAILURE_SECONDS - (time.time() - failures[0])
                raise InputError(f"{MAX_FAILURES} sign-ins failed within a minute. Try again in {wait:.0f} seconds.")
            known = not self.annotators or name in self.annotators
            right = hmac.compare_digest(self.token(name).encode(), token.encode())
            if not (known and right and NAME.fullmatch(name) and name == name.strip()):
                failures.append(time.time())
                return None
        ends = int(time.time()) + SESSION_SECONDS
        return f"{ends}.{name.encode().hex()}.{self._sign(self._purpose, str(ends), name)}"

    def session(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None if it is none of ours or has ended."""
        parts = (cookie or "").split(".")
        if len(parts) != 3 or not parts[0].isascii() or not parts[0].isdecimal() or len(parts[0]) > 12:
            return None
        try:
            name = bytes.fromhex(parts[1]).decode()
        except ValueError:
            return None
        right = self._sign(self._purpose, parts[0], name)
        if not hmac.compare_digest(right.encode(), parts[2].encode()) or int(parts[0]) < time.time():
            return None
        if self.annotators and name not in self.annotators:
            return None
        return Session(name, self._sign("csrf", parts[2])[:32])

    def _sign(self, *words: str) -> str:
        text = "\0".join(words).encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()
