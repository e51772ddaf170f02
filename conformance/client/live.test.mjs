// The library under Node, in real time, through a door that cuts: against the real gateway where TIDEGATE_BIN names one, else the fake.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { connect } from "../../crates/shard/assets/tidegate.js";
import { EventSource, next, record, refused, stateOf, until } from "./harness.mjs";
import { World } from "./world.mjs";

let world, number = 0;
before(async () => { world = await new World().start(); });
after(() => world.stop());

function open(t, options = {}) {
  const client = connect(world.url, { WebSocket, EventSource, binaryType: "arraybuffer", baseWaitMs: 20, webSocketAgainMs: 500, ...options });
  t.after(() => {
    client.close();
    Object.assign(world.door, { shut: false, blocked: { websocket: false, events: false } });
  });
  return client;
}

// The embedded configuration keeps history and presence of these.
const fresh = () => `chat/test-${number += 1}`;
const data = events => events.filter(event => event.type === "message").map(event => event.data);
const answers = events => events.filter(event => event.type === "subscribed").map(event => event.recovered);

for (const transport of ["websocket", "events", "poll"]) {
  test(`${transport}: publish, receive, history, text and bytes`, async t => {
    const client = open(t, { transports: [transport] }), topic = fresh();
    await world.publish(topic, "before 1", "before 2");
    const subscription = client.subscribe(topic, { history: 1 });
    const events = record(subscription, "message", "subscribed");
    await subscription.ready;
    const { offset, level } = await client.publish(topic, { n: 1 });
    assert.deepEqual([offset, level], [3, "accepted"]);
    await client.publish(topic, "a text", { text: true });
    await client.publish(topic, new Uint8Array([0, 255]));
    await until("all", () => data(events).length === 4);
    assert.deepEqual(data(events).slice(0, 3), ["before 2", { n: 1 }, "a text"]);
    assert.deepEqual([...new Uint8Array(data(events)[3])], [0, 255]);
    assert.deepEqual(events.filter(event => event.type === "message").map(event => event.offset), [2, 3, 4, 5]);
    // Where a stream's answer gives the position before what comes first, its messages count as live.
    if (transport !== "events") assert.deepEqual(events.filter(event => event.type === "message").map(event => event.replayed), [true, false, false, false]);
    assert.deepEqual((await client.history(topic, { limit: 2 })).messages.map(message => message.offset), [4, 5]);
  });

  test(`${transport}: cut, and every message of the window comes once, in order`, async t => {
    const client = open(t, { transports: [transport] }), topic = fresh();
    // A topic that holds nothing and that nobody is subscribed to may be forgotten, and begin a new epoch.
    await world.publish(topic, "seed");
    const subscription = client.subscribe(topic);
    const events = record(subscription, "message", "subscribed");
    await subscription.ready;
    for (let round = 0; round < 3; round += 1) {
      await world.publish(topic, `${round} live`);
      await until("the live one", () => data(events).at(-1) === `${round} live`);
      world.door.shut = true;
      world.cut();
      await stateOf(client, "waiting");
      await world.publish(topic, ...Array.from({ length: 5 }, (_, each) => `${round} missed ${each}`));
      world.door.shut = false;
      await until("the missed ones", () => data(events).length === (round + 1) * 6);
    }
    assert.deepEqual(data(events), [0, 1, 2].flatMap(round => [`${round} live`, ...Array.from({ length: 5 }, (_, each) => `${round} missed ${each}`)]));
    assert.deepEqual(answers(events), [undefined, true, true, true]);
  });

  test(`${transport}: after a restart recovered is false, the epoch is new, and it goes on`, async t => {
    const client = open(t, { transports: [transport] }), topic = fresh();
    await world.publish(topic, "seed");
    const subscription = client.subscribe(topic, { history: 10 });
    const events = record(subscription, "message", "subscribed");
    await subscription.ready;
    await world.publish(topic, "old");
    await until("the old one", () => data(events).length === 2);
    const { epoch } = subscription.position;
    await world.restart();
    await until("the answer", () => answers(events).length === 2);
    assert.deepEqual(answers(events), [undefined, false]);
    assert.notEqual(subscription.position.epoch, epoch);
    await world.publish(topic, "new");
    await until("the new one", () => data(events).length === 3);
    assert.deepEqual(data(events), ["seed", "old", "new"]);
  });
}

test("many publications with keys through cuts are each done once, in a topic without a hole", async t => {
  const client = open(t), topic = fresh();
  const subscription = client.subscribe(topic, { history: 1000 });
  const events = record(subscription, "message");
  await subscription.ready;
  const published = [];
  for (let each = 0; each < 200; each += 1) {
    published.push(client.publish(topic, each, { once: true }));
    if (each % 50 === 25) { await published[each - 20]; world.cut(); }
  }
  const offsets = (await Promise.all(published)).map(({ offset }) => offset);
  assert.equal(new Set(offsets).size, 200);
  await until("all", () => events.length === 200);
  assert.deepEqual(events.map(event => event.offset), Array.from({ length: 200 }, (_, index) => index + 1));
  assert.deepEqual(data(events).sort((one, other) => one - other), Array.from({ length: 200 }, (_, index) => index));
});

