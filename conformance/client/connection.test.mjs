// The connection's life: coming back, waits, limits, what a close code advises, heartbeats, the page.
import assert from "node:assert/strict";
import { test } from "node:test";
import WebSocket from "ws";
import { connect } from "../../crates/shard/assets/tidegate.js";
import { FakeGateway } from "./fake.mjs";
import { Clock, next, open, page, record, refused, stateOf, turn, until } from "./harness.mjs";

async function gatewayFor(t) {
  const gateway = await new FakeGateway().start();
  t.after(() => gateway.stop());
  return gateway;
}

const only = { transports: ["websocket"] };
const waiting = client => next(client, "state", event => event.state === "waiting");

test("it says what it does: connecting, open, waiting, open again, closed", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const states = record(client, "state");
  assert.equal(client.state, "connecting");
  await stateOf(client, "open");
  assert.equal(client.transport, "websocket");
  assert.match(client.id, /^[\w-]{8}$/);
  const id = client.id;
  gateway.cut();
  await stateOf(client, "waiting");
  assert.equal(client.transport, null);
  assert.equal(client.id, null);
  await clock.advance(500);
  await stateOf(client, "open");
  assert.notEqual(client.id, id);
  client.close();
  assert.deepEqual(states.map(event => event.state), ["connecting", "open", "waiting", "connecting", "open", "closed"]);
  assert.equal(states[2].code, 1006);
});

test("waits grow with full jitter up to a cap", async t => {
  const gateway = await gatewayFor(t);
  gateway.faults.upgrade = 503;
  const { client, clock } = open(t, gateway, { ...only, baseWaitMs: 500, maxWaitMs: 10_000 });
  const waits = [];
  for (let dice of [0.5, 0.999, 0, 0.5, 1, 1, 1, 1]) {
    clock.dice = dice;
    const { waitMs } = await waiting(client);
    waits.push(Math.round(waitMs));
    await clock.advance(waitMs);
  }
  assert.deepEqual(waits, [250, 999, 0, 2000, 8000, 10_000, 10_000, 10_000]);
});

test("so many tries in a row and no more; a connection that lived starts them anew", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { ...only, maxTries: 2, livedMs: 5000 });
  await stateOf(client, "open");
  // Short lives count as failures.
  for (let life = 0; life < 2; life += 1) {
    gateway.cut();
    const { tries } = await waiting(client);
    assert.equal(tries, life + 1);
    await clock.advance(2000);
    await stateOf(client, "open");
  }
  await clock.advance(5000);
  gateway.cut();
  const { tries } = await waiting(client);
  assert.equal(tries, 1);
  gateway.faults.upgrade = 503;
  const closed = next(client, "state", event => event.state === "closed");
  const again = waiting(client);
  await clock.advance(1000);
  await again;
  await clock.advance(1000);
  assert.equal((await closed).cause, "gave_up");
  // A person may still ask for it.
  gateway.faults.upgrade = null;
  client.reconnect();
  await stateOf(client, "open");
});

for (const code of [1000, 1008, 1009, 4000, 4321]) {
  test(`close code ${code} means: do not come back`, async t => {
    const gateway = await gatewayFor(t);
    const { client, clock } = open(t, gateway);
    const topic = client.subscribe("x");
    const errors = record(topic, "error");
    await topic.ready;
    gateway.close(code, "go away");
    const closed = await next(client, "state", event => event.state === "closed");
    assert.deepEqual([closed.code, closed.reason, closed.cause], [code, "go away", "told"]);
    assert.equal(clock.timers.length, 0);
    assert.deepEqual(errors.map(event => event.code), ["closed"]);
    await refused(client.publish("x", 1), "closed");
    // Subscriptions stay for a person's own wish.
    client.reconnect();
    await next(topic, "subscribed");
  });
}

for (const [code, least, most] of [[1001, 500, 4500], [1012, 500, 4500], [1013, 500, 4500], [1006, 0, 500], [1011, 0, 500]]) {
  test(`close code ${code} means: come back after ${least} to ${most} ms`, async t => {
    const gateway = await gatewayFor(t);
    for (const [dice, expected] of [[0, least], [1, most]]) {
      const { client, clock } = open(t, gateway, only);
      await stateOf(client, "open");
      clock.dice = dice;
      if (code === 1006) gateway.cut(); else gateway.close(code);
      const { waitMs } = await waiting(client);
      assert.equal(waitMs, expected);
      client.close();
    }
  });
}

test("retry_ms in the reason is heeded, whatever the code", async t => {
  const gateway = await gatewayFor(t);
  for (const code of [1008, 1013, 4001]) {
    const { client, clock } = open(t, gateway, only);
    await stateOf(client, "open");
    clock.dice = 0;
    gateway.close(code, JSON.stringify({ retry_ms: 60_000 }));
    const { waitMs } = await waiting(client);
    assert.equal(waitMs, 60_000);
    await clock.advance(59_999);
    assert.equal(client.state, "waiting");
    await clock.advance(1);
    await stateOf(client, "open");
    client.close();
  }
});

