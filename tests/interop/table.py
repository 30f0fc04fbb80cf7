#!/usr/bin/env python3
"""The table of foreign clients and transports, from what the runners wrote.

table.py DIRECTORY reads the files `*.clients` there, one attempt on each line
(report.py writes them), and prints how many passed of those that were made.
"""

import json
import sys
from collections import Counter
from pathlib import Path

TRANSPORTS = ("UDP", "TCP", "TLS", "DTLS", "TCP relay")
# These attempts are counted under their transports too.
OVER_IPV6 = "over IPv6"
COLUMNS = (*TRANSPORTS, OVER_IPV6)
NONE = "-"


def main(directory):
    attempts = [
        json.loads(line)
        for file in sorted(Path(directory).glob("*.clients"))
        for line in file.read_text().splitlines()
    ]
    if not attempts:
        return
    for row in rows(attempts):
        print(f"{row[0]:24}" + "".join(f"{cell:>11}" for cell in row[1:]))


def rows(attempts):
    made, passed = Counter(), Counter()
    for attempt in attempts:
        if attempt["transport"] not in TRANSPORTS:
            raise ValueError(f"no transport: {attempt}")
        for column in columns(attempt):
            made[attempt["client"], column] += 1
            passed[attempt["client"], column] += attempt["passed"]
    yield ("client", *COLUMNS)
    for client in dict.fromkeys(attempt["client"] for attempt in attempts):
        yield (client, *(cell(passed[client, each], made[client, each]) for each in COLUMNS))


def columns(attempt):
    return (attempt["transport"], OVER_IPV6) if attempt["over-ipv6"] else (attempt["transport"],)


def cell(passed, made):
    return f"{passed}/{made}" if made else NONE


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
