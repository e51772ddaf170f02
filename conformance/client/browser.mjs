// Pages and library in Chromium: browser.mjs CHROMIUM [PICTURES]. Against the gateway that TIDEGATE_BIN names, else the fake. What
// live.test.mjs runs under Node runs here in a page; what else there is concerns the pages, or a browser alone.
// Prints "ok NAME" or "FAIL NAME -- why" for each case, and "N passed, N failed" at the end.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { names } from "./cases.mjs";
import { Browser } from "./chromium.mjs";
import { runInPage } from "./livepage.mjs";
import { World } from "./world.mjs";

const [chromium, pictures] = process.argv.slice(2);
let passed = 0, failed = 0;
const everyPage = [];

async function check(name, body) {
  const opened = everyPage.length, began = Date.now();
  try {
    await body();
    passed += 1;
    console.log(`ok ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name} -- ${String(error.message ?? error).replace(/\s+/g, " ").slice(0, 500)}`);
  }
  world.door.open();
  for (const page of everyPage.slice(opened)) await page.close().catch(() => {});
}

process.on("SIGTERM", () => process.exit(1));
process.on("SIGINT", () => process.exit(1));
if (pictures) mkdirSync(pictures, { recursive: true });
const world = await new World(process.env.TIDEGATE_BIN).start();
const browser = await Browser.launch(chromium);

const open = async (path, size) => {
  const page = await browser.open(world.origin + path, size);
  everyPage.push(page);
  return page;
};

const enter = async (name, room, size) => {
  const page = await open("/chat.html", size);
  await page.type("#name", name);
  await page.type("#room", room);
  await page.click("#join button");
  await page.until("connection", `document.querySelector("#state").className === "open"`);
  return page;
};
for (const name of names()) {
  // A page of its own: Chromium lets a page that often could not connect wait ever longer.
  await check(`${world.name}: ${name}`, async () => runInPage(await open("/chat.html"), world, name));
}

const said = page => page.texts("#log .said:not(.pending) p");
const heard = (page, text) => page.until(`"${text}"`, `Array.from(document.querySelectorAll("#log .said:not(.pending) p")).some(each => each.innerText === ${JSON.stringify(text)})`);
const noted = (page, text) => page.until(`note "${text}"`, `Array.from(document.querySelectorAll("#log .note")).some(each => each.innerText.includes(${JSON.stringify(text)}))`);
const say = async (page, text) => {
  await page.type("#text", text);
  await page.enter();
};
const people = page => page.texts("#people li span");
const present = (page, ...names) => page.until(names.join(" and "), `JSON.stringify(Array.from(document.querySelectorAll("#people li span"), each => each.innerText).sort()) === ${JSON.stringify(JSON.stringify(names.sort()))}`);

await check("two pages chat, and know of each other", async () => {
  const ada = await enter("Ada", "talk"), bob = await enter("Bob", "talk");
  await present(ada, "Ada", "Bob");
  await present(bob, "Ada", "Bob");
  await noted(ada, "Bob came in");
  await say(ada, "Hello, Bob 🌊");
  await heard(bob, "Hello, Bob 🌊");
  await say(bob, "Hello, Ada");
  await heard(ada, "Hello, Ada");
  assert.deepEqual(await said(ada), ["Hello, Bob 🌊", "Hello, Ada"]);
  assert.deepEqual(await ada.texts("#log .own p"), ["Hello, Bob 🌊"]);
  assert.equal(await ada.run(`document.querySelectorAll("#log .pending").length`), 0);
  await bob.close();
  await noted(ada, "Bob left");
  await present(ada, "Ada");
  const late = await enter("Cleo", "talk");
  await heard(late, "Hello, Ada");
  assert.deepEqual(await said(late), ["Hello, Bob 🌊", "Hello, Ada"]);
});

