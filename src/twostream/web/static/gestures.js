/**
 * Pointers on a canvas (mouse, pen, fingers) as pan, zoom, scroll, tap and stroke.
 *
 * Knows pointer events only: what is panned or drawn is the handlers' business.
 */

/**
 * @typedef {object} Handlers lengths and places in CSS pixels of the canvas
 * @property {(dx: number, dy: number) => void} pan
 * @property {(factor: number, x: number, y: number) => void} zoom about the point x, y
 * @property {(sections: number) => void} scroll
 * @property {(x: number, y: number) => void} tap
 * @property {(event: PointerEvent) => boolean} isStroke does this press draw instead of pan?
 * @property {(phase: 'down' | 'move' | 'up' | 'cancel', x: number, y: number, event: PointerEvent) => void} stroke
 * @property {(x: number, y: number, event: PointerEvent) => void} hover the pointer moves and is not pressed
 * @property {() => void} leave the pointer left the canvas
 */

/** A pointer that moves less than this taps; a finger is less steady than a mouse. */
const SLOP = { mouse: 3, pen: 5, touch: 8 };
/** Wheel movement of at least this is one notch of a mouse; less comes from a touchpad and is added up. */
const NOTCH = 50;
const TOUCHPAD_SECTION = 30;
const LINE = 33;

export class Gestures {
  /** @type {Map<number, {x: number, y: number}>} */
  #pointers = new Map();
  /** @type {'idle' | 'press' | 'pan' | 'pinch' | 'finger' | 'stroke'} finger: a touch that may become a stroke */
  #mode = "idle";
  /** @type {PointerEvent | null} */
  #first = null;
  #wheel = 0;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Handlers} handlers
   * @param {AbortSignal} signal ends listening
   */
  constructor(canvas, handlers, signal) {
    this.canvas = canvas;
    this.handlers = handlers;
    canvas.style.touchAction = "none";
    const options = { signal };
    canvas.addEventListener("pointerdown", (event) => this.#down(event), options);
    canvas.addEventListener("pointermove", (event) => this.#move(event), options);
    canvas.addEventListener("pointerup", (event) => this.#up(event, false), options);
    canvas.addEventListener("pointercancel", (event) => this.#up(event, true), options);
    canvas.addEventListener("pointerleave", () => handlers.leave(), options);
    canvas.addEventListener("wheel", (event) => this.#onWheel(event), { signal, passive: false });
    // The middle button must not start the browser's own scrolling.
    canvas.addEventListener("mousedown", (event) => event.button === 1 && event.preventDefault(), options);
  }

  /** @param {MouseEvent} event */
  #place(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  /**
   * @param {'down' | 'move' | 'up' | 'cancel'} phase
   * @param {PointerEvent} event
   */
  #stroke(phase, event) {
    const { x, y } = this.#place(event);
    this.handlers.stroke(phase, x, y, event);
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button > 1 || this.#pointers.size >= 2) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#place(event));
    if (this.#pointers.size === 2) {
      if (this.#mode === "stroke") this.#stroke("cancel", event);
      this.#mode = "pinch";
      return;
    }
    this.#first = event;
    const draws = this.handlers.isStroke(event);
    // A finger's stroke waits until it moves: a second finger may follow to pinch.
    this.#mode = !draws ? "press" : event.pointerType === "touch" ? "finger" : "stroke";
    if (this.#mode === "stroke") this.#stroke("down", event);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const last = this.#pointers.get(event.pointerId);
    const now = this.#place(event);
    if (!last) return this.handlers.hover(now.x, now.y, event);
    if (this.#mode === "pinch") return this.#pinch(event.pointerId, now);
    if (this.#mode === "stroke") {
      const parts = event.getCoalescedEvents();
      for (const part of parts.length ? parts : [event]) this.#stroke("move", part);
      return;
    }
    if (this.#mode !== "pan") {
      const slop = SLOP[/** @type {keyof typeof SLOP} */ (event.pointerType)] ?? SLOP.mouse;
      if (Math.hypot(now.x - last.x, now.y - last.y) < slop || !this.#first) return;
      if (this.#mode === "finger") {
        this.#mode = "stroke";
        this.#stroke("down", this.#first);
        return this.#stroke("move", event);
      }
      this.#mode = "pan";
    }
    this.handlers.pan(now.x - last.x, now.y - last.y);
    this.#pointers.set(event.pointerId, now);
  }

  /**
   * Two fingers: the tissue under each stays under it.
   * @param {number} id
   * @param {{x: number, y: number}} now
   */
  #pinch(id, now) {
    const before = [...this.#pointers.values()];
    this.#pointers.set(id, now);
    const after = [...this.#pointers.values()];
    const [from, to] = [spread(before), spread(after)];
    this.handlers.pan(to.x - from.x, to.y - from.y);
    if (from.length > 0 && to.length > 0) this.handlers.zoom(to.length / from.length, to.x, to.y);
  }

  /**
   * @param {PointerEvent} event
   * @param {boolean} cancelled
   */
  #up(event, cancelled) {
    if (!this.#pointers.delete(event.pointerId)) return;
    const mode = this.#mode;
    this.#mode = mode === "pinch" && this.#pointers.size === 1 ? "pan" : "idle";
    if (mode === "stroke") this.#stroke(cancelled ? "cancel" : "up", event);
    if (cancelled || !this.#first) return;
    if (mode === "finger") {
      this.#stroke("down", this.#first);
      this.#stroke("up", event);
    }
    if (mode === "press" && this.#first.button === 0) {
      const { x, y } = this.#place(event);
      this.handlers.tap(x, y);
    }
  }

  /** @param {WheelEvent} event */
  #onWheel(event) {
    event.preventDefault();
    const raw = event.deltaY || event.deltaX; // shift turns the wheel sideways
    const delta = event.deltaMode === 0 ? raw : raw * LINE;
    if (event.ctrlKey || event.metaKey) {
      const { x, y } = this.#place(event);
      this.handlers.zoom(Math.exp(-Math.max(-30, Math.min(30, delta)) * 0.01), x, y);
      return;
    }
    let sections = Math.sign(delta) * Math.max(1, Math.round(Math.abs(delta) / 120));
    if (Math.abs(delta) < NOTCH) {
      this.#wheel += delta;
      sections = Math.trunc(this.#wheel / TOUCHPAD_SECTION);
      this.#wheel -= sections * TOUCHPAD_SECTION;
    } else {
      this.#wheel = 0;
    }
    if (sections !== 0) this.handlers.scroll(event.shiftKey ? 5 * sections : sections);
  }
}

/** @param {{x: number, y: number}[]} two the middle of two points and the length between them */
function spread([a, b]) {
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, length: Math.hypot(a.x - b.x, a.y - b.y) };
}
