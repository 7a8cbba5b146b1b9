"""What is written for livekit-server starts this server: files, its chart's and Visio's too, flags and variables."""

import re
from pathlib import Path

import pytest

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.known_keys import BOOLEANS, KNOWN_KEYS, PARTS, Each, KeyTable, Use
from signaling.config.settings import Setting, all_settings, is_setting, read_variables, take_flags
from signaling.config.values import MAX_COUNT, MAX_UDP_PORTS

FILES = Path(__file__).parent / "files"
LISTED = Path(__file__).parent / "livekit_keys.txt"
OURS = {
    "media_threads",
    "watchdog",
    "tls.cert_file",
    "tls.key_file",
    "proxy_protocol_trusted_cidrs",
    "room.forward_loudest",
    "video.dynacast_denied_delay",
    # of LiveKit's hosted service
    "room.enable_full_room_in_webhooks",
    "limit.signal_message_size_limit",
    "limit.agent_signal_message_size_limit",
    "limit.max_api_request_body_size",
    "rtc.enable_warp",
    "turn.per_user_relay_allocation_limit",
    "turn.tcp_port",
    "turn.advertised_tcp_port",
    "turn.advertised_tls_port",
    # of LiveKit's Helm chart
    "turn.loadBalancerAnnotations",
    "turn.secretName",
}
"""Keys that livekit-server 1.13.5 does not have."""


def listed() -> dict[str, str]:
    """Every key of livekit-server 1.13.5 that is no mapping -> its kind."""
    return dict(line.split() for line in LISTED.read_text().splitlines())


def leaves(table: KeyTable, before: str = "") -> list[str]:
    found = []
    for name, below in table.items():
        found += [before + name] if isinstance(below, Use | Each) else leaves(below, f"{before}{name}.")
    return found


def acted_on(table: KeyTable, before: str = "") -> list[str]:
    found = []
    for name, below in table.items():
        if isinstance(below, Use):
            found += [before + name] if below is Use.ACTED_ON else []
        else:
            found += acted_on(below.keys if isinstance(below, Each) else below, f"{before}{name}.")
    return found


def of(name: str, flags: Flags | None = None) -> Config:
    return load_config(flags or Flags(config=FILES / name), {})


def test_every_key_of_livekits_is_known() -> None:
    no_settings = ("sip", "rtc.turn_servers")  # without keys; a list of mappings
    known = {name for name in listed() if name in no_settings or is_setting(tuple(name.split(".")))}
    assert listed().keys() - known == set()
    assert len(known) > 290


def test_every_key_that_is_known_is_livekits_or_ours() -> None:
    mine = leaves(KNOWN_KEYS)
    strange = [name for name in mine if not any(f"{key}.".startswith(f"{name}.") for key in listed())]
    assert set(strange) == OURS


def test_flags_without_a_value_are_those_of_booleans() -> None:
    theirs = {name for name, kind in listed().items() if kind == "bool"}
    assert theirs == BOOLEANS - OURS
    assert {name for name in BOOLEANS if not is_setting(tuple(name.split(".")))} == set()


def test_every_key_that_is_acted_on_is_told_to_operators() -> None:
    told = (Path(__file__).parents[3] / "docs" / "deploy.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z_]+", told))
    assert [name for name in acted_on(KNOWN_KEYS) if name.rpartition(".")[2] not in words] == []


