#!/usr/bin/env python3
"""The NAT matrix: is what clients find out through the server what there is?

Behind each access of the lab, `sturn nat` and two foreign clients ask the
server under test, and `sturn nat` also asks coturn; each must tell what the
lab's NAT is. So the server is checked by clients, and the client by servers,
that are not sturn's.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

import judges
import nat
from lab import (
    OTHER_ADDRESSES,
    OTHER_ADDRESSES_V6,
    SERVER_ADDRESSES,
    SERVER_ADDRESSES_V6,
    SIDES,
    Lab,
)
from nats import ACCESSES
from processes import exit_on_signals
from report import Report, parse_arguments
from server import Setup, start_server

TESTED = (SERVER_ADDRESSES, SERVER_ADDRESSES_V6)
COTURN = (OTHER_ADDRESSES, OTHER_ADDRESSES_V6)

# The judge, whom it asks, and whether it can ask over IPv6.
JUDGES = {
    "sturn nat": (judges.sturn, TESTED, True),
    "natdiscovery": (judges.natdiscovery, TESTED, True),
    "stun": (judges.stun, TESTED, False),
    "sturn nat at coturn": (judges.sturn, COTURN, True),
}

# The foreign clients among them that ask the tested server, by their commands.
FOREIGN = {"natdiscovery": "turnutils_natdiscovery", "stun": "stun"}

# OTHER-ADDRESS is relative to where a request came in (RFC 5780 section 7.4).
# coturn says the same at all its addresses, and its client relies on that: it
# goes on with the OTHER-ADDRESS of its second answer, so elsewhere its third
# request returns to the first address. That spoils just one verdict.
MISLED = {("natdiscovery", "symmetric-address-dependent"): nat.ADDRESS_AND_PORT_DEPENDENT}
MISLED_MARK = " [1]"
FOOTNOTE = "[1] as its client must be misled by a server that is not coturn; see MISLED"


def main():
    arguments = parse_arguments(__doc__)
    exit_on_signals()
    report = Report("discovery")
    cases = {access: chosen(access, arguments.only) for access in ACCESSES}
    cells = {}
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        try:
            servers = [
                start(stack, lab, arguments.server, TESTED),
                start(stack, lab, "coturn", COTURN),
            ]
        except RuntimeError as error:
            report.fail("start", str(error))
        else:
            judge_all(lab, cases, cells, servers, report)
    report.table(rows(cells))
    print(FOOTNOTE)
    return report.close()


def chosen(access, word):
    """The judges that this access is put before."""
    over_ipv6 = access.startswith("ipv6")
    return [
        name
        for name, (_, _, knows_ipv6) in JUDGES.items()
        if word in f"{access}: {name}" and (knows_ipv6 or not over_ipv6)
    ]


def start(stack, lab, kind, addresses):
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    discovery = addresses[0] + addresses[1]
    setup = Setup(
        listen=tuple((each, 3478) for each in discovery),
        # What the firewall that knows only the web lets through.
        listen_tcp=((addresses[0][0], 443),),
        relay_addresses=addresses[0][:1],
        allow_peers=(),
        users={"user": "password"},
        discovery=discovery,
    )
    return stack.enter_context(start_server(kind, setup, directory, lab.namespace("server")))


def judge_all(lab, cases, cells, servers, report):
    """Both sides work off the accesses: judges mostly wait."""
    waiting = SimpleQueue()
    for access, names in cases.items():
        if names:
            waiting.put((access, names))

    def work(side):
        while True:
            try:
                access, names = waiting.get_nowait()
            except Empty:
                return
            cells[access] = judge_access(lab, side, access, names, servers, report)

    with ThreadPoolExecutor(len(SIDES)) as sides:
        for done in [sides.submit(work, side) for side in SIDES]:
            done.result()


def judge_access(lab, side, access, names, servers, report):
    """The cells of one row, by judge: what each says, and whether it is right."""
    lab.nat(side, access)
    version = 1 if access.startswith("ipv6") else 0
    with ThreadPoolExecutor(len(names)) as together:
        asked = {
            name: together.submit(judge, addresses[version][0], lab.namespace(side))
            for name, (judge, addresses, _) in JUDGES.items()
            if name in names
        }
    row = {}
    for name, future in asked.items():
        truth, mark = truth_for(name, access, servers[0])
        verdict = future.result()
        errors = verdict.errors(truth)
        if name in FOREIGN:
            report.tried(FOREIGN[name], "UDP", not errors, over_ipv6=version == 1)
        record(f"{access}: {name}", verdict, errors, servers, report)
        row[name] = (f"{verdict}{mark}", not errors)
    return row


def truth_for(name, access, server):
    """What this judge must say of this access, and a mark if that is not the truth."""
    truth = nat.behaviour(access)
    mapping = MISLED.get((name, access))
    if mapping and server.name != "turnserver":
        return replace(truth, mapping=mapping), MISLED_MARK
    return truth, ""


def record(case, verdict, errors, servers, report):
    if not errors:
        report.ok(case, str(verdict))
        return
    evidence = [verdict.evidence]
    for server in servers:
        evidence += [f"  {server.name}, its last lines:", server.last_lines(5)]
    report.fail(case, "; ".join(errors), "\n".join(evidence))


def rows(cells):
    yield ("lab", "truth", *JUDGES, "agree")
    for access in ACCESSES:
        row = cells.get(access)
        if row is None:
            continue
        wrong = [name for name, (_, right) in row.items() if not right]
        said = (row[name][0] if name in row else "-" for name in JUDGES)
        agree = "no: " + ", ".join(wrong) if wrong else "yes"
        yield (access, str(nat.behaviour(access)), *said, agree)


if __name__ == "__main__":
    sys.exit(main())
