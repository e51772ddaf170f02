#!/usr/bin/env python3
"""What those who misbehave cost the others: the 99th percentile of their latencies.

    cargo build --release && scripts/neighbours.py [--rounds 7] [--seconds 5]

One gateway on one core, its load at a fixed rate on another; rounds with and without somebody who misbehaves take turns.
Who misbehaves has what the load leaves of its core (SCHED_IDLE, sched(7)), so that it is the gateway that is measured.
What counts is the median of the seconds' percentiles: on a machine with neighbours of its own, one second may be ten
times as slow as the next. Fails where a bar of docs/BENCHMARKS.md does not hold.
"""

import argparse
import multiprocessing
import os
import re
import resource
import socket
import statistics
import time

import loaded

# The bar: by how much the others' p99 may grow, beyond the spread.
RATIO = 1.2
CONFIG = """
version = 1
shards = 1
[[listener]]
bind = "127.0.0.1:0"
[admin]
bind = "127.0.0.1:0"
[[route]]
path = "/echo"
echo = {}
[[route]]
path = "/rated"
limits = { messages_per_second = 100, burst_messages = 100, excess = "close" }
echo = {}
"""
WORK = "-c 200 -s 64 -R 10000".split()
UPGRADE = (
    b"GET /rated HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# A binary message of one byte, and many of them.
FLOOD = bytes.fromhex("8281000000007a") * 20_000


def flood(address, _admin, did):
    """Messages of one byte as fast as they go, on a route with a rate; closed with 1008, it comes again."""
    with socket.create_connection(address) as stream:
        stream.settimeout(10)
        answer = b""
        try:
            stream.sendall(UPGRADE + FLOOD)
        except OSError:
            pass  # It was closed on the way; what it was told is there nevertheless.
        try:
            while part := stream.recv(1 << 16):
                answer += part
        except ConnectionError:
            pass  # What it had yet to send met a closed socket.
    # RFC 6455 §5.5.1: a Close frame of some length, and its code.
    if not re.search(rb"\x88.\x03\xf0", answer, re.DOTALL):
        raise SystemExit(f"it was not closed with 1008: {answer[:300]!r} ... {answer[-50:]!r}")
    did.value += 1


def crowd(_address, admin, did):
    """A hundred connections to the admin listener, each with the first byte of a request."""
    streams = []
    for _ in range(100):
        stream = socket.create_connection(admin)
        stream.sendall(b"G")
        streams.append(stream)
        did.value += 1
    time.sleep(0.05)
    for stream in streams:
        stream.close()


# What is done, what is counted of it, and how often that must have been by the end.
KINDS = [
    ("messages of one byte at line rate, on a route with a rate", flood, "connections closed with 1008", 500),
    ("slow connections to the admin listener", crowd, "connections", 10_000),
]


def misbehave(kind, address, admin, did, over):
    os.sched_setaffinity(0, {1})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while not over.is_set():
        kind(address, admin, did)


def place(text):
    host, port = re.search(r"([\d.]+):(\d+)", text).groups()
    return host, int(port)


def measure(gateway, options):
    """What does not hold."""
    url = gateway.says("listening on ").rstrip("/") + "/echo"
    address, admin = place(url), place(gateway.says("admin listener at "))
    work, broken = [*WORK, "-d", f"{options.seconds}s", "--warmup", "1s"], []

    def latencies():
        """The p99 of each second, in microseconds."""
        seconds = gateway.load(work, url)["seconds"]
        return [second["p99_us"] for second in seconds if second["phase"] == "measuring"]

    for name, kind, what, least in KINDS:
        alone, beside, did = [], [], multiprocessing.Value("q", 0)
        for _ in range(options.rounds):
            alone.extend(latencies())
            over = multiprocessing.Event()
            other = multiprocessing.Process(target=misbehave, args=(kind, address, admin, did, over))
            other.start()
            try:
                beside.extend(latencies())
            finally:
                over.set()
                other.join()
            if other.exitcode:
                raise SystemExit(f"{name}: it could not go on")
        ratio = statistics.median(beside) / statistics.median(alone)
        print(f"{name}: {options.rounds} rounds of {options.seconds} s each way, {did.value:,} {what}")
        for who, values in [("alone", alone), ("beside it", beside)]:
            low, middle, high = statistics.quantiles(values)
            print(f"  {who}: p99 of a second {middle:,.0f} us (half of them {low:,.0f} to {high:,.0f})")
        print(f"  ratio of the medians: {ratio:.3f}")
        if did.value < least:
            broken.append(f"{name}: {did.value} {what} are no load")
        # Beyond the spread: not where a quarter of the seconds alone were as slow as the usual one beside it.
        if ratio > RATIO and statistics.median(beside) > statistics.quantiles(alone)[2]:
            broken.append(f"{name}: the others' p99 is {ratio:.3f} times what it is without")
    return broken


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=int, default=5)
    options = arguments.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with loaded.gateway(CONFIG) as gateway:
        broken = measure(gateway, options)
    if broken:
        raise SystemExit("\n".join(broken))


if __name__ == "__main__":
    main()
