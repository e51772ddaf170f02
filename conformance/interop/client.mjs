// Node's ws as a client: client.mjs BASE KIND, where BASE is the ws:// or wss:// address in front of the last segment of the
// path, and KIND is echo, edge, pass, off (proxied) or small.
// Prints "ok NAME" or "FAIL NAME -- why" for each case, and "done" at the end.
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { randomBytes } from "node:crypto";
import WebSocket from "ws";
import { check, verdict } from "./check.mjs";

const [base, kind] = process.argv.slice(2);
const proxied = kind !== "echo";
const secure = base.startsWith("wss:");
const LIMIT_MS = 30_000;
const MOST = 32 << 20;

// What a broken session must not do is to wait for ever.
const within = (promise, what) => {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("too late: " + what)), LIMIT_MS); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

// A session whose messages, pings and end can be waited for.
class Session {
  static async open(path, { deflate = false, protocols = [], headers = {} } = {}) {
    const socket = new WebSocket(base + path, protocols, {
      perMessageDeflate: deflate && (deflate === true ? { threshold: 0 } : deflate),
      maxPayload: MOST,
      headers,
    });
    const session = new Session(socket);
    await within(new Promise((resolve, reject) => {
      socket.once("upgrade", response => { session.response = response; });
      socket.once("open", resolve);
      socket.once("error", reject);
    }), "open " + path);
    socket.on("error", () => {});
    return session;
  }

  constructor(socket) {
    this.socket = socket;
    this.messages = [];
    this.waiting = [];
    this.pings = [];
    this.closed = new Promise(resolve => socket.on("close", (code, reason) => resolve({ code, reason: reason.toString() })));
    socket.on("ping", payload => this.pings.push(payload));
    socket.on("message", (data, binary) => {
      const message = binary ? data : data.toString();
      const waiter = this.waiting.shift();
      if (waiter) waiter(message); else this.messages.push(message);
    });
  }

  get extensions() { return this.response.headers["sec-websocket-extensions"] ?? ""; }
  get read() { return this.socket._socket.bytesRead; }
  next() {
    const message = this.messages.shift();
    if (message !== undefined) return Promise.resolve(message);
    const ended = this.closed.then(end => { throw new Error("closed instead: " + JSON.stringify(end)); });
    return within(Promise.race([new Promise(resolve => this.waiting.push(resolve)), ended]), "a message");
  }
  end() { return within(this.closed, "the end"); }
  async round(message, note) {
    this.socket.send(message);
    same(await this.next(), message, note);
  }
  async close(code, reason) {
    this.socket.close(code, reason);
    return this.end();
  }
}

// The gateway answers a Close with its code (RFC 6455 §5.5.1); the upstreams with its reason too.
const answered = (end, code, reason) => assert.deepEqual(end, { code, reason: proxied || end.reason ? reason : "" });
const same = (received, sent, note = "") => {
  assert.equal(typeof received, typeof sent, "text or binary " + note);
  const [a, b] = [Buffer.from(received), Buffer.from(sent)];
  assert.equal(a.length, b.length, "length " + note);
  assert.ok(a.equals(b), "payload differs " + note);
};
const text = length => {
  const unit = '{"channel":"tide","height":1.25,"unit":"m","note":"übers Watt 🌊"}\n';
  let all = unit.repeat(Math.ceil(length / Buffer.byteLength(unit)));
  all = Buffer.from(all).subarray(0, length).toString().replace(/�/g, "");
  return all + "x".repeat(length - Buffer.byteLength(all));
};
const block = randomBytes(16 << 10);
const binary = length => Buffer.alloc(length, block);

// The bytes of a proxied session's end, as its upstream saw it.
const seen = async id => {
  const session = await Session.open("/closed?of=" + id);
  const end = JSON.parse(await session.next());
  await session.close(1000);
  return end;
};
let last = 0;
const fresh = () => `node-${process.pid}-${last += 1}`;

