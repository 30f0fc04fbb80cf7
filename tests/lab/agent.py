#!/usr/bin/env python3
"""One end of a connection: a real ICE agent (aioice), told what to do by JSON.

agent.py JOB; the two ends signal over the Unix socket at JOB's `meet`, where
the one with `controlling` waits for the other. Prints the selected pair, and
how many messages came back intact, as one line of JSON.
"""

import asyncio
import json
import logging
import os
import sys
import time

from aioice import Candidate, Connection

MESSAGES = 10
BYTES = 500
SECONDS_FOR_ALL = 20
# How long candidates are gathered where a server does not answer.
SECONDS_TO_GATHER = 2
# Checks are sent at 0, 0.5 and 1.5 s. If none has got through directly by
# then, none will, and the best relayed pair is nominated.
SECONDS_FOR_DIRECT = 2
SECONDS_BETWEEN_LOOKS = 0.02


class Agent(Connection):
    """ICE with regular nomination (RFC 8445 section 8.1.1).

    Left alone, aioice nominates whichever pair succeeds first, and a relayed one
    can be faster than a direct one whose first check met a closed NAT.
    """

    async def get_component_candidates(self, component, addresses, timeout=SECONDS_TO_GATHER):
        return await super().get_component_candidates(component, addresses, timeout)

    def nominate_nothing(self):
        """Only checks, until `nominate_best`."""
        # Checks go without USE-CANDIDATE ...
        self.remote_is_lite = True
        # ... and none is followed by one that has it, as if another already was.
        self._nominating.add(1)

    async def nominate_best(self):
        """Waits for a direct pair, or for long enough, and nominates the best."""
        deadline = time.monotonic() + SECONDS_FOR_DIRECT
        while not (valid := self._valid_pairs()) or is_relayed(valid[0]):
            if valid and time.monotonic() > deadline:
                break
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        await self._nominate(valid[0])

    def selected_pair(self):
        return self._nominated[1]

    async def _nominate(self, pair):
        request = self.build_request(pair, nominate=True)
        key = self.remote_password.encode()
        await pair.protocol.request(request, pair.remote_addr, integrity_key=key)
        pair.nominated = True
        self.check_complete(pair)

    def _valid_pairs(self):
        """By priority, which is the order of the check list."""
        return [pair for pair in self._check_list if pair.state == pair.State.SUCCEEDED]


def is_relayed(pair):
    return "relay" in (pair.local_candidate.type, pair.remote_candidate.type)


async def main(job):
    async with asyncio.timeout(SECONDS_FOR_ALL):
        reader, writer = await meet(job)
        agent = Agent(ice_controlling=job["controlling"], **servers(job))
        try:
            await agent.gather_candidates()
            await introduce(agent, reader, writer)
            await connect(agent, job["controlling"])
            received = await exchange(agent, job["controlling"])
            pair = agent.selected_pair()
            # Neither may leave while the other still needs it.
            await tell(writer, "done")
            await hear(reader)
        finally:
            await agent.close()
            writer.close()
    print(json.dumps({**describe(pair), "received": received, "messages": MESSAGES}))


def servers(job):
    """The servers by the names that aioice has for them."""
    stun, turn = job["stun"], job["turn"]
    return {
        "stun_server": tuple(stun) if stun else None,
        "turn_server": tuple(turn["address"]),
        "turn_transport": turn["transport"],
        "turn_username": turn["username"],
        "turn_password": turn["password"],
        "use_ipv6": False,
    }


# --- signalling -----------------------------------------------------------------


async def meet(job):
    """The two ends of the Unix socket."""
    path = job["meet"]
    if not job["controlling"]:
        while not os.path.exists(path):
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        return await asyncio.open_unix_connection(path)
    met = asyncio.get_running_loop().create_future()
    early = path + ".early"
    # Renamed once it listens, so that it can be connected to when it is seen.
    await asyncio.start_unix_server(lambda *ends: met.set_result(ends), early)
    os.rename(early, path)
    return await met


async def tell(writer, what):
    writer.write(json.dumps(what).encode() + b"\n")
    await writer.drain()


async def hear(reader):
    line = await reader.readline()
    if not line:
        raise ConnectionError("the other agent gave up")
    return json.loads(line)


async def introduce(agent, reader, writer):
    candidates = [each.to_sdp() for each in agent.local_candidates]
    await tell(writer, [agent.local_username, agent.local_password, candidates])
    agent.remote_username, agent.remote_password, candidates = await hear(reader)
    for each in candidates:
        await agent.add_remote_candidate(Candidate.from_sdp(each))


# --- connection -----------------------------------------------------------------


async def connect(agent, controlling):
    if not controlling:
        await agent.add_remote_candidate(None)
        await agent.connect()
        return
    agent.nominate_nothing()
    connected = asyncio.create_task(agent.connect())
    await agent.nominate_best()
    # Said last, because with no candidates to come and nothing nominated
    # aioice calls a list of finished checks failed.
    await agent.add_remote_candidate(None)
    await connected


async def exchange(agent, controlling):
    """Each message goes there and comes back; counts those that did intact."""
    received = 0
    for index in range(MESSAGES):
        message = b"%04d" % index + bytes([index]) * (BYTES - 4)
        if controlling:
            await agent.send(message)
            received += await agent.recv() == message
        else:
            got = await agent.recv()
            received += got == message
            await agent.send(got)
    return received


def describe(pair):
    return {
        "local": pair.local_candidate.type,
        "remote": pair.remote_candidate.type,
        "remote_address": pair.remote_addr[0],
    }


if __name__ == "__main__":
    # What it prints is only shown when a test fails.
    logging.basicConfig(format="%(relativeCreated)d %(message)s", level=logging.INFO)
    asyncio.run(main(json.loads(sys.argv[1])))
