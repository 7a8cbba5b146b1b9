"""signaling/config/turn_options.py: the TURN server of this process."""

from pathlib import Path

import pytest

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.options import TlsOptions
from signaling.config.turn_options import MAX_TTL_S, TurnOptions

KEYS = "keys: {a: b}\n"


def load(text: str) -> Config:
    return load_config(Flags(), {"LIVEKIT_CONFIG": KEYS + text})


def turn(entries: str) -> TurnOptions:
    return load(f"turn: {{enabled: true, {entries}}}").turn


def test_by_default_there_is_none() -> None:
    assert load("").turn == TurnOptions()
    assert not TurnOptions().enabled


def test_what_livekits_keys_mean() -> None:
    options = turn(
        "domain: turn.example.org, cert_file: /c.pem, key_file: /k.pem, tls_port: 5349, udp_port: 3478, "
        "relay_range_start: 1024, relay_range_end: 30000, ttl_seconds: 60, per_user_relay_allocation_limit: 5, "
        "bind_addresses: [192.0.2.1]"
    )
    assert options == TurnOptions(
        enabled=True,
        domain="turn.example.org",
        udp_port=3478,
        tls_port=5349,
        advertised_tls_port=443,
        tls=TlsOptions("/c.pem", "/k.pem"),
        relay_ports=range(1024, 30_001),
        ttl_s=60,
        quota=5,
        bind=("192.0.2.1",),
    )


def test_what_clients_are_told_may_differ_from_the_ports() -> None:
    options = turn("domain: d, tls_port: 5349, tcp_port: 3478")
    assert (options.advertised_tls_port, options.advertised_tcp_port) == (443, 3478)
    options = turn("domain: d, tls_port: 5349, tcp_port: 3478, advertised_tls_port: 8443, advertised_tcp_port: 80")
    assert (options.advertised_tls_port, options.advertised_tcp_port) == (8443, 80)


def test_the_variables_of_livekits_chart_name_the_certificate(tmp_path: Path) -> None:
    variables = {"LIVEKIT_CONFIG": KEYS, "LIVEKIT_TURN_CERT": "/etc/c", "LIVEKIT_TURN_KEY": "/etc/k"}
    assert load_config(Flags(), variables).turn.tls == TlsOptions("/etc/c", "/etc/k")


def test_the_certificate_is_among_the_files_that_are_read_again() -> None:
    config = load("turn: {enabled: true, domain: d, tls_port: 1, cert_file: /c.pem, key_file: /k.pem}")
    assert config.files == ("/c.pem", "/k.pem")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("domain: d", "needs udp_port, tcp_port or tls_port"),
        ("tls_port: 5349", "tls_port needs domain"),
        ("tls_port: 5349, domain: 'a b'", "'a b' is no name or address"),
        ("udp_port: 3478, cert_file: /c", "cert_file and key_file are needed together"),
        ("udp_port: 3478, relay_range_start: 30000, relay_range_end: 30010", "fewer than 64 ports"),
        ("udp_port: 3478, relay_range_start: 50000", "fewer than 64 ports"),
        ("udp_port: 70000", "70000 is no port"),
        ("udp_port: 3478, ttl_seconds: -1", "-1 is below 0"),
    ],
)
def test_what_is_refused(entries: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        turn(entries)


def test_credentials_are_good_for_a_year_at_most() -> None:
    assert turn(f"udp_port: 1, ttl_seconds: {10**15}").ttl_s == MAX_TTL_S


def test_what_is_off_is_not_looked_at() -> None:
    assert not load("turn: {enabled: false, tls_port: 5349}").turn.enabled
