/** The page: makes its parts, moves between its views, and says what its actions do. */

import { registerActions } from "./actions.js";
import { Api, Refused } from "./api.js";
import { Clock } from "./clock.js";
import { Correction } from "./correction.js";
import { DecisionBar } from "./decision_bar.js";
import { Desk } from "./desk.js";
import { byId, say } from "./dom.js";
import { Focus } from "./focus.js";
import { Gallery } from "./gallery.js";
import { Keys } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Pictures } from "./pictures.js";
import { Progress } from "./progress.js";
import { Queue } from "./queue.js";
import { Settle } from "./settle.js";
import { restoreTheme } from "./theme.js";

/** @typedef {"focus" | "gallery" | "settle" | "end"} ViewName */
/** @typedef {import("./actions.js").Said} Said */

restoreTheme();
const csrf = document.querySelector("meta[name=csrf]")?.getAttribute("content") ?? "";
const api = new Api(csrf);
/** @type {import("./api.js").ProjectValues} */
const project = await api.get("project");

/** A link that names somebody else asks who is meant; its token does not stay in the address bar. */
async function readLink() {
  const link = location.hash;
  history.replaceState(null, "", location.pathname + location.search);
  const name = new URLSearchParams(link.slice(1)).get("name");
  if (!project.is_named || !name || name === project.annotator) return;
  if (!confirm(`You are signed in as ${project.annotator}. Sign in as ${name} instead?`)) return;
  await api.post("sign-out");
  window.removeEventListener("hashchange", readLink);
  location.hash = link;
  location.reload();
}
window.addEventListener("hashchange", readLink);
await readLink();

/** @type {ViewName} */
let view = "focus";
/** Whether the candidate was opened from its card, so that a decision leads back to the gallery. */
let isFromGallery = false;
/** Milliseconds from each deciding key to the next candidate on the screen; the benchmark reads them. @type {number[]} */
const timings = [];

const keys = new Keys();
const bar = new DecisionBar(project.decisions, keys);
const clock = new Clock(project.idle_seconds);
const queue = new Queue(api, project.lease_seconds, () => {
  correction.leave();
  isFromGallery = false;
  say(`Round ${queue.round} is open now.`);
  void draw();
});
// A correction can take long: while somebody works, what they hold is held for longer.
window.setInterval(() => {
  if (clock.idleMs < queue.renewMs && queue.open.length) void queue.renew().catch(() => {});
}, queue.renewMs);
const outbox = new Outbox(api, `${project.id}/${project.annotator}`, {
  onChange: ({ unsent, isReachable, problem }) => {
    const place = byId("unsent");
    place.hidden = !unsent && isReachable && !problem;
    place.textContent = unsent ? `${unsent} unsent, kept in this browser${problem ? ` (${problem})` : ""}` : problem || "the server does not answer";
  },
  onRefused: (entry, why) => {
    const query = "query" in entry ? entry.query : null;
    if (query) {
      queue.mark(query, null);
      // An answer that was given elsewhere may stand.
      void api.get(`queries/${query}`).then(({ mine }) => queue.mark(query, mine), () => {});
    }
    say(why, true);
  },
});
const pictures = new Pictures(api, () => outbox.decisions());
const focus = new Focus({ project, queue, pictures, onProblem: (text) => say(text, true) });
const desk = new Desk({ api, queue, outbox, clock });
const gallery = new Gallery({
  queue,
  decide: (items, said) => desk.decide(items, said),
  record: (items, said) => desk.record(items, said),
  open: (item) => {
    queue.index = queue.items.indexOf(item);
    void openCard();
  },
});
const settle = new Settle(api);
const correction = new Correction({
  project,
  api,
  focus,
  desk,
  onMode: () => {
    showDecisions();
    attend();
  },
  onDone: (isRevised) => void goOn(performance.now(), isRevised),
});
const progress = new Progress((values) => {
  if (outbox.unsent().length) void outbox.flush();
  if (view === "focus") focus.retry();
  const isOther = values.step === "answer" && queue.round !== null && values.round !== queue.round;
  if (isOther && (view === "focus" || view === "gallery")) return void queue.renew().then(() => draw(), () => {});
  const isComputed = values.step !== "answer" || values.run.state === "running";
  if (isComputed && !queue.items.length && (view === "focus" || view === "gallery")) return void go("end");
  if (view !== "end") return;
  progress.drawEnd();
  if (values.step === "answer" && (values.round !== queue.round || values.left.mine > 0)) void refill();
});

/** What the person works in when there are queries. @returns {ViewName} */
const preferred = () => (localStorage.getItem("twostream/view") === "gallery" ? "gallery" : "focus");

