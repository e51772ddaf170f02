// Runs a shared case in a page of the gateway. Its policy lets it load scripts from where it came from only, so the driver of the
// browser hands out the tests' modules under the gateway's own address; the library is the one that the gateway serves.
import { readFileSync } from "node:fs";
import { CALLS } from "./world.mjs";

const MODULES = ["page.mjs", "cases.mjs", "waiting.mjs", "assert.mjs"];

export async function runInPage(page, world, name) {
  page.on("Fetch.requestPaused", ({ requestId, request }) => {
    const module = new URL(request.url).pathname.slice("/tests/".length);
    const found = MODULES.includes(module);
    page.ask("Fetch.fulfillRequest", {
      requestId, responseCode: found ? 200 : 404, responseHeaders: [{ name: "content-type", value: "text/javascript" }],
      body: found ? readFileSync(new URL(module, import.meta.url)).toString("base64") : "",
    });
  });
  await page.ask("Fetch.enable", { patterns: [{ urlPattern: `${world.origin}/tests/*` }] });
  page.on("Runtime.bindingCalled", async ({ payload }) => {
    const { id, call, values } = JSON.parse(payload);
    let value, error;
    try {
      if (!CALLS.includes(call)) throw new Error(`a page may not ask for ${call}`);
      value = await world[call](...values);
    } catch (thrown) {
      error = String(thrown.message ?? thrown);
    }
    // The page may have been closed meanwhile.
    page.run(`answerOfWorld(${id}, ${JSON.stringify(value) ?? "undefined"}, ${JSON.stringify(error) ?? "undefined"})`).catch(() => {});
  });
  await page.ask("Runtime.addBinding", { name: "askWorld" });
  const given = { url: world.url, origin: world.origin, calls: CALLS };
  await page.run(`import("/tests/page.mjs").then(page => page.run(${JSON.stringify(name)}, ${JSON.stringify(given)}))`);
}
