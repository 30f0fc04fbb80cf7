#!/usr/bin/env python3
"""Checks the lab itself: is each NAT what it is called?

coturn's client judges (RFC 5780), against coturn as the server with two
addresses that it takes. Not a test of sturn: the tests that rely on the lab
mean something only while this passes.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import SERVER_ADDRESSES, SIDES, Lab
from processes import exit_on_signals, run
from report import Report
from server import Setup, start_server

MAPPING = {
    "EIM": "NAT with Endpoint Independent Mapping!",
    "ADM": "NAT with Address Dependent Mapping!",
    "APDM": "NAT with Address and Port Dependent Mapping!",
}
FILTERING = {
    "EIF": "NAT with Endpoint Independent Filtering!",
    "ADF": "NAT with Address Dependent Filtering!",
    "APDF": "NAT with Address and Port Dependent Filtering!",
}
# What the judge must say of each type.
EXPECTED = {
    "full-cone": ("EIM", "EIF"),
    "address-restricted": ("EIM", "ADF"),
    "port-restricted": ("EIM", "APDF"),
    "symmetric": ("APDM", "APDF"),
    "symmetric-address-dependent": ("ADM", "APDF"),
}


SERVER = SERVER_ADDRESSES[0]


def main():
    exit_on_signals()
    report = Report("nat")
    setup = Setup(
        listen=tuple((each, 3478) for each in SERVER_ADDRESSES),
        listen_tcp=((SERVER, 443),),
        relay_addresses=(SERVER,),
        allow_peers=(),
        users={"user": "password"},
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
    for kind, behaviour in EXPECTED.items():
        lab.nat(side, kind)
        judge_nat(lab, side, kind, behaviour, report)
    lab.nat(side, "udp-blocked")
    judge_firewall(lab, side, report)


def judge_nat(lab, side, kind, behaviour, report):
    found = run(
        ["turnutils_natdiscovery", "-m", "-f", SERVER],
        deadline=20,
        namespace=lab.namespace(side),
    )
    case = f"{kind} side={side}"
    mapping, filtering = behaviour
    if MAPPING[mapping] in found.output and FILTERING[filtering] in found.output:
        report.ok(case, f"{mapping}/{filtering}")
    else:
        wanted = f"wanted {mapping}/{filtering}; the judge {found.ending}"
        report.fail(case, wanted, found.last_lines())


def judge_firewall(lab, side, report):
    program = str(Path(__file__).with_name("stun.py"))
    for endpoint, passes in (("udp", 3478), False), (("tcp", 3478), False), (("tcp", 443), True):
        transport, port = endpoint
        asked = run(
            [sys.executable, program, "1", f"{transport}:{SERVER}:{port}"],
            deadline=10,
            namespace=lab.namespace(side),
        )
        case = f"udp-blocked {transport}/{port} side={side}"
        verdict = "answered" if asked.code == 0 else "silent"
        if (asked.code == 0) == passes and not asked.timed_out:
            report.ok(case, verdict)
        else:
            report.fail(case, verdict, asked.last_lines())


if __name__ == "__main__":
    sys.exit(main())
