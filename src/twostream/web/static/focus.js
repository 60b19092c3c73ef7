/** The focus view: one candidate or window large, its picture loaded ahead, and what is said about it beside it. */

import { contains, intersection } from "./box.js";
import { byId, inputById, say } from "./dom.js";
import { answerText, capitalised } from "./styles.js";
import { Viewer } from "./viewer.js";
import { WindowLayer } from "./window_layer.js";
import { WindowPanel } from "./window_panel.js";

/** @typedef {import("./box.js").Zyx} Zyx */
/** @typedef {import("./queue.js").Item} Item */

const AHEAD = 3;
const OVERLAYS = /** @type {const} */ (["outline", "fill", "off"]);

export class Focus {
  /** @type {Item | null} */
  item = null;
  /** The item whose picture is on the screen. @type {Item | null} */
  onScreen = null;
  #turn = 0;
  #panel = new WindowPanel();
  /** Whether a correction of a query was begun. @type {(query: number) => boolean} */
  isBegun = () => false;

  /**
   * @param {{project: import("./api.js").ProjectValues, queue: import("./queue.js").Queue, pictures: import("./pictures.js").Pictures,
   *          onProblem: (text: string) => void}} parts
   */
  constructor({ project, queue, pictures, onProblem }) {
    this.queue = queue;
    this.pictures = pictures;
    this.onProblem = onProblem;
    this.viewer = new Viewer(byId("viewer"), {
      voxelSize: project.voxel_size_nm,
      shape: project.shape_zyx,
      numSides: project.num_sides,
      loadImage: (box, stride, signal) => pictures.image(box, stride, signal),
      loadLabels: (box, signal) => pictures.labels(box, signal),
    });
    for (const name of ["low", "high"]) inputById(name).addEventListener("input", () => this.#setContrast(name));
    inputById("opacity").addEventListener("input", () => (this.viewer.opacity = Number(inputById("opacity").value) / 100));
  }

  /** Show the current item. Resolved when it is on the screen; false if something else is shown meanwhile. */
  async show() {
    const turn = ++this.#turn;
    const item = this.queue.current;
    this.item = item;
    if (this.onScreen !== item) this.#setOnScreen(null);
    if (!item) return false;
    this.#describe(item);
    const { query } = item;
    const isDrawn = item.mine?.kind === "corrected";
    let picture = this.pictures.ready(query.id);
    let [drawn, layer] = /** @type {[import("./mask.js").VoxelMask | null, WindowLayer | null]} */ ([null, null]);
    if (!picture || isDrawn || this.isWindow) {
      try {
        [picture, drawn, layer] = await Promise.all([
          this.pictures.load(query),
          isDrawn ? this.pictures.drawing(query.id) : null,
          this.isWindow ? this.#layerOf(item) : null, // anew, because candidates may have been answered meanwhile
        ]);
      } catch (error) {
        if (turn === this.#turn) this.onProblem(`The picture cannot be loaded: ${/** @type {Error} */ (error).message}`);
        return false;
      }
      if (turn !== this.#turn) return false;
    }
    const view = { offset: query.view.offset_zyx, shape: query.view.shape_zyx };
    this.viewer.show({ view, center: query.center_zyx.map((v) => v + 0.5), mask: drawn ?? picture.mask, block: picture.block, window: layer });
    this.#panel.show(layer);
    void this.showMarked();
    await this.viewer.firstPaint;
    if (turn !== this.#turn) return false;
    this.#setOnScreen(item);
    this.loadAhead();
    return true;
  }

  /** Whether a window is shown, and no candidate. */
  get isWindow() {
    return this.item?.query.asks === "window";
  }

  /** @param {Item} item */
  async #layerOf(item) {
    item.seen ??= new Set();
    return new WindowLayer(boxOf(item.query.box), await this.pictures.proposed(item.query.id), item.seen);
  }

  /** Whether all of the window was on the screen. If not, its first section that was not is shown. */
  isAllSeen() {
    const unseen = this.#panel.layer?.unseen ?? [];
    if (!unseen.length) return true;
    const { viewer } = this;
    viewer.reset();
    viewer.scroll(unseen[0] - Math.floor(viewer.center[0]));
    say(`Not yet: ${unseen.length} of ${this.#panel.layer?.box.shape[0]} sections of the window were not on the screen. Shown is the first of them.`, true);
    return false;
  }

  /**
   * The window in which an object is marked, and whether its centre lies inside; the window counts it only then.
   * @param {import("./mask.js").Drawing} drawing
   * @returns {{window: number | null, isInside: boolean}} null if no window is shown, or the object does not touch it
   */
  placeOf({ offset_zyx: offset, shape_zyx: shape }) {
    if (!this.item || !this.isWindow) return { window: null, isInside: true };
    const { id, box } = this.item.query;
    const middle = /** @type {Zyx} */ (offset.map((from, axis) => from + Math.floor(shape[axis] / 2)));
    const isInside = contains(boxOf(box), { offset: middle, shape: [1, 1, 1] });
    return { window: intersection(boxOf(box), { offset, shape }) ? id : null, isInside };
  }

  /** Show again what could not be loaded, as when the server is back. */
  retry() {
    if (this.item && this.onScreen !== this.item) void this.show();
  }

  /** @param {Item | null} item */
  #setOnScreen(item) {
    this.onScreen = item;
    byId("viewer").classList.toggle("is-waiting", !item); // what is still to be seen belongs to another candidate
  }

  /** Show or hide the outlines of other candidates and of marked objects. @param {boolean} isShown */
  setOthers(isShown) {
    this.viewer.others = isShown;
    for (const button of document.querySelectorAll("[data-action=others]")) button.setAttribute("aria-pressed", String(isShown));
    void this.showMarked();
  }

  /** Load the objects that are marked as missed around the crosshair, if they are shown. */
  async showMarked() {
    const { item, viewer } = this;
    if (!item || !(viewer.others || this.isWindow)) return;
    const { shape_zyx } = item.query.around ?? item.query.view;
    const offset = /** @type {Zyx} */ (viewer.center.map((place, i) => Math.max(0, Math.floor(place) - 2 * shape_zyx[i])));
    const shape = /** @type {Zyx} */ (shape_zyx.map((length) => 4 * length));
    const marked = await this.pictures.missed({ offset, shape }).catch(() => null); // asked for again with the next candidate
    if (!marked || item !== this.item) return;
    viewer.marked = marked.map(({ mask }) => mask);
    this.#panel.setMarked(marked.filter(({ window }) => window === item.query.id).length);
  }

  /** Load the pictures of the next candidates. */
  loadAhead() {
    for (const { query } of this.queue.upcoming(AHEAD)) void this.pictures.load(query).catch(() => {});
  }

  /** @param {Item} item */
  #describe({ query, mine, adjudicates }) {
    const isCut = !query.around && query.view.shape_zyx.some((length, axis) => length < query.box.shape_zyx[axis]);
    const remarks = [adjudicates ? "to be settled" : "", isCut ? "larger than this view: zoom out" : ""].filter(Boolean);
    byId("candidate").textContent = [capitalised(query.name), ...remarks].join(" · ");
    for (const button of document.querySelectorAll("#side [data-action=correct]")) /** @type {HTMLElement} */ (button).hidden = this.isWindow;
    byId("window").hidden = !this.isWindow;
    const place = byId("mine");
    place.className = `mine kind-${mine?.kind ?? "open"}`;
    place.replaceChildren();
    if (mine) {
      const strong = document.createElement("strong");
      strong.textContent = answerText(mine.kind, mine.reason);
      place.append("You said ", strong, mine.kind === "corrected" ? ". Shown is your drawing." : "");
    }
    if (this.isBegun(query.id)) place.append(" A correction is begun; Correct the mask goes on with it.");
    const lines = [...query.why, ...query.remarks, `asked by ${query.strategy}`];
    byId("why").replaceChildren(...lines.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  }

  cycleOverlay() {
    const next = OVERLAYS[(OVERLAYS.indexOf(this.viewer.overlay) + 1) % OVERLAYS.length];
    this.viewer.overlay = next;
    byId("overlay-name").textContent = next;
  }

  /** @param {number} step */
  fade(step) {
    const value = Math.min(1, Math.max(0, Math.round((this.viewer.opacity + step) * 10) / 10));
    this.viewer.opacity = value;
    inputById("opacity").value = String(value * 100);
  }

  /** @param {number} step above 0 for more contrast */
  changeContrast(step) {
    const { low, high } = this.viewer.contrast;
    const next = { low: Math.min(100, Math.max(0, low + 12 * step)), high: Math.max(155, Math.min(255, high - 12 * step)) };
    this.viewer.contrast = next;
    inputById("low").value = String(next.low);
    inputById("high").value = String(next.high);
  }

  /** @param {string} name */
  #setContrast(name) {
    const [low, high] = [inputById("low"), inputById("high")];
    if (Number(low.value) >= Number(high.value)) {
      if (name === "low") low.value = String(Number(high.value) - 1);
      else high.value = String(Number(low.value) + 1);
    }
    this.viewer.contrast = { low: Number(low.value), high: Number(high.value) };
  }
}

/** @param {import("./api.js").BoxValues} values @returns {import("./box.js").Box} */
const boxOf = ({ offset_zyx, shape_zyx }) => ({ offset: offset_zyx, shape: shape_zyx });
