// Where WebSockets are blocked: server-sent events, then long-polling, publishing by POST, and the way back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeGateway } from "./fake.mjs";
import { next, open, record, refused, stateOf, until } from "./harness.mjs";

async function gatewayFor(t, faults = { upgrade: 403 }) {
  const gateway = await new FakeGateway().start();
  t.after(() => gateway.stop());
  Object.assign(gateway.faults, faults);
  return gateway;
}

const data = events => events.filter(event => event.type === "message").map(event => event.data);
/** Time passes until it is open. */
const arrive = async (client, clock, name) => {
  await until(name, async () => { if (client.state === "waiting") await clock.advance(500); return client.transport === name; });
};

test("two refused upgrades, and messages come as events", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const states = record(client, "state");
  const topic = client.subscribe("a/b", { history: 2 });
  const events = record(topic, "message", "subscribed");
  for (const each of [1, 2, 3]) gateway.publish("a/b", { data: each });
  await arrive(client, clock, "events");
  await topic.ready;
  assert.equal(gateway.commands.filter(command => command.op === "upgrade").length, 2);
  gateway.publish("a/b", { data: 4 });
  gateway.publish("a/b", { text: "five" });
  gateway.publish("a/b", { base64: "AQI=" });
  await until("five messages", () => data(events).length === 5);
  assert.deepEqual(data(events).slice(0, 4), [2, 3, 4, "five"]);
  assert.deepEqual([...new Uint8Array(data(events)[4])], [1, 2]);
  assert.deepEqual(states.at(-1).transport, "events");
});

test("over events: a cut stream recovers, a restart is told, duplicates are not given", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { transports: ["events"] });
  const topic = client.subscribe("a"), pattern = client.subscribe("b/*");
  const events = record(topic, "message", "subscribed"), others = record(pattern, "message");
  await Promise.all([topic.ready, pattern.ready]);
  gateway.publish("a", { data: 1 });
  gateway.publish("b/x", { data: "by pattern" });
  await until("both", () => data(events).length === 1 && others.length === 1);
  gateway.cut();
  gateway.publish("a", { data: 2 });
  await stateOf(client, "waiting");
  await clock.advance(500);
  await until("the missed one", () => data(events).length === 2);
  assert.equal(events.findLast(event => event.type === "subscribed").recovered, true);
  gateway.restart();
  gateway.publish("a", { data: "new" });
  await stateOf(client, "waiting");
  await clock.advance(1000);
  await until("the answer", () => events.filter(event => event.type === "subscribed").length === 3);
  assert.equal(events.findLast(event => event.type === "subscribed").recovered, false);
  gateway.publish("a", { data: "newer" });
  await until("the new one", () => data(events).length === 3);
  assert.deepEqual(data(events), [1, 2, "newer"]);
});

test("over events: topics come and go, each stream goes on from where the last one was", async t => {
  const gateway = await gatewayFor(t);
  for (const each of [1, 2, 3]) { gateway.publish("one", { data: each }); gateway.publish("two", { data: each }); }
  const { client } = open(t, gateway, { transports: ["events"] });
  const one = client.subscribe("one", { history: 1 });
  const first = record(one, "message");
  await until("its history", () => first.length === 1);
  const two = client.subscribe("two", { history: 3 });
  const second = record(two, "message", "subscribed");
  await until("the other's history", () => data(second).length === 3);
  gateway.publish("one", { data: 4 });
  await until("the live one", () => first.length === 2);
  assert.deepEqual(data(first), [3, 4]);
  assert.deepEqual(data(second), [1, 2, 3]);
  one.unsubscribe();
  await until("the stream without it", () => gateway.commands.at(-1).op === "GET /events" && gateway.commands.at(-1).topics.length === 1);
  const coming = next(two, "message");
  gateway.publish("two", { data: 4 });
  assert.equal((await coming).data, 4);
  assert.equal(first.length, 2);
});

