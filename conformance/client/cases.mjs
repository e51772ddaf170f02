// What is live: the library in real time, through a door that cuts. The same cases under Node (live.test.mjs) and in a page of
// Chromium (browser.mjs), against a real gateway and against the fake, so nothing of one platform is imported here.
import { next, record, refused, stateOf, until } from "./waiting.mjs";

const data = events => events.filter(event => event.type === "message").map(event => event.data);
const offsets = events => events.filter(event => event.type === "message").map(event => event.offset);
const answers = events => events.filter(event => event.type === "subscribed").map(event => event.recovered);
const bytes = async data => [...new Uint8Array(data instanceof Blob ? await data.arrayBuffer() : data)];
/** Above the gateway's `message_bytes`. */
const TOO_LARGE_BYTES = 1_100_000;

const CASES = new Map();
const live = (name, body) => CASES.set(name, body);
export const names = () => [...CASES.keys()];

/**
 * Runs one case. `platform` has the options of `connect` that name a WebSocket and an EventSource where there are none;
 * `world` is a `World`, or stands for one that is elsewhere.
 */
export async function run(name, { library, platform, world, assert }) {
  const ends = [];
  const until = (target, end) => { ends.push(end); return target; };
  const open = (options = {}) => {
    const client = library.connect(world.url, { ...platform, binaryType: "arraybuffer", baseWaitMs: 20, webSocketAgainMs: 500, ...options });
    return until(client, () => client.close());
  };
  const raw = (client, ...rest) => {
    const topic = client.raw(...rest);
    return until(topic, () => topic.close());
  };
  // The embedded configuration keeps history and presence of these. Never the same twice: worlds are shared.
  const fresh = (kind = "chat") => `${kind}/live-${Math.random().toString(36).slice(2)}`;
  const WebSocket = platform.WebSocket ?? globalThis.WebSocket;
  try {
    await CASES.get(name)({ library, WebSocket, world, assert, open, raw, fresh });
  } finally {
    for (const end of ends) end();
    await world.shut(false);
    await world.mute(false);
    await world.block(false, false);
  }
}

