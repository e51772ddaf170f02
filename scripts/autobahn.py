#!/usr/bin/env python3
"""The Autobahn TestSuite against the gateway: as a server, as a proxy, as a client.

    scripts/autobahn-setup.sh
    cargo build --release -p tidegate
    cargo build --release -p tidegate-shard --example autobahn_client
    scripts/autobahn.py --quick

`--quick` runs all 517 cases on io_uring and all but sections 12 and 13 (compression) everywhere else, over TLS on
io_uring alone; `--full` runs all 517 everywhere, and with `--write` puts the results into docs/CONFORMANCE.md, those of
`--only` some suites beside what stands there of the others. `--cases` picks cases (`6.4.*`).

The suite's own exit codes say nothing: what counts is its index.json, where each case must have exactly the outcome
that `expected` gives. Needs Python 3.8 and its standard library, and `openssl` for a certificate.
"""

import argparse
import concurrent.futures
import datetime
import fnmatch
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFORMANCE = ROOT / "conformance"
sys.path.insert(0, str(CONFORMANCE))

import certificates  # noqa: E402 (it stands in that folder)

REPORTS = ROOT / ".cache" / "autobahn" / "reports"
DOCUMENT = ROOT / "docs" / "CONFORMANCE.md"

# Autobahn judges these by no rule, whatever the answer is.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

# Seven texts and parameters in section 13, five in section 12, each with 18 sizes: run apart, so that several fit side
# by side. The others are 301 cases.
COMPRESSION = ["12.%d.*" % n for n in range(1, 6)] + ["13.%d.*" % n for n in range(1, 8)]
GROUP = 18

# Seconds. The suite gives its slowest cases 100 to 1000 seconds each; on two idle cores all 301 take about 30 and a
# group of compression about 60.
PART_TIMEOUT = 600
REPORT_TIMEOUT = 60
READY_TIMEOUT = 20
END_TIMEOUT = 15
QUICK_TIMEOUT = 30 * 60
FULL_TIMEOUT = 3 * 60 * 60


class Suite(NamedTuple):
    """One way to run the cases."""

    name: str
    what: str
    io: str
    # Route of proxy.toml and what stands behind it; none: the gateway's own echo.
    route: str = ""
    upstream: str = ""
    client: bool = False
    deflate: bool = True
    # Over TLS, which the gateway ends itself.
    tls: bool = False
    # (cases, OK, INFORMATIONAL, UNIMPLEMENTED); empty: only --full runs it.
    quick: tuple = (301, 298, 3, 0)
    full: tuple = (517, 514, 3, 0)


ALL = (517, 514, 3, 0)
# Where compression is off, sections 12 and 13 find nothing to test.
PLAIN = (517, 298, 3, 216)

SUITES = [
    Suite("uring", "the gateway's echo on io_uring", "uring", quick=ALL),
    Suite("epoll", "the gateway's echo on epoll", "epoll"),
    Suite("tls-uring", "the gateway's echo over `wss://` on io_uring", "uring", tls=True),
    Suite("tls-epoll", "the gateway's echo over `wss://` on epoll", "epoll", tls=True, quick=()),
    Suite("proxy-edge", "proxy with `deflate = \"edge\"`, strict upstream", "uring", "/edge", "strict"),
    Suite("proxy-pass", "proxy with `deflate = \"pass\"`, strict upstream", "uring", "/pass", "strict"),
    Suite("proxy-off", "proxy with `deflate = \"off\"`, strict upstream", "uring", "/off", "strict", deflate=False, full=PLAIN),
    Suite("proxy-edge-permissive", "proxy with `deflate = \"edge\"`, upstream that checks nothing", "uring", "/edge", "permissive"),
    Suite("proxy-off-permissive", "proxy with `deflate = \"off\"`, upstream that checks nothing", "uring", "/off", "permissive",
          deflate=False, full=PLAIN),
    Suite("client-uring", "the client role on io_uring", "uring", client=True),
    Suite("client-epoll", "the client role on epoll", "epoll", client=True),
]


def expected(suite, case):
    """The one right outcome of a case: (behavior, behaviorClose)."""
    if case in INFORMATIONAL:
        return ("INFORMATIONAL", "INFORMATIONAL")
    if not suite.deflate and case.split(".")[0] in ("12", "13"):
        return ("UNIMPLEMENTED", "OK")
    return ("OK", "OK")


