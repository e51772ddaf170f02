// The package: its types against what the module has and gives, and its files.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import ts from "typescript";
import WebSocket from "ws";
// As its users have it: by the package's own list of exports.
import * as library from "tidegate";
import { FakeGateway } from "./fake.mjs";
import { next, refused, stateOf } from "./waiting.mjs";

const path = name => fileURLToPath(new URL(name, import.meta.url));
const ASSETS = path("../../crates/shard/assets/");
const OPTIONS = {
  strict: true, noEmit: true, skipDefaultLibCheck: true, noUnusedLocals: false, types: [], target: ts.ScriptTarget.ES2022,
  lib: ["lib.es2022.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts", "lib.dom.asynciterable.d.ts"],
  module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
};

/** The platform's own types, read once. */
const LIBRARIES = new Map();

/** @param {Record<string, string>} written files that exist for the compiler alone, in this folder */
function compile(name, written = {}, options = OPTIONS) {
  const host = ts.createCompilerHost(options), texts = new Map(Object.entries(written).map(([name, text]) => [path(name), text]));
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = file => texts.has(file) || fileExists(file);
  host.readFile = file => texts.get(file) ?? readFile(file);
  host.getSourceFile = (file, ...rest) => {
    if (texts.has(file)) return ts.createSourceFile(file, texts.get(file), ...rest);
    if (!/\/lib\.[^/]*\.d\.ts$/.test(file)) return getSourceFile(file, ...rest);
    if (!LIBRARIES.has(file)) LIBRARIES.set(file, getSourceFile(file, ...rest));
    return LIBRARIES.get(file);
  };
  const program = ts.createProgram([path(name)], options, host);
  const complaints = ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
    const text = ts.flattenDiagnosticMessageText(messageText, " ");
    return file ? `${file.fileName}:${file.getLineAndCharacterOfPosition(start).line + 1}: ${text}` : text;
  });
  return { program, complaints };
}

const usage = compile("usage.ts");
const checker = usage.program.getTypeChecker();
const declared = checker.getExportsOfModule(checker.getSymbolAtLocation(usage.program.getSourceFiles().find(({ fileName }) => fileName.endsWith("/tidegate.d.ts"))));

test("the types compile, and a program that uses them, however the package is found", () => {
  assert.deepEqual(usage.complaints, []);
  const bundler = { ...OPTIONS, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler };
  assert.deepEqual(compile("usage.ts", {}, bundler).complaints, []);
  assert.equal(compile("wrong.ts", { "wrong.ts": `import { connect } from "tidegate"; connect(5);` }).complaints.length, 1);
});

test("that program uses every export", () => {
  const used = new Set();
  const look = node => {
    // In the import alone it would not be used.
    if (ts.isImportDeclaration(node)) return;
    if (ts.isIdentifier(node)) used.add(node.text);
    ts.forEachChild(node, look);
  };
  look(usage.program.getSourceFile(path("usage.ts")));
  assert.deepEqual(declared.map(({ name }) => name).filter(name => !used.has(name)), []);
});

test("the module exports what its types say, and nothing else", () => {
  const values = declared.filter(({ flags }) => flags & ts.SymbolFlags.Value).map(({ name }) => name);
  assert.deepEqual(Object.keys(library).sort(), values.sort());
});

for (const [name, internal] of [["Client", []], ["Subscription", ["deliver", "finish", "settle"]], ["RawTopic", []], ["TidegateError", []]]) {
  test(`${name} has the members that its type says`, () => {
    const type = checker.getDeclaredTypeOfSymbol(declared.find(symbol => symbol.name === name));
    const own = type.symbol.members, known = [...own.keys()].map(String).filter(member => !member.startsWith("__"));
    const had = Object.getOwnPropertyNames(library[name].prototype).filter(member => member !== "constructor");
    assert.deepEqual(had.filter(member => !own.has(member)).sort(), internal);
    // What is set on each object: it is seen below, with what is given.
    const fields = { Subscription: ["ready"], RawTopic: ["topic", "binaryType"], TidegateError: ["code", "topic"] }[name] ?? [];
    assert.deepEqual(known.filter(member => !had.includes(member)).sort(), fields.sort());
  });
}

// What the library gives, written down as a program: the compiler says whether the types know it.
const NEVER_OWN = Object.keys(new Event("any"));
function literal(value) {
  if (value instanceof Blob) return "new Blob()";
  if (value instanceof ArrayBuffer) return "new ArrayBuffer(0)";
  if (value instanceof library.TidegateError) return `new TidegateError(${JSON.stringify(value.code)}, "")`;
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (value === null || typeof value !== "object") return value === undefined ? "undefined" : JSON.stringify(value);
  return `{ ${Object.entries(value).filter(([name]) => !(value instanceof Event && NEVER_OWN.includes(name))).map(([name, each]) => `${JSON.stringify(name)}: ${literal(each)}`).join(", ")} }`;
}

