"""The page in a real browser: what becomes of decisions when the server, an acknowledgement or the page goes away."""

from __future__ import annotations

import json
import time
from contextlib import suppress

from served import answers, decide, go_to_gallery, needs_browser, set_proofreading, shown, until

try:
    from playwright.sync_api import Error as PlaywrightError
except ImportError:  # then nothing here is run
    PlaywrightError = Exception

pytestmark = needs_browser
UNSENT = "document.getElementById('unsent')"


def is_sent(page):
    until(page, "!twostream.outbox.unsent().length", 30)


def decide_unsent(page, key):
    """Decide while the server is gone."""
    query = shown(page)
    before = page.evaluate("twostream.outbox.unsent().length")
    page.keyboard.press(key)
    until(page, f"twostream.outbox.unsent().length > {before}")
    until(page, f"twostream.queue.current?.query.id !== {query}")
    return query


def test_a_killed_server_loses_nothing(serve, open_page):
    served = serve()
    page = open_page(served)
    expected = {decide(page, "t"): "true"}
    shown(page)
    until(page, "twostream.queue.upcoming(3).every(({ query }) => twostream.focus.pictures.ready(query.id))")
    served.kill()
    for key, kind in (("n", "nothing"), ("u", "unsure"), ("t", "true")):
        expected[decide_unsent(page, key)] = kind
    assert "3 unsent" in page.locator("#unsent").inner_text()
    page.keyboard.press("z")  # undone before it was sent
    last = list(expected)[-1]
    until(page, f"twostream.queue.current?.query.id === {last} && !twostream.queue.current.mine")
    assert "unsent" in page.locator("#unsent").inner_text()
    del expected[last]

    context = page.context
    page.close()
    served.start()
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_selector("body[data-ready]")
    is_sent(page)
    until(page, f"{UNSENT}.hidden")
    assert answers(served) == expected
    keys = [answer.key for answer in served.project.ledger.answers_after(0)]
    assert len(keys) == len(set(keys)) == len(expected) + 2, "each decision once, and the undone one with its undo"
    marked = page.evaluate("twostream.queue.items.filter((i) => i.mine).map((i) => i.query.id)")
    assert sorted(marked) == sorted(expected)
    assert decide(page, "t") not in expected


def test_an_open_page_goes_on_when_the_server_is_back(serve, open_page):
    served = serve()
    page = open_page(served)
    shown(page)
    until(page, "twostream.queue.upcoming(3).every(({ query }) => twostream.focus.pictures.ready(query.id))")
    served.kill()
    decided = [decide_unsent(page, "t") for _ in range(4)]
    until(page, "document.getElementById('message').textContent.includes('cannot be loaded')")
    page.keyboard.press("t")  # its picture is not there
    until(page, "document.getElementById('message').textContent.includes('not on the screen')")
    served.start()
    is_sent(page)
    assert answers(served) == dict.fromkeys(decided, "true")
    assert shown(page) not in decided, "the picture comes by itself"
    assert decide(page, "n") not in decided


def test_a_lost_acknowledgement_records_a_decision_once(serve, open_page):
    served = serve()
    page = open_page(served)
    lost = []

    def lose_first(route):
        if lost:
            return route.continue_()
        lost.append(route.fetch().json())  # the server has recorded it
        route.abort()

    def lose(route):
        with suppress(PlaywrightError):  # the route may be taken away while a request is under way
            lost.append(route.fetch().json())
            route.abort()

    page.route("**/api/decisions", lose_first)
    query = decide(page, "t")
    is_sent(page)
    assert lost[0]["results"][0]["answer"]
    assert [a.query for a in served.project.ledger.answers_after(0)] == [query]

    page.unroute("**/api/decisions")
    lost.clear()
    shown(page)
    page.route("**/api/decisions", lose)
    second = decide(page, "n")
    until(page, f"!{UNSENT}.hidden")
    page.keyboard.press("z")  # it is in the ledger, which the page cannot know
    until(page, f"twostream.queue.current.query.id === {second}")
    page.unroute("**/api/decisions")
    is_sent(page)
    assert answers(served) == {query: "true"}


def test_a_gesture_that_waits_is_undone_at_once(serve, open_page):
    served = serve()
    page = open_page(served)
    first = decide(page, "t")
    go_to_gallery(page)
    page.route("**/api/decisions", lambda route: route.abort())
    open_ = page.evaluate("twostream.gallery.open_.map((item) => item.query.id)")
    page.keyboard.press("Shift+T")
    until(page, f"twostream.outbox.unsent().length === {len(open_)}")
    page.keyboard.press("z")
    until(page, f"!twostream.queue.items.find((i) => i.query.id === {open_[0]}).mine")
    page.unroute("**/api/decisions")
    is_sent(page)
    assert answers(served) == {first: "true"}


def test_a_refused_decision_is_said_and_kept_apart(serve, open_page):
    served = serve()
    page = open_page(served)

    def with_swap(route):
        values = route.fetch().json()
        values["decisions"].append({"kind": "swapped", "reason": "", "words": "Sides swapped", "about": ["candidate"]})
        route.fulfill(json=values)

    page.route("**/api/project", with_swap)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    query = decide(page, "x")
    until(page, "document.getElementById('message').classList.contains('is-problem')")
    is_sent(page)
    assert answers(served) == {}
    assert page.evaluate(f"twostream.queue.items.find((i) => i.query.id === {query}).mine") is None
    kept = page.evaluate(
        "Object.keys(localStorage).filter((k) => k.startsWith('twostream/refused/')).map((k) => localStorage[k])"
    )
    assert len(kept) == 1 and "swapped" in kept[0]


def test_time_of_a_decision_has_no_idle_time(serve, open_page, queue_project):
    set_proofreading(queue_project, idle_seconds=4.0)
    served = serve()
    start = time.monotonic()
    page = open_page(served)
    shown(page)
    page.keyboard.press("o")
    page.wait_for_timeout(5000)
    idle = decide(page, "t")
    most = time.monotonic() - start - 5
    start = time.monotonic()
    shown(page)
    for _ in range(4):
        page.wait_for_timeout(200)
        page.keyboard.press("o")
    busy = decide(page, "t")
    seconds = {a.query: a.seconds for a in served.project.ledger.current_answers()}
    assert 0 <= seconds[idle] <= most
    assert seconds[busy] > 0.2


def test_a_ledger_that_is_busy_makes_a_decision_wait_and_says_why(serve, open_page):
    served = serve()
    page = open_page(served)
    query = shown(page)
    detail = json.dumps({"detail": "ledger.sqlite is locked by another program"})
    page.route(
        "**/api/decisions", lambda route: route.fulfill(status=503, content_type="application/json", body=detail)
    )
    page.keyboard.press("t")
    until(page, f"{UNSENT}.textContent.includes('1 unsent') && {UNSENT}.textContent.includes('locked by another')")
    assert answers(served) == {}
    page.unroute("**/api/decisions")
    until(page, "!twostream.outbox.unsent().length", 30)
    assert answers(served) == {query: "true"}
