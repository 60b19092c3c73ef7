/**
 * Corrections that were begun and neither recorded nor given up, kept in the browser until the person goes on.
 *
 * Knows storage; must not know when a draft is kept or shown.
 */

import { VoxelMask } from "./mask.js";

/** @typedef {{mask: VoxelMask, others: VoxelMask[]}} Draft what is drawn, and the pieces that were cut off */

export class Drafts {
  /** @param {string} owner project and person */
  constructor(owner) {
    this.prefix = `twostream/draft/${owner}/`;
  }

  /** @param {number} query @param {Draft} draft @returns {boolean} false if the browser's store is full */
  keep(query, { mask, others }) {
    const drawn = mask.trimmed();
    const text = JSON.stringify({ mask: drawn.data.length ? drawn.toRuns() : null, others: others.map((one) => one.toRuns()) });
    try {
      localStorage.setItem(this.prefix + query, text);
      return true;
    } catch {
      return false;
    }
  }

  /** @param {number} query */
  has(query) {
    return localStorage.getItem(this.prefix + query) !== null;
  }

  /** @param {number} query @returns {Draft | null} */
  of(query) {
    const text = localStorage.getItem(this.prefix + query);
    if (!text) return null;
    const { mask, others } = JSON.parse(text);
    return { mask: mask ? VoxelMask.fromRuns(mask) : VoxelMask.empty(), others: others.map(VoxelMask.fromRuns) };
  }

  /** @param {number} query */
  drop(query) {
    localStorage.removeItem(this.prefix + query);
  }
}
