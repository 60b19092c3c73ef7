/** Correcting a mask and adding a missed object, in the focus view: the panel, the tools, and what is recorded. */

import { byId, element, say } from "./dom.js";
import { Drafts } from "./drafts.js";
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
  /** What was shown before. @type {{mask: import("./mask.js").VoxelMask | null, others: boolean}} */
  #before = { mask: null, others: false };
  /** @type {ToolName | "keep"} */
  tool = "brush";

  /**
   * @param {{project: import("./api.js").ProjectValues, api: import("./api.js").Api, focus: import("./focus.js").Focus,
   *          desk: import("./desk.js").Desk, onMode: () => void, onDone: (isRevised: boolean) => void}} parts
   */
  constructor({ project, api, focus, desk, onMode, onDone }) {
    this.project = project;
    this.focus = focus;
    this.desk = desk;
    this.onMode = onMode;
    this.onDone = onDone;
    this.drafts = new Drafts(`${project.id}/${project.annotator}`);
    focus.isBegun = (id) => this.drafts.has(id);
    window.addEventListener("pagehide", () => this.#keepDraft());
    const { viewer } = focus;
    this.editor = new Editor({
      voxelSize: project.voxel_size_nm,
      shape: project.shape_zyx,
      numSides: project.num_sides,
      onChange: () => this.#show(),
      onProblem: (/** @type {string} */ text) => say(text, true),
    });
    this.missed = new Missed({
      radiusNm: project.radius_nm,
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

  /** Begin to correct the candidate's mask, or go on with its draft. */
  begin() {
    if (this.mode === "missed") return this.#drawMissed();
    this.leave();
    const { item, viewer } = this.focus;
    if (!item || !viewer.mask) return;
    this.#enter("mask");
    this.#item = item;
    this.editor.begin(viewer.mask);
    const draft = this.drafts.of(item.query.id);
    if (draft) this.editor.resume(draft.mask, draft.others);
    this.choose("brush");
  }

  /** Draw the missed object: what was grown, corrected by hand, or all of it where nothing was grown. */
  #drawMissed() {
    const { mask } = this.missed;
    this.#leave();
    this.#enter("mask");
    this.editor.begin(mask);
    this.choose("brush");
    this.#show();
  }

  /** Begin to add a missed object. The other candidates are shown, and what was marked before. */
  beginMissed() {
    this.leave();
    this.#enter("missed");
    if (!this.focus.isWindow) this.focus.setOthers(true); // in a window all candidates are shown
    this.missed.begin();
    this.focus.viewer.tool = this.missed.tool;
    this.#drawPanel();
  }

  /** The missed object is at the crosshair, which a click in any plane moves. */
  addHere() {
    if (this.mode !== "missed") this.beginMissed();
    void this.missed.click(this.focus.viewer.center);
  }

  /** @param {"mask" | "missed"} mode */
  #enter(mode) {
    const { mask, others } = this.focus.viewer;
    this.#before = { mask, others };
    this.mode = mode;
    this.onMode();
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
      if (!others.length) return say("The mask is still one piece: its parts touch, perhaps in another section. Cut with Shift to cut through all sections.", true);
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
    if (this.mode !== "mask") return;
    const drawing = this.editor.drawing();
    if (!this.#item) return this.#addMissed(drawing);
    if (!drawing) return say("Nothing is left of the mask. If no object is there, decide *nothing there*.", true);
    const item = this.#item;
    const extra = this.editor.others.map((/** @type {any} */ piece) => ({
      drawing: (piece.mask ?? piece).toRuns(),
      split_of: item.query.id,
    }));
    const isRevised = item.mine !== null;
    if (!(await this.desk.decide([item], { kind: "corrected", drawing }, { extra }))) return;
    this.drafts.drop(item.query.id);
    this.#leave();
    this.onDone(isRevised);
  }

  async #confirmMissed() {
    return this.#addMissed(this.missed.confirm());
  }

  /** @param {unknown} drawing */
  async #addMissed(drawing) {
    if (!drawing) return say("Nothing is drawn yet.", true);
    const { window, isInside } = this.focus.placeOf(/** @type {import("./mask.js").Drawing} */ (drawing));
    await this.desk.addMissed(drawing, window);
    const remark = isInside ? "" : " Its centre lies outside the window, which does not count it.";
    say(`The missed object is added.${remark} Undo takes it back.`);
    this.#leave();
    await this.focus.showMarked();
  }

  /** Leave without recording; nothing of it is kept. */
  cancel() {
    if (this.mode === "off") return;
    if (this.#item) this.drafts.drop(this.#item.query.id);
    this.#leave();
  }

  /** Leave for another candidate or view: what was drawn is kept, and `begin` goes on with it. */
  leave() {
    if (this.mode === "off") return;
    this.#keepDraft();
    this.#leave();
  }

  /** Keep what was drawn and not recorded, if anything was. */
  #keepDraft() {
    if (!this.#item) return;
    const { id, name } = this.#item.query;
    const { mask, others, canUndo } = this.editor;
    if (!canUndo) this.drafts.drop(id);
    else if (this.drafts.keep(id, { mask, others })) say(`The correction of ${name} is not recorded yet. It is kept in this browser.`);
    else say(`The correction of ${name} is lost: this browser's store is full.`, true);
  }

  #leave() {
    const { viewer } = this.focus;
    // A candidate that is shown by now has its own mask.
    if (this.mode === "mask" && (!this.#item || this.#item === this.focus.item)) viewer.mask = this.#before.mask;
    if (this.mode === "missed") this.focus.setOthers(this.#before.others);
    this.mode = "off";
    this.#item = null;
    this.missed.cancel();
    viewer.tool = null;
    viewer.extra = null;
    byId("correction").hidden = true;
    this.onMode();
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
        element("div", { class: "buttons" }, button("narrower", "Smaller ball"), button("wider", "Larger ball"), button("missed-here", "At the crosshair"), button("correct", "Draw it")),
        finish,
      );
      return;
    }
    const tools = /** @type {(ToolName | "keep")[]} */ (["brush", "eraser", "fill", "cut", "keep"]);
    const words = { brush: "Brush", eraser: "Eraser", fill: "Fill", cut: "Cut", keep: "Keep this piece" };
    const { others } = this.editor;
    const sides = this.project.num_sides === 2 ? [button("side", `Paints ${this.editor.brush.side === 1 ? "pre" : "post"}`)] : [];
    panel.replaceChildren(
      element("p", {}, !this.#item ? "Draw the missed object, section by section." : others.length ? `Correct the mask. ${others.length} cut-off piece${others.length === 1 ? "" : "s"} will be added.` : "Correct the mask, section by section."),
      element("div", { class: "buttons" }, ...tools.map((name) => button(`tool-${name}`, words[name], this.tool === name)), ...sides),
      element("div", { class: "buttons" }, button("narrower", "Smaller"), button("wider", "Larger"), button("interpolate", "Interpolate"), button("clear-section", "Clear section")),
      element("div", { class: "buttons" }, button("undo-stroke", "Undo stroke"), button("redo-stroke", "Redo stroke")),
      finish,
    );
  }
}
