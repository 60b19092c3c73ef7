/**
 * Decisions on their way to the server. Each is stored in the browser before it is sent and removed when the server has
 * acknowledged it, so that none is lost if the server, the network or the browser goes away. A decision has a key, by
 * which the server records it once however often it is sent.
 *
 * Knows storage and sending; must not know what a decision means.
 */

import { Refused, Unreachable } from "./api.js";

/** @typedef {{key: string, query: number | null, kind: string, reason?: string, seconds?: number, drawing?: unknown, adjudicates?: boolean, split_of?: number | null}} Decision */
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
   * @param {{onChange: (state: OutboxState) => void, onRefused: (decision: Decision, why: string) => void}} listeners
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

  /** Decisions that the server has not acknowledged. @returns {Decision[]} */
  unsent() {
    return this.#keys().flatMap((key) => {
      const text = localStorage.getItem(key);
      return text ? [JSON.parse(text)] : [];
    });
  }

  /**
   * Keep decisions and send them.
   * @param {Decision[]} decisions
   * @returns {Promise<boolean>} whether all are recorded; false if they wait for the server
   */
  async submit(decisions) {
    for (const decision of decisions) {
      const place = `${Date.now()}-${String(this.#serial++).padStart(6, "0")}-${decision.key}`;
      localStorage.setItem(this.prefix + place, JSON.stringify(decision)); // throws if the browser's store is full
    }
    await this.flush();
    const waiting = new Set(this.unsent().map(({ key }) => key));
    return !decisions.some(({ key }) => waiting.has(key));
  }

  /**
   * Forget the decision that was made last, if it has not been sent.
   * @returns {Decision | null}
   */
  takeBack() {
    const last = this.#keys().at(-1);
    if (!last || this.#isFlushing) return null;
    const decision = JSON.parse(localStorage.getItem(last) ?? "null");
    localStorage.removeItem(last);
    this.#report(this.state.isReachable, this.state.problem);
    return decision;
  }

  /** Send what waits, oldest first. */
  async flush() {
    if (this.#isFlushing) {
      await this.#current;
      if (this.#isFlushing) return;
    }
    this.#isFlushing = true;
    this.#current = this.#send().finally(() => (this.#isFlushing = false));
    await this.#current;
  }
  /** @type {Promise<void>} */
  #current = Promise.resolve();

  async #send() {
    clearTimeout(this.#timer);
    try {
      for (let keys = this.#keys(); keys.length; keys = this.#keys()) {
        const batch = keys.slice(0, BATCH);
        const decisions = batch.map((key) => JSON.parse(localStorage.getItem(key) ?? "null"));
        const { results } = await this.api.post("decisions", { decisions });
        batch.forEach((key, i) => {
          localStorage.removeItem(key);
          if (results[i].refused) this.#refuse(decisions[i], results[i].refused);
        });
      }
      this.#failures = 0;
      this.#report(true, "");
    } catch (error) {
      this.#fail(error);
    }
  }

  /** @param {unknown} error */
  #fail(error) {
    const isGone = error instanceof Unreachable;
    const isSignedOut = error instanceof Refused && (error.status === 401 || error.status === 403);
    if (!isGone && !isSignedOut && error instanceof Refused && error.status < 500) this.#setAside(error.message);
    this.#report(!isGone, isGone ? "" : error instanceof Error ? error.message : String(error));
    const wait = RETRY_MS[Math.min(this.#failures++, RETRY_MS.length - 1)];
    this.#timer = window.setTimeout(() => void this.flush(), wait);
  }

  /** One decision that cannot be read must not hold up the others. @param {string} why */
  #setAside(why) {
    const [first] = this.#keys();
    if (!first) return;
    const decision = JSON.parse(localStorage.getItem(first) ?? "null");
    localStorage.removeItem(first);
    this.#refuse(decision, why);
  }

  /** A refused decision stays in the browser's store, and the page says why. @param {Decision} decision @param {string} why */
  #refuse(decision, why) {
    localStorage.setItem(this.prefix.replace("/outbox/", "/refused/") + decision.key, JSON.stringify({ decision, why }));
    this.listeners.onRefused(decision, why);
  }

  /** @param {boolean} isReachable @param {string} problem */
  #report(isReachable, problem) {
    this.state = { unsent: this.#keys().length, isReachable, problem };
    this.listeners.onChange(this.state);
  }
}
