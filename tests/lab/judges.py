"""Clients that find out what NAT a host is behind, read as one kind of verdict.

Two of them are not sturn's: coturn's `turnutils_natdiscovery` (RFC 5780) and
the old `stun` (RFC 3489). The lab knows the truth; each judge is compared with
what it is able to tell of it.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import nat
from processes import run
from server import sturn_binary

# The longest that a judge may take; they wait for packets that must not come.
SECONDS_TO_JUDGE = 60


@dataclass(frozen=True)
class Verdict:
    """What a judge says; `told` names the fields that it can tell at all."""

    told: tuple
    passes_udp: bool = True
    kind: str | None = None
    mapping: str | None = None
    filtering: str | None = None
    hairpin: bool | None = None
    # What it printed last.
    evidence: str = ""

    def errors(self, truth):
        """Where it contradicts a nat.Behaviour, one line each."""
        wrong = []
        if self.passes_udp != truth.passes_udp:
            wrong.append(f"says {'' if self.passes_udp else 'no '}UDP passes")
        for name in self.told:
            said, wanted = getattr(self, name), getattr(truth, name)
            if wanted is not None and said != wanted:
                wrong.append(f"says {name} is {said}, not {wanted}")
        return wrong

    def __str__(self):
        said = nat.describe(self.kind, self.mapping, self.filtering, self.hairpin)
        return said or ("unclear" if self.passes_udp else "no answer")


# --- sturn nat -----------------------------------------------------------------


# The exit codes that scripts rely on.
STURN_EXIT_CODES = {
    "open-internet": 0,
    "firewall": 10,
    "full-cone": 11,
    "restricted-cone": 12,
    "port-restricted-cone": 13,
    "symmetric": 14,
    "udp-blocked": 20,
    "unavailable": 69,
}


def sturn(server, namespace):
    """`sturn nat` tells everything, also how it ends."""
    ended = run([sturn_binary(), "nat", server, "--json"], SECONDS_TO_JUDGE, namespace)
    try:
        # Warnings may come before it, on the other stream.
        found = json.loads(ended.output[ended.output.index("{") :])
        return read_sturn(found, ended)
    except (ValueError, KeyError, TypeError) as error:
        said = f"unclear ({ended.ending}: {error})"
        return Verdict(("kind",), kind=said, evidence=ended.last_lines(40))


def read_sturn(found, ended):
    """The only place that knows the names in its JSON."""
    outcome = found["outcome"]
    kind = {"unavailable": "silent"}.get(outcome, outcome)
    if ended.code != STURN_EXIT_CODES.get(outcome):
        kind += f" (which {ended.ending})"
    # In the lab a packet that hairpins gets its external source.
    hairpin = {"external": True, "no": False}.get(found["hairpin"], found["hairpin"])
    return Verdict(
        ("kind", "mapping", "filtering", "hairpin"),
        passes_udp=outcome not in ("udp-blocked", "unavailable"),
        kind=kind,
        mapping=found["mapping"],
        filtering=found["filtering"],
        hairpin=hairpin,
        evidence=ended.last_lines(40),
    )


# --- turnutils_natdiscovery ------------------------------------------------------


def natdiscovery(server, namespace):
    """coturn's client tells behaviours, but not whether there is a NAT.

    Hairpinning is asked for by a process of its own, since both parts mostly
    wait.
    """
    command = "turnutils_natdiscovery"
    with ThreadPoolExecutor(2) as pool:
        parts = [
            pool.submit(run, [command, *options, server], SECONDS_TO_JUDGE, namespace)
            for options in (("-m", "-f"), ("-H",))
        ]
        behaviour, hairpin = (part.result() for part in parts)
    return Verdict(
        ("mapping", "filtering", "hairpin"),
        passes_udp="RFC 5780 response" in behaviour.output,
        mapping=_natdiscovery_says(behaviour.output, "Mapping"),
        filtering=_natdiscovery_says(behaviour.output, "Filtering"),
        hairpin="maybe a successful hairpinning" in hairpin.output,
        evidence=behaviour.last_lines() + "\n" + hairpin.last_lines(5),
    )


def _natdiscovery_says(output, what):
    for behaviour, words in (
        (nat.ENDPOINT_INDEPENDENT, "Endpoint Independent"),
        (nat.ADDRESS_DEPENDENT, "Address Dependent"),
        (nat.ADDRESS_AND_PORT_DEPENDENT, "Address and Port Dependent"),
    ):
        if f"NAT with {words} {what}!" in output:
            return behaviour
    return None


# --- stun ------------------------------------------------------------------------


STUN_SAYS = {
    "Primary: Open": "open-internet",
    "Primary: Firewall": "firewall",
    "Primary: Independent Mapping, Independent Filter": "full-cone",
    "Primary: Independent Mapping, Address Dependent Filter": "restricted-cone",
    "Primary: Independent Mapping, Port Dependent Filter": "port-restricted-cone",
    "Primary: Dependent Mapping": "symmetric",
}


def stun(server, namespace):
    """The client of RFC 3489 names the NAT, and tells whether it hairpins."""
    ended = run(["stun", server], SECONDS_TO_JUDGE, namespace)
    kind = next((kind for words, kind in STUN_SAYS.items() if words in ended.output), None)
    hairpin = {"will hairpin": True, "no hairpin": False}
    return Verdict(
        ("kind", "hairpin") if kind else (),
        passes_udp="Primary: Blocked" not in ended.output,
        kind=kind,
        hairpin=next((said for words, said in hairpin.items() if words in ended.output), None),
        evidence=ended.last_lines(),
    )