test("what never opens is given up on in time", async t => {
  const gateway = await gatewayFor(t);
  gateway.faults.upgrade = "hang";
  const { client, clock } = open(t, gateway, { ...only, connectTimeoutMs: 3000 });
  await until("the request", () => gateway.commands.length === 1);
  await clock.advance(2999);
  assert.equal(client.state, "connecting");
  const wait = waiting(client);
  await clock.advance(1);
  assert.equal((await wait).cause, "timeout");
});

test("a connection that is accepted and says nothing does not count as open", async t => {
  const gateway = await gatewayFor(t);
  gateway.faults.hello = false;
  const { client, clock } = open(t, gateway, { ...only, connectTimeoutMs: 3000 });
  await until("the session", () => gateway.sessions.size === 1);
  const wait = waiting(client);
  await clock.advance(3000);
  assert.equal((await wait).cause, "timeout");
});

test("a gateway of another version is left alone", async t => {
  const gateway = await gatewayFor(t);
  gateway.faults.version = 2;
  const { client } = open(t, gateway);
  const closed = await next(client, "state", event => event.state === "closed");
  assert.equal(closed.cause, "version");
});

test("silence: a ping after what hello says, and a new connection without a pong", async t => {
  const gateway = await gatewayFor(t);
  gateway.ping = 20;
  const { client, clock } = open(t, gateway, { ...only, pongTimeoutMs: 4000 });
  await stateOf(client, "open");
  const pings = () => gateway.commands.filter(command => command.op === "ping").length;
  await clock.advance(19_999);
  assert.equal(pings(), 0);
  await clock.advance(1);
  await until("the ping", () => pings() === 1);
  await until("the pong", () => clock.next(4001) === 20_000);
  gateway.faults.silent = true;
  const wait = waiting(client);
  await clock.advance(20_000);
  await clock.advance(3999);
  assert.equal(client.state, "open");
  await clock.advance(1);
  assert.equal((await wait).cause, "silence");
  gateway.faults.silent = false;
  await clock.advance(1000);
  await stateOf(client, "open");
});

test("a message is as good as a pong", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, only);
  const topic = client.subscribe("x");
  await topic.ready;
  gateway.faults.command = ({ op }) => op === "ping" ? "lost" : undefined;
  await clock.advance(25_000);
  const coming = next(topic, "message");
  gateway.publish("x", { data: 1 });
  await coming;
  await clock.advance(10_000);
  assert.equal(client.state, "open");
});

test("a ping behind much that goes out slowly is no silence, as long as it moves", async t => {
  const gateway = await gatewayFor(t);
  let buffered = 0;
  class Slow extends WebSocket {
    get bufferedAmount() { return buffered; }
  }
  const { client, clock } = open(t, gateway, { ...only, WebSocket: Slow });
  await stateOf(client, "open");
  gateway.faults.silent = true;
  for (buffered = 3000; buffered > 0; buffered -= 1000) {
    await clock.advance(buffered === 3000 ? 25_000 : 10_000);
    assert.equal(client.state, "open");
  }
  const wait = waiting(client);
  await clock.advance(20_000);
  assert.equal((await wait).cause, "silence");
});

test("whatever is heard is a sign of life: no ping", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("x");
  await topic.ready;
  for (let minute = 0; minute < 4; minute += 1) {
    await clock.advance(20_000);
    const coming = next(topic, "message");
    gateway.publish("x", { data: minute });
    await coming;
  }
  assert.equal(gateway.commands.filter(command => command.op === "ping").length, 0);
});

test("a hidden page asks once a minute, and at once when it is seen again", async t => {
  const gateway = await gatewayFor(t);
  const seen = page();
  seen.hide(true);
  const { client, clock } = open(t, gateway, { page: seen });
  await stateOf(client, "open");
  const pings = () => gateway.commands.filter(command => command.op === "ping").length;
  await clock.advance(59_000);
  assert.equal(pings(), 0);
  seen.hide(false);
  await until("the ping", () => pings() === 1);
});

test("a page that slept does not take its own late timers for a dead connection", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const states = record(client, "state");
  await stateOf(client, "open");
  const pings = () => gateway.commands.filter(command => command.op === "ping").length;
  gateway.faults.command = ({ op }) => op === "ping" && pings() === 1 ? "lost" : undefined;
  await clock.advance(25_000);
  await until("the first ping", () => pings() === 1);
  // An hour later all timers run at once, before the network was looked at.
  await clock.jump(3_600_000);
  await until("the second ping", () => pings() === 2);
  await until("the pong", () => clock.next(10_001) === 25_000);
  assert.deepEqual(states.map(event => event.state), ["connecting", "open"]);
});

test("late timers are forgiven once: in a hidden page a dead connection is found all the same", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, only);
  await stateOf(client, "open");
  gateway.faults.silent = true;
  await clock.advance(25_000);
  const wait = waiting(client);
  await clock.jump(60_000);
  assert.equal(client.state, "open");
  await clock.jump(60_000);
  assert.equal((await wait).cause, "silence");
});

