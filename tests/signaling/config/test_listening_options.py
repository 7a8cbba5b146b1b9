"""What the configuration says about the main port: its certificate, and proxies that tell where clients are."""

import ipaddress

import pytest

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.options import TlsOptions
from signaling.config.settings import take_flags
from signaling.config.values import MAX_NETWORKS


def load(text: str, environment: dict[str, str] | None = None, *arguments: str) -> Config:
    rest, settings = take_flags(arguments, frozenset())
    assert rest == []
    given = {"LIVEKIT_CONFIG": f"keys: {{a: b}}\n{text}"} | (environment or {})
    return load_config(Flags(settings=settings), given)


def test_a_certificate_is_named_in_the_file_by_variables_or_by_flags() -> None:
    named = TlsOptions("/cert.pem", "/key.pem")
    assert load("tls: {cert_file: /cert.pem, key_file: /key.pem}").tls == named
    variables = {"LIVEKIT_TLS_CERT_FILE": "/cert.pem", "LIVEKIT_TLS_KEY_FILE": "/key.pem"}
    assert load("", variables).tls == named
    config = load("", None, "--tls.cert_file", "/cert.pem", "--tls.key_file=/key.pem")
    assert config.tls == named
    assert config.files == ("/cert.pem", "/key.pem")  # so that SIGHUP reads them again
    assert load("").tls is None
    assert load("").files == ()


def test_names_of_certificates_may_have_a_home_and_variables_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/sfu")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials")
    config = load("tls: {cert_file: ~/cert.pem, key_file: $CREDENTIALS_DIRECTORY/key.pem}")
    assert config.tls == TlsOptions("/home/sfu/cert.pem", "/run/credentials/key.pem")


def test_a_certificate_may_be_turned_on_and_off_while_the_server_runs() -> None:
    without, with_it = load(""), load("tls: {cert_file: /cert.pem, key_file: /key.pem}")
    assert without.renewed(with_it).tls == with_it.tls
    assert with_it.renewed(without).tls is None


def test_networks_of_proxies() -> None:
    networks = load("proxy_protocol_trusted_cidrs: [10.1.2.3/8, 192.0.2.1, '2001:db8::/32']").proxy_networks
    assert networks == tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32")))
    assert load("").proxy_networks == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tls:\n  cert_file: /cert.pem\n", "LIVEKIT_CONFIG:2: tls: cert_file and key_file are needed together"),
        ("tls:\n  key_file: /key.pem\n", "LIVEKIT_CONFIG:2: tls: cert_file and key_file are needed together"),
        ("tls:\n  cert: /cert.pem\n", "LIVEKIT_CONFIG:3: unknown key tls.cert (did you mean cert_file?)"),
        ("tls: true\n", "LIVEKIT_CONFIG:2: tls must be a mapping of keys"),
        (
            "proxy_protocol_trusted_cidrs: 10.0.0.0/8\n",
            "LIVEKIT_CONFIG:2: proxy_protocol_trusted_cidrs: must be a list",
        ),
        ("proxy_protocol_trusted_cidrs: [proxy]\n", "LIVEKIT_CONFIG:2: proxy_protocol_trusted_cidrs: "),
        (
            f"proxy_protocol_trusted_cidrs: [{', '.join(['10.0.0.0/8'] * (MAX_NETWORKS + 1))}]\n",
            "LIVEKIT_CONFIG:2: proxy_protocol_trusted_cidrs: more than 100 networks",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert str(caught.value).startswith(message)
