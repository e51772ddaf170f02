"""Python's websockets as a client: client.py BASE KIND, as client.mjs. The same cases, by other means."""

import asyncio
import contextlib
import json
import os
import re
import socket
import struct
import sys
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

BASE, KIND = sys.argv[1:]
PROXIED = KIND != "echo"
SECURE = BASE.startswith("wss:")
LIMIT = 30
MOST = 32 << 20


class Session(ClientConnection):
    """Counts what it reads."""

    read = 0

    def data_received(self, data):
        self.read += len(data)
        super().data_received(data)

    @property
    def agreed(self):
        return self.response.headers.get("Sec-WebSocket-Extensions", "")

    async def round(self, message, note=""):
        await self.send(message)
        same(await self.recv(), message, note)

    async def end(self):
        """Code and reason that the peer has sent; None without a Close."""
        with contextlib.suppress(ConnectionClosed):
            raise AssertionError(f"a message instead of the end: {str(await self.recv())[:40]}")
        await self.wait_closed()
        received = self.protocol.close_rcvd
        return received and (received.code, received.reason)

    async def finish(self, code=1000, reason=""):
        await self.close(code, reason)
        received = self.protocol.close_rcvd
        return received and (received.code, received.reason)


def open_session(path, deflate=False, **options):
    if deflate is True:
        options["compression"] = "deflate"
    else:
        options["compression"] = None
        if deflate:
            options["extensions"] = [deflate]
    return connect(
        BASE + path,
        create_connection=Session,
        max_size=MOST,
        open_timeout=LIMIT,
        close_timeout=LIMIT,
        ping_interval=None,
        proxy=None,
        **options,
    )


def equal(left, right, note=""):
    assert left == right, f"{left!r} instead of {right!r} {note}"


def matches(pattern, text):
    assert re.search(pattern, text), f"{text!r} does not match {pattern}"


def answered(end, code, reason):
    """The gateway answers a Close with its code (RFC 6455 §5.5.1); the upstreams with its reason too."""
    equal(end, (code, reason if PROXIED or (end and end[1]) else ""))


def same(received, sent, note=""):
    equal(type(received), type(sent), note)
    equal(len(received), len(sent), "length " + note)
    assert received == sent, f"payload differs {note}"


UNIT = '{"channel":"tide","height":1.25,"unit":"m","note":"übers Watt 🌊"}\n'
BLOCK = os.urandom(16 << 10)


