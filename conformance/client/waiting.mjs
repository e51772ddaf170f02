// Waiting for what has to happen, for tests under Node and in a page alike.

/** A failing test ends after this; nothing that passes waits for it. */
const LIMIT_MS = 10_000;

// A page has no setImmediate.
export const turn = () => new Promise(resolve => (globalThis.setImmediate ?? setTimeout)(resolve));

export async function until(what, probe, limitMs = LIMIT_MS) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`this did not happen: ${what}`);
    await turn();
  }
}

/** The next event of a kind, or the next one that fits. */
export function next(target, type, fits = () => true) {
  return new Promise((resolve, reject) => {
    const guard = setTimeout(() => reject(new Error(`no ${type}`)), LIMIT_MS);
    const listener = event => {
      if (!fits(event)) return;
      clearTimeout(guard);
      target.removeEventListener(type, listener);
      resolve(event);
    };
    target.addEventListener(type, listener);
  });
}

/** The events of these kinds, from now on. */
export function record(target, ...types) {
  const events = [];
  for (const type of types) target.addEventListener(type, event => events.push(event));
  return events;
}

export const stateOf = (client, state) => client.state === state ? Promise.resolve() : next(client, "state", event => event.state === state);

/** What a promise is rejected with has to have this code. */
export async function refused(promise, code) {
  const error = await promise.then(value => { throw new Error(`this was not refused, but gave ${JSON.stringify(value)}`); }, error => error);
  if (error.code !== code) throw new Error(`refused with ${error.code} instead of ${code}: ${error}`);
  return error;
}
