#!/usr/bin/env python3
"""Checks the lab itself: is each access what it is called, at each end?

coturn's client judges (RFC 5780), against coturn as the server. Not a test of
sturn: the tests that rely on the lab mean something only while this passes.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import judges
import nat
from lab import SERVER_ADDRESSES, SERVER_ADDRESSES_V6, SIDES, Lab
from processes import exit_on_signals, run
from report import Report
from server import Setup, start_server

# Every type, hairpinning where a type can, and routers behind routers.
ACCESSES = (
    *nat.TYPES,
    *(f"{name}+hairpin" for name, kind in nat.TYPES.items() if kind.turn_back),
    "full-cone/port-restricted",
    "port-restricted/full-cone",
    "full-cone/symmetric",
    "full-cone/full-cone+hairpin",
)
# What still gets through where UDP does not.
FIREWALLS = {"udp-blocked": {("tcp", 443)}, "silent": set()}
# It takes about a twentieth of this.
SECONDS_TO_CHANGE = 5

SERVER = SERVER_ADDRESSES[0]


def main():
    exit_on_signals()
    report = Report("nat")
    setup = Setup(
        listen=tuple((each, 3478) for each in SERVER_ADDRESSES + SERVER_ADDRESSES_V6),
        listen_tcp=((SERVER, 443),),
        relay_addresses=(SERVER,),
        allow_peers=(),
        users={"user": "password"},
        discovery=SERVER_ADDRESSES + SERVER_ADDRESSES_V6,
    )
    with (
        tempfile.TemporaryDirectory() as directory,
        Lab() as lab,
        start_server("coturn", setup, directory, lab.namespace("server")),
        ThreadPoolExecutor(len(SIDES)) as sides,
    ):
        # The judge mostly waits for packets that must not come.
        for done in [sides.submit(judge_side, lab, side, report) for side in SIDES]:
            done.result()
    return report.close()


def judge_side(lab, side, report):
    for access in ACCESSES:
        seconds = lab.nat(side, access)
        judge_access(lab, side, access, seconds, report)
        if access in FIREWALLS:
            judge_firewall(lab, side, access, report)


def judge_access(lab, side, access, seconds, report):
    truth = nat.behaviour(access)
    server = SERVER_ADDRESSES_V6[0] if access.startswith("ipv6") else SERVER
    verdict = judges.natdiscovery(server, lab.namespace(side))
    errors = verdict.errors(truth)
    if seconds > SECONDS_TO_CHANGE:
        errors.append(f"it took {seconds:.1f} s to set up")
    case = f"{access} side={side}"
    if errors:
        report.fail(case, "; the judge ".join(errors), verdict.evidence)
    else:
        report.ok(case, f"{verdict}, set up in {seconds:.2f} s")


def judge_firewall(lab, side, access, report):
    program = str(Path(__file__).with_name("stun.py"))
    for transport, port in ("udp", 3478), ("tcp", 3478), ("tcp", 443):
        asked = run(
            [sys.executable, program, "1", f"{transport}:{SERVER}:{port}"],
            deadline=10,
            namespace=lab.namespace(side),
        )
        case = f"{access} {transport}/{port} side={side}"
        verdict = "answered" if asked.code == 0 else "silent"
        passes = (transport, port) in FIREWALLS[access]
        if (asked.code == 0) == passes and not asked.timed_out:
            report.ok(case, verdict)
        else:
            report.fail(case, verdict, asked.last_lines())


if __name__ == "__main__":
    sys.exit(main())
