// One case after the other: prints "ok NAME" or "FAIL NAME -- why" for each.
let failed = 0;

export async function check(name, body) {
  try {
    await body();
    console.log("ok " + name);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name} -- ${String(error.message ?? error).replace(/\s+/g, " ").slice(0, 400)}`);
  }
}

// The exit code of all of them.
export const verdict = () => failed ? 1 : 0;