function judge(given) {
  const lines = given.map(([type, value], index) => `const given${index}: Fields<${type}> = ${literal(value)};`);
  const { complaints } = compile("given.ts", { "given.ts": [
    `import { TidegateError, type ClientEvents, type RawEvents, type SubscriptionEvents, type Published, type Presence, type History, type Position } from "tidegate";`,
    "type Fields<T> = T extends Event ? Omit<T, keyof Event> : T;", ...lines,
  ].join("\n") });
  return complaints.map(complaint => complaint.replace(/^.*given\.ts:(\d+): /, (_, line) => `${lines[line - 3]}\n  `));
}

const gateway = new FakeGateway();
const open = options => library.connect(gateway.url, { WebSocket, baseWaitMs: 10, maxWaitMs: 20, transports: ["websocket"], ...options });
before(() => gateway.start());
after(() => gateway.stop());

test("every event and every answer has the fields of its type", async t => {
  const given = [];
  const watch = (target, events, ...types) => {
    for (const type of types) target.addEventListener(type, event => given.push([`${events}["${type}"]`, event]));
    return target;
  };
  const client = watch(open(), "ClientEvents", "state", "error"), other = open({ binaryType: "arraybuffer" });
  const raw = watch(client.raw("a"), "RawEvents", "state", "message"), buffers = watch(other.raw("a", { binaryType: "arraybuffer" }), "RawEvents", "message");
  t.after(() => { for (const each of [client, other, raw, buffers]) each.close(); });
  const types = ["subscribed", "message", "gap", "join", "leave", "presencegap", "error"];
  const topic = watch(client.subscribe("a", { history: 5, presence: true, info: { name: "Ada" } }), "SubscriptionEvents", ...types);
  const pattern = watch(client.subscribe("b/*"), "SubscriptionEvents", ...types);
  const bytes = watch(other.subscribe("a", { info: 1 }), "SubscriptionEvents", ...types);
  await Promise.all([topic.ready, pattern.ready, bytes.ready, stateOf(raw, "open"), stateOf(buffers, "open")]);
  given.push(["Published", await client.publish("a", { deep: [1] }, { once: "key" })], ["Published", await client.publish("a", { deep: [1] }, { once: "key" })]);
  await client.publish("a", "text", { text: true });
  await client.publish("a", new Uint8Array([1]));
  given.push(["Published", await client.publish("b/c", null)]);
  given.push(["Presence", await client.presence("a")], ["History", await client.history("a")], ["History", await other.history("a")], ["Position", topic.position]);
  const [session] = [...gateway.sessions].filter(({ client: id }) => id === client.id);
  session.send({ op: "gap", topic: "a", from: 4, to: 5, reason: "slow" });
  session.send({ op: "presence_gap", topic: "a" });
  const failed = next(client, "error");
  session.send({ op: "error", code: "busy", message: "busy" });
  await failed;
  await refused(watch(client.subscribe("secret/x"), "SubscriptionEvents", "error").ready, "not_allowed");
  const left = next(topic, "leave");
  bytes.unsubscribe();
  await left;
  const back = [next(topic, "subscribed"), stateOf(client, "waiting"), stateOf(raw, "waiting")];
  gateway.cut();
  await Promise.all(back);
  await stateOf(raw, "open");
  gateway.restart();
  assert.equal((await next(topic, "subscribed")).recovered, false);
  raw.close(4000, "done");
  client.close();

  // Nothing that the types know is left out.
  const seen = new Set(given.map(([type]) => type));
  const missing = ["ClientEvents", "RawEvents", "SubscriptionEvents"].flatMap(name => checker.getDeclaredTypeOfSymbol(declared.find(symbol => symbol.name === name)).getProperties()
    .map(property => `${name}["${property.name}"]`)).filter(type => !seen.has(type));
  assert.deepEqual(missing, []);
  const states = given.filter(([type]) => /state/.test(type)).map(([type, { state }]) => `${type.slice(0, 3)} ${state}`);
  for (const state of ["connecting", "open", "waiting", "closed"]) for (const who of ["Cli", "Raw"]) assert.ok(states.includes(`${who} ${state}`), `no ${state} of ${who}`);
  assert.deepEqual(judge(given), []);
});

test("the judge of those finds what is missing, what is too much and what is of another kind", () => {
  const event = { state: "open", previous: "connecting" };
  assert.equal(judge([[`RawEvents["state"]`, event], [`ClientEvents["state"]`, { ...event, transport: "poll" }]]).length, 0);
  const wrong = [[`ClientEvents["state"]`, event], [`RawEvents["state"]`, { ...event, transport: null }], [`RawEvents["state"]`, { ...event, state: "shut" }]];
  assert.equal(judge(wrong).length, wrong.length);
});

test("the package has these files", async () => {
  const { stdout } = await promisify(execFile)("npm", ["pack", "--dry-run", "--json", "--offline"], { cwd: ASSETS });
  const [{ name, files }] = JSON.parse(stdout);
  assert.equal(name, "tidegate");
  assert.deepEqual(files.map(({ path }) => path).sort(), ["README.md", "package.json", "tidegate.d.ts", "tidegate.js"]);
});
