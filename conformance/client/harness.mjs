// What the tests of the library under Node share: a clock that stands still until it is told, a page, an EventSource, and waiting.
import WebSocket from "ws";
import { connect } from "../../crates/shard/assets/tidegate.js";
import { turn } from "./waiting.mjs";

export * from "./waiting.mjs";

export class Clock {
  ms = 1_000_000;
  timers = [];
  dice = 0.5;
  #number = 0;

  now = () => this.ms;
  random = () => this.dice;
  setTimeout = (run, ms) => {
    const timer = { at: this.ms + ms, number: this.#number += 1, run };
    this.timers.push(timer);
    return timer;
  };
  clearTimeout = timer => { this.timers = this.timers.filter(other => other !== timer); };

  /** Lets time pass: timers run at their time, in order. */
  async advance(ms) {
    const end = this.ms + ms;
    for (;;) {
      const due = this.timers.filter(timer => timer.at <= end).sort((one, other) => one.at - other.at || one.number - other.number)[0];
      if (!due) break;
      this.clearTimeout(due);
      this.ms = Math.max(this.ms, due.at);
      due.run();
      await turn();
    }
    this.ms = end;
    await turn();
  }

  /** The clock jumps, as in a page that slept: all timers run late, at once. */
  async jump(ms) {
    this.ms += ms;
    const due = this.timers.filter(timer => timer.at <= this.ms);
    for (const timer of due) { this.clearTimeout(timer); timer.run(); }
    await turn();
  }

  /** In how many milliseconds the next timer runs, of those that wait at least so long. */
  next(least = 0) { return Math.min(...this.timers.map(timer => timer.at - this.ms).filter(ms => ms >= least)); }
}

export function page() {
  const document = new EventTarget(), window = new EventTarget();
  document.hidden = false;
  const navigator = { onLine: true };
  const tell = (target, type) => target.dispatchEvent(new Event(type));
  return {
    document, window, navigator,
    hide(hidden) { document.hidden = hidden; tell(document, "visibilitychange"); },
    network(up) { navigator.onLine = up; tell(window, up ? "online" : "offline"); },
  };
}

/** As much of the standard's EventSource as is used; it does not reconnect, as the library never lets it. */
export class EventSource extends EventTarget {
  #stop = new AbortController();
  onerror = null;

  constructor(url) {
    super();
    this.#run(url).catch(() => { if (!this.#stop.signal.aborted) this.onerror?.(new Event("error")); });
  }

  async #run(url) {
    const response = await fetch(url, { headers: { accept: "text/event-stream" }, signal: this.#stop.signal });
    if (!response.ok) throw new Error(String(response.status));
    let rest = "";
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      rest += chunk;
      for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) this.#dispatch(rest.slice(0, end));
    }
    throw new Error("the stream ended");
  }

  #dispatch(block) {
    let type = "message", data = "", lastEventId = "";
    for (const line of block.split("\n")) {
      const [name, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()];
      if (name === "event") type = value;
      if (name === "data") data = value;
      if (name === "id") lastEventId = value;
    }
    if (data && !this.#stop.signal.aborted) this.dispatchEvent(Object.assign(new Event(type), { data, lastEventId }));
  }

  close() { this.#stop.abort(); }
}

/** A client in a world of its own; it ends with the test. */
export function open(t, gateway, { clock = new Clock(), page: seen = null, ...options } = {}) {
  const client = connect(gateway.url, {
    WebSocket, EventSource, binaryType: "arraybuffer",
    environment: { now: clock.now, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout, random: clock.random, page: seen },
    ...options,
  });
  t.after(() => client.close());
  return { client, clock };
}
