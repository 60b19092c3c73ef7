/**
 * What can be done on the page, and by which key: one table. Buttons run the same actions by their names.
 *
 * Knows names, words, keys, and when an action makes sense; what it does is the page's affair.
 */

import { drawHelp } from "./help.js";
import { toggleTheme } from "./theme.js";

/** @typedef {{kind: string, reason: string}} Said */
/**
 * @typedef {object} Page what the actions do
 * @property {import("./api.js").ProjectValues} project
 * @property {import("./correction.js").Correction} correction
 * @property {import("./focus.js").Focus} focus
 * @property {import("./gallery.js").Gallery} gallery
 * @property {import("./progress.js").Progress} progress
 * @property {() => "focus" | "gallery" | "settle" | "end"} view what is shown
 * @property {(said: Said) => unknown} decide
 * @property {(which: "undo" | "redo") => unknown} travel
 * @property {(step: number) => unknown} step
 * @property {(direction: number) => unknown} vertical
 * @property {(name: "focus" | "gallery" | "settle") => unknown} go
 * @property {() => unknown} atEnd
 * @property {() => unknown} openCard
 * @property {() => unknown} openDispute
 * @property {() => unknown} toggleWhy
 * @property {() => unknown} openNeuroglancer
 * @property {() => unknown} startRound
 * @property {() => unknown} signOut
 * @property {() => void} drawKeys
 */

const KEYS = /** @type {Record<string, string>} */ ({
  true: "t",
  nothing: "n",
  "shape/merge": "m",
  "shape/split": "p",
  "shape/boundary": "b",
  swapped: "x",
  none_missed: "w",
  unsure: "u",
  skipped: "k",
});

/** The name of a decision, as buttons and keys have it. @param {Said} said */
export const decisionName = ({ kind, reason }) => (reason ? `${kind}/${reason}` : kind);

/**
 * @param {import("./keys.js").Keys} keys
 * @param {Page} page
 */
