"""Focus view and its tools in a real browser: what is shown, corrections, missed objects, touch, and how it looks."""

from __future__ import annotations

import json
from urllib.parse import unquote

import numpy as np
import pytest
from conftest import SHAPE_ZYX, TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays
from served import make_queue, needs_browser, until
from test_answer_tables import FAINT, blob_at

from twostream.base.geometry import Box
from twostream.project.create import create_project
from twostream.rounds.loop import run
from twostream.rounds.teaching import collect
from twostream.volume import create_volume
from twostream.volume.synthetic import Tissue

pytestmark = needs_browser
SINGLE = (255, 210, 63)


def at(page, zyx, plane: str = "xy") -> tuple[float, float]:
    """Where a place of the image (voxel i reaches from i to i + 1) lies on the screen."""
    x, y = page.evaluate("([zyx, plane]) => twostream.focus.viewer.toScreen(zyx, plane)", [list(zyx), plane])
    box = page.locator(f".viewer-{plane}").bounding_box()
    return box["x"] + x, box["y"] + y


def pixels(page, places, plane: str = "xy") -> np.ndarray:
    """(N, 3) colours on the canvas at places (z, y, x) of the image."""
    return np.array(
        page.evaluate(
            """([places, plane]) => {
              const canvas = document.querySelector(`.viewer-${plane}`);
              const scale = canvas.width / canvas.clientWidth;
              const context = canvas.getContext("2d");
              return places.map((zyx) => {
                const [x, y] = twostream.focus.viewer.toScreen(zyx, plane).map((v) => Math.floor(v * scale));
                return [...context.getImageData(x, y, 1, 1).data].slice(0, 3);
              });
            }""",
            [[list(map(float, place)) for place in places], plane],
        )
    )


