/**
 * The editor of a mask: brush, eraser, fill, cut, interpolation, and the undoing of each.
 *
 * Works on a copy; what was given to `begin` is never changed. Everything can be called without a pointer (`stroke`,
 * `erase`, `fill`, ...); `tools` gives the viewer the same by pointer. Knows masks; must not know the page or the
 * server. Points are z, y, x; voxel i reaches from i to i + 1.
 */

import { Brush } from "./brush.js";
import { floodRegion, holesRegion } from "./fill.js";
import { History, changeBetween, withChange } from "./history.js";
import { interpolated } from "./interpolate.js";
import { VoxelMask } from "./mask.js";
import { painted } from "./paint.js";
import { divided, piecesOf } from "./pieces.js";
import { Refusal } from "./refusal.js";
import { brushRegion, lineRegion, outlineRegion } from "./strokes.js";
import { toolsOf } from "./tools.js";

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./mask.js").Drawing} Drawing */
/** @typedef {import("./region.js").Region} Region */
/** @typedef {import("./region.js").Yx} Yx */
/** @typedef {import("./pieces.js").Piece} Piece */

/**
 * @typedef {object} EditorOptions
 * @property {Zyx} voxelSize nm
 * @property {Zyx} shape extent of the image; the mask grows no further
 * @property {number} numSides 2 in polarity (1 pre, 2 post), else 1
 * @property {number} [limitBytes] memory of the steps that can be undone
 * @property {() => void} [onChange] the mask, the brush or what can be undone has changed
 * @property {(sentence: string) => void} [onProblem] why a tool did nothing
 */

/**
 * A step that can be undone: the voxels, the sections that count as drawn, and the pieces that were set aside.
 * @typedef {{change: import("./history.js").Change | null, before: State, after: State, bytes: number}} Step
 * @typedef {{drawn: number[], others: VoxelMask[]}} State
 */

export class Editor {
  /** @type {VoxelMask} */ #mask = VoxelMask.empty();
  /** @type {History<Step>} */ #history;
  /** @type {Set<number>} */ #drawn = new Set();
  /** @type {VoxelMask[]} */ #others = [];
  /** @type {{mask: VoxelMask, state: State} | null} how it was before the stroke that is being drawn */ #before = null;

