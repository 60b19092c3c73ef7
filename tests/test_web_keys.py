"""The page in a real browser: what every key and every button does."""

from __future__ import annotations

import pytest
from served import BUDGET, answers, decide, go_to_gallery, needs_browser, shown, until

pytestmark = needs_browser
KINDS = {
    "t": "true",
    "n": "nothing",
    "m": "shape/merge",
    "p": "shape/split",
    "b": "shape/boundary",
    "u": "unsure",
    "k": "skipped",
}
LISTED = "[...document.querySelectorAll('[data-key-of]')].map((button) => [button.dataset.keyOf, button.textContent])"
VIEWER = """(() => { const { viewer } = twostream.focus; return { overlay: viewer.overlay, opacity: viewer.opacity,
    others: viewer.others, zoom: viewer.zoom, contrast: { ...viewer.contrast }, center: Array.from(viewer.center),
    at: Object.values(viewer.toScreen(viewer.center)) }; })()"""


def text(page, selector):
    return page.locator(selector).inner_text()


def click(page, action):
    page.click(f"[data-action='{action}']:visible")


def test_one_key_decides_and_the_next_candidate_shows(serve, open_page):
    served = serve()
    page = open_page(served)
    first = page.evaluate("twostream.queue.current.query.id")
    page.keyboard.press("t")
    until(page, f"twostream.queue.current.query.id !== {first}")
    assert answers(served) == {first: "true"}
    until(page, f"document.getElementById('progress').textContent.includes('1 of {BUDGET} answered')")


def test_every_kind_has_a_key_and_a_button(serve, open_page):
    served = serve()
    page = open_page(served)
    expected = {decide(page, key): kind for key, kind in KINDS.items()}
    for kind in KINDS.values():
        query = shown(page)
        click(page, f"decide-{kind}")
        until(page, f"twostream.queue.current.query.id !== {query}")
        expected[query] = kind
    assert len(expected) == 2 * len(KINDS)
    assert answers(served) == expected
    shown_keys = page.evaluate(
        "[...document.querySelectorAll('#decisions button:not([hidden])')].map((b) => b.dataset.action + b.innerText)"
    )
    assert len(shown_keys) == len(KINDS)
    assert all(
        any(f"decide-{kind}" in row and row.endswith(key.upper()) for row in shown_keys) for key, kind in KINDS.items()
    )


@pytest.mark.parametrize("by", ["keys", "mouse"])
def test_previous_next_undo_and_redo(serve, open_page, by):
    served = serve()
    page = open_page(served)
    keys = {"previous": "ArrowLeft", "next": "ArrowRight", "undo": "z", "redo": "Shift+Z"}

    def act(name):
        if by == "keys":
            page.keyboard.press(keys[name])
        else:
            click(page, name)

    def goes_to(query):
        until(page, f"twostream.queue.current.query.id === {query}")
        assert shown(page) == query

    first, second = decide(page, "t"), decide(page, "n")
    third = shown(page)
    act("previous")
    goes_to(second)
    assert "nothing there" in text(page, "#mine")
    assert "is-mine" in page.locator("[data-action='decide-nothing']").get_attribute("class")
    act("next")
    goes_to(third)
    assert text(page, "#mine") == ""

    page.reload()  # what can be undone does not depend on the page
    page.wait_for_selector("body[data-ready]")
    shown(page)
    act("undo")
    goes_to(second)
    assert answers(served) == {first: "true"}
    assert text(page, "#mine") == ""
    act("undo")
    goes_to(first)
    assert answers(served) == {}
    act("undo")
    until(page, "document.getElementById('message').textContent.includes('nothing is left to undo')")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    shown(page)
    for expected in ({first: "true"}, {first: "true", second: "nothing"}):
        act("redo")
        until(page, f"twostream.queue.items.filter((item) => item.mine).length === {len(expected)}")
        assert answers(served) == expected
        shown(page)


def test_undo_of_a_changed_decision_restores_the_earlier_one(serve, open_page):
    served = serve()
    page = open_page(served)
    first = decide(page, "t")
    for kind in ("nothing", "unsure"):
        page.keyboard.press("ArrowLeft")
        until(page, f"twostream.queue.current.query.id === {first}")
        decide(page, {"nothing": "n", "unsure": "u"}[kind])
        assert answers(served) == {first: kind}
    for kind in ("nothing", "true", None):
        shown(page)
        page.keyboard.press("z")
        until(
            page,
            f"(twostream.queue.items.find((i) => i.query.id === {first}).mine?.kind ?? null) === {kind!r}".replace(
                "None", "null"
            ),
        )
        assert answers(served) == ({first: kind} if kind else {})
        assert shown(page) == first
    shown(page)
    page.keyboard.press("Shift+Z")
    until(page, f"twostream.queue.items.find((i) => i.query.id === {first}).mine?.kind === 'true'")
    assert answers(served) == {first: "true"}


