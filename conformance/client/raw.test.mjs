// Raw topics: a message is a message, text or binary.
import assert from "node:assert/strict";
import { test } from "node:test";
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
