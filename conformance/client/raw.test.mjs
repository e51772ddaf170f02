// Raw topics: a message is a message, text or binary.
import assert from "node:assert/strict";
import { test } from "node:test";
import WebSocket from "ws";
import { FakeGateway } from "./fake.mjs";
import { next, open, record, refused, stateOf, until } from "./harness.mjs";

async function gatewayFor(t) {
  const gateway = await new FakeGateway().start();
  t.after(() => gateway.stop());
  return gateway;
}

test("what is sent is published as it is, what is published comes as it is", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const raw = client.raw("a/über uns"), other = client.raw("a/über uns", { binaryType: "blob" });
  t.after(() => { raw.close(); other.close(); });
  await Promise.all([stateOf(raw, "open"), stateOf(other, "open")]);
  const events = record(raw, "message"), blobs = record(other, "message");
  await Promise.all([raw.send(new Blob(["blob"])), raw.send("text"), raw.send(new Uint8Array([1, 2, 3]).subarray(1)), raw.send(new ArrayBuffer(2))]);
  await until("four messages", () => events.length === 4 && blobs.length === 4);
  assert.deepEqual(events.map(event => event.kind), ["binary", "text", "binary", "binary"]);
  assert.equal(events[1].data, "text");
  assert.deepEqual([...new Uint8Array(events[2].data)], [2, 3]);
  assert.ok(blobs[0].data instanceof Blob);
  assert.equal(await blobs[0].data.text(), "blob");
  assert.equal(gateway.topic("a/über uns").offset, 4);
});

test("it comes back, says so, and does not pretend to have sent", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const raw = client.raw("x");
  t.after(() => raw.close());
  await refused(raw.send("too early"), "not_sent");
  await stateOf(raw, "open");
  gateway.cut();
  await stateOf(raw, "waiting");
  await refused(raw.send("too late"), "not_sent");
  await clock.advance(500);
  await stateOf(raw, "open");
  const coming = next(raw, "message");
  gateway.publish("x", { text: "back" });
  assert.equal((await coming).data, "back");
});

test("what waits for the network is sent when it drains, refused beyond a bound, and not sent after a cut", async t => {
  const gateway = await gatewayFor(t);
  let buffered = 0;
  class Full extends WebSocket {
    get bufferedAmount() { return buffered; }
  }
  const { client, clock } = open(t, gateway, { WebSocket: Full, bufferedBytes: 100, waitingBytes: 10 });
  const raw = client.raw("x");
  t.after(() => raw.close());
  await stateOf(raw, "open");
  buffered = 101;
  const first = raw.send("12345678");
  await refused(raw.send("12345678"), "backlog");
  assert.equal(raw.bufferedAmount, 109);
  buffered = 100;
  await clock.advance(25);
  await first;
  buffered = 101;
  const second = refused(raw.send("12345678"), "not_sent");
  gateway.cut();
  await second;
  assert.equal(gateway.topic("x").offset, 1);
});

test("close ends it", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  client.close();
  const raw = client.raw("x");
  await stateOf(raw, "open");
  raw.close(4000, "done");
  assert.equal(raw.state, "closed");
  await until("the gateway's side", () => gateway.raw.get("x").size === 0);
  assert.deepEqual(clock.timers, []);
  await assert.rejects(raw.send(5));
});

test("what is not a name is refused: an address would lose such segments, and mean another topic", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  for (const name of ["", ".", "..", "room/../admin", "room/./a", "room//a", "room/", "/room"]) {
    assert.throws(() => client.raw(name), { name: "TidegateError", code: "invalid_topic", topic: name });
  }
  const raw = client.raw("room/.../..a");
  t.after(() => raw.close());
  await stateOf(raw, "open");
  assert.deepEqual([...gateway.raw.keys()], ["room/.../..a"]);
});
