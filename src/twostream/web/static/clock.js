/**
 * The time that decisions take, without idle time: a pause without any input, longer than `idleSeconds`, does not count,
 * nor does a page that is hidden.
 *
 * Time belongs to what the person attends to: a candidate in the focus view, or a page of the gallery, whose time is
 * shared by the decisions that are made there. What somebody looked at and left keeps its time until it is decided.
 */

const INPUTS = ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"];

/** @typedef {number | string | null} Subject id of a query, name of a view, or null for nothing */

export class Clock {
  #last = performance.now();
  #input = performance.now();
  /** @type {Subject} */
  #subject = null;
  /** @type {Map<Subject, number>} */
  #seconds = new Map();

  /** @param {number} idleSeconds @param {() => number} [now] milliseconds */
  constructor(idleSeconds, now = () => performance.now()) {
    this.idleSeconds = idleSeconds;
    this.now = now;
    const onInput = () => {
      this.#count();
      this.#input = this.now();
    };
    for (const name of INPUTS) window.addEventListener(name, onInput, { passive: true, capture: true });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#count() : (this.#last = this.now())));
  }

  /** Milliseconds since the last input. */
  get idleMs() {
    return this.now() - this.#input;
  }

  /** The person looks at something else now. @param {Subject} subject */
  attend(subject) {
    this.#count();
    this.#subject = subject;
  }

  /**
   * The active seconds of decisions that are made now: each has the time of its own query, and an equal share of the
   * time of the view. They begin at 0 again.
   * @param {Subject[]} subjects
   * @returns {number[]}
   */
  spend(subjects) {
    this.#count();
    const shared = subjects.includes(this.#subject) ? 0 : this.#take(this.#subject) / subjects.length;
    return subjects.map((subject) => Math.round((this.#take(subject) + shared) * 1000) / 1000);
  }

  /** @param {Subject} subject */
  #take(subject) {
    const seconds = this.#seconds.get(subject) ?? 0;
    this.#seconds.delete(subject);
    return seconds;
  }

  #count() {
    const now = this.now();
    const passed = (now - this.#last) / 1000;
    if (passed <= this.idleSeconds && this.#subject !== null) {
      this.#seconds.set(this.#subject, (this.#seconds.get(this.#subject) ?? 0) + passed);
    }
    this.#last = now;
  }
}