for (const deflate of [true, false]) {
  const on = deflate ? "deflate offered" : "deflate not offered";
  const used = deflate && kind !== "off";

  await check(on + ": what is negotiated", async () => {
    const session = await Session.open(proxied ? "/info" : "/echo", { deflate });
    if (!used) assert.equal(session.extensions, "");
    else assert.match(session.extensions, /^permessage-deflate(;|$)/);
    const own = kind === "echo" || kind === "edge";
    if (used && own) {
      assert.match(session.extensions, /server_no_context_takeover/);
      assert.match(session.extensions, /client_no_context_takeover/);
    }
    if (proxied) {
      const info = JSON.parse(await session.next());
      if (kind === "pass" && deflate) {
        assert.match(info.headers["sec-websocket-extensions"] ?? "", /permessage-deflate/);
        assert.equal(session.extensions, info.answered);
      } else {
        assert.equal(info.headers["sec-websocket-extensions"], undefined, "the upstream is offered nothing");
        assert.equal(info.answered, null);
      }
    }
    await session.round(text(5000));
    assert.equal((await session.close(1000)).code, 1000);
  });

  await check(on + ": text and binary of all lengths", async () => {
    const session = await Session.open("/echo", { deflate });
    for (const length of [0, 1, 63, 64, 125, 126, 127, 1000, 65535, 65536, 65537]) {
      await session.round(text(length), `text ${length}`);
      await session.round(binary(length), `binary ${length}`);
    }
    await session.close(1000);
  });

  await check(on + ": 16 MiB", async () => {
    const session = await Session.open("/echo", { deflate });
    await session.round(binary(16 << 20), "binary");
    await session.round(text(16 << 20), "text");
    await session.close(1000);
  });

  await check(on + ": on the wire", async () => {
    const session = await Session.open("/echo", { deflate });
    await session.round("ready");
    const before = session.read;
    await session.round(text(1 << 20));
    const bytes = session.read - before;
    if (used) assert.ok(bytes < 100_000, `${bytes} bytes for a MiB that compresses well`);
    else assert.ok(bytes > 1 << 20, `${bytes} bytes for a MiB`);
    await session.close(1000);
  });

  await check(on + ": fragments, a ping between them", async () => {
    const session = await Session.open("/echo", { deflate });
    const parts = ["zwischen ", "", text(70_000), "den Fragmenten 🌊", ""];
    const pong = once(session.socket, "pong");
    parts.forEach((part, index) => {
      session.socket.send(part, { fin: index === parts.length - 1 });
      if (index === 2) session.socket.ping("between");
    });
    same(await session.next(), parts.join(""));
    assert.equal((await within(pong, "a pong"))[0].toString(), "between");
    await session.close(1000);
  });

  await check(on + ": messages stay in order", async () => {
    const session = await Session.open("/echo", { deflate });
    const all = Array.from({ length: 500 }, (_, index) => index % 3 ? text(index * 7) : binary(index * 11));
    for (const message of all) session.socket.send(message);
    for (const [index, message] of all.entries()) same(await session.next(), message, `message ${index}`);
    await session.close(1000);
  });
}

await check("ping and pong", async () => {
  const session = await Session.open("/echo");
  for (const payload of ["", "x", "p".repeat(125)]) {
    session.socket.ping(payload);
    const [pong] = await within(once(session.socket, "pong"), "a pong");
    assert.equal(pong.toString(), payload);
  }
  session.socket.pong("unasked");
  await session.round("still here");
  await session.close(1000);
});

await check("close codes and reasons of the client", async () => {
  for (const [code, reason] of [[1000, ""], [1000, "done"], [1001, "moving on"], [1011, "broken"], [3000, "registered"], [4999, "ü".repeat(61) + "!"]]) {
    const id = fresh();
    const session = await Session.open("/echo?id=" + id);
    await session.round("before");
    answered(await session.close(code, reason), code, reason);
    if (proxied) assert.deepEqual(await seen(id), { code, reason });
  }
  const id = fresh();
  const session = await Session.open("/echo?id=" + id);
  assert.equal((await session.close()).code, 1005);
  if (proxied) assert.equal((await seen(id)).code, 1005);
});

await check("text that is not UTF-8 is closed with 1007", async () => {
  const session = await Session.open("/echo");
  session.socket.send(Buffer.from([0x68, 0xc3, 0x28]), { binary: false });
  assert.equal((await session.end()).code, 1007);
});

await check("200 sessions at once", async () => {
  const sessions = await Promise.all(Array.from({ length: 200 }, (_, index) => Session.open("/echo", { deflate: index % 2 === 0 })));
  await Promise.all(sessions.map(async (session, index) => {
    for (let round = 0; round < 5; round += 1) await session.round(`${index}:${round}:` + text(200 + index));
  }));
  const ends = await Promise.all(sessions.map(session => session.close(1000, "done")));
  for (const end of ends) answered(end, 1000, "done");
});