def painted(page) -> None:
    """Wait until what was changed is on the screen."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def drag(page, *places) -> None:
    """Press the left button at the first place, move through the others, and let go."""
    page.mouse.move(*at(page, places[0]))
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*at(page, place), steps=4)
    page.mouse.up()


def whole(box: Box, mask: np.ndarray) -> np.ndarray:
    """(Z, Y, X) uint8 over the toy image."""
    found = np.zeros(SHAPE_ZYX, np.uint8)
    found[box.slices] = mask
    return found


def shown_mask(page, name: str = "mask") -> np.ndarray:
    """(Z, Y, X) uint8 over the toy image: the mask that the viewer shows."""
    values = page.evaluate(f"(({{offset, shape, data}}) => [offset, shape, [...data]])(twostream.focus.viewer.{name})")
    offset, shape, data = values
    return whole(Box(tuple(offset), tuple(shape)), np.array(data, np.uint8).reshape(shape))


def current(page) -> int:
    return page.evaluate("twostream.queue.current.query.id")


def sent(page) -> None:
    until(page, "twostream.outbox.unsent().length === 0")


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_patch_and_mask_are_those_of_the_ledger(show):
    served, page = show()
    query = served.project.ledger.query(current(page))
    snapshot = whole(query.candidate.box, query.candidate.mask)
    assert (shown_mask(page) == snapshot).all()
    page.evaluate("twostream.focus.viewer.crosshair = false; twostream.focus.viewer.overlay = 'off'")
    painted(page)
    image, section = toy_arrays()[0], page.evaluate("Math.floor(twostream.focus.viewer.center[0])")
    rows, columns = np.nonzero(snapshot[section])
    places = [(section + 0.5, y + 0.5, x + 0.5) for y, x in zip(rows, columns, strict=True)]
    read = pixels(page, places)
    assert (read == read[:, :1]).all() and (read[:, 0] == image[section, rows, columns]).all()
    page.evaluate("twostream.focus.viewer.overlay = 'fill'; twostream.focus.viewer.opacity = 1")
    painted(page)
    around = np.argwhere(np.ones((24, 24), bool)) + np.array([rows.min() - 6, columns.min() - 6])
    around = np.array([(y, x) for y, x in around if 0 <= y < SHAPE_ZYX[1] and 0 <= x < SHAPE_ZYX[2]])
    read = pixels(page, [(section + 0.5, y + 0.5, x + 0.5) for y, x in around])
    assert ((read[:, 0] > read[:, 2] + 20) == (snapshot[section][tuple(around.T)] > 0)).all(), (
        "coloured where the mask is"
    )


def test_three_planes_have_the_aspect_of_the_tissue(show):
    _, page = show()
    center = page.evaluate("twostream.focus.viewer.center")
    size = dict(zip("zyx", VOXEL_SIZE_NM, strict=True))
    scales = []
    for plane in ("xy", "xz", "yz"):
        here = at(page, center, plane)
        for axis in "zyx":
            there = at(page, [v + (10 if a == axis else 0) for v, a in zip(center, "zyx", strict=True)], plane)
            moved = abs(there[0] - here[0]) + abs(there[1] - here[1])
            if axis in plane:
                scales.append(moved / (10 * size[axis]))
            else:
                assert moved < 1e-6
    assert scales == pytest.approx([scales[0]] * 6)


def test_the_next_candidate_is_there_before_the_key(show):
    served, page = show()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    following = page.evaluate("twostream.queue.upcoming(1)[0].query.id")
    until(page, f"twostream.focus.pictures.ready({following}) !== null")
    requested.clear()
    page.keyboard.press("t")
    until(page, f"twostream.queue.current.query.id === {following} && twostream.focus.item.query.id === {following}")
    page.evaluate("twostream.focus.viewer.firstPaint")
    query = served.project.ledger.query(following)
    assert (shown_mask(page) == whole(query.candidate.box, query.candidate.mask)).all()
    view = page.evaluate("twostream.queue.current.query.view")
    box = ",".join(f"{o}:{o + n}" for o, n in zip(view["offset_zyx"], view["shape_zyx"], strict=True))
    assert not [url for url in requested if f"queries/{following}/mask" in url or f"image?box={box}" in url]


# -- correction -------------------------------------------------------------------------------------------------------


def begin(page) -> tuple[int, np.ndarray, int, np.ndarray]:
    """Begin to correct the current candidate: (query, its mask, section, (y, x) of a voxel in the section's middle)."""
    page.keyboard.press("e")
    until(page, "twostream.correction.mode === 'mask'")
    mask, section = shown_mask(page), page.evaluate("twostream.correction.section")
    rows, columns = np.nonzero(mask[section])
    return current(page), mask, section, np.array([int(rows.mean()), int(columns.mean())])


def test_brush_and_eraser_by_mouse_are_recorded_voxel_by_voxel_and_seen_after_a_reload(show):
    served, page = show()
    page.keyboard.press("ArrowDown")
    query, before, section, (y, x) = begin(page)
    assert section == int(page.evaluate("twostream.queue.current.query.center_zyx[0]") + 0.5) + 1, "the view stays"
    drag(page, (section + 0.5, y + 0.5, x + 0.5), (section + 0.5, y + 0.5, x + 12.5))
    brushed = shown_mask(page)
    added = (brushed > 0) & (before == 0)
    assert added[section].any() and not added[[s for s in range(8) if s != section]].any()
    assert added[section, y, x + 11] and not added[section, y, x + 20 :].any()
    page.keyboard.press("2")
    drag(page, (section + 0.5, y + 0.5, x + 0.5), (section + 0.5, y + 1.5, x + 0.5))
    erased = shown_mask(page)
    assert not erased[section, y, x] and (erased[section] < brushed[section]).any()
    page.keyboard.press("z")
    assert (shown_mask(page) == brushed).all()
    page.keyboard.press("Shift+Z")
    assert (shown_mask(page) == erased).all()
    page.keyboard.press("Enter")
    until(page, f"twostream.queue.current.query.id !== {query}")
    sent(page)
    (answer,) = served.project.ledger.current_answers()
    assert (answer.query, str(answer.kind)) == (query, "corrected") and answer.seconds > 0
    assert (whole(*answer.drawing) == erased).all()
    page.keyboard.press("ArrowLeft")
    until(page, f"twostream.focus.onScreen?.query.id === {query}")
    assert (shown_mask(page) == erased).all()
    page.reload()
    page.wait_for_selector("body[data-ready]")
    page.evaluate(f"twostream.queue.goTo({query}).then(() => twostream.focus.show())")
    until(page, f"twostream.focus.onScreen?.query.id === {query}")
    assert (shown_mask(page) == erased).all() and "corrected" in page.inner_text("#mine").lower()
    # S learns these voxels, and that what was erased is background.
    lessons = collect(served.project.ledger, 1).lessons
    (lesson,) = lessons
    assert lesson.teaches == "drawn"
    learned = whole(lesson.box, lesson.mask)
    assert ((learned == 1) == (erased == 1)).all() and ((learned == 255) == ((before > 0) & (erased == 0))).all()
    # A second correction goes on from the first and replaces it; undo brings the first back.
    page.keyboard.press("e")
    assert (shown_mask(page) == erased).all()
    drag(page, (section + 0.5, y + 8.5, x + 0.5), (section + 0.5, y + 9.5, x + 0.5))
    second = shown_mask(page)
    page.keyboard.press("Enter")
    until(page, f"twostream.queue.current?.query.id !== {query}")
    sent(page)
    (answer,) = served.project.ledger.current_answers()
    assert (whole(*answer.drawing) == second).all() and (second != erased).any()
    page.keyboard.press("z")
    until(page, f"twostream.focus.item?.query.id === {query}")
    page.wait_for_timeout(300)
    assert (shown_mask(page) == erased).all()
    (answer,) = served.project.ledger.current_answers()
    assert (whole(*answer.drawing) == erased).all()


def test_by_keyboard_alone_a_section_is_cleared_and_interpolated_anew(show):
    served, page = show()
    query, before, section, _ = begin(page)
    page.keyboard.press("Delete")
    assert not shown_mask(page)[section].any()
    page.keyboard.press("i")
    after = shown_mask(page)
    assert after[section].any() and (np.delete(after, section, 0) == np.delete(before, section, 0)).all()
    page.keyboard.press("z")
    page.keyboard.press("z")
    assert (shown_mask(page) == before).all()
    page.keyboard.press("Shift+Z")
    page.keyboard.press("Enter")
    until(page, f"twostream.queue.current.query.id !== {query}")
    sent(page)
    (answer,) = served.project.ledger.current_answers()
    expected = before.copy()
    expected[section] = 0
    assert (whole(*answer.drawing) == expected).all()


def test_an_outline_is_filled(show):
    _, page = show()
    _, before, section, (y, x) = begin(page)
    z = section + 0.5
    page.keyboard.press("3")
    drag(page, (z, y - 9.5, x - 9.5), (z, y - 9.5, x + 9.5), (z, y + 9.5, x + 9.5), (z, y + 9.5, x - 9.5))
    filled = shown_mask(page)
    assert filled[section, y - 8 : y + 9, x - 8 : x + 9].all()
    assert (np.delete(filled, section, 0) == np.delete(before, section, 0)).all()


def test_a_cut_gives_two_objects_in_one_gesture_and_one_undo_takes_back_both(show):
    served, page = show()
    query, before, section, (y, x) = begin(page)
    z = section + 0.5
    page.keyboard.press("4")
    page.keyboard.down("Shift")
    drag(page, (z, y - 12.5, x + 0.5), (z, y + 12.5, x + 0.5))
    page.keyboard.up("Shift")
    cut = shown_mask(page)
    assert not cut[:, y, x].any() and cut.any()
    page.keyboard.press("5")
    page.mouse.click(*at(page, (z, y + 0.5, x - 1.5)))
    kept = shown_mask(page)
    assert kept[section, y, x - 2] and not kept[:, :, x + 1 :].any()
    page.keyboard.press("Enter")
    until(page, f"twostream.queue.current.query.id !== {query}")
    sent(page)
    answers = {str(a.kind): a for a in served.project.ledger.current_answers()}
    assert set(answers) == {"corrected", "missed"}
    assert (whole(*answers["corrected"].drawing) == kept).all()
    assert (whole(*answers["missed"].drawing) == (cut > 0) & (kept == 0)).all()
    page.keyboard.press("z")
    until(page, f"twostream.focus.item.query.id === {query} && !twostream.queue.current.mine")
    assert served.project.ledger.current_answers() == []
    painted(page)
    assert (shown_mask(page) == before).all(), "without a correction the candidate's own mask is shown"


@pytest.mark.parametrize("leaving", ["ArrowRight", "g", "reload"])
def test_strokes_that_are_not_recorded_are_kept_as_a_draft(show, leaving):
    served, page = show()
    query, before, section, (y, x) = begin(page)
    drag(page, (section + 0.5, y + 0.5, x + 0.5), (section + 0.5, y + 0.5, x + 12.5))
    drawn = shown_mask(page)
    if leaving == "reload":
        page.reload()
        page.wait_for_selector("body[data-ready]")
    elif leaving == "g":
        page.click("nav [data-action=gallery]")
    else:
        page.keyboard.press(leaving)
    page.wait_for_timeout(100)
    assert page.evaluate("twostream.correction.mode") == "off"
    page.evaluate(f"twostream.queue.goTo({query})")
    page.keyboard.press("g")
    page.keyboard.press("f")
    until(page, f"twostream.focus.item?.query.id === {query} && document.querySelector('#view-gallery').hidden")
    painted(page)
    assert (shown_mask(page) == before).all() and "A correction is begun" in page.inner_text("#mine")
    page.keyboard.press("e")
    assert (shown_mask(page) == drawn).all()
    page.keyboard.press("z")
    assert (shown_mask(page) == before).all()
    page.keyboard.press("Shift+Z")
    page.keyboard.press("Escape")
    assert (shown_mask(page) == before).all()
    page.keyboard.press("e")
    assert (shown_mask(page) == before).all(), "Escape gives the draft up"
    assert served.project.ledger.current_answers() == []


# -- missed objects ---------------------------------------------------------------------------------------------------


def go_to(page, zyx) -> None:
    """Show a place that may lie far from the candidate."""
    page.evaluate("(zyx) => { twostream.focus.viewer.center = zyx; }", [v + 0.5 for v in zyx])
    painted(page)


def proposal(page, zyx) -> None:
    """Click on a place as on an object that was missed, and wait for what is grown."""
    page.mouse.click(*at(page, [v + 0.5 for v in zyx]))
    until(page, "twostream.correction.missed.state !== 'growing'")


class TestMissed:
    """The probability shows two blobs too faintly for them to be proposed."""

    @pytest.fixture(scope="class")
    def queue_template(self, tmp_path_factory):
        level = np.where(toy_arrays()[0] > 115, 220, 5).astype(np.uint8)
        for place in FAINT:
            level[blob_at(place)] = 76
        return make_queue(tmp_path_factory.mktemp("faint"), level=level).root.parent

    def test_an_object_is_grown_kept_marked_and_learned(self, show):
        served, page = show()
        go_to(page, FAINT[0])
        page.keyboard.press("a")
        assert "Click on the object that was missed" in page.inner_text("#correction")
        proposal(page, FAINT[0])
        assert (shown_mask(page, "extra") > 0).tolist() == blob_at(FAINT[0]).tolist()
        assert "grown where the probability" in page.inner_text("#correction")
        assert served.project.ledger.missed_objects() == []
        page.keyboard.press("Enter")
        until(page, "twostream.correction.mode === 'off'")
        sent(page)
        (answer,) = served.project.ledger.missed_objects()
        assert (whole(*answer.drawing) > 0).tolist() == blob_at(FAINT[0]).tolist() and answer.seconds > 0
        # It is marked, so that nobody adds it again; also after a reload, and for who comes later.
        page.keyboard.press("h")
        until(page, "twostream.focus.viewer.marked.length === 1")
        assert (shown_mask(page, "marked[0]") > 0).tolist() == blob_at(FAINT[0]).tolist()
        page.reload()
        page.wait_for_selector("body[data-ready]")
        go_to(page, FAINT[0])
        assert page.evaluate("twostream.focus.viewer.marked.length") == 0
        page.keyboard.press("a")
        until(page, "twostream.focus.viewer.marked.length === 1")
        painted(page)
        rim = np.argwhere(blob_at(FAINT[0])[FAINT[0][0]])
        line = [(FAINT[0][0] + 0.5, y, x + i / 10) for y, x in rim[rim[:, 0] == rim[:, 0].min()] for i in range(10)]
        assert (np.abs(pixels(page, line) - SINGLE).max(1) < 60).any(), "a dashed line in the colour of masks"
        proposal(page, FAINT[0])
        assert "has marked" in page.inner_text("#correction") and page.evaluate("twostream.focus.viewer.extra") is None
        page.keyboard.press("Escape")
        assert page.evaluate("twostream.focus.viewer.others") is False
        (lesson,) = collect(served.project.ledger, 1).lessons
        assert lesson.teaches == "drawn" and (whole(lesson.box, lesson.mask) > 0).tolist() == blob_at(FAINT[0]).tolist()
        page.keyboard.press("z")
        until(page, "document.getElementById('message').textContent.startsWith('Undone')")
        assert served.project.ledger.missed_objects() == []

    def test_a_ball_has_the_radius_of_the_keys_another_place_begins_again_and_cancel_adds_nothing(self, show):
        served, page = show()
        empty = (4, 16, 112)
        go_to(page, empty)
        page.click("[data-action=missed]")
        proposal(page, empty)
        first = page.evaluate("twostream.correction.missed.mask.data.reduce((a, b) => a + b, 0)")
        assert "a ball with a radius of 250 nm" in page.inner_text("#correction")
        page.keyboard.press("<")
        until(page, "twostream.correction.missed.state === 'shown'")
        assert page.evaluate("twostream.correction.missed.mask.data.reduce((a, b) => a + b, 0)") < first
        for _ in range(3):
            page.click("[data-action=narrower]")
        until(page, "twostream.correction.missed.state === 'shown'")
        small = page.evaluate("twostream.correction.missed.mask.data.reduce((a, b) => a + b, 0)")
        page.keyboard.press(">")
        until(page, "twostream.correction.missed.state === 'shown'")
        assert page.evaluate("twostream.correction.missed.mask.data.reduce((a, b) => a + b, 0)") > small
        go_to(page, FAINT[1])
        proposal(page, FAINT[1])
        assert (shown_mask(page, "extra") > 0).tolist() == blob_at(FAINT[1]).tolist()
        page.keyboard.press("Escape")
        assert page.evaluate("twostream.focus.viewer.extra") is None
        page.keyboard.press("a")
        go_to(page, (4, 16, 210))
        proposal(page, (4, 16, 210))
        assert "test box" in page.inner_text("#correction")
        page.click("#correction [data-action=cancel]")
        assert not page.is_visible("#correction") and served.project.ledger.all_answers() == []


class TestTouching:
    """Every blob is two candidates that share a face."""

    @pytest.fixture(scope="class")
    def queue_template(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("touching")
        grey, truth = toy_arrays()
        halves = (2 * truth - (np.arange(SHAPE_ZYX[2]) % 16 < 8)) * (truth > 0)
        like = {"shape_zyx": SHAPE_ZYX, "voxel_size_nm": VOXEL_SIZE_NM}
        for name, values in (("em", grey), ("theirs", halves.astype(np.uint16))):
            volume = create_volume(str(folder / f"{name}.zarr"), dtype=values.dtype, **like)
            volume.write(volume.box, values)
        project = create_project(
            folder / "queue", task="mitochondria", image=str(folder / "em.zarr"), test_box=TEST_BOX, budget=12,
            segmentation=str(folder / "theirs.zarr"), overrides=(*TINY, "query.audit_share=0"),
        )  # fmt: skip
        run(project, rounds=1)
        project.ledger.close()
        return folder

    def test_a_mask_is_never_a_neighbours(self, show):
        served, page = show()
        look = {"crosshair": False, "overlay": "fill", "opacity": 1}
        page.evaluate("(look) => void Object.assign(twostream.focus.viewer, look)", look)
        for _ in range(3):
            query = served.project.ledger.query(current(page))
            until(page, f"twostream.focus.onScreen?.query.id === {query.id}")
            painted(page)
            own = whole(query.candidate.box, query.candidate.mask) > 0
            assert (shown_mask(page) > 0).tolist() == own.tolist()
            section = page.evaluate("Math.floor(twostream.focus.viewer.center[0])")
            rows, columns = np.nonzero(own[section])
            cell = np.argwhere(np.ones((16, 16), bool)) + np.array([rows.min(), columns.min()]) // 16 * 16
            read = pixels(page, [(section + 0.5, y + 0.5, x + 0.5) for y, x in cell])
            coloured = read[:, 0] > read[:, 2] + 20
            assert (coloured == own[section][tuple(cell.T)]).all()
            page.keyboard.press("t")
            until(page, f"twostream.queue.current.query.id !== {query.id}")


SYNAPSES = Box((0, 0, 0), (10, 160, 192))


class TestPolarity:
    """Synthetic tissue; the probability is the truth without one synapse."""

    @pytest.fixture(scope="class")
    def queue_template(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("synapses")
        size, tissue = (30.0, 8.0, 8.0), Tissue(5)
        truth = tissue.synapses(SYNAPSES).astype(np.int64)
        left_out = self.left_out(truth)
        sides = [
            np.where((truth > 0) & (truth % 2 == side) & ((truth + 1) // 2 != left_out), 230, 3) for side in (1, 0)
        ]
        level = np.stack([*sides, np.maximum(*sides)]).astype(np.uint8)
        image = create_volume(str(folder / "em.zarr"), shape_zyx=SYNAPSES.shape_zyx, dtype=np.uint8, voxel_size_nm=size)
        image.write(SYNAPSES, tissue.image(SYNAPSES))
        theirs = create_volume(
            str(folder / "theirs.zarr"),
            shape_zyx=SYNAPSES.shape_zyx,
            dtype=np.uint8,
            voxel_size_nm=size,
            num_channels=3,
        )
        theirs.write(SYNAPSES, level)
        project = create_project(
            folder / "queue", task="polarity", image=str(folder / "em.zarr"), probability=str(folder / "theirs.zarr"),
            budget=6, test_box="0:10,0:160,184:192",
            overrides=(*[o for o in TINY if "min_object" not in o], "query.audit_share=0"),
        )  # fmt: skip
        run(project, rounds=1)
        project.ledger.close()
        return folder

    @staticmethod
    def left_out(truth) -> int:
        """The largest synapse in the middle of the tissue."""
        middle = truth[3:7, 30:130, 30:130]
        numbers, counts = np.unique((middle[middle > 0] + 1) // 2, return_counts=True)
        return int(numbers[counts.argmax()])

    def test_both_sides_have_their_colours_and_a_missed_synapse_asks_for_its_sides(self, show):
        served, page = show()
        truth = Tissue(5).synapses(SYNAPSES).astype(np.int64)
        number = self.left_out(truth)
        mask = page.evaluate("[...new Set(twostream.focus.viewer.mask.data)].sort()")
        assert mask == [0, 1, 2]
        section = int(np.bincount(np.nonzero((truth + 1) // 2 == number)[0]).argmax())
        pre, post = (np.argwhere(truth[section] == label) for label in (2 * number - 1, 2 * number))
        assert len(pre) and len(post)
        pre, post = ((section, *side[len(side) // 2].tolist()) for side in (pre, post))
        center = tuple((a + b) // 2 for a, b in zip(pre, post, strict=True))
        go_to(page, center)
        page.keyboard.press("a")
        proposal(page, center)
        assert "Click on its presynaptic side" in page.inner_text("#correction")
        page.mouse.click(*at(page, [v + 0.5 for v in pre]))
        assert "Now click on its postsynaptic side" in page.inner_text("#correction")
        proposal(page, post)
        until(page, "twostream.correction.missed.state === 'shown'")
        page.keyboard.press("Enter")
        until(page, "twostream.correction.mode === 'off'")
        sent(page)
        (answer,) = served.project.ledger.missed_objects()
        box, drawn = answer.drawing
        value = {point: int(drawn[tuple(np.subtract(point, box.offset_zyx))]) for point in (pre, post)}
        assert value == {pre: 1, post: 2}
        (lesson,) = collect(served.project.ledger, 1).lessons
        assert lesson.box == box and (lesson.mask == drawn).all()

    def test_the_side_that_is_painted_is_chosen(self, show):
        served, page = show()
        query = current(page)
        page.keyboard.press("e")
        assert "Paints pre" in page.inner_text("#correction")
        page.keyboard.press("x")
        assert "Paints post" in page.inner_text("#correction")
        z, y, x = (int(v) for v in page.evaluate("twostream.focus.viewer.center"))
        page.mouse.click(*at(page, (z + 0.5, y + 0.5, x + 0.5)))
        assert page.evaluate(f"twostream.focus.viewer.mask.at({z}, {y}, {x})") == 2
        page.keyboard.press("z")
        page.keyboard.press("x")
        page.mouse.click(*at(page, (z + 0.5, y + 0.5, x + 0.5)))
        assert page.evaluate(f"twostream.focus.viewer.mask.at({z}, {y}, {x})") == 1
        page.keyboard.press("Enter")
        until(page, f"twostream.queue.current.query.id !== {query}")
        sent(page)
        (answer,) = served.project.ledger.current_answers()
        box, drawn = answer.drawing
        assert drawn[tuple(np.subtract((z, y, x), box.offset_zyx))] == 1


# -- Neuroglancer -----------------------------------------------------------------------------------------------------


def test_neuroglancer_opens_at_the_candidate(show):
    pytest.importorskip("neuroglancer", reason="the extra `neuroglancer` is not installed")
    _, page = show(serving={"neuroglancer": "local"})
    center = page.evaluate("twostream.queue.current.query.center_zyx")
    with page.context.expect_page() as opened:
        page.keyboard.press("l")
    link = opened.value
    link.wait_for_url("**/neuroglancer/v/local/**")
    state = json.loads(unquote(link.url.partition("#!")[2]))
    assert state["position"] == pytest.approx([v + 0.5 for v in center[::-1]], abs=0.51)
    assert [layer["name"] for layer in state["layers"]] == ["image", "candidate", "candidates"]
    assert link.title() and page.evaluate("twostream.queue.current.query.center_zyx") == center


# -- touch ------------------------------------------------------------------------------------------------------------


def touch(session, kind: str, *points) -> None:
    session.send(
        "Input.dispatchTouchEvent",
        {"type": kind, "touchPoints": [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]},
    )


def test_a_tablet_taps_pinches_and_draws(show):
    served, page = show(820, 1180, has_touch=True)
    page.wait_for_timeout(300)  # the planes take their new size
    page.evaluate("twostream.focus.viewer.reset()")
    painted(page)
    z, y, x = page.evaluate("twostream.focus.viewer.center")
    page.touchscreen.tap(*at(page, (z, y + 6, x + 8)))
    assert page.evaluate("twostream.focus.viewer.center")[1:] == pytest.approx([y + 6, x + 8], abs=0.6)
    session, zoom = page.context.new_cdp_session(page), page.evaluate("twostream.focus.viewer.zoom")
    cx, cy = at(page, (z, y, x))
    touch(session, "touchStart", (cx - 40, cy), (cx + 40, cy))
    for reach in (50, 60, 70, 80):
        touch(session, "touchMove", (cx - reach, cy), (cx + reach, cy))
    touch(session, "touchEnd")
    assert page.evaluate("twostream.focus.viewer.zoom") == pytest.approx(2 * zoom, rel=0.05)
    page.evaluate("twostream.focus.viewer.reset()")
    painted(page)
    query = current(page)
    page.tap("[data-action=correct]")
    until(page, "twostream.correction.mode === 'mask'")
    hidden = """() => {
      const { bottom } = document.getElementById("side").getBoundingClientRect();
      const buttons = [...document.querySelectorAll("#correction button")];
      return buttons.filter((button) => button.getBoundingClientRect().bottom > bottom).map((one) => one.textContent);
    }"""
    assert page.evaluate(hidden) == []
    before = shown_mask(page)
    z, y, x = (int(v) for v in (z, y, x))
    points = [at(page, (z + 0.5, y + 0.5, x + dx + 0.5)) for dx in range(0, 13, 2)]
    touch(session, "touchStart", points[0])
    for point in points[1:]:
        touch(session, "touchMove", point)
    touch(session, "touchEnd")
    drawn = shown_mask(page)
    assert drawn[z, y, x : x + 12].all() and (drawn != before).any()
    for _ in range(10):  # right after a stroke, Chromium takes a tap for the second half of a double tap
        page.wait_for_timeout(600)
        if page.evaluate("twostream.correction.mode") == "off":
            break
        page.tap("#correction [data-action=keep-it]")
    until(page, f"twostream.queue.current.query.id !== {query}")
    sent(page)
    (answer,) = served.project.ledger.current_answers()
    assert (whole(*answer.drawing) == drawn).all()
    page.tap("#decisions [data-action=decide-true]")
    until(page, "twostream.queue.items.filter((item) => item.mine).length === 2")


# -- how it looks -----------------------------------------------------------------------------------------------------

LOW_CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((v, i) => v * a + below[i] * (1 - a));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const own = parse(getComputedStyle(element).backgroundColor);
    if (own.length === 3) return own;
    const below = element.parentElement ? ground(element.parentElement) : [255, 255, 255];
    const beneath = element.parentElement?.id === "viewer" ? [255, 255, 255] : below; // tissue may be white
    return own.length === 4 ? over(own, beneath) : beneath;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest("script, style, :disabled")) continue;
    const below = ground(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), below)), light(below)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([walker.currentNode.textContent.trim(), element.className, ratio.toFixed(2)]);
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll("button, select, input, a[href], summary, [role=button]")]
  .filter((control) => control.checkVisibility())
  .filter((control) => !control.ariaLabel?.trim() && !control.labels?.length && !control.textContent.trim())
  .map((control) => control.outerHTML)"""
CUT = """() => [...document.querySelectorAll("button, label, p, h1, h2, legend, select, output")]
  .filter((element) => element.checkVisibility() && element.clientWidth)
  .filter((element) => element.scrollWidth > element.clientWidth + 1)
  .filter((element) => getComputedStyle(element).display !== "inline")
  .map((element) => [element.textContent, element.scrollWidth, element.clientWidth])"""


def look(page) -> None:
    """What is on the screen can be read, has names, and is not cut off."""
    assert page.evaluate(LOW_CONTRAST) == []
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(CUT) == []
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("theme", "width", "height"), [("dark", 1280, 800), ("light", 820, 1180)])
def test_everything_can_be_read_in_both_themes(show, theme, width, height):
    _, page = show(width, height, has_touch=width < 1000)
    if theme == "light":
        page.keyboard.press("d")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.emulate_media(reduced_motion="reduce")
    page.keyboard.press("i")
    look(page)
    for key in ("e", "a"):
        page.keyboard.press(key)
        look(page)
        page.keyboard.press("Escape")
    of_candidates = "twostream.project.decisions.filter((d) => d.about.includes('candidate'))"
    for kind in page.evaluate(f"{of_candidates}.map((d) => d.reason ? `${{d.kind}}/${{d.reason}}` : d.kind)"):
        query = current(page)
        page.click(f"[data-action='decide-{kind}']")
        until(page, f"twostream.queue.current.query.id !== {query}")
        page.keyboard.press("ArrowLeft")
        until(page, f"twostream.focus.item.query.id === {query}")
        assert page.locator("#decisions .is-mine").count() == 1
        look(page)
        page.evaluate("twostream.queue.next()")
        page.evaluate("twostream.focus.show()")
    page.keyboard.press("g")
    page.wait_for_selector(".slot")
    look(page)
    for key in ("?", "s"):
        page.keyboard.press(key)
        page.wait_for_selector("dialog[open]")
        look(page)
        page.keyboard.press("Escape")
        until(page, "!document.querySelector('dialog[open]')")
    page.keyboard.press("j")
    page.wait_for_selector("#view-settle:not([hidden])")
    look(page)
    moving = "[...document.querySelectorAll('*')].filter((e) => parseFloat(getComputedStyle(e).transitionDuration) > 0)"
    assert page.evaluate(f"{moving}.length") == 0
    page.evaluate("import('./static/dom.js').then(({ say }) => say('The server does not answer.', true))")
    until(page, "!document.getElementById('message').hidden")
    look(page)


def test_the_focused_control_is_seen(show):
    _, page = show()
    for _ in range(6):
        page.keyboard.press("Tab")
        style = "getComputedStyle(document.activeElement)"
        assert page.evaluate(f"[{style}.outlineStyle, {style}.outlineWidth]") == ["solid", "2px"]
