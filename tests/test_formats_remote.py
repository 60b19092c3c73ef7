"""Chunked volumes behind http and in S3, served by this machine: what is read, and what is said where it fails."""

import functools
import gzip
import http.server
import multiprocessing
import os
import pickle
import re
import shutil
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from chunked_files import n5_dataset, ome_image, precomputed

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume import create_volume, location, open_volume

SIZE = (40.0, 5.0, 4.0)
OFFSET = (80.0, -15.0, 28.0)
SHAPE = (6, 9, 13)
ARRAY = np.random.default_rng(0).integers(1, 255, SHAPE, dtype=np.uint8)


@pytest.fixture
def stores(tmp_path):
    """A folder with one volume of each format."""
    ome_image(tmp_path / "two.zarr", ARRAY, SIZE, offset_nm=OFFSET)
    ome_image(tmp_path / "three with spaces.zarr", ARRAY, SIZE, version=3, shards=(6, 16, 16), offset_nm=OFFSET)
    n5_dataset(tmp_path / "a.n5" / "raw", ARRAY, resolution=SIZE[::-1], offset=OFFSET[::-1])
    precomputed(tmp_path / "c", ARRAY, SIZE, offset=(2, -3, 7))
    return tmp_path


URIS = ("two.zarr", "two.zarr:0", "three with spaces.zarr", "a.n5:raw", "c", "precomputed://c:a_b")


def at(base, uri):
    """A URI of ``URIS`` below an address."""
    return f"precomputed://{base}/{uri[14:]}" if uri.startswith("precomputed://") else f"{base}/{uri}"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with ranges; /forbidden, /moved, /page, /zipped and /broken behave as their names say."""

    ranges = True
    seen: list

    def do_GET(self):
        self.seen.append(self.path)
        first = self.path.split("/")[1]
        if first == "forbidden":
            return self.send_error(403)
        if first == "broken":
            return self.send_error(503)
        if first == "moved":
            self.send_response(302)
            self.send_header("Location", self.path[6:])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if first == "page":
            return self.answer(b"<html>not here</html>")
        path = Path(self.translate_path(self.path.removeprefix("/zipped")))
        if not path.is_file():
            return self.send_error(404)
        return self.answer(path.read_bytes(), zipped=first == "zipped")

    def answer(self, content, zipped=False):
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        headers = {"Content-Encoding": "gzip"} if zipped else {}
        if wanted and self.ranges and not zipped:
            total = len(content)
            start = int(wanted[1]) if wanted[1] else total - int(wanted[2])
            stop = min(int(wanted[2]) + 1, total) if wanted[1] and wanted[2] else total
            content = content[start:stop]
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
        content = gzip.compress(content) if zipped else content
        self.send_response(206 if "Content-Range" in headers else 200)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(stores):
    """(address of a server of ``stores``, its handler)."""
    handler = type("OneHandler", (Handler,), {"seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=stores)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", handler
        running.shutdown()


@pytest.fixture
def impatient(monkeypatch):
    """Few retries, so that tests of failures do not wait."""
    monkeypatch.setattr(location, "RETRIES", {"max_retries": 1, "initial_delay": "10ms", "max_delay": "10ms"})
    location.context.cache_clear()
    yield
    location.context.cache_clear()


@pytest.mark.parametrize("uri", URIS)
def test_http_reads_what_the_disk_reads(stores, server, uri):
    local, remote = open_volume(at(stores, uri)), open_volume(at(server[0], uri))
    for name in ("shape_zyx", "voxel_size_nm", "offset_nm", "dtype", "chunk_shape_zyx", "metadata"):
        assert getattr(remote, name) == getattr(local, name), name
    assert remote.offset_nm == OFFSET
    np.testing.assert_array_equal(remote.read(remote.box), ARRAY)
    copy = pickle.loads(pickle.dumps(remote))
    box = Box((1, 2, 3), (4, 5, 6))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(copy.read, [box] * 8):
            np.testing.assert_array_equal(found, ARRAY[box.slices])
    # Nothing can be listed; of shards, the index is read.
    assert remote.num_absent_chunks() == (local.num_absent_chunks() if "three" in uri else None)


def test_spaces_may_be_percent_encoded(server):
    volume = open_volume(f"{server[0]}/three%20with%20spaces.zarr")
    np.testing.assert_array_equal(volume.read(volume.box), ARRAY)


def test_files_that_the_server_zips_are_read(server):
    volume = open_volume(f"{server[0]}/zipped/c")
    np.testing.assert_array_equal(volume.read(volume.box), ARRAY)


def test_chunks_that_were_read_are_kept(server):
    volume = open_volume(f"{server[0]}/two.zarr")
    volume.read(volume.box)
    before = len(server[1].seen)
    volume.read(volume.box)
    assert len(server[1].seen) == before


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("none.zarr", "is not found: there is no zarr.json, .zarray or .zgroup. Check the address"),
        ("two.zarr:7", r"holds no array '7'"),
        ("none.n5", "is not found: it has no attributes.json"),
        ("forbidden/two.zarr", r"access is forbidden. Ask whoever runs the server \(code 401 or 403\)"),
        ("moved/two.zarr", r"sends on to another address \(code 302\)"),
        ("page/two.zarr", r"is not JSON .* begins with '<html>not here</html>'. Is .* send a page in its place\?"),
        ("broken/two.zarr", r"503"),
        ("nothing", "cannot tell the format"),
    ],
)
def test_what_a_server_answers_is_said_in_a_sentence(server, impatient, path, sentence):
    with pytest.raises(VolumeError, match=sentence) as caught:
        open_volume(f"{server[0]}/{path}")
    assert "tensorstore_spec" not in str(caught.value)


def test_shards_need_a_server_that_sends_parts(server, impatient):
    server[1].ranges = False
    volume = open_volume(f"{server[0]}/three with spaces.zarr")
    with pytest.raises(VolumeError, match=r"does not serve parts of files \(HTTP ranges\)"):
        volume.read(Box((0, 0, 0), (1, 1, 1)))


def test_a_chunk_that_is_forbidden_is_not_zero(server, stores, impatient, monkeypatch):
    volume = open_volume(f"{server[0]}/two.zarr")
    monkeypatch.setattr(server[1], "do_GET", lambda self: self.send_error(403))
    with pytest.raises(VolumeError, match=r"box 0:6,0:9,0:13 cannot be read: access is forbidden"):
        volume.read(volume.box)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://nowhere.invalid/x.zarr", "there is no such host"),
        ("http://127.0.0.1:9/x.zarr", "nothing answers at that address"),
        ("precomputed://http://127.0.0.1:9/x", "nothing answers at that address"),
        ("s3://no-such-host-bucket/x.n5", "nothing answers at that address"),
    ],
)
def test_a_wrong_host_is_named(impatient, monkeypatch, address, sentence):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(VolumeError, match=sentence):
        open_volume(address)


def test_a_wrong_host_is_named_within_seconds():
    location.context.cache_clear()
    started = time.monotonic()
    with pytest.raises(VolumeError, match="nothing answers"):
        open_volume("http://127.0.0.1:9/x.zarr")
    assert time.monotonic() - started < 30


def test_a_server_that_never_answers_is_given_up(stores, monkeypatch):
    class Silent(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(3)

        log_message = Handler.log_message

    monkeypatch.setattr(location, "METADATA_SECONDS", 0.5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        with pytest.raises(VolumeError, match="the server did not answer in time"):
            open_volume(f"http://127.0.0.1:{running.server_address[1]}/x.zarr")
        running.shutdown()


def test_nothing_is_created_behind_http():
    with pytest.raises(VolumeError, match="cannot be written; expected a path of this machine, s3:// or gs://"):
        create_volume("http://127.0.0.1:9/x.zarr", shape_zyx=SHAPE, dtype="uint8", voxel_size_nm=SIZE)


# -- S3 -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(stores, monkeypatch):
    """Address of a bucket that holds ``stores``, in moto's S3."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    boto3 = pytest.importorskip("boto3")
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="volumes")
    for path in stores.rglob("*"):
        if path.is_file():
            public = {"ACL": "public-read" if "two.zarr" in str(path) else "private"}
            client.upload_file(str(path), "volumes", f"em/{path.relative_to(stores)}", ExtraArgs=public)
    yield "s3://volumes/em"
    server.stop()


