#!/usr/bin/env bash
# Installs what the tests need (into .cache of this checkout; a few Debian packages where they are missing) and runs
# them. Needs: Linux, Rust, a C compiler; on Debian the rest is installed. About 40 minutes on two cores, an hour the first time.
#
#   scripts/test.sh            all of it
#   scripts/test.sh STEP...    only these:
#     style      formatting, lints, documentation
#     tests      unit and property tests, bad inputs and the proxy against the release build on both backends
#     simulator  whole shards on a simulated kernel: 2,000 seeds; topics on several of them: 1,000; several hubs: 500; and planted bugs that they must
#                find, as must the checker of deliveries over real sockets, in a gateway built with them
#     neon       the vector code of 64-bit ARM, in an emulator
#     instructions  what the hot paths cost in instructions, counted by valgrind: at most a tenth more than
#                benches/benches/instructions.rs says (on x86-64 with AVX2, which the counts are of)
#     packaging  the systemd unit, the alerts and that they fire, the container image (where docker can build one)
#     deny       licences, sources and duplicates of the dependencies
#     fuzz       seven targets, 10 seconds each
#     interop    Node's ws, Python's websockets, Chromium, openssl, over TLS and without; io_uring forbidden by a seccomp filter
#     client     the client library under Node and the pages in Chromium, with the gateway through cuts and restarts
#     autobahn   517 cases on io_uring, all but those of compression on epoll, over TLS, through the proxy, as a client
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
    # shellcheck disable=SC2206 # one command may come with several packages
    command -v "${pair%%=*}" >/dev/null || missing+=(${pair#*=})
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
  cargo clippy -p tidegate-hub --all-targets --features planted-bugs --quiet -- -D warnings
  cargo clippy -p tidegate --all-targets --features planted-bugs --quiet -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
  echo "1 passed, 0 failed"
}

tests() {
  packages python3=python3 promtool=prometheus
  # What starts the binary starts the one that users run.
  release
  TIDEGATE_BIN=$BIN cargo test --workspace --no-fail-fast
  TIDEGATE_BIN=$BIN cargo test -p tidegate-loadtest --test runs --test protocol -- --ignored
  # Both ends of 10,000 sessions have their descriptors in one process each.
  local most
  most=$(ulimit -Hn)
  if [ "$most" != unlimited ] && [ "$most" -lt 12000 ]; then
    echo "TERM with 10,000 sessions: SKIPPED, as a process may have $most descriptors at most"
  else
    TIDEGATE_BIN=$BIN cargo test -p tidegate --test reload -- --ignored --test-threads 1
  fi
}

simulator() {
  TIDEGATE_SEEDS=${TIDEGATE_SEEDS:-2000} TIDEGATE_TOPIC_SEEDS=${TIDEGATE_TOPIC_SEEDS:-1000} \
    cargo test --no-fail-fast --profile simulator -p tidegate-shard --features planted-bugs,record-transport --test sim --test topics --test answers --test planted --test simulator
  TIDEGATE_SEEDS=${TIDEGATE_SEEDS:-500} cargo test --profile simulator -p tidegate-hub --features planted-bugs --test model --test planted
  # Its broken gateway is this profile's alone: what other steps start is another program.
  cargo test --profile simulator -p tidegate --features planted-bugs --test delivery -- planted::
}

fuzz() {
  tool cargo-fuzz 0.13.2
  scripts/fuzz.sh 10
}

neon() {
  local target=aarch64-unknown-linux-gnu
  if [ "$(uname -m)" = aarch64 ]; then
    cargo test --profile quick -p tidegate-simd
    return
  fi
  if ! command -v rustup >/dev/null || ! rustup target add "$target"; then
    echo "neon: SKIPPED, as there is no rustup to install $target"
    return
  fi
  packages qemu-aarch64=qemu-user aarch64-linux-gnu-gcc="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
    cargo test --profile quick -p tidegate-simd --target "$target" --lib
  CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc cargo check --quiet -p tidegate --target "$target"
}

instructions() {
  if [ "$(uname -m)" != x86_64 ] || ! grep -qw avx2 /proc/cpuinfo; then
    echo "instructions: SKIPPED, as the expected counts are those of x86-64 with AVX2"
    return
  fi
  packages valgrind=valgrind
  # The same version as in Cargo.toml; another one refuses.
  tool gungraun-runner 0.20.0
  local counted now
  counted=$(grep -om1 'rustc [0-9.]*[0-9]' benches/benches/instructions.rs)
  now=$(rustc --version | grep -o '^rustc [0-9.]*[0-9]')
  cargo bench --quiet --profile quick -p tidegate-benches --bench instructions || {
    echo "instructions: a hot path takes more than a tenth more instructions than benches/benches/instructions.rs says" >&2
    if [ "$counted" != "$now" ]; then
      echo "instructions: but the counts were made with $counted, and this is $now: its code may differ" >&2
    fi
    return 1
  }
  echo "1 passed, 0 failed"
}

packaging() {
  packages promtool=prometheus
  promtool check rules packaging/prometheus/alerts.yml
  promtool test rules packaging/prometheus/alerts.test.yml
  # The files that it names are not here.
  promtool check config --syntax-only packaging/prometheus/prometheus.yml
  if command -v systemd-analyze >/dev/null; then
    release
    local unit
    unit=$(mktemp -d)
    # What the unit names is not installed here.
    sed -e "s|/usr/bin/tidegate|$BIN|" -e '/^Documentation=man:/d' packaging/systemd/tidegate.service >"$unit/tidegate.service"
    systemd-analyze verify "$unit/tidegate.service"
    rm -r "$unit"
  else
    echo "the systemd unit: SKIPPED, as there is no systemd-analyze"
  fi
  if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
    docker build --quiet -f packaging/docker/Dockerfile -t tidegate-packaging-test .
    docker image rm tidegate-packaging-test >/dev/null
  else
    echo "the container image: SKIPPED, as there is no docker that could build it"
  fi
  echo "1 passed, 0 failed"
}

deny() {
  tool cargo-deny 0.20.2
  cargo deny --log-level error check bans licenses sources
}

interop() {
  packages node=nodejs npm=npm python3=python3 chromium=chromium openssl=openssl
  release
  scripts/interop.sh "$BIN"
}

client() {
  packages node=nodejs npm=npm chromium=chromium
  release
  scripts/client.sh "$BIN"
}

autobahn() {
  packages python3=python3 cc=gcc openssl=openssl
  release
  scripts/autobahn-setup.sh .cache/autobahn
  python3 scripts/autobahn.py --quick --bin "$BIN" --client-bin "$CLIENT" --wstest .cache/autobahn/wstest
}

STEPS=(style tests simulator neon instructions packaging deny fuzz interop client autobahn)
ALL=" ${STEPS[*]} "
if [ $# -gt 0 ]; then STEPS=("$@"); fi
for step in "${STEPS[@]}"; do
  case "$ALL" in *" $step "*) ;; *) echo "no such step: $step" >&2; exit 2 ;; esac
done
for step in "${STEPS[@]}"; do
  say "$step"
  "$step"
done
say "all of it: ${STEPS[*]}"
echo "${#STEPS[@]} passed, 0 failed"
