// The shared cases in a page: what the page asks of the world goes by messages to who drives the browser (livepage.mjs).
import * as library from "/tidegate.js";
import { assert } from "./assert.mjs";
import { run as runCase } from "./cases.mjs";

const asked = new Map();
let number = 0;

globalThis.answerOfWorld = (id, value, error) => {
  const { resolve, reject } = asked.get(id);
  asked.delete(id);
  if (error) reject(new Error(error)); else resolve(value);
};

const ask = (call, values) => new Promise((resolve, reject) => {
  number += 1;
  asked.set(number, { resolve, reject });
  globalThis.askWorld(JSON.stringify({ id: number, call, values }));
});

/** @param {{url: string, origin: string, calls: string[]}} given */
export function run(name, { url, origin, calls }) {
  const world = { url, origin };
  for (const call of calls) world[call] = (...values) => ask(call, values);
  return runCase(name, { library, platform: {}, world, assert });
}
