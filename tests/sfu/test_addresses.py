"""sfu/addresses.py: which addresses of a machine peers are told."""

import ipaddress

import pytest

from sfu.addresses import AddressChoice, chosen_addresses, machine_addresses

FOUND = [
    ("lo", "127.0.0.1"),
    ("lo", "::1"),
    ("eth0", "192.0.2.2"),
    ("eth0", "2001:db8::2"),
    ("eth0", "fe80::1"),
    ("eth0", "169.254.7.7"),
    ("eth1", "10.0.0.2"),
    ("docker0", "172.17.0.1"),
    ("br-0a1b2c", "172.18.0.1"),
    ("veth77", "172.19.0.1"),
    ("bridge0", "198.51.100.7"),
]
ORDINARY = ["192.0.2.2", "2001:db8::2", "10.0.0.2", "198.51.100.7"]


def choice(interfaces: str = "", not_interfaces: str = "", ips: str = "", not_ips: str = "") -> AddressChoice:
    networks = [tuple(map(ipaddress.ip_network, texts.split())) for texts in (ips, not_ips)]
    return AddressChoice(tuple(interfaces.split()), tuple(not_interfaces.split()), *networks)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (choice(), ORDINARY),
        (choice(interfaces="eth0"), ["192.0.2.2", "2001:db8::2"]),
        (choice(interfaces="eth1 docker0"), ["10.0.0.2", "172.17.0.1"]),
        (choice(interfaces="eth0", not_interfaces="eth0"), ["192.0.2.2", "2001:db8::2"]),
        (choice(not_interfaces="eth0 bridge0"), ["10.0.0.2"]),
        (choice(ips="10.0.0.0/8 2001:db8::/32"), ["2001:db8::2", "10.0.0.2"]),
        (
            choice(ips="0.0.0.0/0"),
            ["192.0.2.2", "169.254.7.7", "10.0.0.2", "172.17.0.1", "172.18.0.1", "172.19.0.1", "198.51.100.7"],
        ),
        (choice(ips="172.17.0.0/16"), ["172.17.0.1"]),
        (choice(ips="fe80::/10", interfaces="eth0"), ["fe80::1"]),
        (choice(not_ips="192.0.2.0/24 10.0.0.2"), ["2001:db8::2", "198.51.100.7"]),
        (choice(ips="192.0.2.0/24", not_ips="192.0.2.0/24"), ["192.0.2.2"]),
        (choice(interfaces="eth1", ips="192.0.2.0/24"), ["127.0.0.1", "::1"]),
        (choice(interfaces="eth9"), ["127.0.0.1", "::1"]),
    ],
)
def test_addresses_are_chosen_by_interface_and_network(chosen: AddressChoice, expected: list[str]) -> None:
    assert chosen_addresses(FOUND, chosen) == expected


def test_an_address_that_two_interfaces_have_is_told_once() -> None:
    assert chosen_addresses([("eth0", "192.0.2.2"), ("eth1", "192.0.2.2")], AddressChoice()) == ["192.0.2.2"]


def test_this_machine_has_an_address() -> None:
    assert machine_addresses()
    assert machine_addresses(choice(interfaces="no such interface")) == [
        address for address in ("127.0.0.1", "::1") if address in machine_addresses(choice(interfaces="none"))
    ]
