/**
 * What is drawn on a plane, from below: the image, other candidates, a window, the mask, a proposal, crosshair, scale bar.
 *
 * Knows how each looks (contrast, colours, opacity). Where the viewer looks, and what is loaded, it is told.
 */

import { SectionPictures } from "./contrast.js";
import { drawCrosshair } from "./crosshair.js";
import { drawMask, MaskOutlines } from "./overlay.js";
import { drawScaleBar } from "./scale_bar.js";

/** @typedef {import("./block.js").Block} Block */
/** @typedef {import("./block.js").Blocks} Blocks */
/** @typedef {import("./contrast.js").Contrast} Contrast */
/** @typedef {import("./mask.js").VoxelMask} VoxelMask */
/** @typedef {import("./others.js").Others} Others */
/** @typedef {import("./overlay.js").Overlay} Overlay */
/** @typedef {import("./section_canvas.js").SectionCanvas} SectionCanvas */
/** @typedef {import("./view.js").View} View */
/** @typedef {import("./window_layer.js").WindowLayer} WindowLayer */
/** @typedef {{pre: string, post: string, single: string}} Colours CSS colours */

/** Where no image is. */
const GROUND = "#0b0d10";
/** @type {Colours} */
const COLOURS = { pre: "#ff9f1c", post: "#35a7ff", single: "#ffd23f" };

export class Scene {
  /** @type {VoxelMask | null} */
  mask = null;
  /** @type {VoxelMask | null} a proposal, dashed */
  extra = null;
  /** @type {VoxelMask[]} objects that people have marked as missed; seen in windows and with the other candidates, dashed */
  marked = [];
  /** @type {WindowLayer | null} */
  window = null;
  /** @type {Overlay} */
  overlay = "outline";
  opacity = 0.9;
  others = false;
  crosshair = true;
  outlines = new MaskOutlines();
  /** @type {Contrast} */
  #contrast = { low: 0, high: 255 };
  #pictures = new SectionPictures(this.#contrast);

  /**
   * @param {HTMLElement} element whose style has --pre, --post and --single
   * @param {number} numSides
   * @param {Partial<Colours>} [colours] instead of the style's
   */
  constructor(element, numSides, colours = {}) {
    const style = getComputedStyle(element);
    const colour = (/** @type {keyof Colours} */ name) =>
      colours[name] ?? (style.getPropertyValue(`--${name}`).trim() || COLOURS[name]);
    /** @type {Record<number, string>} the colour of each value of a mask */
    this.colours = numSides === 2 ? { 1: colour("pre"), 2: colour("post") } : { 1: colour("single") };
  }

  /** Begin anew with another candidate or window. @param {{mask: VoxelMask | null, window?: WindowLayer | null}} shown */
  show({ mask, window = null }) {
    Object.assign(this, { mask, window, extra: null, marked: [] });
    this.outlines.forget();
  }

  get contrast() {
    return this.#contrast;
  }
  set contrast(contrast) {
    this.#pictures.setContrast(contrast);
    this.#contrast = contrast;
  }

  /**
   * @param {SectionCanvas} canvas
   * @param {View} view
   * @param {Blocks} blocks
   * @param {Others} otherCandidates
   * @returns {Block[]} the blocks that were drawn
   */
  paint(canvas, view, blocks, otherCandidates) {
    const { ctx, plane } = canvas;
    const section = view.section(plane.depth);
    const frame = canvas.frame(view);
    const visible = frame.visible(section, view.shape);
    canvas.clear(GROUND);
    const through = blocks.through(plane.depth, section);
    const used = visible ? canvas.drawImage(frame, through, section, visible, this.#pictures) : [];
    if (this.others) otherCandidates.draw(ctx, frame, section);
    const { mask, extra, window, outlines, colours, overlay, opacity } = this;
    window?.draw(ctx, frame, section, outlines, overlay);
    if (plane.name === "xy") window?.note(section, visible, used);
    if (mask) drawMask(ctx, frame, outlines.of(mask, plane, section), mask.offset, colours, { overlay, opacity });
    for (const one of [...(this.others || window ? this.marked : []), ...(extra ? [extra] : [])]) {
      const style = { overlay: /** @type {Overlay} */ ("outline"), opacity: 1, dashed: true };
      drawMask(ctx, frame, outlines.of(one, plane, section), one.offset, colours, style);
    }
    if (this.crosshair) drawCrosshair(ctx, frame, view.cross);
    if (plane.name === "xy") drawScaleBar(ctx, view.nmPerPixel, canvas.width, canvas.height);
    canvas.label(section, view.shape[plane.depth]);
    return used;
  }
}
