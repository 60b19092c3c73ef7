/**
 * The bar of decisions: a button for each, of which those are seen that can be said of what is shown.
 *
 * Knows names and words of decisions; must not know what they do.
 */

import { decisionName } from "./actions.js";
import { byId, element } from "./dom.js";
import { keyName } from "./keys.js";

/** @typedef {import("./actions.js").Said} Said */
/** @typedef {import("./api.js").Asks} Asks */
/** @typedef {import("./queue.js").Item} Item */

export class DecisionBar {
  /** @param {import("./api.js").ProjectValues["decisions"]} decisions @param {import("./keys.js").Keys} keys */
  constructor(decisions, keys) {
    this.decisions = decisions;
    this.keys = keys;
    this.place = byId("decisions");
    for (const { kind, reason, words } of decisions) {
      const name = decisionName({ kind, reason });
      this.place.append(element("button", { class: `kind-${kind}`, "data-action": `decide-${name}` }, words, element("kbd")));
      if (kind === "nothing" || kind === "shape") byId("click-means").append(element("option", { value: name }, words.toLowerCase()));
    }
  }

  /** Whether a decision can be said of a candidate, or of a window. @param {Said} said @param {Asks} asks */
  fits(said, asks) {
    return this.decisions.some((one) => decisionName(one) === decisionName(said) && one.about.includes(asks));
  }

  /**
   * Without a decision to make the buttons cannot be seen; their place stays, so that the picture does not move.
   * @param {{asks: Asks, mine: Item["mine"], isHidden: boolean, isOff: boolean}} shown
   */
  draw({ asks, mine, isHidden, isOff }) {
    this.place.hidden = isHidden;
    this.place.classList.toggle("is-off", isOff);
    this.decisions.forEach((decision, i) => {
      const button = /** @type {HTMLElement} */ (this.place.children[i]);
      button.hidden = !decision.about.includes(asks);
      button.classList.toggle("is-mine", !!mine && decisionName(decision) === decisionName(mine));
    });
  }

  /** Show the key of each decision, which may have been changed. */
  drawKeys() {
    for (const button of this.place.children) {
      const key = button.querySelector("kbd");
      if (key) key.textContent = keyName(this.keys.keyOf(button.getAttribute("data-action") ?? ""));
    }
  }
}