export function registerActions(keys, page) {
  const close = () => {
    keys.listener = null; // no key is waited for any more
    for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  };
  const { project, correction, focus, gallery, progress, view, decide, travel, step, vertical, go, atEnd } = page;
  const { openCard, openDispute, toggleWhy, openNeuroglancer, startRound, signOut, drawKeys } = page;
  const inFocus = () => view() === "focus";
  const isEditing = () => view() === "focus" && correction.mode === "mask";
  const isAdding = () => view() === "focus" && correction.mode === "missed";
  const isIdle = () => correction.mode === "off";

  /** @param {string} group @param {[string, string, string, () => unknown, (() => boolean)?][]} rows */
  function actions(group, rows) {
    for (const [name, label, key, run, when] of rows) keys.register({ name, label, group, key, run, when });
  }

  actions(
    "Correct",
    /** @type {any} */ ([
      ["tool-brush", "brush", "1", () => correction.choose("brush"), isEditing],
      ["tool-eraser", "eraser", "2", () => correction.choose("eraser"), isEditing],
      ["tool-fill", "fill", "3", () => correction.choose("fill"), isEditing],
      ["tool-cut", "cut: split here", "4", () => correction.choose("cut"), isEditing],
      ["tool-keep", "keep this piece (click it)", "5", () => correction.choose("keep"), isEditing],
      ["side", "paint pre or post", "x", () => correction.edit((e) => (e.brush.side = 3 - e.brush.side)), () => isEditing() && project.num_sides === 2],
      ["wider", "larger brush or ball", ">", () => (isAdding() ? correction.missed.widen(1) : correction.edit((e) => e.brush.widen(1))), () => isEditing() || isAdding()],
      ["narrower", "smaller brush or ball", "<", () => (isAdding() ? correction.missed.widen(-1) : correction.edit((e) => e.brush.widen(-1))), () => isEditing() || isAdding()],
      ["interpolate", "interpolate between drawn sections", "i", () => correction.edit((e) => e.interpolate()), isEditing],
      ["clear-section", "clear this section", "Delete", () => correction.edit((e) => e.clearSection(correction.section)), isEditing],
      ["undo-stroke", "undo a stroke", "z", () => correction.editor.undo(), isEditing],
      ["redo-stroke", "redo a stroke", "Shift+z", () => correction.editor.redo(), isEditing],
      ["keep-it", "record the correction, keep the object", "Enter", () => correction.confirm(), () => isEditing() || isAdding()],
      ["cancel", "leave without recording", "Escape", () => correction.cancel(), () => isEditing() || isAdding()],
    ]),
  );
  for (const { kind, reason, words } of project.decisions) {
    const name = decisionName({ kind, reason });
    keys.register({
      name: `decide-${name}`,
      label: words,
      group: "Decide",
      key: KEYS[name] ?? "",
      run: () => decide({ kind, reason }),
      when: () => view() !== "end" && !isEditing(),
    });
  }
  actions(
    "Decide",
    /** @type {any} */ ([
      ["undo", "undo the last decision", "z", () => travel("undo"), isIdle],
      ["redo", "redo", "Shift+z", () => travel("redo"), isIdle],
      ["rest-true", "the rest of this page is True", "Shift+t", () => gallery.restIsTrue().then(atEnd), () => view() === "gallery"],
    ]),
  );
  actions(
    "Go",
    /** @type {any} */ ([
      ["previous", "previous", "ArrowLeft", () => step(-1)],
      ["next", "next", "ArrowRight", () => step(1)],
      ["up", "section above; card above", "ArrowUp", () => vertical(-1)],
      ["down", "section below; card below", "ArrowDown", () => vertical(1)],
      ["page-back", "page back", "PageUp", () => gallery.turn(-1), () => view() === "gallery"],
      ["page-on", "page on", "PageDown", () => gallery.turn(1), () => view() === "gallery"],
      ["focus", "focus view", "f", () => go("focus"), () => view() !== "focus"],
      ["open", "show the card large", "Enter", () => (view() === "settle" ? openDispute() : openCard()), () => view() === "gallery" || view() === "settle"],
      ["gallery", "gallery", "g", () => go("gallery"), () => view() !== "gallery"],
      ["settle", "disagreements", "j", () => go("settle"), () => view() !== "settle"],
    ]),
  );
  actions(
    "Picture",
    /** @type {any} */ ([
      ["overlay", "mask: outline, filled, off", "o", () => (inFocus() ? focus : gallery).cycleOverlay(), () => inFocus() || view() === "gallery"],
      ["fainter", "fainter mask", "[", () => focus.fade(-0.1), inFocus],
      ["stronger", "stronger mask", "]", () => focus.fade(0.1), inFocus],
      ["others", "outlines of other candidates", "h", () => focus.setOthers(!focus.viewer.others), inFocus],
      ["zoom-in", "zoom in", "+", () => focus.viewer.zoomBy(1.25), inFocus],
      ["zoom-out", "zoom out", "-", () => focus.viewer.zoomBy(0.8), inFocus],
      ["pan-left", "pan left", "Shift+ArrowLeft", () => focus.viewer.panBy(60, 0), inFocus],
      ["pan-right", "pan right", "Shift+ArrowRight", () => focus.viewer.panBy(-60, 0), inFocus],
      ["pan-up", "pan up", "Shift+ArrowUp", () => focus.viewer.panBy(0, 60), inFocus],
      ["pan-down", "pan down", "Shift+ArrowDown", () => focus.viewer.panBy(0, -60), inFocus],
      ["more-contrast", "more contrast", "c", () => focus.changeContrast(1), inFocus],
      ["less-contrast", "less contrast", "v", () => focus.changeContrast(-1), inFocus],
      ["reset", "back to the candidate or window", "r", () => focus.viewer.reset(), inFocus],
    ]),
  );
  actions(
    "More",
    /** @type {any} */ ([
      ["correct", "correct the mask", "e", () => correction.begin(), () => inFocus() && ((isIdle() && !focus.isWindow) || isAdding())],
      ["missed", "add a missed object", "a", () => correction.beginMissed(), () => inFocus() && isIdle()],
      ["missed-here", "add a missed object at the crosshair", "Shift+a", () => correction.addHere(), () => inFocus() && (isIdle() || isAdding())],
      ["why", "why it is asked", "i", toggleWhy, isIdle],
      ["neuroglancer", "open in Neuroglancer", "l", openNeuroglancer, inFocus],
      ["people", "progress of each person", "s", () => progress.drawPeople(), isIdle],
      ["theme", "dark or light", "d", toggleTheme, isIdle],
      ["help", "these keys", "?", () => drawHelp(keys, drawKeys)],
      ["run", "start the next round", "", startRound, () => view() === "end"],
      ["close", "close", "", close],
      ["sign-out", "sign out", "", signOut],
    ]),
  );
}
