/** Requests to the server: JSON and bytes, with errors as sentences. Knows addresses; decides nothing. */

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {{offset_zyx: Zyx, shape_zyx: Zyx}} BoxValues */
/** @typedef {"candidate" | "window"} Asks what a query is about: a candidate, or a window in which something may have been missed */
/** @typedef {{answer: number, query: number | null, window: number | null, kind: string, reason: string, annotator: string, seconds: number, is_drawn: boolean}} AnswerValues */
/**
 * @typedef {object} QueryValues
 * @property {number} id
 * @property {Asks} asks
 * @property {string} name "candidate 5" or "window 30"
 * @property {number | null} candidate null for a window
 * @property {string} group
 * @property {string[]} why
 * @property {BoxValues} box
 * @property {BoxValues} view
 * @property {BoxValues} [around] a window and its surroundings
 * @property {Zyx} center_zyx
 * @property {string | null} neuroglancer
 * @property {AnswerValues | null} mine
 * @property {string} card
 * @property {string[]} remarks what else is known of it, in words
 * @property {string} strategy
 */
/** @typedef {{asked: number, open: number, mine: number, second: number, by_others: number, windows: number, open_windows: number}} Left */
/**
 * @typedef {object} ProjectValues
 * @property {string} id
 * @property {string} name
 * @property {string} task
 * @property {number} num_sides
 * @property {Zyx} voxel_size_nm
 * @property {Zyx} shape_zyx
 * @property {string} annotator
 * @property {string} csrf
 * @property {number} radius_nm of a ball where the probability shows no object
 * @property {boolean} may_run
 * @property {boolean} is_named whether people have tokens of their own
 * @property {number} idle_seconds
 * @property {number} lease_seconds
 * @property {{kind: string, reason: string, words: string, about: Asks[]}[]} decisions
 */

/** The server said no; the message is its sentence. */
export class Refused extends Error {
  /** @param {number} status @param {string} message @param {boolean} [needsSides] */
  constructor(status, message, needsSides = false) {
    super(message);
    this.status = status;
    this.needsSides = needsSides;
  }
}

/** The server could not be reached, or cannot do anything at this moment. */
export class Unreachable extends Error {}

export class Api {
  #csrf = "";

  /** @param {string} csrf */
  constructor(csrf) {
    this.#csrf = csrf;
  }

  /**
   * @param {string} path
   * @param {RequestInit} [options]
   * @returns {Promise<Response>}
   */
  async #fetch(path, options = {}) {
    let response;
    try {
      response = await fetch(`api/${path}`, options);
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new Unreachable("the server does not answer");
    }
    if (response.ok) return response;
    if (response.status === 502 || response.status === 504) throw new Unreachable("the server does not answer");
    const { detail, needs_sides } = await response.json().catch(() => ({ detail: response.statusText }));
    const text = typeof detail === "string" ? detail : "the request was not understood";
    if (response.status === 503) throw new Unreachable(text); // such as a ledger that is locked: it is tried again
    throw new Refused(response.status, text, needs_sides === true);
  }

  /** @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} */
  async get(path, signal) {
    return (await this.#fetch(path, { signal })).json();
  }

  /** @param {string} path @param {AbortSignal} [signal] @returns {Promise<ArrayBuffer>} */
  async bytes(path, signal) {
    return (await this.#fetch(path, { signal })).arrayBuffer();
  }

  /** @param {string} path @param {unknown} [body] @param {AbortSignal} [signal] @returns {Promise<any>} */
  async post(path, body, signal) {
    const headers = { "Content-Type": "application/json", "X-CSRF-Token": this.#csrf };
    const response = await this.#fetch(path, { method: "POST", headers, body: JSON.stringify(body ?? {}), signal });
    return response.status === 204 ? null : response.json();
  }
}

/** A box in the notation of the server. @param {{offset: ArrayLike<number>, shape: ArrayLike<number>}} box */
export function boxText({ offset, shape }) {
  return [0, 1, 2].map((axis) => `${offset[axis]}:${offset[axis] + shape[axis]}`).join(",");
}

/** A text that nobody else has drawn. `crypto.randomUUID` is missing where the page is not served securely. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
