"""Public data sets: miniature archives on a local server are downloaded, converted, and refused if they are damaged."""

import errno
import hashlib
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import h5py
import numpy as np
import pooch
import pytest
import requests
from typer.testing import CliRunner

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.cli import app
from twostream.task import get_task
from twostream.volume import open_ignore_mask, open_volume
from twostream.volume.datasets import DATASETS, DataSet, Remote, get_dataset, lucchi
from twostream.volume.datasets.cremi import CLEFT_BACKGROUND, CLEFT_UNKNOWN
from twostream.volume.pieces import number_synapses

MARKED = (3, 5, 7)
"""(z, y, x) of a marked voxel: conversion must keep its position, whatever the axis order of the format."""
SHAPE = (10, 20, 24)


class Server(ThreadingHTTPServer):
    """Serves ``files`` by name and records the names that were requested."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut_short = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.server.cut_short else content)

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def trusted(monkeypatch):
    """Function that replaces the published checksums of a data set by those of its miniature files."""

    def trust(name, files):
        dataset = DATASETS[name]
        remotes = tuple(
            Remote(r.name, r.urls, r.sha256 and hashlib.sha256(files[r.name]).hexdigest())
            for r in dataset.files
            if r.name in files
        )
        monkeypatch.setitem(DATASETS, name, DataSet(**{**vars(dataset), "files": remotes}))

    return trust


# -- miniatures -----------------------------------------------------------------------------------------------------


def grey(shape=SHAPE, seed=0):
    image = np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8)
    image[MARKED] = 255
    return image


def labels_of(shape=SHAPE, dtype=np.uint16):
    labels = np.zeros(shape, dtype)
    labels[1:6, 3:9, 4:10] = 1
    labels[2:8, 12:17, 14:20] = 2
    labels[MARKED] = 3
    return labels


def hdf5(tmp_path, **arrays):
    path = tmp_path / "miniature.h5"
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def cremi_sample(tmp_path, offset=None):
    clefts = np.full(SHAPE, CLEFT_BACKGROUND, np.uint64)
    clefts[1:4, 2:6, 3:9] = 7
    clefts[5, 5, 5:7] = CLEFT_UNKNOWN
    clefts[8, 8, 8] = 0  # an ordinary id, because background has a reserved value
    path = hdf5(tmp_path, volumes__raw=grey(), volumes__labels__clefts=clefts)
    with h5py.File(path, "a") as file:
        file["volumes/raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
        if offset is not None:
            big = np.zeros([s + 4 for s in SHAPE], np.uint8)
            del file["volumes/raw"]
            file["volumes/raw"] = big
            file["volumes/raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
            file["volumes/labels/clefts"].attrs["offset"] = offset
    return path.read_bytes()


def archive(members):
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def picture(array, suffix):
    done, buffer = cv2.imencode(suffix, array)
    assert done
    return buffer.tobytes()


def stack(tmp_path, array):
    path = tmp_path / "stack.tif"
    assert cv2.imwritemulti(str(path), list(array))
    return path.read_bytes()


def lucchi_files(tmp_path):
    mask = (labels_of() > 0).astype(np.uint8) * 255
    return {
        f"{part}{suffix}.tif": stack(tmp_path, array)
        for part, seed in (("training", 0), ("testing", 1))
        for suffix, array in (("", grey(seed=seed)), ("_groundtruth", mask))
    }


def mitoem_files(letter="R", num_labelled=6, recounted=False):
    image, labels = grey(), labels_of()
    half = num_labelled // 2
    sections = [labels[z] for z in range(num_labelled)]
    if recounted:
        sections[half:] = [np.array([0, 3, 1, 2], np.uint16)[s] for s in sections[half:]]
    return {
        f"EM30-{letter}-im.zip": archive(
            {f"im/im{z:04d}.png": picture(image[z], ".png") for z in range(len(image))}
            | {"__MACOSX/im/._im0000.png": b"?"}
        ),
        f"EM30-{letter}-mito-train-val-v2.zip": archive(
            {
                f"mito-{'train' if z < half else 'val'}-v2/seg{z:04d}.tif": picture(section, ".tif")
                for z, section in enumerate(sections)
            }
        ),
    }


def jwr15_file(tmp_path, labels, names=("im_Yx2.h5", "syn_Yx2.h5"), rows=None):
    image = grey(labels.shape)[:, rows] if rows else grey(labels.shape)
    im, syn = (hdf5(tmp_path, main=a).read_bytes() for a in (image, labels[:, rows] if rows else labels))
    members = {f"jwr15_synapse/{vol}/{n}": c for vol in ("vol3", "vol4") for n, c in zip(names, (im, syn), strict=True)}
    return {"jwr15_synapse.zip": archive(members)}


def read(path, dataset):
    volume = open_volume(f"{path}:{dataset}")
    return volume, volume.read(volume.box)


# -- each layout ----------------------------------------------------------------------------------------------------


def test_cremi(tmp_path, server, trusted):
    files = {f"sample_{s}_20160501.hdf": cremi_sample(tmp_path) for s in "ABC"}
    server.files = {f"mirror/{name}": content for name, content in files.items()}
    trusted("cremi", files)
    paths = get_dataset("cremi", tmp_path / "data", url=server.url + "/mirror/")
    assert [p.name for p in paths] == ["cremi_a.h5", "cremi_b.h5", "cremi_c.h5"]
    image, array = read(paths[0], "image")
    assert (
        image.voxel_size_nm == (40, 4, 4)
        and (array == grey()).all()
        and np.argmax(array) == np.ravel_multi_index(MARKED, SHAPE)
    )
    labels, clefts = read(paths[0], "clefts")
    assert labels.dtype == np.uint32 and set(np.unique(clefts)) == {0, 7, 8}
    assert (clefts == 7).sum() == 3 * 4 * 6 and clefts[8, 8, 8] == 8 and clefts[1, 2, 3] == 7
    ignore = open_ignore_mask(f"{paths[0]}:clefts")
    assert np.argwhere(ignore.read(ignore.box)).tolist() == [[5, 5, 5], [5, 5, 6]]
    get_task("cleft", image.voxel_size_nm).check_values(set(np.unique(clefts).tolist()), "cremi")
    with h5py.File(paths[0]) as file:
        assert "cremi.org" in file.attrs["source"] and "CREMI" in file.attrs["citation"] and file.attrs["license"]


def test_labels_smaller_than_the_image_are_placed_by_their_offset(tmp_path, server, trusted):
    server.files = {f"sample_{s}_20160501.hdf": cremi_sample(tmp_path, offset=(80, 4, 12)) for s in "ABC"}
    trusted("cremi", server.files)
    path = get_dataset("cremi", tmp_path / "data", url=server.url)[0]
    _, clefts = read(path, "clefts")
    assert clefts.shape == (14, 24, 28) and clefts[1 + 2, 2 + 1, 3 + 3] == 7 and (clefts == 7).sum() == 72
    ignore = open_ignore_mask(f"{path}:clefts")
    known = ignore.read(ignore.box) == 0
    assert known.sum() == np.prod(SHAPE) - 2 and known[2:12, 1:21, 3:27].sum() == known.sum()


def test_lucchi(tmp_path, server):
    server.files = lucchi_files(tmp_path)
    train, test = get_dataset("lucchi", tmp_path / "data", url=server.url)
    for path, seed in ((train, 0), (test, 1)):
        image, array = read(path, "image")
        assert image.voxel_size_nm == (5, 5, 5) and (array == grey(seed=seed)).all()
        _, objects = read(path, "mitochondria")
        assert ((objects > 0) == (labels_of() > 0)).all()
        assert objects[MARKED] == objects[1, 3, 4] != objects[2, 12, 14] != 0  # it lies in the first object


def test_first_download_saves_its_checksum_and_later_ones_must_match(tmp_path, server, capsys):
    server.files = lucchi_files(tmp_path)
    get_dataset("lucchi", tmp_path / "data", url=server.url)
    digest = hashlib.sha256(server.files["training.tif"]).hexdigest()
    record = tmp_path / "data" / "downloads" / "training.tif.sha256"
    assert record.read_text() == f"{digest}  training.tif\n" and digest in capsys.readouterr().err
    # Another file at the same address is refused later.
    (tmp_path / "data" / "lucchi_train.h5").unlink()
    (tmp_path / "data" / "downloads" / "training.tif").unlink()
    server.files["training.tif"] = stack(tmp_path, grey(seed=5))
    with pytest.raises(InputError, match="sha256 is that of the first download"):
        get_dataset("lucchi", tmp_path / "data", url=server.url)


@pytest.mark.parametrize("letter", ["R", "H"])
def test_mitoem(tmp_path, server, trusted, letter):
    name = f"mitoem-{letter.lower()}"
    server.files = mitoem_files(letter)
    trusted(name, server.files)
    (path,) = get_dataset(name, tmp_path / "data", url=server.url)
    image, array = read(path, "image")
    assert image.voxel_size_nm == (30, 8, 8) and (array == grey()).all()
    _, objects = read(path, "mitochondria")
    assert (objects[:6] == labels_of()[:6]).all() and not objects[6:].any() and objects[MARKED] == 3
    ignore = open_ignore_mask(f"{path}:mitochondria")
    assert ignore.read(ignore.box).any((1, 2)).tolist() == [False] * 6 + [True] * 4


def test_ids_of_a_folder_that_starts_counting_at_1_again_are_made_unique(tmp_path, server, trusted):
    server.files = mitoem_files(recounted=True)
    trusted("mitoem-r", server.files)
    (path,) = get_dataset("mitoem-r", tmp_path / "data", url=server.url)
    _, objects = read(path, "mitochondria")
    assert set(np.unique(objects[:3])) == {0, 1, 2} and set(np.unique(objects[3:6])) == {0, 3, 4, 5}


def test_jwr15(tmp_path, server):
    sides = np.zeros(SHAPE, np.uint16)
    sides[2:5, 4:8, 3:6], sides[2:5, 4:8, 6:9], sides[6:8, 12:16, 3:6] = 5, 6, 7
    sides[6:8, 12:16, 6:9] = 8
    server.files = jwr15_file(tmp_path, sides)
    paths = get_dataset("jwr15", tmp_path / "data", url=server.url)
    assert [p.name for p in paths] == ["jwr15_vol3.h5", "jwr15_vol4.h5"] and server.asked == ["jwr15_synapse.zip"]
    image, array = read(paths[0], "image")
    assert image.voxel_size_nm == (30, 8, 8) and (array == grey()).all()
    _, synapses = read(paths[0], "synapses")
    assert (synapses == sides).all() and synapses.dtype == np.uint32
    get_task("polarity", image.voxel_size_nm).check_values(set(np.unique(synapses).tolist()), "jwr15")
    assert [p.name for p in (tmp_path / "data" / "downloads").iterdir() if "partial" in p.name] == []


def synapses():
    sides = np.zeros(SHAPE, np.uint16)
    sides[2:5, 4:8, 3:6], sides[2:5, 4:8, 6:9] = 5, 6
    return sides


def notebook_files(tmp_path):
    """Image and labels as the published notebooks call them, as bytes."""
    return {n: hdf5(tmp_path, main=a).read_bytes() for n, a in (("img.h5", grey()), ("syn.h5", synapses()))}


@pytest.mark.parametrize("folder", ["", "jwr15_synapse/"])
def test_jwr15_as_the_notebooks_lay_it_out(tmp_path, server, folder):
    members = {folder + name: content for name, content in notebook_files(tmp_path).items()}
    server.files = {"jwr15_synapse.zip": archive(members | {f"{folder}readme.txt": "hello"})}
    paths = get_dataset("jwr15", tmp_path / "data", url=server.url)
    assert [p.name for p in paths] == ["jwr15.h5"]
    image, array = read(paths[0], "image")
    assert image.voxel_size_nm == (30, 8, 8) and (array == grey()).all()
    assert (read(paths[0], "synapses")[1] == synapses()).all()
    # The archive may be deleted afterwards: the converted volume is complete without volumes 3 and 4.
    (tmp_path / "data" / "downloads" / "jwr15_synapse.zip").unlink()
    asked = len(server.asked)
    assert get_dataset("jwr15", tmp_path / "data", url=server.url) == paths and len(server.asked) == asked


def test_jwr15_unpacked_files_of_the_notebooks_are_used(tmp_path, server):
    downloads = tmp_path / "data" / "downloads"
    downloads.mkdir(parents=True)
    files = notebook_files(tmp_path)
    (downloads / "img.h5").write_bytes(files["img.h5"])
    refuse(tmp_path, "jwr15", server.url, "holds img.h5 but not syn.h5", "put it there too, or move img.h5 away")
    (downloads / "syn.h5").write_bytes(files["syn.h5"])
    (path,) = get_dataset("jwr15", tmp_path / "data", url=server.url)
    assert path.name == "jwr15.h5" and (read(path, "image")[1] == grey()).all() and server.asked == []
    assert sorted(p.name for p in downloads.iterdir()) == ["img.h5", "syn.h5"]


def test_jwr15_in_both_layouts_is_converted_in_both(tmp_path, server, capsys):
    other = hdf5(tmp_path, main=grey(seed=7)).read_bytes()
    files = notebook_files(tmp_path)
    members = {
        f"{v}/{n}": c for v in ("vol3", "vol4") for n, c in (("im_Yx2.h5", other), ("syn_Yx2.h5", files["syn.h5"]))
    }
    server.files = {"jwr15_synapse.zip": archive(members | {f"demo/{n}": c for n, c in files.items()})}
    paths = get_dataset("jwr15", tmp_path / "data", url=server.url)
    assert [p.name for p in paths] == ["jwr15_vol3.h5", "jwr15_vol4.h5", "jwr15.h5"]
    assert "demo/img.h5 with demo/syn.h5: all three are converted" in " ".join(capsys.readouterr().err.split())
    assert (read(paths[0], "image")[1] == grey(seed=7)).all() and (read(paths[2], "image")[1] == grey()).all()


def test_half_a_pair_of_jwr15_is_refused_unless_there_are_numbered_volumes(tmp_path, server, capsys):
    files = notebook_files(tmp_path)
    server.files = {"jwr15_synapse.zip": archive({"demo/syn.h5": files["syn.h5"]})}
    refuse(tmp_path, "jwr15", server.url, "holds demo/syn.h5 but no demo/img.h5", "Is the archive complete?")
    members = {f"{v}/{n}": c for v in ("vol3", "vol4") for n, c in files.items()}  # these names are taken there as well
    server.files = {"jwr15_synapse.zip": archive(members | {"img.h5": files["img.h5"]})}
    paths = get_dataset("jwr15", tmp_path / "other", url=server.url)
    assert [p.name for p in paths] == ["jwr15_vol3.h5", "jwr15_vol4.h5"]
    assert "img.h5 is not used, because there is no syn.h5" in " ".join(capsys.readouterr().err.split())


def test_two_pairs_of_jwr15_are_refused(tmp_path, server):
    files = notebook_files(tmp_path)
    server.files = {"jwr15_synapse.zip": archive({f"{f}/{n}": c for f in "ab" for n, c in files.items()})}
    refuse(tmp_path, "jwr15", server.url, "img.h5 and syn.h5 in 2 folders (a/, b/); expected one pair")


def test_one_numbered_volume_of_jwr15_is_not_enough(tmp_path, server):
    files = notebook_files(tmp_path)
    server.files = {"jwr15_synapse.zip": archive({f"vol3/{n}": c for n, c in files.items()})}
    with pytest.raises(
        InputError, match=r"expected vol4/im_Yx2\.h5 and vol4/syn_Yx2\.h5 .* or img\.h5 and syn\.h5 in one"
    ):
        get_dataset("jwr15", tmp_path / "data", url=server.url)


def test_jwr15_repeats_rows_and_numbers_semantic_labels(tmp_path, server):
    sides = np.zeros((10, 24, 24), np.uint8)
    sides[2:5, 4:8, 3:6], sides[2:5, 4:8, 6:9], sides[6:8, 16:20, 3:6], sides[6:8, 16:20, 6:9] = 1, 2, 2, 1
    sides[9, 0, 0] = 1  # too small to be a synapse
    server.files = jwr15_file(tmp_path, sides, names=("im_orig_noPad.h5", "syn_gt_v3.h5"), rows=slice(0, 24, 2))
    path = get_dataset("jwr15", tmp_path / "data", url=server.url + "/jwr15_synapse.zip", voxel_size_nm=(30, 4, 4))[0]
    volume, synapses = read(path, "synapses")
    assert volume.voxel_size_nm == (30, 4, 4) and volume.shape_zyx == (10, 24, 24)
    assert set(np.unique(synapses)) == {0, 1, 2, 3, 4} and synapses[9, 0, 0] == 0
    assert synapses[2, 4, 3] % 2 == 1 and synapses[2, 4, 6] == synapses[2, 4, 3] + 1
    assert synapses[6, 16, 3] % 2 == 0 and synapses[6, 16, 6] == synapses[6, 16, 3] - 1


def test_number_synapses_separates_neighbours():
    sides = np.zeros((4, 12, 30), np.uint8)
    sides[:, 2:8, 2:5], sides[:, 2:8, 6:9] = 1, 2  # a gap of one voxel: one synapse
    sides[:, 2:8, 20:23], sides[:, 2:8, 23:26] = 1, 2
    numbered = number_synapses(sides)
    assert numbered[0, 3, 3] == 1 and numbered[0, 3, 7] == 2 and numbered[0, 3, 21] == 3 and numbered[0, 3, 24] == 4
    assert ((numbered > 0) == (sides > 0)).all()


# -- files that exist already ---------------------------------------------------------------------------------------


def test_existing_files_are_not_downloaded_or_converted_again(tmp_path, server, trusted):
    server.files = mitoem_files()
    trusted("mitoem-r", server.files)
    (path,) = get_dataset("mitoem-r", tmp_path / "data", url=server.url)
    get_dataset("mitoem-r", tmp_path / "data", url=server.url)
    path.unlink()  # the downloads still exist
    get_dataset("mitoem-r", tmp_path / "data", url=server.url)
    assert sorted(server.asked) == sorted(server.files)
    shutil.rmtree(tmp_path / "data" / "downloads")
    get_dataset("mitoem-r", tmp_path / "data", url=server.url)
    assert sorted(server.asked) == sorted(server.files)  # a converted volume needs no downloads
    get_dataset("mitoem-r", tmp_path / "other", url=server.url)
    server.asked = sorted(server.files)
    path = tmp_path / "other" / "mitoem_r.h5"
    (path.parent / "downloads" / "EM30-R-im.zip").write_bytes(b"damaged")
    path.unlink()
    get_dataset("mitoem-r", path.parent, url=server.url)
    assert server.asked.count("EM30-R-im.zip") == 2 and server.asked.count("EM30-R-mito-train-val-v2.zip") == 1
    assert (read(path, "image")[1] == grey()).all()


def test_files_that_the_user_downloaded_are_used(tmp_path, server):
    downloads = tmp_path / "data" / "downloads"
    downloads.mkdir(parents=True)
    for name, content in lucchi_files(tmp_path).items():
        (downloads / name).write_bytes(content)
    assert len(get_dataset("lucchi", tmp_path / "data", url=server.url)) == 2 and server.asked == []


def test_next_address_is_tried_when_one_fails(tmp_path, server, trusted, monkeypatch):
    server.files = mitoem_files()
    trusted("mitoem-r", server.files)
    dataset = DATASETS["mitoem-r"]
    files = tuple(
        Remote(r.name, (f"{server.url}/nowhere.zip", f"{server.url}/{r.name}"), r.sha256) for r in dataset.files
    )
    monkeypatch.setitem(DATASETS, "mitoem-r", DataSet(**{**vars(dataset), "files": files}))
    assert get_dataset("mitoem-r", tmp_path / "data")[0].exists()
    assert server.asked.count("nowhere.zip") == 2


# -- errors ---------------------------------------------------------------------------------------------------------


def refuse(tmp_path, name, url, *sentences):
    folder = tmp_path / "data"
    with pytest.raises(InputError) as caught:
        get_dataset(name, folder, url=url)
    for sentence in sentences:
        assert sentence in str(caught.value)
    assert list(folder.glob("*.h5")) == [] and list(folder.glob("*.partial")) == []


def test_unreachable_addresses_are_explained(tmp_path, server):
    refuse(tmp_path, "jwr15", server.url, "jwr15_synapse.zip answered 404", "pass --url", "put the file there by hand")
    refuse(tmp_path, "jwr15", "http://127.0.0.1:9", "cannot be reached (is there a network?)", "pass --url")
    refuse(tmp_path, "jwr15", "ftp://host/folder", "is not an http(s) address")


def test_truncated_and_wrong_downloads_are_deleted(tmp_path, server, trusted):
    server.files = mitoem_files()
    trusted("mitoem-r", server.files)
    left = tmp_path / "data" / "downloads" / "EM30-R-im.zip.partial"
    left.mkdir(parents=True)
    (left / "tmp_of_a_killed_download").write_bytes(b"half")
    server.cut_short = True
    refuse(tmp_path, "mitoem-r", server.url, "EM30-R-im.zip", "lost the connection before the file was complete")
    server.cut_short = False
    server.files = dict(server.files, **{"EM30-R-im.zip": b"<html>moved</html>"})
    refuse(tmp_path, "mitoem-r", server.url, "checksum is not the expected sha256", "it was deleted")
    assert list((tmp_path / "data" / "downloads").iterdir()) == []


def test_files_of_a_mirror_must_match_the_published_checksum(tmp_path, server):
    server.files = mitoem_files()
    refuse(tmp_path, "mitoem-r", server.url, "6a2cac68adde5d01984542d3ee1d7753d1fa3e6eb2a042ce15ce297c95885bbe")


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        (b"<html>moved</html>", ["is not a complete zip archive", "fetch it again"]),
        (
            archive({"readme.txt": "hello", "vol3/notes.h5": "x"}),
            ["holds readme.txt, vol3/notes.h5", "expected vol3/im_Yx2.h5"],
        ),
        (archive({"../vol3/im_Yx2.h5": "x"}), ["'../vol3/im_Yx2.h5', which would be written outside"]),
        (archive({"/etc/vol3/im_Yx2.h5": "x"}), ["which would be written outside"]),
        (archive({"vol3/im_Yx2.h5": "x", "vol3/syn_Yx2.h5": "x"}), ["is not an HDF5 file"]),
    ],
    ids=["no archive", "other files", "parent folder", "absolute path", "no HDF5"],  # the bytes contain the time
)
def test_archives_with_wrong_contents_are_refused(tmp_path, server, content, sentences):
    server.files = {"jwr15_synapse.zip": content}
    refuse(tmp_path, "jwr15", server.url, *sentences)


def test_files_with_wrong_contents_are_refused(tmp_path, server, trusted):
    files = lucchi_files(tmp_path)
    server.files = dict(files, **{"training_groundtruth.tif": stack(tmp_path, labels_of().astype(np.uint8)[:7])})
    refuse(tmp_path, "lucchi", server.url, "has (10, 20, 24) pixels", "has (7, 20, 24)", "Is one incomplete?")
    server.files = dict(files, **{"training.tif": b"<html>"})
    for path in (tmp_path / "data" / "downloads").iterdir():
        path.unlink()
    refuse(tmp_path, "lucchi", server.url, "cannot be read as TIFF")
    sample = hdf5(tmp_path, volumes__raw=grey()).read_bytes()
    server.files = {f"sample_{s}_20160501.hdf": sample for s in "ABC"}
    trusted("cremi", server.files)
    refuse(tmp_path, "cremi", server.url, "holds volumes/raw; expected volumes/raw and volumes/labels/clefts")
    gap = mitoem_files()
    with zipfile.ZipFile(tmp_path / "gap.zip", "w") as file:
        for z in (0, 1, 3):
            file.writestr(f"im/im{z:04d}.png", picture(grey()[z], ".png"))
    gap["EM30-R-im.zip"] = (tmp_path / "gap.zip").read_bytes()
    server.files = gap
    trusted("mitoem-r", gap)
    refuse(tmp_path, "mitoem-r", server.url, "section 2 is missing from its 3")


@pytest.mark.parametrize(("module", "name"), [(lucchi, "write_sections"), (pooch, "retrieve")])
def test_full_disk_is_explained(tmp_path, server, monkeypatch, module, name):
    server.files = lucchi_files(tmp_path)

    def full(*args, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, name, full)
    refuse(tmp_path, "lucchi", server.url, "is full", "make room", "not fetched again")


def test_expired_certificate_is_accepted_only_with_a_published_checksum(tmp_path, server, trusted, monkeypatch):
    server.files = mitoem_files() | jwr15_file(tmp_path, labels_of())
    trusted("mitoem-r", server.files)
    get = requests.get

    def expired(url, verify=True, **settings):
        if verify:
            raise requests.exceptions.SSLError("certificate has expired")
        return get(url, **settings)

    monkeypatch.setattr(requests, "get", expired)
    assert get_dataset("mitoem-r", tmp_path / "rat", url=server.url)[0].exists()
    refuse(tmp_path, "jwr15", server.url, "has no valid certificate")


# -- command line ---------------------------------------------------------------------------------------------------


def test_data_commands(tmp_path, server):
    table = CliRunner().invoke(app, ["data", "list"])
    assert table.exit_code == 0
    for dataset in DATASETS.values():
        assert any(
            line.startswith(dataset.name) and line.endswith(dataset.recipe) for line in table.output.splitlines()
        )
    server.files = lucchi_files(tmp_path)
    words = ["data", "get", "lucchi", str(tmp_path / "data"), "--url", server.url]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "lucchi_train.h5" in result.output and "--recipe lucchi_mitochondria" in result.output
    result = CliRunner().invoke(app, ["data", "get", "luchi", str(tmp_path)])
    assert result.exit_code == 1 and "did you mean 'lucchi'?" in result.stderr


def test_box_across_two_slabs_is_read_correctly(tmp_path, server):
    server.files = lucchi_files(tmp_path)
    path = get_dataset("lucchi", tmp_path / "data", url=server.url)[0]
    box = Box((7, 3, 2), (3, 4, 5))  # across the border of two slabs
    assert (open_volume(f"{path}:image").read(box) == grey()[box.slices]).all()
