// As much of node:assert/strict as the shared cases use, for a page. assert.test.mjs holds it against the original.

class AssertionError extends Error {
  name = "AssertionError";
}

const kind = value => Object.prototype.toString.call(value);

function same(one, other) {
  if (Object.is(one, other)) return true;
  if (one === null || other === null || typeof one !== "object" || typeof other !== "object") return false;
  if (kind(one) !== kind(other) || Object.getPrototypeOf(one) !== Object.getPrototypeOf(other)) return false;
  // What else there is (dates, maps, buffers) the cases do not compare, and it would be wrong to take their properties for all.
  if (!["[object Object]", "[object Array]"].includes(kind(one))) throw new TypeError(`${kind(one)} cannot be compared here`);
  const names = Object.keys(one);
  return one.length === other.length && names.length === Object.keys(other).length && names.every(name => Object.hasOwn(other, name) && same(one[name], other[name]));
}

const shown = value => JSON.stringify(value, (_, part) => part === undefined ? "undefined" : part) ?? String(value);

function fail(message, otherwise) { throw new AssertionError(message ?? otherwise); }

export const assert = {
  ok(value, message) { if (!value) fail(message, `${shown(value)} is not true`); },
  equal(actual, expected, message) { if (!Object.is(actual, expected)) fail(message, `${shown(actual)} instead of ${shown(expected)}`); },
  notEqual(actual, unwanted, message) { if (Object.is(actual, unwanted)) fail(message, `${shown(actual)}, which it must not be`); },
  deepEqual(actual, expected, message) { if (!same(actual, expected)) fail(message, `${shown(actual)} instead of ${shown(expected)}`); },
};
