/**
 * A candidate in three orthogonal sections: large XY, beside it XZ and YZ, in the tissue's aspect.
 *
 * Knows what is shown and where: the crosshair, the zoom, the contrast, the mask over the image. Gets image and labels
 * from the functions it is given; it knows neither the server nor the queue, and it decides nothing.
 */

import { Blocks } from "./block.js";
import { SectionPictures } from "./contrast.js";
import { drawCrosshair } from "./crosshair.js";
import { Gestures } from "./gestures.js";
import { Others } from "./others.js";
import { drawMask, MaskOutlines } from "./overlay.js";
import { drawScaleBar, scaleBar } from "./scale_bar.js";
import { SectionBar } from "./section_bar.js";
import { SectionCanvas } from "./section_canvas.js";
import { slabOf } from "./slab.js";
import { ToolSlot } from "./tool.js";
import { clamp, View } from "./view.js";

/** @typedef {import("./block.js").Block} Block */
/** @typedef {import("./box.js").Box} Box */
/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./contrast.js").Contrast} Contrast */
/** @typedef {import("./overlay.js").Mask} Mask */
/** @typedef {import("./overlay.js").Overlay} Overlay */
/** @typedef {import("./planes.js").Frame} Frame */
/** @typedef {import("./planes.js").PlaneName} PlaneName */

/** @typedef {import("./tool.js").Point} Point */
/** @typedef {import("./tool.js").Tool} Tool */
/** @typedef {{pre: string, post: string, single: string}} Colours CSS colours */
/**
 * @typedef {object} ViewerOptions
 * @property {Zyx} voxelSize in nm
 * @property {Zyx} shape of the volume in voxels
 * @property {number} numSides 2 for a mask with a presynaptic (1) and a postsynaptic (2) side, otherwise 1
 * @property {Partial<Colours>} [colours] instead of --pre, --post and --single of the style sheet
 * @property {(box: Box, stride: Zyx, signal: AbortSignal) => Promise<Block>} loadImage
 * @property {(box: Box, signal: AbortSignal) => Promise<Block>} loadLabels
 */
/** @typedef {{view: Box, center: ArrayLike<number>, mask: Mask | null, block?: Block | null}} Shown */

/** @type {Zyx} */
const FINEST = [1, 1, 1];
/** Values of one loaded slab at most. All three planes stay within about 4 M where they share a zoom. */
const MAX_VOXELS = { xy: 2.5e6, xz: 0.75e6, yz: 0.75e6 };
/** Further blocks are asked for this often at most while one pans or zooms. */
const LOAD_DELAY_MS = 60;
const GROUND = "#0b0d10";

export class Viewer {
  #abort = new AbortController();
  #outlines = new MaskOutlines();
  #pictures = new SectionPictures({ low: 0, high: 255 });
  /** @type {Contrast} */
  #contrast = { low: 0, high: 255 };
  /** @type {Overlay} */
  #overlay = "outline";
  #opacity = 0.9;
  #others = false;
  #crosshair = true;
  /** @type {Mask | null} */
  #mask = null;
  /** @type {Mask | null} */
  #extra = null;
  #toolSlot = new ToolSlot(this.#abort.signal);
  #isFitted = true; // until the person zooms
  /** @type {Shown | null} */
  #shown = null;
  #frameRequest = 0;
  #loadTimer = 0;
  #resolveFirstPaint = () => {};
  /** Resolved when the image of the candidate last shown is on the screen. @type {Promise<void>} */
  firstPaint = Promise.resolve();

  /**
   * @param {HTMLElement} element becomes the viewer; its size is the page's business
   * @param {ViewerOptions} options
   */
  constructor(element, options) {
    this.element = element;
    this.view = new View(options.voxelSize, options.shape);
    this.shape = options.shape;
    const style = getComputedStyle(element);
    const colour = (/** @type {keyof Colours} */ name, /** @type {string} */ fallback) =>
      options.colours?.[name] ?? (style.getPropertyValue(`--${name}`).trim() || fallback);
    const single = colour("single", "#ffd23f");
    /** @type {Record<number, string>} */
    this.colours =
      options.numSides === 2 ? { 1: colour("pre", "#ff9f1c"), 2: colour("post", "#35a7ff") } : { 1: single, 2: single };
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
   * Show a candidate. With a block at hand it is on the screen when this returns.
   * @param {Shown} shown `view` is the box of `block`, and what is loaded first without one
   */
  show(shown) {
    this.#shown = shown;
    this.#mask = shown.mask;
    this.#extra = null;
    this.#outlines.forget();
    this.otherCandidates.setCandidate(shown.mask);
    this.blocks.stop();
    this.#notify("");
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
    this.#outlines.forget();
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
    return this.#mask;
  }
  set mask(mask) {
    this.#mask = mask;
    this.redraw();
  }

  /** A second mask, dashed: a proposal. */
  get extra() {
    return this.#extra;
  }
  set extra(mask) {
    this.#extra = mask;
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
    return this.#contrast;
  }
  set contrast(contrast) {
    this.#pictures.setContrast(contrast);
    this.#contrast = contrast;
    this.#schedule();
  }

  get overlay() {
    return this.#overlay;
  }
  set overlay(overlay) {
    this.#overlay = overlay;
    this.#schedule();
  }

  /** From 0 to 1. */
  get opacity() {
    return this.#opacity;
  }
  set opacity(opacity) {
    this.#opacity = clamp(opacity, 0, 1);
    this.#schedule();
  }

  /** Are the outlines of all other candidates shown? */
  get others() {
    return this.#others;
  }
  set others(others) {
    this.#others = others;
    this.#schedule();
  }

  get crosshair() {
    return this.#crosshair;
  }
  set crosshair(crosshair) {
    this.#crosshair = crosshair;
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
    this.view.scroll(this.#plane(plane).plane.depth, sections);
    this.view.follow(this.planes);
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

  /** @param {SectionCanvas} plane */
  #drawPlane(plane) {
    const { ctx } = plane;
    const { name, depth } = plane.plane;
    const section = this.view.section(depth);
    const frame = this.#frame(plane);
    const visible = frame.visible(section, this.shape);
    plane.clear(GROUND);
    if (visible) {
      const used = plane.drawImage(frame, this.blocks.through(depth, section), section, visible, this.#pictures);
      for (const block of used) this.blocks.touch(block);
      const cross = this.view.cross;
      const isCrossDrawn = used.some((block) => [0, 1, 2].every((axis) => block.indexOf(axis, Math.floor(cross[axis])) >= 0));
      if (name === "xy" && isCrossDrawn) this.#resolveFirstPaint();
    }
    if (this.#others) this.otherCandidates.draw(ctx, frame, section);
    const style = { overlay: this.#overlay, opacity: this.#opacity };
    for (const [mask, look] of /** @type {const} */ ([
      [this.#mask, style],
      [this.#extra, { overlay: "outline", opacity: 1, dashed: true }],
    ])) {
      if (mask) drawMask(ctx, frame, this.#outlines.of(mask, plane.plane, section), mask.offset, this.colours, look);
    }
    if (this.#crosshair) drawCrosshair(ctx, frame, this.view.cross);
    if (name === "xy") drawScaleBar(ctx, this.view.nmPerPixel, plane.width, plane.height);
    this.tool?.draw?.(ctx, name, (zyx) => frame.toScreen(zyx));
    plane.label(section, this.shape[depth]);
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
      if (this.#others) labelsFit = this.otherCandidates.want(frame, section) && labelsFit;
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
