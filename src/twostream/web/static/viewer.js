/**
 * A candidate in three orthogonal sections: large XY, beside it XZ and YZ, in the tissue's aspect.
 *
 * Knows what is shown and where: the crosshair, the zoom, the contrast, the mask over the image. Gets image and labels
 * from the functions it is given; it knows neither the server nor the queue, and it decides nothing.
 */

import { Blocks } from "./block.js";
import { Gestures } from "./gestures.js";
import { Others } from "./others.js";
import { scaleBar } from "./scale_bar.js";
import { Scene } from "./scene.js";
import { SectionBar } from "./section_bar.js";
import { SectionCanvas } from "./section_canvas.js";
import { coarsestNmPerPixel, slabOf } from "./slab.js";
import { ToolSlot } from "./tool.js";
import { clamp, View } from "./view.js";

/** @typedef {import("./block.js").Block} Block */
/** @typedef {import("./box.js").Box} Box */
/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./mask.js").VoxelMask} Mask */
/** @typedef {import("./planes.js").PlaneName} PlaneName */
/** @typedef {import("./scene.js").Colours} Colours */
/** @typedef {import("./tool.js").Point} Point */
/** @typedef {import("./tool.js").Tool} Tool */
/**
 * @typedef {object} ViewerOptions
 * @property {Zyx} voxelSize in nm
 * @property {Zyx} shape of the volume in voxels
 * @property {number} numSides 2 for a mask with a presynaptic (1) and a postsynaptic (2) side, otherwise 1
 * @property {Partial<Colours>} [colours] instead of --pre, --post and --single of the style sheet
 * @property {(box: Box, stride: Zyx, signal: AbortSignal) => Promise<Block>} loadImage
 * @property {(box: Box, signal: AbortSignal) => Promise<Block>} loadLabels
 */
/** @typedef {import("./window_layer.js").WindowLayer} WindowLayer */
/** @typedef {{view: Box, center: ArrayLike<number>, mask: Mask | null, block?: Block | null, window?: WindowLayer | null}} Shown */

/** @type {Zyx} */
const FINEST = [1, 1, 1];
/** Values of one loaded slab at most. All three planes stay within about 4 M where they share a zoom. */
const MAX_VOXELS = { xy: 2.5e6, xz: 0.75e6, yz: 0.75e6 };
/** Further blocks are asked for this often at most while one pans or zooms. */
const LOAD_DELAY_MS = 60;

export class Viewer {
  #abort = new AbortController();
  #toolSlot = new ToolSlot(this.#abort.signal);
  #isFitted = true; // until the person zooms
  /** @type {Shown | null} */
  #shown = null;
  #frameRequest = 0;
  #loadTimer = 0;
  #resolveFirstPaint = () => {};
  /** Resolved when the candidate's image is on the screen, or another candidate took its place. @type {Promise<void>} */
  firstPaint = Promise.resolve();