  /** @param {EditorOptions} options */
  constructor(options) {
    this.options = options;
    this.#history = new History(options.limitBytes ?? 64_000_000);
    this.brush = new Brush(options.voxelSize[2], options.numSides, () => this.#changed());
    this.tools = toolsOf(this);
  }

  /**
   * Begin to edit.
   * @param {VoxelMask | null} mask what is corrected; null begins with nothing
   */
  begin(mask) {
    this.#mask = mask ? mask.clone() : VoxelMask.empty();
    this.#history = new History(this.#history.limitBytes);
    this.#drawn = new Set();
    this.#others = [];
    this.#before = null;
    this.#changed();
  }

  /**
   * Go on from a draft, as one step that can be undone.
   * @param {VoxelMask} mask
   * @param {VoxelMask[]} others pieces that were set aside
   */
  resume(mask, others) {
    this.#step(() => {
      this.#mask = mask.clone();
      this.#others = others;
    });
  }

  /** @returns {VoxelMask} what is drawn; edited in place, so clone what must stay */
  get mask() {
    return this.#mask;
  }

  /** @returns {VoxelMask[]} pieces that were cut off and set aside by `keep`: objects of their own */
  get others() {
    return this.#others;
  }

  /** @returns {Drawing | null} what is drawn, to be sent; null if nothing is left */
  drawing() {
    const mask = this.#mask.trimmed();
    return mask.data.length ? mask.toRuns() : null;
  }

  get canUndo() {
    return this.#history.canUndo;
  }

  get canRedo() {
    return this.#history.canRedo;
  }

  // -- brush and eraser -------------------------------------------------------------------------------------------

  /** @param {Zyx[]} path draw with the brush along a path in one section */
  stroke(path) {
    this.#step(() => this.paint(path, this.brush.side));
  }

  /** @param {Zyx[]} path erase along a path in one section */
  erase(path) {
    this.#step(() => this.paint(path, 0));
  }

  /**
   * A part of a stroke; `open` and `close` around its parts make them one step.
   * @param {Zyx[]} path
   * @param {number} value 0 erases
   */
  paint(path, value) {
    const z = this.#section(path[0]);
    this.#draw(z, brushRegion(flat(path), this.brush.radiusNm, this.options.voxelSize, this.#image), value);
  }

  // -- fill and sections ------------------------------------------------------------------------------------------

  /**
   * Fill the region at a point, as far as drawn voxels bound it. On a voxel of the other side, that side's region
   * changes sides.
   * @param {Zyx} point
   * @throws {Refusal} no outline encloses it
   */
  fill(point) {
    const z = this.#section(point);
    /** @type {Yx} */ const at = [Math.floor(point[1]), Math.floor(point[2])];
    this.#step(() => this.#draw(z, floodRegion(this.#mask, z, at, this.#image), this.brush.side));
  }

  /** @param {Zyx[]} path an outline in one section; it is closed and filled */
  outline(path) {
    this.#step(() => this.#draw(this.#section(path[0]), outlineRegion(flat(path), this.#image), this.brush.side));
  }

  /** @param {number} z fill all holes of a section */
  fillHoles(z) {
    this.#step(() => {
      const holes = holesRegion(this.#mask, z, this.#image);
      if (holes.isEmpty()) throw new Refusal("This section has no hole that an outline encloses.");
      this.#draw(z, holes, this.brush.side);
    });
  }

  /** @param {number} z clear a section; interpolation may draw it anew */
  clearSection(z) {
    this.#step(() => {
      const from = this.#mask.index(z, this.#mask.offset[1], this.#mask.offset[2]);
      if (from >= 0) this.#mask.data.fill(0, from, from + this.#mask.shape[1] * this.#mask.shape[2]);
      this.#drawn.delete(z);
    });
  }

  /**
   * Draw the sections between those that were drawn in, and those that are empty between others.
   * @returns {number[]} the sections that were drawn
   * @throws {Refusal} no section lies between
   */
  interpolate() {
    const { voxelSize, numSides } = this.options;
    const { mask, sections } = interpolated(this.#mask, this.#drawn, voxelSize, numSides);
    if (!sections.length) throw new Refusal("No section lies between drawn ones: draw in two that are further apart.");
    this.#step(() => (this.#mask = mask));
    return sections;
  }

  // -- splitting --------------------------------------------------------------------------------------------------

  /**
   * Remove a thin line from the mask.
   * @param {Zyx[]} path in one section
   * @param {boolean} [through] cut through all sections of the mask
   */
  cut(path, through = false) {
    const section = this.#section(path[0]);
    const line = lineRegion(flat(path), this.#image);
    const [first, depth] = [this.#mask.offset[0], this.#mask.shape[0]];
    const sections = through ? Array.from({ length: depth }, (_, i) => first + i) : [section];
    this.#step(() => sections.forEach((z) => painted(this.#mask, z, line, 0, this.#image)));
  }

  /** @returns {Piece[]} the connected pieces of the mask, the largest first */
  pieces() {
    return piecesOf(this.#mask, this.options.voxelSize);
  }

  /**
   * Keep one piece; the others are set aside as objects of their own, in `others`.
   * @param {Zyx} point in the piece that stays
   * @param {number} [minVoxels] smaller pieces are crumbs of the cut: they are erased
   * @returns {{kept: Piece, others: VoxelMask[], crumbs: number}} crumbs: voxels that were erased
   * @throws {Refusal} no piece lies there
   */
  keep(point, minVoxels = 1) {
    const { kept, others, crumbs } = divided(this.pieces(), point, minVoxels);
    this.#step(() => {
      this.#mask = kept.mask.clone();
      this.#others = [...this.#others, ...others];
    });
    return { kept, others, crumbs };
  }

  // -- steps ------------------------------------------------------------------------------------------------------

  /** Begin a step of several parts. */
  open() {
    this.#before ??= { mask: this.#mask.clone(), state: this.#state() };
  }

  /** End a step: it can be undone as a whole. */
  close() {
    if (!this.#before) return;
    const { mask, state: before } = this.#before;
    this.#before = null;
    const [change, after] = [changeBetween(mask, this.#mask), this.#state()];
    if (!change && before.others === after.others && String(before.drawn) === String(after.drawn))
      return this.#changed();
    this.#history.push({ change, before, after, bytes: bytesOf(change, before, after) });
    this.#changed();
  }

  /** Take back what was drawn since `open`. */
  cancel() {
    if (!this.#before) return;
    this.#mask = this.#before.mask;
    this.#restore(this.#before.state);
    this.#before = null;
    this.#changed();
  }

  /** @returns {boolean} whether there was a step to undo */
  undo() {
    this.cancel();
    return this.#travel(this.#history.undo(), "before");
  }

  /** @returns {boolean} whether there was a step to do again */
  redo() {
    this.cancel();
    return this.#travel(this.#history.redo(), "after");
  }

  /**
   * Run something, and hand its refusal to `onProblem`.
   * @param {() => void} action
   */
  attempt(action) {
    try {
      action();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.options.onProblem?.(error.message);
    }
  }

  /** @param {Step | undefined} step @param {"before" | "after"} which @returns {boolean} */
  #travel(step, which) {
    if (!step) return false;
    if (step.change) this.#mask = withChange(this.#mask, step.change, which);
    this.#restore(step[which]);
    this.#changed();
    return true;
  }

  /** @param {() => void} action done as one step, or not at all */
  #step(action) {
    this.open();
    try {
      action();
    } catch (error) {
      this.cancel();
      throw error;
    }
    this.close();
  }

  /** @returns {State} */
  #state() {
    return { drawn: [...this.#drawn], others: this.#others };
  }

  /** @param {State} state */
  #restore({ drawn, others }) {
    this.#drawn = new Set(drawn);
    this.#others = others;
  }

  #changed() {
    this.options.onChange?.();
  }

  // -- voxels -----------------------------------------------------------------------------------------------------

  /** @returns {Yx} extent of a section of the image */
  get #image() {
    return [this.options.shape[1], this.options.shape[2]];
  }

  /** @param {Zyx} point @returns {number} its section */
  #section([z]) {
    const section = Math.floor(z);
    if (!(section >= 0 && section < this.options.shape[0])) throw new Refusal(`The image has no section ${section}.`);
    return section;
  }

  /** @param {number} z @param {Region} region @param {number} value 0 erases */
  #draw(z, region, value) {
    this.#mask = painted(this.#mask, z, region, value, this.#image);
    this.#drawn.add(z);
    this.#changed();
  }
}

/** @param {Zyx[]} path @returns {Yx[]} */
function flat(path) {
  return path.map(([, y, x]) => [y, x]);
}

/** @param {import("./history.js").Change | null} change @param {State} before @param {State} after @returns {number} */
function bytesOf(change, before, after) {
  const aside = after.others === before.others ? [] : after.others.filter((mask) => !before.others.includes(mask));
  return 2 * (change?.before.length ?? 0) + aside.reduce((sum, mask) => sum + mask.data.length, 0) + 256;
}
