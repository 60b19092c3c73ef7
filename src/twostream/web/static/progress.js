/** Progress: live from the server, in the header, in a table of people, and on the page at the end of the queue. */

import { byId, element } from "./dom.js";

/**
 * @typedef {object} ProgressValues
 * @property {number} round
 * @property {string} step
 * @property {import("./api.js").Left} left
 * @property {{name: string, answers: number, decided: number, seconds: number, per_minute: number | null}[]} people
 * @property {number} num_disagreements
 * @property {{annotators: string[], num_common: number, num_agreed: number, kappa: number | null, why_not: string}[]} agreements
 * @property {string} next
 * @property {{state: "idle" | "running" | "failed", lines: string[]}} run
 * @property {boolean} may_run
 */

export class Progress {
  /** @type {ProgressValues | null} */
  values = null;
  isConnected = true;

  /** @param {(values: ProgressValues) => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    this.#listen();
  }

  #listen() {
    const source = new EventSource("api/events");
    source.addEventListener("progress", (event) => {
      this.isConnected = true;
      this.values = JSON.parse(/** @type {MessageEvent} */ (event).data);
      this.#drawHeader();
      if (this.values) this.onChange(this.values);
    });
    source.addEventListener("error", () => {
      this.isConnected = false;
      if (!byId("view-end").hidden) this.drawEnd();
      if (source.readyState !== EventSource.CLOSED) return; // else the browser connects again by itself
      window.setTimeout(() => this.#listen(), 3000);
    });
  }

  #drawHeader() {
    if (!this.values) return;
    const { left, round, step, num_disagreements } = this.values;
    const done = left.asked - left.open;
    const windows = left.windows ? `, ${left.windows - left.open_windows} of ${left.windows} windows` : "";
    byId("progress").textContent = step === "answer" ? `round ${round}: ${done} of ${left.asked} answered${windows}` : `round ${round}: ${step}`;
    byId("num-disagreements").textContent = num_disagreements ? String(num_disagreements) : "";
  }

  /** The table of people. */
  drawPeople() {
    const dialog = byId("people");
    const { people = [], agreements = [], left } = this.values ?? {};
    const sum = (/** @type {"answers" | "decided" | "seconds"} */ name) => people.reduce((total, person) => total + person[name], 0);
    const seconds = sum("seconds");
    const number = (/** @type {number | null} */ value) => (value === null ? "–" : value.toFixed(1));
    const rows = people.map((person) => cells("td", person.name, String(person.answers), (person.seconds / 60).toFixed(1), number(person.per_minute)));
    rows.push(cells("th", "all", String(sum("answers")), (seconds / 60).toFixed(1), number(seconds ? (60 * sum("decided")) / seconds : null)));
    const kappas = agreements.map(({ annotators, num_common, num_agreed, kappa, why_not }) =>
      element("p", {}, `${annotators.join(" and ")}: ${kappa === null ? why_not : `Cohen's kappa ${kappa.toFixed(2)}`} (${num_agreed} of ${num_common} alike)`),
    );
    dialog.replaceChildren(
      element("h2", {}, "Progress"),
      element("p", {}, left ? `${left.open} of ${left.asked} queries of this round are open, ${left.by_others} of them with other people; ${left.second} wait for a second opinion.` : ""),
      element("table", {}, element("thead", {}, cells("th", "", "answers", "minutes", "decisions a minute")), element("tbody", {}, ...rows)),
      ...kappas,
      element("p", {}),
      element("div", { class: "buttons" }, element("button", { "data-action": "sign-out" }, "Sign out"), element("button", { "data-action": "close" }, "Close")),
    );
    /** @type {HTMLDialogElement} */ (dialog).showModal();
  }

  /** What comes next, at the end of the queue. */
  drawEnd() {
    const place = byId("view-end");
    const values = this.values;
    if (!this.isConnected) {
      const kept = "What you decided is kept in this browser. This page goes on by itself when the server is back.";
      return place.replaceChildren(element("h2", {}, "The server does not answer"), element("p", {}, kept));
    }
    if (!values) return place.replaceChildren(element("p", {}, "Asking the server …"));
    const { left, step, run, may_run, next, num_disagreements } = values;
    /** @type {Node[]} */
    const parts = [];
    if (run.state === "running" || step !== "answer") {
      parts.push(element("h2", {}, run.state === "running" ? "The next round is being computed" : `Next: ${step}`));
      parts.push(element("p", { class: "soft" }, "This page goes on by itself when new queries are there."));
    } else if (left.open) {
      parts.push(element("h2", {}, "Nothing is left for you"));
      parts.push(element("p", {}, `${left.open} queries of this round are with other people. They come back if they are not answered.`));
    } else {
      parts.push(element("h2", {}, "All queries of this round are answered"));
      if (left.windows) parts.push(element("p", {}, `${left.windows} of ${left.asked} were windows.`));
      parts.push(element("p", { class: "soft" }, next));
    }
    if (left.second) parts.push(element("p", {}, `${left.second} queries wait for a second opinion by somebody else.`));
    if (num_disagreements) parts.push(element("p", {}, `People disagree about ${num_disagreements}: settle them first, so that the next round learns from them.`));
    const isReady = run.state !== "running" && !left.open;
    if (may_run && isReady) parts.push(element("button", { class: "main", "data-action": "run" }, "Start the next round"));
    else if (isReady && !may_run) parts.push(element("p", { class: "soft" }, "The operator starts the next round with the command above, or with `twostream serve --allow-run` from here."));
    if (run.state === "failed") parts.push(element("p", { class: "problem" }, "The round has failed; its last lines:"));
    if (run.lines.length) parts.push(element("pre", { class: "log" }, run.lines.join("\n")));
    place.replaceChildren(...parts);
  }
}

/** @param {"td" | "th"} tag @param {...string} texts */
function cells(tag, ...texts) {
  return element("tr", {}, ...texts.map((text) => element(tag, {}, text)));
}
