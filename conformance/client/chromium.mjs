// Chromium without a window, driven by the DevTools protocol: pages that are clicked, typed into and looked at.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import WebSocket from "ws";

const LIMIT_MS = 20_000;
const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

export class Browser {
  #answers = new Map();
  #pages = new Map();
  #number = 0;

  static async launch(path, more = []) {
    const browser = new Browser();
    browser.profile = mkdtempSync(join(tmpdir(), "tidegate-chromium-"));
    browser.child = spawn(path, [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
      "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
      // All pages count as seen.
      "--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
      "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
      "--remote-debugging-port=0", "--user-data-dir=" + browser.profile, "--window-size=1280,900", ...more, "about:blank",
    ], { stdio: ["ignore", "ignore", "pipe"], detached: true });
    // Detached: its own process group, which ends with it.
    browser.kill = () => {
      try { process.kill(-browser.child.pid, "SIGKILL"); } catch { /* is gone */ }
      // Its processes may still be ending, and writing.
      rmSync(browser.profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
    };
    process.on("exit", browser.kill);
    browser.gone = new Promise(resolve => browser.child.on("exit", resolve));
    const address = await new Promise((resolve, reject) => {
      let log = "";
      browser.child.stderr.setEncoding("utf8").on("data", data => {
        log += data;
        const found = /DevTools listening on (ws:\S+)/.exec(log);
        if (found) resolve(found[1]);
      });
      browser.child.on("error", reject);
      browser.child.on("exit", code => reject(new Error(`Chromium ended with ${code}: ${log.slice(-300)}`)));
    });
    browser.connection = new WebSocket(address, { perMessageDeflate: false, maxPayload: 64 << 20 });
    await new Promise((resolve, reject) => { browser.connection.on("open", resolve); browser.connection.on("error", reject); });
    browser.connection.on("message", data => browser.#handle(JSON.parse(data)));
    return browser;
  }

  #handle(message) {
    if (!message.id) return this.#pages.get(message.sessionId)?.take(message);
    const { resolve, reject } = this.#answers.get(message.id);
    this.#answers.delete(message.id);
    if (message.error) reject(new Error(message.error.message)); else resolve(message.result);
  }

  ask(method, params = {}, sessionId = undefined) {
    const id = this.#number += 1;
    return new Promise((resolve, reject) => {
      this.#answers.set(id, { resolve, reject });
      this.connection.send(JSON.stringify({ id, method, params, sessionId }));
    });
  }

  /** A page in a window of its own, in a profile of its own. */
  async open(url, { width = 1280, height = 900 } = {}) {
    const { browserContextId } = await this.ask("Target.createBrowserContext", { disposeOnDetach: true });
    const { targetId } = await this.ask("Target.createTarget", { url: "about:blank", browserContextId, newWindow: true, width, height });
    const { sessionId } = await this.ask("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, targetId, sessionId);
    this.#pages.set(sessionId, page);
    for (const domain of ["Page", "Network", "Runtime", "Log"]) await page.ask(domain + ".enable");
    await page.go(url);
    return page;
  }

  async close() {
    process.off("exit", this.kill);
    await this.ask("Browser.close").catch(() => {});
    this.connection.terminate();
    await Promise.race([this.gone, pause(5000)]);
    this.kill();
  }
}

class Page {
  events = [];
  #listeners = new Map();

  constructor(browser, target, session) {
    this.browser = browser;
    this.target = target;
    this.session = session;
  }

  ask(method, params) { return this.browser.ask(method, params, this.session); }

  on(method, listener) { this.#listeners.set(method, listener); }

  take(event) {
    this.events.push(event);
    this.#listeners.get(event.method)?.(event.params);
  }

  async go(url) {
    const { errorText } = await this.ask("Page.navigate", { url });
    assert.equal(errorText, undefined, `${url}: ${errorText}`);
    // A navigation that changes the fragment alone loads nothing.
    await this.until("the page", `document.readyState === "complete"`);
  }

  async reload() {
    const before = await this.run("performance.timeOrigin");
    await this.ask("Page.reload");
    await this.until("the page again", `performance.timeOrigin !== ${before} && document.readyState === "complete"`);
  }

  async run(expression) {
    const { result, exceptionDetails } = await this.ask("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async until(what, expression) {
    const deadline = Date.now() + LIMIT_MS;
    for (;;) {
      // While a page is being replaced there is nothing to ask.
      const value = await this.run(expression).catch(error => { if (Date.now() > deadline) throw error; });
      if (value) return value;
      if (Date.now() > deadline) throw new Error(`no ${what}; the page shows: ${await this.run("document.body.innerText")}`);
      await pause(20);
    }
  }

  /** A click where the element is, as a mouse does it. */
  async click(selector) {
    const { x, y, over } = await this.run(`(() => {
      const element = document.querySelector(${JSON.stringify(selector)});
      element.scrollIntoView({ block: "center", behavior: "instant" });
      const box = element.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
      return { x, y, over: element.contains(document.elementFromPoint(x, y)) && !element.disabled };
    })()`);
    assert.ok(over, `${selector} cannot be clicked`);
    for (const type of ["mousePressed", "mouseReleased"]) await this.ask("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
  }

  /** Takes the place of what stands in a field. */
  async type(selector, text) {
    await this.click(selector);
    await this.run(`document.querySelector(${JSON.stringify(selector)}).select()`);
    await this.ask("Input.insertText", { text });
  }

  async choose(selector, value) {
    await this.run(`(() => {
      const field = document.querySelector(${JSON.stringify(selector)});
      field.value = ${JSON.stringify(value)};
      field.dispatchEvent(new Event("change", { bubbles: true }));
    })()`);
  }

  async enter() {
    for (const type of ["keyDown", "keyUp"]) await this.ask("Input.dispatchKeyEvent", { type, key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: type === "keyDown" ? "\r" : undefined });
  }

  text(selector) { return this.run(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? null`); }
  texts(selector) { return this.run(`Array.from(document.querySelectorAll(${JSON.stringify(selector)}), each => each.innerText)`); }

  /** The page as it looks; what is wider than the window is an error. */
  async picture(file, { width, height, scheme }) {
    await this.ask("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 });
    await this.ask("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    await this.run("scrollTo(0, 0), new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))");
    const { wide, background } = await this.run(`({ wide: document.documentElement.scrollWidth, background: getComputedStyle(document.body).backgroundColor })`);
    assert.ok(wide <= width, `the page is ${wide} wide in a window of ${width}`);
    if (file) {
      const { data } = await this.ask("Page.captureScreenshot", { format: "png" });
      writeFileSync(file, Buffer.from(data, "base64"));
    }
    return background;
  }

  /** What the browser complained about: exceptions, violations of the policy, errors that are not of the network. */
  complaints() {
    return [
      ...this.#of("Runtime.exceptionThrown").map(({ exceptionDetails }) => exceptionDetails.exception?.description ?? exceptionDetails.text),
      ...this.#of("Runtime.consoleAPICalled").map(({ args }) => args.map(each => each.value ?? each.description).join(" ")),
      ...this.#of("Log.entryAdded").filter(({ entry }) => entry.source !== "network" && !/^WebSocket connection to /.test(entry.text)).map(({ entry }) => entry.text),
    ];
  }

  /** What was loaded from anywhere but the gateway. */
  strangers(origin) {
    return this.#of("Network.requestWillBeSent").map(({ request }) => request.url).filter(url => !url.startsWith(origin + "/") && !/^(data|about):/.test(url));
  }

  #of(method) { return this.events.filter(event => event.method === method).map(event => event.params); }

  close() { return this.browser.ask("Target.closeTarget", { targetId: this.target }); }
}
