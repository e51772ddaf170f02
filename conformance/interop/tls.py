"""What clients of other make do over TLS beside what they do without: the certificates, and what is typed into `openssl s_client`."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import certificates  # noqa: E402 (it stands in that folder)

LIMIT_S = 20
REQUEST = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
VERSIONS = {"1.2": "-tls1_2", "1.3": "-tls1_3"}


class Certificates:
    """An authority, and a listener's two certificates."""

    def __init__(self, folder):
        authority = certificates.Authority(folder)
        self.folder = folder
        self.ca = str(authority.ca)
        self.first = authority.issue("first", ["DNS:localhost", "IP:127.0.0.1"])
        self.second = authority.issue("second", ["DNS:second.test", "DNS:*.second.test"])
        self.pin = certificates.pin(self.first[0])

    def listener(self):
        pairs = ["[[listener.tls.certificates]]\n" + certificates.setting(*pair) for pair in (self.first, self.second)]
        return '[[listener]]\nbind = "127.0.0.1:0"\n' + "".join(pairs)

    def environment(self):
        """With which Node and Python's ssl trust the authority."""
        return {**os.environ, "NODE_EXTRA_CA_CERTS": self.ca, "SSL_CERT_FILE": self.ca}


class Typed:
    """A session by hand: `openssl s_client` with these arguments, which must verify the certificate."""

    def __init__(self, address, own, log, arguments, commands=False):
        command = ["openssl", "s_client", "-connect", address, "-CAfile", own.ca, "-verify_return_error"]
        # A line that begins with R asks for another handshake (commands), else it is data like any other.
        command += [] if commands else ["-nocommands", "-ign_eof"]
        self.log = log
        with open(log, "wb") as file:
            self.child = subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=file, stderr=file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self.child.stdin.close()

    def output(self):
        with open(self.log, "rb") as file:
            return file.read()

    def type(self, data):
        self.child.stdin.write(data)
        self.child.stdin.flush()

    def until(self, wanted):
        """Waits until the output holds `wanted`."""
        deadline = time.monotonic() + LIMIT_S
        while wanted not in (output := self.output()):
            ended = self.child.poll() is not None and wanted not in self.output()
            assert not ended and time.monotonic() < deadline, f"no {wanted!r} but {output[-400:]!r}"
            time.sleep(0.02)

    def end(self):
        """Waits for its end; the exit code and what it has printed."""
        code = self.child.wait(LIMIT_S)
        return code, self.output().decode("latin-1")

    def session(self):
        """Upgrades, says hello, hears it, closes; what was printed."""
        self.type(REQUEST)
        self.until(ACCEPT)
        self.type(b"\x81\x85\0\0\0\0Hello")
        self.until(b"\x81\x05Hello")
        self.type(b"\x88\x82\0\0\0\0\x03\xe8")
        self.until(b"\x88\x02\x03\xe8")
        code, text = self.end()
        assert code == 0, f"exit code {code}: {text[-400:]}"
        return text


def typed(report, label, address, own, logs):
    """The cases with `openssl s_client`."""
    number = 0

    def client(*arguments, **more):
        nonlocal number
        number += 1
        return Typed(address, own, os.path.join(logs, f"openssl-{label}-{number}.log"), arguments, **more)

    def holds(text, *wanted):
        for each in wanted:
            assert each in text, f"no {each!r} in {text[-1500:]!r}"

    def version(name, flag):
        ticket = os.path.join(own.folder, f"ticket-{label}-{name}")
        asked = ("-servername", "localhost", "-verify_hostname", "localhost", "-alpn", "h2,http/1.1", flag)
        with client(*asked, "-sess_out", ticket) as first:
            text = first.session()
            holds(text, f"New, TLSv{name}, ", "ALPN protocol: http/1.1", "Verification: OK", "HTTP/1.1 101 ")
            if name == "1.3":
                holds(text, "Max Early Data: 0")
        for _ in range(2):
            # A ticket of the version 1.3 is good once; the first session got several, of which the last is in the file.
            with client(*asked, "-sess_in", ticket, "-sess_out", ticket) as again:
                holds(again.session(), f"Reused, TLSv{name}, ", "HTTP/1.1 101 ")

    def names():
        for name, subject in (("localhost", "first"), ("second.test", "second"), ("a.second.test", "second"), ("third.test", "first")):
            with client("-servername", name) as one:
                holds(one.session(), f"tidegate checks {subject}")
        with client("-noservername") as nobody:
            holds(nobody.session(), "tidegate checks first")

    def protocols():
        with client("-alpn", "h2") as other:
            code, text = other.end()
            assert code != 0, "a session without a protocol in common"
            holds(text, "alert number 120")
        with client() as none:
            holds(none.session(), "No ALPN negotiated")

    def renegotiation():
        # Row S12 of the table of bad input; RFC 9325 §3.5.
        with client("-tls1_2", commands=True) as one:
            one.type(REQUEST)
            one.until(ACCEPT)
            one.type(b"R\n")
            code, text = one.end()
            holds(text, "RENEGOTIATING")
            assert code != 0, f"it was let: {text[-400:]}"
            holds(text, "no renegotiation")

    for name, flag in VERSIONS.items():
        report.case(f"{label}, openssl s_client, TLS {name}: a typed session, and resumed ones", version, name, flag)
    report.case(f"{label}, openssl s_client: a certificate for each name", names)
    report.case(f"{label}, openssl s_client: ALPN", protocols)
    report.case(f"{label}, openssl s_client: no second handshake within a session", renegotiation)
