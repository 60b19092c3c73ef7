"""The page in real browsers: several people at once, their disagreements, the orders of the queue, and its end."""

from __future__ import annotations

import sqlite3
import sys
from itertools import pairwise
from subprocess import run

import pytest
from served import BUDGET, answers, decide, go_to_gallery, needs_browser, set_proofreading, shown, until

from twostream.project.records import Answer

pytestmark = needs_browser
NAMES = ("--annotator", "ann", "--annotator", "bob")
HELD = "twostream.queue.items.filter((item) => !item.mine).map((item) => item.query.id)"


def open_(page):
    """Queries that the page holds and that are not decided."""
    return page.evaluate(HELD)


def decide_all(page):
    """Decide about everything that a person gets; the queries."""
    decided = []
    while page.evaluate("document.getElementById('view-end').hidden"):
        query = shown(page)
        page.keyboard.press("n" if query % 3 == 0 else "t")
        until(page, f"twostream.queue.current?.query.id !== {query}")
        until(
            page, "!document.getElementById('view-end').hidden || twostream.focus.onScreen === twostream.queue.current"
        )
        decided.append(query)
    return decided


def end_text(page, part):
    until(page, f"document.getElementById('view-end').innerText.includes({part!r})", 30)


def people_text(page):
    page.click("[data-action=people]")
    found = page.locator("#people").inner_text()
    page.keyboard.press("Escape")
    return found


def test_two_people_share_a_round(serve, open_page):
    served = serve(*NAMES)
    ann, bob = open_page(served, "ann"), open_page(served, "bob")
    assert open_(ann) and open_(bob)
    assert not set(open_(ann)) & set(open_(bob))
    first = [decide(ann, "t"), decide(ann, "n")]
    assert not set(open_(ann)) & set(open_(bob))
    held = open_(ann)
    of_bob = decide_all(bob)
    assert not set(of_bob) & {*first, *held}
    end_text(bob, "Nothing is left for you")
    end_text(bob, f"{BUDGET - len(of_bob) - 2} queries of this round are with other people")

    ann.close()  # without signing out: what ann held comes back when the leases have run out
    with sqlite3.connect(served.root / "ledger.sqlite") as ledger:
        assert ledger.execute("UPDATE lease SET until = 1 WHERE annotator = 'ann'").rowcount > 0
    until(bob, "document.getElementById('view-end').hidden", 30)
    rest = decide_all(bob)
    assert sorted(first + of_bob + rest) == sorted(answers(served)), "every query once"
    assert len(answers(served)) == BUDGET
    end_text(bob, "All queries of this round are answered")
    assert bob.locator("[data-action=run]").count() == 0, "the operator did not allow it"
    until(bob, "twostream.progress.values.people.length === 2 && twostream.progress.values.left.open === 0")
    rows = [line.split("\t") for line in people_text(bob).splitlines()]
    assert {row[0]: row[1] for row in rows if row[0] in ("ann", "bob", "all") and len(row) > 1} == {
        "ann": "2",
        "bob": str(BUDGET - 2),
        "all": str(BUDGET),
    }
    recorded = served.project.ledger.answers_after(0)
    assert {a.annotator for a in recorded if a.query in first} == {"ann"}


def test_signing_out_gives_the_queries_back(serve, open_page):
    served = serve(*NAMES)
    ann = open_page(served, "ann")
    held = open_(ann)
    ann.click("[data-action=people]")
    ann.click("[data-action=sign-out]")
    ann.wait_for_selector("button[type=submit]")
    bob = open_page(served, "bob")
    assert open_(bob) == held


