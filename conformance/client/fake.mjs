// A gateway in one process that speaks docs/PROTOCOL.md as far as the client needs it, and can be told to fail in all the ways
// that networks and gateways do: it cuts, keeps silent, refuses, closes with a code, forgets everything, answers twice.
import { createServer } from "node:http";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import WebSocket, { WebSocketServer } from "ws";

const ASSETS = new URL("../../crates/shard/assets/", import.meta.url);
const PAGES = {
  "/": ["index.html", "text/html"], "/chat.html": ["chat.html", "text/html"], "/websocket.html": ["websocket.html", "text/html"],
  "/broadcast.html": ["broadcast.html", "text/html"], "/tidegate.js": ["tidegate.js", "text/javascript"],
};

const isName = name => /^[^/*?#;\\\p{Cc}]+(\/[^/*?#;\\\p{Cc}]+){0,15}$/u.test(name) && !/(^|\/)\.\.?(\/|$)/.test(name) && Buffer.byteLength(name) <= 256;

/**
 * Whether a subscription's name or pattern means this topic, as docs/PROTOCOL.md has it. Not by the library's own `matches`: what
 * is wrong there would be wrong here, and nobody would see it.
 */
function means(filter, name) {
  if (!filter.includes("*")) return filter === name;
  const parts = filter.split("/").map(part => part === "**" ? ".+" : part === "*" ? "[^/]+" : part.replace(/[^\w]/g, "\\$&"));
  return new RegExp(`^${parts.join("/")}$`, "s").test(name);
}

/** How much of the past each topic of a request is to have: one number for all of them, or one for each. */
function wanted(search, names) {
  const numbers = (search.get("history") ?? "0").split(",").map(Number);
  if (numbers.length > 1 && numbers.length !== names.length) throw new Error("history is for other topics");
  return names.map((_, index) => numbers[numbers.length > 1 ? index : 0]);
}

/** `message_bytes` of the embedded configuration. */
const MESSAGE_BYTES = 1 << 20;

/** The gateway's side of a WebSocket. It answers a Close with its code alone, and says why it takes no message of such a size. */
class Peer extends WebSocket {
  close(code, reason) {
    // The package hands on what came as a Buffer.
    super.close(code, Buffer.isBuffer(reason) ? "" : reason ?? (code === 1009 ? "message is too big" : ""));
  }
}

class Topic {
  epoch = randomBytes(4).toString("hex");
  offset = 0;
  kept = [];
  /** In a topic that conflates: the last message of each key. */
  newest = new Map();
  once = new Map();
  subscribers = new Set();
  present = new Map();
}

/** A connection, a stream or a poll that waits. */
class Session {
  constructor(gateway, send) {
    this.gateway = gateway;
    this.send = send;
    this.client = randomBytes(6).toString("base64url");
    this.subscriptions = new Map();
  }

  wants(topic) { return [...this.subscriptions.keys()].some(filter => means(filter, topic)); }
}

export class FakeGateway {
  topics = new Map();
  sessions = new Set();
  sockets = new Set();
  raw = new Map();
  /** What clients sent, in order: commands, and requests as { op: "GET /poll", … }. */
  commands = [];
  /** kept: messages a topic keeps; ping: seconds; the rest are faults. */
  kept = 100;
  ping = 25;
  /** Who asks for tokens: says for how many seconds one holds, or null where it does not. */
  tokens = null;
  /** Whether topics know who is there. */
  presence = true;
  faults = { upgrade: null, events: null, poll: null, publish: null, silent: false, command: null, version: 1, hello: true };

  async start(port = 0) {
    this.server = createServer((request, response) => this.#http(request, response));
    this.server.on("connection", socket => { this.sockets.add(socket); socket.on("close", () => this.sockets.delete(socket)); });
    this.upgrades = new WebSocketServer({ noServer: true, maxPayload: MESSAGE_BYTES, WebSocket: Peer, handleProtocols: offered => offered.has("tidegate.v1") && "tidegate.v1" });
    this.server.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
    await new Promise(resolve => this.server.listen(port, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    return this;
  }

  get url() { return `ws://127.0.0.1:${this.port}/topics`; }

  async stop() {
    this.cut();
    await new Promise(resolve => this.server.close(resolve));
  }

  /** Ends as one that is told to: with a word to everybody. */
  async end() {
    const closed = Array.from(this.upgrades.clients, socket => new Promise(resolve => socket.once("close", resolve)));
    for (const socket of this.upgrades.clients) socket.close(1001, "going away");
    await Promise.all(closed);
    await this.stop();
  }

  /** As when a cable is pulled and the peer learns of it. */
  cut() { for (const socket of this.sockets) socket.destroy(); }

  /** As when a proxy ends what takes too long for it. */
  endStreams() { for (const session of this.sessions) session.stream?.destroy(); }

  /** All is forgotten: each topic has a new epoch. */
  restart() {
    this.topics.clear();
    this.cut();
  }

  close(code, reason) { for (const session of this.sessions) session.socket?.close(code, reason); }

  topic(name) {
    if (!this.topics.has(name)) this.topics.set(name, new Topic());
    return this.topics.get(name);
  }

  publish(name, content, { once, key } = {}) {
    const topic = this.topic(name);
    const known = once !== undefined && topic.once.get(once);
    if (known) return { topic: name, epoch: topic.epoch, offset: known, level: "accepted", duplicate: true };
    topic.offset += 1;
    const message = { topic: name, offset: topic.offset, ...content };
    topic.kept.push(message);
    if (topic.kept.length > this.kept) topic.kept.shift();
    if (name.startsWith("state/") && key !== undefined) topic.newest.set(key, message);
    if (once !== undefined) topic.once.set(once, topic.offset);
    for (const session of [...this.sessions]) if (session.wants(name)) session.send({ op: "message", ...message });
    for (const socket of this.raw.get(name) ?? []) {
      if (content.base64 !== undefined) socket.send(Buffer.from(content.base64, "base64"), { binary: true });
      else socket.send(content.text ?? JSON.stringify(content.data));
    }
    return { topic: name, epoch: topic.epoch, offset: topic.offset, level: "accepted" };
  }

  /** Answers a subscription; what follows first comes with it. */
  subscribe(session, { topic: name, recover, history, presence, info, attends = true }) {
    session.subscriptions.set(name, { presence });
    if (/\*/.test(name)) return { answer: { topic: name }, first: [] };
    const topic = this.topic(name);
    const answer = { topic: name, epoch: topic.epoch, offset: topic.offset };
    const oldest = topic.offset - topic.kept.length;
    let first = history ? topic.kept.slice(-history) : [...topic.newest.values()].sort((one, other) => one.offset - other.offset);
    if (recover) {
      answer.recovered = recover.epoch === topic.epoch && recover.offset >= oldest && recover.offset <= topic.offset;
      if (answer.recovered) first = topic.kept.filter(message => message.offset > recover.offset);
    }
    if (!attends) return { answer, first };
    this.#join(session.client, name, info);
    return { answer, first };
  }

  #join(client, name, info) {
    const { present } = this.topic(name), known = present.has(client);
    present.set(client, info);
    if (!known) for (const other of this.sessions) if (other.client !== client && other.subscriptions.get(name)?.presence) other.send({ op: "join", topic: name, client, info });
  }

  leave(session, name) {
    if (!session.subscriptions.delete(name)) return false;
    if (this.topics.get(name)?.present.delete(session.client)) for (const other of this.sessions) if (other.subscriptions.get(name)?.presence) other.send({ op: "leave", topic: name, client: session.client });
    return true;
  }

  #end(session) {
    this.sessions.delete(session);
    for (const name of [...session.subscriptions.keys()]) this.leave(session, name);
  }

  #upgrade(request, socket, head) {
    const { pathname } = new URL(request.url, "http://fake");
    const name = pathname.startsWith("/topics/") ? decodeURIComponent(pathname.slice("/topics/".length)) : null;
    const known = pathname === "/echo" || pathname === "/topics" || (name !== null && isName(name));
    const offered = request.headers["sec-websocket-protocol"] ?? "";
    const expires = this.#judge(request, /(?:^|,\s*)token\.([^,\s]+)/.exec(offered)?.[1]);
    const fault = !known ? 404 : this.faults.upgrade ?? (expires === null ? 401 : null);
    this.commands.push({ op: "upgrade", path: pathname, offered, query: new URL(request.url, "http://fake").search });
    if (fault === "hang") return;
    if (fault) return socket.end(`HTTP/1.1 ${fault} Refused\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    this.upgrades.handleUpgrade(request, socket, head, websocket => {
      websocket.on("error", () => {});
      if (pathname === "/echo") return websocket.on("message", (data, binary) => websocket.send(data, { binary }));
      if (pathname === "/topics") return this.#protocol(websocket, expires);
      this.#raw(name, websocket);
    });
  }

  /** For how many seconds a request's token holds; null: it has none that does, undefined: nobody asks. */
  #judge(request, offered) {
    if (!this.tokens) return undefined;
    const bearer = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
    const token = offered ?? bearer ?? new URL(request.url, "http://fake").searchParams.get("access_token");
    return token === null ? null : this.tokens(token);
  }

  #raw(name, socket) {
    if (!this.raw.has(name)) this.raw.set(name, new Set());
    this.raw.get(name).add(socket);
    socket.on("message", (data, binary) => this.publish(name, binary ? { base64: data.toString("base64") } : { text: data.toString() }));
    socket.on("close", () => this.raw.get(name).delete(socket));
  }

  #protocol(socket, expires) {
    const session = new Session(this, object => { if (!this.faults.silent) socket.send(JSON.stringify(object)); });
    session.socket = socket;
    this.sessions.add(session);
    socket.on("close", () => this.#end(session));
    socket.on("message", data => {
      if (this.faults.silent) return;
      const commands = JSON.parse(data);
      if (commands.length > 64) return session.send({ op: "error", code: "too_many", message: "more than 64 commands" });
      for (const command of Array.isArray(commands) ? commands : [commands]) {
        this.commands.push(command);
        const fault = this.faults.command?.(command, session, socket);
        if (fault === "lost") continue;
        const answers = this.#command(session, command);
        if (fault === "unanswered") continue;
        for (const answer of answers) session.send(answer);
      }
    });
    if (this.faults.hello) session.send({ op: "hello", client: session.client, version: this.faults.version, ping: this.ping, ...(expires !== undefined && { expires }) });
  }

  #command(session, command) {
    const { op, id, topic: name } = command;
    const error = (code, message = code) => [{ op: "error", id, code, message }];
    if (name !== undefined && !isName(op === "subscribe" || op === "unsubscribe" ? name.replace(/(^|\/)\*\*$/, "$1x").replace(/(?<=^|\/)\*(?=\/|$)/g, "x") : name)) return error("invalid_topic");
    if (name?.startsWith("secret/")) return error("not_allowed", `this route may not have ${name}`);
    switch (op) {
      case "subscribe": {
        if (session.subscriptions.has(name)) return error("already_subscribed");
        const { answer, first } = this.subscribe(session, command);
        return [{ op: "subscribed", id, ...answer }, ...first.map(message => ({ op: "message", ...message }))];
      }
      case "unsubscribe": return this.leave(session, name) ? [{ op: "unsubscribed", id, topic: name }] : error("not_subscribed");
      case "publish": {
        const { data, text, base64 } = command;
        const result = this.publish(name, { data, text, base64 }, command);
        return [{ op: "published", id, ...result }];
      }
      case "presence": {
        const { present } = this.topic(name);
        return [{ op: "presence", id, topic: name, count: present.size, clients: Array.from(present, ([client, info]) => ({ client, info })) }];
      }
      case "history": {
        const topic = this.topic(name);
        const messages = topic.kept.filter(({ offset }) => command.before === undefined || offset < command.before).slice(-(command.limit ?? 100));
        return [{ op: "history", id, topic: name, epoch: topic.epoch, offset: topic.offset, messages: messages.map(({ topic: _, ...message }) => message) }];
      }
      case "ping": return [{ op: "pong", id }];
      case "auth": {
        const expires = this.tokens?.(command.token) ?? null;
        return expires === null ? error("invalid_token") : [{ op: "authenticated", id, expires }];
      }
      default: return error("unknown_op");
    }
  }

  async #http(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://fake");
    const answer = (status, body, headers = {}) => {
      response.writeHead(status, { "content-type": "application/json", "access-control-allow-origin": "*", ...headers });
      response.end(JSON.stringify(body));
    };
    const page = PAGES[pathname];
    if (page) {
      response.writeHead(200, { "content-type": page[1] + "; charset=utf-8" });
      return response.end(readFileSync(new URL(page[0], ASSETS)));
    }
    const kind = pathname.split("/")[1];
    const names = searchParams.getAll("topic");
    this.commands.push({ op: `${request.method} /${kind}`, topics: names, search: Object.fromEntries(searchParams), headers: request.headers });
    const fault = this.faults[kind];
    if (fault === "hang") return;
    if (fault === "break") return request.socket.destroy();
    if (typeof fault === "function") {
      const done = fault(request, response, answer);
      if (done) return;
    } else if (fault) {
      return answer(fault, null, { "retry-after": "2" });
    }
    if (this.#judge(request) === null) return answer(401, { error: { code: "not_allowed", message: "this route wants a token" } });
    const denied = names.find(name => name.startsWith("secret/"));
    if (denied) return answer(403, { error: { code: "not_allowed", message: `not ${denied}` } });
    if (kind === "topics") {
      const name = decodeURIComponent(pathname.slice("/topics/".length)), { epoch, offset, kept, present } = this.topic(name);
      const listed = Array.from(present, ([client, info]) => ({ client, info })).slice(0, Number(searchParams.get("clients") ?? 0));
      const count = this.presence ? { present: present.size } : {};
      return answer(200, { topic: name, epoch, offset, subscribers: 0, history: kept.length, ...count, ...(this.presence && listed.length ? { clients: listed } : {}) });
    }
    if (kind === "events") return this.#events(names, searchParams, response);
    if (kind === "poll") return this.#poll(names, searchParams, request, response, answer);
    if (kind === "publish") return this.#post(request, answer, decodeURIComponent(pathname.slice("/publish/".length)));
    answer(404, null);
  }

  #recover(position) {
    const [epoch, offset] = (position ?? "-").split("-");
    return epoch ? { epoch, offset: Number(offset) } : undefined;
  }

  #events(names, search, response) {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const session = new Session(this, ({ op, ...fields }) => write(op, fields));
    const position = () => names.map(name => /\*/.test(name) ? "-" : `${this.topic(name).epoch}-${this.topic(name).offset}`).join(",");
    const write = (type, data) => {
      if (this.faults.silent) return;
      response.write((type === "message" ? "" : `event: ${type}\n`) + `id: ${position()}\ndata: ${JSON.stringify(data)}\n\n`);
    };
    const client = search.get("client"), attended = search.getAll("attend");
    const info = search.has("info") ? JSON.parse(search.get("info")) : undefined;
    const attends = topic => client !== null && (attended.length === 0 || attended.includes(topic));
    session.stream = response;
    session.client = client ?? session.client;
    this.sessions.add(session);
    response.on("close", () => this.#end(session));
    const positions = search.get("last-event-id")?.split(",") ?? [];
    const done = names.map((topic, index) => this.subscribe(session, { topic, info, attends: attends(topic), history: wanted(search, names)[index], recover: this.#recover(positions[index]) }));
    write("subscribed", { topics: done.map(({ answer }) => answer) });
    for (const { first } of done) for (const message of first) write("message", message);
  }

  #poll(names, search, request, response, answer) {
    const positions = search.get("position")?.split(",") ?? [];
    const client = search.get("client");
    const attended = search.getAll("attend");
    const info = search.has("info") ? JSON.parse(search.get("info")) : undefined;
    if (client) for (const name of attended.length ? attended : names) this.#join(client, name, info);
    const probe = () => {
      const session = new Session(this, () => {});
      const done = names.map((topic, index) => this.subscribe(session, { topic, attends: false, history: wanted(search, names)[index], recover: this.#recover(positions[index]) }));
      for (const name of [...session.subscriptions.keys()]) this.leave(session, name);
      return { topics: done.map(each => each.answer), messages: done.flatMap(each => each.first), position: done.map(each => `${each.answer.epoch}-${each.answer.offset}`).join(",") };
    };
    const first = probe();
    const wait = Number(search.get("wait") ?? 25);
    if (positions.length === 0 || first.messages.length || first.topics.some(topic => topic.recovered === false) || wait === 0) return answer(200, first);
    const session = new Session(this, () => finish());
    const timer = setTimeout(() => finish(), wait * 1000);
    const finish = () => {
      clearTimeout(timer);
      this.sessions.delete(session);
      if (!response.writableEnded) answer(200, probe());
    };
    for (const name of names) session.subscriptions.set(name, {});
    this.sessions.add(session);
    response.on("close", () => { clearTimeout(timer); this.sessions.delete(session); });
  }

  async #post(request, answer, name) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    if (name) {
      const type = request.headers["content-type"] ?? "";
      const content = type === "application/json" ? { data: JSON.parse(body) } : type.startsWith("text/") ? { text: body.toString() } : { base64: body.toString("base64") };
      return answer(200, { results: [this.publish(name, content, { once: request.headers["idempotency-key"] })] });
    }
    const entries = [JSON.parse(body)].flat();
    const results = entries.map(({ topic, data, text, base64, once, key, op, id }) => {
      if (op !== undefined || id !== undefined) return { error: { code: "invalid_request", message: "op and id are the WebSocket's" } };
      if (topic.startsWith("secret/")) return { error: { code: "not_allowed", message: `not ${topic}` } };
      this.commands.push({ op: "posted", topic, data, text, base64, once });
      return this.publish(topic, { data, text, base64 }, { once, key });
    });
    answer(results.every(result => !result.error) ? 200 : 207, { results });
  }
}
