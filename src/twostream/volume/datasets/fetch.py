"""Downloading files with pooch: a file appears under its name only when it is complete and its checksum is right.

Knows addresses and checksums; must not know what the files contain.
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
"""A server that sends nothing for this long is given up."""


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        name: its file name, in ``downloads/`` and on a mirror.
        urls: its addresses, tried in this order.
        sha256: the published checksum, in hexadecimal; None if none is published.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None


def addresses(remote: Remote, files: Sequence[Remote], url: str | None) -> tuple[str, ...]:
    """The addresses from which to download a file.

    Args:
        remote: the file.
        files: all files of its data set.
        url: the user's choice of a mirror: a folder that holds the files under their usual names, the address of one of
            them (the others are expected beside it), or the address of the only file of the set under another name.
            None for the file's own addresses.

    Returns:
        Addresses, to be tried in this order.
    """
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
    """Download a file, unless it is there already with the right checksum.

    Args:
        remote: the file.
        downloads: folder to put it in. If no checksum is published, the sha256 of the first download is saved there as
            ``NAME.sha256`` and later downloads must match it.
        urls: addresses to try in this order.

    Returns:
        Path of the complete file.

    Raises:
        InputError: the file could not be downloaded from any address, or its checksum was wrong.
    """
    import pooch

    path, checksum_file = downloads / remote.name, downloads / f"{remote.name}.sha256"
    expected = remote.sha256 or (checksum_file.read_text().split()[0] if checksum_file.exists() else None)
    if path.exists() and (expected is None or pooch.file_hash(str(path)) == expected):
        progress.say(f"{path} exists already")
    else:
        failures: list[str] = []
        if not any(_download(url, path, expected, remote.sha256 is not None, failures) for url in urls):
            first = remote.sha256 is None and expected is not None
            hint = f" The sha256 is that of the first download, in {checksum_file}." if first else ""
            raise InputError(
                f"{' '.join(failures)}{hint} Try again later, pass --url with a mirror, or put the file there by hand "
                f"as {path} and run the command again."
            )
    if expected is None:
        digest = pooch.file_hash(str(path))
        write_text(checksum_file, f"{digest}  {remote.name}\n")
        progress.say(f"{remote.name}: no checksum is published; its sha256 {digest} is saved in {checksum_file}")
    return path


def _download(url: str, path: Path, sha256: str | None, published: bool, failures: list[str]) -> bool:
    """Try to download ``path`` from one address.

    Args:
        url: the address.
        path: where the file goes when it is complete.
        sha256: the expected checksum; None to accept any file.
        published: whether that checksum was published, rather than computed from an earlier download.
        failures: if the download fails, a sentence that says why is appended.

    Returns:
        Whether it succeeded.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    if not url.startswith(("http://", "https://")):
        failures.append(f"{url} is not an http(s) address.")
        return False

    # pooch downloads into a folder of its own, so that the remains of a killed download are found and deleted.
    partial = path.with_name(f"{path.name}.partial")
    known_hash = None if sha256 is None else f"sha256:{sha256}"

    def attempt(**options: Any) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        bar = _ProgressBar(path.name)
        get = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**20, timeout=TIMEOUT_SECONDS, **options)
        try:
            os.replace(pooch.retrieve(url, known_hash, fname=path.name, path=str(partial), downloader=get), path)
        finally:
            bar.finish()
            shutil.rmtree(partial, ignore_errors=True)

    progress.say(f"fetching {url}")
    try:
        try:
            attempt()
        except requests.exceptions.SSLError:
            if not published:
                raise
            # The published sha256 alone proves that the content is right; the certificate may have expired.
            progress.say(f"{url}: the certificate is not valid; the published sha256 verifies the content instead")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                attempt(verify=False)
    except requests.exceptions.RequestException as error:
        failures.append(f"{url} {_describe_failure(error)}.")
        return False
    except ValueError as error:
        if "hash" not in str(error):
            raise
        failures.append(
            f"{url} sent a file whose checksum is not the expected sha256 {sha256}: it was damaged in transit or is "
            f"another version; it was deleted."
        )
        return False
    return True


def _describe_failure(error: Exception) -> str:
    """What went wrong on the network, as the end of a sentence that begins with the address."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, exceptions.SSLError):
        return "has no valid certificate"
    if isinstance(error, exceptions.ChunkedEncodingError) or "Read timed out" in str(error):
        return "lost the connection before the file was complete; the part was deleted"
    if isinstance(error, exceptions.Timeout):
        return f"did not answer within {TIMEOUT_SECONDS} s (is there a network?)"
    if isinstance(error, exceptions.ConnectionError):
        return "cannot be reached (is there a network?)"
    return f"could not be fetched: {' '.join(str(error).split())}"


class _ProgressBar:
    """Shows the progress of a download in megabytes. The methods and ``total`` are those that pooch expects."""

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
        """Called by pooch at the end of a complete download; ``finish`` does the work for any outcome."""

    def finish(self) -> None:
        """Print the last line; also after a download that failed."""
        if self._task is not None:
            self._task.__exit__(None, None, None)