await check("half-closed and abrupt clients disturb nobody", async () => {
  const url = new URL((base + "/echo").replace(/^ws/, "http"));
  const rude = (how, bytes) => within(new Promise((resolve, reject) => {
    const wire = net.connect({ host: url.hostname, port: url.port, allowHalfOpen: true });
    const socket = secure ? tls.connect({ socket: wire, host: url.hostname, allowHalfOpen: true }) : wire;
    const head = `GET ${url.pathname} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`;
    socket.on("error", error => how === "reset" ? resolve() : reject(error));
    if (how === "half a head") {
      socket.write(head.slice(0, 60), () => { socket.destroy(); resolve(); });
      return;
    }
    socket.write(head);
    socket.once("data", data => {
      if (!data.toString("latin1").startsWith("HTTP/1.1 101")) return reject(new Error(data.toString("latin1").slice(0, 80)));
      socket.write(bytes, () => {
        if (how === "reset") { wire.resetAndDestroy(); resolve(); }
        if (how === "gone") { socket.destroy(); resolve(); }
        // Its own side is ended; the gateway's has to follow.
        if (how === "half-closed") { socket.end(); socket.on("end", resolve).resume(); }
      });
    });
  }), how);
  const whole = Buffer.from([0x82, 0x84, 0, 0, 0, 0, 1, 2, 3, 4]);
  const part = Buffer.from([0x82, 0xfe, 0x03, 0xe8, 0, 0, 0, 0, 1, 2, 3]);
  const session = await Session.open("/echo", { deflate: true });
  let over = false;
  const calm = (async () => {
    let rounds = 0;
    while (!over || rounds < 50) await session.round(`${rounds += 1}:` + text(3000));
  })();
  const all = [];
  for (let i = 0; i < 8; i += 1) {
    for (const how of ["reset", "gone", "half-closed"]) for (const bytes of [whole, part, Buffer.from([0x82])]) all.push(rude(how, bytes));
    all.push(rude("half a head"));
  }
  await Promise.all(all).finally(() => { over = true; });
  await calm;
  assert.equal((await session.close(1000)).code, 1000);
});

if (!proxied) {
  await check("subprotocols", async () => {
    // "/chat" knows chat.v2 and chat.v1; "/echo" none.
    for (const [offered, agreed] of [[["chat.v1"], "chat.v1"], [["other", "chat.v1", "chat.v2"], "chat.v1"], [["chat.v2", "chat.v1"], "chat.v2"]]) {
      const session = await Session.open("/chat", { protocols: offered });
      assert.equal(session.socket.protocol, agreed);
      await session.round("agreed");
      await session.close(1000);
    }
    await assert.rejects(Session.open("/chat", { protocols: ["other"] }), /404/);
    await assert.rejects(Session.open("/chat"), /404/);
    // ws does not take a session without one of the subprotocols that it has offered.
    await assert.rejects(Session.open("/echo", { protocols: ["other"] }), /no subprotocol/);
  });

  await check("context takeover", async () => {
    const line = randomBytes(600).toString("hex");
    const cost = async path => {
      const session = await Session.open(path, { deflate: true });
      await session.round(line);
      const before = session.read;
      for (let i = 0; i < 10; i += 1) await session.round(line);
      const bytes = (session.read - before) / 10;
      await session.close(1000);
      return [session.extensions, bytes];
    };
    const [extensions, bytes] = await cost("/takeover");
    assert.match(extensions, /^permessage-deflate/);
    assert.doesNotMatch(extensions, /no_context_takeover/);
    assert.ok(bytes < 100, `${bytes} bytes for what was sent before`);
    const [, without] = await cost("/echo");
    assert.ok(without > 500, `${without} bytes without takeover`);
  });

  await check("parameters of deflate", async () => {
    for (const [offer, agreed] of [
      [{ serverNoContextTakeover: true }, /server_no_context_takeover/],
      [{ clientNoContextTakeover: true }, /client_no_context_takeover/],
      [{ serverMaxWindowBits: 9 }, /server_max_window_bits=9/],
      [{ clientMaxWindowBits: 10 }, /^permessage-deflate/],
    ]) {
      const session = await Session.open("/takeover", { deflate: { threshold: 0, ...offer } });
      assert.match(session.extensions, agreed);
      for (let i = 0; i < 5; i += 1) await session.round(text(100_000) + i);
      await session.close(1000);
    }
  });

  await check("a message over the limit is closed with 1009", async () => {
    for (const deflate of [false, true]) {
      const session = await Session.open("/small", { deflate });
      await session.round(text(65536));
      session.socket.send(text(65537));
      assert.equal((await session.end()).code, 1009);
    }
  });

  await check("the gateway's pings are answered", async () => {
    const session = await Session.open("/pinged");
    await within(new Promise(resolve => session.socket.on("ping", () => session.pings.length >= 3 && resolve())), "3 pings");
    await session.round("still here");
    assert.equal((await session.close(1000)).code, 1000);
  });
}

