#!/usr/bin/env python3
"""The pair matrix: which NATs connect directly, and which need the relay?

Behind each pair of accesses two real ICE agents (aioice, agent.py) may use
whatever they find, with STUN and TURN from the server under test. They must
get through, directly where the NATs allow it and over the relay where not.
"""

import json
import sys
import tempfile
from itertools import combinations_with_replacement
from pathlib import Path

import nat
from lab import SEEN_FROM_OUTSIDE, SERVER_ADDRESSES, SIDES, Lab
from processes import Running, exit_on_signals
from report import Report, parse_arguments
from server import REPOSITORY, Setup, start_server

SERVER = SERVER_ADDRESSES[0]
USER, PASSWORD = "agent", "password-of-the-agent"
ACCESSES = (
    "open",
    "one-to-one",
    "full-cone",
    "address-restricted",
    "port-restricted",
    "symmetric-address-dependent",
    "symmetric",
    "udp-blocked",
)
SECONDS_PER_PAIR = 25


def main():
    arguments = parse_arguments(__doc__)
    exit_on_signals()
    report = Report("pair")
    setup = Setup(
        listen=((SERVER, 3478),),
        listen_tcp=((SERVER, 443),),
        relay_addresses=(SERVER,),
        allow_peers=tuple(each for each in SEEN_FROM_OUTSIDE if ":" not in each),
        users={USER: PASSWORD},
    )
    found = {}
    with tempfile.TemporaryDirectory() as directory, Lab() as lab:
        try:
            with start_server(
                arguments.server, setup, directory, lab.namespace("server")
            ) as server:
                for pair in combinations_with_replacement(ACCESSES, 2):
                    if arguments.only in case_name(pair):
                        found[pair] = connect(lab, server, directory, pair, report)
        except RuntimeError as error:
            report.fail("start", str(error))
    report.table(rows(found))
    return report.close()


def case_name(pair):
    return f"{pair[0]} - {pair[1]}"


def expected(pair):
    """Direct, unless a symmetric NAT meets one that wants to know the port."""
    one, other = map(nat.behaviour, pair)
    if not (one.passes_udp and other.passes_udp):
        return "relay"
    hopeless = hides_port_needed_by(one, other) or hides_port_needed_by(other, one)
    return "relay" if hopeless else "direct"


def hides_port_needed_by(one, other):
    """Whether `other` lets in only a port that `one` does not tell in advance."""
    return (
        one.mapping != nat.ENDPOINT_INDEPENDENT
        and other.filtering == nat.ADDRESS_AND_PORT_DEPENDENT
    )


def connect(lab, server, directory, pair, report):
    """Runs an agent at each end; what became of it: direct, relay or failed."""
    for side, access in zip(SIDES, pair):
        lab.nat(side, access)
    meet = str(Path(directory, "-".join(pair).replace("/", "+")))
    agents = [
        Running(
            command(access, meet, controlling=side == "a"), SECONDS_PER_PAIR, lab.namespace(side)
        )
        for side, access in zip(SIDES, pair)
    ]
    try:
        ended = [agent.wait() for agent in agents]
    finally:
        for agent in agents:
            agent.stop()
    try:
        ends = [json.loads(each.output.splitlines()[-1]) for each in ended]
        outcome = judge(ends)
    except (IndexError, ValueError) as error:
        ends, outcome = [], f"failed: {error}"
    record(pair, ends, outcome, ended, server, report)
    return outcome.split(":")[0]


def command(access, meet, controlling):
    """An agent behind a firewall that drops UDP is told where TCP passes."""
    over_tcp = not nat.behaviour(access).passes_udp
    job = {
        "meet": meet,
        "controlling": controlling,
        "stun": (SERVER, 3478),
        "turn": {
            "address": (SERVER, 443 if over_tcp else 3478),
            "transport": "tcp" if over_tcp else "udp",
            "username": USER,
            "password": PASSWORD,
        },
    }
    python = str(REPOSITORY / ".cache/venv/bin/python")
    return [python, str(Path(__file__).with_name("agent.py")), json.dumps(job)]


def judge(ends):
    """By what both ends say, and by where they send to."""
    if any(end["received"] != end["messages"] for end in ends):
        return "failed: messages lost"
    relayed = [
        "relay" in (end["local"], end["remote"]) or end["remote_address"] == SERVER for end in ends
    ]
    if relayed[0] != relayed[1]:
        return "failed: the ends disagree on the path"
    return "relay" if relayed[0] else "direct"


def record(pair, ends, outcome, ended, server, report):
    wanted = expected(pair)
    paths = "; ".join(f"{side}: {end['local']}-{end['remote']}" for side, end in zip(SIDES, ends))
    if outcome == wanted:
        report.ok(case_name(pair), f"{outcome}; {paths}")
        return
    evidence = []
    for side, each in zip(SIDES, ended):
        evidence += [f"  agent {side} {each.ending}:", each.last_lines(40)]
    evidence += [f"  {server.name}, its last lines:", server.last_lines()]
    report.fail(case_name(pair), f"{outcome}, wanted {wanted}; {paths}", "\n".join(evidence))


def rows(found):
    """A triangle; what was not as wanted is marked."""
    yield ("", *(each[:13] for each in ACCESSES))
    for index, row in enumerate(ACCESSES):
        cells = []
        for column in ACCESSES:
            pair = (column, row)
            outcome = found.get(pair, "")
            wrong = outcome and outcome != expected(pair)
            cells.append(f"{outcome} (wanted {expected(pair)})" if wrong else outcome)
        yield (row, *cells)


if __name__ == "__main__":
    sys.exit(main())
