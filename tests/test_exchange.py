"""Open queries for other tools, and back: each format goes out, is edited as a person would, and returns."""

import csv
import json
import re
import shutil
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import SHAPE_ZYX, TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays
from typer.testing import CliRunner

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.cli import app
from twostream.project.answer_tables import read_answers
from twostream.project.create import create_project
from twostream.project.exchange.neuroglancer import link
from twostream.project.exchange.point_tables import cave_rows
from twostream.project.exchange.points import Place, Point, inner_voxel, note_cells, place_of, whole_offset
from twostream.project.export import export
from twostream.project.project import Project
from twostream.rounds.loop import run
from twostream.volume import create_volume

FILES = {"neuroglancer": "q.json", "webknossos": "q.nml", "cave": "q.csv", "vast": "q.txt"}


@pytest.fixture(scope="module")
def asked(tmp_path_factory, toy_file):
    """A project whose queries of round 0 wait for answers."""
    folder = tmp_path_factory.mktemp("exchange")
    level = np.where(toy_arrays()[0] > 115, 220, 5).astype(np.uint8)
    volume = create_volume(
        str(folder / "theirs.zarr"), shape_zyx=SHAPE_ZYX, dtype=np.uint8, voxel_size_nm=VOXEL_SIZE_NM
    )
    volume.write(volume.box, level)
    project = create_project(
        folder / "p", task="mitochondria", image=f"{toy_file}:image", probability=str(folder / "theirs.zarr"),
        test_box=TEST_BOX, budget=6, overrides=TINY,
    )  # fmt: skip
    run(project, rounds=1)
    project.ledger.close()
    return folder


@pytest.fixture
def project(asked, tmp_path):
    """A copy of the project, with its probability."""
    shutil.copytree(asked, tmp_path / "lab")
    return Project(tmp_path / "lab" / "p")


def write(project, path, format_):
    """The open queries at ``path``; returns their ids in the order of the file."""
    export(project, "queries", path, format_)
    return [query.id for query in project.ledger.open_queries()]


def fill_neuroglancer(path, notes):
    state = json.loads(path.read_text())
    for annotation in state["layers"][-1]["annotations"]:
        number = int(annotation["id"].split()[1])
        annotation["description"] += notes.get(number, "")
    path.write_text(json.dumps(state))


def fill_webknossos(path, notes):
    tree = ElementTree.parse(path)
    names = {thing.find("nodes/node").get("id"): int(thing.get("name").split()[1]) for thing in tree.iterfind("thing")}
    for comment in tree.iterfind("comments/comment"):
        comment.set("content", notes.get(names[comment.get("node")], comment.get("content")))
    tree.write(path)


def fill_csv(path, notes):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= note_cells(notes.get(int(row["query"]), ""))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def fill_vast(path, notes):
    text = path.read_text()
    for number, note in notes.items():
        text = re.sub(rf'("query {number} of [^"]*)"', rf'\g<1>{note}"', text)
    path.write_text(text)


FILL = {
    "neuroglancer": fill_neuroglancer, "webknossos": fill_webknossos, "cave": fill_csv, "vast": fill_vast,
}  # fmt: skip


