"""The curated data set as COCO: pictures and annotations that hold the same objects as the volume."""

import importlib.util
import json

import numpy as np
import pytest
from conftest import SHAPE_ZYX, TINY, toy_arrays
from PIL import Image
from test_cli import call, refused
from test_curated import answered, dataset, done, make, table, world  # noqa: F401 - fixtures

from twostream.project.create import create_project
from twostream.project.dataset import coco
from twostream.project.dataset.coco import runs_of_section
from twostream.project.export import export
from twostream.volume import windows


def decoded(segmentation):
    """(Y, X) bool of an uncompressed RLE, run by run, as COCO's format describes it."""
    height, width = segmentation["size"]
    values = np.repeat(np.arange(len(segmentation["counts"])) % 2 == 1, segmentation["counts"])
    return values.reshape(width, height).T


def read(folder):
    """Content of annotations.json; a number that is none (NaN) is no JSON."""
    return json.loads((folder / "annotations.json").read_text(), parse_constant=pytest.fail)


def as_volume(content, num_sides):
    """(Z, Y, X) uint64 label values, painted from the annotations."""
    sections = {image["id"]: image["section"] for image in content["images"]}
    volume = np.zeros(SHAPE_ZYX, np.uint64)
    for one in content["annotations"]:
        mask = decoded(one["segmentation"])
        label = one["object"] if num_sides == 1 else 2 * one["object"] - 2 + one["category_id"]
        assert not volume[sections[one["image_id"]]][mask].any()
        volume[sections[one["image_id"]]][mask] = label
    return volume


@pytest.fixture(scope="module")
def written(done, tmp_path_factory):  # noqa: F811
    """The data set as COCO and as OME-Zarr."""
    folder = tmp_path_factory.mktemp("coco")
    said = export(done, "dataset", folder / "coco", "coco")
    export(done, "dataset", folder / "zarr")
    return folder, said