class Failure(Exception):
    """Why a part has no result."""


class Processes:
    """All that was started. Each is ended by its own id, whatever happens."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = []
        self.ended = False

    def start(self, command, log, stdout=None):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("TIDEGATE_", "PYTHON"))}
        with self.lock, open(log, "wb") as errors:
            if self.ended:
                raise Failure("interrupted")
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=stdout or errors,
                stderr=errors,
                env=environment,
            )
            process.log = log
            self.running.append(process)
        return process

    def end(self, process):
        """SIGTERM, then SIGKILL; the exit code, None where it had to be killed."""
        code = process.poll()
        if code is None:
            process.terminate()
            try:
                code = process.wait(END_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with self.lock:
            if process in self.running:
                self.running.remove(process)
        return code

    def end_all(self):
        with self.lock:
            self.ended = True
            running = list(self.running)
        for process in running:
            if process.poll() is None:
                process.terminate()
        for process in running:
            self.end(process)


PROCESSES = Processes()


class Ports:
    """Free ports of 127.0.0.1, none given twice in this run."""

    def __init__(self):
        self.lock = threading.Lock()
        self.given = set()

    def free(self):
        with self.lock:
            while True:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    port = probe.getsockname()[1]
                if port not in self.given:
                    self.given.add(port)
                    return port


PORTS = Ports()


def tail(path, lines=3):
    text = pathlib.Path(path).read_text(errors="replace").strip()
    return " | ".join(text.splitlines()[-lines:]) or "its log is empty"


def wait_ready(process, port, name):
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failure("%s ended with %s: %s" % (name, process.returncode, tail(process.log)))
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Failure("%s does not listen after %d s: %s" % (name, READY_TIMEOUT, tail(process.log)))


class Part(NamedTuple):
    """Some cases of a suite, run by one wstest against processes of their own."""

    suite: Suite
    name: str
    cases: list
    exclude: list
    folder: pathlib.Path
    weight: int


class Run:
    def __init__(self, options, deadline, folder):
        self.options = options
        self.deadline = deadline
        self.pair = None
        if any(suite.tls for suite in options.suites):
            # The suite verifies no certificate; that clients which do so get in is for scripts/interop.sh.
            authority = certificates.Authority(folder / "certificates")
            self.pair = authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])

    def part(self, part):
        """Runs it, and gives the outcomes by case id and what is wrong beside them."""
        started = []
        part.folder.mkdir(parents=True)
        begin = time.monotonic()
        try:
            if time.monotonic() >= self.deadline:
                raise Failure("no time left")
            index, problems = self.client(part, started) if part.suite.client else self.server(part, started)
        except Failure as failure:
            index, problems = {}, [str(failure)]
        except OSError as error:
            index, problems = {}, ["%s: %s" % (type(error).__name__, error)]
        finally:
            for process in reversed(started):
                PROCESSES.end(process)
        return part, index, ["%s: %s" % (part.name, problem) for problem in problems], time.monotonic() - begin

    def server(self, part, started):
        """The fuzzing client against the gateway."""
        suite, gateways, path, scheme, bind = part.suite, [], "/", "ws", None
        config = CONFORMANCE / "conformance.toml"
        if suite.upstream == "strict":
            port = self.gateway(part, "upstream", config, suite.io, started, gateways)
        elif suite.upstream == "permissive":
            port = self.permissive(part, started)
        if suite.upstream:
            text = (CONFORMANCE / "proxy.toml").read_text()
            here = "ws://127.0.0.1:9001"
            if text.count('"%s"' % here) != 3:
                raise Failure("proxy.toml no longer names its upstream as %s" % here)
            config = part.folder / "proxy.toml"
            config.write_text(text.replace(here, "ws://127.0.0.1:%d" % port))
            path = suite.route
        if suite.tls:
            scheme = "wss"
            text, place = (CONFORMANCE / "conformance.toml").read_text(), 'bind = "127.0.0.1:9001"\n'
            if text.count(place) != 1:
                raise Failure("conformance.toml no longer has one listener")
            # `--bind` would put a plain listener in this one's place.
            config, bind = part.folder / "tls.toml", PORTS.free()
            listener = 'bind = "127.0.0.1:%d"\n[listener.tls]\n%s' % (bind, certificates.setting(*self.pair))
            config.write_text(text.replace(place, listener))
        port = self.gateway(part, "gateway", config, suite.io, started, gateways, bind)
        self.spec(part, servers=[{"agent": suite.name, "url": "%s://127.0.0.1:%d%s" % (scheme, port, path)}])
        wstest = self.wstest(part, "fuzzingclient", started)
        self.wait(part, wstest, started)
        problems = []
        for process in gateways:
            problems += self.end_gateway(part, process)
        return self.index(part), problems

    def client(self, part, started):
        """The fuzzing server, and the project's client against it."""
        port = PORTS.free()
        url = "ws://127.0.0.1:%d" % port
        self.spec(part, url=url)
        wstest = self.wstest(part, "fuzzingserver", started)
        wait_ready(wstest, port, "wstest")
        client = PROCESSES.start(
            [self.options.client_bin, "--url", url, "--agent", part.suite.name, "--io", part.suite.io],
            part.folder / "client.log",
        )
        started.append(client)
        self.wait(part, client, [wstest, client])
        problems = []
        if client.returncode != 0:
            problems.append("the client ended with %s: %s" % (client.returncode, tail(client.log)))
        # It was asked to write the reports and to end.
        self.wait(part, wstest, [wstest], REPORT_TIMEOUT)
        return self.index(part), problems

    def gateway(self, part, name, config, io, started, gateways, port=None):
        """Its port: that of `config` where it is given, else a free one in the place of what stands there."""
        command = [self.options.bin, "run", "-c", config, "--io", io, "--log", "json"]
        if port is None:
            port = PORTS.free()
            command += ["--bind", "127.0.0.1:%d" % port]
        process = PROCESSES.start(command, part.folder / (name + ".log"))
        process.name, process.io = name, io
        started.append(process)
        gateways.append(process)
        wait_ready(process, port, "the " + name)
        return port

    def end_gateway(self, part, process):
        """A gateway ends cleanly, ran on the backend it was told to, and logged no fault of its own."""
        problems = []
        if process.poll() is not None:
            problems.append("the %s ended by itself with %s: %s" % (process.name, process.returncode, tail(process.log)))
        else:
            code = PROCESSES.end(process)
            if code != 0:
                problems.append("the %s took SIGTERM with %s: %s" % (process.name, code, tail(process.log)))
        log = pathlib.Path(process.log).read_text(errors="replace")
        if part.suite.tls and "listening on wss://" not in log:
            problems.append("the %s does not speak TLS" % process.name)
        if '"backend":"%s"' % process.io not in log:
            problems.append("the %s did not choose %s" % (process.name, process.io))
        faults = [line for line in log.splitlines() if '"level":"ERROR"' in line or "panicked at" in line]
        problems += ["the %s logged: %s" % (process.name, line) for line in faults[:5]]
        return problems

    def permissive(self, part, started):
        process = PROCESSES.start(
            [sys.executable, "-I", CONFORMANCE / "permissive_echo.py"], part.folder / "upstream.log", subprocess.PIPE
        )
        started.append(process)
        with process.stdout as out:
            line = out.readline().decode().strip()
        if not line.isdigit():
            raise Failure("the permissive echo did not start: %s" % tail(process.log))
        return int(line)

    def spec(self, part, **more):
        spec = {
            "outdir": str(part.folder / "reports"),
            "cases": part.cases,
            "exclude-cases": part.exclude,
            "exclude-agent-cases": {},
            **more,
        }
        (part.folder / "spec.json").write_text(json.dumps(spec, indent=1))

    def wstest(self, part, mode, started):
        # `-u 0`: without it a fuzzing server opens a web server on port 8080 too.
        command = [self.options.wstest, "-m", mode, "-s", part.folder / "spec.json", "-u", "0"]
        process = PROCESSES.start(command, part.folder / "wstest.log")
        process.name = "wstest"
        started.append(process)
        return process

    def wait(self, part, process, needed, timeout=PART_TIMEOUT):
        """Until `process` has ended; fails where another that it needs ends before, and when time is out."""
        deadline = min(time.monotonic() + timeout, self.deadline)
        while process.poll() is None:
            for other in needed:
                if other is not process and other.poll() is not None and process.poll() is None:
                    time.sleep(1)
                    if process.poll() is None:
                        name = pathlib.Path(other.log).stem
                        raise Failure("%s ended with %s: %s" % (name, other.returncode, tail(other.log)))
            if time.monotonic() >= deadline:
                raise Failure("not done in time; wstest's last word: %s" % tail(part.folder / "wstest.log", 1))
            time.sleep(0.1)

    def index(self, part):
        path = part.folder / "reports" / "index.json"
        try:
            return json.loads(path.read_text()).get(part.suite.name, {})
        except (OSError, ValueError) as error:
            raise Failure("no report (%s); wstest: %s" % (error, tail(part.folder / "wstest.log"))) from error