await check("what somebody says is text, whatever it says", async () => {
  const ada = await enter("<b>Ada</b>", "talk-html"), bob = await enter("Bob", "talk-html");
  const evil = `<img src=x onerror="document.title='caught'"><script>document.title='caught'</script>`;
  await say(ada, evil);
  await heard(bob, evil);
  assert.equal(await bob.run(`document.querySelectorAll("#log img, #log script, #log b, #people b").length`), 0);
  assert.equal((await bob.texts("#log .said strong"))[0], "<b>Ada</b>");
  await world.publish("chat/talk-html", null, 5, { text: 7 }, { text: "no name" }, { from: { a: 1 }, text: "odd", at: "never" });
  await heard(bob, "odd");
  assert.deepEqual(await said(bob), [evil, "no name", "odd"]);
  assert.notEqual(await bob.run("document.title"), "caught");
});

await check("rooms: what is said elsewhere is counted, and read there", async () => {
  const ada = await enter("Ada", "here"), bob = await enter("Bob", "there");
  await say(bob, "one");
  await say(bob, "two");
  await ada.until("a count of 2", `Array.from(document.querySelectorAll("#rooms button")).some(each => each.innerText.replace(/\\s+/g, " ") === "there 2")`);
  assert.deepEqual(await said(ada), []);
  await ada.run(`Array.from(document.querySelectorAll("#rooms button")).find(each => each.innerText.startsWith("there")).id = "there"`);
  await ada.click("#there");
  await heard(ada, "two");
  assert.deepEqual(await said(ada), ["one", "two"]);
  await present(bob, "Ada", "Bob");
});

await check("cut: both pages get every message of the window, once and in order", async () => {
  const ada = await enter("Ada", "cut"), bob = await enter("Bob", "cut");
  await say(ada, "before");
  await heard(bob, "before");
  await heard(ada, "before");
  world.door.shut = true;
  world.cut();
  for (const page of [ada, bob]) await noted(page, "The connection broke");
  // Said while away, and said by somebody else meanwhile.
  await say(ada, "from the tunnel");
  await world.publish("chat/cut", ...["missed 1", "missed 2", "missed 3"].map(text => ({ from: "Cleo", text, at: Date.now() })));
  world.door.shut = false;
  for (const page of [ada, bob]) {
    await heard(page, "from the tunnel");
    // The other one may have been back first.
    await page.until("what was missed", `/Back\\. [34] messages were missed/.test(document.querySelector("#log").innerText)`);
    assert.deepEqual(await said(page), ["before", "missed 1", "missed 2", "missed 3", "from the tunnel"]);
  }
  await present(ada, "Ada", "Bob");
});

await check("restart: both pages learn that not everything could be recovered, show what is there now, and go on by themselves", async () => {
  const ada = await enter("Ada", "restart"), bob = await enter("Bob", "restart");
  await say(ada, "of the old epoch");
  // With her as well: what is not acknowledged before the restart is said again after it.
  for (const page of [ada, bob]) await heard(page, "of the old epoch");
  const state = ["state 1", "state 2"];
  await world.restart(state.map(text => ({ topic: "chat/restart", data: { from: "Cleo", text, at: Date.now() } })));
  for (const page of [ada, bob]) {
    await noted(page, "could not tell everything");
    await heard(page, "state 2");
    assert.deepEqual(await said(page), state);
  }
  await say(bob, "of the new one");
  for (const page of [ada, bob]) {
    await heard(page, "of the new one");
    assert.deepEqual(await said(page), [...state, "of the new one"]);
  }
  await present(ada, "Ada", "Bob");
});

await check("WebSockets blocked: the chat goes on by events, then by polls, then by WebSocket", async () => {
  world.door.blocked = { websocket: true, events: false };
  const ada = await open("/chat.html");
  await ada.type("#name", "Ada");
  await ada.type("#room", "blocked");
  await ada.click("#join button");
  const state = text => ada.until(text, `document.querySelector("#state").innerText === ${JSON.stringify(text)}`);
  await state("connected by events");
  // Each is there for the other, and learns of it by asking.
  const bob = await enter("Bob", "blocked");
  await present(bob, "Ada", "Bob");
  await say(ada, "by POST");
  await heard(ada, "by POST");
  await world.publish("chat/blocked", { from: "Bob", text: "by events" });
  await heard(ada, "by events");
  world.door.blocked = { websocket: true, events: true };
  world.cut();
  await state("connected by polling");
  await world.publish("chat/blocked", { from: "Bob", text: "by poll" });
  await heard(ada, "by poll");
  world.door.blocked = { websocket: false, events: false };
  world.cut();
  await state("connected");
  await world.publish("chat/blocked", { from: "Bob", text: "by WebSocket" });
  await heard(ada, "by WebSocket");
  assert.deepEqual(await said(ada), ["by POST", "by events", "by poll", "by WebSocket"]);
});

