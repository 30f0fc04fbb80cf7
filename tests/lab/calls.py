#!/usr/bin/env python3
"""Two headless Chromiums behind NATs hold a video call through the server.

Both may use relayed candidates only. A call passes when each side has decoded
FRAMES frames of the other's video, over the transport the case asks for.
"""

import base64
import hashlib
import hmac
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lab import SERVER_ADDRESSES, Lab
from processes import exit_on_signals, must_run, run
from report import Report, parse_arguments
from server import REPOSITORY, SECRET, Setup, start_server

SERVER = SERVER_ADDRESSES[0]
USER, PASSWORD = "browser", "password of the browser"
FRAMES = 30
# From the first browser's start to the last frame.
SECONDS_PER_CALL = 40


@dataclass(frozen=True)
class End:
    """One end of a call: its NAT, the TURN server it is told, what it must use."""

    nat: str
    url: str
    relay_protocol: str


@dataclass(frozen=True)
class Case:
    name: str
    a: End
    b: End
    time_limited: bool
    # The address in the server's certificate, whose authority the browsers trust.
    certified: str = ""


OVER_UDP = End("symmetric", f"turn:{SERVER}:3478?transport=udp", "udp")
OVER_TCP = End("symmetric", f"turn:{SERVER}:3478?transport=tcp", "tcp")
WEB_ONLY_TLS = End("udp-blocked", f"turns:{SERVER}:443?transport=tcp", "tls")
WEB_ONLY = End("udp-blocked", f"turn:{SERVER}:443?transport=tcp", "tcp")

CASES = (
    Case("symmetric-symmetric udp static-user", OVER_UDP, OVER_UDP, time_limited=False),
    Case("symmetric-symmetric tcp time-limited", OVER_TCP, OVER_TCP, time_limited=True),
    Case("udp-blocked-symmetric tcp443-udp time-limited", WEB_ONLY, OVER_UDP, time_limited=True),
    Case(
        "udp-blocked-symmetric turns443-udp time-limited",
        WEB_ONLY_TLS,
        OVER_UDP,
        time_limited=True,
        certified=SERVER,
    ),
)

# Browsers take no certificate for another address, and say so.
REFUSED = Case(
    "turns443 wrong-address refused", WEB_ONLY_TLS, WEB_ONLY_TLS, True, certified="203.0.113.99"
)
SECONDS_FOR_A_REFUSAL = 12


def main():
    arguments = parse_arguments(__doc__)
    exit_on_signals()
    report = Report("call")
    with Lab() as lab:
        for case in (*CASES, REFUSED):
            if arguments.only in case.name:
                hold_call(lab, arguments.server, case, report)
    return report.close()


def hold_call(lab, server_kind, case, report):
    lab.nat("a", case.a.nat)
    lab.nat("b", case.b.nat)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        try:
            certificate = certify(case.certified, Path(directory)) if case.certified else ()
            setup = server_setup(case, certificate)
            with start_server(
                server_kind, setup, directory, lab.namespace("server")
            ) as server:
                called = run(
                    ["node", str(REPOSITORY / "tests/lab/call.mjs")],
                    deadline=SECONDS_PER_CALL + 20,
                    stdin=json.dumps(job(lab, case, directory)),
                )
                judging = judge_refusal if case is REFUSED else judge
                judging(case, called, server, report)
        except RuntimeError as error:
            report.fail(case.name, str(error))


