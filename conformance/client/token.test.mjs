// Tokens: where they are shown, how a newer one comes in time, and what their end means.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import WebSocket from "ws";
import { connect } from "../../crates/shard/assets/tidegate.js";
import { FakeGateway } from "./fake.mjs";
import { EventSource, next, open, record, refused, stateOf, turn, until } from "./harness.mjs";
import { Binary } from "./world.mjs";

async function gatewayFor(t, tokens) {
  const gateway = await new FakeGateway().start();
  gateway.tokens = tokens;
  t.after(() => gateway.stop());
  return gateway;
}

// The network is real, and no answer comes while the clock is moved: nobody asks whether the connection lives.
const only = { transports: ["websocket"], heartbeatMs: 1e9 };
const of = (gateway, op) => gateway.commands.filter(command => command.op === op);
const good = token => token.startsWith("good") ? 300 : null;

/** A source of tokens: good-1, good-2, … */
function source() {
  let count = 0;
  return Object.assign(async () => `good-${count += 1}`, { count: () => count });
}

test("a text is shown as a subprotocol that nobody chooses", async t => {
  const gateway = await gatewayFor(t, good);
  const { client } = open(t, gateway, { ...only, token: "good.a-b_c" });
  await stateOf(client, "open");
  assert.match(of(gateway, "upgrade")[0].offered, /^tidegate\.v1, ?token\.good\.a-b_c$/);
  assert.equal((await client.publish("a", 1)).offset, 1);
});

test("or in the query, where the gateway looks for it there", async t => {
  const gateway = await gatewayFor(t, good);
  const { client } = open(t, gateway, { ...only, token: "good", tokenPlace: "query:access_token" });
  await stateOf(client, "open");
  const [{ offered, query }] = of(gateway, "upgrade");
  assert.deepEqual([offered, query], ["tidegate.v1", "?access_token=good"]);
});

test("a place that is none is told at once", () => {
  for (const tokenPlace of ["header", "query:", "cookie:a"]) assert.throws(() => connect("ws://127.0.0.1:1/topics", { tokenPlace }), TypeError);
});

test("each connection asks a function for its token", async t => {
  const gateway = await gatewayFor(t, good), token = source();
  const { client, clock } = open(t, gateway, { ...only, token });
  await stateOf(client, "open");
  gateway.cut();
  await stateOf(client, "waiting");
  await clock.advance(500);
  await stateOf(client, "open");
  assert.deepEqual(of(gateway, "upgrade").map(({ offered }) => offered.replace(/.*token\./, "")), ["good-1", "good-2"]);
});

test("a newer token comes in band before the old one is over, again and again", async t => {
  const gateway = await gatewayFor(t, good), token = source();
  const { client, clock } = open(t, gateway, { ...only, token });
  await stateOf(client, "open");
  for (let round = 1; round <= 3; round += 1) {
    await clock.advance(170_000);
    assert.equal(of(gateway, "auth").length, round - 1, "not at once");
    await clock.advance(60_000);
    await until("a newer token", () => of(gateway, "auth").length === round);
    // Its answer has come when the next one has.
    await client.publish("a", round);
  }
  assert.deepEqual(of(gateway, "auth").map(command => command.token), ["good-2", "good-3", "good-4"]);
  assert.equal(of(gateway, "upgrade").length, 1, "over one connection");
});

test("a text is not renewed, and its end is for good", async t => {
  const gateway = await gatewayFor(t, good);
  const { client, clock } = open(t, gateway, { ...only, token: "good" });
  await stateOf(client, "open");
  await clock.advance(299_000);
  assert.equal(of(gateway, "auth").length, 0);
  gateway.close(4401, "the token has expired");
  const closed = await next(client, "state", event => event.state === "closed");
  assert.deepEqual([closed.code, closed.cause], [4401, "told"]);
});

