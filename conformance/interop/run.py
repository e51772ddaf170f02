"""Tidegate between the clients and servers that people use: run.py BIN WORK CHROMIUM.

One line a case, at last "N passed, N failed", and how many were skipped if some were. Everything stays on the loopback.
"""

import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from gateway import Gateway, Process, Report
from tls import Certificates, typed

HERE = os.path.dirname(os.path.abspath(__file__))
PROFILE = os.path.join(HERE, "..", "..", "packaging", "docker", "seccomp.json")
BINARY, WORK, CHROMIUM = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3]
# Node finds its packages beside the script.
SCRIPTS = os.path.join(WORK, "node")
LOGS = os.path.join(WORK, "logs")
CLIENT_S = 120

CLIENTS = {"ws": ["node", os.path.join(SCRIPTS, "client.mjs")], "websockets": [sys.executable, os.path.join(HERE, "client.py")]}
UPSTREAMS = {"ws": ["node", os.path.join(SCRIPTS, "upstream.mjs")], "websockets": [sys.executable, os.path.join(HERE, "upstream.py")]}
MODES = ("edge", "pass", "off")

report = Report()


def script(label, command, seconds=CLIENT_S, environment=None):
    """Runs a script that prints a line for each of its cases."""
    began = time.monotonic()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env=environment,
    )
    try:
        out, err = child.communicate(timeout=seconds)
        late = ""
    except subprocess.TimeoutExpired:
        # Asked first, so that it can end what it has started itself.
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(3)
        child.kill()
        out, err = child.communicate()
        late = f"still running after {seconds} s; "
    cases = 0
    for line in out.splitlines():
        if line.startswith("ok "):
            cases += 1
            report.line(f"{label}: {line[3:]}")
        elif line.startswith("FAIL "):
            cases += 1
            # Names have colons of their own.
            name, _, why = line[5:].partition(" -- ")
            report.line(f"{label}: {name}", why)
    # A script that ends early has not run all of its cases.
    if late or not out.endswith("done\n"):
        report.line(f"{label}: runs to its end", f"{late}exit code {child.returncode}; {' '.join(err.split())[-400:]}")
    print(f"      {label}: {cases} cases in {time.monotonic() - began:.1f} s", flush=True)


class Upstream(Process):
    def __init__(self, kind, name, folder):
        self.path = os.path.join(folder, name + ".sock")
        super().__init__([*UPSTREAMS[kind], self.path], os.path.join(LOGS, name + ".log"))
        self.kind = kind
        self.port = self.until(r"ready (\d+)")[1]


def configuration(upstreams, victims, folder, own=None):
    parts = ['version = 1\n[limits]\nmessage_bytes = "16MiB"\nmax_sessions = 2000\n[[listener]]\nbind = "127.0.0.1:0"\n']
    if own:
        parts.append(own.listener())

    def route(path, action, more=""):
        parts.append(f'[[route]]\npath = "{path}"\n{more}{action}\n')

    route("/", "page = {}")
    route("/echo", "echo = {}")
    route("/chat", "echo = {}", 'subprotocols = ["chat.v2", "chat.v1"]\n')
    route("/takeover", "echo = { context_takeover = true }")
    route("/small", "echo = {}", 'limits = { message_bytes = "64KiB" }\n')
    route("/pinged", "echo = {}", 'limits = { ping_interval = "200ms", pong_timeout = "1s" }\n')
    for upstream in upstreams:
        for mode in MODES:
            action = f'proxy = {{ upstreams = ["ws://127.0.0.1:{upstream.port}"], deflate = "{mode}" }}'
            route(f"/{mode}/{upstream.kind}/*", action)
        route(f"/unix/{upstream.kind}/*", f'proxy = {{ upstreams = ["unix:{upstream.path}"] }}')
    for victim in victims:
        route(f"/victim/{victim.kind}/*", f'proxy = {{ upstreams = ["ws://127.0.0.1:{victim.port}"] }}')
    path = os.path.join(folder, "tidegate.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(parts))
    return path


def session(url):
    return connect(url, proxy=None, ping_interval=None, open_timeout=10, close_timeout=10)


def round_trip(url):
    with session(url) as client:
        client.send("over")
        assert client.recv(10) == "over"


def killed(gateway, victim):
    """An upstream's process is killed while sessions are open."""
    url = gateway.url(f"/victim/{victim.kind}/echo")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(session(url)) for _ in range(20)]
        for index, client in enumerate(clients):
            client.send(f"before {index}")
            assert client.recv(10) == f"before {index}"
        victim.kill()
        for client in clients:
            try:
                raise AssertionError(f"a message instead of the end: {client.recv(10)}")
            except ConnectionClosed as closed:
                assert closed.rcvd and closed.rcvd.code == 1011, f"{closed}"
    try:
        session(url).close()
        raise AssertionError("a session without an upstream")
    except InvalidStatus as error:
        assert error.response.status_code == 502, error
    # Nobody else has noticed.
    round_trip(gateway.url("/echo"))


