#!/usr/bin/env bash
# Installs what the tests need (into .cache of this checkout; a few Debian packages where they are missing) and runs
# them: style, unit and property tests, the simulator, bad inputs on both backends, fuzzing; by name also Autobahn and
# clients and upstreams of other make. Needs: Linux, Rust, a C compiler; on Debian the rest is installed.
#
#   scripts/test.sh            style tests deny fuzz
#   scripts/test.sh STEP...    those, and: simulator (2,000 seeds, planted bugs) interop autobahn
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
TOOLS=$PWD/.cache/bin
export PATH=$TOOLS:$PATH
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
BIN=$TARGET/release/tidegate
CLIENT=$TARGET/release/examples/autobahn_client

say() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }

# packages COMMAND=PACKAGE...: installs Debian's packages for the commands that are missing.
packages() {
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null || { echo "please install: ${missing[*]}" >&2; exit 1; }
  local sudo=
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  $sudo apt-get update -q
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# tool NAME VERSION: a cargo subcommand, built once into .cache/bin.
tool() {
  command -v "$1" >/dev/null || cargo install --locked --quiet --root "$PWD/.cache" "$1@$2"
}

release() {
  cargo build --release --quiet -p tidegate
  cargo build --release --quiet -p tidegate-shard --example autobahn_client
}

style() {
  cargo fmt --all --check
  cargo clippy --workspace --all-targets --quiet -- -D warnings
  cargo clippy -p tidegate-shard --all-targets --features planted-bugs,record-transport --quiet -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
  echo "1 passed, 0 failed"
}

tests() {
  packages python3=python3
  # What starts the binary starts the one that users run.
  release
  TIDEGATE_BIN=$BIN cargo test --workspace --no-fail-fast
}

simulator() {
  cargo test --profile quick -p tidegate-shard --features planted-bugs,record-transport --test sim --test planted --test simulator
}

fuzz() {
  if ! rustup run nightly rustc --version >/dev/null 2>&1; then
    echo "no nightly toolchain: the fuzz targets are left out (rustup toolchain install nightly)"
    return
  fi
  tool cargo-fuzz 0.13.2
  scripts/fuzz.sh 10
}

deny() {
  tool cargo-deny 0.20.2
  cargo deny --log-level error check bans licenses sources
}

interop() {
  packages node=nodejs npm=npm python3=python3 chromium=chromium
  release
  scripts/interop.sh "$BIN"
}

autobahn() {
  packages python3=python3 cc=gcc
  release
  scripts/autobahn-setup.sh .cache/autobahn
  python3 scripts/autobahn.py --quick --bin "$BIN" --client-bin "$CLIENT" --wstest .cache/autobahn/wstest
}

STEPS=(style tests deny fuzz)
if [ $# -gt 0 ]; then STEPS=("$@"); fi
for step in "${STEPS[@]}"; do
  case " style tests simulator deny fuzz interop autobahn " in *" $step "*) ;; *) echo "no such step: $step" >&2; exit 2 ;; esac
done
for step in "${STEPS[@]}"; do
  say "$step"
  "$step"
done
say "all of it: ${STEPS[*]}"
echo "${#STEPS[@]} passed, 0 failed"