const received = page => page.run(`Array.from(document.querySelectorAll("#log .message"), line => [line.children[2].textContent, line.children[3].textContent]).reverse()`);
const state = (page, text) => page.until(text, `document.querySelector("#readyState").innerText === ${JSON.stringify(text)}`);
const counted = (page, number) => page.until(`${number} messages`, `document.querySelector("#count").innerText === "${number}"`);
const logged = (page, what, text) => page.until(`${what} "${text}"`, `Array.from(document.querySelectorAll("#log li")).some(line => line.children[1].textContent === ${JSON.stringify(what)} && line.children[2].textContent.includes(${JSON.stringify(text)}))`);

await check("what is broadcast is received: text, Blob and ArrayBuffer, by client, raw WebSocket and POST", async () => {
  const one = await open("/websocket.html"), two = await open("/websocket.html"), sender = await open("/broadcast.html");
  await two.choose("#binaryType", "arraybuffer");
  for (const page of [one, two]) await state(page, "1 OPEN");
  await sender.type("#message", "Ebbe ≠ Flut 🌊");
  let number = 0;
  for (const way of ["client", "raw", "post"]) {
    await sender.choose("#way", way);
    for (const id of ["#text", "#binary"]) {
      await sender.click(id);
      number += 1;
      for (const page of [one, two]) await counted(page, number);
    }
  }
  const hex = Buffer.from("Ebbe ≠ Flut 🌊").toString("hex").replace(/..(?!$)/g, "$& ");
  const expected = kind => Array.from({ length: 6 }, (_, index) => index % 2 ? [hex, `${kind} 18 B`] : ["Ebbe ≠ Flut 🌊", "string 18 B"]);
  assert.deepEqual(await received(one), expected("Blob"));
  assert.deepEqual(await received(two), expected("ArrayBuffer"));
  await sender.choose("#way", "client");
  await sender.click("#burst");
  for (const page of [one, two]) await counted(page, 106);
  await sender.until("all answers", `document.querySelector("#accepted").innerText === "104"`);
  assert.equal(await sender.text("#failed"), "0");
  // An address would lose the dots, and mean the topic that both receive.
  await sender.type("#topic", "room/../broadcast");
  assert.equal(await sender.text("#shell"), '"room/../broadcast" is not a name');
  for (const [way, failed] of [["post", 1], ["raw", 2]]) {
    await sender.choose("#way", way);
    await sender.click("#text");
    await sender.until("the refusal", `document.querySelector("#failed").innerText === "${failed}"`);
    await logged(sender, "invalid_topic", "room/../broadcast");
  }
  await sender.type("#topic", "broadcast");
  await sender.choose("#way", "client");
  await sender.click("#text");
  for (const page of [one, two]) await counted(page, 107);
});

