"""Folders of chunked volumes, wherever they lie: on this machine, behind http(s), in S3 or in Google Cloud Storage.

Small metadata files are read here, and errors of servers are turned into sentences. All volumes of a process share one
tensorstore context: one cache of decoded chunks with a limit, and a bounded number of requests at a time.

S3 is reached as other tools reach it: AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3) and AWS_REGION (or AWS_DEFAULT_REGION)
say where; AWS_ACCESS_KEY_ID, AWS_PROFILE or ~/.aws/credentials say who asks, and without any of them the request is
anonymous.

Knows places and bytes; must not know formats.
"""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import tensorstore

from twostream.base.atomic import is_taken
from twostream.base.errors import VolumeError

CACHE_BYTES = 256 * 2**20
"""Of decoded chunks, in each process: a thousand chunks of the default size, enough for boxes that overlap. More would
be multiplied by the number of worker processes."""
MAX_REQUESTS = 32
"""To servers at one time; more gain little, and some servers then refuse."""
RETRIES = {"max_retries": 5, "initial_delay": "250ms", "max_delay": "4s"}
"""Of a request that failed for a reason that may pass: eight seconds in all, so that a wrong host is soon named."""
METADATA_SECONDS = 60.0
CHUNKS_SECONDS = 600.0
"""How long a server may take for a metadata file, and for the chunks of one box."""


class ForbiddenError(VolumeError):
    """The server or the file system does not let us read. Some servers say so of files that are not there."""


@functools.cache
def context() -> Any:
    """The tensorstore context of this process."""
    remote = {f"{store}_request_concurrency": {"limit": MAX_REQUESTS} for store in ("http", "s3", "gcs")}
    retries = {f"{store}_request_retries": RETRIES for store in ("http", "s3", "gcs")}
    return tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}} | remote | retries)


@dataclass(frozen=True)
class Location:
    """A folder.

    Attributes:
        path: of this machine, or a URL that begins with http://, https://, s3:// or gs://; without "/" at its end.
    """

    path: str

    @classmethod
    def of(cls, path: str, *inside: str) -> Location:
        """The folder ``path``, or one inside it."""
        parts = [part.strip("/") for part in inside]
        return cls("/".join([path.rstrip("/") or "/", *(part for part in parts if part)]))

    def child(self, name: str) -> Location:
        """A folder inside."""
        return Location.of(self.path, name)

    @property
    def parent(self) -> Location:
        """The folder that holds this one."""
        return Location(self.path.rpartition("/")[0] or "/") if "/" in self.path else Location("..")

    @property
    def scheme(self) -> str:
        """http, https, s3 or gs; "" for a path of this machine."""
        scheme, separator, _ = self.path.partition("://")
        return scheme if separator else ""

    @property
    def is_local(self) -> bool:
        return not self.scheme

    @property
    def seconds(self) -> float | None:
        """How long chunks of one box may take; None: as long as the disk needs."""
        return None if self.is_local else CHUNKS_SECONDS

    def spec(self) -> dict[str, Any]:
        """The tensorstore kvstore."""
        if self.is_local:
            return {"driver": "file", "path": os.path.abspath(self.path).rstrip("/") + "/"}
        url = urlsplit(self.path)
        inside = unquote(url.path).strip("/") + "/"
        if self.scheme in ("http", "https"):
            return {"driver": "http", "base_url": f"{self.scheme}://{url.netloc}", "path": "/" + inside}
        bucket = {"bucket": url.netloc, "path": inside.removeprefix("/")}
        return {"driver": "gcs"} | bucket if self.scheme == "gs" else {"driver": "s3"} | bucket | _aws()

    def exists(self) -> bool:
        """Whether the folder is there; a folder behind a server cannot be told, and counts as there."""
        return not self.is_local or Path(self.path).exists()

    def check_free(self) -> None:
        """Raise VolumeError if something is here already, or if nothing can be written here."""
        if self.scheme in ("http", "https"):
            raise VolumeError(f"{self.path} cannot be written; expected a path of this machine, s3:// or gs://.")
        if self.is_local:
            taken = is_taken(Path(self.path))
        else:
            store = self._kvstore()
            try:
                taken = bool(store.list().result(timeout=METADATA_SECONDS))
            except ERRORS as error:
                raise self.error(error, self.path) from None
        if taken:
            raise VolumeError(f"{self.path} exists already; remove it or choose another name.")

    def names(self) -> set[str]:
        """Names of all files in the folder, those in folders inside it too; raises one of ``ERRORS`` behind http(s)."""
        return {name.decode() for name in self._kvstore().list().result(timeout=self.seconds)}

    def read(self, name: str) -> bytes | None:
        """The content of a small file in the folder; None if there is no such file.

        Raises:
            ForbiddenError: it may not be read.
            VolumeError: the server cannot be reached, does not answer, or answers with an error.
        """
        store = self._kvstore()
        try:
            found = store.read(name).result(timeout=METADATA_SECONDS)
        except ERRORS as error:
            if _is_missing(error):
                return None
            raise self.error(error, f"{self.path}/{name}") from None
        return found.value if found.state == "value" else None

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON object from the folder; None if there is no such file.

        Raises:
            VolumeError: as for ``read``, or the file holds no JSON object.
        """
        content = self.read(name)
        if content is None:
            return None
        try:
            value = json.loads(content)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            begins = content[:40].decode("utf-8", "replace")
            raise VolumeError(
                f"{self.path}/{name} is not JSON ({error}); it begins with {begins!r}. "
                f"Is the file damaged, or does the server send a page in its place?"
            ) from None
        if not isinstance(value, dict):
            raise VolumeError(f"{self.path}/{name} holds {type(value).__name__}; expected a JSON object.")
        return value

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON object into the folder.

        Raises:
            VolumeError: it cannot be written.
        """
        store = self._kvstore()
        try:
            store.write(name, json.dumps(value, indent=1).encode()).result(timeout=METADATA_SECONDS)
        except ERRORS as error:
            raise self.error(error, f"{self.path}/{name}") from None

    def open(self, spec: dict[str, Any], *, create: bool = False) -> Any:
        """Open or create a tensorstore in the folder.

        Args:
            spec: of the driver, without the kvstore.
            create: make a new one.

        Raises:
            VolumeError: it cannot be opened.
        """
        # Local files are compared with the cache at each read; images on servers are taken to stay as they are.
        fresh: dict[str, Any] = {} if self.is_local else {"recheck_cached_data": "open"}
        full = spec | fresh | {"kvstore": self.spec()}
        try:
            return tensorstore.open(full, create=create, open=not create, context=context()).result(METADATA_SECONDS)
        except ERRORS as error:
            raise self.error(error, self.path) from None

    def error(self, error: Exception, what: str) -> VolumeError:
        """The error to raise for one of tensorstore's ``ERRORS``."""
        forbidden = _is_forbidden(error)
        return (ForbiddenError if forbidden else VolumeError)(f"{what} cannot be read: {reason(error, self.scheme)}")

    def _kvstore(self) -> Any:
        try:
            return tensorstore.KvStore.open(self.spec(), context=context()).result(timeout=METADATA_SECONDS)
        except ERRORS as error:
            raise self.error(error, self.path) from None


