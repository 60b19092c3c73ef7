"""The gallery in a real browser: cards, clicks that toggle, keys, pages, sizes of the window, and no click is lost."""

from __future__ import annotations

import time

import pytest
from served import BUDGET, go_to_gallery, needs_browser, until

pytestmark = needs_browser
WORDS = {"nothing": "nothing there", "unsure": "unsure", "true": "true"}


def kinds(served) -> dict[int, str]:
    """{query: kind} of the current answers in the ledger."""
    return {a.query: str(a.kind) for a in served.project.ledger.current_answers()}


def recorded(served) -> list[tuple[int, str]]:
    """(query, kind) of all answers that were ever recorded, oldest first."""
    return [(a.query, str(a.kind)) for a in served.project.ledger.all_answers()]


@pytest.fixture
def gallery(show):
    """Function that opens the gallery: (width, height) -> (site, page)."""

    def open_(width=1280, height=800):
        served, page = show(width, height)
        page.wait_for_timeout(200)  # the window takes its size
        go_to_gallery(page)
        return served, page

    return open_


def shown(page) -> list[int]:
    """The queries of the page of cards."""
    return page.evaluate("[...document.querySelectorAll('.slot')].map((slot) => Number(slot.dataset.query))")


def slot(query: int) -> str:
    return f".slot[data-query='{query}']"


def answer_of(page, query: int) -> str:
    return page.inner_text(f"{slot(query)} .answer")


def click(page, query: int, times: int) -> list[tuple[str, int]]:
    """Click on a card in quick succession.

    It is one script, so that no pause of a busy machine between two clicks looks like one of the annotator.

    Returns:
        After each click: the answer that the card shows, and the number of decisions on their way.
    """
    card = f'document.querySelector("{slot(query)}")'
    return page.evaluate(
        f"Array.from({{length: {times}}}, () => {{ {card}.click(); "
        f"return [{card}.querySelector('.answer').innerText, twostream.outbox.unsent().length] }})"
    )


def settle(page, query: int, kind: str) -> None:
    """Wait until the page knows that an answer is recorded."""
    until(page, f"twostream.queue.items.find((i) => i.query.id === {query})?.mine?.kind === '{kind}'")
    until(page, "twostream.outbox.unsent().length === 0")


def test_a_card_shows_the_raw_image_above_the_overlay(gallery):
    _, page = gallery()
    first = shown(page)[0]
    tiles = page.locator(f"{slot(first)} .tile")
    raw, overlaid = (tiles.nth(i).bounding_box() for i in (0, 1))
    assert raw["x"] == overlaid["x"] and raw["y"] + raw["height"] <= overlaid["y"]
    assert tiles.nth(0).locator("path").count() == 0 and tiles.nth(1).locator("path").count() == 1
    until(page, f'[...document.querySelectorAll("{slot(first)} img")].every((image) => image.naturalWidth > 0)')
    assert page.get_attribute(slot(first), "aria-label").startswith("candidate ")


def test_clicks_go_round_wrong_unsure_true_and_each_settled_one_is_one_record(gallery):
    served, page = gallery()
    first, second = shown(page)[:2]
    for kind, (said, num_unsent) in zip(("nothing", "unsure", "true", "nothing"), click(page, first, 4), strict=True):
        assert WORDS[kind] in said.lower()
        assert num_unsent == 0, "what is clicked on is recorded when it is left alone"
    settle(page, first, "nothing")
    assert recorded(served) == [(first, "nothing")], "four quick clicks are one decision"
    for kind in ("unsure", "true"):
        page.click(slot(first))
        settle(page, first, kind)
    assert recorded(served) == [(first, "nothing"), (first, "unsure"), (first, "true")]
    assert kinds(served) == {first: "true"}
    page.select_option("#click-means", "shape/merge")
    page.click(slot(second))
    settle(page, second, "shape")
    (answer,) = served.project.ledger.current_answers(second)
    assert (answer.kind, answer.reason) == ("shape", "merge")