@pytest.mark.parametrize("format_", FILES)
class TestEveryFormat:
    def test_goes_out_and_comes_back(self, project, tmp_path, format_):
        path = tmp_path / FILES[format_]
        ids = write(project, path, format_)
        FILL[format_](path, {ids[0]: "true", ids[1]: "shape, two are merged", ids[2]: "Nothing"})
        recorded = read_answers(project, path, "ada")
        assert (recorded.new, recorded.empty) == (3, len(ids) - 3)
        answers = {answer.query: answer for answer in project.ledger.all_answers()}
        assert [str(answers[i].kind) for i in ids[:3]] == ["true", "shape", "nothing"]
        assert answers[ids[1]].reason == "two are merged"
        assert read_answers(project, path, "ada").passed_over == 3

    def test_the_file_of_another_project_is_refused(self, project, tmp_path, format_):
        path = tmp_path / FILES[format_]
        ids = write(project, path, format_)
        FILL[format_](path, {ids[0]: "true"})
        path.write_text(path.read_text().replace(project.id, "0" * len(project.id)))
        with pytest.raises(InputError, match=f"is project {project.id}, so this table was exported from another"):
            read_answers(project, path, "ada")
        assert project.ledger.all_answers() == []

    def test_an_unknown_kind_is_refused(self, project, tmp_path, format_):
        path = tmp_path / FILES[format_]
        ids = write(project, path, format_)
        FILL[format_](path, {ids[0]: "true", ids[3]: "shap"})
        with pytest.raises(
            InputError, match=r"(annotation|tree|row|line) \d+, column kind: 'shap' came.*nearest is shape"
        ):
            read_answers(project, path, "ada")
        assert project.ledger.all_answers() == []

    def test_a_file_without_answers_is_refused(self, project, tmp_path, format_):
        path = tmp_path / FILES[format_]
        write(project, path, format_)
        with pytest.raises(InputError, match="none of them holds a kind"):
            read_answers(project, path, "ada")

    def test_another_ending_is_refused(self, project, tmp_path, format_):
        with pytest.raises(InputError, match="Choose one of these endings"):
            export(project, "queries", tmp_path / "q.xlsx", format_)

    def test_only_queries_go_out(self, project, tmp_path, format_):
        with pytest.raises(InputError, match="is for --what queries; it came with answers"):
            export(project, "answers", tmp_path / FILES[format_], format_)


@pytest.mark.parametrize("format_", ["neuroglancer", "webknossos", "vast"])
def test_half_a_file_is_refused(project, tmp_path, format_):
    path = tmp_path / FILES[format_]
    ids = write(project, path, format_)
    FILL[format_](path, {ids[0]: "true"})
    path.write_text(path.read_text()[:-60])
    with pytest.raises(InputError, match=r"no whole|expected 24 whole numbers"):
        read_answers(project, path, "ada")
    assert project.ledger.all_answers() == []


@pytest.mark.parametrize("format_", ["neuroglancer", "webknossos", "vast"])
def test_a_file_about_other_things_is_refused(project, tmp_path, format_):
    path = tmp_path / FILES[format_]
    write(project, path, format_)
    path.write_text(re.sub("query [0-9]+ of", "axon of", path.read_text()))
    with pytest.raises(InputError, match="is named 'query NUMBER of PROJECT'"):
        read_answers(project, path, "ada")


