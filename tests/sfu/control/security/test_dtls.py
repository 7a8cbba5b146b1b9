"""Two of our DTLS connections joined in memory."""

import struct

import pytest
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st
from pylibsrtp import Error

from sfu.control.security.certificate import LocalCertificate
from sfu.control.security.dtls import (
    MTU_BYTES,
    SRTP_PROFILES,
    DtlsConnection,
    SrtpProfile,
    SrtpSessions,
    State,
    is_one_data_record,
    split_at_records,
)
from sfu.errors import TransportFailure
from sfu.parameters import DtlsRole
from sfu.schema.capacities import PACKETS

PROFILES = tuple(profile.name for profile in SRTP_PROFILES)
OURS, THEIRS = LocalCertificate(PROFILES), LocalCertificate(PROFILES)
RTP = bytes.fromhex("806f0001000000010000002a") + b"payload"


def pair(
    *, theirs: LocalCertificate = THEIRS, expected: tuple[tuple[str, str], ...] | None = None
) -> tuple[DtlsConnection, DtlsConnection]:
    """A server of ours and a client; `expected` replaces the fingerprints that the server wants."""
    server = DtlsConnection(OURS.context, DtlsRole.SERVER, expected or (theirs.fingerprint,))
    return server, DtlsConnection(theirs.context, DtlsRole.CLIENT, (OURS.fingerprint,))


def shake_hands(server: DtlsConnection, client: DtlsConnection) -> None:
    client.start()
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            for datagram in one.datagrams_to_send():
                other.receive(datagram)


def test_both_ends_get_keys_that_fit() -> None:
    server, client = pair()
    shake_hands(server, client)
    assert server.sessions is not None
    assert client.sessions is not None
    for one, other in ((server.sessions, client.sessions), (client.sessions, server.sessions)):
        assert other._receiving.unprotect(one._sending.protect(RTP)) == RTP


def test_aes_128_gcm_is_chosen_of_all() -> None:
    server, client = pair()
    shake_hands(server, client)
    assert server.sessions is not None
    assert server.sessions.profile.name == "SRTP_AEAD_AES_128_GCM"


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_works_with_a_peer_that_offers_nothing_else(name: str) -> None:
    server, client = pair(theirs=LocalCertificate((name,)))
    shake_hands(server, client)
    assert server.sessions is not None
    assert client.sessions is not None
    assert server.sessions.profile.name == name
    assert server.sessions._receiving.unprotect(client.sessions._sending.protect(RTP)) == RTP


@pytest.mark.parametrize("profile", SRTP_PROFILES, ids=PROFILES)
def test_libsrtp_protects_packets_as_late_as_they_are_forwarded(profile: SrtpProfile) -> None:
    material = bytes(range(2 * (profile.key_bytes + profile.salt_bytes)))
    ours, theirs = (SrtpSessions(profile, material, role) for role in (DtlsRole.SERVER, DtlsRole.CLIENT))

    def is_forwarded(number: int) -> bool:
        packet = struct.pack("!BBHLL", 0x80, 100, number & 0xFFFF, 0, 7) + b"payload"
        try:
            protected = ours._sending.protect(packet)
        except Error:
            return False
        return bool(theirs._receiving.unprotect(protected) == packet)

    newest = 70_000
    assert all(is_forwarded(newest - behind) for behind in range(2 * PACKETS, -1, -2))
    assert all(is_forwarded(newest - behind) for behind in range(PACKETS - 1, 0, -2))
    assert not is_forwarded(newest - PACKETS + 2)  # never two packets under one index


def test_peer_without_common_srtp_profile_is_refused() -> None:
    server, client = pair(theirs=LocalCertificate(("SRTP_AES128_CM_SHA1_32",)))
    with pytest.raises(TransportFailure, match="no SRTP profile"):
        shake_hands(server, client)
    assert server.sessions is None


def test_wrong_certificate_of_a_client_is_refused() -> None:
    server, client = pair(expected=(OURS.fingerprint,))
    with pytest.raises(TransportFailure, match="fingerprint mismatch"):
        shake_hands(server, client)
    assert server.state is State.ENDED
    assert server.sessions is None


def test_wrong_certificate_of_a_server_is_refused() -> None:
    server = DtlsConnection(OURS.context, DtlsRole.SERVER, (THEIRS.fingerprint,))
    client = DtlsConnection(THEIRS.context, DtlsRole.CLIENT, (THEIRS.fingerprint,))
    with pytest.raises(TransportFailure, match="fingerprint mismatch"):
        shake_hands(server, client)
    assert client.sessions is None


