"""Files from the network, whole or not at all, with the right checksum, by pooch.

Knows addresses and checksums; must not know what is in a file.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twostream.base import progress
from twostream.base.atomic import write_text
from twostream.base.errors import InputError

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Attributes:
        name: under ``downloads/``, and on a mirror.
        urls: where it lies; tried in turn.
        sha256: as published, or None.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None


def addresses(remote: Remote, files: Sequence[Remote], url: str | None) -> tuple[str, ...]:
    """Where to look for ``remote``, one of a set's ``files``: its own addresses, or the one on the mirror ``url``."""
    if url is None:
        return remote.urls
    base = url.rstrip("/")
    last = base.rpartition("/")[2]
    if last in {file.name for file in files}:
        base = base.rpartition("/")[0]
    elif len(files) == 1 and Path(last).suffix == Path(remote.name).suffix:
        return (base,)
    return (f"{base}/{remote.name}",)


def fetch(remote: Remote, downloads: Path, urls: Sequence[str]) -> Path:
    """``remote`` in ``downloads``, whole, with the right checksum; raises InputError."""
    import pooch

    path, record = downloads / remote.name, downloads / f"{remote.name}.sha256"
    known = remote.sha256 or (record.read_text().split()[0] if record.exists() else None)
    if path.exists() and (known is None or pooch.file_hash(str(path)) == known):
        progress.say(f"{path} is there already")
    else:
        refusals: list[str] = []
        if not any(_download(url, path, known, remote.sha256 is not None, refusals) for url in urls):
            hint = "" if remote.sha256 or not known else f" The sha256 is that of the first download, in {record}."
            raise InputError(
                f"{' '.join(refusals)}{hint} Try again later, pass --url with a mirror, or put the file there by hand "
                f"as {path} and call again."
            )
    if known is None:
        digest = pooch.file_hash(str(path))
        write_text(record, f"{digest}  {remote.name}\n")
        progress.say(f"{remote.name}: no checksum is published; this one has sha256 {digest}, kept in {record}")
    return path


def _download(url: str, path: Path, sha256: str | None, published: bool, refusals: list[str]) -> bool:
    """Fetch one address; where that fails, add a sentence to ``refusals``."""
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    if not url.startswith(("http://", "https://")):
        refusals.append(f"{url} is no http(s) address.")
        return False

    # A folder of its own, so that what a killed download leaves behind is found and cleared by the next.
    partial = path.with_name(f"{path.name}.partial")
    known = None if sha256 is None else f"sha256:{sha256}"

    def attempt(**options: Any) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        bar = _Bar(path.name)
        get = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**20, timeout=TIMEOUT_SECONDS, **options)
        try:
            os.replace(pooch.retrieve(url, known, fname=path.name, path=str(partial), downloader=get), path)
        finally:
            bar.end()
            shutil.rmtree(partial, ignore_errors=True)

    progress.say(f"fetching {url}")
    try:
        try:
            attempt()
        except requests.exceptions.SSLError:
            if not published:
                raise
            # A published sha256 proves the content better than the host's certificate does, which may have expired.
            progress.say(f"{url}: its certificate is not valid; the published sha256 vouches for the content instead")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                attempt(verify=False)
    except requests.exceptions.RequestException as error:
        refusals.append(f"{url} {_refusal(error)}.")
        return False
    except ValueError as error:
        if "hash" not in str(error):
            raise
        refusals.append(
            f"{url} sent a file whose checksum is not the expected sha256 {sha256}: damaged on the way, or another "
            f"version; nothing of it was kept."
        )
        return False
    return True


def _refusal(error: Exception) -> str:
    """What went wrong on the network, in words."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, exceptions.SSLError):
        return "has no valid certificate"
    if isinstance(error, exceptions.ChunkedEncodingError) or "Read timed out" in str(error):
        return "broke off before the file was whole, and nothing of it was kept"
    if isinstance(error, exceptions.Timeout):
        return f"did not answer within {TIMEOUT_SECONDS} s (is there a network?)"
    if isinstance(error, exceptions.ConnectionError):
        return "cannot be reached (is there a network?)"
    return f"could not be fetched: {' '.join(str(error).split())}"


class _Bar:
    """What pooch tells of its progress, shown in megabytes."""

    def __init__(self, name: str) -> None:
        self.name, self.total = name, 0
        self._task: Any = None
        self._done = self._shown = 0

    def update(self, num_bytes: int) -> None:
        if self._task is None:
            self._task = progress.task(f"{self.name} (MB)", total=max(1, self.total // 10**6))
            self._advance = self._task.__enter__()
        self._done += num_bytes
        now = min(self._done, self.total or self._done) // 10**6
        self._advance(now - self._shown)
        self._shown = now

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Called by pooch where all went well."""

    def end(self) -> None:
        if self._task is not None:
            self._task.__exit__(None, None, None)
