/**
 * Actions and their keys. Every action has a name, words and one key, which a person may change; the change is kept in the
 * browser. Knows keys and nothing of what the actions do.
 */

/** @typedef {{name: string, label: string, group: string, key: string, run: () => unknown, when?: () => boolean}} Action */

const STORE = "twostream/keys";
const NAMES = /** @type {Record<string, string>} */ ({
  ArrowLeft: "←",
  ArrowRight: "→",
  ArrowUp: "↑",
  ArrowDown: "↓",
  " ": "Space",
});

/** @returns {Record<string, string>} */
function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE) ?? "{}");
    return found && typeof found === "object" ? found : {};
  } catch {
    return {}; // damaged: the keys that the page came with
  }
}

/** How a key is shown to a person. @param {string} key */
export const keyName = (key) =>
  key
    .split(/\+(?!$)/) // a "+" at the end is the key itself
    .map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part))
    .join(" ");

/** The key of an event, such as "t", "Shift+T" or "Ctrl+z". @param {KeyboardEvent} event */
export function keyOf(event) {
  const isLetter = /^[a-z]$/i.test(event.key);
  const key = isLetter ? event.key.toLowerCase() : event.key;
  const shift = event.shiftKey && (isLetter || event.key.length > 1) ? "Shift+" : "";
  return (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + (event.altKey ? "Alt+" : "") + shift + key;
}

export class Keys {
  /** @type {Map<string, Action>} */
  actions = new Map();
  /** @type {Record<string, string>} */
  #changed = stored();
  /** While a key is chosen for an action, no other action runs. @type {((key: string) => void) | null} */
  listener = null;

  constructor() {
    window.addEventListener("keydown", (event) => this.#press(event));
  }

  /** @param {Action} action */
  register(action) {
    this.actions.set(action.name, action);
  }

  /** The key of an action. @param {string} name */
  keyOf(name) {
    return this.#changed[name] ?? this.actions.get(name)?.key ?? "";
  }

  /**
   * Give an action another key. The action that had it loses it. Keys of a correction may be those of other actions, too:
   * they are meant while one corrects.
   * @param {string} name @param {string} key
   * @returns {string} name of the action that has lost its key, or ""
   */
  change(name, key) {
    const corrects = (/** @type {Action | undefined} */ action) => action?.group === "Correct";
    const mode = corrects(this.actions.get(name));
    const other = [...this.actions.values()].find((a) => a.name !== name && corrects(a) === mode && this.keyOf(a.name) === key);
    if (other) this.#changed[other.name] = "";
    this.#changed[name] = key;
    localStorage.setItem(STORE, JSON.stringify(this.#changed));
    return other?.name ?? "";
  }

  /** Back to the keys that the page came with. */
  reset() {
    this.#changed = {};
    localStorage.removeItem(STORE);
  }

  /** Run an action by its name, as its button does. @param {string} name */
  run(name) {
    const action = this.actions.get(name);
    if (action && (action.when?.() ?? true)) return action.run();
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const key = keyOf(event);
    if (this.listener) {
      if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
      event.preventDefault();
      const { listener } = this;
      this.listener = null;
      return listener(key);
    }
    const target = /** @type {HTMLElement} */ (event.target);
    if (target.closest?.("input:not([type=range]), select, textarea") && event.key !== "Escape") return;
    if (document.querySelector("dialog[open]") && event.key !== "?") return;
    // The focused control is meant.
    if (["Enter", " "].includes(event.key) && target.closest?.("button, a, summary")) return;
    if (/^(Arrow|Page|Home|End)/.test(event.key) && target.closest?.("input[type=range]")) return;
    for (const action of this.actions.values()) {
      if (this.keyOf(action.name) !== key || !(action.when?.() ?? true)) continue;
      event.preventDefault();
      if (!event.repeat || action.group !== "Decide") void action.run(); // a held key decides once
      return;
    }
  }
}
