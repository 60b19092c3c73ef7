/**
 * What is said beside a window: what to do, how much of it was on the screen, and what was marked in it.
 *
 * Knows the item and its layer; must not know what is recorded.
 */

import { byId, element } from "./dom.js";

/** @typedef {import("./queue.js").Item} Item */
/** @typedef {import("./window_layer.js").WindowLayer} WindowLayer */

const HINT =
  "Was an object missed inside the frame? What was proposed is outlined: solid if it was answered, dashed if not. Add what has " +
  "no outline, then say that nothing more was missed.";

export class WindowPanel {
  /** @type {WindowLayer | null} */
  layer = null;
  #numMarked = 0;
  #place = byId("window");

  /** @param {WindowLayer | null} layer of the window that is shown; null for a candidate */
  show(layer) {
    this.layer = layer;
    this.#numMarked = 0;
    this.#place.hidden = !layer;
    if (layer) layer.onSeen = () => this.#draw();
    this.#draw();
  }

  /** @param {number} number objects that were marked in the window */
  setMarked(number) {
    this.#numMarked = number;
    this.#draw();
  }

  #draw() {
    if (!this.layer) return;
    const { shape } = this.layer.box;
    const numSeen = shape[0] - this.layer.unseen.length;
    const lines = [HINT, `${numSeen} of ${shape[0]} sections seen`, `${this.#numMarked} ${this.#numMarked === 1 ? "object" : "objects"} marked`];
    this.#place.replaceChildren(...lines.map((text) => element("p", {}, text)));
  }
}
