"""Processes that cannot outlive the test that started them.

Each one runs under coreutils' `timeout` in a session of its own, so it ends at
its deadline even if the test itself is killed, and stopping it ends everything
it started, and nothing else.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass

SECONDS_TO_STOP = 1.0

# The processes that run now, and whether the test was told to stop. Then only
# the main thread, which cleans up, may still start any.
_running = set()
_stopping = threading.Event()


@dataclass(frozen=True)
class Finished:
    """A process that has ended: how, and everything it printed."""

    code: int
    output: str

    @property
    def timed_out(self):
        return self.code in (124, 137)

    @property
    def ending(self):
        return "missed its deadline" if self.timed_out else f"ended with {self.code}"

    def last_lines(self, count=15):
        return last_lines(self.output, count)


class Running:
    """A process in the background, stopped when its `with` block ends."""

    def __init__(self, command, deadline, namespace=None, environment=None, stdin=None):
        if _stopping.is_set() and threading.current_thread() is not threading.main_thread():
            raise InterruptedError("the test was told to stop")
        self.name = os.path.basename(command[0])
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            _bounded(command, deadline, namespace),
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        _running.add(self)
        if stdin is not None:
            self._process.stdin.write(stdin.encode())
            self._process.stdin.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def has_ended(self):
        return self._process.poll() is not None

    def wait(self):
        """Waits for the process to end, which its deadline guarantees."""
        code = self._process.wait()
        return Finished(code if code >= 0 else 128 - code, self.output())

    def output(self):
        # The file's position is shared with the process: read without moving it.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def last_lines(self, count=15):
        return last_lines(self.output(), count)

    def stop(self):
        if not self.has_ended:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                pass
        # Also what it left behind in its session.
        self._signal(signal.SIGKILL)
        self._process.wait()
        _running.discard(self)

    def interrupt(self):
        self._signal(signal.SIGTERM)

    def _signal(self, number):
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass


def run(command, deadline, namespace=None, environment=None, stdin=None):
    """Runs a process to its end, or to its deadline in seconds."""
    with Running(command, deadline, namespace, environment, stdin) as process:
        return process.wait()


def must_run(command, deadline=10, namespace=None, stdin=None):
    """Runs a process that the test cannot do without; returns what it printed."""
    finished = run(command, deadline, namespace, stdin=stdin)
    if finished.code != 0:
        raise RuntimeError(f"{' '.join(command)} {finished.ending}\n{finished.last_lines()}")
    return finished.output


def last_lines(text, count):
    return "\n".join("    | " + line for line in text.rstrip().splitlines()[-count:])


def exit_on_signals():
    """Turns being told to stop into an exception, so that clean-up runs."""

    def leave(number, _):
        # A second Ctrl-C must not interrupt the clean-up of the first.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        _stopping.set()
        # Threads that wait for one of these get to their ends at once.
        for process in list(_running):
            process.interrupt()
        sys.exit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, leave)


def _bounded(command, deadline, namespace):
    bound = ["timeout", "--kill-after=2", str(deadline)]
    enter = ["ip", "netns", "exec", namespace] if namespace else []
    return [*bound, *enter, *command]
