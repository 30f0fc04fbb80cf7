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

from lab import SERVER_ADDRESSES, Lab
from processes import exit_on_signals, run
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


OVER_UDP = End("symmetric", f"turn:{SERVER}:3478?transport=udp", "udp")
OVER_TCP = End("symmetric", f"turn:{SERVER}:3478?transport=tcp", "tcp")
WEB_ONLY = End("udp-blocked", f"turn:{SERVER}:443?transport=tcp", "tcp")

CASES = (
    Case("symmetric-symmetric udp static-user", OVER_UDP, OVER_UDP, time_limited=False),
    Case("symmetric-symmetric tcp time-limited", OVER_TCP, OVER_TCP, time_limited=True),
    Case("udp-blocked-symmetric tcp443-udp time-limited", WEB_ONLY, OVER_UDP, time_limited=True),
)


def main():
    arguments = parse_arguments(__doc__)
    exit_on_signals()
    report = Report("call")
    with Lab() as lab:
        for case in CASES:
            if arguments.only in case.name:
                hold_call(lab, arguments.server, case, report)
    return report.close()


def hold_call(lab, server_kind, case, report):
    lab.nat("a", case.a.nat)
    lab.nat("b", case.b.nat)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        try:
            with start_server(
                server_kind, server_setup(case), directory, lab.namespace("server")
            ) as server:
                called = run(
                    ["node", str(REPOSITORY / "tests/lab/call.mjs")],
                    deadline=SECONDS_PER_CALL + 20,
                    stdin=json.dumps(job(lab, case, directory)),
                )
                judge(case, called, server, report)
        except RuntimeError as error:
            report.fail(case.name, str(error))


def server_setup(case):
    return Setup(
        listen=((SERVER, 3478),),
        listen_tcp=((SERVER, 443),),
        relay_addresses=(SERVER,),
        # The two relayed addresses, which are each other's peers.
        allow_peers=(f"{SERVER}/32",),
        users={USER: PASSWORD},
        secrets=(SECRET,) if case.time_limited else (),
    )


def job(lab, case, directory):
    name, password = time_limited_credentials() if case.time_limited else (USER, PASSWORD)
    return {
        "driver": str(REPOSITORY / ".cache/node/package.json"),
        "directory": directory,
        "seconds": SECONDS_PER_CALL,
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
