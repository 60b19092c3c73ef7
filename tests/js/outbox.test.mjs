/** What the server refuses as a whole is sent one by one, so that only what cannot be read is set aside. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Refused } from "../../src/twostream/web/static/api.js";
import { Outbox } from "../../src/twostream/web/static/outbox.js";

class Store {
  getItem(key) {
    return Object.hasOwn(this, key) ? this[key] : null;
  }
  setItem(key, value) {
    this[key] = value;
  }
  removeItem(key) {
    delete this[key];
  }
}

async function send(refuse) {
  globalThis.localStorage = new Store();
  globalThis.window = { setTimeout: () => 0, addEventListener: () => {} };
  const recorded = [];
  const api = {
    post: async (_, { decisions }) => {
      const status = refuse(decisions);
      if (status) throw new Refused(status, "no");
      recorded.push(...decisions.map(({ key }) => key));
      return { results: decisions.map(() => ({ refused: null })) };
    },
  };
  const refused = [];
  const outbox = new Outbox(api, "p/ann", { onChange: () => {}, onRefused: ({ key }) => refused.push(key) });
  await outbox.submit(["a", "b", "c"].map((key) => ({ key, kind: "true" })));
  for (let i = 0; i < 5 && outbox.unsent().length; i++) await outbox.flush();
  assert.deepEqual(outbox.unsent(), []);
  return { recorded, refused };
}

test("three that are too large together are recorded one by one", async () => {
  const { recorded, refused } = await send((decisions) => (decisions.length > 1 ? 413 : 0));
  assert.deepEqual(recorded, ["a", "b", "c"]);
  assert.deepEqual(refused, []);
});

test("only the one that cannot be read is set aside", async () => {
  const { recorded, refused } = await send((decisions) => (decisions.some(({ key }) => key === "b") ? 422 : 0));
  assert.deepEqual(recorded, ["a", "c"]);
  assert.deepEqual(refused, ["b"]);
});

test("what came too slowly is kept and sent again", async () => {
  let calls = 0;
  const { recorded, refused } = await send(() => (++calls < 3 ? 408 : 0));
  assert.deepEqual(recorded, ["a", "b", "c"]);
  assert.deepEqual(refused, []);
});
