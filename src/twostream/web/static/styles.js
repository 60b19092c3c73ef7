/** How kinds of answers are named and signed, as in the report. */

/** @type {Record<string, {text: string, glyph: string}>} */
const STYLES = {
  true: { text: "true", glyph: "▲" },
  nothing: { text: "nothing there", glyph: "✖" },
  shape: { text: "wrong shape", glyph: "◆" },
  swapped: { text: "sides swapped", glyph: "■" },
  corrected: { text: "corrected", glyph: "✚" },
  missed: { text: "missed object", glyph: "●" },
  none_missed: { text: "nothing missed", glyph: "○" },
  unsure: { text: "unsure", glyph: "▼" },
  skipped: { text: "skipped", glyph: "◀" },
  open: { text: "not answered yet", glyph: "★" },
};

/** What is wrong with a shape, in the words of the buttons. */
const SHAPES = /** @type {Record<string, string>} */ ({ merge: "merged objects", split: "part of an object", boundary: "wrong boundary" });

/** @param {string} kind @param {string} [reason] */
export function answerText(kind, reason = "") {
  const { text, glyph } = STYLES[kind] ?? { text: kind, glyph: "◈" };
  if (kind === "shape" && SHAPES[reason]) return `${glyph} ${SHAPES[reason]}`;
  return `${glyph} ${text}${reason ? `: ${reason}` : ""}`;
}

/** @param {string} text */
export const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);
