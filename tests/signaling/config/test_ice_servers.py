"""signaling/config/ice_servers.py: STUN and TURN servers of others, as the operator names them."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.ice_servers import DEFAULT_TTL_S, MAX_TURN_SERVERS, IceServerOptions

KEYS = "keys: {a: b}\n"


def load(text: str, lenient: bool = False) -> Config:
    return load_config(Flags(lenient=lenient), {"LIVEKIT_CONFIG": KEYS + text})


def turn(entry: str) -> str:
    return f"rtc:\n  turn_servers:\n    - {entry}\n"


def test_by_default_clients_are_told_of_no_server() -> None:
    assert load("").ice_servers == IceServerOptions((), ())


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("{host: turn.example.org, port: 443, protocol: tls", "turns:turn.example.org:443?transport=tcp"),
        ("{host: turn.example.org, port: 3479, protocol: udp", "turn:turn.example.org:3479?transport=udp"),
        ("{host: turn.example.org, port: 80, protocol: tcp", "turn:turn.example.org:80?transport=tcp"),
        ("{host: coturn_1", "turn:coturn_1:3478?transport=tcp"),
        ('{host: turn.example.org, protocol: ""', "turn:turn.example.org:3478?transport=tcp"),
        ("{host: turn.example.org, protocol: tls", "turns:turn.example.org:5349?transport=tcp"),
        ('{host: "2001:db8::1", port: 3478, protocol: udp', "turn:[2001:db8::1]:3478?transport=udp"),
        ('{host: "[2001:DB8::1]", protocol: udp', "turn:[2001:db8::1]:3478?transport=udp"),
        ("{host: 192.0.2.1, protocol: udp", "turn:192.0.2.1:3478?transport=udp"),
    ],
)
def test_a_turn_server_becomes_a_url(entry: str, url: str) -> None:
    (server,) = load(turn(f"{entry}, secret: s3cret}}")).ice_servers.turn_servers
    assert (server.url, server.secret, server.ttl_s) == (url, SecretStr("s3cret"), DEFAULT_TTL_S)


def test_credentials_are_everybodys_or_made_of_a_secret_for_a_time() -> None:
    text = turn("{host: a, username: ann, credential: p4ss}") + "    - {host: b, secret: s3cret, ttl: 60}\n"
    config = load(text)
    first, second = config.ice_servers.turn_servers
    assert (first.username, first.credential, first.secret) == ("ann", SecretStr("p4ss"), SecretStr(""))
    assert (second.secret, second.ttl_s) == (SecretStr("s3cret"), 60)
    assert config.ignored == ()
    assert "p4ss" not in repr(config)
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("stun.example.org", "stun:stun.example.org:3478"),
        ("stun.example.org:19302", "stun:stun.example.org:19302"),
        ("[2001:db8::1]:3479", "stun:[2001:db8::1]:3479"),
    ],
)
def test_a_stun_server_becomes_a_url(server: str, url: str) -> None:
    assert load(f'rtc: {{stun_servers: ["{server}"]}}').ice_servers.stun_urls == (url,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (turn("{host: a, secret: s, prot: tls}"), "4: unknown key rtc.turn_servers.0.prot"),
        (turn("{host: a, secret: s, protocol: quic}"), "4: rtc.turn_servers.0.protocol: 'quic' is none of udp"),
        (turn("{secret: s}"), "4: rtc.turn_servers.0.host: "),
        (turn("{host: a b, secret: s}"), "4: rtc.turn_servers.0.host: 'a b' is no name or address"),
        (turn("{host: 'a?transport=udp', secret: s}"), "4: rtc.turn_servers.0.host: "),
        (turn("{host: a, secret: s, port: 70000}"), "4: rtc.turn_servers.0.port: 70000 is no port"),
        (turn("{host: a, secret: s, ttl: -1}"), "4: rtc.turn_servers.0.ttl: "),
        (turn("{host: a}"), "4: rtc.turn_servers.0: needs secret, secret_file, or username and credential"),
        (turn("{host: a, username: ann}"), "4: rtc.turn_servers.0: needs secret, "),
        (turn("{host: a, secret: s}") + "    - {host: b}\n", "5: rtc.turn_servers.1: needs secret, "),
        (turn('{host: a, secret: "topsecret\\n"}'), "4: rtc.turn_servers.0.secret: there is a character"),
        (turn('{host: a, username: "ann\\r\\nLink: x", credential: p}'), "4: rtc.turn_servers.0.username: there is a"),
        (turn("turn.example.org"), "3: rtc.turn_servers must be a list of mappings of keys"),
        ("rtc:\n  turn_servers: {host: a}\n", "3: rtc.turn_servers must be a list of mappings of keys"),
    ],
)
def test_what_no_client_could_use_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert str(caught.value).startswith(f"LIVEKIT_CONFIG:{message}")
    assert "topsecret" not in str(caught.value)


def test_there_are_only_so_many_servers() -> None:
    def text(number: int) -> str:
        return f"rtc:\n  turn_servers: [{', '.join(['{host: a, secret: s}'] * number)}]\n"

    assert len(load(text(MAX_TURN_SERVERS)).ice_servers.turn_servers) == MAX_TURN_SERVERS
    with pytest.raises(ConfigError, match=r"^LIVEKIT_CONFIG:3: rtc.turn_servers: more than 16 servers$"):
        load(text(MAX_TURN_SERVERS + 1))


def test_unknown_keys_of_an_entry_are_warned_of_if_that_is_wanted() -> None:
    config = load(turn("{host: a, secret: s, realm: r}"), lenient=True)
    assert config.unknown == ("rtc.turn_servers.0.realm",)
    assert len(config.ice_servers.turn_servers) == 1


def test_a_secret_may_be_in_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("of the file\n")
    path.chmod(0o640)
    text = turn(f"{{host: a, secret_file: {path}}}")
    config = load(text)
    assert config.ice_servers.turn_servers[0].secret == SecretStr("of the file")
    assert config.files == (str(path),)
    path.chmod(0o644)
    where = r"^LIVEKIT_CONFIG:4: rtc.turn_servers.0.secret_file: "
    with pytest.raises(ConfigError, match=rf"{where}.*/secret must not be accessible to others"):
        load(text)
    path.chmod(0o600)
    path.write_text(" \n")
    with pytest.raises(ConfigError, match=rf"{where}.*/secret does not hold one line"):
        load(text)
    path.unlink()
    with pytest.raises(ConfigError, match=r"secret: No such file"):
        load(text)
    # A secret that is given goes before the file, which then need not be there.
    assert load(turn(f"{{host: a, secret: given, secret_file: {path}}}")).files == ()


def test_servers_may_change_while_the_server_runs() -> None:
    before, fresh = load(turn("{host: a, secret: old}")), load(turn("{host: a, secret: new}"))
    assert before.renewed(fresh).ice_servers == fresh.ice_servers
    assert before.differences(fresh) == ("ice_servers",)
