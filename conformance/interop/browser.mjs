// Headless Chromium on the page: browser.mjs CHROMIUM HTTP_URL PROFILE SCREENSHOT.
// Clicks as a user would, by the DevTools protocol. Prints "ok NAME" or "FAIL NAME -- why" for each case, and "done" at the end.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import WebSocket from "ws";
import { check, verdict } from "./check.mjs";

const [chromium, address, profile, screenshot] = process.argv.slice(2);
const LIMIT_MS = 30_000;
const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

const browser = spawn(chromium, [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
  "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  "--remote-debugging-port=0", "--user-data-dir=" + profile, "--window-size=1100,1000", "about:blank",
], { stdio: ["ignore", "ignore", "pipe"], detached: true });
// Detached: its own process group, which ends with it.
const end = () => { try { process.kill(-browser.pid, "SIGKILL"); } catch { /* is gone */ } };
process.on("exit", end);
process.on("SIGTERM", () => process.exit(1));
setTimeout(() => { console.log("FAIL the browser -- too late"); process.exit(1); }, 75_000).unref();

const devtools = await new Promise((resolve, reject) => {
  let log = "";
  browser.stderr.setEncoding("utf8").on("data", data => {
    log += data;
    const found = /DevTools listening on (ws:\S+)/.exec(log);
    if (found) resolve(found[1]);
  });
  browser.on("error", reject);
  browser.on("exit", code => reject(new Error(`ended with ${code}: ${log.slice(-300)}`)));
}).catch(error => { console.log("FAIL the browser starts -- " + error.message.replace(/\s+/g, " ")); process.exit(1); });

const connection = new WebSocket(devtools, { perMessageDeflate: false, maxPayload: 64 << 20 });
await new Promise((resolve, reject) => { connection.on("open", resolve); connection.on("error", reject); });
const answers = new Map(), events = [];
let number = 0, target;
connection.on("message", data => {
  const message = JSON.parse(data);
  if (message.id) {
    const { resolve, reject } = answers.get(message.id);
    answers.delete(message.id);
    if (message.error) reject(new Error(message.error.message)); else resolve(message.result);
  } else {
    events.push(message);
  }
});
const ask = (method, params = {}) => new Promise((resolve, reject) => {
  number += 1;
  answers.set(number, { resolve, reject });
  connection.send(JSON.stringify({ id: number, method, params, sessionId: target }));
});
const run = async expression => {
  const { result, exceptionDetails } = await ask("Runtime.evaluate", { expression, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
};
const until = async (what, probe) => {
  const deadline = Date.now() + LIMIT_MS;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`no ${what}; state: ${await run("document.body.innerText")}`);
    await pause(20);
  }
};
const of = method => events.filter(event => event.method === method).map(event => event.params);
// A click where the element is, as a mouse does it.
const click = async id => {
  await run(`document.getElementById(${JSON.stringify(id)}).scrollIntoView({ block: "center" })`);
  const { x, y, over } = await run(`(() => {
    const element = document.getElementById(${JSON.stringify(id)}), box = element.getBoundingClientRect();
    const x = box.x + box.width / 2, y = box.y + box.height / 2;
    return { x, y, over: document.elementFromPoint(x, y) === element && !element.disabled };
  })()`);
  assert.ok(over, `"${id}" cannot be clicked`);
  for (const type of ["mousePressed", "mouseReleased"]) await ask("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
};
// Takes the place of what stands in a field.
const type = async (id, text) => {
  await click(id);
  await run(`document.getElementById(${JSON.stringify(id)}).select()`);
  await ask("Input.insertText", { text });
};
// Newest first: class, mark, text, note.
const log = () => run(`Array.from(document.querySelectorAll("#log li"), line => [line.className, ...Array.from(line.children).slice(1).map(part => part.textContent)])`);
const state = () => run(`document.getElementById("state")?.textContent`);
const answer = async (kind, text, note) => until(`"${text}" in the log`, async () => {
  const lines = (await log()).filter(line => line[1] === "↓" && line[2] === text);
  const line = lines.find(line => line[3].startsWith(note));
  if (line) assert.doesNotMatch(line[3], /not what was sent/);
  return line;
});

await check("the page opens and connects", async () => {
  const { targetId } = await ask("Target.createTarget", { url: "about:blank" });
  target = (await ask("Target.attachToTarget", { targetId, flatten: true })).sessionId;
  for (const domain of ["Page", "Network", "Runtime", "Log"]) await ask(domain + ".enable");
  await ask("Page.navigate", { url: address });
  await until("connection", async () => await state() === "connected");
});

await check("permessage-deflate is negotiated", async () => {
  const [{ response }] = of("Network.webSocketHandshakeResponseReceived");
  assert.equal(response.status, 101);
  const header = Object.entries(response.headers).find(([name]) => /^sec-websocket-extensions$/i.test(name));
  assert.match(header?.[1] ?? "", /^permessage-deflate/);
  assert.match(await run(`document.getElementById("extensions").textContent`), /^permessage-deflate/);
});

await check("text, binary and what is larger come back", async () => {
  await type("message", "Grüße von der Flut 🌊");
  await click("text");
  await answer("in", "Grüße von der Flut 🌊", "text 25 B");
  await click("binary");
  await answer("in", Buffer.from("Grüße von der Flut 🌊").toString("hex").replace(/..(?!$)/g, "$& "), "binary 25 B");
  await click("random");
  await until("64 KiB", async () => (await log()).some(line => line[1] === "↓" && line[3].startsWith("binary 64 KiB") && !line[3].includes("not what")));
  const long = "Ebbe und Flut, ".repeat(5000);
  await type("message", long);
  await click("text");
  await until("long text", async () => (await log()).some(line => line[1] === "↓" && line[3].startsWith("text 73 KiB") && !line[3].includes("not what")));
  await type("message", "one of a hundred");
  await click("burst");
  await until("a hundred", async () => await run(`document.getElementById("counts").textContent`) === "104 / 104");
  assert.ok(!(await log()).some(line => line[0] === "bad" || line[3].includes("not what was sent")), "an error in the log");
  const frames = of("Network.webSocketFrameReceived").filter(event => event.response.opcode === 1 && event.response.payloadData === "one of a hundred");
  assert.equal(frames.length, 100);
});

await check("the picture of the page", async () => {
  await click("clear");
  await type("message", "Hello, tide 🌊");
  await click("text");
  await click("binary");
  await until("both answers", async () => (await log()).length === 4);
  const { width, wide } = await run(`({ width: innerWidth, wide: document.documentElement.scrollWidth })`);
  assert.ok(wide <= width, `the page is ${wide} wide in a window of ${width}`);
  const { data } = await ask("Page.captureScreenshot", { format: "png" });
  writeFileSync(screenshot, Buffer.from(data, "base64"));
});

await check("closes with the code that was typed, and connects again", async () => {
  await type("code", "4242");
  await click("close");
  await until("the end", async () => await state() === "closed: 4242 application");
  assert.deepEqual((await log())[0].slice(1), ["■", "closed: 4242 application", "clean"]);
  await click("connect");
  await until("connection", async () => await state() === "connected");
  await click("connect");
  await until("the end", async () => await state() === "closed: 1000 normal");
});

await check("nothing is complained about in the console", async () => {
  const complaints = [
    ...of("Log.entryAdded").map(event => event.entry.text),
    ...of("Runtime.exceptionThrown").map(event => event.exceptionDetails.text),
    ...of("Network.webSocketFrameError").map(event => event.errorMessage),
  ];
  assert.deepEqual(complaints, []);
});

await ask("Browser.close").catch(() => {});
console.log("done");
process.exit(verdict());
