// What a look at the pages' text can tell; the rest is seen in a browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { PAGES, page, withPolicy } from "./policy.mjs";

for (const name of PAGES) {
  test(`${name}: its policy names its style and its script`, () => {
    const text = page(name);
    assert.ok(text === withPolicy(text), "the page has changed: node conformance/client/policy.mjs writes the hashes");
    assert.match(text, /Content-Security-Policy" content="default-src 'none';/);
    assert.equal(text.split("<style>").length, 2);
    assert.equal(text.split("<script").length, 2);
    assert.doesNotMatch(text, / style="| on[a-z]+="/, "neither is covered by the hashes");
  });

  test(`${name}: nothing is loaded from elsewhere, and nothing that came is read as HTML`, () => {
    const text = page(name);
    for (const word of [/src="/, /@import/, /url\(/, /https:\/\//, /innerHTML/, /outerHTML/, /insertAdjacentHTML/, /document\.write/, /eval\(/]) assert.doesNotMatch(text, word);
    for (const [, link] of text.matchAll(/href="([^"]*)"/g)) assert.match(link, /^(data:|\.\/$|[a-z]+\.(html|js)$)/);
    for (const [, source] of text.matchAll(/from "([^"]*)"/g)) assert.equal(source, "./tidegate.js");
  });

  test(`${name}: the other pages are linked, and each field has a label`, () => {
    const text = page(name);
    for (const [other, link] of [["index.html", "./"], ["chat.html"], ["websocket.html"], ["broadcast.html"]].map(([one, link]) => [one, link ?? one])) {
      assert.ok(text.includes(`<a href="${link}"${other === name ? ' aria-current="page"' : ""}>`), `no link to ${other}`);
    }
    for (const [, id] of text.matchAll(/<(?:input|textarea|select) id="(\w+)"/g)) assert.ok(text.includes(`<label for="${id}"`) || text.includes(`<label class="sr" for="${id}"`), `no label for ${id}`);
    assert.match(text, /<html lang="en">/);
  });
}
