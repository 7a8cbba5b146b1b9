import contextlib

import pytest
from OpenSSL import SSL
from pylibsrtp import Policy, Session

from bench.clients.dtls_server import DATAGRAM_BYTES, PROFILES, DtlsServer, server_context, srtp_address

RTP = bytes.fromhex("80600001000000010000002a") + b"payload"


class Client:
    """The other side, as plain pyOpenSSL."""

    def __init__(self, profile: str) -> None:
        context, self.fingerprint = server_context(profile)
        self.connection = SSL.Connection(context, None)
        self.connection.set_connect_state()
        self.connection.set_ciphertext_mtu(DATAGRAM_BYTES)

    def step(self, datagrams: list[bytes]) -> bytes:
        for datagram in datagrams:
            self.connection.bio_write(datagram)
        with contextlib.suppress(SSL.WantReadError):
            self.connection.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            return self.connection.bio_read(1 << 16)
        return b""


def shake_hands(client: Client, server: DtlsServer) -> None:
    datagrams: list[bytes] = []
    while not server.connected:
        datagrams = server.receive(client.step(datagrams))
        assert all(len(datagram) <= DATAGRAM_BYTES for datagram in datagrams)
    client.step(datagrams)


def client_session(client: Client, profile: str, side: int, direction: object) -> Session:
    sizes = PROFILES[profile]
    length = 2 * (sizes.key_bytes + sizes.salt_bytes)
    material = client.connection.export_keying_material(b"EXTRACTOR-dtls_srtp", length)
    keys, salts = material[: 2 * sizes.key_bytes], material[2 * sizes.key_bytes :]
    key = keys[side * sizes.key_bytes :][: sizes.key_bytes] + salts[side * sizes.salt_bytes :][: sizes.salt_bytes]
    return Session(Policy(key=key, ssrc_type=direction, srtp_profile=sizes.number))


@pytest.mark.parametrize("profile", PROFILES)
def test_both_sides_get_the_same_keys(profile: str) -> None:
    client = Client(profile)
    server = DtlsServer(server_context(profile)[0], client.fingerprint.lower())
    shake_hands(client, server)
    assert server.incoming is not None
    assert server.outgoing is not None
    theirs = client_session(client, profile, 0, Policy.SSRC_ANY_OUTBOUND)
    assert server.incoming.unprotect(theirs.protect(RTP)) == RTP
    theirs = client_session(client, profile, 1, Policy.SSRC_ANY_INBOUND)
    assert theirs.unprotect(server.outgoing.protect(RTP)) == RTP
    assert srtp_address(server.incoming) != srtp_address(server.outgoing)


def test_a_certificate_that_was_not_announced_is_refused() -> None:
    profile = "SRTP_AEAD_AES_128_GCM"
    context, fingerprint = server_context(profile)
    server = DtlsServer(context, fingerprint)  # its own, not the client's
    with pytest.raises(SSL.Error, match="announced"):
        shake_hands(Client(profile), server)
    assert not server.connected


def test_profiles_in_common_are_needed() -> None:
    client = Client("SRTP_AES128_CM_SHA1_80")
    server = DtlsServer(server_context("SRTP_AEAD_AES_128_GCM")[0], client.fingerprint)
    with pytest.raises(SSL.Error, match="profile"):
        shake_hands(client, server)


def test_nothing_is_sent_again_before_anything_was_sent() -> None:
    assert DtlsServer(server_context("SRTP_AEAD_AES_128_GCM")[0], "").timeout() == []
