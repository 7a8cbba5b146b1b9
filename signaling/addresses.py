"""Finds the addresses that clients are told to send media to, where the operator has not named them.

Who calls it: `process.py`, once at the start.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from signaling.config.address_options import AddressOptions, StunServer
from signaling.external_addresses import external_addresses

Ask = Callable[[Sequence[StunServer], Sequence[str]], Awaitable[dict[str, str]]]
"""A function that asks STUN servers from local addresses; returns local address -> the one seen outside."""

log = structlog.get_logger("signaling.addresses")


async def told_addresses(
    options: AddressOptions, local: Sequence[str], ask: Ask = external_addresses
) -> tuple[str, ...]:
    """Return what clients are told, each address once.

    Args:
        options: the operator's.
        local: the chosen addresses of this machine.
        ask: asks the STUN servers.
    """
    seen: Mapping[str, str] = {}
    if options.ask_outside and not options.stun_servers:
        log.warning("rtc.use_external_ip needs rtc.stun_servers, or name the address in rtc.node_ip: nobody was asked")
    elif options.ask_outside:
        seen = await ask(options.stun_servers, [address for address in local if _may_be_translated(address)])
        if not seen:
            log.warning("no STUN server told an external address", servers=[host for host, _ in options.stun_servers])
    told: dict[str, None] = {}
    for address in local:
        if address in seen:
            told[seen[address]] = None
        if address not in seen and options.external_only and seen and ":" not in address:
            continue
        if address not in seen or options.advertise_internal:
            told[address] = None
    log.info("addresses", told=list(told), external=dict(seen))
    return tuple(told)


def _may_be_translated(address: str) -> bool:
    return not ipaddress.ip_address(address).is_loopback