def test_keys_decide_about_the_framed_card(gallery):
    served, page = gallery()
    cards = shown(page)
    framed = "Number(document.querySelector('.slot[aria-current]').dataset.query)"
    assert page.evaluate(framed) == cards[0]
    page.keyboard.press("n")
    until(page, f"{framed} === {cards[1]}")
    page.keyboard.press("ArrowRight")
    until(page, f"{framed} === {cards[2]}")
    page.keyboard.press("m")
    until(page, f"{framed} === {cards[3]}")
    columns = page.evaluate("twostream.gallery.columns")
    page.keyboard.press("ArrowDown")
    until(page, f"{framed} === {cards[min(3 + columns, len(cards) - 1)]}")
    settle(page, cards[2], "shape")
    assert kinds(served) == {cards[0]: "nothing", cards[2]: "shape"}
    page.keyboard.press("z")
    until(page, f"{framed} === {cards[2]}")
    assert kinds(served) == {cards[0]: "nothing"}


def test_the_rest_of_a_page_is_true_and_the_next_page_shows(gallery):
    served, page = gallery(900, 700)
    first_page = shown(page)
    assert len(first_page) < BUDGET
    page.click(slot(first_page[1]))
    page.keyboard.press("Shift+T")
    until(page, "twostream.gallery.page === 1 && twostream.gallery.items.length > 0 && twostream.gallery.isReady")
    assert kinds(served) == {q: "nothing" if q == first_page[1] else "true" for q in first_page}
    second_page = shown(page)
    assert second_page and not set(second_page) & set(first_page)
    assert page.inner_text("#page-name").startswith("page 2 of ")
    page.keyboard.press("PageUp")
    until(page, "twostream.gallery.page === 0")
    assert shown(page) == first_page and WORDS["nothing"] in answer_of(page, first_page[1])
    page.keyboard.press("z")
    until(page, "twostream.queue.items.filter((i) => i.mine).length === 1")
    assert kinds(served) == {first_page[1]: "nothing"}, "one undo takes back the rest of the page, and nothing else"


def test_all_pages_answered_ends_the_queue(gallery):
    served, page = gallery(1280, 900)
    while len(kinds(served)) < BUDGET:
        done = len(kinds(served))
        until(page, "twostream.gallery.isReady")
        page.keyboard.press("Shift+T")
        until(page, f"twostream.queue.items.filter((item) => item.mine).length > {done}")
        until(page, "twostream.outbox.unsent().length === 0")
    page.wait_for_selector("#view-end:not([hidden])")
    until(page, "document.getElementById('view-end').textContent.includes('All queries of this round are answered')")
    assert set(kinds(served).values()) == {"true"} and len(recorded(served)) == BUDGET


@pytest.mark.parametrize(("width", "height"), [(600, 800), (820, 1180), (1280, 800), (2560, 1440)])
def test_cards_fill_windows_of_every_size(gallery, width, height):
    _, page = gallery(width, height)
    page.evaluate("twostream.gallery.draw()")
    boxes = page.evaluate(
        "[...document.querySelectorAll('.slot, .gallery-bar > *, header > :not([hidden]), footer > *')]"
        ".map((e) => { const {left, right, width} = e.getBoundingClientRect(); return [left, right, width]; })"
    )
    assert boxes and all(left >= 0 and right <= width for left, right, size in boxes if size), boxes
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    slots = page.evaluate("[...document.querySelectorAll('.slot')].map((e) => e.getBoundingClientRect().left)")
    columns, held = len(set(slots)), page.evaluate("twostream.queue.items.length")
    assert columns >= width // 230 or len(slots) == held, "the width is used"
    assert len(slots) == held or len(slots) % columns == 0, "a page holds whole rows"
    assert page.evaluate("[...document.querySelectorAll('.slot .tile')].every((e) => e.clientWidth >= 120)")


def test_a_window_that_changes_its_size_keeps_the_framed_card(gallery):
    _, page = gallery(1280, 800)
    page.keyboard.press("ArrowDown")
    framed = "Number(document.querySelector('.slot[aria-current]').dataset.query)"
    query = page.evaluate(framed)
    for width in (600, 1000, 2000):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(100)
        assert page.evaluate(framed) == query


