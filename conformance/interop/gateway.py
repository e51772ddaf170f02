"""Processes of the checks: each is ended by its id, whatever happens."""

import os
import re
import subprocess
import threading
import time

START_S = 20
END_S = 15


class Process:
    """A child whose standard output and error go to a file."""

    def __init__(self, command, log, environment=None):
        self.log = log
        self.command = command
        with open(log, "wb") as file:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()

    def wait(self, seconds=END_S):
        """The exit code."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s") from None

    def until(self, pattern, seconds=START_S):
        """Waits until the log matches."""
        deadline = time.monotonic() + seconds
        while True:
            code = self.child.poll()
            if found := re.search(pattern, self.text()):
                return found
            if code is not None:
                raise AssertionError(f"ended with {code} instead of {pattern!r}: {self.text()[-400:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} within {seconds} s: {self.text()[-400:]}")
            time.sleep(0.02)


class Gateway(Process):
    """Tidegate, as soon as it listens."""

    def __init__(self, binary, arguments, log, before=()):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
        super().__init__([*before, binary, *arguments], log, environment)
        try:
            self.address = self.until(r"listening on ws://([0-9.:]+)")[1]
        except AssertionError:
            self.kill()
            raise

    def url(self, path=""):
        return f"ws://{self.address}{path}"


class Report:
    """One line a case; the count at the end."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self.lock = threading.Lock()

    def line(self, name, why=None):
        with self.lock:
            if why is None:
                self.passed += 1
                print(f"ok    {name}", flush=True)
            else:
                self.failed += 1
                self.failures.append(f"{name}: {why}")
                print(f"FAIL  {name}: {why}", flush=True)

    def skip(self, name, why, cases):
        """So many cases were left out; they are neither passed nor failed."""
        with self.lock:
            self.skipped += cases
            print(f"SKIPPED  {name}, {cases} cases: {why}", flush=True)

    def cases(self):
        with self.lock:
            return self.passed + self.failed

    def case(self, name, body, *arguments):
        began = time.monotonic()
        try:
            body(*arguments)
            self.line(name)
        except Exception as error:
            why = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:600]
            self.line(f"{name} ({time.monotonic() - began:.1f} s)", why)

    def end(self):
        if self.failures:
            print("\nfailures:")
            for failure in self.failures:
                print("  " + failure)
        skipped = f" ({self.skipped} skipped)" if self.skipped else ""
        print(f"{self.passed} passed, {self.failed} failed{skipped}")
        return 1 if self.failed or not self.passed else 0