class TestPlaces:
    """Every point lies on a voxel of its object, in the tool's own way of counting."""

    @pytest.fixture
    def masks(self, project):
        whole = np.zeros(SHAPE_ZYX, np.int64)
        for query in project.ledger.open_queries():
            whole[query.candidate.box.slices][query.candidate.mask > 0] = query.id
        return whole

    def test_neuroglancer_counts_centres_from_a_half(self, project, tmp_path, masks):
        write(project, tmp_path / "q.json", "neuroglancer")
        state = json.loads((tmp_path / "q.json").read_text())
        assert [state["dimensions"][name][0] for name in "xyz"] == pytest.approx(
            [v * 1e-9 for v in VOXEL_SIZE_NM[::-1]]
        )
        for one in state["layers"][-1]["annotations"]:
            assert all(v % 1 == 0.5 for v in one["point"])
            z, y, x = (int(v) for v in one["point"][::-1])
            assert masks[z, y, x] == int(one["id"].split()[1])

    def test_webknossos_cave_and_vast_count_whole_voxels(self, project, tmp_path, masks):
        for format_, name in FILES.items():
            write(project, tmp_path / name, format_)
        for thing in ElementTree.parse(tmp_path / "q.nml").iterfind("thing"):
            node = thing.find("nodes/node")
            assert masks[tuple(int(node.get(name)) for name in "zyx")] == int(thing.get("name").split()[1])
        with open(tmp_path / "q.csv", newline="") as file:
            for row in csv.DictReader(file):
                assert masks[tuple(int(row[f"pt_position_{name}"]) for name in "zyx")] == int(row["query"])
                assert [float(row[f"resolution_{name}_nm"]) for name in "zyx"] == list(VOXEL_SIZE_NM)
        for line in (tmp_path / "q.txt").read_text().splitlines():
            if "query" in line and not line.startswith("%"):
                numbers = [int(v) for v in line.split('"')[0].split()]
                assert masks[tuple(numbers[12:9:-1])] == int(re.search(r"query (\d+)", line)[1])

    @pytest.mark.parametrize("format_", ["webknossos", "vast"])
    def test_as_csv(self, project, tmp_path, masks, format_):
        ids = write(project, tmp_path / "q.csv", format_)
        with open(tmp_path / "q.csv", newline="") as file:
            for row in csv.DictReader(file):
                assert masks[tuple(int(row[name]) for name in "zyx")] == int(row["query"])
        fill_csv(tmp_path / "q.csv", {ids[0]: "true"})
        assert read_answers(project, tmp_path / "q.csv", "ada").new == 1

    def test_the_voxel_of_a_bent_object_lies_in_it(self):
        mask = np.zeros((1, 5, 5), np.uint8)
        mask[0, :, 0] = mask[0, 0] = mask[0, :, 4] = 1
        z, y, x = inner_voxel(mask, Box((7, 10, 20), (1, 5, 5)), (30, 8, 8))
        assert mask[z - 7, y - 10, x - 20]

    def test_a_place_is_the_nearest_whole_voxels(self):
        assert whole_offset((90, 16, -8), (30, 8, 8)) == (3, 2, -1)
        assert whole_offset((90, 3, 8), (30, 8, 8)) == (3, 0, 1)
        assert whole_offset(None, (30, 8, 8)) == (0, 0, 0)

    def test_cave_has_both_sides_of_a_synapse(self):
        point = Point(3, 8, "query 3 of a", (1, 2, 3), ((1, 2, 2), (1, 2, 4)), Box((1, 2, 2), (1, 1, 3)))
        (row,) = cave_rows([point], Place((30, 8, 8), (10, 20, 30), (9, 9, 9)), "a")
        assert [row[f"pre_pt_position_{name}"] for name in "xyz"] == [32, 22, 11]
        assert [row[f"ctr_pt_position_{name}"] for name in "xyz"] == [33, 22, 11]
        assert [row[f"post_pt_position_{name}"] for name in "xyz"] == [34, 22, 11]


class TestNeuroglancer:
    def test_a_link_is_read_as_its_state(self, project, tmp_path):
        path = tmp_path / "q.json"
        ids = write(project, path, "neuroglancer")
        fill_neuroglancer(path, {ids[0]: "unsure"})
        (tmp_path / "link.txt").write_text(link("https://example.org/", json.loads(path.read_text())))
        assert read_answers(project, tmp_path / "link.txt", "ada").new == 1

    def test_a_tag_is_an_answer_too(self, project, tmp_path):
        path = tmp_path / "q.json"
        ids = write(project, path, "neuroglancer")
        state = json.loads(path.read_text())
        layer = state["layers"][-1]
        layer["annotationProperties"] = [{"id": "tag0", "type": "bool", "tag": "nothing"}]
        layer["annotations"][0]["props"] = [1]
        layer["annotations"][1]["props"] = [0]
        path.write_text(json.dumps(state))
        assert read_answers(project, path, "ada").new == 1
        assert [(a.query, str(a.kind)) for a in project.ledger.all_answers()] == [(ids[0], "nothing")]

    @pytest.mark.parametrize(
        "layers",
        [
            None, 3, ["x"], [{"annotations": 3}], [{"annotations": ["x"]}], [{"annotations": [None]}],
            [{"annotations": [{"id": "query 1 of a", "tagIds": 3}]}],
            [{"annotations": [{"id": "query 1 of a", "props": [1]}], "annotationProperties": [3]}],
            [{"annotations": [{"description": "missed", "point": [1, 2]}]}],
            [{"annotations": [{"description": "missed", "point": [1, 2, 1e999]}]}],
            [{"annotations": [{"description": "missed", "point": "abc"}], "source": 3}],
        ],
    )  # fmt: skip
    def test_states_of_another_form_are_refused(self, project, tmp_path, layers):
        path = tmp_path / "q.json"
        space = {name: [8e-9, "m"] for name in "xyz"}
        path.write_text(json.dumps({"dimensions": space, "layers": layers}))
        with pytest.raises(InputError, match=r"no whole viewer state|place in x, y and z cannot be read"):
            read_answers(project, path, "ada")

    def test_other_annotations_are_passed_over_and_counted(self, project, tmp_path):
        path = tmp_path / "q.json"
        ids = write(project, path, "neuroglancer")
        fill_neuroglancer(path, {ids[0]: "true"})
        state = json.loads(path.read_text())
        state["layers"][-1]["annotations"].append({"type": "point", "id": "f0", "point": [1, 1, 1]})
        path.write_text(json.dumps(state))
        assert "1 others are about no query and were passed over" in read_answers(project, path, "ada").lines()[0]

    def test_a_new_point_may_be_a_missed_object(self, project, tmp_path):
        path = tmp_path / "q.json"
        write(project, path, "neuroglancer")
        state = json.loads(path.read_text())
        state["layers"][-1]["annotations"].append(
            {"type": "point", "id": "f0", "point": [100000, 2, 2], "description": "missed"}
        )
        path.write_text(json.dumps(state))
        with pytest.raises(InputError, match=r"annotation \d+: missed object at z, y, x = 2, 2, 100000"):
            read_answers(project, path, "ada")