def test_livekits_sample_starts_with_every_key_in_effect(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of coturn")
    secret.chmod(0o640)
    text = (FILES / "sample.yaml").read_text().replace("/var/lib/coturn/secret", str(secret))
    config = load_config(Flags(), {"LIVEKIT_CONFIG": text})
    assert (config.port, config.prometheus.port, config.region) == (7880, 6789, "us-west-2")
    assert config.udp_ports[:2] == (50000, 50001)
    assert config.node_ips == ("203.0.113.7",)
    assert (config.webhook.api_key, config.webhook.urls) == ("key1", ("https://your-host.com/handler",))
    assert not config.auto_create
    assert config.room.sync_streams
    assert config.room.enabled_codecs == ("audio/opus", "video/vp8")
    assert config.room.remote_unmute
    assert (config.limits.tracks, config.limits.bytes_per_s) == (0, 1e9)
    assert config.limits.metadata_bytes == 1024 * 1024  # "no limit" has one: that of a message
    assert config.ice_servers.stun_urls == ("stun:server1:3478",)
    (turn,) = config.ice_servers.turn_servers
    assert (turn.url, turn.ttl_s) == ("turns:myhost.com:443?transport=tcp", 14_400)
    assert turn.secret.get_secret_value() == "of coturn"
    assert {"rtc.skip_external_ip_validation", "turn.deny_peer_cidrs"} <= set(config.ignored)
    assert (config.turn.enabled, config.turn.relay_ports) == (False, range(1024, 30_001))


@pytest.mark.parametrize("lenient", [False, True])
def test_the_charts_configuration_starts_in_a_variable(lenient: bool) -> None:
    config = load_config(Flags(lenient=lenient), {"LIVEKIT_CONFIG": (FILES / "helm.yaml").read_text()})
    assert (config.port, config.log_level) == (7880, "debug")
    assert config.udp_ports[0] == 50000
    assert "turn.loadBalancerAnnotations" in config.ignored
    assert (config.turn.enabled, config.turn.udp_port, config.turn.tls_port) == (True, 443, 0)
    assert config.unknown == ()


def test_the_charts_defaults_start_with_a_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.yaml").write_text(f"myapikey: {'s' * 32}\n")
    (tmp_path / "keys.yaml").chmod(0o600)
    config = of("helm_default.yaml")
    assert list(config.keys) == ["myapikey"]
    assert config.files == (str(FILES / "helm_default.yaml"), "keys.yaml")
    (tmp_path / "keys.yaml").chmod(0o604)
    with pytest.raises(ConfigError, match=r"helm_default.yaml:2: key_file: keys.yaml must not be accessible to others"):
        of("helm_default.yaml")
    (tmp_path / "keys.yaml").unlink()
    with pytest.raises(ConfigError, match=r"keys.yaml: No such file"):
        of("helm_default.yaml")


def test_the_file_of_livekits_generator_starts() -> None:
    config = of("generated.yaml")
    assert (config.bind_addresses, config.bind_addresses_given) == (("0.0.0.0", "::"), False)
    assert (list(config.keys), config.udp_ports[0]) == (["myapikey"], 50000)
    assert {"redis.address", "ingress.whip_base_url"} <= set(config.ignored)


def test_visios_files_start() -> None:
    config = load_config(Flags(dev=True, bind=("0.0.0.0",), config=FILES / "visio_compose.yaml"), {})
    assert (config.bind_addresses, config.udp_ports, config.log_level) == (("0.0.0.0",), (7882,), "debug")
    assert config.webhook.urls == ("http://app-dev:8000/api/v1.0/rooms/webhooks-livekit/",)
    assert config.ignored == ("redis.address",)
    config = of("visio_server.yaml")
    assert list(config.keys) == ["meet"]
    assert config.udp_ports[0] == 50000


def test_webhooks_need_a_key_that_is_there() -> None:
    text = "keys: {a: b}\nwebhook:\n  api_key: c\n  urls: [http://x/]\n"
    with pytest.raises(ConfigError, match=r"LIVEKIT_CONFIG:3: webhook\.api_key: 'c' is none of the API keys"):
        load_config(Flags(), {"LIVEKIT_CONFIG": text})
    with pytest.raises(ConfigError, match=r"LIVEKIT_CONFIG:2: webhook\.urls: 'x' is no URL"):
        load_config(Flags(), {"LIVEKIT_CONFIG": "keys: {a: b}\nwebhook: {urls: [x]}\n"})


def flags(*arguments: str) -> tuple[list[str], Flags]:
    rest, settings = take_flags(arguments, frozenset(("port", "keys", "region")))
    return rest, Flags(dev=True, settings=settings)


@pytest.mark.parametrize("name", [name for name, kind in listed().items() if kind not in ("list", "map")])
def test_every_scalar_key_is_a_flag_and_a_variable(name: str) -> None:
    text = "true" if name in BOOLEANS else "1"
    path = tuple(name.split("."))
    variable = "LIVEKIT_" + name.upper().replace(".", "_")
    expected = Setting(path, text, f"--{name}")
    argument = [f"--{name}"] if name in BOOLEANS else [f"--{name}", text]
    if name not in ("port", "region"):  # those the command line has itself
        assert take_flags([*argument, "rest"], frozenset()) == (["rest"], (expected,))
        assert take_flags([f"--{name}={text}"], frozenset()) == ([], (expected,))
    found = list(read_variables({variable: text, "LIVEKIT_URL": "ws://x", "LIVEKIT_API_KEY": "k"}))
    assert [(setting.text, setting.origin) for setting in found] == [(text, variable)]
    # What is not acted on is not looked into, so its last name may hold several.
    assert "_".join(found[0].path) == "_".join(path)


def test_every_setting_that_is_told_is_one_value() -> None:
    scalars = {name for name, kind in listed().items() if kind not in ("list", "map")}
    told = {name for name, _, _ in all_settings()} - OURS
    assert [name for name in told if not any(f"{key}.".startswith(f"{name}.") for key in scalars)] == []
    assert [name for name in scalars if not any(f"{name}.".startswith(f"{key}.") for key in told)] == []


def test_a_flag_wins_over_a_variable_which_wins_over_the_file() -> None:
    text = "room: {max_participants: 1, empty_timeout: 1, departure_timeout: 1}\n"
    environment = {
        "LIVEKIT_CONFIG": text,
        "LIVEKIT_ROOM_EMPTY_TIMEOUT": "2",
        "LIVEKIT_ROOM_DEPARTURE_TIMEOUT": "2",
    }
    rest, given = flags("serve", "--room.departure_timeout", "3", "--room.auto_create=false", "--logging.json", "--dev")
    config = load_config(given, environment)
    assert rest == ["serve", "--dev"]
    assert (config.room.max_participants, config.room.empty_timeout_s, config.room.departure_timeout_s) == (1, 2, 3)
    assert (config.auto_create, config.log_json) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("--rtc.port_range_start", "x"), {}, "--rtc.port_range_start: rtc.port_range_start: 'x' is no whole number"),
        ((), {"LIVEKIT_PROMETHEUS_PORT": "70000"}, "LIVEKIT_PROMETHEUS_PORT: "),
        (("--rtc.udp_port.start=9", "--rtc.udp_port.end=8"), {}, "--rtc.udp_port.start: rtc.udp_port: "),
        (("--webhook.resource_url_notifier.max_age", "soon"), {}, "--webhook.resource_url_notifier.max_age: "),
        ((), {"LIVEKIT_DEVELOPMENT": "maybe"}, "LIVEKIT_DEVELOPMENT: development: "),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_flag_or_variable(
    arguments: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(flags(*arguments)[1], environment)
    assert str(caught.value).startswith(message)


def test_a_flag_at_the_end_needs_its_value() -> None:
    with pytest.raises(ConfigError, match=r"--rtc\.tcp_port needs a value"):
        flags("--rtc.tcp_port")


def test_parts_of_ports_and_addresses_are_flags_too() -> None:
    _, given = flags("--rtc.udp_port.start", "9000", "--rtc.udp_port.end", "9002", "--rtc.node_ip.ipv4", "192.0.2.1")
    config = load_config(given, {"LIVEKIT_CONFIG": "rtc: {udp_port: 7882}"})
    assert (config.udp_ports, config.node_ips) == ((9000, 9001, 9002), ("192.0.2.1",))
    assert set(PARTS) == {("rtc", "udp_port"), ("rtc", "node_ip")}


def test_what_kubernetes_says_of_a_service_named_livekit_is_no_setting() -> None:
    links = {"LIVEKIT_PORT": "tcp://10.0.0.1:7880", "LIVEKIT_PORT_7880_TCP": "tcp://10.0.0.1:7880"}
    links |= {"LIVEKIT_SERVICE_HOST": "10.0.0.1", "LIVEKIT_SERVICE_PORT": "7880"}
    assert load_config(Flags(dev=True), links).port == 7880


def test_the_address_that_is_given_goes_before_one_that_would_be_discovered() -> None:
    config = load_config(Flags(dev=True, node_ip="192.0.2.9"), {"LIVEKIT_CONFIG": "rtc: {use_external_ip: true}"})
    assert config.node_ips == ("192.0.2.9",)


def test_unknown_keys_are_warned_of_if_that_is_wanted() -> None:
    text = "keys: {a: b}\nprot: 1\nrtc: {udpport: 2, udp_port: 7000}\n"
    config = load_config(Flags(lenient=True), {"LIVEKIT_CONFIG": text})
    assert config.unknown == ("prot", "rtc.udpport")
    assert config.udp_ports == (7000,)
    with pytest.raises(ConfigError, match=r"^LIVEKIT_CONFIG:2: unknown key prot \(did you mean port\?\)$"):
        load_config(Flags(), {"LIVEKIT_CONFIG": text})


def test_a_configuration_can_be_a_flag_which_replaces_the_file() -> None:
    config = load_config(Flags(config_body="keys: {a: b}", config=FILES / "sample.yaml"), {"LIVEKIT_CONFIG": "port: 1"})
    assert (list(config.keys), config.port, config.files) == (["a"], 7880, ())
    assert config.ignored == ("--config (--config-body is set)",)


def test_older_keys_of_limits_win() -> None:
    text = (
        "keys: {a: b}\nroom: {max_metadata_size: 10, max_room_name_length: 11, max_participant_identity_length: 12}\n"
    )
    limits = load_config(Flags(), {"LIVEKIT_CONFIG": text + "limit: {max_metadata_size: 1000}\n"}).limits
    assert (limits.metadata_bytes, limits.room_name_bytes, limits.identity_bytes, limits.name_bytes) == (
        10,
        11,
        12,
        256,
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("2000000000", 2), ("7.5s", 7.5), ("+2s", 2)],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    text = f"keys: {{a: b}}\nwebhook: {{resource_url_notifier: {{max_age: {text}}}}}\n"
    assert load_config(Flags(), {"LIVEKIT_CONFIG": text}).webhook.max_age_s == pytest.approx(seconds)


def test_a_configuration_that_is_read_again_keeps_what_cannot_change() -> None:
    before = load_config(Flags(), {"LIVEKIT_CONFIG": "keys: {a: b}\nport: 7000\n"})
    text = "keys: {c: d}\nport: 8000\nwebhook: {api_key: c, urls: [http://x/]}\nlimit: {num_tracks: 5}\n"
    fresh = load_config(Flags(), {"LIVEKIT_CONFIG": text})
    renewed = before.renewed(fresh)
    assert (list(renewed.keys), renewed.port, renewed.limits.tracks) == (["c"], 7000, 5)
    assert renewed.webhook.urls == ("http://x/",)
    assert set(before.differences(renewed)) == {"keys", "webhook", "limits"}
    assert renewed.differences(fresh) == ("port",)


def test_of_several_documents_the_first_is_read_and_the_log_says_so() -> None:
    config = load_config(Flags(), {"LIVEKIT_CONFIG": "keys: {a: b}\nport: 7000\n---\nport: [\n"})
    assert config.port == 7000
    assert config.remarks == ("LIVEKIT_CONFIG:3: only the first YAML document is read, and others follow",)
    for alone in (
        "---\nkeys: {a: b}\n",
        "keys: {a: b}\n---\n",
        "keys: {a: b}\n...\n",
        "%YAML 1.1\n---\nkeys: {a: b}\n",
    ):
        assert load_config(Flags(), {"LIVEKIT_CONFIG": alone}).remarks == ()


@pytest.mark.parametrize(
    ("text", "level", "remarks"),
    [
        ("logging: {level: trace}", "info", ["LIVEKIT_CONFIG:2: logging.level: 'trace' is none of debug, "]),
        ("log_level: 3", "info", ["LIVEKIT_CONFIG:2: log_level: '3' is none of debug, "]),
        ("log_level: WARN\nlogging: {level: debug}", "warning", []),
    ],
)
def test_a_level_that_nobody_knows_is_info_and_the_older_key_wins(text: str, level: str, remarks: list[str]) -> None:
    config = load_config(Flags(), {"LIVEKIT_CONFIG": f"keys: {{a: b}}\n{text}\n"})
    assert config.log_level == level
    assert [remark[: len(begin)] for remark, begin in zip(config.remarks, remarks, strict=True)] == remarks
    assert load_config(Flags(log_level="error"), {"LIVEKIT_CONFIG": f"keys: {{a: b}}\n{text}\n"}).log_level == "error"


def test_numbers_are_read_as_go_writes_them() -> None:
    text = "keys: {a: b}\nport: 7.89e+03\nroom: {max_participants: 4294967295, empty_timeout: 31536000}\n"
    config = load_config(Flags(), {"LIVEKIT_CONFIG": text})
    assert (config.port, config.room.max_participants, config.room.empty_timeout_s) == (7890, MAX_COUNT, 31_536_000)


def test_of_a_long_range_of_ports_the_first_are_used() -> None:
    config = load_config(Flags(udp_port="50000-60000"), {"LIVEKIT_CONFIG": "keys: {a: b}"})
    assert config.udp_ports == tuple(range(50000, 50000 + MAX_UDP_PORTS))
