/** What a candidate is shown with: its block of the image and its mask, loaded ahead and kept for a while. */

import { boxText } from "./api.js";
import { Block } from "./block.js";
import { VoxelMask } from "./mask.js";

/** @typedef {import("./box.js").Box} Box */
/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./api.js").QueryValues} QueryValues */
/** @typedef {import("./mask.js").Drawing} Drawing */
/** @typedef {{block: Block, mask: VoxelMask | null}} Picture a window has no mask */
/** @typedef {{query?: number | null, kind?: string, drawing?: unknown, window?: number | null}} Waiting */

const KEPT = 24;

export class Pictures {
  /** @type {Map<number, {promise: Promise<Picture>, ready: Picture | null}>} */
  #kept = new Map();

  /** @param {import("./api.js").Api} api @param {() => Waiting[]} unsent decisions that the server does not know yet, oldest first */
  constructor(api, unsent) {
    this.api = api;
    this.unsent = unsent;
  }

  /** @param {Box} box @param {Zyx} stride @param {AbortSignal} [signal] */
  async image({ offset, shape }, stride, signal) {
    const bytes = await this.api.bytes(`image?box=${boxText({ offset, shape })}&stride=${stride.join(",")}`, signal);
    return new Block({ offset, shape, stride, data: new Uint8Array(bytes) });
  }

  /** @param {Box} box @param {AbortSignal} [signal] */
  async labels({ offset, shape }, signal) {
    const bytes = await this.api.bytes(`segmentation?box=${boxText({ offset, shape })}`, signal);
    return new Block({ offset, shape, data: new Uint32Array(bytes) });
  }

  /** What the person has drawn for a query in place of its mask. @param {number} id @returns {Promise<VoxelMask>} */
  async drawing(id) {
    const waiting = this.unsent().filter(({ query, drawing }) => query === id && drawing).at(-1);
    return VoxelMask.fromRuns(/** @type {Drawing} */ (waiting?.drawing ?? (await this.api.get(`queries/${id}/drawing`))));
  }

  /** Missed objects that people have marked in a box, and the windows in which they have. @param {Box} box */
  async missed(box) {
    const waiting = this.unsent().flatMap(({ kind, drawing, window = null }) => (kind === "missed" && drawing ? [{ ...drawing, window }] : []));
    const { objects } = await this.api.get(`missed?box=${boxText(box)}`);
    return [...objects, ...waiting].map((drawing) => ({ mask: VoxelMask.fromRuns(drawing), window: /** @type {number | null} */ (drawing.window) }));
  }

  /** The candidates in a window as they are answered now. @param {number} id @returns {Promise<import("./window_layer.js").Proposed[]>} */
  async proposed(id) {
    const { candidates } = await this.api.get(`queries/${id}/candidates`);
    return candidates.map((/** @type {{kind: string, drawing: Drawing}} */ { kind, drawing }) => ({ kind, mask: VoxelMask.fromRuns(drawing) }));
  }

  /** Load a query's picture, unless it is there. @param {QueryValues} query @returns {Promise<Picture>} */
  load(query) {
    const known = this.#kept.get(query.id);
    if (known) return known.promise;
    const box = { offset: query.view.offset_zyx, shape: query.view.shape_zyx };
    const bytes = query.asks === "window" ? null : this.api.bytes(`queries/${query.id}/mask`);
    const promise = Promise.all([this.image(box, [1, 1, 1]), bytes]).then(
      ([block, bytes]) => {
        const mask = bytes && new VoxelMask(query.box.offset_zyx, query.box.shape_zyx, new Uint8Array(bytes));
        const picture = { block, mask };
        const entry = this.#kept.get(query.id);
        if (entry) entry.ready = picture;
        return picture;
      },
    );
    promise.catch(() => this.#kept.delete(query.id)); // asked for again when it is shown
    this.#kept.set(query.id, { promise, ready: null });
    for (const id of [...this.#kept.keys()].slice(0, Math.max(0, this.#kept.size - KEPT))) this.#kept.delete(id);
    return promise;
  }

  /** The picture if it is there. @param {number} id */
  ready(id) {
    return this.#kept.get(id)?.ready ?? null;
  }
}
