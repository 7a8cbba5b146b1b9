"""The addresses of this machine that peers may be told (ICE host candidates).

Who calls it: the engine for sockets that are bound to all addresses, and the server where an operator chooses some.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import ifaddr

VIRTUAL_INTERFACES = ("docker*", "br-*", "veth*")
"""Interfaces of containers' networks inside of this machine, which nobody outside of it reaches. Every candidate costs
each client checks, so they have to be asked for by name or address."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class AddressChoice:
    """Which addresses of the machine are told; with nothing in it, all that peers might reach."""

    interfaces: tuple[str, ...] = ()
    """If there are any: only the addresses of these."""
    excluded_interfaces: tuple[str, ...] = ()
    networks: tuple[IpNetwork, ...] = ()
    """If there are any: only addresses in these, and also link-local ones and those of `VIRTUAL_INTERFACES`."""
    excluded_networks: tuple[IpNetwork, ...] = ()


def machine_addresses(choice: AddressChoice | None = None) -> list[str]:
    """Return the addresses of this machine that are chosen; those of loopback only if there is no other."""
    return chosen_addresses(_interfaces(), choice or AddressChoice())


def chosen_addresses(found: Iterable[tuple[str, str]], choice: AddressChoice) -> list[str]:
    """Return the addresses of `found`, pairs of interface and address, that are chosen, each once, in the same order.

    Where some are included, what is excluded does not matter, as in livekit-server.
    """
    parsed = {(name, ipaddress.ip_address(text)): None for name, text in found}
    chosen = [address for name, address in parsed if not address.is_loopback and _is_chosen(name, address, choice)]
    return [str(each) for each in dict.fromkeys(chosen or [each for _, each in parsed if each.is_loopback])]


def _is_chosen(name: str, address: IpAddress, choice: AddressChoice) -> bool:
    if address.is_unspecified:
        return False
    named = any(address in network for network in choice.networks)
    if choice.networks and not named:
        return False
    if not named and (address.is_link_local or any(address in network for network in choice.excluded_networks)):
        return False
    if choice.interfaces:
        return name in choice.interfaces
    if name in choice.excluded_interfaces:
        return False
    return named or not any(fnmatchcase(name, pattern) for pattern in VIRTUAL_INTERFACES)


def _interfaces() -> list[tuple[str, str]]:
    pairs = [(adapter.name, each.ip) for adapter in ifaddr.get_adapters() for each in adapter.ips]
    # IPv6: (address, flow info, scope)
    return [(name, (ip if isinstance(ip, str) else ip[0]).partition("%")[0]) for name, ip in pairs]