def test_disagreements_are_settled_by_one_key(serve, open_page, queue_project):
    set_proofreading(queue_project, double_share=1.0)
    served = serve(*NAMES)
    ann, bob = open_page(served, "ann"), open_page(served, "bob")
    of_ann = [decide(ann, key) for key in "ttnnt"]
    of_bob = {}
    while not set(of_ann) <= set(of_bob):
        query = shown(bob)
        of_bob[query] = {of_ann[0]: "t", of_ann[1]: "n", of_ann[2]: "n", of_ann[3]: "t"}.get(query, "t")
        decide(bob, of_bob[query])
    disputed = [of_ann[1], of_ann[3]]
    until(ann, "document.getElementById('num-disagreements').textContent === '2'")
    until(ann, "twostream.progress.values.agreements[0]?.num_common === 5")
    kappa = ann.evaluate("twostream.progress.values.agreements[0].kappa")
    assert kappa == pytest.approx((3 / 5 - 13 / 25) / (1 - 13 / 25))
    assert f"ann and bob: Cohen's kappa {kappa:.2f} (3 of 5 alike)" in people_text(ann)

    rows = "document.querySelectorAll('.dispute').length"
    ann.keyboard.press("j")
    until(ann, f"{rows} === 2")
    row = ann.locator(".dispute").first.inner_text()
    assert "ann" in row and "bob" in row and "true" in row and "nothing there" in row
    current = ann.evaluate("twostream.settle.current.id")
    ann.keyboard.press("t")
    until(ann, f"{rows} === 1")
    settled = [a for a in served.project.ledger.current_answers() if a.adjudicates]
    assert [(a.query, a.kind, a.annotator) for a in settled] == [(current, "true", "ann")]
    ann.keyboard.press("z")
    until(ann, f"{rows} === 2")
    assert not any(a.adjudicates for a in served.project.ledger.current_answers())
    ann.keyboard.press("Shift+Z")
    until(ann, f"{rows} === 1")

    ann.click(".dispute [data-action=open]")
    query = shown(ann)
    assert query in disputed and query != current
    assert "to be settled" in ann.locator("#candidate").inner_text()
    ann.keyboard.press("n")
    ann.wait_for_selector("#view-settle:visible")
    until(ann, f"{rows} === 0")
    settled = {a.query: a.kind for a in served.project.ledger.current_answers() if a.adjudicates}
    assert settled == {current: "true", query: "nothing"}
    until(ann, "document.getElementById('num-disagreements').textContent === ''")
    ann.keyboard.press("f")
    assert shown(ann) not in of_ann, "the queue goes on where it was left"


def test_orders_of_the_queue(serve, open_page):
    page = open_page(serve())
    found = {}
    for order in ("score", "uncertainty", "shuffled", "cluster"):
        shown(page)
        page.select_option("#order", order)
        until(page, f"twostream.queue.order === {order!r} && localStorage.getItem('twostream/order') === {order!r}")
        shown(page)
        found[order] = page.evaluate(
            "twostream.queue.items.map(({ query }) => [query.id, query.score, query.group + '/' + query.cluster])"
        )
    scores = [score for _, score, _ in found["score"]]
    assert scores == sorted(scores, reverse=True)
    doubts = [abs(score - 0.5) for _, score, _ in found["uncertainty"]]  # no scorer has learned anything yet
    assert doubts == sorted(doubts)
    names = [name for _, _, name in found["cluster"]]
    assert sum(a != b for a, b in pairwise(names)) == len(set(names)) - 1, "alike ones together"
    ids = {order: [row[0] for row in rows] for order, rows in found.items()}
    assert ids["shuffled"] not in (ids["score"], ids["uncertainty"], ids["cluster"])
    query = decide(page, "t")
    page.select_option("#order", "shuffled")
    until(page, "twostream.queue.order === 'shuffled' && localStorage.getItem('twostream/order') === 'shuffled'")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    shown(page)
    assert page.evaluate("document.getElementById('order').value") == "shuffled"
    assert open_(page)[:3] == [i for i in ids["shuffled"] if i != query][:3], "the same for a person at every time"


