"""signaling/cli.py: what operators type, and what they are told when it is wrong."""

import http.server
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from signaling import process
from signaling.cli import main
from signaling.config.api_keys import hide
from signaling.config.configuration import Flags
from signaling.http.tokens import verify

ROOT = Path(__file__).parents[2]
KEYS = hide({"devkey": "secret"})
ENVIRONMENT_NAMES = ("LIVEKIT_CONFIG", "LIVEKIT_KEYS", "NODE_IP", "UDP_PORT")


@pytest.fixture(autouse=True)
def no_inherited_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT_NAMES:
        monkeypatch.delenv(name, raising=False)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, output.out, output.err


def test_a_token_joins_its_room(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "token", "--room", "r", "--identity", "i")
    assert status == 0
    claims = verify(out.strip(), KEYS)
    assert (claims.identity, claims.name, claims.video.room, claims.video.room_join) == ("i", "i", "r", True)
    assert claims.video.can_publish
    assert not claims.video.hidden


def test_a_token_has_the_grants_of_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--no-can-publish", "--no-can-subscribe", "--hidden", "--admin", "--valid-for", "10m"]
    flags += ["--name", "N", "--metadata", "m"]
    keys = ["--keys", f"k: {'s' * 32}"]
    _, out, _ = run(capsys, "token", "--room", "r", "--identity", "i", *flags, *keys)
    claims = verify(out.strip(), hide({"k": "s" * 32}))
    grant = claims.video
    assert (grant.can_publish, grant.can_subscribe, grant.hidden, grant.room_admin) == (False, False, True, True)
    assert (claims.name, claims.metadata) == ("N", "m")
    assert claims.expires_at - claims.raw["nbf"] < 900


def test_a_token_is_signed_with_the_environments_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_KEYS", "envkey: envsecret")
    _, out, _ = run(capsys, "token", "--room", "r", "--identity", "i", "--can-publish-source", "camera")
    assert verify(out.strip(), hide({"envkey": "envsecret"})).api_key == "envkey"


def test_a_token_is_signed_with_the_key_of_the_servers_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "livekit.yaml"
    file.write_text(f"keys:\n  filekey: {'s' * 32}\n")
    _, out, _ = run(capsys, "token", "--room", "r", "--identity", "i", "--config", str(file))
    assert verify(out.strip(), hide({"filekey": "s" * 32})).api_key == "filekey"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "--prot", "1"), "No such option"),
        (("serve", "--port", "70000"), "70000"),
        (("serve", "--port", "x"), "x"),
        (("serve",), "no API keys"),
        (("serve", "--dev", "--udp-port", "high"), "--udp-port: 'high' is neither a port nor a range"),
        (("serve", "--dev", "--node-ip", "here"), "--node-ip: "),
        (("serve", "--dev", "--bind", "here"), "--bind: "),
        (("serve", "--keys", "devkey:secret"), "--keys: keys must be"),
        (("serve", "--config", "/nonexistent.yaml"), "/nonexistent.yaml: No such file or directory"),
        (("token", "--room", "r"), "identity"),
        (("token", "--room", "r", "--identity", "i", "--valid-for", "soon"), "not like 90s"),
        (("token", "--room", "r", "--identity", "i", "--keys", "x"), "--keys: keys must be"),
        (("token", "--room", "r", "--identity", "i", "--can-publish-source", "webcam"), "'webcam' is not one of"),
        (("serv",), "No such command"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert re.fullmatch(r"aiosfu: [^\n]+\n", err)
    assert message in err


def test_an_unknown_config_key_is_named_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("keys:\n  a: b\nrtc:\n  udpport: 7882\n")
    status, _, err = run(capsys, "serve", "--config", str(file))
    assert (status, err) == (2, f"aiosfu: {file}:4: unknown key rtc.udpport (did you mean udp_port?)\n")


def test_the_help_says_which_commands_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "--help")
    assert (status, err) == (0, "")
    assert re.search(r"^Commands:\n.*^  serve ", out, re.MULTILINE | re.DOTALL)


def test_without_a_command_the_server_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Flags] = []
    monkeypatch.setattr(process, "serve", served.append)
    run(capsys, "--dev", "--bind", "0.0.0.0,::", "--rtc.tcp_port", "7881", "--disable-strict-config")
    run(capsys, "--dev", "--port", "0", "serve", "--bind", "::1", "--redis-host=r:1", "--key-file", "k")
    first, second = served
    assert (first.dev, first.bind, first.lenient) == (True, ("0.0.0.0", "::"), True)
    assert first.settings == ((("rtc", "tcp_port"), "7881", "--rtc.tcp_port"),)
    assert (second.dev, second.bind, second.port) == (True, ("::1",), 0)
    assert {setting.path for setting in second.settings} == {("redis", "address"), ("key_file",)}


def test_generated_keys_are_long_and_new(capsys: pytest.CaptureFixture[str]) -> None:
    _, first, _ = run(capsys, "generate-keys")
    _, second, _ = run(capsys, "generate-keys")
    assert re.fullmatch(r"API Key:  API\w{12}\nAPI Secret:  [\w-]{43}\n", first)
    assert first != second


