// Subscriptions: what comes, in which order, once; recovery; patterns; presence and history; iterators.
import assert from "node:assert/strict";
import { test } from "node:test";
import { matches } from "../../crates/shard/assets/tidegate.js";
import { FakeGateway } from "./fake.mjs";
import { next, open, record, refused, stateOf, turn, until } from "./harness.mjs";

async function gatewayFor(t) {
  const gateway = await new FakeGateway().start();
  t.after(() => gateway.stop());
  return gateway;
}

const texts = events => events.filter(event => event.type === "message").map(event => event.data);
const publish = (gateway, topic, ...all) => { for (const data of all) gateway.publish(topic, { data }); };
const cutAndReturn = async (gateway, client, clock) => {
  gateway.cut();
  await stateOf(client, "waiting");
  await clock.advance(1000);
  await stateOf(client, "open");
};

test("messages come in order, with their offsets, parsed", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const lobby = client.subscribe("chat/lobby");
  const events = record(lobby, "message");
  assert.equal(lobby.state, "pending");
  assert.equal(lobby.position, null);
  await lobby.ready;
  assert.equal(lobby.state, "subscribed");
  publish(gateway, "chat/lobby", { from: "Ada" }, [1, 2], null);
  publish(gateway, "chat/other", "not for us");
  gateway.publish("chat/lobby", { text: "plain" });
  gateway.publish("chat/lobby", { base64: "AQL/" });
  await until("five messages", () => events.length === 5);
  assert.deepEqual(events.map(event => [event.offset, event.kind]), [[1, "json"], [2, "json"], [3, "json"], [4, "text"], [5, "binary"]]);
  assert.deepEqual(texts(events).slice(0, 4), [{ from: "Ada" }, [1, 2], null, "plain"]);
  assert.deepEqual([...new Uint8Array(events[4].data)], [1, 2, 255]);
  assert.deepEqual(lobby.position, { epoch: gateway.topic("chat/lobby").epoch, offset: 5 });
});

test("binaryType blob gives blobs", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway, { binaryType: "blob" });
  const topic = client.subscribe("b");
  await topic.ready;
  const coming = next(topic, "message");
  gateway.publish("b", { base64: "AQL/" });
  const { data } = await coming;
  assert.ok(data instanceof Blob);
  assert.deepEqual([...new Uint8Array(await data.arrayBuffer())], [1, 2, 255]);
});

test("listeners may be options, and the first answer recovers nothing", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const seen = [];
  const topic = client.subscribe("a", { onmessage: event => seen.push(event.data), onsubscribed: event => seen.push(event.recovered) });
  await topic.ready;
  publish(gateway, "a", "one");
  await until("the message", () => seen.length === 2);
  assert.deepEqual(seen, [undefined, "one"]);
});

test("history comes first, then what is live", async t => {
  const gateway = await gatewayFor(t);
  publish(gateway, "h", 1, 2, 3, 4);
  const { client } = open(t, gateway);
  const topic = client.subscribe("h", { history: 2 });
  const events = record(topic, "message");
  await topic.ready;
  publish(gateway, "h", 5);
  await until("three", () => events.length === 3);
  assert.deepEqual(events.map(event => [event.data, event.replayed]), [[3, true], [4, true], [5, false]]);
});