def parts_of(suite, options, folder):
    folder = folder / suite.name
    if options.cases:
        return [Part(suite, "some", options.cases, [], folder / "some", 1)]
    parts = [Part(suite, "1-11", ["*"], ["12.*", "13.*"], folder / "1-11", 2)]
    if options.full or suite.quick == ALL:
        weight = 3 if suite.deflate else 1
        parts += [Part(suite, g[:-2], [g], [], folder / g[:-2], weight) for g in COMPRESSION]
    return parts


def judge(suite, index, problems, counts):
    """Every deviation of a suite, as lines."""
    lines = list(problems)
    for case in sorted(index, key=lambda c: [int(n) for n in c.split(".")]):
        outcome = (index[case].get("behavior"), index[case].get("behaviorClose"))
        if outcome != expected(suite, case):
            lines.append("%s: %s, close %s; expected %s, close %s (%s)" % (
                (case,) + outcome + expected(suite, case) + (index[case].get("reportfile"),)))
    found = Counter(outcome.get("behavior") for outcome in index.values())
    if counts is None:
        if not index:
            lines.append("no case was run")
        return lines, found
    got = (len(index), found["OK"], found["INFORMATIONAL"], found["UNIMPLEMENTED"])
    if got != counts:
        lines.append("cases, OK, INFORMATIONAL, UNIMPLEMENTED are %s; expected %s" % (got, counts))
    if {case for case in index if index[case].get("behavior") == "INFORMATIONAL"} != INFORMATIONAL:
        lines.append("the informational cases are not exactly %s" % ", ".join(sorted(INFORMATIONAL)))
    return lines, found