def test_a_join_token_is_made_as_livekit_server_makes_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("create-join-token", "--room", "r", "--identity", "i", "--keys", "devkey: secret")
    _, out, _ = run(capsys, *arguments)
    claims = verify(out.removeprefix("Token: ").strip(), KEYS)
    assert (claims.identity, claims.video.room, claims.video.can_publish) == ("i", "r", True)
    assert claims.expires_at - claims.raw["nbf"] > 29 * 86_400
    _, out, _ = run(capsys, *arguments, "--recorder")
    grant = verify(out.removeprefix("Token: ").strip(), KEYS).video
    assert (grant.hidden, grant.recorder, grant.can_publish, grant.can_subscribe) == (True, True, False, True)


def test_every_flag_of_livekit_server_is_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Flags] = []
    monkeypatch.setattr(process, "serve", served.append)
    names = "bind config config-body key-file keys region node-ip udp-port redis-host redis-password turn-cert turn-key"
    given = [argument for name in names.split() for argument in (f"--{name}", "::1")]
    run(capsys, *given, "--dev", "--disable-strict-config")
    status, _, err = run(capsys, "--dev", "--cpuprofile", "cpu.prof", "--memprofile=mem.prof")
    assert (status, len(served)) == (0, 2)
    assert [line.split(":")[1].split()[0] for line in err.splitlines()] == ["--cpuprofile", "--memprofile"]


def test_flags_may_have_one_dash_as_in_go(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Flags] = []
    monkeypatch.setattr(process, "serve", served.append)
    run(capsys, "-dev", "-bind=0.0.0.0", "-rtc.tcp_port", "7881", "-room.auto_create=false", "-logging.json")
    (flags,) = served
    assert (flags.dev, flags.bind) == (True, ("0.0.0.0",))
    assert [setting.text for setting in flags.settings] == ["7881", "false", "true"]
    _, out, _ = run(capsys, "token", "--room", "-r", "--identity", "-x-")
    assert verify(out.strip(), KEYS).identity == "-x-"
    assert run(capsys, "-nothing")[0] == 2


def test_help_and_version_are_commands_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "-v") == run(capsys, "--version")
    assert run(capsys, "help") == run(capsys, "-h")
    status, out, _ = run(capsys, "help-verbose")
    assert status == 0
    assert re.search(r"^  --room\.max_participants +LIVEKIT_ROOM_MAX_PARTICIPANTS$", out, re.MULTILINE)
    assert re.search(r"^  --redis\.address +LIVEKIT_REDIS_ADDRESS  \(no effect\)$", out, re.MULTILINE)
    assert "webhook.urls" not in out


def test_who_asks_for_ports_needs_no_keys(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "livekit.yaml"
    file.write_text("port: 0x1f40\nkey_file: /nonexistent\nwebhook: {api_key: k, urls: [http://x/]}\n")
    _, out, _ = run(capsys, "ports", "--config", str(file))
    assert out == "TCP Ports\n8000 - HTTP service\n7881 - ICE/TCP\nUDP Ports\n7882 - ICE/UDP\n"
    _, out, _ = run(capsys, "list-nodes", "--config", str(file), "--bind", "127.0.0.1")
    assert re.search(r"^ADDRESS +127\.0\.0\.1:8000$", out, re.MULTILINE)
    assert run(capsys, "serve", "--config", str(file))[0] == 2


def test_ports_are_those_of_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    body = "prometheus_port: 6789\nmedia_threads: 2\nrtc: {port_range_start: 50000, port_range_end: 60000}"
    _, out, _ = run(capsys, "--dev", "--config-body", body, "ports")
    tcp = "TCP Ports\n7880 - HTTP service\n6789 - Prometheus\n7881 - ICE/TCP\n"
    assert out == tcp + "UDP Ports\n50000-50001 - ICE/UDP\n"
    turn = ("--turn.enabled", "--turn.udp_port", "3478", "--turn.tls_port", "5349", "--turn.domain", "turn.example.org")
    _, out, _ = run(capsys, "ports", *turn)
    assert out.endswith("5349 - TURN/TLS\nUDP Ports\n7882 - ICE/UDP\n3478 - TURN/UDP\n")


def test_a_server_that_does_not_answer_is_listed_so(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "list-nodes", "--dev", "--port", "1", "--region", "here")
    assert re.search(r"^STATE +NOT SERVING$", out, re.MULTILINE)
    assert re.search(r"^REGION +here$", out, re.MULTILINE)


def test_a_server_that_listens_on_ipv6_alone_is_listed_as_serving(capsys: pytest.CaptureFixture[str]) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # as the library names it
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing: a test's output is the test's."""

    class Server(http.server.HTTPServer):
        address_family = socket.AF_INET6

    with Server(("::1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        _, out, _ = run(capsys, "list-nodes", "--dev", "--bind", "::", "--port", str(server.server_address[1]))
    assert re.search(r"^STATE +SERVING$", out, re.MULTILINE)


def test_a_compilation_that_no_terminal_shows_is_told_in_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_all(progress: Callable[[int, int, str], None]) -> None:
        for done in range(1, 201):
            progress(done, 200, "sfu.kernel")
        progress(200, 200, "")

    monkeypatch.setattr("sfu.compile.compile_all", compile_all)
    _, _, err = run(capsys, "compile")
    lines = err.splitlines()
    assert lines[:2] == ["compiling kernels: 1 of 200", "compiling kernels: 20 of 200"]
    assert lines[-1] == "kernels are compiled"
    assert len(lines) < 20


def test_help_and_version_are_no_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "serve", "--help")
    assert status == 0
    assert "--udp-port" in out


def test_the_command_line_is_quick_because_it_loads_no_media_engine() -> None:
    code = "import sys, signaling.cli; print([name for name in sys.modules if name in ('numba', 'sfu')])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
