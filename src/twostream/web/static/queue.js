/**
 * The person's part of the queue: queries that the server has leased to them, in order, with what they have decided.
 *
 * Asks for more ahead of time, and renews its leases while the person works. Knows queries; must not know how they are
 * shown.
 */

/** @typedef {import("./api.js").QueryValues} QueryValues */
/** @typedef {import("./api.js").AnswerValues} AnswerValues */
/** @typedef {import("./api.js").Left} Left */
/**
 * @typedef {object} Item
 * @property {QueryValues} query
 * @property {{kind: string, reason: string} | null} mine
 * @property {boolean} adjudicates
 * @property {boolean} [isGone] on the screen, but no longer leased to the person
 * @property {Set<number>} [seen] sections of a window that were on the screen
 */

const MOST = 100;
const ORDERS = ["cluster", "score", "uncertainty", "shuffled"];
/** Queries held at first: few, so that a small round is shared by all who come. */
const FIRST = 12;

export class Queue {
  /** @type {Item[]} */
  items = [];
  index = 0;
  order = ORDERS.find((name) => name === localStorage.getItem("twostream/order")) ?? ORDERS[0];
  /** @type {Left | null} */
  left = null;
  /** @type {number | null} */
  round = null;
  isAtEnd = false;
  /** @type {Promise<void> | null} */
  #asking = null;
  #asked = 0;

  /**
   * @param {import("./api.js").Api} api
   * @param {number} leaseSeconds how long the server keeps a query for the person
   * @param {() => void} onNewRound the items are those of another round now
   */
  constructor(api, leaseSeconds, onNewRound) {
    this.api = api;
    this.leaseMs = 1000 * leaseSeconds;
    this.onNewRound = onNewRound;
    this.renewMs = Math.min(60_000, (1000 * leaseSeconds) / 3);
  }

  /** @returns {Item | null} */
  get current() {
    return this.items[this.index] ?? null;
  }

  /** Items without a decision. */
  get open() {
    return this.items.filter((item) => !item.mine);
  }

  /** Begin anew, in another order or another round. @param {string} [order] */
  async restart(order = this.order) {
    await this.#asking;
    const { items, index, isAtEnd, order: before } = this;
    Object.assign(this, { items: [], index: 0, isAtEnd: false, order });
    try {
      await this.more(FIRST / 2); // it asks for twice as many
      await this.#restoreHistory();
    } catch (error) {
      Object.assign(this, { items, index, isAtEnd, order: before });
      throw error;
    }
    localStorage.setItem("twostream/order", order);
  }

  /**
   * Hold at least `number` open queries, if there are so many. Where there are fewer, it asks for twice as many, so that
   * not every decision asks anew.
   * @param {number} number
   */
  async more(number) {
    await this.#asking;
    if (this.open.filter((item) => !item.adjudicates).length >= number && !this.#isOld()) return;
    // What is held is asked for again, or the server would take it for given back.
    const held = this.open.filter((item) => !item.adjudicates).length;
    this.#asking = this.#ask(Math.min(MOST, Math.max(2 * number, held))).finally(() => (this.#asking = null));
    await this.#asking;
  }

  /** Whether the leases have run out, as after a laptop has slept: somebody else may have answered what is shown. */
  get isStale() {
    return Date.now() - this.#asked > this.leaseMs;
  }

  /**
   * Hold what is held for longer. What was answered elsewhere meanwhile leaves.
   * @param {boolean} [isKept] whether the current item stays, because it is on the screen
   */
  async renew(isKept = true) {
    await this.#asking;
    const held = this.open.filter((item) => !item.adjudicates).length;
    this.#asking = this.#ask(Math.min(MOST, Math.max(1, held)), isKept).finally(() => (this.#asking = null));
    await this.#asking;
  }

  #isOld() {
    return Date.now() - this.#asked > this.renewMs;
  }

  /** @param {number} number @param {boolean} [isKept] */
  async #ask(number, isKept = true) {
    const { queries, left, round } = await this.api.post("lease", { order: this.order, number });
    this.#asked = Date.now();
    const isNewRound = round !== this.round && this.items.length > 0;
    this.round = round;
    this.left = left;
    if (isNewRound) [this.items, this.index] = [[], 0];
    const leased = new Set(queries.map((/** @type {QueryValues} */ query) => query.id));
    const shown = isKept ? this.current : null;
    // What is no longer leased to us was answered by somebody else, or lies with them. What is on the screen stays.
    this.items = this.items.filter((item) => item.mine || item.adjudicates || item === shown || leased.has(item.query.id));
    const known = new Set(this.items.map((item) => item.query.id));
    for (const query of queries) if (!known.has(query.id)) this.items.push(itemOf(query));
    this.index = shown ? Math.max(0, this.items.indexOf(shown)) : Math.min(this.index, this.items.length);
    if (shown) shown.isGone = !shown.mine && !shown.adjudicates && !leased.has(shown.query.id);
    this.isAtEnd = queries.length < number;
    if (isNewRound) this.onNewRound();
  }

  /** Go to the next query without a decision; past the last one if there is none. */
  next() {
    const from = this.index;
    const after = this.items.findIndex((item, i) => i > from && !item.mine);
    const any = this.items.findIndex((item) => !item.mine);
    this.index = after >= 0 ? after : any >= 0 ? any : this.items.length;
  }

  /** @param {number} step */
  step(step) {
    this.index = Math.min(this.items.length, Math.max(0, this.index + step));
  }

  /** The items that come after the current one without a decision. @param {number} number */
  upcoming(number) {
    return this.items.filter((item, i) => i > this.index && !item.mine).slice(0, number);
  }

  /**
   * Show a query, which may lie outside the queue, such as one that was undone or is disagreed about.
   * @param {number} id @param {boolean} [adjudicates]
   * @returns {Promise<Item>}
   */
  async goTo(id, adjudicates = false) {
    let at = this.items.findIndex((item) => item.query.id === id);
    if (at < 0) {
      const item = itemOf(await this.api.get(`queries/${id}`));
      this.items.splice(this.index, 0, item);
      at = this.index;
    }
    this.index = at;
    this.items[at].adjudicates = adjudicates;
    return this.items[at];
  }

  /** @param {number} id @param {{kind: string, reason: string} | null} mine */
  mark(id, mine) {
    const item = this.items.find((one) => one.query.id === id);
    if (item) item.mine = mine;
  }

  /** Put the person's earlier answers of this round before the queue, so that "previous" reaches them after a reload. */
  async #restoreHistory() {
    const { queries } = await this.api.get("history?number=200");
    const known = new Set(this.items.map((item) => item.query.id));
    const earlier = queries.filter((/** @type {QueryValues} */ query) => !known.has(query.id)).reverse();
    this.items.unshift(...earlier.map(itemOf));
    this.index += earlier.length;
  }
}

/** @param {QueryValues} query @returns {Item} */
function itemOf(query) {
  return { query, mine: query.mine && { kind: query.mine.kind, reason: query.mine.reason }, adjudicates: false };
}
