// A gateway behind a door: a real one or the fake, restarted at will.
import { spawn } from "node:child_process";
import { Door } from "./door.mjs";
import { FakeGateway } from "./fake.mjs";

const START_MS = 20_000;

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

  /** It says to everybody that it ends, and ends. */
  async end() {
    this.child.kill("SIGTERM");
    await this.gone;
    process.off("exit", this.kill);
  }
}

/** What can be done to the gateway and on the way there. A page asks for the same, by messages: see `CALLS`. */
export class World {
  door = new Door();
  #binary;

  /** @param {string} [binary] a tidegate; without one it is the fake */
  constructor(binary) { this.#binary = binary; }

  async start() {
    await this.door.start();
    await this.#open();
    return this;
  }

  async #open() {
    this.gateway = this.#binary ? new Binary(this.#binary) : new FakeGateway();
    await this.gateway.start();
    this.door.target = this.gateway.port;
  }

  get name() { return this.#binary ? "tidegate" : "the fake gateway"; }
  get origin() { return `http://127.0.0.1:${this.door.port}`; }
  get url() { return `ws://127.0.0.1:${this.door.port}/topics`; }

  /** Nobody comes in any more; who is in stays. */
  shut(shut) { this.door.shut = shut; }
  /** What the gateway says is lost. */
  mute(mute) { this.door.mute = mute; }
  block(websocket, events) { this.door.blocked = { websocket, events }; }
  cut() { this.door.cut(); }
  /** With what clients ended their WebSockets so far. */
  closes() { return this.door.closes; }

  /**
   * Killed, or told to end, and started again; meanwhile nobody answers. `entries` are published before the door opens: they
   * are what is there for whoever comes back.
   */
  async restart(entries = [], gently = false) {
    this.door.shut = true;
    await (gently ? this.gateway.end() : this.gateway.stop());
    this.door.cut();
    await this.#open();
    if (entries.length) await this.publishAll(entries);
    this.door.shut = false;
  }

  /** Publishes past the door: it may be shut. */
  publish(topic, ...all) { return this.publishAll(all.map(data => ({ topic, data }))); }

  /** The same for entries of several topics, or with keys. */
  async publishAll(entries) {
    const response = await fetch(`http://127.0.0.1:${this.gateway.port}/publish`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(entries),
    });
    if (response.status !== 200) throw new Error(`publish: ${response.status} ${await response.text()}`);
    return (await response.json()).results;
  }

  /** The offset of a topic's last message, past the door. */
  async offset(topic) {
    const response = await fetch(`http://127.0.0.1:${this.gateway.port}/topics/${topic}`);
    return (await response.json()).offset;
  }

  async stop() {
    await this.door.stop();
    await this.gateway.stop();
  }
}

/** What the shared cases may ask of a world; all of it may be answered later. */
export const CALLS = ["shut", "mute", "block", "cut", "closes", "restart", "publish", "publishAll", "offset"];
