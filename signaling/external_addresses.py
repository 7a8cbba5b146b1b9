"""Asks STUN servers that the operator names under which address this machine is seen from outside (RFC 8489).

Who calls it: `addresses.py`, once at the start. Nobody is asked whom the configuration does not name.
"""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from collections.abc import Sequence

import structlog

from signaling.config.address_options import StunServer
from signaling.turn.wire.stun_messages import Attribute, Kind, Malformed, Method, build, parse, read_xor_address

RETRANSMIT_S = (0.5, 1.0, 1.5, 2.0)
"""How long each of the equal requests waits for an answer: 5 s together."""
MAX_ANSWER_BYTES = 2048
MAX_LOCAL = 16
"""Addresses of this machine from which servers are asked: as many as clients are told."""

TRANSACTION_BYTES = 12

log = structlog.get_logger("signaling.addresses")


async def external_addresses(servers: Sequence[StunServer], local: Sequence[str]) -> dict[str, str]:
    """Return local address -> address that the first server that answered saw. Silence of all servers leaves it out."""
    asked = local[:MAX_LOCAL]
    found = await asyncio.gather(*(_external(servers, address) for address in asked))
    return {address: seen for address, seen in zip(asked, found, strict=True) if seen is not None}


async def _external(servers: Sequence[StunServer], local: str) -> str | None:
    asking = [asyncio.create_task(_ask(server, local)) for server in servers]
    try:
        for answer in asyncio.as_completed(asking):
            if (seen := await answer) is not None:
                return seen
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return None


async def _ask(server: StunServer, local: str) -> str | None:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    request = build(Method.BINDING, Kind.REQUEST, secrets.token_bytes(TRANSACTION_BYTES))
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.setblocking(False)
        try:
            names = await loop.getaddrinfo(*server, family=family, type=socket.SOCK_DGRAM)
            asked.bind((local, 0))
            # Connected: what comes from elsewhere is dropped by the kernel.
            await loop.sock_connect(asked, names[0][4])
            for wait_s in RETRANSMIT_S:
                await loop.sock_sendall(asked, request)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        return await _answer(asked, request)
        except OSError as error:
            log.info("a STUN server cannot be asked", server=server[0], port=server[1], local=local, why=str(error))
            return None
    log.info("a STUN server does not answer", server=server[0], port=server[1], local=local)
    return None


async def _answer(asked: socket.socket, request: bytes) -> str:
    while True:
        seen = mapped_address(await asyncio.get_running_loop().sock_recv(asked, MAX_ANSWER_BYTES), request)
        if seen is not None:
            return seen


def mapped_address(answer: bytes, request: bytes) -> str | None:
    """Return the XOR-MAPPED-ADDRESS of a success response to a Binding request; None: it is something else."""
    try:
        message = parse(answer)
    except Malformed:
        return None
    transaction = request[-TRANSACTION_BYTES:]
    if (message.method, message.kind, message.transaction) != (Method.BINDING, Kind.SUCCESS, transaction):
        return None
    seen = read_xor_address(message.first(Attribute.XOR_MAPPED_ADDRESS) or b"", transaction)
    if seen is None:
        return None
    address = ipaddress.ip_address(seen.ip)
    usable = not (address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local)
    return str(address) if usable else None