/** Begin the queue anew, with what was decided and not sent yet. @param {string} [order] */
async function restart(order) {
  await outbox.flush();
  await queue.restart(order);
  for (const { query, kind, reason = "" } of outbox.decisions()) if (query) queue.mark(query, { kind, reason });
}

async function refill() {
  await restart().catch(() => {});
  if (view === "end" && queue.open.length) await go(preferred());
}

/** Time belongs to the candidate that is shown large, or to the view. */
function attend() {
  clock.attend(correction.mode === "missed" ? "missed" : view === "focus" ? (queue.current?.query.id ?? null) : view === "end" ? null : view);
}

/** Show the current view again. */
async function draw() {
  clock.attend(null);
  if (view === "focus" && !queue.current) view = "end";
  for (const name of ["focus", "gallery", "settle", "end"]) byId(`view-${name}`).hidden = view !== name;
  for (const button of document.querySelectorAll("nav button")) {
    button.setAttribute("aria-pressed", String(button.getAttribute("data-action") === view));
  }
  showDecisions();
  if (view === "focus") await focus.show();
  if (view === "gallery") gallery.draw();
  if (view === "settle") settle.draw();
  if (view === "end") progress.drawEnd();
  attend();
}

/** @param {ViewName} name */
async function go(name) {
  correction.leave();
  isFromGallery = false;
  if (view === "gallery") await gallery.flush();
  if (name === "focus" && view === "gallery" && queue.items.length) queue.index = Math.min(queue.items.length - 1, gallery.page * gallery.size + gallery.cursor);
  view = name;
  if (name === "gallery" || name === "focus") localStorage.setItem("twostream/view", name);
  for (const section of ["focus", "gallery", "settle", "end"]) byId(`view-${section}`).hidden = view !== section;
  if (name === "gallery") {
    await desk.fill(gallery.size);
    gallery.goToCurrent();
  }
  if (name === "settle") await loadDisputes();
  await draw();
}

/** @param {Said} said */
async function decide(said) {
  const start = performance.now();
  if (view === "gallery") return gallery.decideCurrent(said).then(atEnd);
  if (view === "settle") return decideDispute(said);
  const item = queue.current;
  if (!item || view !== "focus") return;
  const { asks } = item.query;
  if (!bar.fits(said, asks)) return say(`This is a ${asks}, of which that cannot be said. This key did not count.`, true);
  if (focus.onScreen !== item) return say("Too fast: the candidate is not on the screen yet. This key did not count.", true);
  if (await isTaken()) return;
  if (asks === "window" && correction.mode !== "off") return say("Keep the object that you add, or cancel it, before you decide about the window.", true);
  if (said.kind === "none_missed" && !focus.isAllSeen()) return;
  correction.leave();
  const isRevised = item.mine !== null;
  if (!(await desk.decide([item], said))) return;
  await goOn(start, isRevised);
}

/** Whether somebody else has what is on the screen, because its lease has run out; the page then goes on. */
async function isTaken() {
  const { current } = queue;
  if (!queue.isStale || !current || current.mine || current.adjudicates) return false;
  await queue.renew().catch(() => {});
  if (!current.isGone && queue.current === current) return false;
  if (queue.current === current) {
    queue.items = queue.items.filter((item) => item !== current);
    queue.index = Math.min(queue.index, queue.items.length);
    say("You were away, and somebody else has this candidate now. Your key did not count.", true);
    await draw();
  }
  return true;
}

/** @param {Said} said */
async function decideDispute(said) {
  const { current } = settle;
  if (!current) return;
  const item = { query: current, mine: null, adjudicates: true };
  if (!(await desk.decide([item], said))) return;
  settle.forget(current); // a key that follows at once means the next one
  await loadDisputes();
}

const loadDisputes = () => settle.load().catch((error) => say(error.message, true));

/**
 * On to the next candidate: the next without a decision or, where an earlier decision was changed, the one that follows.
 * @param {number} start when the deciding key was pressed @param {boolean} [isRevised]
 */
async function goOn(start, isRevised = false) {
  if (queue.current?.adjudicates) {
    queue.current.adjudicates = false;
    queue.next();
    return go("settle");
  }
  if (isFromGallery) {
    queue.step(1);
    return go("gallery").then(atEnd);
  }
  if (isRevised && queue.index + 1 < queue.items.length) queue.step(1);
  else queue.next();
  if (!queue.current) await desk.fill();
  if (!queue.current) queue.next();
  await draw();
  if (queue.current) {
    requestAnimationFrame(() => timings.push(performance.now() - start));
    void desk.fill();
  }
}