def output(command):
    try:
        result = subprocess.run([str(w) for w in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        return result.stdout.decode(errors="replace").strip().splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired, IndexError) as error:
        raise SystemExit("%s does not work: %s" % (command[0], error))


COLUMNS = ["suite", "what it runs against", "cases", "OK", "informational", "unimplemented", "other", "", "date", "gateway"]
ALIGNMENT = "|---|---|---:|---:|---:|---:|---:|---|---|---|"


def write_document(options, rows):
    """Puts these suites' results into the document; those of the others stay, each with its own date and version."""
    text = DOCUMENT.read_text()
    marked = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.S)
    place = marked.search(text)
    if not place:
        raise SystemExit("%s has no place for the results" % DOCUMENT)
    lines = {name: line for line, name in re.findall(r"^(\| `([\w-]+)` \|.*)$", place.group(0), re.M)}
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    # What was built from a commit is named by it.
    version = "%s, %s" % (output([options.bin, "--version"]), output(["git", "-C", ROOT, "describe", "--always", "--dirty"]))
    for suite, index, found, wrong in rows:
        known = [found["OK"], found["INFORMATIONAL"], found["UNIMPLEMENTED"]]
        cells = ["`%s`" % suite.name, suite.what, len(index), *known, len(index) - sum(known)]
        cells += ["failed" if wrong else "passed", date, version]
        lines[suite.name] = "| %s |" % " | ".join(map(str, cells))
    made = "`scripts/autobahn.py --full --write`, last on %s: %s, Python %s, Linux %s on %s." % (
        date,
        output([options.wstest, "-a"]),
        platform.python_version(),
        platform.release().split("-")[0],
        platform.machine(),
    )
    table = [made, "", "| %s |" % " | ".join(COLUMNS), ALIGNMENT]
    table += [lines[suite.name] for suite in SUITES if suite.name in lines]
    DOCUMENT.write_text(marked.sub(lambda m: m.group(1) + "\n".join(table) + "\n" + m.group(2), text))


