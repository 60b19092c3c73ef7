"""The page in a real browser: keys, undo, and what becomes of decisions when the server goes away."""

from __future__ import annotations

from served import BUDGET, needs_browser, until

pytestmark = needs_browser


def answers(served):
    """{query: kind} of the current answers in the ledger."""
    return {a.query: str(a.kind) for a in served.project.ledger.current_answers()}


def test_one_key_decides_and_the_next_candidate_shows(serve, open_page):
    served = serve()
    page = open_page(served)
    first = page.evaluate("twostream.queue.current.query.id")
    page.keyboard.press("t")
    until(page, f"twostream.queue.current.query.id !== {first}")
    assert answers(served) == {first: "true"}
    until(page, f"document.getElementById('progress').textContent.includes('1 of {BUDGET} answered')")
