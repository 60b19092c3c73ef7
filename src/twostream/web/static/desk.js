/**
 * Decisions: from a key to the ledger and on to the next candidate; undo and redo.
 *
 * Knows queue, outbox and clock; must not know how anything is drawn: views are told what has changed.
 */

import { newKey, Refused, Unreachable } from "./api.js";
import { say } from "./dom.js";
import { answerText } from "./styles.js";

/** @typedef {import("./queue.js").Item} Item */
/** @typedef {import("./outbox.js").Decision} Decision */

const AHEAD = 6; // the queue asks for twice as many

export class Desk {
  /** What is being recorded. @type {Promise<unknown> | null} */
  #work = null;
  /** What stood before a decision, by its key: shown again if it is undone before it was sent. @type {Map<string, Item["mine"]>} */
  #before = new Map();

  /**
   * @param {{api: import("./api.js").Api, queue: import("./queue.js").Queue, outbox: import("./outbox.js").Outbox,
   *          clock: import("./clock.js").Clock}} parts
   */
  constructor({ api, queue, outbox, clock }) {
    this.api = api;
    this.queue = queue;
    this.outbox = outbox;
    this.clock = clock;
  }

  /**
   * Decide about some items at once. The page goes on when the decisions are in the ledger, or wait in the browser
   * because the server is gone.
   * @param {Item[]} items
   * @param {{kind: string, reason?: string, drawing?: unknown}} said
   * @param {{extra?: Partial<Decision>[]}} [further] decisions that belong to the same gesture, such as pieces cut off
   * @returns {Promise<boolean>} false if nothing was decided, because the decision before is still on its way
   */
  async decide(items, said, further = {}) {
    if (!items.length) return false;
    if (this.#work) {
      say("Too fast: the decision before is still being recorded. This key did not count.", true);
      return false;
    }
    return this.#alone(this.record(items, said, further));
  }

  /** @template T @param {Promise<T>} work @returns {Promise<T>} */
  async #alone(work) {
    this.#work = work;
    try {
      return await work;
    } finally {
      this.#work = null;
    }
  }

  /**
   * Record a decision whatever else is on its way. It is kept in the browser when this returns.
   * @param {Item[]} items
   * @param {{kind: string, reason?: string, drawing?: unknown}} said
   * @param {{extra?: Partial<Decision>[]}} [further]
   */
  async record(items, said, { extra = [] } = {}) {
    const key = newKey();
    const seconds = this.clock.spend(items.map(({ query }) => query.id));
    const rows = [
      ...items.map(({ query, adjudicates, mine }, i) => ({ query: query.id, adjudicates, is_first: !mine && !adjudicates, seconds: seconds[i], ...said })),
      ...extra.map((row) => ({ query: null, kind: "missed", ...row })),
    ];
    const before = items.map((item) => item.mine);
    items.forEach((item, i) => this.#before.set(`${key}/${i}`, before[i]));
    for (const item of items) item.mine = { kind: said.kind, reason: said.reason ?? "" };
    try {
      await this.outbox.submit(rows.map((row, i) => ({ key: `${key}/${i}`, ...row })));
    } catch (error) {
      items.forEach((item, i) => (item.mine = before[i]));
      say(`The decision cannot be kept in this browser (${error instanceof Error ? error.message : error}).`, true);
      return false;
    }
    return true;
  }

  /** Record an object that was missed. @param {unknown} drawing @param {number | null} window in which it was marked */
  async addMissed(drawing, window) {
    const [seconds] = this.clock.spend(["missed"]);
    await this.outbox.submit([{ key: `${newKey()}/0`, query: null, kind: "missed", drawing, seconds, window }]);
  }

  /** Hold enough queries; a server that is gone is asked again with the next decision. @param {number} [number] */
  async fill(number = AHEAD) {
    try {
      await this.queue.more(number);
    } catch (error) {
      if (!(error instanceof Unreachable)) say(error instanceof Error ? error.message : String(error), true);
    }
  }

  /** Undo or redo, after what is being recorded. @param {"undo" | "redo"} which */
  async travel(which) {
    while (this.#work) {
      await this.#work.catch(() => {});
      await new Promise((done) => setTimeout(done)); // the page goes on first, and then back
    }
    try {
      await this.#alone(this.#travel(which));
    } catch (error) {
      const { message } = /** @type {Error} */ (error);
      const text = error instanceof Unreachable ? `Not undone: ${message || "the server does not answer"}.` : message;
      say(text, !(error instanceof Refused));
    }
  }

  /** @param {"undo" | "redo"} which */
  async #travel(which) {
    if (this.outbox.unsent().length) return this.#takeBack(which);
    const { answers } = await this.api.post(which, { key: newKey() });
    for (const { query, kind, reason } of answers) {
      if (query) this.queue.mark(query, which === "undo" ? null : { kind, reason });
    }
    // An object that was marked in a window is seen where it was marked.
    const queries = answers.flatMap((/** @type {any} */ a) => a.query ?? a.window ?? []);
    const isMark = answers.every((/** @type {any} */ a) => !a.query);
    if ((which === "undo" || isMark) && queries.length) {
      const item = await this.queue.goTo(queries[0]);
      // An undone change leaves the answer that stood before it.
      item.mine = (await this.api.get(`queries/${queries[0]}`)).mine;
    } else if (which === "redo") this.queue.next();
    const { kind, reason } = answers[0] ?? { kind: "", reason: "" };
    if (kind) say(`${which === "undo" ? "Undone" : "Done again"}: ${answerText(kind, reason)}${answers.length > 1 ? ` (${answers.length} at once)` : ""}`);
  }

  /** Undo a decision that waits for the server. @param {"undo" | "redo"} which */
  async #takeBack(which) {
    const taken = which === "undo" ? this.outbox.takeBack(newKey()) : [];
    if (!taken.length) throw new Unreachable();
    for (const { key, query } of taken) if (query) this.queue.mark(query, this.#before.get(key) ?? null);
    const [first] = taken.flatMap(({ query, window }) => query ?? window ?? []);
    if (first) await this.queue.goTo(first);
  }
}