test("over events: topics that want different parts of the past in one stream each get theirs", async t => {
  const gateway = await gatewayFor(t);
  for (const each of [1, 2, 3]) for (const name of ["none", "one", "three"]) gateway.publish(name, { data: each });
  const { client } = open(t, gateway, { transports: ["events"] });
  const topics = [["none", 0], ["one", 1], ["three", 3]].map(([name, history]) => record(client.subscribe(name, { history }), "message"));
  await until("the whole past", () => topics[2].length === 3 && topics[1].length === 1);
  for (const name of ["none", "one", "three"]) gateway.publish(name, { data: 4 });
  await until("the live ones", () => topics[2].length === 4 && topics[0].length === 1);
  assert.deepEqual(topics.map(data), [[4], [3, 4], [1, 2, 3, 4]]);
});

for (const transport of ["events", "poll"]) {
  test(`over ${transport}: a topic that conflates has its state, whatever others of its request want of the past`, async t => {
    const gateway = await gatewayFor(t);
    for (const key of ["one", "two", "one"]) gateway.publish("state/scores", { data: key }, { key });
    for (const each of [1, 2, 3]) gateway.publish("log", { data: each });
    const { client } = open(t, gateway, { transports: [transport] });
    const topics = [["log", 2], ["state/scores", 0], ["state/none", 0]].map(([name, history]) => record(client.subscribe(name, { history }), "message"));
    await until("both pasts", () => topics[0].length === 2 && topics[1].length === 2);
    assert.deepEqual(topics.map(data), [[2, 3], ["two", "one"], []]);
    if (transport === "events") return;
    // A restart, and all topics are asked for at once: the state of the new life comes first.
    await until("the poll that waits", () => gateway.sessions.size === 1);
    gateway.topics.clear();
    gateway.publish("state/scores", { data: "new" }, { key: "one" });
    await until("the new state", () => topics[1].length === 3);
  });
}

test("a stream that a proxy keeps to itself leads on to polls", async t => {
  const gateway = await gatewayFor(t, { upgrade: 403, events: "hang" });
  const { client, clock } = open(t, gateway, { connectTimeoutMs: 4000 });
  const topic = client.subscribe("a", { history: 1 });
  const events = record(topic, "message", "subscribed");
  gateway.publish("a", { data: 1 });
  await until("the stream", async () => { if (client.state === "waiting") await clock.advance(500); return gateway.commands.some(command => command.op === "GET /events"); });
  await clock.advance(4000);
  await arrive(client, clock, "poll");
  await topic.ready;
  gateway.publish("a", { data: 2 });
  gateway.publish("a", { data: 3 });
  await until("the live ones", () => data(events).length === 3);
  assert.deepEqual(data(events), [1, 2, 3]);
});

test("over polls: several topics, a cut, a restart, and what only WebSockets can do", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { transports: ["poll"] });
  const a = client.subscribe("a", { info: { name: "Ada" }, presence: true }), b = client.subscribe("b");
  const events = record(a, "message", "subscribed"), others = record(b, "message");
  await Promise.all([a.ready, b.ready]);
  await until("the poll that waits", () => gateway.commands.some(command => command.search?.position?.includes(",")));
  gateway.publish("a", { data: 1 });
  gateway.publish("b", { data: "x" });
  await until("both", () => data(events).length === 1 && others.length === 1);
  assert.deepEqual([...gateway.topic("a").present], [[client.id, { name: "Ada" }]]);
  gateway.cut();
  await stateOf(client, "waiting");
  gateway.publish("a", { data: 2 });
  await clock.advance(500);
  await until("the missed one", () => data(events).length === 2);
  assert.equal(events.findLast(event => event.type === "subscribed").recovered, true);
  await until("the poll that waits", () => gateway.sessions.size === 1);
  gateway.restart();
  await stateOf(client, "waiting");
  await clock.advance(1000);
  await until("the answer", () => events.filter(event => event.type === "subscribed").length === 3);
  assert.equal(events.findLast(event => event.type === "subscribed").recovered, false);
  gateway.publish("a", { data: "new" });
  await until("the new one", () => data(events).includes("new"));
  assert.deepEqual(data(events), [1, 2, "new"]);
  assert.deepEqual((await client.presence("a")).clients, [{ client: client.id, info: { name: "Ada" } }]);
  await until("the poll that waits", () => gateway.sessions.size === 1);
  assert.deepEqual((await client.history("a")).messages.map(message => message.data), ["new"]);
  await refused(client.history("a", { before: 1 }), "unsupported");
  const pattern = client.subscribe("c/*");
  assert.equal((await next(pattern, "error")).code, "unsupported");
  assert.equal(pattern.state, "pending");
});

