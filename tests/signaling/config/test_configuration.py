"""signaling/config/configuration.py: file, environment and flags in one checked value."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.parameters import MAX_THREADS
from signaling.config.api_keys import hide
from signaling.config.configuration import Config, Flags, RoomOptions, load_config
from signaling.config.document import ConfigError
from signaling.config.values import (
    MAX_MEDIA_THREADS,
    parse_duration_s,
    parse_keys,
    parse_node_ips,
    parse_rate,
    parse_udp_ports,
    parse_urls,
)

VISIO = """\
port: 7880
log_level: info
rtc:
  tcp_port: 7881
  udp_port: 7882
  use_external_ip: true
redis:
  address: redis:6379
keys:
  devkey: secret
webhook:
  api_key: devkey
  urls:
    - http://app-dev:8000/webhooks-livekit/
"""


def load(text: str = "", environment: dict[str, str] | None = None, **flags: object) -> Config:
    return load_config(Flags(**flags), {"LIVEKIT_CONFIG": text} | (environment or {}))  # type: ignore[arg-type]


def refusal(text: str = "", environment: dict[str, str] | None = None, **flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, environment, **flags)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_written_for_livekit_is_read_and_what_is_not_acted_on_is_named() -> None:
    config = load(VISIO)
    assert config.keys == hide({"devkey": "secret"})
    assert (config.port, config.udp_ports, config.log_level) == (7880, (7882,), "info")
    assert config.ice.tcp_port == 7881
    assert config.ignored == ("redis.address",)
    assert config.webhook.urls == ("http://app-dev:8000/webhooks-livekit/",)


def test_json_is_yaml_too() -> None:
    config = load('{"keys": {"a": "b"}, "port": 8000, "rtc": {"udp_port": "9000-9002"}, "logging": {"json": true}}')
    assert (config.port, config.udp_ports, config.log_json) == (8000, (9000, 9001, 9002), True)


def test_the_defaults_are_livekits() -> None:
    config = load("keys: {a: b}")
    assert (config.port, config.udp_ports, config.node_ips) == (7880, (7882,), ())
    assert config.bind_addresses == ("0.0.0.0", "::")
    assert not config.development


def test_development_needs_no_keys_and_stays_on_loopback() -> None:
    config = load(dev=True)
    assert config.keys == hide({"devkey": "secret"})
    assert config.bind_addresses == ("127.0.0.1", "::1")
    assert load("keys: {a: b}", dev=True).keys == hide({"a": "b"})


@pytest.mark.parametrize(
    ("names", "addresses", "all_needed"),
    [
        ('[""]', ("0.0.0.0", "::"), False),
        ("[localhost]", ("127.0.0.1", "::1"), False),
        ("[192.0.2.1, localhost, 127.0.0.1]", ("192.0.2.1", "127.0.0.1", "::1"), False),
        ('["::"]', ("::",), True),
        ("[]", ("0.0.0.0", "::"), False),
    ],
)
def test_addresses_may_be_named_as_in_livekits_files(names: str, addresses: tuple[str, ...], all_needed: bool) -> None:
    config = load(f"keys: {{a: b}}\nbind_addresses: {names}\n")
    assert (config.bind_addresses, config.bind_addresses_given) == (addresses, all_needed)
    config = load(f"bind_addresses: {names}\n", dev=True)
    assert config.bind_addresses == (addresses if names != "[]" else ("127.0.0.1", "::1"))


def test_empty_texts_mean_not_given() -> None:
    config = load('keys: {a: b}\nlog_level: ""\nlogging: {level: ""}\nrtc: {node_ip: ""}\nregion: ""\nkey_file: ""\n')
    assert (config.log_level, config.node_ips, config.region) == ("info", (), "")
    assert load("keys: {a: b}\nlogging: {level: fatal}\n").log_level == "error"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys: {a: b}\nrtc:\n  udpport: 1\n", "LIVEKIT_CONFIG:3: unknown key rtc.udpport (did you mean udp_port?)"),
        ("prot: 7880\n", "LIVEKIT_CONFIG:1: unknown key prot"),
        ("room:\n  playout_delay:\n    minimum: 3\n", "LIVEKIT_CONFIG:3: unknown key room.playout_delay.minimum"),
        ("a: &a\n  x: 1\n", "LIVEKIT_CONFIG:1: unknown key a"),
        ("keys: {a: b}\nport: many\n", "LIVEKIT_CONFIG:2: port: 'many' is no whole number"),
        ("port: 70000\n", "LIVEKIT_CONFIG:1: port: 70000 is no port"),
        ("\nrtc:\n  udp_port: 7890-7880\n", "LIVEKIT_CONFIG:3: rtc.udp_port: "),
        ("rtc:\n  udp_port: 1-70000\n", "LIVEKIT_CONFIG:2: rtc.udp_port: "),
        ("port: 7880.5\n", "LIVEKIT_CONFIG:1: port: '7880.5' is no whole number"),
        ("rtc: 5\n", "LIVEKIT_CONFIG:1: rtc must be a mapping of keys"),
        ("rtc:\n  node_ip: here\n", "LIVEKIT_CONFIG:2: rtc.node_ip: "),
        ("bind_addresses: 127.0.0.1\n", "LIVEKIT_CONFIG:1: bind_addresses: must be a list"),
        ("bind_addresses:\n  - example.org\n", "LIVEKIT_CONFIG:1: bind_addresses: "),
        ("keys: {a: ''}\n", "LIVEKIT_CONFIG:1: keys: an API key or its secret is empty"),
        ("keys: devkey\n", "LIVEKIT_CONFIG:1: keys: "),
        ("keys: {a: b}\nlogging:\n  level: [info]\n", "LIVEKIT_CONFIG:3: logging.level: "),
        ("port: 1\nport: 2\n", "LIVEKIT_CONFIG:2: port is given twice"),
        ("port: [\n", "LIVEKIT_CONFIG:2: "),
        ("- port\n", "LIVEKIT_CONFIG:1: the configuration must be a mapping"),
        ("? [a]\n: b\n", "LIVEKIT_CONFIG:1: a key must be a name"),
        ("", "no API keys"),
        ("keys: {a: b}\nrtc: &rtc\n  ips: {includes: [*rtc]}\n", "LIVEKIT_CONFIG:2: an alias stands for what it is in"),
        ("keys: {a: b}\nrtc: &rtc\n  <<: *rtc\n", "LIVEKIT_CONFIG:2: an alias stands for what it is in"),
        ('keys: {a: b}\nregion: "\\ud83d"\n', "LIVEKIT_CONFIG:2: region: there is a character in it"),
        ('key_file: "keys\\0"\n', "LIVEKIT_CONFIG:1: key_file: there is a character in it"),
        ("key_file: ~nobody-of-this-name/keys\n", "~nobody-of-this-name/keys: there is no such home directory"),
        (
            "keys: {a: b}\ntls: {cert_file: ~nobody-of-this-name/c, key_file: k}\n",
            "~nobody-of-this-name/c: there is no such home",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_a_secret_stays_text_and_is_not_shown_in_errors() -> None:
    assert load("keys:\n  007: 0123\n").keys == hide({"007": "0123"})
    assert "topsecret" not in refusal("keys: {a: b, topsecret: [1]}")


def test_null_means_not_given() -> None:
    config = load("keys: {a: b}\nport:\nrtc: ~\nlogging: {level: null}\n")
    assert (config.port, config.log_level) == (7880, "info")


def test_a_merge_key_counts_as_the_mapping_it_merges() -> None:
    assert load("keys: {a: b}\nrtc:\n  <<: {udp_port: 9000}\n").udp_ports == (9000,)


def test_a_merge_key_may_name_several_mappings_the_first_of_which_wins() -> None:
    text = "keys: {a: b}\nrtc:\n  <<: [{udp_port: 9000}, {udp_port: 9001, tcp_port: 9002}]\n"
    config = load(text)
    assert (config.udp_ports, config.ice.tcp_port) == ((9000,), 9002)


def test_aliases_that_nest_too_deeply_are_refused() -> None:
    def nested(inner: str) -> str:
        return "[" * 200 + inner + "]" * 200

    lines = ["a0: &a0 1", *(f"a{number}: &a{number} {nested(f'*a{number - 1}')}" for number in range(1, 9))]
    assert "values are nested too deeply" in refusal("\n".join(["keys: {a: b}", *lines]))


def test_aliases_that_stand_for_more_than_fits_into_memory_are_refused() -> None:
    lines = ["keys: {a: b}", "x0: &x0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 10)}]" for level in range(1, 12)]
    assert "more than 100000 values" in refusal("\n".join(lines))


def test_a_variable_that_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="LIVEKIT_REGION: there is a character in it that cannot be used"):
        load_config(Flags(dev=True), {"LIVEKIT_REGION": "\udcff"})


def test_flags_win_over_the_environment_which_wins_over_the_file() -> None:
    text = "keys: {file: s}\nrtc: {udp_port: 1000, node_ip: 192.0.2.1}\nlogging: {level: error}\n"
    environment = {"LIVEKIT_KEYS": "env: s", "UDP_PORT": "2000", "NODE_IP": "192.0.2.2"}
    assert load(text, environment).keys == hide({"env": "s"})
    assert load(text, environment).udp_ports == (2000,)
    assert load(text, environment).node_ips == ("192.0.2.2",)
    config = load(
        text, environment, keys="flag: s", udp_port="3000-3001", node_ip="::1", log_level="warn", port=0, bind=("::1",)
    )
    assert config.keys == hide({"flag": "s"})
    assert (config.udp_ports, config.node_ips, config.log_level) == ((3000, 3001), ("::1",), "warning")
    assert (config.port, config.bind_addresses) == (0, ("::1",))


@pytest.mark.parametrize(
    ("environment", "flags", "start"),
    [
        ({"UDP_PORT": "x"}, {}, "UDP_PORT: "),
        ({"NODE_IP": "10.0.0.1,10.0.0.2"}, {}, "NODE_IP: "),
        ({"LIVEKIT_KEYS": "devkey:secret"}, {}, "LIVEKIT_KEYS: keys must be"),
        ({}, {"keys": "devkey"}, "--keys: keys must be"),
        ({}, {"bind": ("nowhere",)}, "--bind: "),
        ({}, {"node_ip": "0.0.0.0"}, "--node-ip: "),
    ],
)
def test_a_bad_value_elsewhere_is_refused_by_the_name_of_its_source(
    environment: dict[str, str], flags: dict[str, object], start: str
) -> None:
    assert refusal("keys: {a: b}", environment, **flags).startswith(start)


def test_settings_that_have_no_effect_are_named() -> None:
    config = load("keys: {a: b}", {"REDIS_HOST": "redis:6379"}, config=Path("never-read.yaml"))
    assert config.ignored == ("redis.address", "--config (LIVEKIT_CONFIG is set)")


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("keys:\n  a: b\nrtc:\n  udpport: 7\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:4: unknown key rtc\.udpport \(did you mean udp_port\?\)$"):
        load_config(Flags(config=file), {})
    with pytest.raises(ConfigError, match="No such file"):
        load_config(Flags(config=tmp_path / "absent"), {})
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(Flags(config=file), {})


def test_media_is_bound_to_loopback_only_when_nothing_else_is_advertised() -> None:
    assert load("keys: {a: b}", node_ip="127.0.0.1").media_bind == ("127.0.0.1",)
    assert load("keys: {a: b}", node_ip="127.0.0.1,::1").media_bind == ("127.0.0.1", "::1")
    assert load("keys: {a: b}", node_ip="203.0.113.5").media_bind == ()
    assert load("keys: {a: b}").media_bind == ()


def test_short_secrets_are_found() -> None:
    assert load(f"keys: {{a: b, c: {'x' * 32}}}").weak_keys() == ("a",)


def test_several_keys_are_read_one_per_line() -> None:
    assert parse_keys("a: b\nc: d") == hide({"a": "b", "c": "d"})


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_udp_ports, parse_node_ips, parse_keys, parse_duration_s, parse_rate):
        try:
            parse(text)
        except ValueError as error:
            assert str(error)


@given(st.lists(st.text(max_size=40)))
def test_any_list_is_one_of_urls_or_a_value_error(texts: list[str]) -> None:
    try:
        parse_urls(texts)
    except ValueError as error:
        assert str(error)


@given(st.text(max_size=200))
def test_any_document_is_a_config_or_one_line(text: str) -> None:
    try:
        load_config(Flags(dev=True), {"LIVEKIT_CONFIG": text})
    except ConfigError as error:
        assert str(error)


def test_media_threads_take_ports_of_the_range() -> None:
    text = "keys: {a: b}\nmedia_threads: 3\nrtc: {udp_port: 7882-7892}\n"
    assert load(text).media_ports == (7882, 7883, 7884)
    assert load(text, media_threads=2).media_ports == (7882, 7883)
    assert load("keys: {a: b}\nmedia_threads: 2\nrtc: {udp_port: 0}\n").media_ports == (0, 0)


def test_there_are_no_more_media_threads_than_cores_or_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    assert load("keys: {a: b}\n").media_ports == (7882,)
    assert load("keys: {a: b}\nrtc: {udp_port: 7882-7892}\n").media_ports == (7882, 7883, 7884)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert load("keys: {a: b}\nrtc: {udp_port: 7882-7892}\n").media_ports == (7882,)
    wrong = refusal("keys: {a: b}\nmedia_threads: 3\nrtc: {udp_port: 9000}\n")
    assert wrong == "media_threads: 3 threads need as many UDP ports, such as rtc.udp_port: 9000-9002"
    wrong = refusal("keys: {a: b}\nmedia_threads: 17\n")
    assert wrong == "LIVEKIT_CONFIG:2: media_threads: 17 is not between 0 and 16"


def test_the_bound_on_media_threads_is_the_engines() -> None:
    assert MAX_MEDIA_THREADS == MAX_THREADS  # not imported there: `aiosfu token` must not load the engine


def test_rooms_are_made_as_the_file_says() -> None:
    text = "keys: {a: b}\nroom: {empty_timeout: 10, departure_timeout: 5, max_participants: 9, forward_loudest: 3}\n"
    assert load(text).room == RoomOptions(
        empty_timeout_s=10, departure_timeout_s=5, max_participants=9, forward_loudest=3
    )
    assert load("keys: {a: b}\n").room == RoomOptions(
        empty_timeout_s=300, departure_timeout_s=20, max_participants=0, forward_loudest=0
    )
    codecs = "keys: {a: b}\nroom:\n  enabled_codecs: [{mime: audio/opus}, {mime: video/VP8}]\n"
    assert load(codecs).room.enabled_codecs == ("audio/opus", "video/vp8")
    assert refusal("keys: {a: b}\nroom: {enabled_codecs: [vp8]}\n").startswith(
        "LIVEKIT_CONFIG:2: room.enabled_codecs: "
    )
    assert refusal("keys: {a: b}\nroom: {max_participants: -1}\n").startswith(
        "LIVEKIT_CONFIG:2: room.max_participants: "
    )


def test_the_watchdog_is_systemds_unless_the_file_says_otherwise() -> None:
    systemd = {"WATCHDOG_USEC": "20000000"}
    assert load("keys: {a: b}\n").watchdog_s == 0
    assert load("keys: {a: b}\n", systemd).watchdog_s == 15
    assert load("keys: {a: b}\nwatchdog: 7\n", systemd).watchdog_s == 7
    assert load("keys: {a: b}\nwatchdog: 0\n", systemd).watchdog_s == 0


def test_prometheus_keys_are_acted_on() -> None:
    config = load("keys: {a: b}\nprometheus: {port: 6789, username: scraper, password: 0123}")
    assert (config.prometheus.port, config.prometheus.username) == (6789, "scraper")
    assert config.prometheus.password.get_secret_value() == "0123"
    assert "0123" not in repr(config)
    assert config.ignored == ()
    assert not load("keys: {a: b}\nprometheus:\n  username:\n").prometheus.is_protected


def test_the_older_key_of_the_metrics_port_wins() -> None:
    config = load("keys: {a: b}\nprometheus_port: 6788\nprometheus: {port: 6789}")
    assert config.prometheus.port == 6788
    assert config.ignored == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prometheus: {port: 70000}", "prometheus.port"),
        ("prometheus_port: x", "prometheus_port"),
        ("prometheus: {username: 'a:b'}", "no colon"),
        ("prometheus: {port: 7880}", "port and prometheus.port are both TCP port 7880"),
        ("prometheus: {secret: x}", "unknown key prometheus.secret"),
    ],
)
def test_prometheus_values_that_make_no_sense_are_refused(text: str, expected: str) -> None:
    assert expected in refusal(f"keys: {{a: b}}\n{text}")