for (const transport of ["websocket", "events", "poll"]) {
  live(`${transport}: publish, receive, history, text and bytes`, async ({ assert, open, fresh, world }) => {
    const client = open({ transports: [transport] }), topic = fresh();
    await world.publish(topic, "before 1", "before 2");
    const subscription = client.subscribe(topic, { history: 1 });
    const events = record(subscription, "message", "subscribed");
    await subscription.ready;
    assert.equal(client.transport, transport);
    const { offset, level } = await client.publish(topic, { n: 1 });
    assert.deepEqual([offset, level], [3, "accepted"]);
    await client.publish(topic, "a text", { text: true });
    await client.publish(topic, new Uint8Array([0, 255]));
    await until("all", () => data(events).length === 4);
    assert.deepEqual(data(events).slice(0, 3), ["before 2", { n: 1 }, "a text"]);
    assert.deepEqual(await bytes(data(events)[3]), [0, 255]);
    assert.deepEqual(offsets(events), [2, 3, 4, 5]);
    // Where a stream's answer gives the position before what comes first, its messages count as live.
    if (transport !== "events") assert.deepEqual(events.filter(event => event.type === "message").map(event => event.replayed), [true, false, false, false]);
    assert.deepEqual((await client.history(topic, { limit: 2 })).messages.map(message => message.offset), [4, 5]);
  });

  live(`${transport}: cut, and every message of the window comes once, in order`, async ({ assert, open, fresh, world }) => {
    const client = open({ transports: [transport] }), topic = fresh();
    // A topic that holds nothing and that nobody is subscribed to may be forgotten, and begin a new epoch.
    await world.publish(topic, "seed");
    const subscription = client.subscribe(topic);
    const events = record(subscription, "message", "subscribed");
    await subscription.ready;
    const { epoch } = subscription.position;
    for (let round = 0; round < 3; round += 1) {
      await world.publish(topic, `${round} live`);
      await until("the live one", () => data(events).at(-1) === `${round} live`);
      await world.shut(true);
      await world.cut();
      await stateOf(client, "waiting");
      await world.publish(topic, ...Array.from({ length: 5 }, (_, each) => `${round} missed ${each}`));
      await world.shut(false);
      await until("the missed ones", () => data(events).length === (round + 1) * 6);
    }
    assert.deepEqual(data(events), [0, 1, 2].flatMap(round => [`${round} live`, ...Array.from({ length: 5 }, (_, each) => `${round} missed ${each}`)]));
    assert.deepEqual(answers(events), [undefined, true, true, true]);
    assert.equal(subscription.position.epoch, epoch);
  });

  live(`${transport}: restart: recovered is false, the epoch another one, the current state comes, and it goes on by itself`, async ({ assert, open, fresh, world }) => {
    const client = open({ transports: [transport] }), topic = fresh(), values = fresh("state");
    await world.publish(topic, "seed");
    // By a client of its own: what shares a stream or a poll shares one `history`, and this topic's state comes without any.
    const log = client.subscribe(topic, { history: 10 }), table = open({ transports: [transport] }).subscribe(values);
    const events = record(log, "message", "subscribed"), rows = record(table, "message", "subscribed");
    await Promise.all([log.ready, table.ready]);
    await world.publish(topic, "old");
    await world.publishAll([{ topic: values, data: "old row", key: "a" }]);
    await until("what is old", () => data(events).length === 2 && data(rows).length === 1);
    const before = [log.position.epoch, table.position.epoch];
    // More than was there before, so that offsets alone do not tell the epochs apart.
    const entries = ["state 1", "state 2", "state 3"].map(data => ({ topic, data }));
    await world.restart([...entries, ...["a", "b", "a"].map((key, index) => ({ topic: values, key, data: `${key}${index}` }))]);
    await until("the current state", () => data(events).length === 5 && data(rows).length === 3);
    assert.deepEqual(answers(events), [undefined, false]);
    assert.deepEqual(answers(rows), [undefined, false]);
    const after = [log.position.epoch, table.position.epoch];
    for (const index of [0, 1]) assert.notEqual(after[index], before[index]);
    const told = [...events, ...rows].filter(event => event.type === "subscribed" && event.recovered === false).map(event => event.epoch);
    assert.deepEqual(told, after);
    assert.deepEqual(events.filter(event => event.type === "message").slice(2).map(event => [event.data, event.offset, event.epoch]), [["state 1", 1, after[0]], ["state 2", 2, after[0]], ["state 3", 3, after[0]]]);
    // The newest of each key.
    assert.deepEqual(data(rows).slice(1).sort(), ["a2", "b1"]);
    await world.publish(topic, "live");
    await world.publishAll([{ topic: values, data: "a3", key: "a" }]);
    await until("what is live", () => data(events).length === 6 && data(rows).length === 4);
    assert.deepEqual([data(events).at(-1), offsets(events).at(-1), data(rows).at(-1)], ["live", 4, "a3"]);
    assert.equal((await client.publish(topic, "its own")).epoch, after[0]);
    await until("its own", () => data(events).at(-1) === "its own");
  });

  live(`${transport}: a lost answer: unknown and done once, with a key told to be a duplicate; not sent is not done`, async ({ assert, open, fresh, world }) => {
    const client = open({ transports: [transport] }), topic = fresh();
    await world.publish(topic, "seed");
    const subscription = client.subscribe(topic);
    const events = record(subscription, "message", "subscribed");
    await subscription.ready;
    const unanswered = async (offset, ...publication) => {
      await world.mute(true);
      const outcome = client.publish(topic, ...publication);
      outcome.catch(() => {});
      await until("the gateway has it", async () => await world.offset(topic) === offset);
      await world.shut(true);
      await world.cut();
      await world.mute(false);
      return { outcome };
    };
    const lost = await unanswered(2, "perhaps");
    await refused(lost.outcome, "unknown");
    // Over HTTP the POST may break before the poll does: until then the next one would go out.
    await until("the client knows", () => client.state !== "open");
    await refused(client.publish(topic, "never", { timeoutMs: 50 }), "not_sent");
    await world.shut(false);
    await stateOf(client, "open");
    await until("what nobody knew of", () => data(events).length === 1);
    const again = await unanswered(3, "once", { once: true });
    await world.shut(false);
    const { offset, duplicate } = await again.outcome;
    assert.deepEqual([offset, duplicate], [3, true]);
    assert.equal((await client.publish(topic, "at last")).duplicate, false);
    await until("the last", () => data(events).length === 3);
    assert.deepEqual(data(events), ["perhaps", "once", "at last"]);
    assert.deepEqual(offsets(events), [2, 3, 4]);
    assert.ok(answers(events).slice(1).every(recovered => recovered === true), String(answers(events)));
  });

  live(`${transport}: bytes come as binaryType says, and go as Blob, ArrayBuffer or view`, async ({ assert, open, fresh }) => {
    const client = open({ transports: [transport], binaryType: undefined }), topic = fresh();
    const other = open({ transports: [transport], binaryType: "arraybuffer" });
    const blobs = client.subscribe(topic), buffers = other.subscribe(topic), override = fresh();
    const exception = client.subscribe(override, { binaryType: "arraybuffer" });
    const all = [blobs, buffers, exception].map(subscription => record(subscription, "message"));
    await Promise.all([blobs.ready, buffers.ready, exception.ready]);
    await client.publish(topic, new Blob([new Uint8Array([1, 2])]));
    await client.publish(topic, new Uint8Array([3, 4]).buffer);
    await client.publish(topic, new Uint8Array([0, 5, 6, 0]).subarray(1, 3));
    await client.publish(override, new Uint8Array([7]));
    await until("all", () => all[0].length === 3 && all[1].length === 3 && all[2].length === 1);
    for (const [events, Kind] of [[all[0], Blob], [all[1], ArrayBuffer], [all[2], ArrayBuffer]]) {
      for (const event of events) assert.ok(event.data instanceof Kind && event.kind === "binary", `${event.data} is no ${Kind.name}`);
    }
    for (const events of all.slice(0, 2)) assert.deepEqual(await Promise.all(events.map(event => bytes(event.data))), [[1, 2], [3, 4], [5, 6]]);
    for (const [each, Kind] of [[client, Blob], [other, ArrayBuffer]]) {
      const { messages } = await each.history(topic);
      assert.ok(messages.length === 3 && messages.every(message => message.data instanceof Kind));
    }
  });
}