test("over events: present in the topics that ask for it, by one name through cuts; who is there is listed", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { transports: ["events"] });
  const room = client.subscribe("room", { presence: true, info: { name: "Ada" } }), other = client.subscribe("other"), pattern = client.subscribe("b/*");
  await Promise.all([room.ready, other.ready, pattern.ready]);
  const { id } = client;
  assert.match(id, /^[a-z0-9]{9,64}$/);
  assert.deepEqual([...gateway.topic("room").present], [[id, { name: "Ada" }]]);
  assert.deepEqual([...gateway.topic("other").present], []);
  assert.deepEqual(await client.presence("room"), { topic: "room", count: 1, clients: [{ client: id, info: { name: "Ada" } }] });
  assert.deepEqual(await client.presence("other"), { topic: "other", count: 0, clients: [] });
  gateway.cut();
  await stateOf(client, "waiting");
  await clock.advance(500);
  await until("it is back", () => gateway.topic("room").present.has(id));
  gateway.presence = false;
  await refused(client.presence("room"), "no_presence");
});

test("over polls: present in the topics that ask for it alone", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway, { transports: ["poll"] });
  const other = client.subscribe("other"), room = client.subscribe("room", { info: { name: "Ada" } });
  await Promise.all([room.ready, other.ready]);
  await until("the poll for both", () => gateway.commands.some(command => command.search?.position?.includes(",")));
  assert.deepEqual([...gateway.topic("room").present], [[client.id, { name: "Ada" }]]);
  assert.deepEqual([...gateway.topic("other").present], []);
});

test("over polls: one topic that may not be had leaves the others", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway, { transports: ["poll"] });
  const secret = client.subscribe("secret/a"), open_ = client.subscribe("a");
  await refused(secret.ready, "not_allowed");
  await open_.ready;
  const coming = next(open_, "message");
  gateway.publish("a", { data: 1 });
  assert.equal((await coming).data, 1);
});

for (const name of ["events", "poll"]) {
  test(`over ${name}: publishing by POST, in order, with positions and refusals`, async t => {
    const gateway = await gatewayFor(t);
    const { client } = open(t, gateway, { transports: [name], headers: { authorization: "Bearer key" } });
    const positions = await Promise.all([client.publish("p", 1), client.publish("p", "two", { text: true }), client.publish("p", new Uint8Array([3])), client.publish("p", 4, { once: "k" }), client.publish("p", 4, { once: "k" })]);
    assert.deepEqual(positions.map(({ offset, duplicate }) => [offset, duplicate]), [[1, false], [2, false], [3, false], [4, false], [4, true]]);
    const both = await Promise.allSettled([client.publish("secret/p", 1), client.publish("p", 5)]);
    assert.equal(both[0].reason.code, "not_allowed");
    assert.equal(both[1].value.offset, 5);
    const post = gateway.commands.find(command => command.op === "POST /publish");
    assert.deepEqual([post.headers["content-type"], post.headers.authorization], ["application/json", "Bearer key"]);
  });
}

test("a POST that breaks: unknown, but with a key it is sent again and done once", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { transports: ["events"] });
  let broken = 1;
  gateway.faults.publish = request => {
    if (broken === 0) return false;
    broken -= 1;
    let body = "";
    request.on("data", chunk => { body += chunk; });
    request.on("end", () => {
      for (const { topic, once, ...content } of JSON.parse(body)) gateway.publish(topic, content, { once });
      request.socket.destroy();
    });
    return true;
  };
  const plain = client.publish("p", "plain"), safe = client.publish("p", "safe", { once: true });
  // The first POST carries the first alone.
  await refused(plain, "unknown");
  await until("the wait", async () => { await clock.advance(100); return gateway.topic("p").offset === 2; });
  assert.equal((await safe).offset, 2);
  broken = 1;
  const again = client.publish("p", "again", { once: true });
  await until("it is done", async () => { await clock.advance(100); return gateway.commands.filter(command => command.op === "POST /publish").length === 4; });
  const position = await again;
  assert.deepEqual([position.offset, position.duplicate], [3, true]);
  assert.deepEqual(gateway.topic("p").kept.map(message => message.data), ["plain", "safe", "again"]);
});