test("after a cut everything missed comes, once and in order", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("r");
  const events = record(topic, "message", "subscribed");
  await topic.ready;
  publish(gateway, "r", 1, 2, 3);
  await until("three", () => texts(events).length === 3);
  gateway.cut();
  publish(gateway, "r", 4, 5);
  await stateOf(client, "waiting");
  publish(gateway, "r", 6);
  await clock.advance(1000);
  await until("all", () => texts(events).length === 6);
  publish(gateway, "r", 7);
  await until("the live one", () => texts(events).length === 7);
  assert.deepEqual(texts(events), [1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(events.filter(event => event.type === "subscribed").map(event => event.recovered), [undefined, true]);
  assert.deepEqual(gateway.commands.filter(command => command.recover).map(command => command.recover.offset), [3]);
});

test("a quiet topic recovers from the position of the answer", async t => {
  const gateway = await gatewayFor(t);
  publish(gateway, "q", "before");
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("q");
  const events = record(topic, "message", "subscribed");
  await topic.ready;
  gateway.cut();
  await stateOf(client, "waiting");
  publish(gateway, "q", "missed");
  await clock.advance(1000);
  await until("the missed one", () => texts(events).length === 1);
  assert.deepEqual(texts(events), ["missed"]);
  assert.equal(events.filter(event => event.type === "subscribed")[1].recovered, true);
});

test("history that was cut off is asked for again", async t => {
  const gateway = await gatewayFor(t);
  publish(gateway, "h", 1, 2, 3, 4, 5);
  // The connection breaks right behind the answer.
  gateway.faults.command = ({ op, recover }, session, socket) => {
    if (op !== "subscribe" || recover) return undefined;
    session.send({ op: "subscribed", id: 1, topic: "h", epoch: gateway.topic("h").epoch, offset: 5 });
    socket.close(1012);
    return "lost";
  };
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("h", { history: 3 });
  const events = record(topic, "message");
  await stateOf(client, "waiting");
  await clock.advance(5000);
  await until("three", () => events.length === 3);
  assert.deepEqual(texts(events), [3, 4, 5]);
});

test("once a pong has come behind it, the answer is the position even if no history came", async t => {
  const gateway = await gatewayFor(t);
  gateway.kept = 0;
  publish(gateway, "n", 1, 2, 3, 4, 5);
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("n", { history: 3 });
  await topic.ready;
  assert.equal(topic.position.offset, 2);
  await clock.advance(25_000);
  await until("the pong", () => topic.position.offset === 5);
  const answer = next(topic, "subscribed");
  await cutAndReturn(gateway, client, clock);
  assert.equal((await answer).recovered, true);
});

test("a restart is a new epoch: recovered false, the current state, and on", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("e", { history: 10 });
  const events = record(topic, "message", "subscribed");
  await topic.ready;
  publish(gateway, "e", "old");
  await until("the old one", () => texts(events).length === 1);
  const { epoch } = topic.position;
  gateway.restart();
  publish(gateway, "e", "new 1", "new 2");
  await stateOf(client, "waiting");
  await clock.advance(1000);
  await until("the new ones", () => texts(events).length === 3);
  const answers = events.filter(event => event.type === "subscribed");
  assert.equal(answers[1].recovered, false);
  assert.notEqual(answers[1].epoch, epoch);
  assert.deepEqual(texts(events), ["old", "new 1", "new 2"]);
  assert.deepEqual(topic.position, { epoch: answers[1].epoch, offset: 2 });
});

test("more was missed than is kept: recovered false, and what is kept", async t => {
  const gateway = await gatewayFor(t);
  gateway.kept = 2;
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("k", { history: 5 });
  const events = record(topic, "message", "subscribed");
  await topic.ready;
  publish(gateway, "k", 1);
  await until("the first", () => texts(events).length === 1);
  gateway.cut();
  publish(gateway, "k", 2, 3, 4, 5);
  await stateOf(client, "waiting");
  await clock.advance(1000);
  await until("what is kept", () => texts(events).length === 3);
  assert.deepEqual(texts(events), [1, 4, 5]);
  assert.equal(events.filter(event => event.type === "subscribed")[1].recovered, false);
});

test("a position of an earlier life can be given", async t => {
  const gateway = await gatewayFor(t);
  publish(gateway, "p", 1, 2, 3);
  const { client } = open(t, gateway);
  const topic = client.subscribe("p", { recover: { epoch: gateway.topic("p").epoch, offset: 1 } });
  const events = record(topic, "message", "subscribed");
  await until("two", () => texts(events).length === 2);
  assert.equal(events[0].recovered, true);
  assert.deepEqual(texts(events), [2, 3]);
});

test("a message that comes twice is given once", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const topic = client.subscribe("d");
  const events = record(topic, "message");
  await topic.ready;
  publish(gateway, "d", 1, 2);
  for (const session of gateway.sessions) session.send({ op: "message", topic: "d", offset: 2, data: "again" });
  for (const session of gateway.sessions) session.send({ op: "message", topic: "d", offset: 1, data: "again" });
  publish(gateway, "d", 3);
  await until("the third", () => texts(events).includes(3));
  assert.deepEqual(texts(events), [1, 2, 3]);
});

test("a gap is told, and is not asked for again", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("g");
  await topic.ready;
  publish(gateway, "g", 1);
  await next(topic, "message");
  const coming = next(topic, "gap");
  for (const session of gateway.sessions) session.send({ op: "gap", topic: "g", from: 2, to: 4, reason: "slow" });
  const { from, to, reason } = await coming;
  assert.deepEqual({ from, to, reason }, { from: 2, to: 4, reason: "slow" });
  assert.equal(topic.position.offset, 4);
  const answer = next(topic, "subscribed");
  await cutAndReturn(gateway, client, clock);
  await answer;
  assert.equal(gateway.commands.findLast(command => command.recover).recover.offset, 4);
});

