/**
 * The tool that gets the left button in the XY plane, such as a brush. Without one, or with Space held, dragging pans.
 */

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./planes.js").PlaneName} PlaneName */
/** @typedef {{zyx: Zyx, plane: PlaneName}} Point in voxels; voxel i reaches from i to i + 1 */
/**
 * @typedef {object} Tool
 * @property {string} [cursor]
 * @property {(point: Point, event: PointerEvent) => void} down
 * @property {(point: Point, event: PointerEvent) => void} move while pressed
 * @property {(point: Point, event: PointerEvent) => void} up
 * @property {(point: Point, event: PointerEvent) => void} [cancel] the stroke became a pinch; without it, `up`
 * @property {(point: Point | null, event: PointerEvent | null) => void} [hover] not pressed; null: the pointer left
 * @property {(ctx: CanvasRenderingContext2D, plane: PlaneName, toScreen: (zyx: ArrayLike<number>) => [number, number]) => void} [draw]
 */

export class ToolSlot {
  /** @type {Tool | null} */
  tool = null;
  #isSpaceHeld = false;

  /** @param {AbortSignal} signal ends listening */
  constructor(signal) {
    const options = { signal };
    window.addEventListener("keydown", (event) => event.code === "Space" && (this.#isSpaceHeld = true), options);
    window.addEventListener("keyup", (event) => event.code === "Space" && (this.#isSpaceHeld = false), options);
    window.addEventListener("blur", () => (this.#isSpaceHeld = false), options);
  }

  /**
   * Does this press draw instead of pan?
   * @param {PointerEvent} event
   */
  takes(event) {
    return this.tool !== null && event.button === 0 && !this.#isSpaceHeld;
  }

  /**
   * @param {'down' | 'move' | 'up' | 'cancel'} phase
   * @param {Point} point
   * @param {PointerEvent} event
   */
  stroke(phase, point, event) {
    const { tool } = this;
    if (!tool) return;
    if (phase === "cancel" && tool.cancel) tool.cancel(point, event);
    else tool[phase === "cancel" ? "up" : phase](point, event);
  }
}
