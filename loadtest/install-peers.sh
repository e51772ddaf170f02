#!/bin/bash
# install-peers.sh [--no-build] - what the suites in loadtest/suites compare.
#
# bun and ws from npm (pinned in loadtest/peers, into .cache/peers); a certificate of a new key for the suite over TLS; nginx, HAProxy and nchan from Debian, where they are
# missing and this user may install packages; Tidegate, its load test and the small servers of this repository, built for
# release (not with --no-build). What could not be had is named at the end: the suites skip it. Can be run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
HERE=$PWD/loadtest/peers
PEERS=$PWD/.cache/peers
SKIPPED=()

say() { echo "install-peers: $*"; }

case "${1:-}" in
  '' | --no-build) ;;
  *) echo "usage: $0 [--no-build]" >&2; exit 2 ;;
esac
mkdir -p "$PEERS"

# Debian's packages. $1: the command or file that shows that it is there, $2: the package.
missing=()
have() { case "$1" in /*) [ -e "$1" ] ;; *) command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] ;; esac; }
NCHAN=/usr/lib/nginx/modules/ngx_nchan_module.so
packages=(nginx=nginx haproxy=haproxy "$NCHAN=libnginx-mod-nchan" node=nodejs npm=npm openssl=openssl)
for pair in "${packages[@]}"; do have "${pair%%=*}" || missing+=("${pair#*=}"); done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  if command -v apt-get >/dev/null && "${sudo[@]}" true 2>/dev/null; then
    say "installing ${missing[*]}"
    { "${sudo[@]}" apt-get -q update &&
      "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}"; } \
      >"$PEERS/apt.log" 2>&1 || say "apt-get failed, see $PEERS/apt.log"
  fi
  for pair in "${packages[@]}"; do have "${pair%%=*}" || SKIPPED+=("${pair#*=} (Debian's package is not installed)"); done
fi

# npm. Of all install scripts only Bun's is run: it puts the binary in its place.
if command -v npm >/dev/null; then
  pins=$({ cat "$HERE/package.json" "$HERE/package-lock.json"; node --version; uname -m; } | sha256sum | cut -d' ' -f1)
  if [ "$(cat "$PEERS/.installed" 2>/dev/null)" = "$pins" ]; then
    say "bun and ws are there"
  else
    say "installing bun and ws"
    rm -rf "$PEERS/.installed" "$PEERS/node_modules"
    cp "$HERE/package.json" "$HERE/package-lock.json" "$PEERS/"
    if (cd "$PEERS" && npm ci --ignore-scripts --no-audit --no-fund && cd node_modules/bun && node install.js) >"$PEERS/npm.log" 2>&1 && "$PEERS/node_modules/bun/bin/bun.exe" --version >/dev/null; then
      echo "$pins" >"$PEERS/.installed"
    else
      say "npm failed, see $PEERS/npm.log"
      SKIPPED+=("bun and ws (npm ci failed)")
    fi
  fi
else
  SKIPPED+=("bun and ws (no npm)")
fi

# For this machine alone, so there is no key in the repository.
if [ ! -s "$PEERS/tls/key.pem" ]; then
  if command -v openssl >/dev/null; then
    say "making a certificate"
    mkdir -p "$PEERS/tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=127.0.0.1 \
      -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
      -out "$PEERS/tls/certificate.pem" -keyout "$PEERS/tls/key.pem" 2>"$PEERS/tls/openssl.log"
  else
    SKIPPED+=("the suite over TLS (no openssl)")
  fi
fi

if [ "${1:-}" != --no-build ]; then
  say "building Tidegate, the load test and the small servers"
  cargo build --release --quiet -p tidegate -p tidegate-loadtest -p tidegate-baselines
  cargo build --release --quiet -p tidegate-io --examples
fi

for skipped in ${SKIPPED[@]+"${SKIPPED[@]}"}; do say "skipped: $skipped"; done
say "done, ${#SKIPPED[@]} skipped"
