// Publishing: the position, refusals, what is known of an outcome, safe repetition, bounds on what waits.
import assert from "node:assert/strict";
import { test } from "node:test";
import WebSocket from "ws";
import { FakeGateway } from "./fake.mjs";
import { next, open, record, refused, stateOf, turn, until } from "./harness.mjs";

async function gatewayFor(t) {
  const gateway = await new FakeGateway().start();
  t.after(() => gateway.stop());
  return gateway;
}

const sent = gateway => gateway.commands.filter(command => command.op === "publish");

test("the answer is the position", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const { epoch } = gateway.topic("p");
  assert.deepEqual(await client.publish("p", { a: 1 }), { topic: "p", epoch, offset: 1, level: "accepted", duplicate: false });
  assert.equal((await client.publish("p", { a: 2 })).offset, 2);
});

test("JSON, text, bytes and blobs arrive as what they are, in the order of the calls", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  // Open, so that all but the blob could be sent at once.
  await stateOf(client, "open");
  const bytes = new Uint8Array([9, 1, 2, 255, 9]).subarray(1, 4);
  const positions = await Promise.all([
    client.publish("p", new Blob([bytes])),
    client.publish("p", { text: "data" }),
    client.publish("p", "a string is JSON"),
    client.publish("p", "a text", { text: true }),
    client.publish("p", bytes),
    client.publish("p", bytes.buffer, { key: "k", once: "mine" }),
    client.publish("p", null),
  ]);
  assert.deepEqual(positions.map(position => position.offset), [1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(gateway.topic("p").kept.map(({ data, text, base64 }) => base64 ?? text ?? data),
    ["AQL/", { text: "data" }, "a string is JSON", "a text", "AQL/", "CQEC/wk=", null]);
  assert.deepEqual([sent(gateway)[5].key, sent(gateway)[5].once], ["k", "mine"]);
});

test("what is published is what it was at the call", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const data = { n: 1, when: new Date(0) };
  const published = client.publish("p", data);
  data.n = 2;
  await published;
  assert.deepEqual(gateway.topic("p").kept[0].data, { n: 1, when: "1970-01-01T00:00:00.000Z" });
});

test("what is no JSON is refused here", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const round = {};
  round.round = round;
  for (const data of [undefined, () => {}, round, 1n]) await assert.rejects(client.publish("p", data), TypeError);
  await client.publish("p", "fine");
  assert.equal(sent(gateway).length, 1);
});

test("a refusal carries its code", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  await refused(client.publish("secret/p", 1), "not_allowed");
  await refused(client.publish("", 1), "invalid_topic");
});

test("before the connection is there, publications wait; while it is away too", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const first = client.publish("p", 1);
  assert.equal((await first).offset, 1);
  gateway.cut();
  await stateOf(client, "waiting");
  const second = client.publish("p", 2), third = client.publish("p", 3);
  assert.ok(client.bufferedAmount > 0);
  await clock.advance(500);
  assert.deepEqual([(await second).offset, (await third).offset], [2, 3]);
  assert.equal(client.bufferedAmount, 0);
});

test("cut before the answer: the outcome is unknown, and it is not sent again", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  gateway.faults.command = ({ op }) => op === "publish" ? "unanswered" : undefined;
  const outcome = refused(client.publish("p", 1), "unknown");
  await until("it arrives", () => sent(gateway).length === 1);
  gateway.cut();
  await outcome;
  gateway.faults.command = null;
  await clock.advance(500);
  assert.equal((await client.publish("p", 2)).offset, 2);
  assert.equal(sent(gateway).length, 2);
});

test("with a key it is sent again, and done once", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  let cuts = 2;
  gateway.faults.command = ({ op, data }, session, socket) => {
    if (op !== "publish" || cuts === 0) return undefined;
    cuts -= 1;
    setImmediate(() => socket.terminate());
    return data === "unseen" ? "lost" : "unanswered";
  };
  const published = Promise.all([client.publish("p", "seen", { once: true }), client.publish("p", "unseen", { once: true }), client.publish("p", "third", { once: "own" })]);
  let positions = null;
  published.then(all => { positions = all; });
  await until("all three", async () => { if (client.state === "waiting") await clock.advance(1000); return positions; });
  assert.equal(cuts, 0);
  assert.deepEqual(gateway.topic("p").kept.map(message => message.data).sort(), ["seen", "third", "unseen"]);
  assert.equal(positions[0].duplicate, true);
  const keys = sent(gateway).map(command => command.once);
  assert.equal(new Set(keys).size, 3);
  assert.ok(keys.length > 3);
});