  /**
   * @param {HTMLElement} element becomes the viewer; its size is the page's business
   * @param {ViewerOptions} options
   */
  constructor(element, options) {
    this.element = element;
    this.view = new View(options.voxelSize, options.shape);
    this.shape = options.shape;
    this.scene = new Scene(element, options.numSides, options.colours);
    const listeners = (/** @type {string} */ what) => ({
      onChange: () => this.#schedule(),
      onError: (/** @type {Error} */ error) => this.#notify(`The ${what} could not be loaded: ${error.message}`),
    });
    this.blocks = new Blocks(options.loadImage, listeners("image"));
    this.otherCandidates = new Others(options.loadLabels, options.shape, listeners("other candidates"));
    this.planes = [new SectionCanvas("xy"), new SectionCanvas("xz"), new SectionCanvas("yz")];
    this.bar = new SectionBar((sections) => this.scroll(sections));
    this.notice = document.createElement("p");
    this.notice.className = "viewer-notice";
    this.notice.setAttribute("role", "status");
    element.classList.add("viewer");
    element.append(...this.planes.map(({ canvas }) => canvas), this.bar.element, this.notice);
    for (const plane of this.planes) this.#listen(plane);
    // Another zoom of the browser, or another screen, may change the device pixels alone.
    window.addEventListener("resize", () => this.#resize(), { signal: this.#abort.signal });
    this.resizes = new ResizeObserver(() => this.#resize());
    for (const target of [element, ...this.planes.map(({ canvas }) => canvas)]) this.resizes.observe(target);
    this.#resize();
  }

  /**
   * Show a candidate or a window. With a block at hand it is on the screen when this returns.
   * @param {Shown} shown `view` is the box of `block`, and what is loaded first without one
   */
  show(shown) {
    this.#shown = shown;
    this.scene.show(shown);
    this.otherCandidates.setCandidate(shown.mask);
    this.blocks.stop();
    this.#notify("");
    this.#resolveFirstPaint();
    this.firstPaint = new Promise((resolve) => (this.#resolveFirstPaint = resolve));
    if (shown.block) this.blocks.add(shown.block);
    else this.blocks.want("view", { need: shown.view, box: shown.view, stride: FINEST });
    this.view.goTo(shown.center);
    if (this.#isFitted) this.#fit();
    this.#draw();
  }

  /** Back to the candidate, at the zoom that shows its view. */
  reset() {
    if (this.#shown) this.view.goTo(this.#shown.center);
    this.#isFitted = true;
    this.#fit();
    this.#schedule();
  }

  /** Draw again in the next frame: the mask was edited, or the tool has something new to show. */
  redraw() {
    this.scene.outlines.forget();
    this.#schedule();
  }

  /** Stop listening and loading. */
  dispose() {
    this.#abort.abort();
    this.resizes.disconnect();
    this.blocks.stop();
    this.otherCandidates.blocks.stop();
    clearTimeout(this.#loadTimer);
    cancelAnimationFrame(this.#frameRequest);
    this.element.replaceChildren();
  }

  get mask() {
    return this.scene.mask;
  }
  set mask(mask) {
    this.scene.mask = mask;
    this.redraw();
  }

  /** A second mask, dashed: a proposal. */
  get extra() {
    return this.scene.extra;
  }
  set extra(mask) {
    this.scene.extra = mask;
    this.redraw();
  }

  /** Objects that are marked as missed, dashed; seen with the other candidates. */
  get marked() {
    return this.scene.marked;
  }
  set marked(masks) {
    this.scene.marked = masks;
    this.redraw();
  }

  /** The crosshair in voxels. Setting it brings it to the canvas's middle. */
  get center() {
    return this.view.center;
  }
  set center(center) {
    this.view.goTo(center);
    this.#schedule();
  }

  /** CSS pixels for one voxel of the finer in-plane axis. */
  get zoom() {
    return this.view.zoom;
  }
  set zoom(zoom) {
    this.zoomBy(zoom / this.view.zoom);
  }

  get contrast() {
    return this.scene.contrast;
  }
  set contrast(contrast) {
    this.scene.contrast = contrast;
    this.#schedule();
  }

  get overlay() {
    return this.scene.overlay;
  }
  set overlay(overlay) {
    this.scene.overlay = overlay;
    this.#schedule();
  }

  /** From 0 to 1. */
  get opacity() {
    return this.scene.opacity;
  }
  set opacity(opacity) {
    this.scene.opacity = clamp(opacity, 0, 1);
    this.#schedule();
  }

  /** Are the outlines of all other candidates shown? */
  get others() {
    return this.scene.others;
  }
  set others(others) {
    this.scene.others = others;
    this.#schedule();
  }

  get crosshair() {
    return this.scene.crosshair;
  }
  set crosshair(crosshair) {
    this.scene.crosshair = crosshair;
    this.#schedule();
  }

  get tool() {
    return this.#toolSlot.tool;
  }
  set tool(tool) {
    this.#toolSlot.tool = tool;
    this.planes[0].canvas.style.cursor = tool ? (tool.cursor ?? "crosshair") : "";
    this.#schedule();
  }

  /** The scale bar of the XY plane. */
  get scaleBar() {
    return scaleBar(this.view.nmPerPixel, this.planes[0].width);
  }

  /**
   * Move the crosshair through the sections of a plane.
   * @param {number} sections
   * @param {PlaneName} [plane]
   */
  scroll(sections, plane = "xy") {
    const axis = this.#plane(plane).plane.depth;
    this.view.scroll(axis, sections);
    this.view.follow(this.planes, [axis]); // what was panned to in the plane stays
    this.#schedule();
  }

  /**
   * @param {number} factor above 1: larger
   * @param {{plane: PlaneName, x: number, y: number}} [at] the point that stays where it is; else the crosshair if it
   *     is on the canvas, else the canvas's middle
   */
  zoomBy(factor, at) {
    const plane = this.#plane(at?.plane ?? "xy");
    const [crossX, crossY] = this.#frame(plane).toScreen(this.view.cross);
    const isCrossSeen = crossX >= 0 && crossX <= plane.width && crossY >= 0 && crossY <= plane.height;
    const [x, y] = at ? [at.x, at.y] : isCrossSeen ? [crossX, crossY] : [plane.width / 2, plane.height / 2];
    this.#isFitted = false;
    this.view.zoomAbout(factor, plane, x, y);
    this.#schedule();
  }

  /**
   * Move the tissue by CSS pixels.
   * @param {number} dx to the right
   * @param {number} dy down
   * @param {PlaneName} [plane]
   */
  panBy(dx, dy, plane = "xy") {
    this.view.pan(this.#plane(plane).plane, dx, dy);
    this.#schedule();
  }

  /**
   * Where a point lies on a plane's canvas, in CSS pixels.
   * @param {ArrayLike<number>} zyx
   * @param {PlaneName} [plane]
   */
  toScreen(zyx, plane = "xy") {
    return this.#frame(this.#plane(plane)).toScreen(zyx);
  }

  /** @param {PlaneName} name */
  #plane(name) {
    const plane = this.planes.find((candidate) => candidate.plane.name === name);
    if (!plane) throw new Error(`plane ${name}; expected xy, xz or yz`);
    return plane;
  }

  /** @param {SectionCanvas} plane */
  #frame(plane) {
    return plane.frame(this.view);
  }

  /** The zoom at which the XY canvas just holds the candidate's view. */
  #fit() {
    const [xy] = this.planes;
    if (this.#shown && xy.width > 0 && xy.height > 0) this.view.fit(this.#shown.view.shape, xy);
  }

  #resize() {
    const { clientWidth, clientHeight } = this.element;
    this.element.dataset.layout = clientWidth > 1.1 * clientHeight ? "beside" : "below";
    const changed = this.planes.map((plane) => plane.measure());
    if (!changed.includes(true)) return;
    const seen = this.planes.filter(({ width, height }) => width > 0 && height > 0);
    this.view.limit(Math.min(...seen.map((plane) => coarsestNmPerPixel(this.view.voxelSize, plane))));
    if (this.#isFitted) this.#fit();
    // At once: a canvas that changes its size is blank until it is drawn.
    this.#draw();
  }

  #schedule() {
    if (this.#frameRequest === 0) this.#frameRequest = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.#frameRequest);
    this.#frameRequest = 0;
    if (!this.#shown) return;
    for (const plane of this.planes) if (plane.width > 0 && plane.height > 0) this.#drawPlane(plane);
    this.bar.show(this.view.section(0), this.shape[0]);
    if (this.#loadTimer === 0) this.#loadTimer = window.setTimeout(() => this.#load(), LOAD_DELAY_MS);
  }

  /** @param {SectionCanvas} canvas */
  #drawPlane(canvas) {
    const used = this.scene.paint(canvas, this.view, this.blocks, this.otherCandidates);
    for (const block of used) this.blocks.touch(block);
    const { name } = canvas.plane;
    if (name === "xy" && used.some((block) => block.holds(this.view.cross))) this.#resolveFirstPaint();
    const frame = canvas.frame(this.view);
    this.tool?.draw?.(canvas.ctx, name, (zyx) => frame.toScreen(zyx));
  }

  /** Ask for what the planes show and no block holds. */
  #load() {
    this.#loadTimer = 0;
    let labelsFit = true;
    for (const plane of this.planes) {
      if (plane.width === 0 || plane.height === 0) continue;
      const frame = this.#frame(plane);
      const section = this.view.section(plane.plane.depth);
      const wanted = slabOf(frame, section, this.shape, MAX_VOXELS[plane.plane.name]);
      if (wanted) this.blocks.want(plane.plane.name, wanted);
      if (this.scene.others) labelsFit = this.otherCandidates.want(frame, section) && labelsFit;
    }
    if (!this.blocks.isLoading && !this.blocks.hasFailed && !this.otherCandidates.blocks.hasFailed)
      this.#notify(labelsFit ? "" : "Zoom in to see the other candidates.");
  }

  /** @param {string} sentence */
  #notify(sentence) {
    if (this.notice.textContent !== sentence) this.notice.textContent = sentence;
  }

  /** @param {SectionCanvas} plane */
  #listen(plane) {
    const { name, depth } = plane.plane;
    const pointAt = (/** @type {number} */ x, /** @type {number} */ y) => ({
      zyx: this.#frame(plane).toVoxel(x, y, this.view.section(depth) + 0.5),
      plane: name,
    });
    new Gestures(
      plane.canvas,
      {
        pan: (dx, dy) => this.panBy(dx, dy, name),
        zoom: (factor, x, y) => this.zoomBy(factor, { plane: name, x, y }),
        scroll: (sections) => this.scroll(sections, name),
        tap: (x, y) => this.#tap(pointAt(x, y).zyx),
        isStroke: (event) => name === "xy" && this.#toolSlot.takes(event),
        stroke: (phase, x, y, event) => {
          this.#toolSlot.stroke(phase, pointAt(x, y), event);
          this.redraw();
        },
        hover: (x, y, event) => name === "xy" && this.#hover(pointAt(x, y), event),
        leave: () => name === "xy" && this.#hover(null, null),
      },
      this.#abort.signal,
    );
  }

  /** @param {Zyx} point */
  #tap(point) {
    if (point.some((position, axis) => position < 0 || position >= this.shape[axis])) return;
    this.view.mark(point);
    this.view.follow(this.planes);
    this.#schedule();
  }

  /**
   * @param {Point | null} point
   * @param {PointerEvent | null} event
   */
  #hover(point, event) {
    if (!this.tool?.hover) return;
    this.tool.hover(point, event);
    this.#schedule();
  }
}