test("an outcome that the gateway does not know: unknown, but with a key it is sent again and done once", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { transports: ["poll"] });
  let posts = 0;
  gateway.faults.publish = (request, response, answer) => {
    posts += 1;
    if (posts !== 2) return false;
    let body = "";
    request.on("data", chunk => { body += chunk; });
    request.on("end", () => {
      const results = JSON.parse(body).map(({ topic, once, ...content }) => gateway.publish(topic, content, { once }));
      answer(207, { results: results.map((result, index) => index === 0 ? result : { error: { code: "unknown", message: "no answer in time" } }) });
    });
    return true;
  };
  // The first POST carries the first alone.
  const [first, known, plain, safe] = [client.publish("p", "first"), client.publish("p", "known"), client.publish("p", "plain"), client.publish("p", "safe", { once: true })];
  await refused(plain, "unknown");
  assert.deepEqual([(await first).offset, (await known).offset], [1, 2]);
  await until("it is sent again", async () => { await clock.advance(100); return posts === 3; });
  const { offset, duplicate } = await safe;
  assert.deepEqual([offset, duplicate], [4, true]);
  assert.deepEqual(gateway.topic("p").kept.map(message => message.data), ["first", "known", "plain", "safe"]);
});

for (const status of [502, 504]) {
  test(`${status} of a proxy: nobody knows`, async t => {
    const gateway = await gatewayFor(t);
    const { client } = open(t, gateway, { transports: ["poll"] });
    gateway.faults.publish = status;
    await refused(client.publish("p", 1), "unknown");
  });
}

test("429 and 503: nothing was done, so it comes again after Retry-After", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { transports: ["poll"] });
  for (const status of [429, 503]) {
    gateway.faults.publish = status;
    const before = gateway.commands.length;
    const published = client.publish("p", status);
    await until("the refusal", () => gateway.commands.length > before && clock.next(2000) === 2250);
    gateway.faults.publish = null;
    await clock.advance(2250);
    await published;
  }
  assert.deepEqual(gateway.topic("p").kept.map(message => message.data), [429, 503]);
});

test("too large a body is sent one by one; what is too large alone is refused", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway, { transports: ["poll"] });
  gateway.faults.publish = (request, response, answer) => Number(request.headers["content-length"]) > 400 && (answer(413, null), true);
  const first = client.publish("p", 0);
  const results = await Promise.allSettled([first, client.publish("p", "x".repeat(300)), client.publish("p", "y".repeat(300)), client.publish("p", "z".repeat(600))]);
  assert.deepEqual(results.map(({ status, reason }) => reason?.code ?? status), ["fulfilled", "fulfilled", "fulfilled", "too_large"]);
});

for (const transport of ["events", "poll"]) {
  test(`over ${transport}: who is there is not asked of another topic than the one that is named`, async t => {
    const gateway = await gatewayFor(t);
    const { client } = open(t, gateway, { transports: [transport] });
    for (const name of ["..", "room/../admin", "room/./a", "room//a"]) await refused(client.presence(name), "invalid_topic");
    assert.deepEqual(gateway.commands, []);
  });
}

test("without the right to publish: refused with a code", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway, { transports: ["poll"] });
  for (const [status, code] of [[401, "not_allowed"], [403, "not_allowed"], [400, "invalid_request"], [415, "invalid_request"]]) {
    gateway.faults.publish = status;
    await refused(client.publish("p", 1), code);
  }
});

test("a stream's end leaves a POST under way its outcome", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway, { transports: ["events"] });
  await client.subscribe("a").ready;
  let release;
  gateway.faults.publish = (request, response, answer) => { release = () => answer(200, { results: [gateway.publish("p", { data: 1 })] }); return true; };
  const published = client.publish("p", 1);
  await until("the POST", () => release);
  gateway.endStreams();
  await stateOf(client, "waiting");
  release();
  assert.equal((await published).offset, 1);
});