await check("readyState, close(code, reason) and its events are the standard's", async () => {
  const page = await open("/websocket.html");
  await state(page, "1 OPEN");
  await page.type("#code", "4321");
  await page.type("#reason", "ebb tide");
  await page.click("#close");
  await state(page, "3 CLOSED");
  // The reason arrives; the code comes back (RFC 6455 §5.5.1), and the gateway's answer repeats no reason.
  assert.ok(world.closes().some(({ code, reason }) => code === 4321 && reason === "ebb tide"), JSON.stringify(world.closes()));
  await logged(page, "close", "code 4321");
  assert.equal(await page.run(`document.querySelector("#log li small").textContent`), "clean");
  await page.click("#connect");
  await state(page, "1 OPEN");
  // What the gateway gives for a reason arrives too.
  await world.restart([], true);
  await state(page, "3 CLOSED");
  await logged(page, "close", 'code 1001, reason "going away"');
  assert.equal(await page.run(`document.querySelector("#log li small").textContent`), "clean");
  await page.click("#connect");
  await state(page, "1 OPEN");
  await page.type("#code", "1001");
  await page.click("#close");
  await logged(page, "InvalidAccessError", "");
  await page.type("#code", "1000");
  await page.type("#reason", "x".repeat(124));
  await page.click("#close");
  await logged(page, "SyntaxError", "");
  await state(page, "1 OPEN");
  world.cut();
  await state(page, "3 CLOSED");
  await logged(page, "close", "code 1006");
  assert.equal(await page.run(`document.querySelector("#log li small").textContent`), "not clean");
  await page.type("#path", "/no/such/route");
  await page.click("#connect");
  await logged(page, "error", "readyState 3");
});

await check("the standard's WebSocket, by script: every state, binaryType, send, close and onerror", async () => {
  const page = await open("/websocket.html");
  const events = await page.run(`(async () => {
    const seen = [], url = ${JSON.stringify(world.url)} + "/api";
    const once = (socket, type) => new Promise(resolve => socket.addEventListener(type, resolve, { once: true }));
    const socket = new WebSocket(url);
    seen.push(socket.readyState, socket.binaryType, socket.protocol);
    try { socket.send("early"); } catch (error) { seen.push(error.name); }
    await once(socket, "open");
    seen.push(socket.readyState);
    socket.binaryType = "nonsense";
    seen.push(socket.binaryType);
    const data = async binaryType => {
      socket.binaryType = binaryType;
      socket.send(new Uint8Array([1, 2, 3]));
      return (await once(socket, "message")).data;
    };
    const blob = await data("blob"), buffer = await data("arraybuffer");
    seen.push(blob.constructor.name, blob.size, buffer.constructor.name, buffer.byteLength);
    socket.send(new Blob(["a blob"]));
    seen.push(new TextDecoder().decode((await once(socket, "message")).data));
    socket.send("");
    seen.push((await once(socket, "message")).data);
    const closed = once(socket, "close");
    socket.close(3000, "ß");
    seen.push(socket.readyState);
    const { code, wasClean } = await closed;
    seen.push(code, wasClean, socket.readyState);
    socket.send("late");
    const refused = new WebSocket(url.replace("/topics/api", "/no/such/route"));
    const order = [];
    refused.onerror = event => order.push(event.constructor.name + " " + refused.readyState);
    refused.onclose = event => order.push(event.code + " " + event.wasClean);
    await once(refused, "close");
    seen.push(...order);
    const hasty = new WebSocket(url);
    hasty.close();
    seen.push(hasty.readyState);
    seen.push((await once(hasty, "close")).code);
    const spoken = new WebSocket(${JSON.stringify(world.url)}, ["unknown", "tidegate.v1"]);
    const hello = JSON.parse((await once(spoken, "message")).data);
    seen.push(spoken.protocol, hello.op, hello.version);
    spoken.close();
    return seen;
  })()`);
  assert.deepEqual(events, [
    0, "blob", "", "InvalidStateError", 1, "blob", "Blob", 3, "ArrayBuffer", 3, "a blob", "", 2, 3000, true, 3,
    "Event 3", "1006 false", 2, 1006, "tidegate.v1", "hello", 1,
  ]);
  // What was asked for.
  const complaints = page.complaints();
  page.events.length = 0;
  assert.equal(complaints.length, 2, String(complaints));
  assert.match(complaints[0], /'nonsense' is not a valid enum value/);
  assert.match(complaints[1], /already in CLOSING or CLOSED/);
});

