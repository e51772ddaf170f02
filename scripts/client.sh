#!/bin/bash
# client.sh [BIN] - the client library and the pages: under Node, and in Chromium.
#
# The library's tests run against a gateway that fails on purpose. What is live (the library through cuts and restarts, the
# pages in a browser) runs against BIN, a tidegate, where it is given; else against that same gateway of the tests. The live
# cases of the library are the same ones under Node and in Chromium; one that ran on one side only is a failure.
# Node's ws, and TypeScript, which checks the library's types, come from npm, pinned, into conformance/client/node_modules. Without
# Node nothing is run, without Chromium no page: a line says so, and that is a failure, as nobody has looked. Pictures of the
# pages: .cache/client/pictures. At last "N passed, N failed"; exit code 1 if one failed, or something could not be run.
set -euo pipefail

say() { echo "client: $*" >&2; }

[ $# -le 1 ] || { echo "usage: $0 [BIN]" >&2; exit 2; }
BIN=
[ $# -eq 0 ] || BIN=$(realpath "$1")
[ -z "$BIN" ] || [ -x "$BIN" ] || { echo "no program: $BIN" >&2; exit 2; }
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HERE=$ROOT/conformance/client
WORK=$ROOT/.cache/client

if ! { command -v node && command -v npm; } >/dev/null; then
  echo "SKIPPED  the client library and the pages: there is no Node"
  exit 1
fi
mkdir -p "$WORK"

pins=$({ cat "$HERE/package.json" "$HERE/package-lock.json"; node --version; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$WORK/.installed" 2>/dev/null)" != "$pins" ] || [ ! -d "$HERE/node_modules/ws" ] || [ ! -d "$HERE/node_modules/typescript" ] || [ ! -e "$HERE/node_modules/tidegate" ]; then
  say "installing ws and TypeScript"
  (cd "$HERE" && npm ci --no-audit --no-fund --ignore-scripts) >"$WORK/npm.log" 2>&1 || { tail -n 20 "$WORK/npm.log" >&2; say "npm ci failed"; exit 1; }
  echo "$pins" >"$WORK/.installed"
fi

# Neither a proxy nor another configuration of the gateway may get in between.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
for name in $(compgen -e TIDEGATE_ || true); do unset "$name"; done
[ -z "$BIN" ] || export TIDEGATE_BIN="$BIN"

passed=0 failed=0 skipped=0
count() { # count LOG WHAT...: adds up what a run's last lines say; a run that says nothing has failed
  local log=$1 good bad
  shift
  good=$(sed -nE "s/^# pass ([0-9]+)$|^([0-9]+) passed, [0-9]+ failed$/\1\2/p" "$log" | tail -n 1)
  bad=$(sed -nE "s/^# fail ([0-9]+)$|^[0-9]+ passed, ([0-9]+) failed$/\1\2/p" "$log" | tail -n 1)
  [ -n "$good" ] && [ -n "$bad" ] || { tail -n 20 "$log" >&2; say "$* did not come to an end"; good=${good:-0} bad=1; }
  passed=$((passed + good)) failed=$((failed + bad))
}

say "the library, under Node $(node --version)"
timeout --kill-after=10 300 node --test --test-reporter=tap --test-timeout=120000 "$HERE"/*.test.mjs >"$WORK/node.log" 2>&1 || true
grep -E '^ *not ok' -A 12 "$WORK/node.log" || true
count "$WORK/node.log" "the library's tests"

if chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome); then
  say "the pages, in Chromium"
  rm -rf "$WORK/pictures"
  timeout --kill-after=10 480 node "$HERE/browser.mjs" "$chromium" "$WORK/pictures" 2>&1 | tee "$WORK/browser.log" | grep -v ' passed, ' || true
  count "$WORK/browser.log" "the pages' tests"

  # By their names, as both have printed them.
  gateway=${BIN:+tidegate} gateway=${gateway:-the fake gateway}
  sed -nE "s/^ *(not )?ok [0-9]+ - $gateway: //p" "$WORK/node.log" | sort >"$WORK/live.node"
  sed -nE -e "s/^ok $gateway: (.*) \([0-9.]+ s\)$/\1/p" -e "s/^FAIL $gateway: (.*) -- .*/\1/p" "$WORK/browser.log" | sort >"$WORK/live.chromium"
  if [ -s "$WORK/live.node" ] && missing=$(diff "$WORK/live.node" "$WORK/live.chromium"); then
    passed=$((passed + 1))
  else
    echo "FAIL the live cases are not the same under Node (<) and in Chromium (>): ${missing:-there are none}"
    failed=$((failed + 1))
  fi
else
  echo "SKIPPED  the pages, 13 cases, and the live cases in one of them: there is no Chromium"
  skipped=1
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$skipped" = 0 ] && [ "$passed" != 0 ]
