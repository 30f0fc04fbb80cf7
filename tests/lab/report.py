"""One line per case, and the count that `scripts/test` adds up."""

import argparse
import json
import os
import threading
import time

from server import KINDS, REPOSITORY

# What each runner says of foreign clients; tests/interop/table.py reads it.
RESULTS = REPOSITORY / "target" / "test-logs"


class Report:
    """Prints each case as it ends and remembers how many passed and failed."""

    def __init__(self, title):
        self.title = title
        self.passed = 0
        self.failed = 0
        self._started = time.monotonic()
        self._results = RESULTS / f"{title}.clients"
        self._results.unlink(missing_ok=True)
        # Cases may end in several threads.
        self._lock = threading.Lock()

    def ok(self, case, detail=""):
        with self._lock:
            self.passed += 1
            self._line(case, "ok", detail)

    def fail(self, case, detail, more=""):
        """`more` is the evidence: the last lines of whoever was involved."""
        with self._lock:
            self.failed += 1
            self._line(case, "FAIL", detail)
            if more:
                print(more, flush=True)

    def tried(self, client, transport, passed, over_ipv6=False):
        """Enters a foreign client's attempt, which may be half of a case, in the
        table of clients and transports. Counts nothing here."""
        attempt = {
            "client": client,
            "transport": transport,
            "passed": passed,
            "over-ipv6": over_ipv6,
        }
        with self._lock:
            RESULTS.mkdir(parents=True, exist_ok=True)
            with self._results.open("a") as results:
                print(json.dumps(attempt), file=results)

    def table(self, rows):
        """Prints rows of cells, the first of them the heads of the columns."""
        rows = list(rows)
        widths = [max(map(len, column)) for column in zip(*rows)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths))
            print(" | ".join(cells).rstrip(), flush=True)

    def close(self):
        """Prints the count; the exit code of the whole run."""
        seconds = time.monotonic() - self._started
        print(f"{self.title}: {seconds:.1f} s")
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 0 if self.passed and not self.failed else 1

    def _line(self, case, verdict, detail):
        print(f"{self.title} {case} {verdict}" + (f" ({detail})" if detail else ""), flush=True)


def parse_arguments(description):
    """The options that all runners share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--server",
        choices=KINDS,
        default=os.environ.get("TEST_SERVER", "sturn"),
        help="the server to test; $STURN names another sturn than target/release/sturn",
    )
    parser.add_argument(
        "--only", metavar="WORD", default="", help="run only the cases whose name has this in it"
    )
    return parser.parse_args()