ERRORS = (ValueError, OSError, NotImplementedError, TimeoutError, RuntimeError)
"""What tensorstore raises."""


def reason(error: Exception, scheme: str = "") -> str:
    """Why tensorstore failed, as a sentence; ``scheme`` is that of the place."""
    text = _short(str(error))
    if isinstance(error, TimeoutError):
        return "the server did not answer in time. Check the address and the network."
    if _is_forbidden(error):
        return "access is forbidden. " + FORBIDDEN.get(scheme, "Check the permissions.")
    if found := re.search(r"HTTP code (30[1278])\]", text):
        return f"the server sends on to another address (code {found[1]}). Use the address that it leads to."
    for words, sentence in SENTENCES.items():
        if words in text:
            return sentence
    return f"{text.rstrip('.')}."


FORBIDDEN = {
    "http": "Ask whoever runs the server (code 401 or 403).",
    "https": "Ask whoever runs the server (code 401 or 403).",
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to somebody who may read the bucket.",
    "gs": "Log in with gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS.",
}
SENTENCES = {
    "Could not resolve": "there is no such host. Check the address and the network.",
    "Could not connect": "nothing answers at that address (connection refused). Check the address and the port.",
    "Timeout was reached": "the server did not answer in time. Check the address and the network.",
    "SSL": "its certificate is not accepted. Check the address; TENSORSTORE_CA_BUNDLE names further certificates.",
    "NoSuchBucket": "there is no such bucket. Check the name, AWS_ENDPOINT_URL and AWS_REGION.",
    "was ignored by server": "the server does not serve parts of files (HTTP ranges), which sharded volumes need.",
}
"""{words of an error of tensorstore: what a person is told}."""


def _is_forbidden(error: Exception) -> bool:
    text = str(error)
    return text.startswith(("PERMISSION_DENIED", "UNAUTHENTICATED")) or bool(re.search(r"HTTP code 40[13]\]", text))


def _is_missing(error: Exception) -> bool:
    text = str(error)
    return text.startswith("NOT_FOUND") and "NoSuchBucket" not in text and "bucket does not exist" not in text


def _short(text: str) -> str:
    """An error of tensorstore without its status word, specification and pages of the server."""
    text = re.split(r" \[\w+='", text)[0]
    return re.sub(r"^[A-Z_]+: ", "", text)


def _aws() -> dict[str, Any]:
    """Endpoint, region and credentials of S3 from the environment."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        credentials = {"type": "environment"}
    elif file.exists() or os.environ.get("AWS_PROFILE"):
        credentials = {"type": "profile"}
    else:
        credentials = {"type": "anonymous"}
    found: dict[str, Any] = {"aws_credentials": credentials}
    if endpoint:
        found["endpoint"] = endpoint
    if region or endpoint:
        found["aws_region"] = region or "us-east-1"  # other servers than Amazon's have no region
    return found
