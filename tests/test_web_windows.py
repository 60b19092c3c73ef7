"""Windows on the page: requests, and in a real browser what is shown, marked, closed, undone and counted."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SHAPE_ZYX
from served import answers, decide, go_to_gallery, make_queue, needs_browser, set_proofreading, shown, until
from test_answer_tables import FAINT, blob_at
from test_web_tools import at, drag, go_to, look, painted, pixels, proposal, sent, shown_mask, whole
from windows import BOXES, BUDGET, make_windows

from twostream.base.errors import ProjectError
from twostream.base.geometry import Box
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.table import read_table, write_parts
from twostream.project.records import Window
from twostream.web.corrections import DrawingBody, drawing_of, mask_of
from twostream.web.decisions import Decision, Decisions
from twostream.web.pictures import VIEW_VOXELS, Pictures
from twostream.web.queue import ORDERS, Queue
from twostream.web.running import Runner
from twostream.web.windows import WindowPictures

WINDOWS = [BUDGET + 1 + i for i in range(len(BOXES))]
"""Ids of the windows, which are asked after the candidates."""


@pytest.fixture(scope="module")
def queue_template(tmp_path_factory):
    return make_windows(tmp_path_factory.mktemp("windows")).root.parent


def drawn(place) -> dict:
    """The drawing of the blob at a place, as it travels."""
    corners = np.argwhere(blob_at(place))
    box = Box.from_corners(corners.min(0).tolist(), (corners.max(0) + 1).tolist())
    return drawing_of(box, blob_at(place)[box.slices].astype(np.uint8)).model_dump(mode="json")


def sends(client, key: str, query: int | None, kind: str, **more) -> dict:
    """The result of one decision."""
    body = {"decisions": [{"key": key * 8, "query": query, "kind": kind} | more]}
    answer = client.post("api/decisions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]


class TestRequests:
    def test_windows_come_last_in_every_order_and_are_counted(self, site):
        client = site().client()
        for order in ORDERS:
            given = client.post("api/lease", json={"order": order, "number": 50}).json()
            assert [one["id"] for one in given["queries"]][BUDGET:] == WINDOWS
            assert [one["asks"] for one in given["queries"]] == ["candidate"] * BUDGET + ["window"] * len(WINDOWS)
            left = given["left"]
            assert (left["asked"], left["open"], left["windows"], left["open_windows"]) == (9, 9, 3, 3)
        one = client.get(f"api/queries/{WINDOWS[0]}").json()
        assert one["box"] == {"offset_zyx": [0, 16, 80], "shape_zyx": [8, 32, 32]}
        assert one["around"] == {"offset_zyx": [0, 8, 72], "shape_zyx": [8, 48, 48]}
        assert one["candidate"] is None and one["name"] == f"window {WINDOWS[0]}" and one["mine"] is None
        picture = client.get(f"api/queries/{WINDOWS[0]}/patch.png")
        assert picture.headers["content-type"] == "image/png"

    def test_every_candidate_of_the_round_in_the_window_comes_with_its_answer(self, site):
        served = site()
        client = served.client()
        asked = {query.candidate.id: query.id for query in served.project.ledger.queries()}
        sends(client, "a", 1, "true"), sends(client, "b", 2, "nothing")
        table = StoredCandidates.open(served.project.path(0, "candidates.parquet"))
        kinds = {}
        for window in WINDOWS:
            around = client.get(f"api/queries/{window}").json()["around"]
            box = Box(tuple(around["offset_zyx"]), tuple(around["shape_zyx"]))
            expected = {c.id: whole(c.box, c.mask)[box.slices] for c in table}
            found = client.get(f"api/queries/{window}/candidates").json()["candidates"]
            masks = {
                one["id"]: whole(*mask_of(DrawingBody(**one["drawing"]), Box.whole(SHAPE_ZYX), 1)) for one in found
            }
            assert masks.keys() == {i for i, mask in expected.items() if mask.any()}
            assert all((masks[i][box.slices] == expected[i]).all() for i in masks)
            kinds |= {asked.get(one["id"]): one["kind"] for one in found}
        assert kinds[None] == "" and {kinds.get(1, "true"), kinds.get(2, "nothing")} == {"true", "nothing"}
        assert not set(kinds) <= {None}, "a candidate that is asked lies in a window"

    def test_what_is_outlined_was_proposed_or_asked(self, site, queue_project):
        """A faint candidate is outlined only if somebody was asked about it; one that is gone stays outlined."""
        asked = {query.candidate.id for query in queue_project.ledger.queries()}
        window = queue_project.ledger.window(WINDOWS[0])

        def outlined():
            pictures = WindowPictures(queue_project, Pictures(queue_project))
            return [one.id for one in pictures.proposed(window)]

        first = outlined()
        path = queue_project.path(0, "candidates.parquet")
        table = read_table(path)
        write_parts([table.append_column("faint", [[True] * table.num_rows])], path)
        assert asked & set(first) and set(outlined()) == asked & set(first) < set(first)
        write_parts([table.filter([i not in asked for i in table["id"].to_pylist()])], path)
        assert sorted(outlined()) == sorted(first)

    def test_a_window_gets_what_can_be_said_of_a_window_and_nothing_else(self, site):
        served = site()
        client = served.client()
        first, second, third = WINDOWS
        for key, kind in zip(
            "abcdefg", ("true", "nothing", "shape", "swapped", "corrected", "missed", "x"), strict=True
        ):
            drawing = {"drawing": drawn(FAINT[0])} if kind in ("corrected", "missed") else {}
            assert sends(client, key, first, kind, **drawing)["refused"], kind
        assert "none_missed" in sends(client, "h", 1, "none_missed")["refused"]
        assert sends(client, "i", None, "none_missed")["refused"]
        for number, kind in zip("jkl", ("none_missed", "unsure", "skipped"), strict=True):
            assert sends(client, number, {"j": first, "k": second, "l": third}[number], kind)["refused"] is None
        again = sends(client, "j", first, "none_missed")
        current = served.project.ledger.current_answers()
        assert {a.query: str(a.kind) for a in current} == {first: "none_missed", second: "unsure", third: "skipped"}
        assert again["answer"] == current[0].id, "sent twice, recorded once"
        left = client.get("api/progress").json()["left"]
        assert (left["open"], left["open_windows"]) == (BUDGET, 0)

    def test_an_object_is_marked_in_a_window(self, site):
        served = site()
        client = served.client()
        first, second, _ = WINDOWS
        assert sends(client, "a", None, "missed", drawing=drawn(FAINT[0]), window=first)["refused"] is None
        assert "window" in sends(client, "b", None, "missed", drawing=drawn(FAINT[0]), window=second)["refused"]
        assert sends(client, "c", None, "missed", drawing=drawn(FAINT[1]), window=1)["refused"], "no window"
        assert sends(client, "d", 1, "true", window=first)["refused"]
        assert [(a.window, str(a.kind)) for a in served.project.ledger.missed_objects()] == [(first, "missed")]
        assert client.get("api/progress").json()["left"]["open_windows"] == 3, "a mark does not close the window"
        box = ",".join(f"0:{n}" for n in SHAPE_ZYX)
        (marked,) = client.get(f"api/missed?box={box}").json()["objects"]
        assert marked == drawn(FAINT[0]) | {"window": first}

    def test_undo_and_redo_of_marks_and_of_the_closing_answer(self, site):
        served = site()
        client, ledger = served.client(), served.project.ledger
        first = WINDOWS[0]
        sends(client, "a", None, "missed", drawing=drawn(FAINT[0]), window=first)
        sends(client, "b", first, "none_missed")
        history = client.get("api/history").json()
        assert [(a["query"], a["window"]) for a in history["answers"]] == [(first, None), (None, first)]
        assert [one["id"] for one in history["queries"]] == [first]

        def travels(which, key):
            (answer,) = client.post(f"api/{which}", json={"key": key * 8}).json()["answers"]
            waiting = first in {window.id for window in ledger.open_windows()}
            return answer["kind"], answer["window"], waiting, len(ledger.missed_objects())

        assert travels("undo", "1") == ("none_missed", None, True, 1)
        assert travels("undo", "2") == ("missed", first, True, 0)
        assert travels("redo", "3") == ("missed", first, True, 1)
        assert [a.window for a in ledger.missed_objects()] == [first]
        assert travels("redo", "4") == ("none_missed", None, False, 1)

    def test_nobody_is_given_a_window_that_somebody_else_looks_at(self, site, queue_project):
        set_proofreading(queue_project, double_share=1.0)
        served = site(annotators=("ann", "bob"))
        ann, bob = served.client("ann"), served.client("bob")
        for i in range(1, BUDGET + 1):
            sends(ann, f"a{i}", i, "true"), sends(bob, f"b{i}", i, "true")
        mine = ann.post("api/lease", json={"number": 2}).json()
        theirs = bob.post("api/lease", json={"number": 10}).json()
        assert [one["id"] for one in mine["queries"]] == WINDOWS[:2]
        assert [one["id"] for one in theirs["queries"]] == WINDOWS[2:]
        assert theirs["left"]["by_others"] == 2 and theirs["left"]["mine"] == 1
        sends(ann, "cc", WINDOWS[0], "none_missed")
        left = bob.post("api/lease", json={"number": 10}).json()
        assert [one["id"] for one in left["queries"]] == WINDOWS[2:]
        assert left["left"]["second"] == 0, "of a window nobody gives a second opinion"

    def test_what_a_window_lacks_is_not_there(self, site):
        client = site(neuroglancer="https://viewer.example").client()
        paths = [f"queries/{WINDOWS[0]}/{name}" for name in ("mask", "drawing", "neuroglancer")]
        assert {client.get(f"api/{path}").status_code for path in (*paths, "queries/1/candidates")} == {404}
        assert client.get(f"api/queries/{WINDOWS[-1] + 1}").status_code == 404

    def test_the_next_round_waits_for_windows(self, site):
        served = site()
        client = served.client()
        for i in range(1, BUDGET + 1):
            sends(client, f"a{i}", i, "true")
        with pytest.raises(ProjectError, match="3 queries wait"):
            Runner(served.project).start()

    def test_a_large_window_begins_with_some_of_its_sections(self, queue_project):
        """The rest is loaded as one goes through it."""

        class Large:
            box = Box.whole((400, 2000, 2000))

        class Shown(Pictures):
            image = Large()

        pictures = WindowPictures(queue_project, Shown(queue_project))
        window = Window(Box((100, 500, 500), (200, 800, 800)), 1.0)
        around, view = pictures.around(window), pictures.view(window)
        assert around == Box((50, 300, 300), (300, 1200, 1200))
        assert view.num_voxels <= VIEW_VOXELS and view.shape_zyx[1:] == around.shape_zyx[1:]
        assert view.offset_zyx[0] == 100 == pictures.start(window)[0], "it begins with its first section"


def test_windows_that_a_round_has_drawn_end_its_queue(tmp_path):
    project = make_queue(tmp_path, 12, overrides=("query.window_share=0.25", "query.window_nm=400"))
    queue, decisions = Queue(project), Decisions(project.ledger, 600)
    windows = [window.id for window in project.ledger.windows()]
    given = queue.lease("ann", "score", 50)
    assert len(given) == 12 and len(windows) == 3 and given[-3:] == windows
    for query in given:
        assert queue.left("ann").open > 0
        decisions.record("ann", Decision(f"key{query:06}", query, "none_missed" if query in windows else "true"))
    left = queue.left("ann")
    assert (left.open, left.open_windows, left.windows) == (0, 0, 3) and queue.lease("ann", "score", 50) == []


# -- in a real browser ------------------------------------------------------------------------------------------------


def to_windows(page) -> int:
    """Answer all candidates, and return the window that is shown then."""
    for _ in range(BUDGET):
        decide(page, "t")
    return shown(page)


def see_all(page) -> None:
    """Go to the first section of the window that is shown, and through all of them."""
    go_to_section(page, (0,))
    for _ in range(SHAPE_ZYX[0]):
        page.keyboard.press("ArrowDown")
        painted(page)


def go_to_section(page, zyx) -> None:
    """Show the section of a place."""
    page.evaluate(f"twostream.focus.viewer.scroll({zyx[0]} - Math.floor(twostream.focus.viewer.center[0]))")
    painted(page)


def message(page) -> str:
    return page.inner_text("#message")


@needs_browser
class TestPage:
    def test_a_window_is_closed_when_all_of_it_was_on_the_screen(self, show):
        served, page = show()
        assert to_windows(page) == WINDOWS[0]
        until(page, "document.getElementById('progress').textContent.includes('6 of 9 answered, 0 of 3 windows')")
        assert "1 of 8 sections seen" in page.inner_text("#window")
        assert page.inner_text("#candidate") == f"Window {WINDOWS[0]}"
        buttons = page.locator("#decisions button:visible").all_inner_texts()
        assert [text.split("\n")[0].strip() for text in buttons] == ["Nothing (more) was missed", "Unsure", "Skip"]
        page.keyboard.press("w")
        painted(page)
        assert "Not yet: 7 of 8 sections" in message(page)
        assert page.evaluate("Math.floor(twostream.focus.viewer.center[0])") == 1, "the first that was not seen"
        page.keyboard.press("+")
        page.keyboard.press("+")
        painted(page)
        page.keyboard.press("ArrowDown")
        painted(page)
        assert "2 of 8 sections seen" in page.inner_text("#window"), "of section 2 not all was seen"
        page.keyboard.press("r")
        see_all(page)
        assert "8 of 8 sections seen" in page.inner_text("#window")
        assert len(served.project.ledger.open_windows()) == 3
        assert decide(page, "w") == WINDOWS[0]
        sent(page)
        (answer,) = served.project.ledger.current_answers(WINDOWS[0])
        assert str(answer.kind) == "none_missed" and answer.seconds > 0
        assert shown(page) == WINDOWS[1] and "1 of 8 sections seen" in page.inner_text("#window")

    def test_candidates_in_it_are_outlined_and_those_answered_differently(self, show):
        served, page = show()
        to_windows(page)
        page.evaluate("twostream.focus.viewer.crosshair = false; twostream.focus.viewer.scroll(4)")
        painted(page)
        around = Box(*(tuple(v) for v in page.evaluate("Object.values(twostream.queue.current.query.around)")))
        answered = {query.candidate.id for query in served.project.ledger.queries()}
        section = page.evaluate("Math.floor(twostream.focus.viewer.center[0])")
        table = StoredCandidates.open(served.project.path(0, "candidates.parquet"))
        num = {True: 0, False: 0}
        for candidate in table:
            inside = whole(candidate.box, candidate.mask)[section] > 0
            rows = np.argwhere(~inside & np.roll(inside, 1, axis=0))  # the outline runs along their upper edges
            near = [(y, x) for y, x in rows if 0 < y - around.offset_zyx[1] < 46 and 0 < x - around.offset_zyx[2] < 47]
            if not near:
                continue
            line = [(section + 0.5, y + d, x + i / 8) for y, x in near for i in range(8) for d in (-0.04, 0.0, 0.04)]
            red, green, _ = pixels(page, line).astype(int).T
            is_green = (green > red + 40).any()
            assert is_green == (candidate.id in answered), candidate
            num[bool(is_green)] += 1
        assert min(num.values()) > 0, "both kinds are in the view"

    def test_an_object_is_marked_by_key_and_click_and_undo_goes_back_to_its_window(self, show):
        served, page = show()
        first = to_windows(page)
        page.keyboard.press("a")
        assert page.evaluate("twostream.focus.viewer.others") is False, "what is proposed is outlined already"
        go_to_section(page, FAINT[0])
        proposal(page, FAINT[0])
        see_all(page)
        page.keyboard.press("w")
        assert "Keep the object that you add, or cancel it" in message(page)
        page.keyboard.press("Enter")
        until(page, "twostream.focus.viewer.marked.length === 1")
        assert "1 object marked" in page.inner_text("#window")
        sent(page)
        (mark,) = served.project.ledger.missed_objects()
        assert (mark.window, mark.query) == (first, None) and mark.seconds > 0
        assert (whole(*mark.drawing) > 0).tolist() == blob_at(FAINT[0]).tolist()
        assert decide(page, "w") == first
        second = shown(page)
        page.keyboard.press("z")
        until(page, f"twostream.focus.onScreen?.query.id === {first}")
        assert answers(served).get(first) is None and first in {w.id for w in served.project.ledger.open_windows()}
        assert "8 of 8 sections seen" in page.inner_text("#window"), "what was seen stays seen"
        page.keyboard.press("ArrowRight")
        until(page, f"twostream.focus.onScreen?.query.id === {second}")
        page.keyboard.press("z")
        until(page, f"twostream.focus.onScreen?.query.id === {first}")
        until(page, "twostream.focus.viewer.marked.length === 0")
        assert served.project.ledger.missed_objects() == [] and "0 objects marked" in page.inner_text("#window")
        page.keyboard.press("Shift+Z")
        until(page, "twostream.focus.viewer.marked.length === 1")
        assert shown(page) == first
        page.keyboard.press("Shift+Z")
        until(page, f"twostream.queue.items.find((i) => i.query.id === {first}).mine?.kind === 'none_missed'")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert shown(page) == second, "what is closed stays closed"

    @pytest.mark.parametrize("by", ["key", "button"])
    def test_an_object_is_marked_at_the_crosshair_which_any_plane_moves(self, show, by):
        served, page = show()
        first = to_windows(page)
        z, y, x = FAINT[0]
        page.evaluate(f"twostream.focus.viewer.center = [2.5, {y + 0.5}, 92.5]")
        painted(page)
        page.mouse.click(*at(page, (z + 0.5, y + 0.5, x + 0.5), "xz"))
        assert page.evaluate("twostream.focus.viewer.center.map(Math.floor)") == [z, y, x]
        if by == "key":
            page.keyboard.press("Shift+A")
        else:
            page.click("[data-action=missed]:visible")
            page.click("[data-action=missed-here]")
        until(page, "twostream.correction.missed.state === 'shown'")
        page.keyboard.press("Enter")
        until(page, "twostream.focus.viewer.marked.length === 1")
        sent(page)
        (mark,) = served.project.ledger.missed_objects()
        assert mark.window == first and (whole(*mark.drawing) > 0).tolist() == blob_at(FAINT[0]).tolist()

    def test_an_object_is_drawn_in_a_window(self, show):
        served, page = show()
        first = to_windows(page)
        page.keyboard.press("a")
        page.keyboard.press("e")
        until(page, "twostream.correction.mode === 'mask'")
        (y, x) = (32, 96)  # between the blobs
        drag(page, (0.5, y + 0.5, x - 1.5), (0.5, y + 0.5, x + 2.5))
        drawn = shown_mask(page)
        assert drawn.any()
        page.keyboard.press("w")
        assert served.project.ledger.all_answers()[BUDGET:] == [], "while one draws, no window is closed"
        page.keyboard.press("Enter")
        until(page, "twostream.focus.viewer.marked.length === 1")
        sent(page)
        (mark,) = served.project.ledger.missed_objects()
        assert mark.window == first and (whole(*mark.drawing) == drawn).all()
        assert shown(page) == first and page.evaluate("twostream.focus.viewer.mask") is None

    def test_an_object_outside_the_window_is_added_and_does_not_count_for_it(self, show):
        served, page = show()
        to_windows(page)
        page.click("[data-action=missed]:visible")
        go_to(page, FAINT[1])
        proposal(page, FAINT[1])
        assert (shown_mask(page, "extra") > 0).tolist() == blob_at(FAINT[1]).tolist()
        page.click("#correction [data-action=keep-it]")
        until(page, "document.getElementById('message').textContent.includes('outside the window')")
        sent(page)
        (answer,) = served.project.ledger.missed_objects()
        assert answer.window is None
        assert "0 objects marked" in page.inner_text("#window")

    def test_keys_that_do_not_fit_do_not_count(self, show):
        served, page = show()
        query = shown(page)
        page.keyboard.press("w")
        assert "This is a candidate" in message(page)
        assert served.project.ledger.all_answers() == [] and shown(page) == query
        to_windows(page)
        see_all(page)
        for key in "tnmpb":
            page.evaluate("document.getElementById('message').textContent = ''")
            page.keyboard.press(key)
            assert "This is a window" in message(page)
        page.keyboard.press("e")
        assert page.evaluate("twostream.correction.mode") == "off", "a window has no mask"
        assert page.locator("#side [data-action=correct]").is_hidden()
        assert len(served.project.ledger.all_answers()) == BUDGET
        page.click("[data-action='decide-unsure']:visible")
        until(page, f"twostream.focus.onScreen?.query.id === {WINDOWS[1]}")
        assert decide(page, "k") == WINDOWS[1]
        shown(page)
        see_all(page)
        page.click("[data-action='decide-none_missed']:visible")
        page.wait_for_selector("#view-end:visible")
        until(
            page, "document.getElementById('view-end').textContent.includes('All queries of this round are answered')"
        )
        assert "3 of 9 were windows" in page.inner_text("#view-end")
        said = answers(served)
        assert [said[query] for query in WINDOWS] == ["unsure", "skipped", "none_missed"]

    def test_a_window_whose_candidates_do_not_come_is_not_decided(self, show):
        served, page = show()
        held, is_open = [], []
        page.route("**/candidates", lambda route: route.continue_() if is_open else held.append(route))
        for _ in range(BUDGET):
            decide(page, "t")
        until(page, f"twostream.queue.current.query.id === {WINDOWS[0]}")
        page.keyboard.press("u")
        until(page, "document.getElementById('message').textContent.includes('not on the screen')")
        assert "is-waiting" in page.locator("#viewer").get_attribute("class")
        is_open.append(True)
        for route in held:
            route.continue_()
        assert shown(page) == WINDOWS[0]
        assert len(served.project.ledger.open_windows()) == 3

    def test_the_gallery_shows_a_card_that_opens_the_window(self, show):
        served, page = show(1280, 900)
        page.wait_for_timeout(200)
        ids = go_to_gallery(page)
        assert ids[BUDGET:] == WINDOWS
        tiles = page.locator(f".slot[data-query='{WINDOWS[0]}'] .tile")
        assert tiles.count() == 2 and tiles.nth(1).locator("rect.frame").count() == 1
        page.keyboard.press("Shift+T")
        until(page, f"twostream.queue.items.filter((item) => item.mine).length === {BUDGET}")
        until(page, "twostream.outbox.unsent().length === 0")
        assert answers(served) == dict.fromkeys(range(1, BUDGET + 1), "true"), "of windows nothing was said"
        refused = "Object.keys(localStorage).filter((key) => key.startsWith('twostream/refused/')).length"
        assert page.evaluate(refused) == 0, "nor tried"
        until(page, "twostream.gallery.isReady")
        for _ in range(BUDGET):
            page.keyboard.press("ArrowRight")
        for key in ("t", "n", "w", "u"):
            page.evaluate("document.getElementById('message').textContent = ''")
            page.keyboard.press(key)
            assert "A window is decided where all of it is seen" in message(page)
        page.click(f".slot[data-query='{WINDOWS[1]}'] .tile >> nth=0")
        until(page, f"twostream.focus.onScreen?.query.id === {WINDOWS[1]}")
        see_all(page)
        page.keyboard.press("w")
        until(page, "!document.getElementById('view-gallery').hidden && twostream.gallery.isReady")
        words = f"document.querySelector('.slot[data-query=\"{WINDOWS[1]}\"] .answer').textContent"
        until(page, f"{words}.includes('nothing missed')")
        for query in (WINDOWS[0], WINDOWS[2]):
            page.click(f".slot[data-query='{query}'] .tile >> nth=0")
            until(page, f"twostream.focus.onScreen?.query.id === {query}")
            page.keyboard.press("u")
            until(page, "document.getElementById('view-focus').hidden")
        page.wait_for_selector("#view-end:visible")
        assert served.project.ledger.counts().open == 0

    def test_the_frame_is_where_the_window_is_in_all_planes(self, show):
        _, page = show()
        to_windows(page)
        page.evaluate("twostream.focus.viewer.crosshair = false; twostream.focus.viewer.overlay = 'off'")
        painted(page)
        box = Box.parse(BOXES[0])
        (z0, y0, x0), (z1, y1, x1) = box.offset_zyx, box.stop_zyx
        z, y, x = page.evaluate("twostream.focus.viewer.center")
        for plane, places in {
            "xy": [(z, y0, x), (z, y1, x), (z, y, x0), (z, y, x1)],
            "xz": [(z0, y, x), (z1, y, x)],
            "yz": [(z0, y, x), (z1, y, x)],
        }.items():
            size = page.locator(f".viewer-{plane}").bounding_box()
            seen = 0
            for place in places:
                left, top = page.evaluate("([p, q]) => twostream.focus.viewer.toScreen(p, q)", [list(place), plane])
                if not (2 < left < size["width"] - 2 and 2 < top < size["height"] - 2):
                    continue
                seen += 1
                step = 1 / page.evaluate("twostream.focus.viewer.zoom")
                around = [[v + d * step * (a in plane) for v, a in zip(place, "zyx", strict=True)] for d in (-1, 0, 1)]
                assert pixels(page, around, plane).min(1).max() > 180, (plane, place)
            assert seen
        inside, outside = (z, y + 2.5, x + 2.5), (z, y0 - 4.5, x0 - 4.5)
        grey = pixels(page, [inside, outside])
        assert (grey == grey[:, :1]).all() and at(page, inside)[0] > 0

    @pytest.mark.parametrize(("theme", "width", "height"), [("dark", 1280, 800), ("light", 820, 1180)])
    def test_all_of_it_can_be_read_in_both_themes(self, show, theme, width, height):
        _, page = show(width, height, has_touch=width < 1000)
        if theme == "light":
            page.keyboard.press("d")
        page.emulate_media(reduced_motion="reduce")
        to_windows(page)
        page.keyboard.press("i")
        look(page)
        assert "drawn with probability 0.25" in page.inner_text("#why")
        page.keyboard.press("i")
        page.click("[data-action=missed]:visible")
        go_to_section(page, FAINT[0])
        proposal(page, FAINT[0])
        look(page)
        bottom = page.evaluate("document.getElementById('side').getBoundingClientRect().bottom")
        keep = page.locator("#correction [data-action=keep-it]").bounding_box()
        assert keep["y"] + keep["height"] <= bottom, "it can be kept without scrolling"
        page.click("#correction [data-action=keep-it]")
        see_all(page)
        assert decide(page, "w") == WINDOWS[0]
        page.keyboard.press("ArrowLeft")
        until(page, f"twostream.focus.onScreen?.query.id === {WINDOWS[0]}")
        assert "nothing missed" in page.inner_text("#mine")
        assert page.locator("#decisions .is-mine").count() == 1
        look(page)
        go_to_gallery(page)
        look(page)

    def test_a_killed_server_loses_neither_marks_nor_closed_windows(self, serve, open_page):
        served = serve()
        page = open_page(served)
        first = to_windows(page)
        page.keyboard.press("a")
        go_to_section(page, FAINT[0])
        proposal(page, FAINT[0])
        see_all(page)
        served.kill()
        page.keyboard.press("Enter")
        until(page, "twostream.outbox.unsent().length === 1")
        until(page, "twostream.correction.mode === 'off'")
        page.keyboard.press("w")
        until(page, "twostream.outbox.unsent().length === 2")
        page.keyboard.press("z")  # opens the window again, before anything was sent
        until(page, f"twostream.queue.current?.query.id === {first} && !twostream.queue.current.mine")
        assert "unsent" in page.inner_text("#unsent")
        served.start()
        until(page, "!twostream.outbox.unsent().length", 30)
        ledger = served.project.ledger
        assert [a.window for a in ledger.missed_objects()] == [first]
        assert first in {window.id for window in ledger.open_windows()}
        assert shown(page) == first
        assert decide(page, "w") == first
        assert answers(served)[first] == "none_missed"

    def test_undo_leads_back_to_its_window_while_the_closing_answer_is_on_its_way(self, show):
        """The server is slow and then gone: the page would have gone on after the undo."""
        served, page = show()
        first = to_windows(page)
        sent(page)
        see_all(page)
        held = []
        page.route("**/api/decisions", lambda route: held.append(route))
        page.keyboard.press("w")
        until(page, "twostream.outbox.unsent().length === 1")
        page.keyboard.press("z")
        page.wait_for_timeout(200)
        page.route("**/api/decisions", lambda route: route.abort("connectionrefused"))
        for route in held:
            route.abort("connectionrefused")
        until(page, "twostream.outbox.unsent().length === 2")
        page.wait_for_timeout(300)
        assert shown(page) == first and page.evaluate("twostream.queue.current.mine") is None
        page.unroute("**/api/decisions")
        until(page, "!twostream.outbox.unsent().length")
        assert first in {window.id for window in served.project.ledger.open_windows()}
