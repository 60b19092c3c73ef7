/**
 * The time that a decision takes, without idle time: a pause without any input, longer than `idleSeconds`, does not
 * count, nor does a page that is hidden.
 */

const INPUTS = ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"];

export class Clock {
  #seconds = 0;
  #last = performance.now();

  /** @param {number} idleSeconds @param {() => number} [now] milliseconds */
  constructor(idleSeconds, now = () => performance.now()) {
    this.idleSeconds = idleSeconds;
    this.now = now;
    for (const name of INPUTS) window.addEventListener(name, () => this.#count(), { passive: true, capture: true });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#count() : (this.#last = this.now())));
  }

  /** Begin to measure a decision. */
  restart() {
    this.#seconds = 0;
    this.#last = this.now();
  }

  /** Active seconds since `restart`. */
  get seconds() {
    this.#count();
    return Math.round(this.#seconds * 1000) / 1000;
  }

  #count() {
    const now = this.now();
    const passed = (now - this.#last) / 1000;
    if (passed <= this.idleSeconds) this.#seconds += passed;
    this.#last = now;
  }
}