def test_one_matching_fingerprint_of_several_is_enough() -> None:
    name, value = THEIRS.fingerprint
    server, client = pair(expected=(("sha-1", "00"), (name, "11:22"), (name, value.lower())))
    shake_hands(server, client)
    assert server.state is State.CONNECTED


def test_sha_1_fingerprint_alone_is_refused() -> None:
    digest = THEIRS._certificate.fingerprint(hashes.SHA1())
    server, client = pair(expected=(("sha-1", digest.hex(":")),))
    with pytest.raises(TransportFailure, match="fingerprint mismatch"):
        shake_hands(server, client)


def test_handshake_datagrams_are_small_and_hold_whole_records() -> None:
    server, client = pair()
    client.start()
    for datagram in client.datagrams_to_send():
        server.receive(datagram)
    flight = server.datagrams_to_send()
    assert flight
    for datagram in flight:
        assert len(datagram) <= MTU_BYTES
        assert split_at_records(datagram) == [datagram]


def test_flight_has_a_timer_and_is_not_repeated_before_it_runs_out() -> None:
    _, client = pair()
    client.start()
    assert client.datagrams_to_send()
    timeout = client.timeout_s()
    assert timeout is not None
    assert 0 < timeout <= 1
    # OpenSSL looks at the clock itself.
    client.handle_timeout()
    assert client.datagrams_to_send() == []


def test_nothing_is_timed_before_the_peer_spoke_and_after_the_handshake() -> None:
    server, client = pair()
    assert server.timeout_s() is None
    assert client.timeout_s() is None
    shake_hands(server, client)
    assert server.timeout_s() is None
    assert client.timeout_s() is None


def test_application_data_arrives_and_close_is_told() -> None:
    server, client = pair()
    shake_hands(server, client)
    server.send(b"one")
    server.send(b"two")
    received = [data for datagram in server.datagrams_to_send() for data in client.receive(datagram)]
    assert received == [b"one", b"two"]
    server.close()
    (alert,) = server.datagrams_to_send()
    with pytest.raises(TransportFailure, match="closed by peer"):
        client.receive(alert)
    assert client.receive(b"anything") == []


def test_one_datagram_may_hold_several_records() -> None:
    server, client = pair()
    shake_hands(server, client)
    for payloads in ([b"one"], [b"one", b"two"], [b"one", b"two", bytes(300)]):
        for payload in payloads:
            server.send(payload)
        (datagram,) = server.datagrams_to_send()
        assert is_one_data_record(datagram) == (len(payloads) == 1)
        assert client.receive(datagram) == payloads
    server.send(b"last")
    server.close()
    (datagram,) = server.datagrams_to_send()  # with the alert behind the data
    assert not is_one_data_record(datagram)
    with pytest.raises(TransportFailure, match="closed by peer"):
        client.receive(datagram)


def test_broken_datagram_does_not_swallow_the_next_one() -> None:
    server, client = pair()
    shake_hands(server, client)

    def made(payload: bytes) -> bytes:
        server.send(payload)
        (datagram,) = server.datagrams_to_send()
        return datagram

    whole = made(b"whole")
    forged = bytearray(made(b"forged"))
    forged[-1] ^= 1
    for broken in (bytes(forged), whole[:-1], whole[:13], whole[:5], b"\x17", whole[:11] + b"\xff\xff" + whole[13:]):
        assert client.receive(broken) == []
        assert client.receive(made(b"next")) == [b"next"]
    assert client.receive(whole) == [b"whole"]
    assert client.receive(whole) == []  # a replay


def test_handshake_survives_garbage_and_repeats() -> None:
    server, client = pair()
    client.start()
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            for datagram in one.datagrams_to_send():
                other.receive(b"\x16\xfe\xfd" + bytes(40))
                other.receive(datagram)
                other.receive(datagram[: len(datagram) // 2])
                other.receive(datagram)
    assert server.state is client.state is State.CONNECTED


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200).map(lambda tail: b"\x16" + tail), max_size=5))
def test_any_datagram_is_taken_or_ends_the_connection(datagrams: list[bytes]) -> None:
    server, _ = pair()
    try:
        for datagram in datagrams:
            assert server.receive(datagram) == []
    except TransportFailure:
        assert server.state is State.ENDED
    assert server.sessions is None


def test_records_are_packed_up_to_the_mtu() -> None:
    def record(size: int) -> bytes:
        return b"\x16\xfe\xfd" + bytes(8) + size.to_bytes(2, "big") + bytes(size)

    small, large = record(500), record(2000)
    assert split_at_records(small * 2) == [small * 2]
    assert split_at_records(small * 3) == [small * 2, small]
    assert split_at_records(small + large + small) == [small, large, small]
