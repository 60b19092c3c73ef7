/**
 * Decisions on their way to the server. Each is stored in the browser before it is sent and removed when the server has
 * acknowledged it, so that none is lost if the server, the network or the browser goes away. A decision has a key, by
 * which the server records it once however often it is sent.
 *
 * Knows storage and sending; must not know what a decision means.
 */

import { Refused, Unreachable } from "./api.js";

/** @typedef {{key: string, query: number | null, kind: string, reason?: string, seconds?: number, drawing?: unknown, adjudicates?: boolean, is_first?: boolean, split_of?: number | null, window?: number | null}} Decision */
/** An undo that waits for the server, because the decision before it may have arrived. @typedef {{undo: string, of: string}} Undo */
/** @typedef {{unsent: number, isReachable: boolean, problem: string}} OutboxState */

const BATCH = 50;
const RETRY_MS = [500, 1000, 2000, 4000];

export class Outbox {
  #isFlushing = false;
  #failures = 0;
  #timer = 0;
  #serial = 0;
  /** @type {OutboxState} */
  state = { unsent: 0, isReachable: true, problem: "" };

  /**
   * @param {import("./api.js").Api} api
   * @param {string} owner project and person, whose decisions are kept apart from those of others
   * @param {{onChange: (state: OutboxState) => void, onRefused: (entry: Decision | Undo, why: string) => void}} listeners
   */
  constructor(api, owner, listeners) {
    this.api = api;
    this.prefix = `twostream/outbox/${owner}/`;
    this.listeners = listeners;
    window.addEventListener("online", () => void this.flush());
    window.addEventListener("beforeunload", (event) => {
      if (this.#keys().length) event.preventDefault(); // they are kept, but the person may want to wait
    });
  }

  #keys() {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(this.prefix))
      .sort();
  }

  /** What the server has not acknowledged, oldest first. @returns {(Decision | Undo)[]} */
  unsent() {
    return this.#keys().flatMap((key) => read(key));
  }

  /** Decisions that wait and were not undone, oldest first. @returns {Decision[]} */
  decisions() {
    return this.#gestures().flat();
  }

  /** The same, those together that were made at once. @returns {Decision[][]} */
  #gestures() {
    /** @type {Decision[][]} */
    const done = [];
    for (const entry of this.unsent()) {
      const last = done.at(-1);
      if ("undo" in entry) done.pop();
      else if (last && gestureOf(last[0]) === gestureOf(entry)) last.push(entry);
      else done.push([entry]);
    }
    return done;
  }

  /**
   * Keep decisions and send them. They are kept when this returns, and sent, or known to wait, when it is resolved.
   * @param {Decision[]} decisions
   */
  async submit(decisions) {
    for (const decision of decisions) this.#keep(decision); // throws if the browser's store is full
    await this.flush();
  }

  /** @param {Decision | Undo} entry */
  #keep(entry) {
    const place = `${Date.now()}-${String(this.#serial++).padStart(6, "0")}-${"undo" in entry ? entry.undo : entry.key}`;
    localStorage.setItem(this.prefix + place, JSON.stringify(entry));
  }

  /**
   * Undo what was decided last and waits. The server may have recorded it although its acknowledgement was lost, so it
   * is not forgotten: an undo is sent after it.
   * @param {string} key of the undo
   * @returns {Decision[]} what was decided at once; empty if nothing waits that could be undone
   */
  takeBack(key) {
    const taken = this.#gestures().at(-1);
    if (!taken) return [];
    this.#keep({ undo: key, of: gestureOf(taken[0]) });
    this.#report(this.state.isReachable, this.state.problem);
    return taken;
  }

  /** Send what waits, oldest first. */
  async flush() {
    if (this.#isFlushing) await this.#current;
    if (!this.#isFlushing) {
      this.#isFlushing = true;
      this.#current = this.#send().finally(() => (this.#isFlushing = false));
    }
    await this.#current;
  }
  /** @type {Promise<void>} */
  #current = Promise.resolve();
  #batch = BATCH;

  async #send() {
    clearTimeout(this.#timer);
    try {
      for (let keys = this.#keys(); keys.length; keys = this.#keys()) {
        const [first] = read(keys[0]);
        if (first && "undo" in first) await this.#sendUndo(keys[0], first);
        else await this.#sendDecisions(keys);
      }
      this.#failures = 0;
      this.#batch = BATCH;
      this.#report(true, "");
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Send decisions up to the next undo. @param {string[]} keys */
  async #sendDecisions(keys) {
    /** @type {string[]} */
    const batch = [];
    /** @type {Decision[]} */
    const decisions = [];
    for (const key of keys.slice(0, this.#batch)) {
      const [entry] = read(key);
      if (!entry || "undo" in entry) break;
      batch.push(key);
      decisions.push(entry);
    }
    if (!batch.length) return localStorage.removeItem(keys[0]);
    const { results } = await this.api.post("decisions", { decisions });
    batch.forEach((key, i) => {
      localStorage.removeItem(key);
      if (results[i].refused) this.#refuse(decisions[i], results[i].refused);
    });
  }

  /** @param {string} place @param {Undo} entry */
  async #sendUndo(place, { undo, of }) {
    await this.api.post("undo", { key: undo, of });
    localStorage.removeItem(place);
  }

  /** @param {unknown} error */
  #fail(error) {
    const isGone = error instanceof Unreachable;
    const isSignedOut = error instanceof Refused && (error.status === 401 || error.status === 403);
    if (error instanceof Refused && !isSignedOut && error.status !== 408 && error.status < 500) {
      // Together they may only be too large; one by one it is seen which one cannot be read.
      const keys = this.#keys();
      const isAlone = this.#batch === 1 || keys.length === 1 || keys.slice(0, 1).some((key) => read(key).some((entry) => "undo" in entry));
      if (isAlone) this.#setAside(error.message);
      else this.#batch = 1;
    }
    this.#report(!isGone, error instanceof Error ? error.message : String(error));
    const wait = RETRY_MS[Math.min(this.#failures++, RETRY_MS.length - 1)];
    this.#timer = window.setTimeout(() => void this.flush(), wait);
  }

  /** One decision that cannot be read must not hold up the others. @param {string} why */
  #setAside(why) {
    const [first] = this.#keys();
    if (!first) return;
    const [entry] = read(first);
    localStorage.removeItem(first);
    if (entry) this.#refuse(entry, why);
  }

  /** What was refused stays in the browser's store, and the page says why. @param {Decision | Undo} entry @param {string} why */
  #refuse(entry, why) {
    const key = "undo" in entry ? entry.undo : entry.key;
    localStorage.setItem(this.prefix.replace("/outbox/", "/refused/") + key, JSON.stringify({ decision: entry, why }));
    this.listeners.onRefused(entry, why);
  }

  /** @param {boolean} isReachable @param {string} problem */
  #report(isReachable, problem) {
    this.state = { unsent: this.#keys().length, isReachable, problem };
    this.listeners.onChange(this.state);
  }
}

/** @param {string} key @returns {(Decision | Undo)[]} what is kept under a key; nothing if it was sent meanwhile */
function read(key) {
  const text = localStorage.getItem(key);
  return text ? [JSON.parse(text)] : [];
}

/** What was decided at once has keys that begin alike. @param {Decision} decision */
const gestureOf = ({ key }) => key.split("/")[0];
