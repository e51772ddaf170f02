"""A gateway on one core and its load on another, for the scripts here that measure what something else costs them."""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


class Gateway:
    """One that runs: its process, and what it has said so far."""

    def __init__(self, process, log):
        self.process, self.log = process, log

    def says(self, beginning):
        """Waits for a message with this beginning; gives the rest."""
        until = time.monotonic() + 10
        while True:
            for line in self.log.read_text().splitlines():
                message = json.loads(line)["message"]
                if message.startswith(beginning):
                    return message.removeprefix(beginning)
            if time.monotonic() > until or self.process.poll() is not None:
                raise SystemExit(f"the gateway has not said {beginning!r}: {self.log.read_text()}")
            time.sleep(0.02)

    def load(self, arguments, url):
        """What `tidegate-loadtest echo` reports."""
        command = ["taskset", "-c", "1", RELEASE / "tidegate-loadtest", "echo", *arguments]
        command += ["--pid", str(self.process.pid), "--json", "-", url]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        if report["errors"]["total"]:
            raise SystemExit(f"errors under load: {report['errors']}")
        return report


@contextlib.contextmanager
def gateway(config):
    """Starts one with this configuration, in which `{folder}` is a folder of its own, and ends it."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = pathlib.Path(folder, "tidegate.toml"), pathlib.Path(folder, "log")
        path.write_text(config.replace("{folder}", folder))
        command = ["taskset", "-c", "0", RELEASE / "tidegate", "run", "-c", path, "--log", "json"]
        with open(log, "wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            yield Gateway(process, log)
        finally:
            process.terminate()
            process.wait()