def test_s3_reads_what_the_disk_reads(stores, bucket):
    for uri in URIS:
        volume = open_volume(at(bucket, uri))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(volume.box), ARRAY)
        assert (volume.voxel_size_nm, volume.offset_nm) == (SIZE, OFFSET)
        assert volume.num_absent_chunks()[0] == 0, uri


def test_s3_without_credentials_asks_as_nobody(stores, bucket, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(stores / "none"))
    volume = open_volume(f"{bucket}/two.zarr:0", SIZE)
    np.testing.assert_array_equal(volume.read(volume.box), ARRAY)
    with pytest.raises(VolumeError, match=r"access is forbidden. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        open_volume(f"{bucket}/a.n5:raw")


def test_absent_chunks_are_counted_in_s3(stores, bucket):
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
    names = [item["Key"] for item in client.list_objects_v2(Bucket="volumes", Prefix="em/two.zarr/0/")["Contents"]]
    chunk = next(name for name in names if re.search(r"0[./]0[./]0$", name))
    client.delete_object(Bucket="volumes", Key=chunk)
    absent, total = open_volume(f"{bucket}/two.zarr").num_absent_chunks()
    assert absent == 1 and total > 1


def test_what_is_not_in_s3_is_named(bucket, impatient):
    for uri, sentence in (
        (f"{bucket}/none.zarr", "is not found"),
        ("s3://other-bucket/x.zarr", "is not found|there is no such bucket"),
    ):
        with pytest.raises(VolumeError, match=sentence):
            open_volume(uri)


@pytest.mark.parametrize("name", ["new.zarr", "new.precomputed"])
def test_volumes_are_created_in_s3(bucket, name):
    settings = {"shape_zyx": SHAPE, "dtype": "uint8", "voxel_size_nm": SIZE, "offset_nm": OFFSET}
    volume = create_volume(f"{bucket}/{name}", **settings)
    volume.write(volume.box, ARRAY)
    found = open_volume(volume.uri)
    np.testing.assert_array_equal(found.read(found.box), ARRAY)
    assert found.offset_nm == OFFSET
    with pytest.raises(VolumeError, match="exists already"):
        create_volume(f"{bucket}/{name}", **settings)


def test_a_folder_that_is_gone_since_is_named(stores):
    volume = open_volume(f"{stores}/two.zarr")
    packed = pickle.dumps(volume)
    shutil.rmtree(stores / "two.zarr")
    with pytest.raises(VolumeError, match="does not exist"):
        pickle.loads(packed)


def test_another_process_reads_the_same(server, stores):
    box = Box((1, 2, 3), (4, 5, 6))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for uri in (f"{server[0]}/two.zarr", f"{stores}/c", f"{stores}/a.n5:raw"):
            np.testing.assert_array_equal(pool.submit(open_volume(uri).read, box).result(), ARRAY[box.slices])
