/** The time of decisions: without pauses, each candidate its own, the page of the gallery shared. */

import assert from "node:assert/strict";
import { test } from "node:test";

const listeners = { keydown: [] };
globalThis.window = { addEventListener: (name, run) => (listeners[name] ??= []).push(run) };
globalThis.document = { addEventListener: () => {}, hidden: false };
const { Clock } = await import("../../src/twostream/web/static/clock.js");

function clock() {
  let now = performance.now();
  const made = new Clock(30, () => now);
  made.attend(null);
  const pass = (seconds) => {
    for (let left = seconds; left > 0; left -= 10) {
      now += Math.min(10, left) * 1000;
      listeners.keydown.at(-1)();
    }
  };
  const sleep = (seconds) => (now += seconds * 1000);
  return { made, pass, sleep };
}

test("a pause without input does not count", () => {
  const { made, pass, sleep } = clock();
  made.attend(7);
  pass(12);
  sleep(31);
  made.attend(7);
  pass(3);
  assert.deepEqual(made.spend([7]), [15]);
  assert.deepEqual(made.spend([7]), [0]);
});

test("what was looked at and left keeps its time", () => {
  const { made, pass } = clock();
  made.attend(7);
  pass(20);
  made.attend(8);
  pass(4);
  assert.deepEqual(made.spend([8]), [4]);
  made.attend("gallery");
  pass(6);
  assert.deepEqual(made.spend([7, 9, 10]), [22, 2, 2]);
});

test("time between candidates belongs to none", () => {
  const { made, pass } = clock();
  made.attend(7);
  pass(5);
  made.attend(null);
  pass(9);
  made.attend(8);
  assert.deepEqual(made.spend([7]), [5]);
  assert.deepEqual(made.spend([8]), [0]);
});
