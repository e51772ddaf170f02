// The shared cases under Node: against the fake, so that it does not drift from what it stands for, and against the real gateway
// where TIDEGATE_BIN names one.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import WebSocket from "ws";
import * as library from "../../crates/shard/assets/tidegate.js";
import { names, run } from "./cases.mjs";
import { EventSource } from "./harness.mjs";
import { World } from "./world.mjs";

const binaries = [undefined, process.env.TIDEGATE_BIN].slice(0, process.env.TIDEGATE_BIN ? 2 : 1);

for (const binary of binaries) {
  const world = new World(binary);
  describe(`at ${world.name}`, () => {
    before(() => world.start());
    after(() => world.stop());
    for (const name of names()) test(`${world.name}: ${name}`, () => run(name, { library, platform: { WebSocket, EventSource }, world, assert }));
  });
}