def test_a_double_click_opens_the_focus_view_and_decides_nothing(gallery):
    served, page = gallery()
    query = shown(page)[3]
    page.dblclick(slot(query))
    page.wait_for_selector("#view-focus:not([hidden])")
    assert page.evaluate("twostream.queue.current.query.id") == query
    page.wait_for_timeout(900)
    assert recorded(served) == []
    page.keyboard.press("g")
    page.wait_for_selector(slot(query))
    assert page.get_attribute(slot(query), "aria-current") == "true"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_selector("#view-focus:not([hidden])")
    assert page.evaluate("twostream.queue.current.query.id") == shown(page)[2]


@pytest.mark.parametrize("leaving", ["view", "reload", "order", "page", "close"])
def test_clicks_right_before_one_leaves_are_recorded(gallery, leaving):
    served, page = gallery(900, 700)
    first, second = shown(page)[:2]
    click(page, first, 1)
    click(page, second, 2)
    if leaving == "view":
        page.keyboard.press("f")
    elif leaving == "reload":
        page.reload()
        page.wait_for_selector("body[data-ready]")
    elif leaving == "order":
        page.select_option("#order", "shuffled")
    elif leaving == "page":
        page.keyboard.press("PageDown")
    else:
        context = page.context
        page.close(run_before_unload=False)
        page = context.new_page()
        page.goto(served.address)
        page.wait_for_selector("body[data-ready]")
    end = time.monotonic() + 10
    while len(recorded(served)) < 2 and time.monotonic() < end:
        page.wait_for_timeout(50)
    assert sorted(recorded(served)) == sorted([(first, "nothing"), (second, "unsure")])


def test_a_decision_on_an_opened_card_leads_back_to_its_page(gallery):
    served, page = gallery(1280, 900)
    first = shown(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    until(page, f"twostream.focus.onScreen?.query.id === {first[1]}")
    page.keyboard.press("u")
    until(page, "!document.getElementById('view-gallery').hidden && twostream.gallery.isReady")
    assert kinds(served) == {first[1]: "unsure"}
    assert shown(page) == first
    until(page, "twostream.gallery.cursor === 2")
    page.keyboard.press("f")  # as a view of its own it goes on to the next candidate
    until(page, f"twostream.focus.onScreen?.query.id === {first[2]}")
    page.keyboard.press("t")
    until(page, f"twostream.focus.onScreen?.query.id === {first[3]}")


def test_masks_on_cards_are_filled_outlined_or_off(gallery):
    _, page = gallery(1280, 900)
    style = "getComputedStyle(document.querySelector('.tile path'))"
    seen = []
    for _ in range(3):
        page.keyboard.press("o")
        seen.append((page.evaluate(f"{style}.display"), page.evaluate(f"{style}.fillOpacity")))
    assert seen[0] == ("inline", "0")
    assert seen[1][0] == "none"
    assert seen[2][0] == "inline" and 0 < float(seen[2][1]) < 0.3


def test_the_time_of_a_card_that_was_opened_is_kept(gallery):
    """What was looked at large and left belongs to the candidate when its page is decided."""
    served, page = gallery(1280, 900)
    first = shown(page)
    page.keyboard.press("Enter")
    until(page, f"twostream.focus.onScreen?.query.id === {first[0]}")
    for _ in range(6):
        page.wait_for_timeout(250)
        page.keyboard.press("ArrowDown")
    page.keyboard.press("g")
    until(page, "!document.getElementById('view-gallery').hidden && twostream.gallery.isReady")
    page.keyboard.press("Shift+T")
    until(page, "twostream.queue.items.filter((item) => item.mine).length > 1")
    until(page, "twostream.outbox.unsent().length === 0")
    seconds = {a.query: a.seconds for a in served.project.ledger.current_answers()}
    assert seconds[first[0]] > 1.4
    assert seconds[first[0]] > max(value for query, value in seconds.items() if query != first[0]) + 1
