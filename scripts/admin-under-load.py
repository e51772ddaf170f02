#!/usr/bin/env python3
"""What asking the control plane costs the data plane under full load, and how long its answers take there.

    cargo build --release && scripts/admin-under-load.py [--rounds 5] [--seconds 5]

One gateway on one core, its load on another; rounds with nobody asking and with somebody who asks for /livez ten times a
second and for /metrics each second take turns. Fails where a bar of docs/BENCHMARKS.md does not hold.
"""

import argparse
import socket
import statistics
import threading
import time

import loaded

# The bars: how long /livez may take, and by how much messages may become dearer, beyond the spread.
LIVEZ_SECONDS, CPU_RATIO = 0.1, 1.05
CONFIG = """
version = 1
shards = 1
[[listener]]
bind = "127.0.0.1:0"
[admin]
bind = "unix:{folder}/admin.sock"
[[route]]
path = "/*"
echo = {}
"""


def ask(path, admin):
    """Seconds until the whole answer is there, which must be a 200."""
    begun = time.monotonic()
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(30)
        stream.connect(admin)
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := stream.recv(1 << 16):
            answer += part
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"{path}: {answer[:200]!r}")
    return time.monotonic() - begun


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=5)
    options = arguments.parse_args()
    with loaded.gateway(CONFIG) as gateway:
        broken = measure(options, gateway)
    if broken:
        raise SystemExit("\n".join(broken))


def measure(options, gateway):
    """What does not hold."""
    url, admin = gateway.says("listening on "), gateway.says("admin listener at unix:")
    broken = []

    def cost(work):
        return gateway.load(work, url)["server"]["cpu_ns_per_message"]

    for name, work in [("500 sessions, 64 B", "-c 500 -s 64"), ("64 sessions, 64 B, 32 in flight", "-c 64 -s 64 --depth 32")]:
        work = [*work.split(), "-d", f"{options.seconds}s", "--warmup", "1s"]
        quiet, asked, livez, metrics = [], [], [], []
        for _ in range(options.rounds):
            quiet.append(cost(work))
            over = threading.Event()

            def asking():
                count = 0
                while not over.wait(0.1):
                    livez.append(ask("/livez", admin))
                    if count % 10 == 0:
                        metrics.append(ask("/metrics", admin))
                    count += 1

            thread = threading.Thread(target=asking)
            thread.start()
            asked.append(cost(work))
            over.set()
            thread.join()
        ratio = statistics.median(b / a for a, b in zip(quiet, asked))
        print(f"{name}: {options.rounds} rounds of {options.seconds} s each way")
        for what, values in [("nobody asks", quiet), ("somebody asks", asked)]:
            print(f"  {what}: CPU each {statistics.median(values):,.0f} ns ({min(values):,.0f} to {max(values):,.0f})")
        print(f"  median of the rounds' ratios: {ratio:.3f}")
        for what, values in [("/livez", livez), ("/metrics", metrics)]:
            middle, most = statistics.median(values) * 1e3, max(values) * 1e3
            print(f"  {what}: {len(values)} answers, median {middle:.1f} ms, at most {most:.1f} ms")
        if max(livez) > LIVEZ_SECONDS:
            broken.append(f"{name}: /livez took up to {max(livez) * 1e3:.1f} ms")
        # Beyond the spread: not where some round without questions was as dear as the usual one with them.
        if ratio > CPU_RATIO and statistics.median(asked) > max(quiet):
            broken.append(f"{name}: who asks makes messages {ratio:.3f} times as dear")
    return broken


if __name__ == "__main__":
    main()
