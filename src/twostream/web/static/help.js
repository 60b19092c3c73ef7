/** The list of keys, in which each can be changed. */

import { byId, element, say } from "./dom.js";
import { keyName } from "./keys.js";

const ORDER = ["Decide", "Go", "Picture", "More", "Correct"];

/** @param {import("./keys.js").Keys} keys @param {() => void} onChange called when a key was changed */
export function drawHelp(keys, onChange) {
  onChange();
  const dialog = /** @type {HTMLDialogElement} */ (byId("help"));
  /** @type {Map<string, import("./keys.js").Action[]>} */
  const groups = new Map();
  for (const action of keys.actions.values()) groups.set(action.group, [...(groups.get(action.group) ?? []), action]);
  const ordered = [...groups].sort(([a], [b]) => ORDER.indexOf(a) - ORDER.indexOf(b));
  const sections = ordered.map(([name, actions]) =>
    element("section", {}, element("h3", {}, name), ...actions.map((action) => row(keys, action, onChange))),
  );
  const close = element("button", { "data-action": "close" }, "Close");
  const reset = element("button", {}, "All keys as they came");
  reset.addEventListener("click", () => {
    keys.reset();
    drawHelp(keys, onChange);
  });
  dialog.onclose = () => (keys.listener = null);
  dialog.replaceChildren(
    element("h2", {}, "Keys"),
    element("p", { class: "soft" }, "Click a key to choose another one."),
    element("div", { class: "keys" }, ...sections),
    element("div", { class: "buttons" }, close, reset),
  );
  if (!dialog.open) dialog.showModal();
}

/** @param {import("./keys.js").Keys} keys @param {import("./keys.js").Action} action @param {() => void} onChange */
function row(keys, action, onChange) {
  const button = element("button", { "data-key-of": action.name, "aria-label": `key for ${action.label}` }, keyName(keys.keyOf(action.name)) || "none");
  button.addEventListener("click", () => {
    button.textContent = "press a key";
    keys.listener = (key) => {
      const lost = key === "Escape" ? "" : keys.change(action.name, key);
      drawHelp(keys, onChange);
      if (lost) say(`${keys.actions.get(lost)?.label} has no key now.`);
    };
  });
  return element("div", {}, element("span", {}, action.label), button);
}
