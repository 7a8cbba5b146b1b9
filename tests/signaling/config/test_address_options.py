"""signaling/config/address_options.py: which addresses clients are told, as LiveKit's files say it."""

import ipaddress

import pytest

from signaling.config.address_options import MAX_STUN_SERVERS, AddressOptions, parse_stun_servers
from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError


def load(text: str) -> Config:
    return load_config(Flags(dev=True), {"LIVEKIT_CONFIG": text})


def test_the_keys_are_acted_on() -> None:
    config = load(
        "rtc:\n"
        "  interfaces: {includes: [eth0, eth1], excludes: [eth2]}\n"
        "  ips: {includes: [10.1.2.3/8], excludes: [10.0.0.1]}\n"
        "  use_external_ip: true\n"
        "  stun_servers: [stun.example.org:5349, 192.0.2.1]\n"
        "  advertise_internal_ip: true\n"
        "  external_ip_only: true\n"
    )
    assert config.addresses == AddressOptions(
        interfaces=("eth0", "eth1"),
        excluded_interfaces=("eth2",),
        networks=(ipaddress.ip_network("10.0.0.0/8"),),
        excluded_networks=(ipaddress.ip_network("10.0.0.1/32"),),
        ask_outside=True,
        stun_servers=(("stun.example.org", 5349), ("192.0.2.1", 3478)),
        advertise_internal=True,
        external_only=True,
    )
    assert config.ignored == ()
    assert load("").addresses == AddressOptions()


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("stun.example.org", ("stun.example.org", 3478)),
        ("stun.example.org:19302", ("stun.example.org", 19302)),
        ("[2001:db8::1]", ("2001:db8::1", 3478)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
    ],
)
def test_servers(text: str, server: tuple[str, int]) -> None:
    assert parse_stun_servers([text]) == (server,)


@pytest.mark.parametrize(
    "value",
    [
        "stun.example.org",
        [""],
        [":3478"],
        ["stun:stun.example.org"],
        ["stun://stun.example.org"],
        ["stun.example.org:"],
        ["stun.example.org:70000"],
        ["stun.example.org:a"],
        ["2001:db8::1"],
        ["[2001:db8::1]x"],
        ["[2001:db8::1]:"],
        [" stun.example.org"],
        ["a"] * (MAX_STUN_SERVERS + 1),
    ],
)
def test_what_is_no_list_of_servers_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_stun_servers(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rtc:\n  ips:\n    includes: [eth0]\n", "LIVEKIT_CONFIG:3: rtc.ips.includes: "),
        ("rtc:\n  interfaces:\n    includes: eth0\n", "LIVEKIT_CONFIG:3: rtc.interfaces.includes: must be a list"),
        ("rtc:\n  use_external_ip: perhaps\n", "LIVEKIT_CONFIG:2: rtc.use_external_ip: "),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert str(caught.value).startswith(message)