test("patterns: each subscription gets what fits, and a replay is for the topic that missed it alone", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  // The patterns first: they are back before what the one has missed comes.
  const any = client.subscribe("scores/*"), all = client.subscribe("**"), one = client.subscribe("scores/1");
  const events = [one, any, all].map(topic => record(topic, "message"));
  const answers = record(any, "subscribed");
  await Promise.all([one.ready, any.ready, all.ready]);
  publish(gateway, "scores/1", "a");
  publish(gateway, "scores/2", "b");
  publish(gateway, "scores/2/x", "c");
  await until("all", () => events[2].length === 3);
  assert.deepEqual(events.map(texts), [["a"], ["a", "b"], ["a", "b", "c"]]);
  assert.deepEqual(events[1].map(event => event.topic), ["scores/1", "scores/2"]);
  gateway.cut();
  publish(gateway, "scores/1", "missed");
  await stateOf(client, "waiting");
  await clock.advance(1000);
  await until("the missed one", () => events[0].length === 2);
  publish(gateway, "scores/1", "live");
  await until("the live one", () => events[0].length === 3 && events[2].length === 4);
  assert.deepEqual(texts(events[1]), ["a", "b", "live"]);
  assert.deepEqual(answers.map(event => event.recovered), [undefined, false]);
  assert.equal(any.position, null);
});

test("patterns get what the answer to a subscription by name has overtaken", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const any = client.subscribe("scores/*"), seen = record(any, "message");
  await any.ready;
  publish(gateway, "scores/1", "a", "b");
  await until("two", () => seen.length === 2);
  // Two more wait for the pattern's turn when the topic is asked for by its name; the history has all four.
  gateway.faults.command = ({ op, id, topic }, session) => {
    if (op !== "subscribe") return undefined;
    session.send({ op: "subscribed", id, topic, epoch: "00000001", offset: 4, pattern_offset: 2 });
    for (const [place, data] of ["a", "b", "c", "d", "live"].entries()) session.send({ op: "message", topic, offset: place + 1, data });
    return "lost";
  };
  const one = client.subscribe("scores/1", { history: 10 }), own = record(one, "message");
  await until("all", () => own.length === 5);
  assert.deepEqual(own.map(event => event.replayed), [true, true, true, true, false]);
  assert.deepEqual(texts(seen), ["a", "b", "c", "d", "live"]);
});

test("patterns match by segment", () => {
  for (const [pattern, topic, fits] of [
    ["a/*", "a/b", true], ["a/*", "a", false], ["a/*", "a/b/c", false], ["a/**", "a/b/c", true], ["a/**", "a", false], ["**", "a", true],
    ["*", "a/b", false], ["*/b", "a/b", true], ["a/*/c", "a/b/c", true], ["a/*/c", "a/b/d", false], ["a/*/**", "a/b", false], ["a/*/**", "a/b/c", true],
  ]) assert.equal(matches(pattern, topic), fits, `${pattern} ${topic}`);
});

test("joins and leaves come to whoever wants them; presence lists who is there", async t => {
  const gateway = await gatewayFor(t);
  const { client: ada } = open(t, gateway), { client: bob } = open(t, gateway);
  const room = ada.subscribe("room", { presence: true, info: { name: "Ada" } });
  await room.ready;
  const joined = next(room, "join");
  const other = bob.subscribe("room", { info: { name: "Bob" } });
  const { client, info } = await joined;
  assert.deepEqual(info, { name: "Bob" });
  assert.equal(client, bob.id);
  const { count, clients } = await ada.presence("room");
  assert.equal(count, 2);
  assert.deepEqual(clients, [{ client: ada.id, info: { name: "Ada" } }, { client: bob.id, info: { name: "Bob" } }]);
  const left = next(room, "leave");
  other.unsubscribe();
  assert.equal((await left).client, bob.id);
});

test("joins and leaves that were left out are told", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const room = client.subscribe("room", { presence: true });
  await room.ready;
  const missed = next(room, "presencegap");
  for (const session of gateway.sessions) session.send({ op: "presence_gap", topic: "room" });
  assert.equal((await missed).topic, "room");
});

test("history by question, older ones too", async t => {
  const gateway = await gatewayFor(t);
  publish(gateway, "h", 1, 2, 3);
  gateway.publish("h", { base64: "AQ==" });
  const { client } = open(t, gateway);
  const newest = await client.history("h", { limit: 2 });
  assert.deepEqual(newest.messages.map(message => [message.offset, message.kind]), [[3, "json"], [4, "binary"]]);
  assert.equal(newest.offset, 4);
  const older = await client.history("h", { before: 3 });
  assert.deepEqual(older.messages.map(message => message.data), [1, 2]);
});

