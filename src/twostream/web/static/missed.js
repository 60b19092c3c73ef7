/**
 * Adding an object that nothing had proposed: a click, the object that is grown from it, and whether it is kept.
 *
 * Nothing is recorded here: `confirm` returns the drawing. Knows the order of the clicks and what the page says at
 * each; must not know the server (it is given `grow`) or the viewer (it hands out masks).
 */

import { VoxelMask } from "./mask.js";

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./mask.js").Drawing} Drawing */
/** @typedef {import("./tool.js").Tool} Tool */
/** @typedef {{center_zyx: Zyx, radius_nm?: number, pre_zyx?: Zyx, post_zyx?: Zyx}} Seed */
/** @typedef {Drawing & {how: string, is_ball: boolean, num_voxels: number}} Grown how: size and origin, in words */
/** @typedef {"idle" | "place" | "growing" | "pre" | "post" | "shown"} MissedState */

/**
 * @typedef {object} MissedOptions
 * @property {(seed: Seed, signal: AbortSignal) => Promise<Grown>} grow rejects with an Error whose message is a
 *   sentence; `needsSides` is true on it if the sides of a synapse cannot be told without a point on each
 * @property {number} [radiusNm] radius that is tried first; without it the server's
 * @property {() => void} [onChange] state, prompt or mask have changed
 */

const WIDER = 1.25;
const [MIN_RADIUS_NM, MAX_RADIUS_NM] = [5, 1e6];
/** From here the first wider or narrower radius starts if none was given, in nm. */
const FIRST_RADIUS_NM = 200;

export class Missed {
  /** @type {MissedState} */ state = "idle";
  /** @type {VoxelMask | null} what is shown as `viewer.extra` */ mask = null;
  /** @type {Grown | null} */ #grown = null;
  /** @type {Seed | null} */ #seed = null;
  /** @type {AbortController | null} */ #request = null;
  /** @type {number | undefined} */ #radiusNm;
  #problem = "";

  /** @param {MissedOptions} options */
  constructor(options) {
    this.options = options;
    this.#radiusNm = options.radiusNm;
  }

  /** @returns {string} what the page says now */
  get prompt() {
    const said = {
      idle: "",
      place: "Click on the object that was missed.",
      growing: "The object is being outlined.",
      pre: "Its sides cannot be told. Click on its presynaptic side.",
      post: "Now click on its postsynaptic side.",
      shown: `${sentence(this.#grown?.how ?? "")} Keep it, change the radius, or click elsewhere.`,
    }[this.state];
    return [this.#problem, said].filter(Boolean).join(" ");
  }

  /** @returns {number | undefined} radius in nm; undefined leaves it to the server */
  get radiusNm() {
    return this.#radiusNm;
  }

  /** Begin: the next click says where the object is. */
  begin() {
    this.#reset("place");
  }

  /**
   * A click. Where the object is shown already, it begins again at the new place.
   * @param {Zyx} zyx a point; voxel i reaches from i to i + 1
   * @returns {Promise<void>} fulfilled when the object is shown or the next click is asked for
   */
  async click(zyx) {
    const voxel = /** @type {Zyx} */ (zyx.map(Math.floor));
    if (this.state === "idle") return;
    if (this.state === "pre" && this.#seed) {
      this.#seed = { ...this.#seed, pre_zyx: voxel };
      return this.#become("post");
    }
    if (this.state === "post" && this.#seed) this.#seed = { ...this.#seed, post_zyx: voxel };
    else this.#seed = { center_zyx: voxel };
    await this.#grow();
  }

  /**
   * Another radius; an object that is shown is grown again with it.
   * @param {number} radiusNm
   */
  async setRadius(radiusNm) {
    if (!Number.isFinite(radiusNm)) throw new RangeError(`the radius is ${radiusNm}; expected a number of nm`);
    this.#radiusNm = Math.min(MAX_RADIUS_NM, Math.max(MIN_RADIUS_NM, radiusNm));
    if (this.#seed && (this.state === "shown" || this.state === "growing")) await this.#grow();
    else this.options.onChange?.();
  }

  /** @param {number} steps above 0 for a wider radius, below 0 for a narrower one */
  async widen(steps) {
    await this.setRadius((this.#radiusNm ?? FIRST_RADIUS_NM) * WIDER ** steps);
  }

  /**
   * Keep what is shown.
   * @returns {Drawing | null} what to record; null if nothing is shown
   */
  confirm() {
    if (this.state !== "shown" || !this.#grown) return null;
    const { offset_zyx, shape_zyx, runs } = this.#grown;
    this.#reset("idle");
    return { offset_zyx, shape_zyx, runs };
  }

  /** Add nothing. */
  cancel() {
    this.#reset("idle");
  }

  /** @returns {Tool} the viewer's tool: a click */
  get tool() {
    return {
      cursor: "crosshair",
      down: () => {},
      move: () => {},
      up: (point) => void this.click(point.zyx),
      cancel: () => {},
    };
  }

  async #grow() {
    const seed = /** @type {Seed} */ (this.#seed);
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    this.#become("growing");
    try {
      const grown = await this.options.grow(
        this.#radiusNm === undefined ? seed : { ...seed, radius_nm: this.#radiusNm },
        request.signal,
      );
      if (this.#request !== request) return; // a later click or a cancel has taken its place
      this.mask = VoxelMask.fromRuns(grown);
      this.#grown = grown;
      this.#become("shown");
    } catch (error) {
      if (this.#request !== request) return;
      this.#refused(error, seed);
    }
  }

  /** @param {unknown} error @param {Seed} seed */
  #refused(error, seed) {
    const needsSides = error instanceof Error && "needsSides" in error && error.needsSides === true;
    if (needsSides && !seed.post_zyx) return this.#become("pre");
    this.#seed = null;
    this.#become("place", sentence(error instanceof Error ? error.message : String(error)));
  }

  /** @param {MissedState} state @param {string} [problem] */
  #become(state, problem = "") {
    this.state = state;
    this.#problem = problem;
    if (state !== "shown") {
      this.mask = null;
      this.#grown = null;
    }
    this.options.onChange?.();
  }

  /** @param {MissedState} state */
  #reset(state) {
    this.#request?.abort();
    this.#request = null;
    this.#seed = null;
    this.#become(state);
  }
}

/** @param {string} text @returns {string} with a capital at its beginning and a full stop at its end */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
