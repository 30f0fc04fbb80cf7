#!/usr/bin/env python3
"""Two aioice agents that may only use the relay exchange messages.

aioice_pair.py udp|tcp|tls ADDRESS PORT USER PASSWORD CERTIFICATE; prints
`received N/M`. The certificate is the one to trust over TLS.
"""

import asyncio
import ssl
import sys

from aioice import Connection, TransportPolicy

MESSAGES = 20
BYTES = 500
SECONDS_TO_CONNECT = 15
SECONDS_PER_MESSAGE = 5


async def main(transport, address, port, user, password, certificate):
    turn = {
        "turn_server": (address, int(port)),
        "turn_username": user,
        "turn_password": password,
        "turn_transport": "udp" if transport == "udp" else "tcp",
        "turn_ssl": ssl.create_default_context(cafile=certificate) if transport == "tls" else False,
        "transport_policy": TransportPolicy.RELAY,
    }
    a = Connection(ice_controlling=True, **turn)
    b = Connection(ice_controlling=False, **turn)
    try:
        async with asyncio.timeout(SECONDS_TO_CONNECT):
            await connect(a, b)
        received = await exchange(a, b)
    finally:
        await a.close()
        await b.close()
    print(f"received {received}/{MESSAGES}")
    return 0 if received == MESSAGES else 1


async def connect(a, b):
    await asyncio.gather(a.gather_candidates(), b.gather_candidates())
    for one, other in ((a, b), (b, a)):
        one.remote_username = other.local_username
        one.remote_password = other.local_password
        for candidate in other.local_candidates:
            assert candidate.type == "relay", candidate
            await one.add_remote_candidate(candidate)
        await one.add_remote_candidate(None)
    await asyncio.gather(a.connect(), b.connect())


async def exchange(a, b):
    """Each message goes there and comes back; counts those that did intact."""
    received = 0
    for index in range(MESSAGES):
        message = b"%04d" % index + bytes(index for _ in range(BYTES - 4))
        async with asyncio.timeout(SECONDS_PER_MESSAGE):
            await a.send(message)
            await b.send(await b.recv())
            received += await a.recv() == message
    return received


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