test("WebSockets that work again are taken again, and nothing is lost or doubled on the way", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { webSocketAgainMs: 16_000 });
  const topic = client.subscribe("a");
  const events = record(topic, "message", "subscribed");
  await arrive(client, clock, "events");
  await topic.ready;
  gateway.publish("a", { data: 1 });
  await until("the first", () => data(events).length === 1);
  const upgrades = () => gateway.commands.filter(command => command.op === "upgrade").length;
  // Soon once, in case the gateway was only away; after that from time to time.
  await clock.advance(5000);
  await until("the first look", () => upgrades() === 3);
  await until("its failure", () => clock.next(10_001) === 12_000);
  gateway.faults.upgrade = null;
  gateway.publish("a", { data: 2 });
  await clock.advance(12_000);
  await until("the WebSocket", () => client.transport === "websocket");
  await until("the answer", () => events.filter(event => event.type === "subscribed").length === 2);
  gateway.publish("a", { data: 3 });
  await until("the third", () => data(events).length === 3);
  assert.deepEqual(data(events), [1, 2, 3]);
  assert.equal(events.findLast(event => event.type === "subscribed").recovered, true);
  await until("the stream's end", () => gateway.sessions.size === 1);
  assert.equal((await client.publish("a", 4)).offset, 4);
});

test("how long events have held counts where a WebSocket that takes over is cut soon", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { webSocketAgainMs: 16_000, livedMs: 10_000 });
  await arrive(client, clock, "events");
  await clock.advance(5000);
  await until("the first look's failure", () => clock.next(10_001) === 12_000);
  gateway.faults.upgrade = null;
  await clock.advance(12_000);
  await until("the WebSocket", () => client.transport === "websocket");
  await clock.advance(3000);
  const states = record(client, "state");
  gateway.cut();
  await stateOf(client, "waiting");
  assert.deepEqual(states.map(({ state, tries }) => [state, tries]), [["waiting", 1]]);
});

test("where nothing works, the ways take turns, from the first one again", async t => {
  const gateway = await gatewayFor(t, { upgrade: 503, events: 404, poll: 404 });
  const { client, clock } = open(t, gateway);
  client.subscribe("a");
  await until("nine tries", async () => { if (client.state === "waiting") await clock.advance(30_000); return gateway.commands.length >= 9; });
  assert.deepEqual(gateway.commands.slice(0, 9).map(({ op }) => op),
    ["upgrade", "upgrade", "GET /events", "GET /poll", "upgrade", "upgrade", "GET /events", "GET /poll", "upgrade"]);
});

test("a gateway that is away for a while is found again by WebSocket", async t => {
  const gateway = await gatewayFor(t, {});
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("a");
  await topic.ready;
  Object.assign(gateway.faults, { upgrade: 503, events: 503, poll: 503 });
  gateway.cut();
  const tried = new Set();
  await until("all ways were tried", async () => {
    if (client.state === "waiting") await clock.advance(30_000);
    for (const { op } of gateway.commands) tried.add(op);
    return tried.has("GET /events") && tried.has("GET /poll");
  });
  // Five more tries over a WebSocket that had worked before, than over one that never did.
  assert.ok(gateway.commands.filter(command => command.op === "upgrade").length >= 6);
  Object.assign(gateway.faults, { upgrade: null, events: null, poll: null });
  await until("a WebSocket", async () => { await clock.advance(2000); return client.transport === "websocket"; });
});

test("a stream that is cut off unseen is found by asking where the topics are", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway, { transports: ["events"] });
  const topic = client.subscribe("a");
  const events = record(topic, "message");
  await topic.ready;
  const polls = () => gateway.commands.filter(command => command.op === "GET /poll").length;
  await clock.advance(25_000);
  await until("the first look", () => polls() === 1);
  await until("all is well", () => clock.next(10_001) === 25_000);
  assert.equal(client.state, "open");
  gateway.faults.silent = true;
  gateway.publish("a", { data: "unheard" });
  await clock.advance(25_000);
  await until("the second look", () => polls() === 2);
  const wait = next(client, "state", event => event.state === "waiting");
  await until("the poll is answered", async () => { await clock.advance(1000); return client.state === "waiting"; });
  assert.equal((await wait).cause, "silence");
  gateway.faults.silent = false;
  await clock.advance(500);
  await until("what was missed", () => events.length === 1);
});