/** @param {number} step */
async function step(step) {
  if (view === "gallery") return gallery.move(step);
  if (view === "settle") return settle.move(step);
  correction.leave();
  if (view === "end") view = "focus";
  queue.step(step);
  if (queue.index >= queue.items.length) await desk.fill();
  await draw();
}

function showDecisions() {
  const shown = view === "focus" ? queue.current : null;
  bar.draw({ asks: shown?.query.asks ?? "candidate", mine: shown?.mine ?? null, isHidden: view === "end", isOff: correction.mode === "mask" });
}


// -- what actions do ----------------------------------------------------------------------------------------------------

/** @param {number} direction */
function vertical(direction) {
  if (view === "gallery") return gallery.move(direction * gallery.columns);
  if (view === "settle") return settle.move(direction);
  focus.viewer.scroll(direction);
}

/** @param {"undo" | "redo"} which */
async function travel(which) {
  await gallery.flush(); // what was clicked last is a decision, too
  await desk.travel(which);
  if (view === "end" && queue.current) view = "focus";
  if (view === "settle") await loadDisputes();
  if (view === "gallery") gallery.goToCurrent();
  await draw();
}

async function atEnd() {
  if (queue.open.length) return;
  await desk.fill(gallery.size);
  if (!queue.open.length) await go("end");
  else gallery.draw();
}

async function openCard() {
  await go("focus");
  isFromGallery = true;
}

async function openDispute() {
  const { current } = settle;
  if (!current) return;
  await queue.goTo(current.id, true);
  await go("focus");
}

function toggleWhy() {
  const isShown = byId("why").hidden;
  byId("why").hidden = !isShown;
  byId("cards").classList.toggle("with-why", isShown);
  for (const button of document.querySelectorAll("[data-action=why]")) button.setAttribute("aria-pressed", String(isShown));
}

function openNeuroglancer() {
  const { neuroglancer: link = null, asks = "candidate" } = queue.current?.query ?? {};
  if (link) window.open(link, "_blank", "noopener");
  else if (asks === "window") say("Windows have no link to Neuroglancer.", true);
  else say("This server makes no Neuroglancer links (--neuroglancer).", true);
}

async function startRound() {
  try {
    await api.post("run");
  } catch (error) {
    say(error instanceof Error ? error.message : String(error), true);
  }
}

async function signOut() {
  await gallery.flush();
  if (outbox.state.unsent) return say(`${outbox.state.unsent} decisions are unsent; they are sent when the server answers.`, true);
  await api.post("sign-out").catch((error) => {
    if (!(error instanceof Refused)) throw error;
  });
  location.reload();
}

registerActions(keys, {
  project,
  correction,
  focus,
  gallery,
  progress,
  view: () => view,
  decide,
  travel,
  step,
  vertical,
  go,
  atEnd,
  openCard,
  openDispute,
  toggleWhy,
  openNeuroglancer,
  startRound,
  signOut,
  drawKeys: () => bar.drawKeys(),
});

// -- buttons ----------------------------------------------------------------------------------------------------------

bar.drawKeys();
document.addEventListener("click", (event) => {
  const button = /** @type {HTMLElement} */ (event.target).closest("[data-action]");
  const name = button?.getAttribute("data-action");
  if (!name) return;
  void keys.run(name);
  // The next key is meant for the page, not for the button that was clicked.
  if (button instanceof HTMLElement && !button.closest("dialog")) button.blur();
});
const order = /** @type {HTMLSelectElement} */ (byId("order"));
order.value = queue.order;
order.addEventListener("change", async () => {
  correction.leave();
  await gallery.flush();
  await restart(order.value).catch((error) => say(error.message, true));
  order.value = queue.order;
  gallery.page = 0;
  gallery.cursor = 0;
  if (view === "end") view = "focus";
  await draw();
});
// After a choice by mouse, the next key is meant for the page.
for (const select of document.querySelectorAll("select")) select.addEventListener("change", () => select.blur());
for (const range of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("input[type=range]"))) range.addEventListener("pointerup", () => range.blur());
byId("person").textContent = project.annotator;
window.addEventListener("resize", () => view === "gallery" && gallery.draw());

try {
  await restart();
} catch (error) {
  say(error instanceof Error ? error.message : String(error), true);
}
await go(queue.open.length ? preferred() : "end");
Object.assign(window, { twostream: { project, queue, outbox, focus, gallery, settle, correction, keys, progress, timings, clock } });
document.body.dataset.ready = "true";
