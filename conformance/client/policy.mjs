// The pages' Content-Security-Policy names each page's own style and script by their hashes: `node policy.mjs` writes them, after a change.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

export const PAGES = ["index.html", "chat.html", "websocket.html", "broadcast.html"];
const ASSETS = new URL("../../crates/shard/assets/", import.meta.url);

export const page = name => readFileSync(new URL(name, ASSETS), "utf8");

/** The page with the policy that fits it. */
export function withPolicy(text) {
  const hash = (open, close) => {
    const from = text.indexOf(open) + open.length;
    return "sha256-" + createHash("sha256").update(text.slice(from, text.indexOf(close, from))).digest("base64");
  };
  const script = text.includes('<script type="module">') ? '<script type="module">' : "<script>";
  return text
    .replace(/(style-src )'sha256-[^']*'/, `$1'${hash("<style>", "</style>")}'`)
    .replace(/(script-src (?:'self' )?)'sha256-[^']*'/, `$1'${hash(script, "</script>")}'`);
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  for (const name of PAGES) writeFileSync(new URL(name, ASSETS), withPolicy(page(name)));
}