if (proxied) {
  await check("forwarded fields, path and query", async () => {
    const session = await Session.open("/info?room=a%20b&x=1", { headers: { "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "X-Own": "kept", Cookie: "player=7" } });
    const { path, headers } = JSON.parse(await session.next());
    const url = new URL(base);
    assert.equal(path, url.pathname + "/info?room=a%20b&x=1");
    assert.equal(headers["x-forwarded-for"], "127.0.0.1");
    assert.equal(headers["x-forwarded-proto"], secure ? "https" : "http");
    assert.equal(headers["x-forwarded-host"], url.host);
    assert.equal(headers.host, url.host, "the upstream sees the name that was asked for");
    assert.equal(headers["x-own"], "kept");
    assert.equal(headers.cookie, "player=7");
    await session.close(1000);
  });

  await check("the upstream chooses the subprotocol", async () => {
    const session = await Session.open("/info", { protocols: ["chat.v2", "chat.v1"] });
    assert.equal(session.socket.protocol, "chat.v1");
    assert.equal(JSON.parse(await session.next()).protocol, "chat.v1");
    await session.close(1000);
    await assert.rejects(Session.open("/echo", { protocols: ["other"] }), /no subprotocol/);
  });

  await check("close codes and reasons of the upstream", async () => {
    for (const [code, reason] of [[1000, "bye"], [1001, ""], [1011, "broken"], [1012, "restart"], [3333, "registered"], [4001, "Ende 🌊"]]) {
      const id = fresh();
      const session = await Session.open(`/close?id=${id}&code=${code}&reason=${encodeURIComponent(reason)}`);
      session.socket.send("now");
      assert.deepEqual(await session.end(), { code, reason });
      assert.equal((await seen(id)).code, code);
    }
    const session = await Session.open("/close");
    session.socket.send("now");
    assert.equal((await session.end()).code, 1005);
  });

  await check("refusals of the upstream", async () => {
    for (const status of [401, 403]) {
      const { response, body } = await within(new Promise((resolve, reject) => {
        const socket = new WebSocket(`${base}/refuse?status=${status}`);
        socket.on("open", () => reject(new Error("opened")));
        socket.on("error", reject);
        socket.on("unexpected-response", async (_, response) => {
          let body = "";
          for await (const chunk of response) body += chunk;
          resolve({ response, body });
        });
      }), "a refusal");
      assert.equal(response.statusCode, status);
      assert.equal(body, "the upstream says no");
      assert.equal(response.headers["www-authenticate"], status === 401 ? 'Bearer realm="interop"' : undefined);
    }
  });

  await check("an upstream that vanishes is told with 1011", async () => {
    const session = await Session.open("/die");
    session.socket.send("now");
    assert.equal((await session.end()).code, 1011);
  });

  await check("a message cut off by the upstream is never completed", async () => {
    const session = await Session.open("/die?half=");
    session.socket.send("now");
    const { code } = await session.end();
    // What has begun to leave cannot be followed by a Close; what has not can.
    assert.ok(code === 1006 || code === 1011, `code ${code}`);
    assert.equal(session.messages.length, 0);
  });

  await check("pings of the upstream", async () => {
    const session = await Session.open("/ping");
    session.socket.send("from the upstream");
    assert.equal(await session.next(), "pong:from the upstream");
    assert.equal(session.pings.map(String).join(), "from the upstream");
    await session.close(1000);
  });

  await check("a client that vanishes", async () => {
    const id = fresh();
    const session = await Session.open("/echo?id=" + id);
    await session.round("before");
    session.socket.terminate();
    assert.equal((await seen(id)).code, 1001);
  });
}

console.log("done");
process.exit(verdict());
