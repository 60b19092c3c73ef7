"""The page in a real browser: whoever types too fast decides nothing twice, and nothing that was not on the screen."""

from __future__ import annotations

from served import answers, decide, go_to_gallery, needs_browser, shown, until

pytestmark = needs_browser


def test_a_held_key_decides_once(serve, open_page):
    served = serve()
    page = open_page(served)
    query = shown(page)
    page.keyboard.down("t")
    for _ in range(5):
        page.keyboard.down("t")  # repeats, as a held key does
        page.wait_for_timeout(60)
    page.keyboard.up("t")
    assert shown(page) != query
    assert answers(served) == {query: "true"}


def test_fast_typing_never_decides_what_was_not_seen(serve, open_page):
    served = serve()
    page = open_page(served)
    shown(page)
    page.evaluate("""() => {
        const { focus } = twostream, show = focus.viewer.show.bind(focus.viewer);
        window.seen = [focus.onScreen.query.id];
        focus.viewer.show = (what) => { show(what); window.seen.push(focus.item.query.id); };
    }""")
    for _ in range(10):
        page.keyboard.press("t")
    shown(page)
    until(page, "!twostream.outbox.unsent().length")
    recorded = served.project.ledger.answers_after(0)
    queries = [answer.query for answer in recorded]
    assert len(queries) == len(set(queries)) and all(answer.supersedes is None for answer in recorded)
    assert queries == page.evaluate("window.seen")[: len(queries)]
    assert 1 <= len(queries) <= 10
    if len(queries) < 10:
        assert "did not count" in page.locator("#message").text_content()


def test_a_key_before_the_picture_is_there_does_not_count(serve, open_page):
    served = serve()
    page = open_page(served)
    shown(page)
    held, is_open = [], []
    # Pictures that were not loaded ahead do not come.
    page.route("**/api/image*", lambda route: route.continue_() if is_open else held.append(route))
    queries = []
    for _ in range(6):
        query = page.evaluate("twostream.queue.current.query.id")
        if not page.evaluate("twostream.focus.onScreen === twostream.queue.current"):
            break
        queries.append(decide(page, "t"))
        page.wait_for_timeout(100)
    assert 1 <= len(queries) < 6
    page.keyboard.press("t")
    until(page, "document.getElementById('message').textContent.includes('not on the screen')")
    assert "is-waiting" in page.locator("#viewer").get_attribute("class")
    assert answers(served) == dict.fromkeys(queries, "true")
    is_open.append(True)
    for route in held:
        route.continue_()
    assert shown(page) == query
    assert decide(page, "t") == query


def test_fast_keys_in_the_gallery_never_decide_what_was_not_seen(serve, open_page):
    served = serve()
    page = open_page(served)
    on_page = go_to_gallery(page)
    held, is_open = [], []
    page.route("**/patch.png*", lambda route: route.continue_() if is_open else held.append(route))
    page.keyboard.press("Shift+T")
    until(page, "twostream.gallery.page === 1")
    for key in ("Shift+T", "t", "n"):
        page.evaluate("document.getElementById('message').textContent = ''")
        page.keyboard.press(key)
        until(page, "document.getElementById('message').textContent.includes('did not count')")
    assert answers(served) == dict.fromkeys(on_page, "true")
    is_open.append(True)
    for route in held:
        route.continue_()
    until(page, "twostream.gallery.items.length && twostream.gallery.isReady")
    page.keyboard.press("Shift+T")
    until(page, "twostream.gallery.page === 2 || !document.getElementById('view-end').hidden")
    assert len(answers(served)) > len(on_page)
