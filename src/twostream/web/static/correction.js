/** Correcting a mask and adding a missed object, in the focus view: the panel, the tools, and what is recorded. */

import { byId, element, say } from "./dom.js";
import { Editor } from "./editor.js";
import { Missed } from "./missed.js";

/** @typedef {import("./queue.js").Item} Item */
/** @typedef {"brush" | "eraser" | "fill" | "cut"} ToolName */

const MIN_PIECE = 20; // voxels: what a cut leaves besides is a crumb

export class Correction {
  /** @type {"off" | "mask" | "missed"} */
  mode = "off";
  /** @type {Item | null} */
  #item = null;
  /** @type {ToolName | "keep"} */
  tool = "brush";

  /**
   * @param {{project: import("./api.js").ProjectValues, api: import("./api.js").Api, focus: import("./focus.js").Focus,
   *          desk: import("./desk.js").Desk, onDone: () => void}} parts
   */
  constructor({ project, api, focus, desk, onDone }) {
    this.project = project;
    this.focus = focus;
    this.desk = desk;
    this.onDone = onDone;
    const { viewer } = focus;
    this.editor = new Editor({
      voxelSize: project.voxel_size_nm,
      shape: project.shape_zyx,
      numSides: project.num_sides,
      onChange: () => this.#show(),
      onProblem: (/** @type {string} */ text) => say(text, true),
    });
    this.missed = new Missed({
      grow: (seed, signal) => api.post("grow", seed, signal),
      onChange: () => {
        if (this.mode !== "missed") return;
        viewer.extra = this.missed.mask;
        this.#drawPanel();
      },
    });
  }

  get section() {
    return Math.floor(this.focus.viewer.center[0]);
  }

  /** Begin to correct the candidate's mask. */
  begin() {
    const { item, viewer } = this.focus;
    if (!item || !viewer.mask) return;
    this.cancel();
    this.mode = "mask";
    this.#item = item;
    this.editor.begin(/** @type {import("./mask.js").VoxelMask} */ (viewer.mask));
    this.choose("brush");
  }

  /** Begin to add a missed object. */
  beginMissed() {
    this.cancel();
    this.mode = "missed";
    this.missed.begin();
    this.focus.viewer.tool = this.missed.tool;
    this.#drawPanel();
  }

  /** @param {ToolName | "keep"} name */
  choose(name) {
    this.tool = name;
    this.focus.viewer.tool =
      name === "keep"
        ? { cursor: "pointer", down: () => {}, move: () => {}, up: (/** @type {any} */ point) => this.keep(point.zyx) }
        : this.editor.tools[name];
    this.#drawPanel();
  }

  /** The piece at a place stays the candidate; the others become objects of their own. @param {ArrayLike<number>} zyx */
  keep(zyx) {
    this.editor.attempt(() => {
      const { others, crumbs } = this.editor.keep(/** @type {any} */ (Array.from(zyx, Math.floor)), MIN_PIECE);
      const crumbled = crumbs ? `, ${crumbs} crumbs dropped` : "";
      say(`This piece is kept; ${others.length} other${others.length === 1 ? "" : "s"} will be added as objects${crumbled}.`);
      this.choose("brush");
    });
  }

  /** @param {(editor: any) => void} action */
  edit(action) {
    this.editor.attempt(() => action(this.editor));
  }

  /** Record the correction, or the missed object that is shown. */
  async confirm() {
    if (this.mode === "missed") return this.#confirmMissed();
    if (this.mode !== "mask" || !this.#item) return;
    const drawing = this.editor.drawing();
    if (!drawing) return say("Nothing is left of the mask. If no object is there, decide *nothing there*.", true);
    const item = this.#item;
    const extra = this.editor.others.map((/** @type {any} */ piece) => ({
      drawing: (piece.mask ?? piece).toRuns(),
      split_of: item.query.id,
    }));
    const corrected = this.editor.mask.trimmed();
    if (!(await this.desk.decide([item], { kind: "corrected", drawing }, { extra }))) return;
    const picture = this.focus.pictures.ready(item.query.id);
    if (picture) picture.mask = corrected;
    this.#leave();
    this.onDone();
  }

  async #confirmMissed() {
    const drawing = this.missed.confirm();
    if (!drawing) return;
    await this.desk.addMissed(drawing);
    say("The missed object is added. Undo takes it back.");
    this.#leave();
  }

  /** Leave without recording. */
  cancel() {
    if (this.mode === "mask") {
      const mask = this.#item && this.focus.pictures.ready(this.#item.query.id)?.mask;
      if (mask && this.#item === this.focus.item) this.focus.viewer.mask = mask;
    }
    this.missed.cancel();
    this.#leave();
  }

  #leave() {
    this.mode = "off";
    this.#item = null;
    const { viewer } = this.focus;
    viewer.tool = null;
    viewer.extra = null;
    byId("correction").hidden = true;
  }

  #show() {
    if (this.mode !== "mask") return;
    this.focus.viewer.mask = this.editor.mask;
    this.focus.viewer.redraw();
    this.#drawPanel();
  }

  #drawPanel() {
    const panel = byId("correction");
    panel.hidden = false;
    const button = (/** @type {string} */ action, /** @type {string} */ text, isPressed = false) =>
      element("button", { "data-action": action, "aria-pressed": String(isPressed) }, text);
    const finish = element("div", { class: "buttons" }, button("keep-it", this.mode === "missed" ? "Keep it" : "Record"), button("cancel", "Cancel"));
    finish.firstElementChild?.classList.add("main");
    if (this.mode === "missed") {
      panel.replaceChildren(
        element("p", { role: "status" }, this.missed.prompt),
        element("div", { class: "buttons" }, button("narrower", "Smaller ball"), button("wider", "Larger ball")),
        finish,
      );
      return;
    }
    const tools = /** @type {(ToolName | "keep")[]} */ (["brush", "eraser", "fill", "cut", "keep"]);
    const words = { brush: "Brush", eraser: "Eraser", fill: "Fill", cut: "Cut", keep: "Keep this piece" };
    const { others } = this.editor;
    const sides = this.project.num_sides === 2 ? [button("side", `Paints ${this.editor.brush.side === 1 ? "pre" : "post"}`)] : [];
    panel.replaceChildren(
      element("p", {}, others.length ? `Correct the mask. ${others.length} cut-off piece${others.length === 1 ? "" : "s"} will be added.` : "Correct the mask, section by section."),
      element("div", { class: "buttons" }, ...tools.map((name) => button(`tool-${name}`, words[name], this.tool === name)), ...sides),
      element("div", { class: "buttons" }, button("narrower", "Smaller"), button("wider", "Larger"), button("interpolate", "Interpolate"), button("clear-section", "Clear section")),
      finish,
    );
  }
}