test("4401 brings a function's next token, and any other such code ends it", async t => {
  for (const [code, expiredCode, comes] of [[4401, undefined, true], [4001, 4001, true], [4401, 4001, false], [4400, undefined, false]]) {
    const gateway = await gatewayFor(t, good), token = source();
    const { client, clock } = open(t, gateway, { ...only, token, expiredCode });
    await stateOf(client, "open");
    gateway.close(code, "the token has expired");
    await until("its end", () => client.state !== "open");
    await clock.advance(10_000);
    if (comes) {
      await stateOf(client, "open");
      assert.equal(token.count(), 2);
    } else {
      assert.equal(client.state, "closed");
    }
  }
});

test("what fails on the way to a newer token is tried again while the old one holds", async t => {
  const gateway = await gatewayFor(t, good);
  const tokens = ["good-1", "bad", new Error("no network"), "good-2"];
  const token = () => { const one = tokens.shift(); if (one instanceof Error) throw one; return one; };
  const { client, clock } = open(t, gateway, { ...only, token });
  const errors = record(client, "error");
  await stateOf(client, "open");
  for (const left of [2, 1, 0]) {
    await until("a try", async () => { await clock.advance(1000); return tokens.length === left; });
    await until("what became of it", () => of(gateway, "auth").length === (left === 0 ? 2 : 1));
    for (let each = 0; each < 5; each += 1) await turn();
  }
  assert.deepEqual(of(gateway, "auth").map(command => command.token), ["bad", "good-2"]);
  await until("the error", () => errors.length === 1);
  assert.equal(errors[0].code, "invalid_token");
  assert.equal(client.state, "open");
});

test("without a token there is no try, and one that takes too long is none", async t => {
  const gateway = await gatewayFor(t, good);
  for (const token of [() => { throw new Error("signed out"); }, () => new Promise(() => {})]) {
    const { client, clock } = open(t, gateway, { ...only, token });
    const waiting = next(client, "state", event => event.state === "waiting");
    for (let each = 0; each < 5; each += 1) await turn();
    await clock.advance(10_000);
    assert.equal((await waiting).cause, "token");
    client.close();
  }
  assert.equal(of(gateway, "upgrade").length, 0);
});

test("a subscription that a newer token does not allow ends", async t => {
  const gateway = await gatewayFor(t, good);
  const { client } = open(t, gateway, { ...only, token: source() });
  const kept = client.subscribe("a"), lost = client.subscribe("b");
  await Promise.all([kept.ready, lost.ready]);
  const failed = next(lost, "error");
  for (const session of gateway.sessions) session.send({ op: "unsubscribed", topic: "b" });
  assert.equal((await failed).code, "not_allowed");
  assert.equal(lost.state, "failed");
  const message = next(kept, "message");
  gateway.publish("a", { data: 1 });
  assert.equal((await message).data, 1);
  assert.equal(client.subscribe("b").topic, "b", "it may be asked for again");
});

test("over HTTP it is shown as a bearer's, and after a refusal a newer one is", async t => {
  const gateway = await gatewayFor(t, good), token = source();
  const { client, clock } = open(t, gateway, { transports: ["poll"], token });
  await client.subscribe("a").ready;
  await client.publish("a", 1);
  const shown = () => gateway.commands.filter(({ headers }) => headers).map(({ headers }) => headers.authorization);
  assert.ok(shown().length >= 2 && shown().every(value => value === "Bearer good-1"), String(shown()));
  gateway.tokens = one => one === "good-2" ? 300 : null;
  gateway.endStreams();
  gateway.cut();
  await until("a newer one", async () => { await clock.advance(1000); return shown().at(-1) === "Bearer good-2"; });
  await stateOf(client, "open");
});

test("a stream of events shows it in its query, and is left out where it could not", async t => {
  const gateway = await gatewayFor(t, good);
  const streams = { transports: ["events", "poll"], token: "good" };
  const { client } = open(t, gateway, { ...streams, tokenPlace: "query:access_token" });
  await client.subscribe("a").ready;
  assert.equal(client.transport, "events");
  assert.equal(of(gateway, "GET /events")[0].search.access_token, "good");
  const { client: other } = open(t, gateway, streams);
  await other.subscribe("a").ready;
  assert.equal(other.transport, "poll");
});

