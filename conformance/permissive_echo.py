#!/usr/bin/env python3
"""A WebSocket echo that checks nothing.

Behind the gateway it shows what the gateway lets through: invalid UTF-8, reserved bits, unknown opcodes, orphaned
continuations, oversized or fragmented control frames and forbidden close codes all come back as they were, so that
Autobahn sees them and the case fails. Messages are put together from their fragments and echoed as one frame.

    permissive_echo.py [PORT]      prints the port; ends with SIGTERM
"""

import asyncio
import base64
import hashlib
import sys

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, CLOSE, PING, PONG = 0x0, 0x8, 0x9, 0xA


def unmask(payload, mask):
    """XOR as one long integer: 16 MiB in some 30 ms, where a loop takes seconds."""
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")


def header(first, length):
    if length < 126:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.input = bytearray()
        self.open = False
        self.first = None
        self.message = []

    def data_received(self, data):
        self.input += data
        if not self.open:
            self.handshake()
        if self.open:
            self.frames()

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()

    def handshake(self):
        end = self.input.find(b"\r\n\r\n")
        if end < 0:
            return
        key = b""
        for line in bytes(self.input[:end]).split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"sec-websocket-key":
                key = value.strip()
        del self.input[: end + 4]
        accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.open = True

    def frames(self):
        data, at = self.input, 0
        while len(data) - at >= 2:
            first, second = data[at], data[at + 1]
            length, start = second & 0x7F, at + 2
            if length == 126:
                length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            elif length == 127:
                length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            mask = b""
            if second & 0x80:
                mask = bytes(data[start : start + 4])
                start += 4
            # Slices past the end are short, so an incomplete header never passes this.
            if len(data) < start + length:
                break
            payload = bytes(data[start : start + length])
            self.frame(first, unmask(payload, mask) if mask else payload)
            at = start + length
        del data[:at]

    def frame(self, first, payload):
        opcode = first & 0x0F
        if opcode == PING:
            self.send(0x80 | PONG, payload)
        elif opcode == CLOSE:
            self.send(first, payload)
            if self.transport.can_write_eof():
                self.transport.write_eof()
        elif opcode > PONG:
            self.send(first, payload)
        elif opcode != PONG:
            if self.first is None or opcode != CONTINUATION:
                self.first, self.message = first, []
            self.message.append(payload)
            if first & 0x80:
                self.send(self.first | 0x80, b"".join(self.message))
                self.first, self.message = None, []

    def send(self, first, payload):
        if not self.transport.is_closing():
            self.transport.write(header(first, len(payload)))
            self.transport.write(payload)


async def main(port):
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
    except KeyboardInterrupt:
        pass
