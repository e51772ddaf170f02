// A TCP proxy in front of a gateway: it cuts, refuses, keeps answers to itself, and blocks WebSockets or streams as middleboxes do.
import { connect, createServer } from "node:net";

/** Finds the Close among the frames of a client (RFC 6455 §5.2): they are masked, and control frames are never compressed. */
class ClientFrames {
  #rest = Buffer.alloc(0);

  /** @returns {{code: number, reason: string}[]} the Closes that came to their end with this */
  read(data) {
    const closes = [];
    let rest = this.#rest = Buffer.concat([this.#rest, data]);
    for (;;) {
      const short = rest[1] & 0x7f, at = { 126: 4, 127: 10 }[short] ?? 2;
      if (rest.length < at) return closes;
      const length = at === 10 ? Number(rest.readBigUInt64BE(2)) : at === 4 ? rest.readUInt16BE(2) : short;
      const end = at + 4 + length;
      if (rest.length < end) return closes;
      if ((rest[0] & 0x0f) === 8 && length >= 2) {
        const payload = rest.subarray(at + 4, end).map((byte, index) => byte ^ rest[at + index % 4]);
        closes.push({ code: payload.readUInt16BE(0), reason: payload.toString("utf8", 2) });
      }
      rest = this.#rest = rest.subarray(end);
    }
  }
}

export class Door {
  /** The gateway's port; it may change. */
  target = 0;
  shut = false;
  /** What the gateway says does not come out. */
  mute = false;
  blocked = { websocket: false, events: false };
  /** With what clients ended their WebSockets. */
  closes = [];
  #sockets = new Set();

  async start() {
    this.server = createServer(socket => this.#enter(socket));
    await new Promise(resolve => this.server.listen(0, "127.0.0.1", resolve));
    this.port = this.server.address().port;
  }

  open() { Object.assign(this, { shut: false, mute: false, blocked: { websocket: false, events: false } }); }

  #enter(socket) {
    socket.on("error", () => {});
    if (this.shut) return socket.destroy();
    const inner = connect(this.target, "127.0.0.1");
    for (const one of [socket, inner]) {
      this.#sockets.add(one);
      one.on("error", () => {});
      one.on("close", () => { this.#sockets.delete(one); socket.destroy(); inner.destroy(); });
    }
    let frames = null;
    socket.on("data", data => {
      if (frames) {
        this.closes.push(...frames.read(data));
      } else {
        // A head comes in one piece here: it is small and the network is the loopback.
        const head = data.toString("latin1", 0, 8192);
        if (/^GET [^]*\r\nupgrade: *websocket/i.test(head)) {
          if (this.blocked.websocket) return socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
          frames = new ClientFrames();
        }
        if (this.blocked.events && /^GET \/events/.test(head)) return socket.destroy();
      }
      if (!inner.destroyed) inner.write(data);
    });
    socket.on("end", () => inner.end());
    inner.on("data", data => { if (!this.mute) socket.write(data); });
    inner.on("end", () => socket.end());
  }

  /** All connections break. */
  cut() { for (const socket of this.#sockets) socket.resetAndDestroy(); }

  async stop() {
    this.cut();
    await new Promise(resolve => this.server.close(resolve));
  }
}
