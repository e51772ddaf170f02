// A gateway behind a door: the real one (TIDEGATE_BIN) or the fake, restarted at will; the door cuts, refuses, and blocks
// WebSockets or streams as middleboxes do.
import { spawn } from "node:child_process";
import { connect, createServer } from "node:net";
import { FakeGateway } from "./fake.mjs";

const START_MS = 20_000;

/** A TCP proxy in front of a port that may change. */
class Door {
  target = 0;
  shut = false;
  blocked = { websocket: false, events: false };
  #sockets = new Set();

  async start() {
    this.server = createServer(socket => this.#enter(socket));
    await new Promise(resolve => this.server.listen(0, "127.0.0.1", resolve));
    this.port = this.server.address().port;
  }

  #enter(socket) {
    socket.on("error", () => {});
    if (this.shut) return socket.destroy();
    const inner = connect(this.target, "127.0.0.1");
    for (const one of [socket, inner]) {
      this.#sockets.add(one);
      one.on("error", () => {});
      one.on("close", () => { this.#sockets.delete(one); socket.destroy(); inner.destroy(); });
    }
    socket.on("data", data => {
      // A head comes in one piece here: it is small and the network is the loopback.
      const head = data.toString("latin1", 0, 8192);
      if (this.blocked.websocket && /^GET [^]*\r\nupgrade: *websocket/i.test(head)) return socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      if (this.blocked.events && /^GET \/events/.test(head)) return socket.destroy();
      if (!inner.destroyed) inner.write(data);
    });
    socket.on("end", () => inner.end());
    inner.on("data", data => socket.write(data));
    inner.on("end", () => socket.end());
  }

  /** All connections break. */
  cut() { for (const socket of this.#sockets) socket.resetAndDestroy(); }

  async stop() {
    this.cut();
    await new Promise(resolve => this.server.close(resolve));
  }
}

/** The program, with its arguments; by itself on a port of the loopback. */
export class Binary {
  constructor(path, args = ["--bind", "127.0.0.1:0"]) { Object.assign(this, { path, args }); }

  async start() {
    const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("TIDEGATE_")));
    this.child = spawn(this.path, this.args, { stdio: ["ignore", "pipe", "pipe"], env: environment });
    this.kill = () => this.child.kill("SIGKILL");
    process.on("exit", this.kill);
    this.gone = new Promise(resolve => this.child.on("exit", resolve));
    let log = "";
    this.port = await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no listener: ${log.slice(-400)}`)), START_MS);
      const hear = data => {
        log += data;
        const found = /listening on ws:\/\/127\.0\.0\.1:(\d+)/.exec(log);
        if (!found) return;
        clearTimeout(late);
        resolve(Number(found[1]));
      };
      this.child.stdout.setEncoding("utf8").on("data", hear);
      this.child.stderr.setEncoding("utf8").on("data", hear);
      this.child.on("error", reject);
      this.child.on("exit", code => { clearTimeout(late); reject(new Error(`ended with ${code}: ${log.slice(-400)}`)); });
    });
  }

  async stop() {
    process.off("exit", this.kill);
    this.kill();
    await this.gone;
  }
}

export class World {
  door = new Door();

  async start() {
    await this.door.start();
    await this.#open();
    return this;
  }

  async #open() {
    this.gateway = process.env.TIDEGATE_BIN ? new Binary(process.env.TIDEGATE_BIN) : new FakeGateway();
    await this.gateway.start();
    this.door.target = this.gateway.port;
  }

  get name() { return process.env.TIDEGATE_BIN ? "tidegate" : "the fake gateway"; }
  get origin() { return `http://127.0.0.1:${this.door.port}`; }
  get url() { return `ws://127.0.0.1:${this.door.port}/topics`; }

  cut() { this.door.cut(); }

  /** Killed and started again; meanwhile nobody answers. */
  async restart() {
    this.door.shut = true;
    await this.gateway.stop();
    this.door.cut();
    await this.#open();
    this.door.shut = false;
  }

  /** Publishes past the door: it may be shut. */
  async publish(topic, ...all) {
    const response = await fetch(`http://127.0.0.1:${this.gateway.port}/publish`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(all.map(data => ({ topic, data }))),
    });
    if (response.status !== 200) throw new Error(`publish: ${response.status} ${await response.text()}`);
    return (await response.json()).results;
  }

  async stop() {
    await this.door.stop();
    await this.gateway.stop();
  }
}