test("with a key, but so late that the gateway may have forgotten it: unknown", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  gateway.faults.command = ({ op }) => op === "publish" ? "unanswered" : undefined;
  const outcome = refused(client.publish("p", 1, { once: true, timeoutMs: 1e9 }), "unknown");
  await until("it arrives", () => sent(gateway).length === 1);
  gateway.cut();
  await stateOf(client, "waiting");
  clock.ms += 300_000;
  await clock.advance(0);
  await outcome;
  assert.equal(client.bufferedAmount, 0);
  assert.equal(sent(gateway).length, 1);
});

test("what is sent again keeps its order, before what came later", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  gateway.faults.command = ({ op }) => op === "publish" ? "lost" : undefined;
  const published = [1, 2, 3].map(each => client.publish("p", each, { once: true }));
  await until("they arrive", () => sent(gateway).length === 3);
  gateway.faults.command = null;
  gateway.cut();
  await stateOf(client, "waiting");
  published.push(client.publish("p", 4));
  await clock.advance(500);
  assert.deepEqual((await Promise.all(published)).map(position => position.offset), [1, 2, 3, 4]);
  assert.deepEqual(gateway.topic("p").kept.map(message => message.data), [1, 2, 3, 4]);
});

test("reads are asked again after a cut", async t => {
  const gateway = await gatewayFor(t);
  gateway.publish("p", { data: 1 });
  const { client, clock } = open(t, gateway);
  gateway.faults.command = ({ op }) => op === "history" ? "lost" : undefined;
  const answer = client.history("p");
  await until("it is asked", () => gateway.commands.some(command => command.op === "history"));
  gateway.faults.command = null;
  gateway.cut();
  await stateOf(client, "waiting");
  await clock.advance(500);
  assert.equal((await answer).messages.length, 1);
});

test("in time or not at all: not_sent if it was never sent, unknown if it was, timeout for a question", async t => {
  const gateway = await gatewayFor(t);
  gateway.faults.upgrade = "hang";
  const { client: away, clock: first } = open(t, gateway, { connectTimeoutMs: 1e6 });
  const unsent = refused(away.publish("p", 1, { timeoutMs: 2000 }), "not_sent");
  await first.advance(2000);
  await unsent;
  assert.equal(away.bufferedAmount, 0);
  gateway.faults.upgrade = null;
  const { client, clock } = open(t, gateway);
  gateway.faults.command = ({ op }) => op === "publish" || op === "presence" ? "lost" : undefined;
  const unknown = refused(client.publish("p", 1), "unknown"), question = refused(client.presence("p"), "timeout");
  await until("both arrive", () => gateway.commands.some(command => command.op === "presence"));
  await clock.advance(30_000);
  await unknown;
  await question;
});

test("beyond so many bytes nothing more waits", async t => {
  const gateway = await gatewayFor(t);
  gateway.faults.upgrade = "hang";
  const { client } = open(t, gateway, { waitingBytes: 1000 });
  const waiting = Array.from({ length: 3 }, () => client.publish("p", "x".repeat(300)));
  await refused(client.publish("p", "x".repeat(300)), "backlog");
  client.close();
  for (const one of waiting) await refused(one, "not_sent");
});

test("one that is larger than the bound waits alone", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway, { waitingBytes: 1000 });
  assert.equal((await client.publish("p", "x".repeat(5000))).offset, 1);
});

test("sending heeds bufferedAmount", async t => {
  const gateway = await gatewayFor(t);
  let full = 0;
  class Full extends WebSocket {
    get bufferedAmount() { return full; }
  }
  const { client, clock } = open(t, gateway, { WebSocket: Full, bufferedBytes: 1000 });
  await stateOf(client, "open");
  full = 1001;
  const published = client.publish("p", 1);
  await clock.advance(1000);
  await turn();
  assert.equal(sent(gateway).length, 0);
  full = 1000;
  await clock.advance(25);
  assert.equal((await published).offset, 1);
});

test("a subscriber gets its own publication, before or after the answer", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const topic = client.subscribe("p");
  const events = record(topic, "message");
  await topic.ready;
  const coming = next(topic, "message");
  const { offset } = await client.publish("p", "mine");
  await coming;
  assert.deepEqual(events.map(event => event.offset), [offset]);
});

test("a publication that is too large is refused alone, and the client comes back", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { transports: ["websocket"] });
  const topic = client.subscribe("p");
  await topic.ready;
  gateway.faults.command = ({ op, text }, session, socket) => {
    if (op !== "publish" || text.length < 100) return op === "publish" && gateway.held ? "lost" : undefined;
    socket.close(1009);
    return "lost";
  };
  gateway.held = true;
  const large = refused(client.publish("p", "x".repeat(100), { text: true, once: true }), "too_large");
  const safe = client.publish("p", "after", { text: true, once: true });
  await large;
  gateway.held = false;
  await stateOf(client, "waiting");
  await clock.advance(500);
  await next(topic, "subscribed");
  assert.equal((await safe).level, "accepted");
  assert.equal(client.state, "open");
  assert.deepEqual(gateway.topic("p").kept.map(({ text }) => text), ["after"]);
});
