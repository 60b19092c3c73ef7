/**
 * The gallery: a page of cards, raw above overlay. A click or a key decides; what is left of the page can be True at once.
 * Of a window the card shows one section, so that nothing is decided about it here: a click opens it.
 */

import { byId, cardOf, element, say } from "./dom.js";
import { answerText } from "./styles.js";

/** @typedef {import("./queue.js").Item} Item */

/** What a further click on a card makes of its answer; the first click marks it as wrong. */
const AFTER = /** @type {Record<string, string>} */ ({ nothing: "unsure", shape: "unsure", unsure: "true" });
const SETTLE_MS = 700;
const OVERLAYS = ["fill", "outline", "off"];
const CARD_PX = { width: 190, height: 395 };
const TOO_FAST = "Too fast: the page is not on the screen yet. This key did not count.";

/** @param {Item} item */
const isWindow = (item) => item.query.asks === "window";

export class Gallery {
  page = 0;
  cursor = 0;
  #isTurning = false;
  #sizeDrawn = 0;
  /** @type {Map<number, {item: Item, said: {kind: string, reason: string}, timer: number}>} */
  #pending = new Map();

  /**
   * @param {{queue: import("./queue.js").Queue, decide: (items: Item[], said: {kind: string, reason: string}) => Promise<boolean>,
   *          record: (items: Item[], said: {kind: string, reason: string}) => Promise<boolean>, open: (item: Item) => void}} parts
   */
  constructor({ queue, decide, record, open }) {
    this.queue = queue;
    this.decide = decide;
    this.record = record;
    this.open = open;
    this.place = byId("cards");
    window.addEventListener("pagehide", () => void this.flush());
  }

  /** Cards of a page: whole rows, two at least. */
  get size() {
    const { clientWidth, clientHeight } = byId("view-gallery");
    const [columns, rows] = [Math.floor((clientWidth - 16) / CARD_PX.width), Math.floor((clientHeight - 70) / CARD_PX.height)];
    return Math.max(1, columns) * Math.max(2, rows);
  }

  /** @returns {Item[]} */
  get items() {
    return this.queue.items.slice(this.page * this.size, (this.page + 1) * this.size);
  }

  /** Candidates of this page without a decision. */
  get open_() {
    return this.items.filter((item) => !item.mine && !isWindow(item) && !this.#pending.has(item.query.id));
  }

  /** Whether the page and its pictures are on the screen. */
  get isReady() {
    return this.#isOnScreen(this.items);
  }

  /** Whether items can be seen: the page is not being turned, and their pictures are there. @param {Item[]} items */
  #isOnScreen(items) {
    const images = items.map(({ query }) => [...this.place.querySelectorAll(`[data-query="${query.id}"] img`)]);
    const isLoaded = (/** @type {Element} */ image) => image instanceof HTMLImageElement && image.complete && image.naturalWidth > 0;
    return !this.#isTurning && images.every((both) => both.length > 0 && both.every(isLoaded));
  }

  /** Show the page that holds the current item. */
  goToCurrent() {
    this.page = Math.floor(Math.min(this.queue.index, Math.max(0, this.queue.items.length - 1)) / this.size);
    this.cursor = this.queue.index - this.page * this.size;
  }

  /** Masks on the cards: filled faintly, outlined, or not at all. */
  cycleOverlay() {
    const next = OVERLAYS[(OVERLAYS.indexOf(this.place.dataset.mask ?? OVERLAYS[0]) + 1) % OVERLAYS.length];
    this.place.dataset.mask = next;
  }