test("presence: who is there, joins, leaves, and a client that vanishes", async t => {
  const ada = open(t), bob = open(t), topic = fresh();
  const room = ada.subscribe(topic, { presence: true, info: { name: "Ada" } });
  const moves = record(room, "join", "leave");
  await room.ready;
  const other = bob.subscribe(topic, { info: { name: "Bob" } });
  await other.ready;
  await until("the join", () => moves.some(event => event.type === "join" && event.info?.name === "Bob"));
  const { count, clients } = await ada.presence(topic);
  assert.equal(count, 2);
  assert.deepEqual(clients.map(({ info }) => info.name).sort(), ["Ada", "Bob"]);
  const { id } = bob;
  const left = next(room, "leave");
  bob.close();
  assert.equal((await left).client, id);
  assert.equal((await ada.presence(topic)).count, 1);
});

for (const transport of ["events", "poll"]) {
  test(`${transport}: others see it come, and it asks who is there`, async t => {
    const ada = open(t), bob = open(t, { transports: [transport] }), topic = fresh();
    const room = ada.subscribe(topic, { presence: true, info: { name: "Ada" } });
    await room.ready;
    const joined = next(room, "join", event => event.info?.name === "Bob");
    const quiet = bob.subscribe(fresh());
    const place = bob.subscribe(topic, { presence: true, info: { name: "Bob" } });
    await Promise.all([quiet.ready, place.ready]);
    assert.equal((await joined).client, bob.id);
    const { count, clients } = await bob.presence(topic);
    assert.equal(count, 2);
    assert.deepEqual(clients.map(({ info }) => info.name).sort(), ["Ada", "Bob"]);
    assert.deepEqual(await bob.presence(quiet.topic), { topic: quiet.topic, count: 0, clients: [] });
  });
}

test("patterns, and refusals with their codes", async t => {
  const client = open(t), topic = fresh();
  const pattern = client.subscribe("chat/*");
  const events = record(pattern, "message");
  await pattern.ready;
  await world.publish(topic, "by pattern");
  await until("it", () => events.some(event => event.topic === topic && event.data === "by pattern"));
  await refused(client.publish("a//b", 1), "invalid_topic");
  await refused(client.publish("chat/*", 1), "invalid_topic");
  await refused(client.subscribe("a//b").ready, "invalid_topic");
});

test("WebSockets blocked: events; streams blocked too: polls; free again: a WebSocket, nothing lost", async t => {
  world.door.blocked = { websocket: true, events: false };
  const client = open(t), topic = fresh();
  const subscription = client.subscribe(topic);
  const events = record(subscription, "message", "subscribed");
  await subscription.ready;
  assert.equal(client.transport, "events");
  await world.publish(topic, 1);
  await until("the first", () => data(events).length === 1);
  world.door.blocked = { websocket: true, events: true };
  world.cut();
  await until("polls", () => client.transport === "poll");
  assert.equal((await client.publish(topic, 2)).level, "accepted");
  await until("the second", () => data(events).length === 2);
  world.door.blocked = { websocket: false, events: false };
  await until("a WebSocket", () => client.transport === "websocket");
  await world.publish(topic, 3);
  await until("the third", () => data(events).length === 3);
  assert.deepEqual(data(events), [1, 2, 3]);
  assert.ok(answers(events).slice(1).every(recovered => recovered === true), String(answers(events)));
});

test("a poll from a position of an epoch that is gone is answered at once", async () => {
  const topic = fresh(), address = `${world.origin}/poll?topic=${encodeURIComponent(topic)}`;
  await world.publish(topic, 1);
  const response = await fetch(`${address}&position=00000000-0`, { signal: AbortSignal.timeout(5000) });
  const { topics } = await response.json();
  assert.deepEqual([topics[0].recovered, topics[0].offset], [false, 1]);
});

test("raw topics beside the protocol", async t => {
  const client = open(t), topic = fresh();
  const raw = client.raw(topic);
  t.after(() => raw.close());
  const events = record(raw, "message");
  const subscription = client.subscribe(topic);
  const others = record(subscription, "message");
  await Promise.all([stateOf(raw, "open"), subscription.ready]);
  await raw.send("text");
  await raw.send(new Uint8Array([1, 2]));
  await client.publish(topic, "as text", { text: true });
  await client.publish(topic, new Uint8Array([3]));
  await until("all", () => events.length === 4 && others.length === 4);
  for (const all of [events, others]) {
    assert.deepEqual(all.map(event => event.kind).sort(), ["binary", "binary", "text", "text"]);
    assert.deepEqual(all.filter(event => event.kind === "text").map(event => event.data).sort(), ["as text", "text"]);
  }
});
