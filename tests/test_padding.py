"""Candidates on padding, where the image holds one single grey value, are not asked about."""

import h5py
import numpy as np
import pytest
from conftest import VOXEL_SIZE_NM, toy_arrays

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.padding import RIM_PX, on_padding
from twostream.rounds.embed import embed_step
from twostream.rounds.loop import run
from twostream.rounds.pool import pool_of
from twostream.rounds.propose import propose_step
from twostream.volume import MemoryVolume

PADDED = Box.parse("0:8,0:96,112:160")


@pytest.fixture
def padded(tmp_path):
    """URI of a toy image, a part of which is padding, and of objects that lie everywhere."""
    image, truth = toy_arrays()
    image[PADDED.slices] = 0
    truth[PADDED.slices] = np.roll(truth, 16, 2)[PADDED.slices]
    with h5py.File(tmp_path / "padded.h5", "w") as file:
        file.attrs["voxel_size_nm"] = VOXEL_SIZE_NM
        file.create_dataset("image", data=image, chunks=(4, 32, 32))
        file["objects"], file["truth"] = truth, toy_arrays()[1]
    return tmp_path / "padded.h5"


def candidate(offset_zyx, mask):
    return Candidate(1, 1, Box(offset_zyx, mask.shape), mask.astype(np.uint8), 0.5)


def test_a_candidate_is_on_padding_if_one_value_lies_under_its_central_section_and_around_it():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 40, 60), np.uint8)
    image[:, :, :20], image[3, :, 40:] = 128, 7
    image[2:5, 10:14, 30:34] = 0  # a small dark object, saturated
    full, small, one = np.ones((3, 5, 5)), np.ones((3, 4, 4)), np.ones((1, 1, 1))
    wanted = {
        "in the padding": (candidate((1, 10, 5), full), True),
        "at the face of the image": (candidate((0, 0, 0), full), True),
        "a single voxel in the padding": (candidate((2, 8, 8), one), True),
        "a single voxel in tissue": (candidate((2, 30, 30), one), False),
        "a saturated object in tissue": (candidate((2, 10, 30), small), False),
        "across the border": (candidate((1, 10, 18), full), False),
        "nearer to tissue than the rim": (candidate((1, 10, 16 - RIM_PX), full), False),
        "just as far as the rim": (candidate((1, 10, 15 - RIM_PX), full), True),
        "its central section is missing": (candidate((2, 20, 45), full), True),
        "another of its sections is missing": (candidate((3, 20, 45), full), False),
    }
    found = on_padding(MemoryVolume(image, (30, 10, 10)), [c for c, _ in wanted.values()])
    assert dict(zip(wanted, found.tolist(), strict=True)) == {name: is_on for name, (_, is_on) in wanted.items()}
    assert on_padding(MemoryVolume(image, (30, 10, 10)), []).shape == (0,)


def test_candidates_on_padding_are_not_in_the_pool_unless_told(make_project, padded, capfd):
    def proposed(name, *overrides):
        project = make_project(
            name, image=f"{padded}:image", labels=f"{padded}:truth", segmentation=f"{padded}:objects",
            overrides=overrides,
        )  # fmt: skip
        detail = propose_step(project, 0)
        project.ledger.finish_step(0, "propose", 0.0, detail)
        candidates = project.candidates(0)
        return project, detail, list(zip(candidates, candidates.column("in_pool").tolist(), strict=True))

    project, detail, in_pool = proposed("without")
    said, whole = capfd.readouterr().err, project.image.box
    inside = [free for c, free in in_pool if PADDED.contains(c.box.grown((0, RIM_PX, RIM_PX)).intersection(whole))]
    assert inside and not any(inside)
    assert detail["num_on_padding"] >= len(inside)
    assert detail["num_in_pool"] == sum(free for _, free in in_pool) > 0
    assert f"{detail['num_on_padding']} of {detail['num_candidates']} candidates lie where the image is one" in said
    assert all(free for c, free in in_pool if c.box.offset_zyx[2] >= 64 and c.box.stop_zyx[2] <= 112)
    embed_step(project, 0)
    pool = pool_of(project, 0)
    assert [c.id for c in pool.candidates] == [c.id for c, free in in_pool if free]

    _, told, all_in_pool = proposed("told", "candidates.ask_on_padding=true")
    assert "one single grey value" not in capfd.readouterr().err
    assert told["num_on_padding"] == 0
    assert (
        told["num_in_pool"] == sum(free for _, free in all_in_pool) == detail["num_in_pool"] + detail["num_on_padding"]
    )


def test_a_run_asks_about_nothing_on_padding(make_project, padded):
    project = make_project(
        image=f"{padded}:image", labels=f"{padded}:truth", segmentation=f"{padded}:objects", budget=99
    )
    run(project, rounds=1, truth_uri=f"{padded}:truth")
    asked = [q.candidate for q in project.ledger.queries(0)]
    assert len(asked) == project.ledger.finished_steps()[0, "propose"]["num_in_pool"] > 0
    assert not on_padding(project.image, asked).any()
