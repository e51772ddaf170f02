// The page's assertions say what those of Node say.
import original from "node:assert/strict";
import { test } from "node:test";
import { assert } from "./assert.mjs";

const VALUES = [
  undefined, null, true, false, 0, -0, 1, NaN, "", "1", "a", [], [undefined], [null], [1], [1, 2], [2, 1], [[1]], {}, { a: undefined }, { a: 1 }, { b: 1 },
  { a: 1, b: 2 }, { b: 2, a: 1 }, { a: [1, { b: "c" }] }, { a: [1, { b: "d" }] }, { 0: 1, length: 1 }, Object.create(null), "undefined", ["undefined"],
];

const verdict = check => {
  try {
    check();
    return "holds";
  } catch (error) {
    original.equal(error.name, "AssertionError");
    return "fails";
  }
};

for (const name of Object.keys(assert)) {
  test(`${name} of any two values`, () => {
    const seen = new Set();
    for (const one of VALUES) {
      for (const other of name === "ok" ? ["why"] : VALUES.map(value => structuredClone(value))) {
        const expected = verdict(() => original[name](one, other));
        original.equal(verdict(() => assert[name](one, other)), expected, `${name} of ${JSON.stringify(one)} and ${JSON.stringify(other)}`);
        seen.add(expected);
      }
    }
    original.equal(seen.size, 2);
  });
}

test("what it does not know it does not take for equal", () => {
  original.throws(() => assert.deepEqual(new Map([[1, 2]]), new Map([[1, 3]])), TypeError);
});