await check("the library in a page: blobs both ways, positions, iterators, presence, history", async () => {
  const page = await open("/chat.html");
  const seen = await page.run(`(async () => {
    const { connect, TidegateError } = await import("./tidegate.js");
    const client = connect(), seen = [];
    const topic = client.subscribe("chat/library", { info: { name: "page" } });
    await topic.ready;
    const reader = topic[Symbol.asyncIterator]();
    const { offset, level } = await client.publish("chat/library", new Blob([new Uint8Array([7, 8])]));
    seen.push(offset, level);
    const { value } = await reader.next();
    seen.push(value.data instanceof Blob, Array.from(new Uint8Array(await value.data.arrayBuffer())).join());
    await client.publish("chat/library", { deep: [1, "two"] }, { once: "key" });
    const again = await client.publish("chat/library", { deep: [1, "two"] }, { once: "key" });
    seen.push(again.duplicate, again.offset, JSON.stringify((await reader.next()).value.data));
    seen.push((await client.presence("chat/library")).clients.map(({ info }) => info.name).join());
    seen.push((await client.history("chat/library")).messages.length);
    seen.push(await client.publish("a//b", 1).catch(error => error instanceof TidegateError && error.code));
    client.close();
    seen.push((await reader.next()).done);
    return seen;
  })()`);
  assert.deepEqual(seen, [1, "accepted", true, "7,8", true, 2, `{"deep":[1,"two"]}`, "page", 2, "invalid_topic", true]);
});

await check("the echo is still there, and the pages lead to each other", async () => {
  const page = await open("/");
  await page.until("connection", `document.querySelector("#state").innerText === "connected"`);
  await page.click("#text");
  await page.until("the echo", `document.querySelector("#counts").innerText === "1 / 1"`);
  for (const [link, title] of [["chat.html", "Chat"], ["websocket.html", "Receive"], ["broadcast.html", "Broadcast"], ["./", "Tidegate"]]) {
    await page.click(`nav a[href="${link}"]`);
    await page.until(title, `document.querySelector("h1")?.innerText === ${JSON.stringify(title)} && document.readyState === "complete"`);
  }
});

await check("pictures: wide and narrow, dark and light, nothing wider than the window", async () => {
  const ada = await enter("Ada", "lobby"), bob = await enter("Bob", "lobby"), cleo = await enter("Cleo", "harbour");
  await say(ada, "Good morning! High water is at 11:42 today.");
  await heard(bob, "Good morning! High water is at 11:42 today.");
  await say(bob, "Thanks. Is the gate open already? I have to bring the boat in before noon, and the wind is picking up from the south-west.");
  await heard(ada, "Thanks. Is the gate open already? I have to bring the boat in before noon, and the wind is picking up from the south-west.");
  await say(ada, "Since ten.");
  await say(cleo, "Anybody at the quay?");
  await heard(ada, "Since ten.");
  await ada.until("a count", `document.querySelector("#rooms b")`);
  const receive = await open("/websocket.html"), broadcast = await open("/broadcast.html"), index = await open("/"), join = await open("/chat.html");
  await state(receive, "1 OPEN");
  await broadcast.click("#text");
  await counted(receive, 1);
  await broadcast.click("#binary");
  await counted(receive, 2);
  await index.until("connection", `document.querySelector("#state").innerText === "connected"`);
  await index.click("#text");
  await index.click("#binary");
  await index.until("the echoes", `document.querySelector("#counts").innerText === "2 / 2"`);
  for (const [name, page] of Object.entries({ chat: ada, join, websocket: receive, broadcast, index })) {
    const grounds = new Set();
    for (const width of [1280, 390]) {
      for (const scheme of ["dark", "light"]) {
        const file = pictures && join_(name, width, scheme);
        grounds.add(await page.picture(file, { width, height: width === 390 ? 844 : 900, scheme }));
      }
    }
    assert.equal(grounds.size, 2, `${name} looks the same in dark and light`);
  }
});

function join_(name, width, scheme) { return join(pictures, `${name}-${width}-${scheme}.png`); }

await check("no page complained, and none loaded anything from elsewhere", async () => {
  assert.deepEqual(everyPage.flatMap(page => page.complaints()), []);
  assert.deepEqual(everyPage.flatMap(page => page.strangers(world.origin)), []);
  assert.ok(everyPage.length > 15);
});

await browser.close();
await world.stop();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