def unix(gateway, kind):
    with session(gateway.url(f"/unix/{kind}/info")) as client:
        info = json.loads(client.recv(10))
        assert info["path"] == f"/unix/{kind}/info", info
        assert info["headers"]["host"] == gateway.address, info
        for message in ("text", b"binary", "", "x" * 70_000):
            client.send(message)
            assert client.recv(10) == message
        client.close(4000, "done")
        assert client.close_code == 4000 and client.close_reason == "done"


def matrix(backend, folder):
    with contextlib.ExitStack() as stack:
        upstreams = [stack.enter_context(Upstream(kind, f"{backend}-{kind}", folder)) for kind in UPSTREAMS]
        victims = [stack.enter_context(Upstream(kind, f"{backend}-victim-{kind}", folder)) for kind in UPSTREAMS]
        own = Certificates(os.path.join(folder, "certificates"))
        config = configuration(upstreams, victims, folder, own)
        log = os.path.join(LOGS, f"gateway-{backend}.log")
        try:
            gateway = stack.enter_context(Gateway(BINARY, ["run", "-c", config, "--io", backend], log))
        except AssertionError as error:
            report.line(f"{backend}: the gateway starts", str(error))
            return
        report.case(f"{backend}: the log names the backend", lambda: gateway.until(rf'"backend chosen","backend":"{backend}"', 1))
        jobs = []
        for client, command in CLIENTS.items():
            jobs.append((f"{backend}, {client} to echo", [*command, gateway.url(), "echo"]))
        for mode in MODES:
            for upstream in UPSTREAMS:
                for client, command in CLIENTS.items():
                    url = gateway.url(f"/{mode}/{upstream}")
                    jobs.append((f"{backend}, {client} to {upstream}, {mode}", [*command, url, mode]))
        secure = gateway.until(r"listening on wss://([0-9.:]+)")[1]
        for client, command in CLIENTS.items():
            label, limits = f"{backend}, {client} over TLS", (CLIENT_S, own.environment())
            jobs.append((f"{label} to echo", [*command, f"wss://{secure}", "echo"], *limits))
            # The two makes on either side, once each.
            other = next(kind for kind in UPSTREAMS if kind != client)
            jobs.append((f"{label} to {other}, edge", [*command, f"wss://{secure}/edge/{other}", "edge"], *limits))
        with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(lambda job: script(*job), jobs))
        typed(report, backend, secure, own, LOGS)
        for upstream in UPSTREAMS:
            report.case(f"{backend}, {upstream} on a unix socket", unix, gateway, upstream)
        for victim in victims:
            report.case(f"{backend}, {victim.kind} killed in the middle: 1011, then 502", killed, gateway, victim)
        if CHROMIUM:
            picture = os.path.join(WORK, "page.png" if backend == "epoll" else f"page-{backend}.png")
            command = ["node", os.path.join(SCRIPTS, "browser.mjs"), CHROMIUM, f"http://{gateway.address}/", picture]
            script(f"{backend}, chromium", command, 90)
            picture = os.path.join(WORK, f"page-{backend}-tls.png")
            command = ["node", os.path.join(SCRIPTS, "browser.mjs"), CHROMIUM, f"https://{secure}/", picture, own.pin]
            script(f"{backend}, chromium over TLS", command, 90)
        else:
            report.line(f"{backend}, chromium", "none is installed")
        report.case(f"{backend}: the gateway has outlived all this, and ends with 0", outlived, gateway)


def outlived(gateway):
    round_trip(gateway.url("/echo"))
    gateway.child.send_signal(signal.SIGTERM)
    code = gateway.wait()
    assert code == 0, f"exit code {code}"
    log = gateway.text()
    assert "panicked" not in log, log[log.index("panicked") - 200 :][:600]


