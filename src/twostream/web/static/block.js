/**
 * Blocks of the image (or of labels) held in the browser, and the loading of further ones.
 *
 * Knows boxes and strides; what a block is drawn with, and where a request goes, it does not know.
 */

import { contains, zyx } from "./box.js";

/** @typedef {import("./box.js").Box} Box */
/** @typedef {import("./box.js").Zyx} Zyx */

/** A box of voxels. `shape` is the box in voxels of the volume; `data` holds every stride-th of them, Z slowest. */
export class Block {
  /**
   * @param {{offset: Zyx, shape: Zyx, stride?: Zyx, data: Uint8Array | Uint32Array}} parts
   */
  constructor({ offset, shape, stride = [1, 1, 1], data }) {
    this.offset = offset;
    this.shape = shape;
    this.stride = stride;
    this.data = data;
    /** Number of stored values along Z, Y, X. */
    this.size = zyx(shape.map((length, axis) => Math.ceil(length / stride[axis])));
    const expected = this.size[0] * this.size[1] * this.size[2];
    if (data.length !== expected) {
      throw new Error(
        `a block of shape ${shape.join(" x ")} with stride ${stride.join(" x ")} holds ${expected} values; ` +
          `${data.length} came`,
      );
    }
  }

  /**
   * The index along `axis` of the stored value that covers voxel `position`; -1 outside.
   * @param {number} axis
   * @param {number} position whole voxel of the volume
   */
  indexOf(axis, position) {
    const from = position - this.offset[axis];
    return from >= 0 && from < this.shape[axis] ? Math.floor(from / this.stride[axis]) : -1;
  }

  /** @param {Zyx} point in voxels */
  holds(point) {
    return point.every((position, axis) => this.indexOf(axis, Math.floor(position)) >= 0);
  }

  /**
   * Does the block hold `box` at least as finely as `stride`?
   * @param {Box} box
   * @param {Zyx} stride
   */
  covers(box, stride) {
    return this.stride.every((step, axis) => step <= stride[axis]) && contains(this, box);
  }
}

/** @typedef {{need: Box, box: Box, stride: Zyx}} Wanted `need` must be there; `box`, which holds it, is loaded */
/** @typedef {(box: Box, stride: Zyx, signal: AbortSignal) => Promise<Block>} Load */

/** A failed request is not repeated at once: the server may be restarting. */
const RETRY_MS = 3000;

/** The blocks at hand. The least recently used leave when they exceed `bytes`; a stale request is aborted. */
export class Blocks {
  /** @type {Set<Block>} least recently used first */
  #held = new Set();
  /** @type {Map<string, Wanted & {abort: AbortController}>} */
  #inFlight = new Map();
  /** @type {Map<string, number>} when a request of this name last failed, in ms */
  #failed = new Map();

  /**
   * @param {Load} load
   * @param {{bytes?: number, onChange?: () => void, onError?: (error: Error) => void}} [options]
   */
  constructor(load, { bytes = 96 * 2 ** 20, onChange = () => {}, onError = () => {} } = {}) {
    this.load = load;
    this.bytes = bytes;
    this.onChange = onChange;
    this.onError = onError;
  }

  get isLoading() {
    return this.#inFlight.size > 0;
  }

  get hasFailed() {
    return this.#failed.size > 0;
  }

  /** @param {Block} block */
  add(block) {
    this.touch(block);
    let total = 0;
    for (const held of this.#held) total += held.data.byteLength;
    for (const held of this.#held) {
      if (total <= this.bytes || held === block) break;
      this.#held.delete(held);
      total -= held.data.byteLength;
    }
  }

  /**
   * Mark a block as used.
   * @param {Block} block
   */
  touch(block) {
    this.#held.delete(block);
    this.#held.add(block);
  }

  /**
   * A block that holds `box` at least as finely as `stride`.
   * @param {Box} box
   * @param {Zyx} stride
   * @returns {Block | undefined}
   */
  find(box, stride) {
    return [...this.#held].reverse().find((block) => block.covers(box, stride));
  }

  /**
   * The blocks through voxel `position` of `axis`, the finest first, of equals the latest used first.
   * @param {number} axis
   * @param {number} position
   */
  through(axis, position) {
    const coarseness = (/** @type {Block} */ block) => block.stride[0] * block.stride[1] * block.stride[2];
    return [...this.#held]
      .reverse()
      .filter((block) => block.indexOf(axis, position) >= 0)
      .sort((a, b) => coarseness(a) - coarseness(b));
  }

  /**
   * See to it that `wanted.need` is loaded. One request at a time for each name: a request that no longer serves is
   * aborted, one that still does is left to finish.
   * @param {string} name
   * @param {Wanted} wanted
   */
  want(name, wanted) {
    const running = this.#inFlight.get(name);
    if (this.find(wanted.need, wanted.stride)) {
      running?.abort.abort();
      this.#inFlight.delete(name);
      this.#failed.delete(name);
      return;
    }
    const serves = running && contains(running.box, wanted.need) && running.stride.every((s, i) => s <= wanted.stride[i]);
    if (serves || Date.now() - (this.#failed.get(name) ?? -Infinity) < RETRY_MS) return;
    running?.abort.abort();
    const abort = new AbortController();
    this.#inFlight.set(name, { ...wanted, abort });
    this.#fetch(name, wanted, abort);
  }

  /**
   * @param {string} name
   * @param {Wanted} wanted
   * @param {AbortController} abort
   */
  async #fetch(name, { box, stride }, abort) {
    try {
      const block = await this.load(box, stride, abort.signal);
      if (abort.signal.aborted) return;
      this.#failed.delete(name);
      this.add(block);
    } catch (error) {
      if (abort.signal.aborted) return;
      this.#failed.set(name, Date.now());
      this.onError(error instanceof Error ? error : new Error(String(error)));
      setTimeout(() => this.onChange(), RETRY_MS + 50);
    } finally {
      if (this.#inFlight.get(name)?.abort === abort) this.#inFlight.delete(name);
    }
    this.onChange();
  }

  /** Abort every request. */
  stop() {
    for (const { abort } of this.#inFlight.values()) abort.abort();
    this.#inFlight.clear();
  }
}