test("a refusal fails the subscription, with its code", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const topic = client.subscribe("secret/x");
  const error = next(topic, "error");
  await refused(topic.ready, "not_allowed");
  assert.equal((await error).code, "not_allowed");
  assert.equal(topic.state, "failed");
  // Another try is another subscription.
  await refused(client.subscribe("secret/x").ready, "not_allowed");
});

test("a refusal that comes after the end of a subscription is not the next one's", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  await stateOf(client, "open");
  let first = true;
  gateway.faults.command = ({ op, id }, session) => {
    if (op !== "subscribe" || !first) return undefined;
    first = false;
    session.send({ op: "error", id, code: "not_allowed", message: "not yet" });
    return "lost";
  };
  client.subscribe("a").unsubscribe();
  const second = client.subscribe("a");
  await second.ready;
  const coming = next(second, "message");
  publish(gateway, "a", "x");
  assert.equal((await coming).data, "x");
});

test("busy: the subscription is asked for again, later", async t => {
  const gateway = await gatewayFor(t);
  let busy = 2;
  gateway.faults.command = ({ op, id }, session) => {
    if (op !== "subscribe" || busy === 0) return undefined;
    busy -= 1;
    session.send({ op: "error", id, code: "busy", message: "not now" });
    return "lost";
  };
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("b");
  const errors = record(topic, "error");
  await until("the first error", () => errors.length === 1);
  await clock.advance(2000);
  await until("the second error", () => errors.length === 2);
  await clock.advance(2000);
  await topic.ready;
  assert.equal(topic.state, "subscribed");
});

test("one subscription of a client to a topic; another one after its end", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const first = client.subscribe("a");
  await first.ready;
  assert.throws(() => client.subscribe("a"), { code: "already_subscribed" });
  first.unsubscribe();
  assert.equal(first.state, "ended");
  const events = record(first, "message");
  const second = client.subscribe("a");
  await second.ready;
  const coming = next(second, "message");
  publish(gateway, "a", "x");
  assert.equal((await coming).data, "x");
  assert.equal(events.length, 0);
  // The first one's is not the second one's.
  first.unsubscribe();
  assert.equal(second.state, "subscribed");
  assert.equal(gateway.sessions.size, 1);
});

test("hundreds of subscriptions come back in a few arrays", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const topics = Array.from({ length: 150 }, (_, index) => client.subscribe(`many/${index}`));
  await Promise.all(topics.map(topic => topic.ready));
  publish(gateway, "many/7", "x");
  await next(topics[7], "message");
  const back = Promise.all(topics.map(topic => next(topic, "subscribed")));
  await cutAndReturn(gateway, client, clock);
  assert.ok((await back).every(event => event.recovered === true));
});

test("for await gives the messages and ends with the subscription", async t => {
  const gateway = await gatewayFor(t);
  const { client, clock } = open(t, gateway);
  const topic = client.subscribe("i");
  await topic.ready;
  const read = [];
  const reading = (async () => { for await (const { data } of topic) read.push(data); })();
  publish(gateway, "i", 1, 2);
  await until("two", () => read.length === 2);
  gateway.cut();
  publish(gateway, "i", 3);
  await stateOf(client, "waiting");
  await clock.advance(1000);
  await until("three", () => read.length === 3);
  topic.unsubscribe();
  await reading;
  assert.deepEqual(read, [1, 2, 3]);
});

test("an iterator whose reader is too slow says so after what it kept", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const topic = client.subscribe("slow", { backlog: 2 });
  await topic.ready;
  const reader = topic[Symbol.asyncIterator]();
  const events = record(topic, "message");
  publish(gateway, "slow", 1, 2, 3, 4);
  await until("four", () => events.length === 4);
  assert.equal((await reader.next()).value.data, 1);
  assert.equal((await reader.next()).value.data, 2);
  await refused(reader.next(), "too_slow");
  assert.equal((await reader.next()).done, true);
});

test("break ends an iterator and leaves the subscription", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const topic = client.subscribe("i");
  await topic.ready;
  const first = (async () => { for await (const message of topic) return message.data; })();
  publish(gateway, "i", "x");
  assert.equal(await first, "x");
  assert.equal(topic.state, "subscribed");
});

test("a listener that throws disturbs nobody else", async t => {
  const gateway = await gatewayFor(t);
  const { client } = open(t, gateway);
  const topic = client.subscribe("t");
  await topic.ready;
  t.after(() => process.setUncaughtExceptionCaptureCallback(null));
  const thrown = new Promise(resolve => process.setUncaughtExceptionCaptureCallback(resolve));
  topic.on("message", () => { throw new Error("a listener's own"); });
  const events = record(topic, "message");
  publish(gateway, "t", 1, 2);
  assert.equal((await thrown).message, "a listener's own");
  await turn();
  await until("both", () => events.length === 2);
});
