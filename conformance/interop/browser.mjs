// Headless Chromium on the page: browser.mjs CHROMIUM HTTP_URL SCREENSHOT [PIN], where PIN names the key of a certificate that is
// taken for good, whoever signed it.
// Clicks as a user would. Prints "ok NAME" or "FAIL NAME -- why" for each case, and "done" at the end.
import assert from "node:assert/strict";
import { check, verdict } from "./check.mjs";
// The driver and the waiting of the client library's tests: run.py puts them beside this.
import { Browser } from "./chromium.mjs";
import { until as waitFor } from "./waiting.mjs";

const [chromium, address, screenshot, pin] = process.argv.slice(2);
const SIZE = { width: 1100, height: 1000 };
const LIMIT_MS = 30_000;

process.on("SIGTERM", () => process.exit(1));
setTimeout(() => { console.log("FAIL the browser -- too late"); process.exit(1); }, 75_000).unref();

const trust = pin ? ["--ignore-certificate-errors-spki-list=" + pin] : [];
const browser = await Browser.launch(chromium, trust).catch(error => {
  console.log("FAIL the browser starts -- " + error.message.replace(/\s+/g, " "));
  process.exit(1);
});
let page;
const run = expression => page.run(expression);
const click = id => page.click("#" + id);
const type = (id, text) => page.type("#" + id, text);
const until = (what, probe) => waitFor(what, probe, LIMIT_MS);
const of = method => page.events.filter(event => event.method === method).map(event => event.params);
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
  page = await browser.open(address, SIZE);
  await until("connection", async () => await state() === "connected");
});

if (pin) {
  await check("the session is over TLS 1.3", async () => {
    assert.match(of("Network.webSocketCreated")[0].url, /^wss:/);
    const page = of("Network.responseReceived").find(event => event.response.url === address);
    assert.equal(page.response.securityDetails.protocol, "TLS 1.3");
  });
}

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
  await page.picture(screenshot, { ...SIZE, scheme: "light" });
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

await browser.close();
console.log("done");
process.exit(verdict());