test("a clock that is set back puts the heartbeat off by no more than its interval", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, only);
  await stateOf(client, "open");
  clock.ms -= 3_600_000;
  for (const timer of clock.timers) timer.at -= 3_600_000;
  await clock.advance(25_000);
  await clock.advance(25_000);
  await until("the ping", () => gateway.commands.some(command => command.op === "ping"));
});

test("a page that is seen again does not shorten a wait that the gateway asked for", async t => {
  const gateway = await gatewayFor(t);
  for (const [code, reason] of [[1013, ""], [1008, `{"retry_ms":4000}`]]) {
    const seen = page();
    const { client, clock } = open(t, gateway, { ...only, page: seen });
    await stateOf(client, "open");
    clock.dice = 1;
    gateway.close(code, reason);
    await waiting(client);
    seen.hide(false);
    await clock.advance(3999);
    assert.equal(client.state, "waiting");
    await clock.advance(501);
    await stateOf(client, "open");
    client.close();
  }
});

test("the network goes: a look at the connection; it comes back: a try at once", async t => {
  const gateway = await gatewayFor(t);
  const seen = page();
  const { client, clock } = open(t, gateway, { page: seen });
  await stateOf(client, "open");
  seen.network(false);
  await until("the ping", () => gateway.commands.some(command => command.op === "ping"));
  await until("the pong", () => clock.next(10_001) === 25_000);
  gateway.cut();
  const { waitMs } = await waiting(client);
  const before = gateway.commands.length;
  await clock.advance(waitMs);
  // No network: no try, but one at last, as browsers may be wrong.
  assert.equal(client.state, "waiting");
  assert.equal(gateway.commands.length, before);
  seen.network(true);
  await clock.advance(500);
  await stateOf(client, "open");
});

test("offline, a try is made all the same after the longest wait", async t => {
  const gateway = await gatewayFor(t);
  const seen = page();
  const { client, clock } = open(t, gateway, { page: seen });
  await stateOf(client, "open");
  seen.network(false);
  gateway.cut();
  await stateOf(client, "waiting");
  await clock.advance(30_500);
  await stateOf(client, "open");
});

test("close ends everything: subscriptions, questions, timers, listeners on the page", async t => {
  const gateway = await gatewayFor(t);
  const seen = page();
  const { client, clock } = open(t, gateway, { page: seen });
  const topic = client.subscribe("x");
  await topic.ready;
  const reader = topic[Symbol.asyncIterator]().next();
  gateway.faults.silent = true;
  const asked = client.presence("x");
  const outcome = refused(client.publish("x", 1), "unknown");
  client.close(1000, "bye");
  await outcome;
  await assert.rejects(asked);
  assert.equal((await reader).done, true);
  assert.equal(topic.state, "ended");
  assert.equal(client.state, "closed");
  assert.throws(() => client.subscribe("y"), { code: "closed" });
  await refused(client.publish("x", 2), "closed");
  client.reconnect();
  seen.network(false);
  seen.network(true);
  await turn();
  assert.equal(client.state, "closed");
  assert.deepEqual(clock.timers, []);
  await until("the gateway's side", () => gateway.sessions.size === 0);
});

test("close before it was open", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  client.close();
  await turn();
  assert.equal(client.state, "closed");
  assert.deepEqual(clock.timers, []);
  const { client: other, clock: watch } = open(t, gateway);
  await turn();
  other.close();
  await turn();
  assert.deepEqual(watch.timers, []);
});

test("what is not a gateway's address, or no option, is refused at once", () => {
  assert.throws(() => connect("ftp://127.0.0.1/"), TypeError);
  assert.throws(() => connect("nonsense"), TypeError);
  assert.throws(() => connect("ws://127.0.0.1/", { binaryType: "nodebuffer" }), TypeError);
  assert.throws(() => connect("ws://127.0.0.1/", { transports: ["pigeon"] }), TypeError);
});

test("errors without a number are the client's", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  await stateOf(client, "open");
  const error = next(client, "error");
  for (const session of gateway.sessions) session.send({ op: "error", code: "invalid_json", message: "what?" });
  assert.equal((await error).code, "invalid_json");
  for (const session of gateway.sessions) session.send({ op: "a word of tomorrow" });
  await client.presence("x");
});

test("nothing is left in the global scope or on the console", async t => {
  const before = Object.getOwnPropertyNames(globalThis).sort();
  const said = [];
  const { log, warn, error } = console;
  Object.assign(console, { log: (...all) => said.push(all), warn: (...all) => said.push(all), error: (...all) => said.push(all) });
  t.after(() => Object.assign(console, { log, warn, error }));
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  await client.subscribe("x").ready;
  gateway.cut();
  await stateOf(client, "waiting");
  await clock.advance(500);
  await stateOf(client, "open");
  client.close();
  assert.deepEqual(Object.getOwnPropertyNames(globalThis).sort(), before);
  assert.deepEqual(said, []);
});
