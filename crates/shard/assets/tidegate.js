/**
 * Tidegate's client: topics over a WebSocket that comes back by itself, and over server-sent events or long-polling
 * where WebSockets are blocked. For browsers and for Node 18 or later; no dependencies.
 *
 *     import { connect } from "./tidegate.js";
 *     const client = connect("wss://example.org/topics");
 *     const lobby = client.subscribe("chat/lobby", { history: 50 });
 *     lobby.addEventListener("message", event => show(event.data));
 *     await client.publish("chat/lobby", { text: "Hello" }, { once: true });
 *
 * How it is built: a `Client` keeps what is wanted (a `Track` for each subscription, a `Request` for each question) and
 * one transport. A transport takes the protocol's commands and hands back the protocol's answers; those over HTTP
 * translate. When a transport is lost, the client asks the next one for the same things, each topic from the position
 * up to which it has everything.
 *
 * @module tidegate
 */

const PROTOCOL = "tidegate.v1";
const VERSION = 1;
/** Commands of one array, and about how many characters of them: the gateway takes 64 commands at once. */
const BATCH_COMMANDS = 64, BATCH_CHARACTERS = 32_768;
/** Publications of one POST: the gateway takes 1,000 of them. */
const POST_COMMANDS = 100, POST_CHARACTERS = 262_144;
/** Topics of one stream or one poll. */
const STREAM_TOPICS = 16;
/** The gateway lists so many of those who are there. */
const LISTED_CLIENTS = 1000;
/** How long the gateway knows an idempotency key is five minutes; a minute is left for the way there. */
const ONCE_MS = 240_000;
/** The gateway answers a poll within 25 seconds. */
const POLL_MS = 25_000;
/** Nobody is looking: often enough to learn of a dead connection, and seldom enough for a throttled timer. */
const HIDDEN_BEAT_MS = 60_000;
/** `bufferedAmount` has no event. */
const DRAIN_MS = 25;
/** The longest wait that a gateway may ask for. */
const ADVISED_MS = 3_600_000;

const DEFAULTS = Object.freeze({
  transports: Object.freeze(["websocket", "events", "poll"]),
  paths: Object.freeze({}),
  headers: Object.freeze({}),
  token: null,
  tokenPlace: "subprotocol:token.",
  expiredCode: 4401,
  binaryType: "blob",
  connectTimeoutMs: 10_000,
  answerTimeoutMs: 30_000,
  heartbeatMs: 0,
  pongTimeoutMs: 10_000,
  baseWaitMs: 500,
  maxWaitMs: 30_000,
  maxTries: Infinity,
  livedMs: 10_000,
  fallbackAfter: 2,
  webSocketAgainMs: 300_000,
  bufferedBytes: 262_144,
  waitingBytes: 1_048_576,
});

/**
 * What went wrong. `code` is one of the protocol's error codes, or of this library: `unknown` (it was sent, and the connection
 * ended before the answer, or the gateway itself does not know: it may or may not have been done), `not_sent` (it was certainly not done), `timeout` (no answer to a
 * question), `backlog` (too much is waiting to be sent), `closed` (this client is), `unsupported` (not over this transport),
 * `too_slow` (an iterator's reader).
 */
export class TidegateError extends Error {
  constructor(code, message, topic) {
    super(message);
    this.name = "TidegateError";
    this.code = code;
    if (topic !== undefined) this.topic = topic;
  }
}

/**
 * @param {string | URL} [url] of the gateway's topics, such as `wss://example.org/topics`; in a page `/topics` will do
 * @param {import("./tidegate.js").Options} [options]
 * @returns {Client}
 */
export function connect(url = "/topics", options = {}) {
  return new Client(url, options);
}

class Emitter extends EventTarget {
  /** Listens; the returned function ends that. */
  on(type, listener) {
    this.addEventListener(type, listener);
    return () => this.removeEventListener(type, listener);
  }
}

function emit(target, type, fields) {
  target.dispatchEvent(Object.assign(new Event(type), fields));
}

/** `on…` among the options are listeners. */
function listen(target, options, types) {
  for (const type of types) {
    const listener = options["on" + type];
    if (listener) target.addEventListener(type, listener);
  }
}

function settings(options) {
  const all = {};
  for (const [name, value] of Object.entries(DEFAULTS)) all[name] = options[name] ?? value;
  if (!["blob", "arraybuffer"].includes(all.binaryType)) throw new TypeError(`there is no binaryType "${all.binaryType}"`);
  if (!/^(subprotocol|query):.+$/.test(all.tokenPlace)) throw new TypeError(`there is no tokenPlace "${all.tokenPlace}": subprotocol:PREFIX or query:NAME`);
  for (const name of all.transports) if (!DEFAULTS.transports.includes(name)) throw new TypeError(`there is no transport "${name}"`);
  return all;
}

/** Clock, dice and the page: what tests replace. */
function surroundings(options) {
  return {
    now: () => Date.now(),
    setTimeout: (run, ms) => setTimeout(run, ms),
    clearTimeout: timer => clearTimeout(timer),
    random: () => Math.random(),
    page: globalThis.document ? { document, window, navigator } : null,
    WebSocket: options.WebSocket ?? globalThis.WebSocket,
    EventSource: options.EventSource ?? globalThis.EventSource,
    fetch: options.fetch ?? globalThis.fetch?.bind(globalThis),
    ...options.environment,
  };
}

/**
 * Hands over the token that a connection is to show, or null where there are none: at once where it is a text, later where a function
 * makes it. One that comes too late has failed.
 */
function obtain({ options, environment }, use, fail) {
  const { token } = options;
  if (typeof token !== "function") return use(token ?? null);
  let over = false;
  const once = done => value => {
    if (over) return;
    over = true;
    environment.clearTimeout(timer);
    done(value ?? null);
  };
  const timer = environment.setTimeout(once(fail), options.connectTimeoutMs);
  Promise.resolve().then(() => token()).then(once(use), once(fail));
}

/** In the place of a query where the gateway looks for tokens; `null` where it looks elsewhere. */
const tokenParameter = ({ tokenPlace }) => tokenPlace.startsWith("query:") ? tokenPlace.slice(6) : null;

/** How a WebSocket shows a token: browsers let it have no other field than its list of subprotocols. */
function showing(token, options, address, protocols) {
  if (token === null) return [address, protocols];
  const parameter = tokenParameter(options);
  if (parameter === null) return [address, [...protocols, options.tokenPlace.slice("subprotocol:".length) + token]];
  const asked = new URL(address);
  asked.searchParams.set(parameter, token);
  return [asked, protocols];
}

/** @throws {TidegateError} for what is not a name: an address loses such segments, so that it would be another topic's */
function below(path, topic) {
  const segments = topic.split("/");
  if (segments.some(segment => ["", ".", ".."].includes(segment))) throw new TidegateError("invalid_topic", `"${topic}" is not a name: a segment of it is empty, . or ..`, topic);
  return path.replace(/\/?$/, "/") + segments.map(encodeURIComponent).join("/");
}

/** The gateway's addresses: the WebSocket's, and beside it those over HTTP. */
function addresses(url, paths) {
  const socket = new URL(url, globalThis.location?.href);
  socket.protocol = { "http:": "ws:", "https:": "wss:" }[socket.protocol] ?? socket.protocol;
  if (socket.protocol !== "ws:" && socket.protocol !== "wss:") throw new TypeError(`${socket.protocol} is no protocol of a gateway`);
  socket.hash = "";
  const beside = name => {
    const address = new URL(socket);
    address.protocol = socket.protocol === "wss:" ? "https:" : "http:";
    address.pathname = paths[name] ?? socket.pathname.replace(/[^/]*\/?$/, name);
    return address;
  };
  /** What a topic is like now: below the WebSocket's own path. */
  const state = topic => {
    const address = new URL(socket);
    address.protocol = socket.protocol === "wss:" ? "https:" : "http:";
    address.search = "";
    address.pathname = below(address.pathname, topic);
    return address;
  };
  return { socket, state, events: beside("events"), poll: beside("poll"), publish: beside("publish") };
}

const isPattern = topic => topic.split("/").some(segment => segment === "*" || segment === "**");

/** `*` stands for one segment, `**` at the end for one or more. */
export function matches(pattern, topic) {
  const wanted = pattern.split("/"), segments = topic.split("/");
  const open = wanted[wanted.length - 1] === "**";
  if (open ? segments.length < wanted.length : segments.length !== wanted.length) return false;
  return wanted.every((segment, index) => segment === "*" || (open && index === wanted.length - 1) || segment === segments[index]);
}

