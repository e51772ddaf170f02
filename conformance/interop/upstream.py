"""An upstream of Python's websockets. What it does is in the last segment of the path: see upstream.mjs.

Usage: upstream.py UNIX_PATH. Prints "ready PORT".
"""

import asyncio
import contextlib
import json
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve, unix_serve
from websockets.exceptions import ConnectionClosed

MOST = 32 << 20
ended = {}


def ending(session_id):
    return ended.setdefault(session_id, asyncio.get_running_loop().create_future())


def last(path):
    return urlsplit(path).path.rsplit("/", 1)[-1]


def query(path):
    return {key: values[0] for key, values in parse_qs(urlsplit(path).query, keep_blank_values=True).items()}


def refuse(session, request):
    if last(request.path) != "refuse":
        return None
    status = int(query(request.path)["status"])
    response = session.respond(status, "the upstream says no")
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="interop"'
    return response


def select(_session, offered):
    return "chat.v1" if "chat.v1" in offered else None


async def handle(session):
    path = session.request.path
    what, asked = last(path), query(path)
    try:
        # How a session ends is for whoever asks for it.
        with contextlib.suppress(ConnectionClosed):
            await act(session, path, what, asked)
    finally:
        await session.wait_closed()
        if "id" in asked:
            received = session.protocol.close_rcvd
            code, reason = (received.code, received.reason) if received else (1006, "")
            future = ending(asked["id"])
            if not future.done():
                future.set_result({"code": code, "reason": reason})


async def act(session, path, what, asked):
    if what == "info":
        await session.send(json.dumps({
            "path": path,
            "headers": {name.lower(): value for name, value in session.request.headers.raw_items()},
            "answered": session.response.headers.get("Sec-WebSocket-Extensions"),
            "protocol": session.subprotocol or "",
        }))
    if what == "closed":
        await session.send(json.dumps(await ending(asked["of"])))
    async for message in session:
        if what == "close":
            if "code" in asked:
                await session.close(int(asked["code"]), asked.get("reason", ""))
            else:
                await close_without_code(session)
        elif what == "die":
            if "half" in asked:
                # The first 10 bytes of a binary message of 100.
                session.transport.write(bytes([0x82, 100]) + bytes(10))
                # Left to the kernel before the connection is cut.
                assert session.transport.get_write_buffer_size() == 0
            session.transport.abort()
        elif what == "ping":
            payload = message.encode()
            await (await session.ping(payload))
            # The library resolves a ping by the payload of its pong.
            await session.send("pong:" + payload.decode())
        else:
            await session.send(message)


async def close_without_code(session):
    async with session.send_context():
        session.protocol.send_close()
    await session.wait_closed()


async def main():
    options = dict(
        process_request=refuse,
        select_subprotocol=select,
        max_size=MOST,
        ping_interval=None,
        close_timeout=5,
    )
    async with serve(handle, "127.0.0.1", 0, **options) as tcp, unix_serve(handle, sys.argv[1], **options):
        print("ready", tcp.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
