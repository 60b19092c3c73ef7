/**
 * Steps that can be undone and done again, in bounded memory.
 *
 * Knows masks; must not know tools. A step keeps the voxels of the box that it changed, before and after.
 */

import { VoxelMask, added, boundsOf } from "./mask.js";

/** @typedef {import("./box.js").Zyx} Zyx */

/**
 * What changed between two masks.
 * @typedef {{offset: Zyx, shape: Zyx, before: Uint8Array, after: Uint8Array}} Change
 */

/**
 * @param {VoxelMask} before
 * @param {VoxelMask} after
 * @returns {Change | null} null if the masks hold the same object
 */
export function changeBetween(before, after) {
  const whole = after.grownTo(before.offset, before.shape);
  const old = before.grownTo(whole.offset, whole.shape); // now both have the same box
  const found = boundsOf(whole.shape, (at) => whole.data[at] !== old.data[at]);
  if (!found) return null;
  const [offset, shape] = [added(whole.offset, found.offset), found.shape];
  return { offset, shape, before: cut(old, offset, shape), after: cut(whole, offset, shape) };
}

/** @param {VoxelMask} mask @param {Zyx} offset @param {Zyx} shape @returns {Uint8Array} the values over a box */
function cut(mask, offset, shape) {
  const part = new VoxelMask(offset, shape);
  forBox(offset, shape, (z, y, x, at) => (part.data[at] = mask.at(z, y, x)));
  return part.data;
}

/** @param {Zyx} offset @param {Zyx} shape @param {(z: number, y: number, x: number, at: number) => void} visit */
function forBox(offset, shape, visit) {
  for (let k = 0, at = 0; k < shape[0]; k++) {
    for (let j = 0; j < shape[1]; j++) {
      for (let i = 0; i < shape[2]; i++, at++) visit(k + offset[0], j + offset[1], i + offset[2], at);
    }
  }
}

/**
 * @param {VoxelMask} mask
 * @param {Change} change
 * @param {"before" | "after"} which
 * @returns {VoxelMask} the mask with the voxels of the change as they were; a new one only if its box had to grow
 */
export function withChange(mask, change, which) {
  const result = mask.grownTo(change.offset, change.shape);
  const values = change[which];
  forBox(change.offset, change.shape, (z, y, x, at) => (result.data[result.index(z, y, x)] = values[at]));
  return result;
}

/**
 * Steps done and undone. The newest step is always kept; older ones are dropped, oldest first, when all together take
 * more than the limit.
 * @template {{bytes: number}} Step
 */
export class History {
  /** @type {Step[]} */ #done = [];
  /** @type {Step[]} */ #undone = [];

  /** @param {number} limitBytes */
  constructor(limitBytes) {
    this.limitBytes = limitBytes;
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** @returns {number} memory of the steps */
  get bytes() {
    return [...this.#done, ...this.#undone].reduce((sum, step) => sum + step.bytes, 0);
  }

  /** @param {Step} step one that was just done; what was undone before cannot be done again */
  push(step) {
    this.#undone = [];
    this.#done.push(step);
    while (this.#done.length > 1 && this.bytes > this.limitBytes) this.#done.shift();
  }

  /** @returns {Step | undefined} the step to be undone */
  undo() {
    const step = this.#done.pop();
    if (step) this.#undone.push(step);
    return step;
  }

  /** @returns {Step | undefined} the step to be done again */
  redo() {
    const step = this.#undone.pop();
    if (step) this.#done.push(step);
    return step;
  }
}