function toBase64(bytes) {
  let text = "";
  // In pieces: a call takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

const fromBase64 = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;

const isBlob = data => typeof Blob !== "undefined" && data instanceof Blob;
const isBytes = data => data instanceof ArrayBuffer || ArrayBuffer.isView(data);
const bytesOf = data => data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** What a message carries: JSON, a text or bytes. */
function content(message, binaryType) {
  if (message.base64 !== undefined) {
    const bytes = fromBase64(message.base64);
    return { kind: "binary", data: binaryType === "blob" ? new Blob([bytes]) : bytes };
  }
  return message.text !== undefined ? { kind: "text", data: message.text } : { kind: "json", data: message.data };
}

const randomName = environment => Array.from({ length: 20 }, () => Math.floor(environment.random() * 36).toString(36)).join("");

/** The idempotency key of `once: true`: nobody else's, so from the system's own dice where there are some. */
const randomKey = environment => globalThis.crypto?.randomUUID?.() ?? randomName(environment) + randomName(environment);

/**
 * What the end of a connection says about coming back. `retry_ms` in a reason is heeded with any code.
 * @returns {{stay?: boolean, rest?: boolean, retryMs?: number}}
 */
function advice(code, reason, { token, expiredCode }) {
  // With a newer token it is worth it.
  if (code === expiredCode && typeof token === "function") return { rest: false };
  try {
    const told = JSON.parse(reason)?.retry_ms;
    if (Number.isFinite(told) && told >= 0) return { retryMs: Math.min(told, ADVISED_MS) };
  } catch { /* an ordinary reason */ }
  // RFC 6455 §7.4: done, a policy, a message that is too large though none is known to be, a missing extension, and what applications
  // say among themselves. To come back would only repeat it.
  if ([1000, 1008, 1009, 1010].includes(code) || (code >= 4000 && code <= 4999)) return { stay: true };
  // Going away, restart, try again later: all are told at the same moment, so they come back spread over some time.
  return { rest: [1001, 1012, 1013].includes(code) };
}

/** How long to wait before the next try: growing, with full jitter, and none after so many in a row. */
class Waits {
  constructor(options, environment) {
    this.options = options;
    this.environment = environment;
    this.tries = 0;
  }

  /** @returns {number | null} milliseconds, or null: no more */
  next({ rest, retryMs }) {
    const { baseWaitMs, maxWaitMs, maxTries } = this.options;
    if (this.tries >= maxTries) return null;
    const dice = this.environment.random();
    const ceiling = Math.min(maxWaitMs, baseWaitMs * 2 ** Math.min(this.tries, 30));
    this.tries += 1;
    if (retryMs !== undefined) return retryMs + dice * baseWaitMs;
    return rest ? baseWaitMs + dice * Math.max(ceiling, 8 * baseWaitMs) : dice * ceiling;
  }
}

/** Calls `wake` when a try is worth it now (the network is back, somebody looks again), `doubt` when the network has gone. */
function watchPage(page, wake, doubt) {
  if (!page) return () => {};
  const { document, window } = page;
  const seen = () => { if (!document.hidden) wake(); };
  const watched = [
    [document, "visibilitychange", seen], [document, "resume", wake], [window, "pageshow", seen],
    [window, "online", wake], [window, "offline", doubt],
  ];
  for (const [target, type, listener] of watched) target.addEventListener(type, listener);
  return () => { for (const [target, type, listener] of watched) target.removeEventListener(type, listener); };
}

// ---------------------------------------------------------------------------------------------------- subscriptions

const MESSAGE_TYPES = ["subscribed", "message", "gap", "join", "leave", "presencegap", "error"];

/** What the client knows about one subscription; the `Subscription` is its public face. */
class Track {
  constructor(client, topic, options, binaryType) {
    this.client = client;
    this.topic = topic;
    this.pattern = isPattern(topic);
    this.options = options;
    this.binaryType = options.binaryType ?? binaryType;
    this.state = "pending";
    /** The transport that was asked last. */
    this.askedOf = null;
    this.epoch = options.recover?.epoch;
    /** The topic's offset when the gateway answered: up to there comes what was before. */
    this.start = -1;
    /** What comes up to here is this subscription's alone; what comes behind it is new to patterns that have the topic, too. */
    this.ownThrough = -1;
    /** The last offset that came. */
    this.last = options.recover?.offset ?? -1;
    /** Up to here nothing is owed: it came, or is announced as lost. */
    this.through = this.last;
    /** All that follows the answer first has come. */
    this.settled = false;
    this.face = new Subscription(this);
    listen(this.face, options, MESSAGE_TYPES);
  }

  /** Whether it is to be present over HTTP, where that does not come with a connection. */
  get attends() { return !this.pattern && (this.options.presence === true || this.options.info !== undefined); }

  /** Up to where everything came: from here on the gateway is asked to recover. */
  position() {
    if (this.pattern || this.epoch === undefined) return null;
    if (this.through >= 0) return { epoch: this.epoch, offset: this.through };
    // Not one message came, so part of the history may have been cut off: it is asked for again.
    return { epoch: this.epoch, offset: this.settled ? this.start : Math.max(0, this.start - (this.options.history ?? 0)) };
  }

  command(id) {
    const { history, presence, info } = this.options;
    const recover = this.position() ?? undefined;
    return { op: "subscribe", id, topic: this.topic, recover, history: history || undefined, presence: presence || undefined, info };
  }

  handleSubscribed(answer) {
    const asked = this.position() !== null;
    const again = this.state === "again";
    const recovered = asked && answer.recovered === true;
    this.state = "subscribed";
    this.settled = false;
    this.start = answer.offset ?? -1;
    this.ownThrough = answer.pattern_offset ?? this.start;
    if (!recovered) {
      this.epoch = answer.epoch;
      this.last = this.through = -1;
    }
    this.face.settle(null);
    emit(this.face, "subscribed", {
      topic: this.topic, epoch: answer.epoch, offset: answer.offset, recovered: asked || again ? recovered : undefined,
    });
  }

  /** @returns {boolean} whether it is new here */
  handleMessage(message) {
    if (this.state !== "subscribed") return false;
    let replayed = false;
    if (!this.pattern) {
      if (message.offset <= this.last) return false;
      this.last = message.offset;
      this.through = Math.max(this.through, message.offset);
      replayed = message.offset <= this.start;
    }
    const { topic, offset } = message;
    this.face.deliver({ topic, offset, epoch: this.epoch, replayed, ...content(message, this.binaryType) });
    return true;
  }

  handleGap({ topic, from, to, reason }) {
    if (this.state !== "subscribed") return;
    if (!this.pattern) this.through = Math.max(this.through, to);
    emit(this.face, "gap", { topic, from, to, reason });
  }

  /** Everything up to `offset` was given, whatever it was. */
  reach(offset) {
    this.settled = true;
    if (!this.pattern) this.through = Math.max(this.through, offset);
  }

  handleLost() {
    if (this.state === "subscribed") this.state = "again";
  }

  end(state, error) {
    this.state = state;
    if (error) this.fail(error);
    this.face.settle(error ?? new TidegateError("closed", "unsubscribed", this.topic));
    this.face.finish(error);
  }

  fail(error) {
    emit(this.face, "error", { error, code: error.code, message: error.message });
  }
}

let stateOf;

/** One subscription. Made by `client.subscribe`. */
export class Subscription extends Emitter {
  #track;
  #readers = new Set();
  #resolve;
  #reject;
  /** Fulfilled when the gateway has answered for the first time; rejected if it refuses. */
  ready;

  constructor(track) {
    super();
    this.#track = track;
    this.ready = new Promise((resolve, reject) => { this.#resolve = resolve; this.#reject = reject; });
    // Whoever does not wait for it listens to `error`.
    this.ready.catch(() => {});
  }

  static { stateOf = subscription => subscription.#track; }

  get topic() { return this.#track.topic; }
  /** "pending", "subscribed", "ended" or "failed" */
  get state() { return this.#track.state === "again" ? "pending" : this.#track.state; }
  /** Up to where everything came, to go on from with the option `recover`; null before the first answer. */
  get position() { return this.#track.position(); }

  unsubscribe() { this.#track.client.unsubscribe(this); }

  /** The messages from now on. Ends with the subscription; throws if that fails, or if too many wait to be read. */
  [Symbol.asyncIterator]() {
    const reader = { waiting: [], wanted: [], end: null };
    const limit = this.#track.options.backlog ?? 10_000;
    reader.put = message => {
      if (reader.wanted.length) return reader.wanted.shift().resolve({ value: message, done: false });
      if (reader.waiting.length >= limit) return reader.finish(new TidegateError("too_slow", `${limit} messages wait to be read`, this.topic));
      reader.waiting.push(message);
    };
    reader.finish = error => {
      this.#readers.delete(reader);
      reader.end ??= { error };
      for (const { resolve, reject } of reader.wanted.splice(0)) {
        if (error) { reject(error); reader.end = {}; } else resolve({ value: undefined, done: true });
      }
    };
    if (["ended", "failed"].includes(this.state)) reader.end = {}; else this.#readers.add(reader);
    return {
      next: () => {
        if (reader.waiting.length) return Promise.resolve({ value: reader.waiting.shift(), done: false });
        if (!reader.end) return new Promise((resolve, reject) => reader.wanted.push({ resolve, reject }));
        const { error } = reader.end;
        reader.end = {};
        return error ? Promise.reject(error) : Promise.resolve({ value: undefined, done: true });
      },
      return: () => {
        reader.finish();
        reader.waiting.length = 0;
        return Promise.resolve({ value: undefined, done: true });
      },
      [Symbol.asyncIterator]() { return this; },
    };
  }

  /** @internal */
  deliver(message) {
    emit(this, "message", message);
    for (const reader of [...this.#readers]) reader.put(message);
  }

  /** @internal */
  settle(error) { if (error) this.#reject(error); else this.#resolve(this); }

  /** @internal */
  finish(error) { for (const reader of [...this.#readers]) reader.finish(error); }
}

// ------------------------------------------------------------------------------------------------------- the client

const unknown = ({ command }) => new TidegateError("unknown", "nobody knows what became of it: it may or may not have been done", command.topic);

/** One connection to a gateway, in as many lives as it takes. Made by `connect`. */
export class Client extends Emitter {
  #options;
  #environment;
  #addresses;
  #waits;
  #state = "connecting";
  #transport = null;
  #probe = null;
  /** Which of `options.transports` is tried, and how often each failed in a row before it was open. */
  #place = 0;
  #failures = new Map();
  #everOpen = new Set();
  #openedAt = 0;
  /** The gateway said how long, so nothing shortens the wait. */
  #toldToWait = false;
  /** Over another transport: when to look for WebSockets again. */
  #againAt = null;
  #timers = {};
  #unwatch;
  #id = null;
  /** Its name in presence over HTTP: the same from one transport to the next, so that who comes back has not been away. */
  #present = null;
  #number = 0;
  /** By topic, and those of patterns once more. */
  #tracks = new Map();
  #patterns = new Set();
  /** By number: what was sent and is not answered. */
  #asked = new Map();
  /** What waits to be sent, in order, and about how many bytes that is. */
  #waiting = [];
  #waitingBytes = 0;
  #beatMs = 25_000;
  #heardAt = 0;
  #heard = 0;
  #ping = null;

  constructor(url, options) {
    super();
    this.#options = settings(options);
    this.#environment = surroundings(options);
    this.#addresses = addresses(url, this.#options.paths);
    this.#waits = new Waits(this.#options, this.#environment);
    const { WebSocket, EventSource, fetch } = this.#environment;
    // A stream of events shows a token in its query, or a cookie that is not this library's business.
    const streams = this.#options.token === null || tokenParameter(this.#options) !== null;
    const able = { websocket: WebSocket, events: EventSource && fetch && streams, poll: fetch };
    this.#options.transports = this.#options.transports.filter(name => able[name]);
    if (this.#options.transports.length === 0) throw new TypeError("no WebSocket, EventSource and fetch here: pass some as options");
    listen(this, options, ["state", "error"]);
    this.#unwatch = watchPage(this.#environment.page, () => this.#wake(), () => this.#doubt());
    // Not before the caller has added its listeners.
    queueMicrotask(() => { if (this.#state === "connecting" && !this.#transport) this.#start(); });
  }

  /** "connecting", "open", "waiting" (before the next try) or "closed" */
  get state() { return this.#state; }
  /** "websocket", "events" or "poll"; null while there is none. */
  get transport() { return this.#state === "open" ? this.#transport.name : null; }
  /** Its name in presence: the connection's, another one after each reconnect; over HTTP always the same. */
  get id() { return this.#id; }
  /** About how many bytes are given to `publish` and not yet to the network. */
  get bufferedAmount() { return this.#waitingBytes + (this.#state === "open" ? this.#transport.buffered() : 0); }

  /** @returns {Subscription} */
  subscribe(topic, options = {}) {
    if (this.#state === "closed" && !this.#unwatch) throw new TidegateError("closed", "this client is closed", topic);
    if (this.#tracks.has(topic)) throw new TidegateError("already_subscribed", `this client is subscribed to ${topic}`, topic);
    const track = new Track(this, topic, options, this.#options.binaryType);
    this.#tracks.set(topic, track);
    if (track.pattern) this.#patterns.add(track);
    if (this.#state === "open") this.#transport.send([this.#ask(track)]);
    return track.face;
  }

  /** @param {Subscription | string} subscription */
  unsubscribe(subscription) {
    const topic = typeof subscription === "string" ? subscription : subscription.topic;
    const track = this.#tracks.get(topic);
    if (!track || (typeof subscription !== "string" && stateOf(subscription) !== track)) return;
    this.#remove(track);
    if (this.#state === "open") {
      const id = this.#nextNumber();
      this.#asked.set(id, { id, transport: this.#transport });
      this.#transport.send([{ op: "unsubscribe", id, topic }]);
    }
    track.end("ended");
  }

  /**
   * Publishes JSON, a text (`{ text: true }`) or bytes (an ArrayBuffer, a view of one, a Blob).
   * @returns {Promise<import("./tidegate.js").Published>}
   */
  publish(topic, data, { key, once, text = false, timeoutMs } = {}) {
    const fields = { topic, key, once: once === true ? randomKey(this.#environment) : once };
    const command = { op: "publish", topic };
    const request = { command, safe: fields.once !== undefined, timeoutMs: timeoutMs ?? (fields.once ? ONCE_MS : undefined) };
    // Written out at once: what the caller does to it later is not published.
    const body = content => { command.body = JSON.stringify({ ...fields, ...content }); };
    if (isBlob(data)) {
      // Its bytes come later, and what is published after it waits for them: the order stays.
      request.bytes = Math.ceil(data.size / 3) * 4;
      request.reading = data.arrayBuffer().then(bytes => body({ base64: toBase64(new Uint8Array(bytes)) }));
    } else if (isBytes(data)) {
      body({ base64: toBase64(bytesOf(data)) });
    } else if (text) {
      body({ text: String(data) });
    } else {
      try { body({ data }); } catch (error) { return Promise.reject(error); }
      if (JSON.stringify(data) === undefined) return Promise.reject(new TypeError("what is published must be JSON, a text or bytes"));
    }
    request.bytes ??= command.body.length;
    return this.#request(request);
  }

  /** Who is there. */
  presence(topic) {
    return this.#request({ command: { op: "presence", topic }, bytes: 64, safe: true });
  }

  /** The newest messages, or those before an offset; oldest first. */
  async history(topic, { limit, before } = {}) {
    const answer = await this.#request({ command: { op: "history", topic, limit, before }, bytes: 64, safe: true });
    const messages = answer.messages.map(message => ({ topic, offset: message.offset, ...content(message, this.#options.binaryType) }));
    return { topic, epoch: answer.epoch, offset: answer.offset, messages };
  }

  /** A topic without the protocol: what is sent is published as it is, what is published comes as it is. */
  raw(topic, options = {}) {
    const address = new URL(this.#addresses.socket);
    address.pathname = below(address.pathname, topic);
    return new RawTopic(topic, address, { ...this.#options, binaryType: options.binaryType ?? this.#options.binaryType }, this.#environment, options);
  }

  /** Tries at once: instead of waiting, or after the gateway said not to come back. */
  reconnect() {
    if (!this.#unwatch || this.#state === "connecting" || this.#state === "open") return;
    if (this.#state === "closed") this.#waits.tries = 0;
    this.#start();
  }

  /** For good: subscriptions end, and what is not answered is rejected. */
  close(code = 1000, reason = "") {
    if (!this.#unwatch) return;
    this.#unwatch();
    this.#unwatch = null;
    this.#drop(code, reason);
    const tracks = [...this.#tracks.values()];
    this.#tracks.clear();
    this.#patterns.clear();
    for (const track of tracks) track.end("ended");
    this.#end({ code, reason, cause: "closed" });
  }

  // --- the connection's life

  #start() {
    this.#clear("retry");
    this.#become("connecting", {});
    if (this.#state !== "connecting") return;
    this.#use(this.#make(this.#options.transports[this.#place]));
  }

  #make(name) {
    const Transport = { websocket: WebSocketTransport, events: EventsTransport, poll: PollTransport }[name];
    return new Transport({
      options: this.#options,
      environment: this.#environment,
      addresses: this.#addresses,
      track: topic => this.#tracks.get(topic),
      present: () => this.#present ??= randomName(this.#environment),
      ask: () => Array.from(this.#tracks.values(), track => this.#ask(track)),
      opened: (transport, hello) => this.#opened(transport, hello),
      received: (transport, object) => this.#received(transport, object),
      drained: transport => { if (transport === this.#transport) this.#flush(); },
      lost: (transport, why) => this.#lost(transport, why),
    });
  }

  #use(transport) {
    this.#transport = transport;
    transport.open();
  }

  #opened(transport, hello) {
    if (transport === this.#probe) {
      // WebSockets work again: what was there instead goes, and each topic is recovered from where it was.
      this.#probe = null;
      this.#clear("retry");
      this.#forgive();
      this.#drop(1000, "");
      this.#transport = transport;
      this.#place = this.#options.transports.indexOf("websocket");
    }
    if (transport !== this.#transport) return;
    if (hello.version !== undefined && hello.version !== VERSION) {
      this.#drop(1000, "");
      return this.#end({ cause: "version" });
    }
    const { name } = transport;
    this.#everOpen.add(name);
    this.#failures.clear();
    this.#openedAt = this.#heardAt = this.#environment.now();
    this.#id = hello.client ?? null;
    this.#beatMs = this.#options.heartbeatMs || (hello.ping ?? 25) * 1000;
    this.#become("open", { transport: name });
    if (transport !== this.#transport) return;
    const commands = Array.from(this.#tracks.values()).filter(track => track.askedOf !== transport).map(track => this.#ask(track));
    if (commands.length) transport.send(commands);
    if (transport.beats) this.#beat();
    this.#renewWithin(hello.expires);
    if (name === "websocket") this.#againAt = null;
    // Soon at first: perhaps the gateway was only away for a moment.
    else if (this.#options.transports.includes("websocket")) this.#lookForWebSocket(10 * this.#options.baseWaitMs);
    this.#flush();
  }

  /** Sees to a newer token before the connection's is over, in so many seconds; only a WebSocket can be told of one. */
  #renewWithin(seconds) {
    if (seconds === undefined || typeof this.#options.token !== "function") return;
    const { now, random } = this.#environment, transport = this.#transport;
    const expiresAt = now() + seconds * 1000;
    const again = () => {
      if (transport !== this.#transport) return;
      const left = expiresAt - now();
      // With some time for further tries, and not all who came together at once. What a timer can hold is some weeks.
      if (left > 1000) this.#timer("token", Math.min(left * (0.6 + 0.2 * random()), 2 ** 31 - 1), renew);
    };
    const renew = () => obtain({ options: this.#options, environment: this.#environment }, token => {
      if (transport !== this.#transport || token === null) return;
      const id = this.#nextNumber();
      this.#asked.set(id, { id, transport, renew: again });
      transport.send([{ op: "auth", id, token }]);
    }, again);
    again();
  }

  #lookForWebSocket(ms) {
    const { now, random } = this.#environment;
    this.#againAt ??= now() + (0.5 + 0.5 * random()) * ms;
    this.#timer("again", Math.max(0, this.#againAt - now()), () => {
      this.#againAt = null;
      this.#probe = this.#make("websocket");
      this.#probe.open();
    });
  }

  #lost(transport, why) {
    if (transport === this.#probe) {
      this.#probe = null;
      if (this.#transport?.name !== "websocket") this.#lookForWebSocket(this.#options.webSocketAgainMs);
      return;
    }
    if (transport !== this.#transport) return;
    // The network may be another one now: when it is back, whether WebSockets work is looked at soon.
    this.#againAt = null;
    const wasOpen = this.#state === "open";
    const { code = 1006, reason = "", status, cause } = why;
    const refused = code === 1009 ? this.#tooLarge(transport) : undefined;
    this.#forgive();
    this.#drop(1000, "");
    // Without the one that was too large there is no reason not to come back.
    const told = why.retryMs !== undefined ? { retryMs: why.retryMs } : advice(refused ? 1006 : code, reason, this.#options);
    if (told.stay) return this.#end({ code, reason, cause: "told" });
    const moved = !wasOpen && this.#fallBack(transport.name);
    const waitMs = this.#waits.next(told);
    if (waitMs === null) return this.#end({ code, reason, cause: "gave_up" });
    // A transport that was not tried yet need not wait for the failures of another one.
    const ms = moved && told.retryMs === undefined ? Math.min(waitMs, this.#options.baseWaitMs) : waitMs;
    this.#toldToWait = told.rest === true || told.retryMs !== undefined;
    this.#timer("retry", ms, () => this.#retry());
    this.#become("waiting", { waitMs: ms, tries: this.#waits.tries, code, reason, status, cause });
  }

  /** What failed before a connection that held counts no more. */
  #forgive() {
    if (this.#state === "open" && this.#environment.now() - this.#openedAt >= this.#options.livedMs) this.#waits.tries = 0;
  }

  /**
   * RFC 6455 §7.4.1: a message was too large. Which one, nobody says: but if any of those without an answer was, then the
   * largest. It is refused, so that it does not end the next connection as well.
   */
  #tooLarge(transport) {
    const bytes = request => new TextEncoder().encode(request.command.body).length;
    const asked = [...this.#asked.values()].filter(({ resolve, command, transport: of }) => resolve && of === transport && command.op === "publish");
    if (asked.length === 0) return undefined;
    const largest = asked.reduce((one, other) => bytes(other) > bytes(one) ? other : one);
    this.#asked.delete(largest.id);
    this.#settle(largest, null, new TidegateError("too_large", "the gateway takes no messages of this size", largest.command.topic));
    return largest;
  }

  #retry() {
    // Browsers know when there is no network, but not always rightly: so a try now and then all the same.
    const offline = this.#environment.page?.navigator.onLine === false;
    if (offline) this.#timer("retry", this.#options.maxWaitMs, () => this.#start()); else this.#start();
  }

  /** @returns {boolean} whether the next try goes to a transport that stands lower in the list */
  #fallBack(name) {
    const failures = (this.#failures.get(name) ?? 0) + 1;
    this.#failures.set(name, failures);
    const { transports, fallbackAfter } = this.#options;
    // What has worked here before is more likely to be away for a while than to be blocked.
    const limit = name === "websocket" ? fallbackAfter * (this.#everOpen.has(name) ? 3 : 1) : 1;
    if (transports.length === 1 || failures < limit) return false;
    this.#place = (this.#place + 1) % transports.length;
    if (this.#place === 0) this.#failures.clear();
    return this.#place !== 0;
  }

  /** Ends the transport. What it was asked is asked again where that is safe, and else its outcome is unknown. */
  #drop(code, reason) {
    const transport = this.#transport;
    this.#clear("retry", "beat", "drain", "again", "token");
    this.#probe?.close(1000, "");
    this.#probe = null;
    this.#ping = null;
    this.#transport = null;
    this.#id = null;
    const { unsent = [], pending = [] } = transport?.close(code, reason) ?? {};
    const again = [];
    for (const [id, request] of [...this.#asked]) {
      if (request.transport !== transport || pending.includes(id)) continue;
      this.#asked.delete(id);
      if (!request.resolve) continue;
      if (request.safe || unsent.includes(id)) again.push(request);
      else this.#settle(request, null, unknown(request));
    }
    for (const request of again) this.#waitingBytes += request.bytes;
    this.#waiting = again.concat(this.#waiting).sort((one, other) => one.id - other.id);
    for (const track of this.#tracks.values()) track.handleLost();
  }

  /** No more tries. What is wanted stays, for `reconnect`; whoever waits is told. */
  #end({ code, reason, cause }) {
    this.#clear(...Object.keys(this.#timers));
    const error = new TidegateError("closed", `not connected, and no more tries: ${cause}${code ? " " + code : ""}${reason ? " " + reason : ""}`);
    for (const request of [...this.#asked.values()]) if (request.resolve) this.#settle(request, null, unknown(request));
    this.#asked.clear();
    for (const request of this.#waiting.splice(0)) this.#settle(request, null, this.#unsent(request, "closed", "closed before it was sent"));
    this.#waitingBytes = 0;
    for (const track of this.#tracks.values()) {
      track.fail(error);
      track.face.settle(error);
      track.face.finish(error);
    }
    this.#become("closed", { code, reason, cause });
  }

  /** Something that was sent once, and came back because that is safe, may have been done. */
  #unsent({ sent, command }, code, message) {
    if (sent && command.op === "publish") return unknown({ command });
    return new TidegateError(sent ? code : "not_sent", message, command.topic);
  }

  #become(state, fields) {
    const previous = this.#state;
    this.#state = state;
    emit(this, "state", { state, previous, transport: null, ...fields });
  }

  /** The network is back, or somebody looks again. */
  #wake() {
    if (this.#state === "open") return this.#doubt();
    if (this.#state !== "waiting" || this.#toldToWait) return;
    // Not at once: everybody in the house learns of it at the same moment.
    this.#timer("retry", this.#environment.random() * this.#options.baseWaitMs, () => this.#start());
  }

  /** Something happened that connections do not always live through: is this one alive? */
  #doubt() {
    if (this.#state === "open" && this.#transport.beats && !this.#ping) this.#askForLife();
  }

  // --- heartbeat: a page sees no ping frames, so it asks when it has heard nothing

  #beat() {
    const every = this.#environment.page?.document.hidden ? Math.max(this.#beatMs, HIDDEN_BEAT_MS) : this.#beatMs;
    const now = this.#environment.now();
    // Clocks are set back at times.
    this.#heardAt = Math.min(this.#heardAt, now);
    const quiet = now - this.#heardAt;
    if (quiet >= every) return this.#askForLife();
    this.#timer("beat", every - quiet, () => this.#beat());
  }

  #askForLife(grace = true) {
    const id = this.#nextNumber();
    const { pongTimeoutMs } = this.#options;
    const sentAt = this.#environment.now(), heard = this.#heard;
    const settling = Array.from(this.#tracks.values()).filter(track => track.state === "subscribed" && !track.settled);
    this.#ping = { id, settling };
    this.#transport.ping(id);
    if (!this.#ping) return;
    const buffered = this.#transport.buffered();
    this.#timer("beat", pongTimeoutMs, () => {
      this.#ping = null;
      if (this.#heard > heard) return this.#beat();
      // A timer that comes much too late was held up, as in a page that slept: the answer may have been, too. Once: in a hidden
      // page all timers are late, but answers are not.
      if (grace && this.#environment.now() - sentAt > 2 * pongTimeoutMs) return this.#askForLife(false);
      // What goes out slowly holds the ping up; as long as it moves, the connection lives.
      if (this.#transport.buffered() < buffered) return this.#askForLife(grace);
      this.#lost(this.#transport, { cause: "silence" });
    });
  }

  // --- asking and answering

  #nextNumber() {
    this.#number += 1;
    return this.#number;
  }

  #ask(track) {
    const id = this.#nextNumber();
    track.askedOf = this.#transport;
    this.#asked.set(id, { id, track, transport: this.#transport });
    return track.command(id);
  }

  #remove(track) {
    this.#tracks.delete(track.topic);
    this.#patterns.delete(track);
  }

  #request(request) {
    request.id = request.command.id = this.#nextNumber();
    const { topic } = request.command;
    if (this.#state === "closed") return Promise.reject(new TidegateError("closed", "this client is closed", topic));
    if (this.#waitingBytes > 0 && this.#waitingBytes + request.bytes > this.#options.waitingBytes) {
      request.reading?.catch(() => {});
      return Promise.reject(new TidegateError("backlog", `${this.#waitingBytes} bytes wait to be sent`, topic));
    }
    return new Promise((resolve, reject) => {
      Object.assign(request, { resolve, reject, sent: false });
      request.timer = this.#environment.setTimeout(() => this.#expire(request), request.timeoutMs ?? this.#options.answerTimeoutMs);
      this.#waiting.push(request);
      this.#waitingBytes += request.bytes;
      request.reading?.then(() => { request.reading = null; this.#flush(); }, error => {
        this.#forget(request);
        this.#settle(request, null, error);
        this.#flush();
      });
      this.#flush();
    });
  }

  #expire(request) {
    this.#forget(request);
    this.#settle(request, null, this.#unsent(request, "timeout", "not done in time"));
    this.#flush();
  }

  #forget(request) {
    this.#asked.delete(request.id);
    const place = this.#waiting.indexOf(request);
    if (place < 0) return;
    this.#waiting.splice(place, 1);
    this.#waitingBytes -= request.bytes;
  }

  #settle(request, answer, error) {
    this.#environment.clearTimeout(request.timer);
    if (error) request.reject(error); else request.resolve(answer);
  }

  /** Sends what waits, as long as the network takes it. */
  #flush() {
    if (this.#state !== "open") return;
    let count = 0;
    const now = this.#environment.now();
    for (const request of this.#waiting) {
      if (request.reading) break;
      if (request.sent && request.command.op === "publish" && now - request.sentAt > ONCE_MS) {
        // After a long sleep, say: the gateway may have forgotten the key.
        count += 1;
        this.#waitingBytes -= request.bytes;
        this.#settle(request, null, this.#unsent(request));
        continue;
      }
      if (this.#transport.buffered() > this.#options.bufferedBytes) {
        this.#timer("drain", DRAIN_MS, () => this.#flush());
        break;
      }
      count += 1;
      this.#waitingBytes -= request.bytes;
      if (!request.sent) request.sentAt = now;
      request.sent = true;
      request.transport = this.#transport;
      this.#asked.set(request.id, request);
      this.#transport.send([request.command]);
    }
    this.#waiting.splice(0, count);
  }

  #received(transport, object) {
    const request = object.id === undefined || object.id === null ? undefined : this.#asked.get(object.id);
    if (transport !== this.#transport) {
      // A POST settles by itself, also after its stream has ended.
      if (request?.transport !== transport || !request.resolve) return;
    } else {
      this.#heardAt = this.#environment.now();
      this.#heard += 1;
    }
    switch (object.op) {
      case "message": return this.#deliver(object);
      case "subscribed": return this.#subscribed(request, object);
      case "unsubscribed": return this.#unsubscribed(object);
      case "authenticated": this.#asked.delete(object.id); return this.#renewWithin(object.expires);
      case "published": case "presence": case "history": return this.#answered(request, object);
      case "join": case "leave": return this.#move(object);
      case "presence_gap": return this.#lostSight(object);
      case "gap": return this.#gap(object);
      case "pong": return this.#alive(object);
      case "error": return this.#failed(request, object);
      case "lost": return this.#unanswered(request);
      default: // a newer gateway's word: this version of the protocol says to ignore it
    }
  }

  #deliver(message) {
    const exact = this.#tracks.get(message.topic);
    // What an exact subscription has missed or gets first was for it alone; a pattern had its own at its time, unless the answer
    // has overtaken it.
    if (exact?.state === "subscribed" && (!exact.handleMessage(message) || message.offset <= exact.ownThrough)) return;
    for (const track of [...this.#patterns]) if (matches(track.topic, message.topic)) track.handleMessage(message);
  }

  #subscribed(request, answer) {
    if (request) this.#asked.delete(request.id);
    const track = request ? request.track : this.#tracks.get(answer.topic);
    if (!track || this.#tracks.get(track.topic) !== track) return;
    track.handleSubscribed(answer);
  }

  #unsubscribed({ id, topic }) {
    if (id !== undefined) { this.#asked.delete(id); return; }
    // The gateway's own word: a newer token does not allow it.
    const track = this.#tracks.get(topic);
    if (!track) return;
    this.#remove(track);
    track.end("failed", new TidegateError("not_allowed", `the token does not allow ${topic} any more`, topic));
  }

  #answered(request, answer) {
    if (!request) return;
    this.#asked.delete(request.id);
    const { op, id, ...rest } = answer;
    if (op === "published") rest.duplicate = answer.duplicate === true;
    this.#settle(request, rest);
  }

  #move({ op, topic, client, info }) {
    const track = this.#tracks.get(topic);
    if (track?.state === "subscribed") emit(track.face, op, { topic, client, info });
  }

  /** Joins and leaves are missing. */
  #lostSight({ topic }) {
    const track = this.#tracks.get(topic);
    if (track?.state === "subscribed") emit(track.face, "presencegap", { topic });
  }

  #gap(gap) {
    this.#tracks.get(gap.topic)?.handleGap(gap);
    for (const track of [...this.#patterns]) if (track.topic !== gap.topic && matches(track.topic, gap.topic)) track.handleGap(gap);
  }

  #alive({ id }) {
    if (this.#ping?.id !== id) return;
    // Answers come in order: what follows a subscription's answer first is over.
    for (const track of this.#ping.settling) if (track.state === "subscribed") track.settled = true;
    this.#ping = null;
    this.#beat();
  }

  #failed(request, { code, message, id, topic }) {
    if (request) this.#asked.delete(request.id);
    const error = new TidegateError(code, message ?? code, request?.track?.topic ?? request?.command?.topic ?? topic);
    if (request?.resolve) return this.#settle(request, null, error);
    // The old token holds on, and there is some time left.
    request?.renew?.();
    const track = request?.track;
    if (!track) {
      // To end a subscription that the gateway does not have is done already.
      if (!request || (request.renew && code !== "busy")) emit(this, "error", { error, code, message: error.message, id });
      return;
    }
    if (this.#tracks.get(track.topic) !== track) return;
    // Another transport can do what this one cannot.
    if (code === "unsupported") return track.fail(error);
    if (code === "busy") {
      const transport = this.#transport;
      this.#timer("busy " + track.topic, (0.5 + this.#environment.random()) * 2 * this.#options.baseWaitMs, () => {
        if (transport === this.#transport && this.#state === "open" && this.#tracks.get(track.topic) === track) transport.send([this.#ask(track)]);
      });
      return track.fail(error);
    }
    this.#remove(track);
    track.end("failed", error);
  }

  /** A POST broke, or its answer says so: nobody knows what became of it. */
  #unanswered(request) {
    if (!request) return;
    this.#asked.delete(request.id);
    if (!request.safe) return this.#settle(request, null, unknown(request));
    if (this.#state === "closed") return this.#settle(request, null, this.#unsent(request, "closed", "closed"));
    this.#waitingBytes += request.bytes;
    this.#waiting = [request, ...this.#waiting].sort((one, other) => one.id - other.id);
    this.#timer("drain", DRAIN_MS, () => this.#flush());
  }

  // --- timers by name

  #timer(name, ms, run) {
    this.#clear(name);
    this.#timers[name] = this.#environment.setTimeout(() => { delete this.#timers[name]; run(); }, ms);
  }

  #clear(...names) {
    for (const name of names) {
      this.#environment.clearTimeout(this.#timers[name]);
      delete this.#timers[name];
    }
  }
}

// ------------------------------------------------------------------------------------------------------- transports

/** A WebSocket that is given up on unless it opens in time; its end is told once. */
class Socket {
  constructor(address, protocols, { environment, timeoutMs, message, opened, ended }) {
    this.environment = environment;
    this.ended = ended;
    this.timer = environment.setTimeout(() => this.end({ cause: "timeout" }), timeoutMs);
    try {
      this.socket = protocols.length ? new environment.WebSocket(address.href, protocols) : new environment.WebSocket(address.href);
    } catch (error) {
      // For one, a page over https may not open ws:.
      environment.clearTimeout(this.timer);
      this.timer = environment.setTimeout(() => this.end({ cause: error.message }), 0);
      return;
    }
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = opened;
    this.socket.onmessage = message;
    this.socket.onerror = () => {};
    this.socket.onclose = ({ code, reason, wasClean }) => this.end({ code, reason: String(reason), wasClean });
  }

  /** What had to come has come. */
  settle() { this.environment.clearTimeout(this.timer); }

  get buffered() { return this.socket?.bufferedAmount ?? 0; }
  send(data) { this.socket.send(data); }

  end(why) {
    const { ended } = this;
    this.close(1000, "");
    ended?.(why);
  }

  close(code, reason) {
    this.settle();
    this.ended = null;
    if (!this.socket) return;
    // Some implementations report an error where they are closed before they are open.
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    try { this.socket.close(code, reason); } catch { this.socket.close(); }
  }
}

/** The protocol itself. */
class WebSocketTransport {
  name = "websocket";
  beats = true;

  constructor(client) { this.client = client; }

  open() {
    const { environment, addresses, options } = this.client;
    obtain(this.client, token => {
      if (this.closed) return;
      const [address, protocols] = showing(token, options, addresses.socket, [PROTOCOL]);
      this.socket = new Socket(address, protocols, {
        environment,
        timeoutMs: options.connectTimeoutMs,
        opened: () => {},
        message: ({ data }) => this.handle(data),
        ended: why => this.client.lost(this, why),
      });
    }, () => { if (!this.closed) this.client.lost(this, { cause: "token" }); });
  }

  handle(data) {
    let objects;
    try {
      objects = JSON.parse(data);
    } catch {
      return this.socket.end({ cause: "not JSON" });
    }
    for (const object of Array.isArray(objects) ? objects : [objects]) {
      if (object?.op === "hello") {
        // The connection counts from here on: a proxy may accept it and carry nothing.
        this.socket.settle();
        this.client.opened(this, object);
      } else if (object) {
        this.client.received(this, object);
      }
    }
  }

  send(commands) {
    let batch = [], characters = 0;
    const flush = () => {
      if (batch.length) this.socket.send(batch.length === 1 ? batch[0] : `[${batch.join(",")}]`);
      batch = [];
      characters = 0;
    };
    for (const command of commands) {
      const text = command.body ? `{"op":"${command.op}","id":${command.id},${command.body.slice(1)}` : JSON.stringify(command);
      if (batch.length === BATCH_COMMANDS || characters + text.length > BATCH_CHARACTERS) flush();
      batch.push(text);
      characters += text.length;
    }
    flush();
  }

  ping(id) { this.send([{ op: "ping", id }]); }
  buffered() { return this.socket.buffered; }
  close(code, reason) { this.closed = true; this.socket?.close(code, reason); return {}; }
}

/** What events and polls share: publishing by POST, one request at a time so that the order stays, and history by a poll. */
class HttpTransport {
  constructor(client) {
    this.client = client;
    this.closed = false;
    /** topic: the number of its unanswered subscribe command, or null */
    this.topics = new Map();
    this.queue = [];
    this.queuedCharacters = 0;
    this.posting = [];
    this.largest = POST_COMMANDS;
    this.failures = 0;
    /** What stops the requests under way. */
    this.flights = new Set();
  }

  open() {
    obtain(this.client, token => {
      if (this.closed) return;
      this.token = token;
      for (const command of this.client.ask()) this.add(command);
      this.changed();
      // With nothing subscribed there is no stream to open.
      if (this.topics.size === 0) queueMicrotask(() => this.confirm());
    }, () => this.lost({ cause: "token" }));
  }

  /** The fields of a request. */
  headers(own) {
    const shown = this.token === null ? {} : { authorization: `Bearer ${this.token}` };
    return { ...own, ...shown, ...this.client.options.headers };
  }

  confirm() {
    if (this.confirmed || this.closed) return;
    this.confirmed = true;
    this.client.opened(this, { client: this.client.present() });
  }

  add({ id, topic }) {
    if (this.topics.size >= STREAM_TOPICS) return this.refuse({ id, topic }, `${this.name} has room for ${STREAM_TOPICS} topics`);
    this.topics.set(topic, id);
  }

  refuse({ id, topic }, message) { this.answer({ op: "error", id, topic, code: "unsupported", message }); }

  send(commands) {
    let changed = false;
    for (const command of commands) {
      const { op, id, topic } = command;
      if (op === "subscribe") { this.add(command); changed = true; }
      else if (op === "unsubscribe") { changed = this.topics.delete(topic) || changed; this.answer({ op: "unsubscribed", id, topic }); }
      else if (op === "publish") this.post(command);
      else if (op === "history" && command.before === undefined) this.history(command);
      else if (op === "presence") this.presence(command);
      else this.refuse(command, `${op} needs a WebSocket`);
    }
    if (changed) this.changed();
  }

  /** Never from within a command. */
  answer(object) { queueMicrotask(() => this.client.received(this, object)); }

  lost(why) {
    if (this.closed) return;
    this.client.lost(this, why);
  }

  /** The position of each topic as streams and polls take it; `-` where there is none. */
  positions(topics) {
    return topics.map(topic => {
      const position = this.client.track(topic)?.position();
      return position ? `${position.epoch}-${position.offset}` : "-";
    });
  }

  /** How much of the past the topics want: one number for each, or none where none wants anything. */
  wanted(topics) {
    const numbers = topics.map(topic => this.client.track(topic)?.options.history || 0);
    return numbers.some(Boolean) ? numbers.join(",") : null;
  }

  /** What is said of a topic, at first and whenever something could not be recovered. */
  subscribed({ topic, epoch, offset, recovered }) {
    const id = this.topics.get(topic);
    if (id === undefined || (id === null && recovered !== false)) return;
    this.topics.set(topic, null);
    this.client.received(this, { op: "subscribed", id, topic, epoch, offset, recovered });
  }

  post(command) {
    this.queue.push(command);
    this.queuedCharacters += command.body.length;
    this.pump();
  }

  async pump() {
    if (this.posting.length || this.queue.length === 0 || this.pause || this.closed) return;
    const batch = [];
    let characters = 0;
    while (this.queue.length && batch.length < this.largest && (batch.length === 0 || characters < POST_CHARACTERS)) {
      const command = this.queue.shift();
      characters += command.body.length;
      batch.push(command);
    }
    this.posting = batch;
    const { fetch, random, setTimeout } = this.client.environment;
    const { baseWaitMs, maxWaitMs } = this.client.options;
    let response, answer = null;
    try {
      response = await fetch(this.client.addresses.publish.href, {
        method: "POST", cache: "no-store", headers: this.headers({ "content-type": "application/json" }),
        body: `[${batch.map(({ body }) => body).join(",")}]`,
      });
      answer = await response.json().catch(() => null);
    } catch { /* told below */ }
    this.posting = [];
    this.queuedCharacters -= characters;
    let waitMs = 0;
    const results = Array.isArray(answer?.results) ? answer.results : null;
    // A proxy that had no answer (502, 504) does not know either.
    if (!response || (!results && (response.ok || response.status === 502 || response.status === 504))) {
      this.failures += 1;
      waitMs = random() * Math.min(maxWaitMs, baseWaitMs * 2 ** this.failures);
      for (const { id } of batch) this.client.received(this, { op: "lost", id });
    } else if ((response.status === 429 || response.status === 503 || (response.status === 413 && batch.length > 1)) && !this.closed) {
      // Nothing of it was done, so it comes again: later, or one by one.
      if (response.status === 413) this.largest = 1; else waitMs = retryAfter(response) + random() * baseWaitMs;
      this.queue.unshift(...batch);
      this.queuedCharacters += characters;
    } else {
      const isUnknown = result => result?.error?.code === "unknown";
      this.failures = results?.some(isUnknown) ? this.failures + 1 : 0;
      // What a gateway does not come to it does not come to any sooner.
      if (this.failures > 0) waitMs = random() * Math.min(maxWaitMs, baseWaitMs * 2 ** this.failures);
      batch.forEach(({ id, topic }, index) => {
        const result = results?.[index] ?? { error: answer?.error ?? {} };
        if (!result.error) return this.client.received(this, { op: "published", id, topic, ...result });
        if (isUnknown(result)) return this.client.received(this, { op: "lost", id });
        const { code = STATUS_CODES[response.status] ?? "refused", message = `status ${response.status}` } = result.error;
        this.client.received(this, { op: "error", id, code, message });
      });
    }
    if (waitMs > 0) this.pause = setTimeout(() => { this.pause = null; this.pump(); this.client.drained(this); }, waitMs);
    this.pump();
    this.client.drained(this);
  }

  async history({ id, topic, limit = 100 }) {
    try {
      const answer = await this.get(this.pollAddress([topic], null, limit), POLL_MS);
      const [{ epoch, offset }] = answer.topics;
      this.client.received(this, { op: "history", id, topic, epoch, offset, messages: answer.messages });
    } catch (error) {
      this.fail(id, error);
    }
  }

  async presence({ id, topic }) {
    try {
      const address = this.client.addresses.state(topic);
      address.searchParams.set("clients", LISTED_CLIENTS);
      const { present: count, clients = [] } = await this.ask(address, POLL_MS);
      if (count === undefined) throw Object.assign(new Error("this topic has no presence, or the route does not show it"), { code: "no_presence" });
      this.client.received(this, { op: "presence", id, topic, count, clients });
    } catch (error) {
      this.fail(id, error);
    }
  }

  /** What went wrong with a question. An aborted request has a code of its own, a number. */
  fail(id, error) {
    const told = typeof error.code === "string" ? error.code : undefined;
    this.client.received(this, { op: "error", id, code: told ?? STATUS_CODES[error.status] ?? "unsupported", message: error.message });
  }

  /** Says in a request as whom its client is present, in those of its topics that ask for it. */
  attend(address, topics) {
    const attending = topics.map(topic => this.client.track(topic)).filter(track => track?.attends);
    if (attending.length === 0) return;
    address.searchParams.set("client", this.client.present());
    // A request says one thing of its client.
    const says = attending.find(({ options }) => options.info !== undefined);
    if (says) address.searchParams.set("info", JSON.stringify(says.options.info));
    if (attending.length < topics.length) for (const { topic } of attending) address.searchParams.append("attend", topic);
  }

  pollAddress(topics, positions, history) {
    const address = new URL(this.client.addresses.poll);
    for (const topic of topics) address.searchParams.append("topic", topic);
    if (positions) address.searchParams.set("position", positions.join(","));
    if (history) address.searchParams.set("history", history);
    return address;
  }

  /** A poll's answer. @throws as `ask` does */
  async get(address, timeoutMs, flight) {
    const answer = await this.ask(address, timeoutMs, flight);
    if (!Array.isArray(answer?.topics) || !Array.isArray(answer.messages)) throw new Error("not a poll's answer");
    return answer;
  }

  /** An answer in JSON, within a time. @throws {Error & {status?: number, code?: string, retryMs?: number, late?: boolean}} */
  async ask(address, timeoutMs, flight = new AbortController()) {
    const { fetch, setTimeout, clearTimeout } = this.client.environment;
    let late = false;
    const timer = setTimeout(() => { late = true; flight.abort(); }, timeoutMs);
    this.flights.add(flight);
    try {
      const headers = this.headers({ accept: "application/json" });
      const response = await fetch(address.href, { headers, signal: flight.signal, cache: "no-store" });
      const answer = await response.json().catch(() => null);
      if (!response.ok) {
        const { status } = response, { code, message = `status ${status}` } = answer?.error ?? {};
        const error = Object.assign(new Error(message), { status, code });
        if (status === 429 || status === 503) error.retryMs = retryAfter(response);
        throw error;
      }
      if (answer === null || typeof answer !== "object") throw new Error("not an answer of a gateway");
      return answer;
    } catch (error) {
      throw late ? Object.assign(new Error("timeout"), { late }) : error;
    } finally {
      clearTimeout(timer);
      this.flights.delete(flight);
    }
  }

  buffered() { return this.pause ? Infinity : this.queuedCharacters; }

  close() {
    this.closed = true;
    this.client.environment.clearTimeout(this.pause);
    for (const flight of this.flights) flight.abort();
    return { unsent: this.queue.map(({ id }) => id), pending: this.posting.map(({ id }) => id) };
  }
}

const STATUS_CODES = {
  400: "invalid_request", 401: "not_allowed", 403: "not_allowed", 404: "unsupported", 411: "invalid_request", 413: "too_large",
  415: "invalid_request", 429: "busy", 503: "busy",
};

/** RFC 9110 §10.2.3, in seconds; a date is not worth its parsing here. */
function retryAfter(response) {
  const seconds = Number(response.headers.get("retry-after") ?? 1);
  return Math.min(Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : 1000, ADVISED_MS);
}

/** Server-sent events: a new stream whenever the topics change, each from where its topics were. */
class EventsTransport extends HttpTransport {
  name = "events";
  beats = true;

  changed() {
    if (this.changing || this.closed) return;
    this.changing = true;
    // Topics that come and go together share a stream.
    queueMicrotask(() => { this.changing = false; if (!this.closed) this.stream(); });
  }

  stream() {
    const { environment, addresses, options } = this.client;
    this.shut();
    const topics = [...this.topics.keys()];
    if (topics.length === 0) return;
    const address = new URL(addresses.events);
    for (const topic of topics) address.searchParams.append("topic", topic);
    const positions = this.positions(topics), history = this.wanted(topics);
    if (positions.some(position => position !== "-")) address.searchParams.set("last-event-id", positions.join(","));
    if (history) address.searchParams.set("history", history);
    if (this.token !== null) address.searchParams.set(tokenParameter(options), this.token);
    this.attend(address, topics);
    const source = this.source = new environment.EventSource(address.href);
    const hear = (type, handle) => source.addEventListener(type, event => {
      if (source !== this.source) return;
      let data;
      try { data = JSON.parse(event.data); } catch { return this.lost({ cause: "not JSON" }); }
      handle(data);
      this.check();
    });
    // Its own reconnects know neither growing waits nor other transports.
    source.onerror = () => { if (source === this.source) this.lost({ cause: "stream" }); };
    // There are proxies that keep a stream to themselves until it ends.
    this.timer = environment.setTimeout(() => this.lost({ cause: "timeout" }), options.connectTimeoutMs);
    hear("subscribed", data => {
      environment.clearTimeout(this.timer);
      this.confirm();
      for (const topic of data.topics ?? []) this.subscribed(topic);
      // A pattern has no position, so perhaps nothing is said of it.
      for (const topic of topics) if (isPattern(topic)) this.subscribed({ topic });
    });
    hear("message", message => this.client.received(this, { op: "message", ...message }));
    hear("gap", gap => this.client.received(this, { op: "gap", ...gap }));
  }

  /** Comments, which keep a stream alive, are not shown: so a poll asks where the topics are, and the stream has to get there. */
  ping(id) {
    const topics = [...this.topics.keys()].filter(topic => this.client.track(topic)?.position());
    if (topics.length === 0) return this.answer({ op: "pong", id });
    const address = this.pollAddress(topics, this.positions(topics), 0);
    address.searchParams.set("wait", "0");
    this.get(address, this.client.options.pongTimeoutMs).then(answer => {
      this.target = { id, topics: answer.topics };
      this.check();
    // Where polls are not served nothing can be said, and the stream is taken at its word.
    }, error => { if (error.status) this.answer({ op: "pong", id }); });
  }

  check() {
    if (!this.target) return;
    const { id, topics } = this.target;
    const behind = topics.some(({ topic, epoch, offset }) => {
      const position = this.client.track(topic)?.position();
      return position && (position.epoch !== epoch || position.offset < offset);
    });
    if (behind) return;
    this.target = null;
    this.answer({ op: "pong", id });
  }

  shut() {
    this.client.environment.clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  close() {
    this.shut();
    return super.close();
  }
}

/** Long-polling: one request after the other, each from where the last one ended. */
class PollTransport extends HttpTransport {
  name = "poll";
  beats = false;

  add(command) {
    if (isPattern(command.topic)) this.refuse(command, "patterns cannot be polled"); else super.add(command);
  }

  changed() {
    // The one that waits does not know the new topics.
    this.round?.abort();
    if (!this.running) this.run();
  }

  async run() {
    this.running = true;
    const { now, setTimeout } = this.client.environment;
    while (!this.closed && this.topics.size) {
      const round = this.round = new AbortController();
      const began = now();
      try {
        const quiet = await this.poll(round);
        // An answer that neither waits nor brings anything would be a busy loop.
        if (quiet && now() - began < 1000) await new Promise(resolve => {
          round.signal.addEventListener("abort", resolve);
          setTimeout(resolve, 1000);
        });
      } catch (error) {
        if (round.signal.aborted && !error.late) continue;
        this.running = false;
        return this.lost({ cause: error.message, status: error.status, retryMs: error.retryMs });
      }
    }
    this.running = false;
    if (!this.closed) this.confirm();
  }

  /** @returns {Promise<boolean>} whether there was nothing */
  async poll(round) {
    const all = [...this.topics.keys()], tracks = all.map(topic => this.client.track(topic));
    // A topic that is new here is asked for alone: that is answered at once, with as much of the past as it wants.
    const fresh = all.find((_, index) => !tracks[index]?.position());
    const topics = fresh === undefined ? all : [fresh];
    const history = this.wanted(topics);
    const address = this.pollAddress(topics, fresh === undefined ? this.positions(topics) : null, history);
    this.attend(address, topics);
    // The first answer says that polling works here, and that is not to wait for a message.
    const first = !this.confirmed;
    if (first) address.searchParams.set("wait", "0");
    let answer;
    try {
      answer = await this.get(address, POLL_MS + this.client.options.connectTimeoutMs, round);
    } catch (error) {
      // A gateway's word on this one topic; anything else is about the transport.
      if (fresh === undefined || typeof error.code !== "string" || error.code === "busy") throw error;
      this.confirm();
      const id = this.topics.get(fresh);
      this.topics.delete(fresh);
      this.client.received(this, { op: "error", id, code: error.code, message: error.message });
      return false;
    }
    if (this.closed) return false;
    this.confirm();
    for (const topic of answer.topics) this.subscribed(topic);
    for (const message of answer.messages) this.client.received(this, { op: "message", ...message });
    for (const { topic, epoch, offset } of answer.topics) {
      const track = this.client.track(topic);
      if (track?.epoch === epoch) track.reach(offset);
    }
    if (fresh !== undefined && this.topics.has(fresh) && !this.client.track(fresh)?.position()) throw new Error("not a poll's answer");
    return !first && fresh === undefined && answer.messages.length === 0 && answer.topics.every(({ recovered }) => recovered !== false);
  }

  close() {
    this.round?.abort();
    return super.close();
  }
}

// ------------------------------------------------------------------------------------------------------- raw topics

/** A topic for which a message is a message: no JSON, no offsets, nothing is recovered. Made by `client.raw`. */
export class RawTopic extends Emitter {
  #address;
  #options;
  #environment;
  #waits;
  #socket = null;
  #started = null;
  #state = "connecting";
  #openedAt = 0;
  #retry;
  #drain;
  #queue = [];
  #queuedBytes = 0;
  #unwatch;

  constructor(topic, address, options, environment, listeners) {
    super();
    this.topic = topic;
    this.binaryType = settings(options).binaryType;
    this.#address = address;
    this.#options = options;
    this.#environment = environment;
    this.#waits = new Waits(options, environment);
    listen(this, listeners, ["state", "message"]);
    this.#unwatch = watchPage(environment.page, () => { if (this.#state === "waiting") this.#start(); }, () => {});
    queueMicrotask(() => { if (this.#state === "connecting" && !this.#socket) this.#start(); });
  }

  get state() { return this.#state; }
  get bufferedAmount() { return this.#queuedBytes + (this.#socket?.buffered ?? 0); }

  /**
   * Fulfilled when the message was handed to the network: whether it arrived is not known here.
   * @param {string | ArrayBuffer | ArrayBufferView | Blob} data
   */
  send(data) {
    if (this.#state !== "open") return Promise.reject(new TidegateError("not_sent", `not connected: ${this.#state}`, this.topic));
    const bytes = typeof data === "string" ? data.length : isBlob(data) ? data.size : isBytes(data) ? data.byteLength : -1;
    if (bytes < 0) return Promise.reject(new TypeError("a raw message is a text or bytes"));
    if (this.#queuedBytes > 0 && this.#queuedBytes + bytes > this.#options.waitingBytes) {
      return Promise.reject(new TidegateError("backlog", `${this.#queuedBytes} bytes wait to be sent`, this.topic));
    }
    return new Promise((resolve, reject) => {
      const entry = { data, bytes, resolve, reject, reading: null };
      if (isBlob(data)) {
        const ready = bytes => { Object.assign(entry, { data: bytes, reading: null }); this.#flush(); };
        entry.reading = data.arrayBuffer().then(ready, error => this.#refuse(entry, error));
      }
      this.#queue.push(entry);
      this.#queuedBytes += bytes;
      this.#flush();
    });
  }

  close(code = 1000, reason = "") {
    if (!this.#unwatch) return;
    this.#unwatch();
    this.#unwatch = null;
    this.#environment.clearTimeout(this.#retry);
    this.#socket?.close(code, reason);
    this.#become("closed", { code, reason, cause: "closed" });
  }

  #start() {
    this.#environment.clearTimeout(this.#retry);
    this.#become("connecting", {});
    if (this.#state !== "connecting") return;
    const environment = this.#environment;
    // Of two starts only the newer one goes on.
    const start = this.#started = {};
    obtain({ options: this.#options, environment }, token => {
      if (this.#started === start && this.#state === "connecting") this.#dial(token);
    }, () => {
      if (this.#started === start && this.#state === "connecting") this.#ended({ cause: "token" });
    });
  }

  #dial(token) {
    // A browser fails a WebSocket none of whose subprotocols was chosen.
    const [address, protocols] = showing(token, this.#options, this.#address, []);
    this.#socket = new Socket(address, protocols.length ? [PROTOCOL, ...protocols] : [], {
      environment: this.#environment,
      timeoutMs: this.#options.connectTimeoutMs,
      opened: () => {
        this.#socket.settle();
        this.#openedAt = this.#environment.now();
        this.#become("open", {});
      },
      message: ({ data }) => {
        const kind = typeof data === "string" ? "text" : "binary";
        emit(this, "message", { topic: this.topic, kind, data: kind === "binary" && this.binaryType === "blob" ? new Blob([data]) : data });
      },
      ended: why => this.#ended(why),
    });
  }

  #ended({ code = 1006, reason = "", cause }) {
    if (this.#state === "open" && this.#environment.now() - this.#openedAt >= this.#options.livedMs) this.#waits.tries = 0;
    this.#socket = null;
    const told = advice(code, reason, this.#options);
    const waitMs = told.stay ? null : this.#waits.next(told);
    if (waitMs === null) return this.#become("closed", { code, reason, cause: told.stay ? "told" : "gave_up" });
    this.#retry = this.#environment.setTimeout(() => this.#start(), waitMs);
    this.#become("waiting", { code, reason, cause, waitMs, tries: this.#waits.tries });
  }

  #become(state, fields) {
    const previous = this.#state;
    this.#state = state;
    if (state !== "open") {
      this.#environment.clearTimeout(this.#drain);
      for (const entry of [...this.#queue]) this.#refuse(entry, new TidegateError("not_sent", "the connection ended before it was sent", this.topic));
    }
    emit(this, "state", { state, previous, ...fields });
  }

  #refuse(entry, error) {
    const place = this.#queue.indexOf(entry);
    if (place < 0) return;
    this.#queue.splice(place, 1);
    this.#queuedBytes -= entry.bytes;
    entry.reject(error);
    this.#flush();
  }

  #flush() {
    this.#environment.clearTimeout(this.#drain);
    while (this.#state === "open" && this.#queue.length && !this.#queue[0].reading) {
      if (this.#socket.buffered > this.#options.bufferedBytes) {
        this.#drain = this.#environment.setTimeout(() => this.#flush(), DRAIN_MS);
        return;
      }
      const entry = this.#queue.shift();
      this.#queuedBytes -= entry.bytes;
      this.#socket.send(entry.data);
      entry.resolve();
    }
  }
}