def certify(address, directory):
    """A private authority, trusted by browsers whose home is `directory`, and a
    certificate of it for an address: the files of chain and key."""
    names = ("ca.pem", "ca.key", "chain.pem", "key.pem")
    authority, authority_key, chain, key = (str(directory / name) for name in names)
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    make = ("openssl", "req", "-x509", *new_key)
    must_run([*make, "-subj", "/CN=lab authority", "-keyout", authority_key, "-out", authority])
    signed_by = ("-CA", authority, "-CAkey", authority_key, "-addext")
    for_address = (f"subjectAltName=IP:{address}", "-addext", "basicConstraints=CA:FALSE")
    must_run([*make, "-subj", "/CN=turn", *signed_by, *for_address, "-keyout", key, "-out", chain])
    database = directory / ".pki" / "nssdb"
    database.mkdir(parents=True)
    certutil = ("certutil", "-d", f"sql:{database}")
    must_run([*certutil, "-N", "--empty-password"])
    must_run([*certutil, "-A", "-t", "C,,", "-n", "lab authority", "-i", authority])
    return chain, key


def server_setup(case, certificate):
    return Setup(
        listen=((SERVER, 3478),),
        listen_tcp=((SERVER, 443),),
        relay_addresses=(SERVER,),
        # The two relayed addresses, which are each other's peers.
        allow_peers=(f"{SERVER}/32",),
        users={USER: PASSWORD},
        secrets=(SECRET,) if case.time_limited else (),
        certificate=certificate,
    )


def job(lab, case, directory):
    name, password = time_limited_credentials() if case.time_limited else (USER, PASSWORD)
    return {
        "driver": str(REPOSITORY / ".cache/node/package.json"),
        "directory": directory,
        "seconds": SECONDS_FOR_A_REFUSAL if case is REFUSED else SECONDS_PER_CALL,
        "frames": FRAMES,
        "sides": {
            side: {
                "namespace": lab.namespace(side),
                "iceServers": [{"urls": [end.url], "username": name, "credential": password}],
            }
            for side, end in (("a", case.a), ("b", case.b))
        },
    }


def time_limited_credentials():
    """A user name that expires in ten minutes, and its password."""
    name = f"{int(time.time()) + 600}:{USER}"
    code = hmac.new(SECRET.encode(), name.encode(), hashlib.sha1).digest()
    return name, base64.b64encode(code).decode()


def judge(case, called, server, report):
    try:
        result = json.loads(called.output.splitlines()[-1])
    except (IndexError, ValueError):
        report.fail(case.name, f"the browsers' driver {called.ending}", called.last_lines())
        return
    sides = result["sides"]
    wrong = result["error"] or next(
        (
            f"side {side} must relay over {end.relay_protocol}"
            for side, end in (("a", case.a), ("b", case.b))
            if not is_as_wanted(end, sides[side])
        ),
        None,
    )
    if wrong:
        report.fail(case.name, wrong, evidence(sides, server))
    else:
        report.ok(case.name, "; ".join(f"{side}: {summary(sides[side])}" for side in sides))


def judge_refusal(case, called, server, report):
    try:
        sides = json.loads(called.output.splitlines()[-1])["sides"]
    except (IndexError, ValueError):
        report.fail(case.name, f"the browsers' driver {called.ending}", called.last_lines())
        return
    # 701: the server could not be reached; a browser tells pages no more.
    refused = all(any("error 701" in line for line in side["log"]) for side in sides.values())
    connected = any(side.get("connectedAfter") for side in sides.values())
    if refused and not connected:
        report.ok(case.name, "both browsers refuse the certificate")
    else:
        report.fail(case.name, "not refused by both browsers", evidence(sides, server))


def summary(side):
    return (
        f"{side['local']}-{side['remote']} over {side['relayProtocol']}, "
        f"{side['frames']} frames, connected in {side['connectedAfter']} ms"
    )


def is_as_wanted(end, side):
    return (
        side["local"] == side["remote"] == "relay"
        and side["relayProtocol"] == end.relay_protocol
        and side["frames"] >= FRAMES
    )


def evidence(sides, server):
    lines = []
    for name, side in sides.items():
        lines.append(f"  browser {name}: {side.get('state')}, {side.get('frames')} frames")
        lines += [f"    | {line}" for line in side["log"]]
    lines += [f"  {server.name}, its last lines:", server.last_lines()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
