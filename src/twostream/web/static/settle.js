/** Disagreements, side by side: what each person said, and the keys by which one answer settles the matter. */

import { byId, cardOf, element } from "./dom.js";
import { answerText, capitalised } from "./styles.js";

/** @typedef {import("./api.js").QueryValues & {answers: import("./api.js").AnswerValues[]}} Dispute */

export class Settle {
  /** @type {Dispute[]} */
  disputes = [];
  cursor = 0;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.place = byId("view-settle");
  }

  /** @returns {Dispute | null} */
  get current() {
    return this.disputes[this.cursor] ?? null;
  }

  async load() {
    this.disputes = (await this.api.get("disagreements")).disagreements;
    this.cursor = Math.min(this.cursor, Math.max(0, this.disputes.length - 1));
    this.draw();
  }

  /** Take a dispute that was settled from the list. @param {Dispute} dispute */
  forget(dispute) {
    this.disputes = this.disputes.filter((one) => one !== dispute);
    this.move(0);
  }

  /** @param {number} step */
  move(step) {
    this.cursor = Math.min(Math.max(0, this.cursor + step), Math.max(0, this.disputes.length - 1));
    this.draw();
    this.place.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  draw() {
    const words = this.disputes.length
      ? "People have answered these queries differently. A decision here settles the matter; Enter shows the candidate large."
      : "Nobody disagrees about anything.";
    this.place.replaceChildren(element("h2", {}, "Disagreements"), element("p", { class: "soft" }, words));
    this.disputes.forEach((dispute, i) => this.place.append(this.#row(dispute, i)));
  }

  /** @param {Dispute} dispute @param {number} i */
  #row(dispute, i) {
    const said = dispute.answers.map(({ annotator, kind, reason }) =>
      element("li", { class: `kind-${kind}` }, element("strong", {}, annotator), ` ${answerText(kind, reason)}`),
    );
    const large = element("button", { "data-action": "open" }, "Show it large");
    const right = element("div", {}, element("p", {}, capitalised(dispute.name)), element("ul", {}, ...said), large);
    const row = element("article", { class: "dispute" }, cardOf(dispute.card), right);
    row.querySelector(".words")?.remove();
    if (i === this.cursor) row.setAttribute("aria-current", "true");
    row.addEventListener("click", () => {
      this.cursor = i;
      this.draw();
    });
    return row;
  }
}