def report_folder():
    """A new one, named by time and process; of runs that have ended the last two are kept."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    for old in sorted(REPORTS.iterdir())[:-2]:
        if not os.path.exists("/proc/" + old.name.rpartition("-")[2]):
            shutil.rmtree(old, ignore_errors=True)
    folder = REPORTS / ("%s-%d" % (time.strftime("%Y%m%d-%H%M%S"), os.getpid()))
    folder.mkdir()
    return folder


def arguments():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    extent = parser.add_mutually_exclusive_group(required=True)
    extent.add_argument("--quick", action="store_true", help="all cases on uring, all but 12 and 13 elsewhere, TLS on uring alone")
    extent.add_argument("--full", action="store_true", help="all cases everywhere")
    parser.add_argument("--bin", type=pathlib.Path, default=target / "tidegate")
    parser.add_argument("--client-bin", type=pathlib.Path, default=target / "examples" / "autobahn_client")
    parser.add_argument("--wstest", type=pathlib.Path, default=ROOT / ".cache" / "autobahn" / "wstest")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="suites, as names or patterns: proxy-*")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="only these, as 6.4.1 or 6.4.*; no counts are checked")
    parser.add_argument("--jobs", type=int, default=2, help="parts side by side (default 2)")
    parser.add_argument("--write", action="store_true", help="put the results of --full into docs/CONFORMANCE.md")
    options = parser.parse_args()
    options.suites = [s for s in SUITES if not options.only or any(fnmatch.fnmatch(s.name, o) for o in options.only)]
    for name in options.only or []:
        if not fnmatch.filter([s.name for s in SUITES], name):
            parser.error("no suite %s; there are %s" % (name, ", ".join(s.name for s in SUITES)))
    if not options.full and not options.cases:
        options.suites = [suite for suite in options.suites if suite.quick]
        if not options.suites:
            parser.error("only --full, or --cases, runs these suites")
    if options.write and (not options.full or options.cases):
        parser.error("--write wants --full, and all cases")
    if options.jobs < 1:
        parser.error("--jobs wants at least 1")
    for name in ("bin", "client_bin", "wstest"):
        path = getattr(options, name).resolve()
        wanted = name != "client_bin" or any(suite.client for suite in options.suites)
        if wanted and not os.access(path, os.X_OK):
            parser.error("%s is not there; build it or run scripts/autobahn-setup.sh" % path)
        setattr(options, name, path)
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begin = time.monotonic()
    folder = report_folder()
    run = Run(options, begin + (FULL_TIMEOUT if options.full else QUICK_TIMEOUT), folder)
    parts = [part for suite in options.suites for part in parts_of(suite, options, folder)]
    waiting = Counter(part.suite.name for part in parts)
    indexes = {suite.name: {} for suite in options.suites}
    problems = {suite.name: [] for suite in options.suites}
    rows = {}
    print("%d suites in %d parts, %d at a time; reports in %s" % (len(options.suites), len(parts), options.jobs, folder), flush=True)
    pool = concurrent.futures.ThreadPoolExecutor(options.jobs)
    try:
        # The longest first, so that the last ones end together.
        futures = [pool.submit(run.part, part) for part in sorted(parts, key=lambda part: -part.weight)]
        for future in concurrent.futures.as_completed(futures):
            part, index, wrong, seconds = future.result()
            suite = part.suite
            if not options.cases and part.name != "1-11" and not wrong and len(index) != GROUP:
                wrong.append("%s: %d cases instead of %d" % (part.name, len(index), GROUP))
            indexes[suite.name].update(index)
            problems[suite.name] += wrong
            waiting[suite.name] -= 1
            print("  %s %s: %d cases in %.0f s" % (suite.name, part.name, len(index), seconds), flush=True)
            if waiting[suite.name]:
                continue
            counts = None if options.cases else suite.full if options.full else suite.quick
            wrong, found = judge(suite, indexes[suite.name], problems[suite.name], counts)
            rows[suite.name] = (suite, indexes[suite.name], found, wrong)
            for line in wrong:
                print("%s %s" % (suite.name, line))
            summary = ", ".join("%d %s" % (n, name) for name, n in sorted(found.items(), key=lambda item: -item[1]))
            print("%s: %d cases: %s: %s" % (
                suite.name, len(indexes[suite.name]), summary or "none", "FAILED" if wrong else "passed"), flush=True)
    finally:
        # Whatever runs is ended first, else the pool would wait for it.
        PROCESSES.end_all()
        pool.shutdown()
    if options.write:
        write_document(options, [rows[suite.name] for suite in options.suites])
    failed = sum(1 for row in rows.values() if row[3])
    print("%d passed, %d failed" % (len(rows) - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