def test_the_page_starts_the_next_round_and_goes_on(serve, open_page):
    served = serve("--allow-run")
    page = open_page(served)
    page.keyboard.press("n")
    until(page, "twostream.queue.items.some((item) => item.mine)")
    go_to_gallery(page)
    while page.evaluate("document.getElementById('view-end').hidden"):
        number = page.evaluate("twostream.gallery.page")
        page.keyboard.press("Shift+T")
        until(page, f"twostream.gallery.page !== {number} || !document.getElementById('view-end').hidden")
        until(page, "twostream.gallery.isReady || !document.getElementById('view-end').hidden")
    assert len(answers(served)) == BUDGET
    end_text(page, "All queries of this round are answered")
    page.click("[data-action=run]")
    end_text(page, "The next round is being computed")
    until(page, "document.getElementById('view-end').hidden", 240)
    page.wait_for_selector("#view-gallery:visible")
    assert page.evaluate("twostream.queue.round") == 1
    rounds = page.evaluate("twostream.queue.items.map((item) => item.query.round)")
    assert rounds and set(rounds) == {1}
    assert all(query.round == 1 for query in served.project.ledger.open_queries())


def test_what_others_answered_meanwhile_is_left_out_of_the_rest_of_a_page(serve, open_page):
    served = serve(*NAMES)
    page = open_page(served, "ann")
    shown(page)
    go_to_gallery(page)
    first = page.evaluate("twostream.gallery.items.map((item) => item.query.id)")
    ledger = served.project.ledger
    ledger.tell_all([Answer(i, "nothing", "bob") for i in first[:2]] + [Answer(first[2], "nothing", "ann")])
    ledger.leases.give_back("ann", first[:3])
    page.keyboard.press("Shift+T")
    until(page, f"!twostream.gallery.items.some((item) => {first[:3]}.includes(item.query.id))")
    assert {a.annotator for a in ledger.current_answers(first[0])} == {"bob"}
    assert len(ledger.current_answers()) == 3, "nothing was decided about a page that had changed"
    assert str(ledger.current_answers(first[2])[0].kind) == "nothing"
    until(page, "twostream.gallery.isReady")
    page.keyboard.press("Shift+T")
    until(page, "twostream.queue.items.filter((item) => item.mine).length > 3")
    until(page, "!twostream.outbox.unsent().length")
    assert [str(a.kind) for a in ledger.current_answers(first[2])] == ["nothing"]


def test_who_slept_does_not_answer_what_others_have_answered(serve, open_page):
    served = serve(*NAMES)
    page = open_page(served, "ann")
    query = shown(page)
    ledger = served.project.ledger
    ledger.tell(Answer(query, "nothing", "bob"))
    with sqlite3.connect(served.root / "ledger.sqlite") as database:
        database.execute("UPDATE lease SET until = 1 WHERE annotator = 'ann'")
    page.evaluate("Object.defineProperty(twostream.queue, 'isStale', { get: () => true, configurable: true })")
    page.keyboard.press("t")
    until(page, f"twostream.focus.onScreen && twostream.focus.onScreen.query.id !== {query}")
    assert [a.annotator for a in ledger.current_answers()] == ["bob"]
    page.evaluate("delete twostream.queue.isStale")
    other = decide(page, "t")
    assert answers(served) == {query: "nothing", other: "true"}


def test_a_link_of_somebody_else_asks_who_is_meant(serve, open_page):
    served = serve(*NAMES)
    page = open_page(served, "ann")
    shown(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(served.links["bob"])
    page.wait_for_selector("#sign-in")
    until(page, "document.querySelector('[name=name]').value === 'bob' && !location.hash")
    page.click("button[type=submit]")
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("#person") == "bob"


def test_a_round_that_is_opened_elsewhere_is_shown(serve, open_page):
    served = serve()
    page = open_page(served)
    shown(page)
    ledger = served.project.ledger
    ledger.tell_all([Answer(q.id, "true", "bob") for q in ledger.open_queries()])
    ledger.close()
    run([sys.executable, "-m", "twostream", "run", str(served.root), "--rounds", "2"], check=True, capture_output=True)
    until(page, "twostream.queue.round === 1 && twostream.focus.onScreen?.query.round === 1", 60)
    assert shown(page) > BUDGET