class TestWebknossos:
    def test_two_comments_that_differ_are_refused(self, project, tmp_path):
        path = tmp_path / "q.nml"
        write(project, path, "webknossos")
        tree = ElementTree.parse(path)
        thing, comments = tree.find("thing"), tree.find("comments")
        ElementTree.SubElement(thing.find("nodes"), "node", id="99", x="1", y="1", z="1")
        comments.find("comment").set("content", "true")
        ElementTree.SubElement(comments, "comment", node="99", content="nothing")
        tree.write(path)
        with pytest.raises(InputError, match="tree 1: its comments say true and nothing; keep one"):
            read_answers(project, path, "ada")

    def test_a_document_type_is_refused(self, project, tmp_path):
        (tmp_path / "q.nml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><things/>')
        with pytest.raises(InputError, match="declares a document type"):
            read_answers(project, tmp_path / "q.nml", "ada")

    def test_the_file_in_an_archive_is_read(self, project, tmp_path):
        path = tmp_path / "q.nml"
        ids = write(project, path, "webknossos")
        fill_webknossos(path, {ids[0]: "true"})
        with zipfile.ZipFile(tmp_path / "q.zip", "w") as archive:
            archive.write(path, "skeleton.nml")
            archive.writestr("data_Volume.zip", b"")
        assert read_answers(project, tmp_path / "q.zip", "ada").new == 1
        with zipfile.ZipFile(tmp_path / "q.zip", "a") as archive:
            archive.write(path, "another.nml")
        with pytest.raises(InputError, match="several NML files"):
            read_answers(project, tmp_path / "q.zip", "ada")
        (tmp_path / "half.zip").write_bytes((tmp_path / "q.zip").read_bytes()[:200])
        with pytest.raises(InputError, match="cannot be read as a workbook"):
            read_answers(project, tmp_path / "half.zip", "ada")

    def test_a_renumbered_tree_is_recognised(self, project, tmp_path):
        path = tmp_path / "q.nml"
        ids = write(project, path, "webknossos")
        fill_webknossos(path, {ids[0]: "true"})
        path.write_text(re.sub(f"(of {project.id})", r"\1_0", path.read_text()))  # as after a split on import
        assert read_answers(project, path, "ada").new == 1


def test_the_place_without_the_segmentation_is_the_images(project):
    before = place_of(project)
    shutil.rmtree(project.path(0, "segmentation.zarr"))
    assert place_of(project) == before


def test_on_the_command_line(project, tmp_path):
    path = str(tmp_path / "q.nml")
    root = str(project.root)
    result = CliRunner().invoke(app, ["export", root, "--what", "queries", "--format", "webknossos", "-o", path])
    assert result.exit_code == 0, result.output
    assert "6 queries written" in result.output
    fill_webknossos(tmp_path / "q.nml", {project.ledger.open_queries()[0].id: "true"})
    result = CliRunner().invoke(app, ["answer", root, path, "--annotator", "ada"])
    assert result.exit_code == 0, result.output
    assert "1 answer recorded, 5 left empty" in result.output