test("a raw topic shows it, too", async t => {
  const gateway = await gatewayFor(t, good);
  const { client } = open(t, gateway, { ...only, token: source() });
  const raw = client.raw("a");
  await stateOf(raw, "open");
  const message = next(raw, "message");
  await raw.send("hello");
  assert.equal((await message).data, "hello");
  assert.match(of(gateway, "upgrade").find(({ path }) => path === "/topics/a").offered, /token\.good-\d/);
  raw.close();
  await refused(raw.send("x"), "not_sent");
});

const SECRET = "0123456789abcdef0123456789abcdef";
const CONFIG = `
version = 1
[[listener]]
bind = "127.0.0.1:0"
[[identity]]
name = "users"
algorithms = ["HS256"]
secret = "${SECRET}"
leeway = "0s"
token = ["authorization", "subprotocol:token.", "query:access_token"]
permissions = { subscribe = "read" }
[[topic]]
name = "**"
history = 10
[[route]]
path = "/topics/*"
identity = "users"
topics = { subscribe = ["**"], publish = ["**"] }
[[route]]
path = "/events"
identity = "users"
events = { subscribe = ["**"] }
[[route]]
path = "/poll"
identity = "users"
poll = { subscribe = ["**"] }
[[route]]
path = "/publish/*"
identity = "users"
publish = { publish = ["**"] }
`;

/** A token that holds for so many seconds and lets read these topics. */
function sign(seconds, read) {
  const text = value => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${text({ alg: "HS256" })}.${text({ sub: "ada", exp: Math.ceil(Date.now() / 1000) + seconds, read })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

test("the gateway itself takes what the library shows", { skip: !process.env.TIDEGATE_BIN }, async t => {
  const folder = mkdtempSync(join(tmpdir(), "tidegate-"));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "tidegate.toml"), CONFIG);
  const gateway = new Binary(process.env.TIDEGATE_BIN, ["run", "-c", join(folder, "tidegate.toml")]);
  await gateway.start();
  t.after(() => gateway.stop());
  const url = `ws://127.0.0.1:${gateway.port}/topics`;
  for (const [name, tokenPlace] of [["websocket", "subprotocol:token."], ["websocket", "query:access_token"], ["events", "query:access_token"], ["poll", "subprotocol:token."]]) {
    const client = connect(url, { WebSocket, EventSource, transports: [name], tokenPlace, token: () => sign(60, ["**"]) });
    const topic = `${name}-${tokenPlace.length}`, heard = client.subscribe(topic, { history: 1 });
    await heard.ready;
    const message = next(heard, "message");
    await client.publish(topic, { by: name });
    assert.deepEqual((await message).data, { by: name });
    client.close();
  }
  // Two seconds at a time, for five: over one connection, and with what the newest token allows.
  let count = 0;
  const client = connect(url, { WebSocket, transports: ["websocket"], token: () => sign(2, (count += 1) < 3 ? ["**"] : ["kept"]) });
  t.after(() => client.close());
  const states = record(client, "state"), kept = client.subscribe("kept"), lost = client.subscribe("lost");
  await Promise.all([kept.ready, lost.ready]);
  await until("several tokens", () => count >= 4);
  assert.equal(lost.state, "failed");
  const message = next(kept, "message");
  await client.publish("kept", 1);
  assert.equal((await message).data, 1);
  assert.deepEqual(states.map(event => event.state), ["connecting", "open"]);
  // Nobody comes in with a token that is over.
  const late = connect(url, { WebSocket, transports: ["websocket"], token: sign(-1, ["**"]) });
  t.after(() => late.close());
  await next(late, "state", event => event.state === "waiting");
});
