"""Drawings between browser and server: exact both ways, nothing out of bounds; a click grows what was missed."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
from conftest import LABELS_BOX, SHAPE_ZYX, TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from test_answer_tables import FAINT, blob_at

from twostream.base.errors import InputError, NoSidesError
from twostream.base.geometry import Box
from twostream.project.create import create_project
from twostream.project.project import Project
from twostream.project.records import Answer
from twostream.rounds.loop import run
from twostream.task import get_task
from twostream.volume import create_volume
from twostream.web.corrections import MAX_RUNS, DrawingBody, SeedBody, drawing_of, grow_missed, mask_of

IMAGE = Box.whole((40, 50, 60))


def body(runs, offset=(1, 2, 3), shape=(2, 2, 3)):
    return DrawingBody(offset_zyx=offset, shape_zyx=shape, runs=runs)


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 2)))
def test_a_mask_comes_back_over_its_bounding_box(mask):
    sent = drawing_of(Box((7, 8, 9), mask.shape), mask)
    values = sent.runs[::2]
    assert all(a != b for a, b in pairwise(values)), "the runs are as long as possible"
    if not mask.any():
        with pytest.raises(InputError, match="the drawing is empty"):
            mask_of(sent, IMAGE, 2)
        return
    box, got = mask_of(DrawingBody.model_validate_json(sent.model_dump_json()), IMAGE, 2)
    whole, expected = np.zeros(IMAGE.shape_zyx, np.uint8), np.zeros(IMAGE.shape_zyx, np.uint8)
    expected[Box((7, 8, 9), mask.shape).slices] = mask
    whole[box.slices] = got
    assert (whole == expected).all() and got.dtype == np.uint8
    assert all(got.take(end, axis).any() for axis in range(3) for end in (0, -1)), "it is trimmed"


@pytest.mark.parametrize(
    ("drawing", "sentence"),
    [
        (body([1, 11]), r"add up to 11 voxels; its box holds 12"),
        (body([1, 12, 0, 1]), r"add up to 13 voxels; its box holds 12"),
        (body([1]), "has 1 entries in runs; expected pairs"),
        (body([]), r"add up to 0 voxels"),
        (body([1, 0, 0, 12]), "or one of length 0"),
        (body([1, 2**53 - 1] * 5000), "a run longer than its box"),  # the sum would be larger than int64
        (body([2, 12]), "holds the value 2; expected 0 outside and 1 inside"),
        (body([0, 12]), "the drawing is empty; draw at least one voxel"),
        (
            body([1, 12], offset=(39, 0, 0)),
            "lies at 39:41,0:2,0:3; expected voxels inside the image, which holds",
        ),
        (body([1, 12], offset=(2**53 - 1, 0, 0)), "expected voxels inside the image"),
        (body([], shape=(0, 2, 3)), "expected voxels inside the image"),
        (body([1, 12], shape=(2**53 - 1,) * 3), "at most 16000000 are taken"),
    ],
)
def test_what_is_no_drawing_is_refused(drawing, sentence):
    with pytest.raises(InputError, match=sentence):
        mask_of(drawing, IMAGE, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"runs": [1, -12]}, {"runs": [1.5, 12]}, {"runs": [1.0, 12]}, {"runs": ["1", 12]}, {"runs": [True, 12]},
        {"runs": [1, 2**53]}, {"runs": [1, 1] * (MAX_RUNS // 2 + 1)}, {"runs": None},
        {"offset_zyx": [-1, 0, 0]}, {"offset_zyx": [0, 0]}, {"shape_zyx": [1, 1, 1e400]}, {"more": 1},
    ],
)  # fmt: skip
def test_what_is_not_of_the_form_of_a_drawing_is_refused(change):
    with pytest.raises(ValidationError):
        DrawingBody.model_validate({"offset_zyx": [0, 0, 0], "shape_zyx": [2, 2, 3], "runs": [1, 12]} | change)


def test_a_mask_that_could_not_be_read_back_is_not_sent():
    ragged = np.indices((60, 60, 60)).sum(0).astype(np.uint8) % 2
    assert len(drawing_of(Box.whole(ragged[:50].shape), ragged[:50]).runs) < MAX_RUNS
    with pytest.raises(InputError, match="at most 200000 can be sent"):
        drawing_of(Box.whole(ragged.shape), ragged)


@pytest.mark.parametrize("change", [{"center_zyx": [1, 2, float("nan")]}, {"center_zyx": [1, 2, "3"]}, {"radius_nm": 0},
                                    {"radius_nm": float("inf")}, {"center_zyx": [1, 2, 1e300]}])  # fmt: skip
def test_what_is_no_place_is_refused(change):
    with pytest.raises(ValidationError):
        SeedBody.model_validate({"center_zyx": [1, 2, 3.5]} | change)


# -- growing ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proposed(tmp_path_factory, toy_file):
    """A folder with a project whose probability shows most objects clearly, and two too faintly to be proposed."""
    folder = tmp_path_factory.mktemp("proposed")
    level = np.where(toy_arrays()[0] > 115, 220, 5).astype(np.uint8)
    for place in FAINT:
        level[blob_at(place)] = 76
    theirs = str(folder / "theirs.zarr")
    volume = create_volume(theirs, shape_zyx=SHAPE_ZYX, dtype=np.uint8, voxel_size_nm=VOXEL_SIZE_NM)
    volume.write(volume.box, level)
    project = create_project(
        folder / "p", task="mitochondria", image=f"{toy_file}:image", labels=f"{toy_file}:mitochondria",
        labels_box=LABELS_BOX, probability=theirs, test_box=TEST_BOX, budget=6, overrides=TINY,
    )  # fmt: skip
    run(project, rounds=1)
    project.ledger.close()
    return folder


@pytest.fixture
def project(proposed, tmp_path):
    shutil.copytree(proposed, tmp_path / "copy")
    return Project(tmp_path / "copy" / "p")


def test_a_click_grows_the_object_that_the_probability_shows(project):
    grown = grow_missed(project, SeedBody(center_zyx=FAINT[0]))
    drawn = np.zeros(SHAPE_ZYX, bool)
    drawn[grown.box.slices] = grown.mask > 0
    assert (drawn == blob_at(FAINT[0])).all() and not grown.is_ball
    box, mask = mask_of(drawing_of(grown.box, grown.mask), Box.whole(SHAPE_ZYX), 1)
    assert box == grown.box and (mask == grown.mask).all()
    project.ledger.tell(Answer(None, "missed", "ann", drawing=(box, mask)))
    with pytest.raises(InputError, match="the missed object that ann has marked"):
        grow_missed(project, SeedBody(center_zyx=FAINT[0]), project.ledger.current_answers())


def test_a_ball_has_the_radius_that_was_asked_for(project):
    small, large = (grow_missed(project, SeedBody(center_zyx=(4, 16, 112), radius_nm=r)) for r in (30, 60))
    assert small.is_ball and large.is_ball and small.num_voxels == 29 + 2 < large.num_voxels


def test_a_click_where_nothing_can_be_missed_is_refused(project):
    asked = project.ledger.query(1).candidate
    inside = np.argwhere(asked.mask)[0] + asked.box.offset_zyx
    for center, sentence in (
        ((4.0, 16.0, 20.0), r"^the point lies in a labels box, where S learns from the labels$"),
        ((4.0, 16.0, 210.0), r"^the point lies in the test box or its guard"),
        (tuple(map(float, inside)), rf"^the point lies in candidate {asked.id}, so the object was not missed$"),
        ((4.0, 16.0, 400.0), "outside the image"),
        ((4.0, -1e15, 1e15), "outside the image"),
    ):
        with pytest.raises(InputError, match=sentence):
            grow_missed(project, SeedBody(center_zyx=center))
    with pytest.raises(InputError, match="needs a point on both sides"):
        grow_missed(project, SeedBody(center_zyx=(4, 16, 112), pre_zyx=(4, 16, 110)))


def test_a_radius_that_would_read_too_much_is_refused(project, monkeypatch):
    monkeypatch.setattr("twostream.web.corrections.MAX_VOXELS", 8 * 60 * 60)
    with pytest.raises(InputError, match=r"a radius of 100 nm makes a window of \d+ voxels.*smaller radius"):
        grow_missed(project, SeedBody(center_zyx=(4, 48, 112), radius_nm=100))


def test_the_sides_of_a_synapse_are_asked_for(project, monkeypatch):
    monkeypatch.setattr(Project, "task", get_task("polarity", VOXEL_SIZE_NM))
    monkeypatch.setattr("twostream.project.missed_objects.MissedObjects.probability", None)
    place = {"center_zyx": (4, 16, 112), "radius_nm": 60}
    with pytest.raises(NoSidesError, match=r"give a point on each side$"):
        grow_missed(project, SeedBody(**place))
    grown = grow_missed(project, SeedBody(**place, pre_zyx=(4, 16, 109), post_zyx=(4, 16, 115)))
    assert grown.mask[..., 0].max() == 1 and grown.mask[..., -1].max() == 2
