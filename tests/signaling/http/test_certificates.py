"""signaling/http/certificates.py: a certificate is read, and read again when it is whole."""

import asyncio
import os
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from signaling.config.document import ConfigError
from signaling.config.options import TlsOptions
from signaling.http import certificates as module
from signaling.http.certificates import Certificates, keeping_fresh, load_context
from tests.signaling.support.authority import Authority, pem_of_key, write_private


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> TlsOptions:
    return authority.write(tmp_path)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends


def serial(context: ssl.SSLContext | None, authority: Authority) -> object:
    assert context is not None
    told = shake_hands(context, authority.client_context())[0].getpeercert()
    assert told is not None
    return told["serialNumber"]


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ([], None),
        (["h2"], None),
        (["h2", "http/1.1"], "http/1.1"),
        (["stun.turn"], "stun.turn"),
        (["stun.nat-discovery"], None),
    ],
)
def test_http_2_is_never_agreed_upon(
    authority: Authority, files: TlsOptions, offered: list[str], agreed: str | None
) -> None:
    client = authority.client_context()
    if offered:
        client.set_alpn_protocols(offered)
    ends = shake_hands(load_context(files), client)
    assert [end.selected_alpn_protocol() for end in ends] == [agreed, agreed]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_only_versions_that_are_safe_are_spoken(
    authority: Authority, files: TlsOptions, version: ssl.TLSVersion
) -> None:
    client = authority.client_context()
    client.minimum_version = client.maximum_version = version
    context = load_context(files)
    assert shake_hands(context, client)[0].version() == version.name.replace("_", ".")
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def missing(files: TlsOptions, authority: Authority) -> None:
    Path(files.cert_file).unlink()


def key_missing(files: TlsOptions, authority: Authority) -> None:
    Path(files.key_file).unlink()


def other_key(files: TlsOptions, authority: Authority) -> None:
    write_private(Path(files.key_file), pem_of_key(ec.generate_private_key(ec.SECP256R1())))


def half(files: TlsOptions, authority: Authority) -> None:
    whole = Path(files.cert_file).read_bytes()
    Path(files.cert_file).write_bytes(whole[: len(whole) * 3 // 4])


def half_key(files: TlsOptions, authority: Authority) -> None:
    write_private(Path(files.key_file), Path(files.key_file).read_bytes()[:100])


def empty(files: TlsOptions, authority: Authority) -> None:
    Path(files.cert_file).write_bytes(b"")


def encrypted(files: TlsOptions, authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    Path(files.cert_file).write_bytes(authority.sign(key))
    write_private(Path(files.key_file), pem_of_key(key, b"password"))


@pytest.mark.parametrize("spoil", [missing, key_missing, other_key, half, half_key, empty, encrypted])
def test_files_that_cannot_be_used_are_an_error_at_the_start_and_keep_the_old_ones_later(
    authority: Authority, files: TlsOptions, spoil: "object"
) -> None:
    assert callable(spoil)
    running = Certificates(files)
    before = running.context
    spoil(files, authority)
    with pytest.raises(ConfigError, match=r"^tls: .*server\.(pem|key)"):
        Certificates(files)
    with capture_logs() as logs:
        running.renew(files)
    assert running.context is before
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["the certificate was not read again"]


def test_a_change_is_taken_over_when_it_is_written_to_its_end(
    authority: Authority, files: TlsOptions, tmp_path: Path
) -> None:
    running = Certificates(files)
    before = serial(running.context, authority)
    running.check()
    assert serial(running.context, authority) == before
    key = ec.generate_private_key(ec.SECP256R1())
    Path(files.cert_file).write_bytes(authority.sign(key))
    running.check()  # sees the change
    with capture_logs() as logs:
        running.check()  # reads a certificate without its key
        running.check()
    assert [line["event"] for line in logs] == ["the certificate was not read again"]
    assert serial(running.context, authority) == before
    write_private(Path(files.key_file), pem_of_key(key))
    running.check()
    assert serial(running.context, authority) == before
    running.check()
    assert serial(running.context, authority) != before


def test_a_link_that_is_changed_over_is_a_change(authority: Authority, tmp_path: Path) -> None:
    """Kubernetes and certbot put a link in the place of a file, and change what it points to."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        authority.write(tmp_path / name)
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "old")
    running = Certificates(TlsOptions(os.fspath(link / "server.pem"), os.fspath(link / "server.key")))
    before = serial(running.context, authority)
    link.unlink()
    link.symlink_to(tmp_path / "new")
    running.check()
    running.check()
    assert serial(running.context, authority) != before


async def test_files_are_looked_at_while_the_server_runs(
    authority: Authority, files: TlsOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_S", 0.01)
    running = Certificates(files)
    before = running.context
    async with keeping_fresh(running), asyncio.timeout(10):
        authority.write(tmp_path)
        while running.context is before:  # noqa: ASYNC110  # nobody is told
            await asyncio.sleep(0.01)


def test_tls_can_be_turned_on_and_off(files: TlsOptions) -> None:
    running = Certificates(None)
    running.check()
    shown = [running.context]
    running.renew(files)
    shown.append(running.context)
    running.renew(None)
    running.check()
    shown.append(running.context)
    assert [context is not None for context in shown] == [False, True, False]


def test_an_expired_certificate_and_a_key_that_all_can_read_are_told(authority: Authority, tmp_path: Path) -> None:
    files = authority.write(tmp_path, timedelta(hours=-1))
    Path(files.key_file).chmod(0o644)
    with capture_logs() as logs:
        Certificates(files)
    warned = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert warned == [
        "the certificate has expired, clients will refuse it",
        "the private key of TLS can be read by others",
    ]