live("many publications with keys through cuts are each done once, in a topic without a hole", async ({ assert, open, fresh, world }) => {
  const client = open(), topic = fresh();
  const subscription = client.subscribe(topic, { history: 1000 });
  const events = record(subscription, "message");
  await subscription.ready;
  const published = [];
  for (let each = 0; each < 200; each += 1) {
    published.push(client.publish(topic, each, { once: true }));
    if (each % 50 === 25) { await published[each - 20]; await world.cut(); }
  }
  const given = (await Promise.all(published)).map(({ offset }) => offset);
  assert.equal(new Set(given).size, 200);
  await until("all", () => events.length === 200);
  assert.deepEqual(offsets(events), Array.from({ length: 200 }, (_, index) => index + 1));
  assert.deepEqual(data(events).sort((one, other) => one - other), Array.from({ length: 200 }, (_, index) => index));
});

live("presence: who is there, joins, leaves, and a client that vanishes", async ({ assert, open, fresh }) => {
  const ada = open(), bob = open(), topic = fresh();
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
  live(`${transport}: others see it come, and it asks who is there`, async ({ assert, open, fresh }) => {
    const ada = open(), bob = open({ transports: [transport] }), topic = fresh();
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

live("history: the newest, those before an offset, and an iterator from there on", async ({ assert, open, fresh, world }) => {
  const client = open(), topic = fresh();
  await world.publish(topic, 1, 2, 3, 4, 5);
  const { epoch, offset, messages } = await client.history(topic);
  assert.deepEqual([offset, messages.map(message => message.data)], [5, [1, 2, 3, 4, 5]]);
  assert.deepEqual((await client.history(topic, { limit: 2, before: 4 })).messages.map(message => message.data), [2, 3]);
  const subscription = client.subscribe(topic, { recover: { epoch, offset: 3 } });
  const reader = subscription[Symbol.asyncIterator]();
  const seen = [];
  while (seen.length < 2) seen.push((await reader.next()).value.data);
  assert.deepEqual(seen, [4, 5]);
  client.close();
  assert.equal((await reader.next()).done, true);
});

live("patterns: * is one segment, ** at the end one or more; refusals with their codes", async ({ library, assert, open, fresh, world }) => {
  const client = open(), topic = fresh();
  const patterns = [`${topic}/*`, `${topic}/**`, `${topic}/*/b`, topic, "chat/**"].map(pattern => client.subscribe(pattern));
  const seen = patterns.map(pattern => record(pattern, "message"));
  await Promise.all(patterns.map(pattern => pattern.ready));
  const names = [topic, `${topic}/a`, `${topic}/a/b`, `${topic}/a/b/c`, `${topic}x/a`];
  await world.publishAll(names.map(name => ({ topic: name, data: name.slice(topic.length) })));
  // Between topics there is no order; but a message comes once, for all that it fits, and the last pattern fits each.
  await until("all", () => names.every(name => seen[4].some(event => event.topic === name)));
  assert.deepEqual(seen.slice(0, 4).map(events => data(events).sort()), [["/a"], ["/a", "/a/b", "/a/b/c"], ["/a/b"], [""]]);
  assert.ok(seen.slice(0, 4).flat().every(event => event.topic === topic + event.data));
  assert.ok(await refused(client.publish("a//b", 1), "invalid_topic") instanceof library.TidegateError);
  await refused(client.publish("chat/*", 1), "invalid_topic");
  await refused(client.subscribe("a//b").ready, "invalid_topic");
});

live("WebSockets blocked: events and POST; streams blocked too: polls; free again: a WebSocket, nothing lost", async ({ assert, open, fresh, world }) => {
  await world.block(true, false);
  const client = open(), topic = fresh();
  const subscription = client.subscribe(topic);
  const events = record(subscription, "message", "subscribed");
  const transports = record(client, "state");
  await subscription.ready;
  assert.equal(client.transport, "events");
  await world.publish(topic, 1);
  assert.equal((await client.publish(topic, 2)).level, "accepted");
  await until("the first two", () => data(events).length === 2);
  await world.block(true, true);
  await world.cut();
  await until("polls", () => client.transport === "poll");
  assert.equal((await client.publish(topic, 3)).level, "accepted");
  await until("the third", () => data(events).length === 3);
  await world.block(false, false);
  await until("a WebSocket", () => client.transport === "websocket");
  await world.publish(topic, 4);
  await until("the fourth", () => data(events).length === 4);
  assert.deepEqual(data(events), [1, 2, 3, 4]);
  assert.ok(answers(events).slice(1).every(recovered => recovered === true), String(answers(events)));
  assert.deepEqual(transports.filter(({ state }) => state === "open").map(({ transport }) => transport), ["events", "poll", "websocket"]);
});

live("a poll from a position of an epoch that is gone is answered at once", async ({ assert, fresh, world }) => {
  const topic = fresh(), address = `${world.origin}/poll?topic=${encodeURIComponent(topic)}`;
  await world.publish(topic, 1);
  const response = await fetch(`${address}&position=00000000-0`, { signal: AbortSignal.timeout(5000) });
  const { topics } = await response.json();
  assert.deepEqual([topics[0].recovered, topics[0].offset], [false, 1]);
});

live("raw topics beside the protocol", async ({ assert, open, raw, fresh }) => {
  const client = open(), topic = fresh(), own = raw(client, topic);
  const events = record(own, "message");
  const subscription = client.subscribe(topic);
  const others = record(subscription, "message");
  await Promise.all([stateOf(own, "open"), subscription.ready]);
  await own.send("text");
  await own.send(new Uint8Array([1, 2]));
  await client.publish(topic, "as text", { text: true });
  await client.publish(topic, new Uint8Array([3]));
  await until("all", () => events.length === 4 && others.length === 4);
  for (const all of [events, others]) {
    assert.deepEqual(all.map(event => event.kind).sort(), ["binary", "binary", "text", "text"]);
    assert.deepEqual(all.filter(event => event.kind === "text").map(event => event.data).sort(), ["as text", "text"]);
  }
});

live("a raw topic's bytes: Blob, ArrayBuffer and view are sent, binaryType may change, the order stays", async ({ assert, open, raw, fresh }) => {
  const own = raw(open(), fresh(), { binaryType: "blob" });
  const events = record(own, "message");
  await stateOf(own, "open");
  assert.equal(own.binaryType, "blob");
  await Promise.all([own.send(new Blob([new Uint8Array([1])])), own.send(new Uint8Array([2]).buffer), own.send(new Uint8Array([0, 3]).subarray(1))]);
  await until("three", () => events.length === 3);
  assert.ok(events.every(event => event.data instanceof Blob && event.kind === "binary"));
  assert.deepEqual(await Promise.all(events.map(event => bytes(event.data))), [[1], [2], [3]]);
  own.binaryType = "arraybuffer";
  await own.send(new Uint8Array([4]));
  await until("the fourth", () => events.length === 4);
  assert.ok(events[3].data instanceof ArrayBuffer);
  assert.deepEqual(await bytes(events[3].data), [4]);
});

live("a raw topic's states: it opens, comes back after a cut, and what cannot be sent is refused", async ({ assert, open, raw, fresh, world }) => {
  const own = raw(open(), fresh());
  const states = record(own, "state"), events = record(own, "message");
  assert.equal(own.state, "connecting");
  await refused(own.send("too early"), "not_sent");
  await stateOf(own, "open");
  await world.shut(true);
  await world.cut();
  await stateOf(own, "waiting");
  await refused(own.send("too late"), "not_sent");
  await world.shut(false);
  await stateOf(own, "open");
  await own.send("back");
  await until("it", () => events.length === 1);
  const broken = states.find(({ state }) => state === "waiting");
  assert.deepEqual([broken.previous, broken.code, broken.reason, broken.tries], ["open", 1006, "", 1]);
  assert.ok(broken.waitMs >= 0 && broken.waitMs <= 20);
});

live("what is refused at the handshake ends with 1006, and after so many tries for good", async ({ assert, open, raw, fresh, world }) => {
  await world.block(true, false);
  const own = raw(open({ maxTries: 2 }), fresh());
  const states = record(own, "state");
  await stateOf(own, "closed");
  assert.deepEqual(states.map(({ state }) => state), ["connecting", "waiting", "connecting", "waiting", "connecting", "closed"]);
  const { code, reason, cause } = states.at(-1);
  assert.deepEqual([code, reason, cause], [1006, "", "gave_up"]);
  const client = open({ transports: ["websocket"], maxTries: 1 });
  const subscription = client.subscribe(fresh());
  await refused(subscription.ready, "closed");
  assert.deepEqual([client.state, client.transport], ["closed", null]);
});

live("close(code, reason) arrives, the client's and a raw topic's", async ({ assert, open, raw, fresh, world }) => {
  const client = open(), own = raw(client, fresh()), name = own.topic;
  const arrived = async (code, reason) => until(`${code} "${reason}"`, async () => (await world.closes()).some(close => close.code === code && close.reason === reason));
  const states = record(own, "state"), all = record(client, "state");
  await Promise.all([stateOf(own, "open"), stateOf(client, "open")]);
  own.close(4321, `${name} ß`);
  await arrived(4321, `${name} ß`);
  assert.equal(own.state, "closed");
  assert.deepEqual([states.at(-1).code, states.at(-1).reason, states.at(-1).cause], [4321, `${name} ß`, "closed"]);
  await refused(own.send("late"), "not_sent");
  client.close(3000, `${name} done`);
  await arrived(3000, `${name} done`);
  assert.deepEqual([all.at(-1).state, all.at(-1).code, all.at(-1).reason, all.at(-1).cause], ["closed", 3000, `${name} done`, "closed"]);
  await refused(client.publish(name, 1), "closed");
});

live("the gateway's Close comes with its code and its reason: too large, which only the publication is told of", async ({ assert, open, raw, fresh }) => {
  const client = open(), own = raw(client, fresh());
  await stateOf(own, "open");
  const closed = next(own, "state", ({ state }) => state === "closed");
  await own.send("x".repeat(TOO_LARGE_BYTES));
  const { code, reason, cause } = await closed;
  assert.deepEqual([code, reason, cause], [1009, "message is too big", "told"]);
  const topic = fresh();
  await stateOf(client, "open");
  const ended = next(client, "state", ({ state }) => state === "waiting");
  await refused(client.publish(topic, "x".repeat(TOO_LARGE_BYTES)), "too_large");
  const told = await ended;
  assert.deepEqual([told.code, told.reason], [1009, "message is too big"]);
  assert.equal((await client.publish(topic, "small")).offset, 1);
});

live("the gateway ends and says so: 1001 and its reason, and who was there comes back", async ({ assert, open, raw, fresh, world }) => {
  const client = open(), topic = fresh(), own = raw(client, topic), subscription = client.subscribe(topic);
  await Promise.all([stateOf(own, "open"), subscription.ready]);
  const ends = [client, own].map(each => next(each, "state", ({ state }) => state === "waiting"));
  // Of a topic that is new there is nothing to recover: what is sent before it is subscribed to again would not come.
  const events = record(subscription, "message"), again = next(subscription, "subscribed");
  await world.restart([], true);
  for (const { code, reason } of await Promise.all(ends)) assert.deepEqual([code, reason], [1001, "going away"]);
  await Promise.all([stateOf(own, "open"), again]);
  await own.send("again");
  await until("it", () => data(events).includes("again"));
});

live("the platform's WebSocket at a raw topic: readyState, binaryType, close(code, reason), onclose and onerror", async ({ assert, WebSocket, fresh, world }) => {
  const address = `${world.url}/${fresh()}`;
  const once = (socket, type) => new Promise(resolve => socket.addEventListener(type, resolve, { once: true }));
  const socket = new WebSocket(address);
  assert.equal(socket.readyState, 0);
  await once(socket, "open");
  assert.equal(socket.readyState, 1);
  for (const [binaryType, Kind] of [["blob", Blob], ["arraybuffer", ArrayBuffer]]) {
    socket.binaryType = binaryType;
    assert.equal(socket.binaryType, binaryType);
    const came = once(socket, "message");
    socket.send(new Uint8Array([1, 2, 3]));
    const { data } = await came;
    assert.ok(data instanceof Kind, `${binaryType}: ${data}`);
    assert.deepEqual(await bytes(data), [1, 2, 3]);
  }
  const closed = once(socket, "close"), reason = `${address} ß`;
  socket.close(3000, reason);
  assert.equal(socket.readyState, 2);
  // The code comes back (RFC 6455 §5.5.1); the gateway's answer repeats no reason.
  const { code, reason: answer, wasClean } = await closed;
  assert.deepEqual([code, String(answer), wasClean, socket.readyState], [3000, "", true, 3]);
  await until("the reason", async () => (await world.closes()).some(close => close.code === 3000 && close.reason === reason));

  const large = new WebSocket(address);
  await once(large, "open");
  large.send("x".repeat(TOO_LARGE_BYTES));
  const end = await once(large, "close");
  assert.deepEqual([end.code, String(end.reason), end.wasClean], [1009, "message is too big", true]);

  const refused = new WebSocket(address.replace("/topics/", "/no/such/route/"));
  const order = [];
  refused.onerror = () => order.push(`error ${refused.readyState}`);
  refused.onclose = ({ code, wasClean }) => order.push(`close ${code} ${wasClean}`);
  await until("both", () => order.length === 2);
  assert.deepEqual([order[0].slice(0, 5), order[1]], ["error", "close 1006 false"]);
  assert.equal(refused.readyState, 3);
});
