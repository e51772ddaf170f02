#!/bin/bash
# interop.sh BIN - Tidegate between the clients and servers that people use: Node's ws, Python's websockets, Chromium, openssl.
#
# Installs what it needs into .cache/interop (packages of npm and PyPI, pinned), and what Debian has (Node, Python's venv,
# Chromium) by apt-get only where it is not there. A finished install of the same pins is only used.
# One line a case, at last "N passed, N failed"; exit code 1 if one failed.
set -euo pipefail

say() { echo "interop: $*" >&2; }
die() { say "ERROR: $*"; exit 1; }

[ $# -eq 1 ] && [ -x "$1" ] || die "usage: $0 BIN (the tidegate to check)"
BIN=$(realpath "$1")
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HERE=$ROOT/conformance/interop
WORK=$ROOT/.cache/interop
mkdir -p "$WORK/node"

apt() { # apt PACKAGE...: as root, or by sudo where that needs no password
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  say "installing $*"
  { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update &&
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@"; } \
    >"$WORK/apt.log" 2>&1 || { tail -n 20 "$WORK/apt.log" >&2; die "cannot install $*"; }
}

chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

missing=()
{ command -v node && command -v npm; } >/dev/null || missing+=(nodejs npm)
# ensurepip is what Debian's python3 lacks without python3-venv.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
chromium >/dev/null || missing+=(chromium)
command -v openssl >/dev/null || missing+=(openssl)
[ ${#missing[@]} = 0 ] || apt "${missing[@]}"

# npm and PyPI, where the pins or the interpreter are others than those of the last time.
pins=$({ cat "$HERE/package.json" "$HERE/package-lock.json" "$HERE/requirements.txt"; node --version; python3 --version; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$WORK/.installed" 2>/dev/null)" != "$pins" ] || ! "$WORK/venv/bin/python" -c 'import websockets' 2>/dev/null; then
  say "installing ws and websockets into $WORK"
  rm -rf "$WORK/.installed" "$WORK/venv" "$WORK/node"
  mkdir -p "$WORK/node"
  cp "$HERE/package.json" "$HERE/package-lock.json" "$WORK/node/"
  (cd "$WORK/node" && npm ci --no-audit --no-fund --ignore-scripts) >"$WORK/npm.log" 2>&1 || { tail -n 20 "$WORK/npm.log" >&2; die "npm ci failed"; }
  python3 -m venv "$WORK/venv" >"$WORK/pip.log" 2>&1 &&
    "$WORK/venv/bin/pip" install -q --disable-pip-version-check --no-deps -r "$HERE/requirements.txt" >>"$WORK/pip.log" 2>&1 ||
    { tail -n 20 "$WORK/pip.log" >&2; die "pip install failed"; }
  echo "$pins" >"$WORK/.installed"
fi

# Neither a proxy nor another configuration of the gateway may get in between.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
for name in $(compgen -e TIDEGATE_ || true); do unset "$name"; done
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
exec timeout --kill-after=10 600 "$WORK/venv/bin/python" "$HERE/run.py" "$BIN" "$WORK" "$(chromium)"