def test_keys_and_controls_of_the_picture(serve, open_page):
    page = open_page(serve())
    query = shown(page)
    fresh = page.evaluate(VIEWER)

    def after(*keys):
        for key in keys:
            page.keyboard.press(key)
        return page.evaluate(VIEWER)

    assert [after("o")["overlay"] for _ in range(3)] == ["fill", "off", "outline"]
    assert after("[")["opacity"] < fresh["opacity"] < after("]", "]")["opacity"] + 1e-9
    assert after("h")["others"] is not fresh["others"]
    assert after("h")["others"] is fresh["others"]
    assert after("+")["zoom"] > fresh["zoom"] > after("-", "-")["zoom"]
    after("r")
    for key, axis, sign in (("Left", 0, 1), ("Right", 0, -1), ("Up", 1, 1), ("Down", 1, -1)):
        before = page.evaluate(VIEWER)["at"]  # the view goes left, so that the tissue goes right
        assert sign * (after(f"Shift+Arrow{key}")["at"][axis] - before[axis]) > 0
    section = int(page.evaluate(VIEWER)["center"][0])
    assert int(after("ArrowUp")["center"][0]) == section - 1
    assert int(after("ArrowDown")["center"][0]) == section
    assert after("c")["contrast"]["low"] > fresh["contrast"]["low"]
    assert after("v")["contrast"] == fresh["contrast"]
    assert after("r")["center"] == fresh["center"]

    box = page.locator("#viewer canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.wheel(0, 100)
    until(page, f"twostream.focus.viewer.center[0] !== {fresh['center'][0]}")
    page.mouse.down()
    page.mouse.move(x + 40, y, steps=3)
    page.mouse.up()
    until(page, f"{VIEWER}.at[0] > {fresh['at'][0]} + 20")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    until(page, f"twostream.focus.viewer.zoom > {fresh['zoom']}")
    click(page, "reset")
    until(page, f"Math.abs({VIEWER}.at[0] - {fresh['at'][0]}) < 1")
    click(page, "overlay")
    click(page, "others")
    page.fill("#low", "30")
    page.fill("#high", "200")
    page.fill("#opacity", "50")
    now = page.evaluate(VIEWER)
    assert (now["overlay"], now["others"], now["opacity"]) == ("fill", not fresh["others"], 0.5)
    assert now["contrast"] == {"low": 30, "high": 200}
    assert shown(page) == query, "no key of the picture decides"


@pytest.mark.parametrize("by", ["keys", "mouse"])
def test_views_why_theme_people_and_help(serve, open_page, by):
    page = open_page(serve())
    shown(page)
    keys = {"gallery": "g", "focus": "f", "settle": "j", "why": "i", "theme": "d", "people": "s", "help": "?"}

    def act(name):
        if by == "keys":
            page.keyboard.press(keys[name])
        else:
            click(page, name)

    assert page.locator("#why").is_hidden(), "why it is asked would lead the witness"
    act("why")
    assert "score" in text(page, "#why")
    act("why")
    assert page.locator("#why").is_hidden()
    for name in ("gallery", "settle", "focus"):
        act(name)
        page.wait_for_selector(f"#view-{name}:visible")
        page.wait_for_selector(f"nav [data-action={name}][aria-pressed=true]")
    theme = "document.documentElement.dataset.theme"
    act("theme")
    assert page.evaluate(theme) == "light"
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.evaluate(theme) == "light"
    act("theme")
    assert page.evaluate(theme) == "dark"
    act("people")
    page.wait_for_selector("#people:visible")
    click(page, "close")
    act("help")
    page.wait_for_selector("#help:visible")
    listed = page.evaluate(LISTED)
    assert sorted(name for name, _ in listed) == sorted(page.evaluate("[...twostream.keys.actions.keys()]"))
    named = dict(listed)
    assert (named["zoom-in"], named["run"], named["redo"], named["previous"]) == ("+", "none", "Shift Z", "←")
    page.keyboard.press("t")  # behind a dialog, nothing is decided
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")
    assert page.evaluate("twostream.queue.items.every((item) => !item.mine)")


def test_gallery_keys_and_clicks(serve, open_page):
    served = serve()
    page = open_page(served)
    ids = go_to_gallery(page)
    assert len(ids) >= 4
    cursor = "document.querySelector('.slot[aria-current]').dataset.query"
    page.keyboard.press("ArrowRight")
    assert int(page.evaluate(cursor)) == ids[1]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("u")
    until(page, f"{cursor} === '{ids[1]}'")
    assert answers(served) == {ids[0]: "unsure"}

    page.select_option("#click-means", "nothing")
    page.click(f".slot[data-query='{ids[2]}']")  # once: wrong; the third one twice: unsure
    page.click(f".slot[data-query='{ids[3]}']")
    page.click(f".slot[data-query='{ids[3]}']")
    page.reload()  # at once: a click is a decision, whether or not its moment has passed
    page.wait_for_selector("body[data-ready]")
    marked = {ids[0]: "unsure", ids[2]: "nothing", ids[3]: "unsure"}
    until(page, "!twostream.outbox.unsent().length")
    assert answers(served) == marked

    until(page, "twostream.gallery.items.length > 0 && twostream.gallery.isReady")
    open_ = page.evaluate("twostream.gallery.open_.map((item) => item.query.id)")
    assert len(open_) > 1
    click(page, "rest-true")
    until(
        page,
        f"twostream.queue.items.find((i) => i.query.id === {open_[-1]})?.mine && !twostream.outbox.unsent().length",
    )
    assert answers(served) == marked | dict.fromkeys(open_, "true")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    page.keyboard.press("z")
    until(page, f"!twostream.queue.items.find((i) => i.query.id === {open_[-1]}).mine")
    assert answers(served) == marked, "the rest of a page is undone in one step"
    page.keyboard.press("Shift+Z")
    until(page, f"twostream.queue.items.find((i) => i.query.id === {open_[-1]}).mine")
    assert answers(served) == marked | dict.fromkeys(open_, "true")


def test_a_click_is_undone_before_what_was_decided_earlier(serve, open_page):
    served = serve()
    page = open_page(served)
    first = decide(page, "t")
    go_to_gallery(page)
    page.locator(".slot.open, .slot:has(.open)").last.click()
    page.keyboard.press("z")
    until(page, "document.getElementById('message').textContent.includes('Undone: ✖')")
    assert answers(served) == {first: "true"}


def test_a_key_can_be_changed(serve, open_page):
    served = serve()
    page = open_page(served)
    shown(page)

    def change(action, key):
        page.keyboard.press("?")
        page.click(f"[data-key-of='{action}']")
        page.keyboard.press(key)
        until(page, "!twostream.keys.listener")
        names = page.evaluate(f"Object.fromEntries({LISTED})")
        page.keyboard.press("Escape")
        page.wait_for_selector("#help", state="hidden")
        return names

    names = change("decide-true", "y")
    assert names["decide-true"] == "Y"
    names = change("why", "n")  # which meant "nothing there"
    assert (names["why"], names["decide-nothing"]) == ("N", "none")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    query = shown(page)
    assert text(page, "[data-action='decide-true'] kbd") == "Y"
    page.keyboard.press("n")
    assert page.locator("#why").is_visible()
    page.keyboard.press("t")
    assert shown(page) == query
    decide(page, "y")
    assert answers(served) == {query: "true"}

    page.keyboard.press("?")
    page.click("[data-key-of='decide-unsure']")
    click(page, "close")  # while a key is waited for: the next one is an ordinary key again
    second = decide(page, "u")
    page.keyboard.press("?")
    page.click("text=All keys as they came")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")
    assert text(page, "[data-action='decide-true'] kbd") == "T"
    third = decide(page, "n")
    assert answers(served) == {query: "true", second: "unsure", third: "nothing"}


def test_pages_and_cards_of_the_gallery(serve, open_page):
    served = serve()
    page = open_page(served)
    first = go_to_gallery(page)
    for on, back in (
        (lambda: page.keyboard.press("PageDown"), lambda: page.keyboard.press("PageUp")),
        (lambda: click(page, "page-on"), lambda: click(page, "page-back")),
    ):
        on()
        until(page, "twostream.gallery.page === 1 && twostream.gallery.items.length > 0 && twostream.gallery.isReady")
        assert not set(page.evaluate("twostream.gallery.items.map((item) => item.query.id)")) & set(first)
        back()
        until(page, "twostream.gallery.page === 0 && twostream.gallery.isReady")
    page.keyboard.press("ArrowDown")
    row = page.evaluate("twostream.gallery.cursor")
    assert row == page.evaluate("twostream.gallery.columns")
    page.keyboard.press("Enter")
    assert shown(page) == first[row]
    go_to_gallery(page)
    page.dblclick(f".slot[data-query='{first[1]}'] .words")
    assert shown(page) == first[1]
    assert answers(served) == {}, "a double click opens a card and decides nothing"


def test_the_neuroglancer_key(serve, open_page):
    page = open_page(serve())
    query = shown(page)
    page.context.route("**/neuroglancer", lambda route: route.fulfill(body=route.request.url))
    for act in (lambda: page.keyboard.press("l"), lambda: click(page, "neuroglancer")):
        with page.context.expect_page() as opened:
            act()
        opened.value.wait_for_url(f"**/api/queries/{query}/neuroglancer")
        opened.value.close()


def test_a_changed_decision_goes_on_to_the_one_that_follows(serve, open_page):
    page = open_page(serve())
    first, second, third = decide(page, "t"), decide(page, "n"), decide(page, "u")
    for query in (third, second, first):
        page.keyboard.press("ArrowLeft")
        until(page, f"twostream.focus.onScreen?.query.id === {query}")
    assert first != second
    assert decide(page, "n") == first
    assert shown(page) == second, "not the next open one, because earlier ones are being gone through"