def test_the_annotations_are_the_volume(written):
    folder, said = written
    content, volume = read(folder / "coco"), dataset(folder / "zarr")[2]
    np.testing.assert_array_equal(as_volume(content, 1), volume)
    pairs = {(z, i) for z in range(len(volume)) for i in np.unique(volume[z]).tolist() if i}
    sections = {image["id"]: image["section"] for image in content["images"]}
    assert sorted((sections[one["image_id"]], one["object"]) for one in content["annotations"]) == sorted(pairs)
    assert f"{len(pairs)} annotations in {len(sections)} pictures of sections" in said
    for one in content["annotations"]:
        mask = decoded(one["segmentation"])
        (y0, x0), (y1, x1) = (edge(np.argwhere(mask), 0).tolist() for edge in (np.min, np.max))
        assert one["area"] == mask.sum() and one["bbox"] == [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
        assert sum(one["segmentation"]["counts"]) == mask.size and one["iscrowd"] == 0
    assert [one["id"] for one in content["annotations"]] == list(range(1, len(pairs) + 1))
    assert content["categories"] == [{"id": 1, "name": "mitochondria", "supercategory": "mitochondria"}]


def test_there_is_a_picture_of_every_section_that_holds_objects(written):
    folder, _ = written
    content, volume = read(folder / "coco"), dataset(folder / "zarr")[2]
    assert [image["section"] for image in content["images"]] == np.flatnonzero(volume.any((1, 2))).tolist()
    for image in content["images"]:
        with Image.open(folder / "coco" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
            np.testing.assert_array_equal(np.asarray(picture), toy_arrays()[0][image["section"]])
    assert len(list((folder / "coco" / "images").iterdir())) == len(content["images"])


def test_every_annotation_has_the_provenance_of_its_object(written):
    folder, _ = written
    rows = dataset(folder / "zarr")[0]
    for one in read(folder / "coco")["annotations"]:
        row = rows[one["object"]]
        assert (one["source"], one["annotator"] or "") == (row["origin"], row["answered_by"])
        assert one["probability"] == (float(row["probability"]) if row["probability"] else None)
    for name in ("objects.csv", "left_out.csv"):
        assert table(folder / "coco" / name) == table(folder / "zarr" / name)


def test_the_precision_stands_in_the_annotations_and_beside_them(written):
    folder, said = written
    facts = json.loads((folder / "coco" / "dataset.json").read_text())
    assert facts.pop("coco")["num_images"] == len(read(folder / "coco")["images"])
    assert facts == json.loads((folder / "zarr" / "dataset.json").read_text())
    info = read(folder / "coco")["info"]
    assert {name: info[name] for name in facts} == facts and info["precision"]["source"] == "test box"
    assert f"precision of origin model: {facts['precision']['value']:.3f}, 95 percent interval" in said


def test_without_audits_and_test_box_nothing_is_known_and_this_is_said(world, tmp_path):  # noqa: F811
    overrides = [*(one for one in TINY if not one.startswith("segmentation.")), "query.audit_share=0"]
    project = create_project(
        tmp_path / "p", task="mitochondria", image=f"{world}:image", segmentation=f"{world}:blobs", overrides=overrides
    )
    project = answered(project, world, rounds=1)
    said = export(project, "dataset", tmp_path / "d", "coco")
    assert "precision of origin model: no estimate yet" in said and "recall: no estimate yet" in said
    info = read(tmp_path / "d")["info"]
    assert info["precision"]["value"] is None and info["recall"]["meaning"].startswith("no estimate yet")


def test_the_sides_of_synapses_are_two_categories(world, tmp_path):  # noqa: F811
    project = answered(make(tmp_path / "p", world, "polarity"), world, rounds=1)
    export(project, "dataset", tmp_path / "coco", "coco")
    export(project, "dataset", tmp_path / "zarr")
    content = read(tmp_path / "coco")
    assert [one["name"] for one in content["categories"]] == ["presynaptic", "postsynaptic"]
    np.testing.assert_array_equal(as_volume(content, 2), dataset(tmp_path / "zarr")[2])
    of_object = {}
    for one in content["annotations"]:
        of_object.setdefault((one["object"], one["image_id"]), []).append(one["category_id"])
    assert [1, 2] in of_object.values() and all(len(set(found)) == len(found) for found in of_object.values())


@pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="pycocotools is not installed")
def test_pycocotools_reads_the_same_objects(written):
    from pycocotools.coco import COCO

    folder, _ = written
    volume = dataset(folder / "zarr")[2]
    read_again = COCO(str(folder / "coco" / "annotations.json"))
    found = np.zeros(SHAPE_ZYX, np.uint64)
    for image in read_again.loadImgs(read_again.getImgIds()):
        for one in read_again.loadAnns(read_again.getAnnIds(imgIds=[image["id"]])):
            mask = read_again.annToMask(one) > 0
            found[image["section"]][mask] = one["object"]
            assert mask.sum() == one["area"]
    np.testing.assert_array_equal(found, volume)


def test_one_section_is_in_memory_at_a_time(done, written, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(windows, "MIN_VOXELS_AT_ONCE", 1)
    sections = []
    write = coco.CocoSections.write

    def watched(self, box, array):
        sections.append(box)
        write(self, box, array)

    monkeypatch.setattr(coco.CocoSections, "write", watched)
    export(done, "dataset", tmp_path / "d", "coco")
    assert [box.offset_zyx[0] for box in sections] == list(range(SHAPE_ZYX[0]))
    assert {box.shape_zyx for box in sections} == {(1, *SHAPE_ZYX[1:])}
    assert (tmp_path / "d" / "annotations.json").read_text() == (written[0] / "coco" / "annotations.json").read_text()


def test_half_a_data_set_is_never_taken_for_a_whole_one(done, tmp_path, monkeypatch):  # noqa: F811
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(coco.CocoSections, "finish", full)
    words = ("export", done.root, "--what", "dataset", "--format", "coco", "-o")
    refused(call(*words, tmp_path / "d"), "No space left on device")
    assert not list(tmp_path.iterdir())
    refused(call(*words, tmp_path / "d.json"), "a data set is a folder with tables")


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 9)])
def test_runs_of_any_labels_are_what_a_plain_decoder_reads(shape):
    rng = np.random.default_rng(sum(shape))
    cases = [
        rng.integers(0, top, shape).astype(np.uint64) * np.uint64(2**40) for top in (2, 2, 3, 5) for _ in range(20)
    ]
    for labels in [*cases, np.ones(shape, np.uint64)]:
        found = np.zeros(shape, np.uint64)
        for label, counts, bbox, area in runs_of_section(labels):
            mask = decoded({"size": list(shape), "counts": counts})
            assert mask.sum() == area and all(count > 0 for count in counts[1:])
            x, y, width, height = bbox
            assert mask[y : y + height, x : x + width].sum() == area
            assert all(mask[:, column].any() for column in (x, x + width - 1))
            assert all(mask[row].any() for row in (y, y + height - 1))
            found[mask] = label
        np.testing.assert_array_equal(found, labels)
