"""What someone sees who starts `tidegate` without arguments: fresh.py BIN LOGS.

Prints "ok NAME" or "FAIL NAME -- why" for each case, and "done" at the end. It wants port 9001 for itself: run.py gives it a network of its own where it may.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import sys
import time
import urllib.request

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from gateway import Gateway

BINARY, LOGS = sys.argv[1:]
HEAD = (
    "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()


def loopback():
    """A new network's loopback is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack("16sh", fcntl.ioctl(control, 0x8913, name + bytes(16))[:18])[1]
        if not flags & 1:
            fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", name, flags | 1))


def start(name):
    return Gateway(BINARY, [], os.path.join(LOGS, f"fresh-{name}.log"))


def session():
    return connect("ws://127.0.0.1:9001/echo", proxy=None, ping_interval=None, open_timeout=10, close_timeout=10)


def deaf():
    """A session that answers no Close."""
    peer = socket.create_connection(("127.0.0.1", 9001), 10)
    peer.sendall(HEAD)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += peer.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return peer


def default():
    with start("default") as gateway:
        assert gateway.address == "127.0.0.1:9001", gateway.address
        log = gateway.text()
        for word in ("backend", "shards", "http://127.0.0.1:9001/"):
            assert word in log, f"the log does not tell {word!r}: {log}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open("http://127.0.0.1:9001/", timeout=10) as page:
            assert page.headers.get_content_type() == "text/html", page.headers
            assert b"Tidegate" in page.read()
        with session() as client:
            client.send("hello")
            assert client.recv(10) == "hello"
        gateway.child.send_signal(signal.SIGTERM)
        assert (code := gateway.wait()) == 0, f"exit code {code}"


def end(number, name):
    with start(name) as gateway, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(session()) for _ in range(8)]
        for client in clients:
            client.send("before")
            assert client.recv(10) == "before"
        began = time.monotonic()
        gateway.child.send_signal(number)
        for client in clients:
            try:
                client.recv(10)
                raise AssertionError("a message instead of the end")
            except ConnectionClosed as closed:
                assert closed.rcvd and closed.rcvd.code == 1001, closed
        code, took = gateway.wait(), time.monotonic() - began
        assert code == 0, f"exit code {code}"
        # Everybody has answered: nothing is left to wait for.
        assert took < 3, f"{took:.1f} s"
        try:
            socket.create_connection(("127.0.0.1", 9001), 2).close()
            raise AssertionError("somebody still listens")
        except ConnectionRefusedError:
            pass


def deaf_end(number, name):
    with start(name) as gateway, deaf() as peer:
        began = time.monotonic()
        gateway.child.send_signal(number)
        # Frame, 1001.
        close = peer.recv(4096)
        assert close[0] == 0x88 and close[2:4] == b"\x03\xe9", close
        code, took = gateway.wait(), time.monotonic() - began
        assert code == 0, f"exit code {code}"
        assert 3 < took < 10, f"{took:.1f} s instead of the close time-out of 5 s"


def twice(number, name):
    with start(name) as gateway, deaf() as peer:
        gateway.child.send_signal(number)
        assert peer.recv(4096)[:1] == b"\x88"
        # Within 300 ms it would be the first one again, as a terminal and npm both pass it on.
        time.sleep(0.4)
        began = time.monotonic()
        gateway.child.send_signal(number)
        code, took = gateway.wait(), time.monotonic() - began
        assert code == 0, f"exit code {code}"
        assert took < 2, f"{took:.1f} s"


def check(name, body, *arguments):
    try:
        body(*arguments)
        print("ok", name, flush=True)
    except Exception as error:
        print(f"FAIL {name} --", " ".join(f"{type(error).__name__}: {error}".split())[:500], flush=True)


loopback()
check("without arguments: listens on 127.0.0.1:9001, says what, serves page and echo", default)
for number, name in ((signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")):
    check(f"{name}: sessions get 1001, exit code 0", end, number, name)
    check(f"{name}: who does not answer is waited for no longer than the close time-out", deaf_end, number, name + "-deaf")
    check(f"{name} twice: ends at once", twice, number, name + "-twice")
print("done", flush=True)
