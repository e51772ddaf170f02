#!/bin/sh
# Runs every fuzz target for some seconds (10) with cargo-fuzz from PATH or .cache/bin:
#   scripts/fuzz.sh [seconds] [target...]
# What is found stays in fuzz/artifacts; the inputs that reach new code are kept in fuzz/corpus (neither is committed).
# The last line says `N passed, N failed`; the exit code is not 0 if any failed.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$PWD/.cache/bin"
seconds=${1:-10}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- head frame message deflate connection protocol proxy_protocol

if ! command -v cargo-fuzz >/dev/null; then
    echo "scripts/fuzz.sh: cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
    exit 2
fi
# The sanitizer's flags are unstable: a nightly compiler, or the stable one told to take them.
toolchain=+nightly
if ! cargo +nightly --version >/dev/null 2>&1; then
    toolchain=
    export RUSTC_BOOTSTRAP=1
fi

# shellcheck disable=SC2086 # without a toolchain there is no word
cargo $toolchain fuzz build
passed=0 failed=0
for target in "$@"; do
    case $target in
    head | protocol | proxy_protocol) dictionary=$target ;;
    *) dictionary=frame ;;
    esac
    mkdir -p "fuzz/corpus/$target"
    echo "== $target: $seconds s"
    # shellcheck disable=SC2086
    if cargo $toolchain fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -dict="fuzz/dictionaries/$dictionary.dict" -max_total_time="$seconds" \
        -rss_limit_mb=2048 -timeout=20 -verbosity=0 -print_final_stats=1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