def refused(error, folder):
    """io_uring as in a container that forbids it."""
    before = [sys.executable, os.path.join(HERE, "seccomp.py"), error]
    config = configuration([], [], folder)
    log = os.path.join(LOGS, f"seccomp-{error}")
    label = f"io_uring refused ({error})"

    def auto():
        with Gateway(BINARY, ["run", "-c", config], log + "-auto.log", before) as gateway:
            line = next(line for line in gateway.text().splitlines() if "backend chosen" in line)
            assert "epoll" in line and "io_uring" in line, line
            why = {"EPERM": r"EPERM|[Pp]ermi|seccomp", "ENOSYS": r"ENOSYS|not implemented|kernel"}[error]
            assert re.search(why, line), f"the log does not say why: {line}"
            if error == "EPERM":
                jobs = [(f"{label}, {name} to echo", [*command, gateway.url(), "echo"]) for name, command in CLIENTS.items()]
                with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
                    list(pool.map(lambda job: script(*job), jobs))
            else:
                round_trip(gateway.url("/echo"))
            gateway.child.send_signal(signal.SIGINT)
            assert (code := gateway.wait()) == 0, f"exit code {code}"

    def strict():
        command = [*before, BINARY, "run", "-c", config, "--io", "uring"]
        with Process(command, log + "-uring.log") as gateway:
            code = gateway.wait(20)
            text = gateway.text()
            assert code == 1, f"exit code {code}: {text}"
            assert "io_uring was asked for and cannot be used" in text, text
            assert "listening" not in text, text

    report.case(f"{label}: falls back to epoll, and says why", auto)
    report.case(f"{label}: --io uring ends with 1 and an error", strict)


def profiled(folder):
    """Under the profile that packaging/docker ships: the ring may be used, and nothing else is missed."""
    before = [sys.executable, os.path.join(HERE, "seccomp.py"), PROFILE]
    config = configuration([], [], folder)

    def ring():
        with Gateway(BINARY, ["run", "-c", config], os.path.join(LOGS, "seccomp-profile.log"), before) as gateway:
            line = next(line for line in gateway.text().splitlines() if "backend chosen" in line)
            assert "uring" in line and "epoll" not in line, line
            for name, command in CLIENTS.items():
                script(f"shipped seccomp profile, {name} to echo", [*command, gateway.url(), "echo"])
            gateway.child.send_signal(signal.SIGINT)
            assert (code := gateway.wait()) == 0, f"exit code {code}"

    report.case("shipped seccomp profile: io_uring is used", ring)


def fresh():
    command = [sys.executable, os.path.join(HERE, "fresh.py"), BINARY, LOGS]
    # The default port may be somebody else's: a network of its own, where that is allowed.
    for alone in (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*alone, "true"], capture_output=True, timeout=10).returncode == 0:
                script("fresh", [*alone, *command])
                return
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 9001)) == 0:
            report.line("fresh", "port 9001 is in use, and there is no network of its own to be had")
            return
    script("fresh", command)


def uring_refused():
    """Why io_uring cannot be used here; None where it can."""
    with Process([BINARY, "run", "--io", "uring", "--bind", "127.0.0.1:0"], os.path.join(LOGS, "probe.log")) as probe:
        try:
            probe.until("listening on")
            return None
        except AssertionError:
            found = re.search(r"io_uring was asked for and cannot be used[^\"\n]*", probe.text())
            # Another end than a refusal is for the matrix to tell.
            return found and found[0]


def main():
    began = time.monotonic()
    os.makedirs(LOGS, exist_ok=True)
    os.makedirs(SCRIPTS, exist_ok=True)
    shared = [os.path.join(HERE, "..", "client", name) for name in ("chromium.mjs", "waiting.mjs")]
    for name in [os.path.join(HERE, name) for name in os.listdir(HERE) if name.endswith(".mjs")] + shared:
        shutil.copy(name, SCRIPTS)
    with tempfile.TemporaryDirectory(prefix="tidegate-interop-") as folder:
        # A unix path is short; the checkout's may not be.
        # What a fresh user sees is mostly waiting: the rest goes on meanwhile.
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            seen = pool.submit(fresh)
            for error in ("EPERM", "ENOSYS"):
                refused(error, folder)
            seen.result()
        why = uring_refused()
        counts = {}
        for backend in ("epoll",) if why else ("epoll", "uring"):
            sub = os.path.join(folder, backend)
            os.mkdir(sub)
            before = report.cases()
            matrix(backend, sub)
            counts[backend] = report.cases() - before
        if why:
            report.skip("uring", why, counts["epoll"])
            report.skip("shipped seccomp profile", why, 1 + len(CLIENTS))
        else:
            if counts["uring"] != counts["epoll"]:
                report.line("both backends run the same cases", str(counts))
            profiled(folder)
    print(f"      {time.monotonic() - began:.0f} s in all")
    return report.end()


sys.exit(main())