  draw() {
    const { size } = this;
    if (this.#sizeDrawn && this.#sizeDrawn !== size) {
      const framed = this.page * this.#sizeDrawn + this.cursor;
      this.page = Math.floor(framed / size);
      this.cursor = framed % size;
    }
    this.#sizeDrawn = size;
    const { items } = this;
    this.cursor = Math.min(Math.max(0, this.cursor), Math.max(0, items.length - 1));
    this.place.replaceChildren(...items.map((item, i) => this.#slot(item, i)));
    const { items: all, open, left, isAtEnd } = this.queue;
    const total = isAtEnd ? all.length : Math.max(all.length, all.length - open.length + (left?.mine ?? 0));
    byId("page-name").textContent = `page ${this.page + 1} of ${Math.max(1, Math.ceil(total / size))}`;
  }

  /** @param {Item} item @param {number} i */
  #slot(item, i) {
    const said = this.#pending.get(item.query.id)?.said ?? item.mine;
    const card = cardOf(item.query.card);
    card.className = `card kind-${said?.kind ?? "open"}${said ? "" : " open"}`;
    card.removeAttribute("title");
    const words = card.querySelector(".answer");
    if (words) words.textContent = answerText(said?.kind ?? "open", said?.reason);
    const slot = element("button", { class: "slot", "data-query": String(item.query.id) }, card);
    slot.setAttribute("aria-label", `${item.query.name}: ${answerText(said?.kind ?? "open", said?.reason)}`);
    if (i === this.cursor) slot.setAttribute("aria-current", "true");
    slot.addEventListener("click", () => this.#click(item, i));
    slot.addEventListener("dblclick", () => {
      this.#forget(item.query.id); // its two clicks meant no answer
      this.open(item);
    });
    return slot;
  }

  /** @param {Item} item @param {number} i */
  #click(item, i) {
    this.cursor = i;
    if (isWindow(item)) return this.open(item);
    const now = this.#pending.get(item.query.id)?.said ?? item.mine;
    const [kind, reason] = /** @type {HTMLSelectElement} */ (byId("click-means")).value.split("/");
    const next = now && AFTER[now.kind] ? { kind: AFTER[now.kind], reason: "" } : { kind, reason: reason ?? "" };
    clearTimeout(this.#pending.get(item.query.id)?.timer);
    // Clicks that follow each other are one decision: it is recorded when the card was left alone for a moment.
    const timer = window.setTimeout(() => void this.#settle(item.query.id), SETTLE_MS);
    this.#pending.set(item.query.id, { item, said: next, timer });
    this.draw();
  }

  /** @param {number} id */
  async #settle(id) {
    const entry = this.#pending.get(id);
    if (!entry) return;
    this.#forget(id);
    await this.record([entry.item], entry.said);
    this.draw();
  }

  /** @param {number} id */
  #forget(id) {
    clearTimeout(this.#pending.get(id)?.timer);
    this.#pending.delete(id);
  }

  /** Record what was clicked, now. It is kept in the browser when this returns, and sent when it is resolved. */
  async flush() {
    await Promise.all([...this.#pending.keys()].map((id) => this.#settle(id)));
  }

  /** Decide about the card under the cursor, and go on to the next one. @param {{kind: string, reason: string}} said */
  async decideCurrent(said) {
    const item = this.items[this.cursor];
    if (!this.#isOnScreen(item ? [item] : [])) return say(TOO_FAST, true);
    if (!item) return;
    if (isWindow(item)) return say("A window is decided where all of it is seen: Enter shows it. This key did not count.", true);
    this.#forget(item.query.id);
    if (await this.decide([item], said)) await this.move(1);
    this.draw();
  }

  async restIsTrue() {
    if (!this.#isOnScreen(this.open_)) return say(TOO_FAST, true);
    await this.flush();
    const seen = this.items;
    await this.queue.renew(false).catch(() => {}); // without a server they wait in the browser
    if (this.items.some((item, i) => item !== seen[i])) {
      this.draw();
      return say("Some of these candidates were answered elsewhere meanwhile and have left the page. Look at it again.", true);
    }
    const items = this.open_;
    if (items.length && !(await this.decide(items, { kind: "true", reason: "" }))) return;
    await this.turn(1);
  }

  /** @param {number} step cards */
  async move(step) {
    const next = this.cursor + step;
    if (next >= this.items.length && this.items.length === this.size) return this.turn(1);
    if (next < 0 && this.page > 0) {
      await this.turn(-1);
      this.cursor = this.size - 1;
    } else this.cursor = Math.min(Math.max(0, next), Math.max(0, this.items.length - 1));
    this.draw();
    this.place.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  /** Cards in a row. */
  get columns() {
    const slots = [.../** @type {NodeListOf<HTMLElement>} */ (this.place.querySelectorAll(".slot"))];
    const below = slots.findIndex((slot) => slot.offsetTop > (slots[0]?.offsetTop ?? 0));
    return below > 0 ? below : slots.length || 1;
  }

  /** @param {number} step pages */
  async turn(step) {
    if (this.#isTurning) return;
    this.#isTurning = true;
    try {
      await this.#turn(step);
    } finally {
      this.#isTurning = false;
    }
  }

  /** @param {number} step pages */
  async #turn(step) {
    await this.flush();
    const from = this.page;
    this.page = Math.max(0, this.page + step);
    // Enough open ones for this page and the next, beside those of earlier pages that were left open.
    const openBefore = this.queue.items.slice(0, this.page * this.size).filter((item) => !item.mine).length;
    await this.queue.more(openBefore + this.size).catch(() => {});
    if (!this.items.length) this.page = step > 0 ? from : Math.max(0, this.page);
    this.cursor = 0;
    this.queue.index = this.page * this.size;
    this.draw();
  }
}