def text(length):
    """Text of so many bytes."""
    most = (UNIT * (length // len(UNIT.encode()) + 1)).encode()[:length].decode(errors="ignore")
    return most + "x" * (length - len(most.encode()))


def binary(length):
    return (BLOCK * (length // len(BLOCK) + 1))[:length]


failed = 0
last = 0


def fresh():
    global last
    last += 1
    return f"py-{os.getpid()}-{last}"


async def seen(session_id):
    """How the upstream saw a session end."""
    async with open_session("/closed?of=" + session_id) as session:
        end = json.loads(await session.recv())
        return end["code"], end["reason"]


async def check(name, body):
    global failed
    try:
        await asyncio.wait_for(body, LIMIT)
        print("ok", name, flush=True)
    except Exception as error:
        failed += 1
        why = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:400]
        print(f"FAIL {name} -- {why}", flush=True)


async def negotiated(deflate):
    used = deflate and KIND != "off"
    async with open_session("/info" if PROXIED else "/echo", deflate=deflate) as session:
        if used:
            matches(r"^permessage-deflate(;|$)", session.agreed)
        else:
            equal(session.agreed, "")
        if used and KIND in ("echo", "edge"):
            matches("server_no_context_takeover", session.agreed)
            matches("client_no_context_takeover", session.agreed)
        if PROXIED:
            info = json.loads(await session.recv())
            if KIND == "pass" and deflate:
                matches("permessage-deflate", info["headers"].get("sec-websocket-extensions", ""))
                equal(session.agreed, info["answered"])
            else:
                equal(info["headers"].get("sec-websocket-extensions"), None)
                equal(info["answered"], None)
        await session.round(text(5000))


async def lengths(deflate):
    async with open_session("/echo", deflate=deflate) as session:
        for length in (0, 1, 63, 64, 125, 126, 127, 1000, 65535, 65536, 65537):
            await session.round(text(length), f"text {length}")
            await session.round(binary(length), f"binary {length}")


async def large(deflate):
    async with open_session("/echo", deflate=deflate) as session:
        await session.round(binary(16 << 20), "binary")
        await session.round(text(16 << 20), "text")


async def wire(deflate):
    async with open_session("/echo", deflate=deflate) as session:
        await session.round("ready")
        before = session.read
        await session.round(text(1 << 20))
        read = session.read - before
        if deflate and KIND != "off":
            assert read < 100_000, f"{read} bytes for a MiB that compresses well"
        else:
            assert read > 1 << 20, f"{read} bytes for a MiB"


async def fragments(deflate):
    async with open_session("/echo", deflate=deflate) as session:
        parts = ["zwischen ", "", text(70_000), "den Fragmenten 🌊"]
        pongs = []

        async def slowly():
            for part in parts:
                yield part
                # The library lets control frames pass between the fragments.
                pongs.append(await session.ping(f"after {len(pongs)}"))

        await session.send(slowly())
        same(await session.recv(), "".join(parts))
        await asyncio.gather(*pongs)


async def order(deflate):
    async with open_session("/echo", deflate=deflate) as session:
        everything = [text(i * 7) if i % 3 else binary(i * 11) for i in range(500)]

        async def send():
            for message in everything:
                await session.send(message)

        sending = asyncio.create_task(send())
        for index, message in enumerate(everything):
            same(await session.recv(), message, f"message {index}")
        await sending


async def pings():
    async with open_session("/echo") as session:
        for payload in ("x", "", "p" * 125):
            await (await session.ping(payload))
        await session.pong("unasked")
        await session.round("still here")


async def closes():
    for code, reason in ((1000, ""), (1000, "done"), (1001, "moving on"), (1011, "broken"), (3000, "registered"), (4999, "ü" * 61 + "!")):
        session_id = fresh()
        async with open_session("/echo?id=" + session_id) as session:
            await session.round("before")
            answered(await session.finish(code, reason), code, reason)
        if PROXIED:
            equal(await seen(session_id), (code, reason))


async def bad_text():
    async with open_session("/echo") as session:
        await session.send(b"h\xc3\x28", text=True)
        equal((await session.end())[0], 1007)


async def many():
    async def one(index):
        async with open_session("/echo", deflate=index % 2 == 0) as session:
            arrived.append(index)
            if len(arrived) == 200:
                everybody.set()
            await everybody.wait()
            for number in range(5):
                await session.round(f"{index}:{number}:" + text(200 + index))
            answered(await session.finish(1000, "done"), 1000, "done")

    arrived, everybody = [], asyncio.Event()
    tasks = [asyncio.create_task(one(index)) for index in range(200)]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in rest:
        task.cancel()
    for task in done:
        task.result()


async def rude():
    url = urlsplit(BASE)
    head = (
        f"GET {url.path}/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()

    async def one(how, frame):
        reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=SECURE or None)
        if how == "half a head":
            writer.write(head[:60])
            await writer.drain()
        else:
            writer.write(head)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 101"), answer[:60]
            writer.write(frame)
            await writer.drain()
        if how == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half-closed":
            if SECURE:
                # There is no half of TLS: a FIN without close_notify.
                writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
            else:
                writer.write_eof()
            # Its own side is ended; the gateway's has to follow.
            await reader.read()
        writer.close()

    whole = bytes([0x82, 0x84, 0, 0, 0, 0, 1, 2, 3, 4])
    part = bytes([0x82, 0xFE, 0x03, 0xE8, 0, 0, 0, 0, 1, 2, 3])
    async with open_session("/echo", deflate=True) as session:
        over = False

        async def calm():
            rounds = 0
            while not over or rounds < 50:
                rounds += 1
                await session.round(f"{rounds}:" + text(3000))

        steady = asyncio.create_task(calm())
        hows = [(how, frame) for how in ("reset", "gone", "half-closed") for frame in (whole, part, b"\x82")]
        hows.append(("half a head", b""))
        await asyncio.gather(*(one(*how) for how in hows for _ in range(8)))
        over = True
        await steady
        equal(await session.finish(), (1000, ""))


async def subprotocols():
    for offered, agreed in ((["chat.v1"], "chat.v1"), (["other", "chat.v1", "chat.v2"], "chat.v1"), (["chat.v2", "chat.v1"], "chat.v2")):
        async with open_session("/chat", subprotocols=offered) as session:
            equal(session.subprotocol, agreed)
            await session.round("agreed")
    equal(await status("/chat", subprotocols=["other"]), 404)
    async with open_session("/echo", subprotocols=["other"]) as session:
        equal(session.subprotocol, None)
        await session.round("without")


async def status(path, **options):
    try:
        async with open_session(path, **options):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def takeover():
    line = os.urandom(600).hex()

    async def cost(path):
        async with open_session(path, deflate=ClientPerMessageDeflateFactory()) as session:
            await session.round(line)
            before = session.read
            for _ in range(10):
                await session.round(line)
            return session.agreed, (session.read - before) / 10

    offered, read = await cost("/takeover")
    matches("^permessage-deflate", offered)
    assert "no_context_takeover" not in offered, offered
    assert read < 100, f"{read} bytes for what was sent before"
    _, read = await cost("/echo")
    assert read > 500, f"{read} bytes without takeover"


async def parameters():
    for offer, agreed in (
        (dict(server_no_context_takeover=True), "server_no_context_takeover"),
        (dict(client_no_context_takeover=True), "client_no_context_takeover"),
        (dict(server_max_window_bits=9), "server_max_window_bits=9"),
        (dict(client_max_window_bits=True), "^permessage-deflate"),
        (dict(client_max_window_bits=10), "^permessage-deflate"),
    ):
        async with open_session("/takeover", deflate=ClientPerMessageDeflateFactory(**offer)) as session:
            matches(agreed, session.agreed)
            for index in range(5):
                await session.round(text(100_000) + str(index))


async def too_big():
    for deflate in (False, True):
        async with open_session("/small", deflate=deflate) as session:
            await session.round(text(65536))
            await session.send(text(65537))
            equal((await session.end())[0], 1009)


async def forwarded():
    headers = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Own": "kept",
        "Cookie": "player=7",
    }
    async with open_session("/info?room=a%20b&x=1", additional_headers=headers) as session:
        info = json.loads(await session.recv())
        url = urlsplit(BASE)
        equal(info["path"], url.path + "/info?room=a%20b&x=1")
        for name, value in (
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https" if SECURE else "http"),
            ("x-forwarded-host", url.netloc),
            ("host", url.netloc),
            ("x-own", "kept"),
            ("cookie", "player=7"),
        ):
            equal(info["headers"].get(name), value, name)


async def chosen():
    async with open_session("/info", subprotocols=["chat.v2", "chat.v1"]) as session:
        equal(session.subprotocol, "chat.v1")
        equal(json.loads(await session.recv())["protocol"], "chat.v1")
    async with open_session("/info", subprotocols=["other"]) as session:
        equal(session.subprotocol, None)
        equal(json.loads(await session.recv())["protocol"], "")


async def upstream_closes():
    for code, reason in ((1000, "bye"), (1001, ""), (1011, "broken"), (1012, "restart"), (3333, "registered"), (4001, "Ende 🌊")):
        session_id = fresh()
        async with open_session(f"/close?id={session_id}&code={code}&reason={quote(reason)}") as session:
            await session.send("now")
            equal(await session.end(), (code, reason))
        equal((await seen(session_id))[0], code)
    async with open_session("/close") as session:
        await session.send("now")
        equal((await session.end())[0], 1005)


async def refusals():
    for code in (401, 403):
        try:
            async with open_session(f"/refuse?status={code}"):
                raise AssertionError("opened")
        except InvalidStatus as error:
            response = error.response
        equal(response.status_code, code)
        equal(response.body, b"the upstream says no")
        equal(response.headers.get("WWW-Authenticate"), 'Bearer realm="interop"' if code == 401 else None)


async def vanishes():
    async with open_session("/die") as session:
        await session.send("now")
        equal((await session.end() or (None,))[0], 1011)


async def cut_off():
    async with open_session("/die?half=") as session:
        await session.send("now")
        # What has begun to leave cannot be followed by a Close; what has not can.
        end = await session.end()
        assert end is None or end[0] == 1011, end


async def upstream_pings():
    async with open_session("/ping") as session:
        await session.send("from the upstream")
        equal(await session.recv(), "pong:from the upstream")


async def client_vanishes():
    session_id = fresh()
    async with open_session("/echo?id=" + session_id) as session:
        await session.round("before")
        session.transport.abort()
    equal((await seen(session_id))[0], 1001)


async def main():
    for deflate in (True, False):
        on = "deflate offered" if deflate else "deflate not offered"
        await check(f"{on}: what is negotiated", negotiated(deflate))
        await check(f"{on}: text and binary of all lengths", lengths(deflate))
        await check(f"{on}: 16 MiB", large(deflate))
        await check(f"{on}: on the wire", wire(deflate))
        await check(f"{on}: fragments, pings between them", fragments(deflate))
        await check(f"{on}: messages stay in order", order(deflate))
    await check("ping and pong", pings())
    await check("close codes and reasons of the client", closes())
    await check("text that is not UTF-8 is closed with 1007", bad_text())
    await check("200 sessions at once", many())
    await check("half-closed and abrupt clients disturb nobody", rude())
    if PROXIED:
        await check("forwarded fields, path and query", forwarded())
        await check("the upstream chooses the subprotocol", chosen())
        await check("close codes and reasons of the upstream", upstream_closes())
        await check("refusals of the upstream", refusals())
        await check("an upstream that vanishes is told with 1011", vanishes())
        await check("a message cut off by the upstream is never completed", cut_off())
        await check("pings of the upstream", upstream_pings())
        await check("a client that vanishes", client_vanishes())
    else:
        await check("subprotocols", subprotocols())
        await check("context takeover", takeover())
        await check("parameters of deflate", parameters())
        await check("a message over the limit is closed with 1009", too_big())


asyncio.run(main())
print("done", flush=True)
sys.exit(1 if failed else 0)
