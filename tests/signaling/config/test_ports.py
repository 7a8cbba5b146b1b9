"""signaling/config/ports.py: ports on which two things would listen, and which ones relayed addresses have."""

import pytest

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.ports import free_relay_ports
from signaling.config.turn_options import MIN_RELAY_PORTS


def load(text: str) -> Config:
    return load_config(Flags(), {"LIVEKIT_CONFIG": f"keys: {{a: b}}\n{text}"})


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("prometheus: {port: 7880}", "port and prometheus.port are both TCP port 7880, and need different ones"),
        ("prometheus: {port: 7881}", "prometheus.port and rtc.tcp_port are both TCP port 7881"),
        ("turn: {enabled: true, udp_port: 7882}", "rtc.udp_port and turn.udp_port are both UDP port 7882"),
        ("turn: {enabled: true, tcp_port: 7881}", "rtc.tcp_port and turn.tcp_port are both TCP port 7881"),
        (
            "prometheus: {port: 5349}\nturn: {enabled: true, domain: d, tls_port: 5349}",
            "prometheus.port and turn.tls_port are both TCP port 5349",
        ),
        (
            "turn: {enabled: true, domain: d, tcp_port: 5349, tls_port: 5349}",
            "turn.tcp_port and turn.tls_port are both TCP port 5349",
        ),
        (
            "bind_addresses: [192.0.2.1]\nprometheus: {port: 3478}\n"
            "turn: {enabled: true, tcp_port: 3478, bind_addresses: ['0.0.0.0']}",
            "prometheus.port and turn.tcp_port",
        ),
    ],
)
def test_two_things_on_one_port_are_refused(text: str, refusal: str) -> None:
    with pytest.raises(ConfigError, match=refusal):
        load(text)


@pytest.mark.parametrize(
    "text",
    [
        "port: 443\nrtc: {tcp_port: 443, udp_port: 443}",
        "port: 443\nturn: {enabled: true, domain: d, tcp_port: 443, tls_port: 443, udp_port: 443}",
        "turn: {udp_port: 7882, tcp_port: 7881}",  # it is off
        "rtc: {udp_port: 3478}\nturn: {enabled: true, tcp_port: 3478}",
        "rtc: {node_ip: 127.0.0.1}\nturn: {enabled: true, udp_port: 7882, bind_addresses: [192.0.2.1, '2001:db8::1']}",
        "port: 0\nrtc: {udp_port: 0, tcp_port: 0}\nturn: {enabled: true, udp_port: 3478}",
    ],
)
def test_what_shares_a_port_or_has_another_address_is_no_mistake(text: str) -> None:
    assert load(text)


def test_relayed_addresses_have_no_port_of_media_or_turn() -> None:
    range_of_livekits_sample = "relay_range_start: 1024, relay_range_end: 30000"
    config = load(f"turn: {{enabled: true, udp_port: 3478, {range_of_livekits_sample}}}")
    assert set(config.turn.relay_ports) - set(free_relay_ports(config.turn, (7882,))) == {3478, 7882}


def test_too_few_ports_beside_those_of_media_are_refused() -> None:
    last = 7882 + MIN_RELAY_PORTS - 1
    entries = "relay_range_start: 7882, relay_range_end"
    with pytest.raises(ConfigError, match="fewer than 64 ports beside those of media"):
        load(f"turn: {{enabled: true, udp_port: 3478, {entries}: {last}}}")
    load(f"turn: {{enabled: true, udp_port: 3478, {entries}: {last + 1}}}")
