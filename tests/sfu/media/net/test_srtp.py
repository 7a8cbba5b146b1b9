"""What leaves is decrypted by libsrtp, and compared with the examples of the RFCs."""

import struct
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from pylibsrtp import Error as SrtpError
from pylibsrtp import Policy, Session, ffi

from sfu.control.rows import Tables
from sfu.control.security.srtp_keys import SendingCipher, derive
from sfu.media.net import srtp
from sfu.media.wire.overhead import GCM_TAG_BYTES
from sfu.media.wire.windows import WINDOW
from sfu.schema.capacities import TX_BYTES
from sfu.schema.memory import Memory
from sfu.schema.subscription_tables import subscription_t
from tests.sfu.support.ice import drop_counts

SSRC = 0xC0FFEE01
MASTERS = {
    Policy.SRTP_PROFILE_AEAD_AES_128_GCM: (bytes(range(16)), bytes(range(100, 112))),
    Policy.SRTP_PROFILE_AEAD_AES_256_GCM: (bytes(range(32)), bytes(range(100, 112))),
}
AES_128 = Policy.SRTP_PROFILE_AEAD_AES_128_GCM


class Sender:
    """A transport row with keys, and the peer's libsrtp."""

    def __init__(self, profile: int = AES_128) -> None:
        key, salt = MASTERS[profile]
        self.memory = Memory()
        self.row = self.memory.table("transports")[0]
        self.use(SendingCipher(*derive(key, salt)))
        self.peer = Session(Policy(key=key + salt, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile))
        self.libsrtp = Session(Policy(key=key + salt, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
        self.row["srtp_out"] = int(ffi.cast("uintptr_t", self.libsrtp._srtp[0]))

    def use(self, cipher: SendingCipher) -> None:
        """Send with this cipher from now on."""
        self.cipher = cipher
        Tables(self.memory).write_cipher(0, cipher)

    def send(self, packet: bytes, index: int) -> bytes | None:
        """The datagram that would leave; None: it was dropped."""
        slot = int(self.memory.thread["tx_count"])
        self.memory.table("tx")[slot][: len(packet)] = np.frombuffer(packet, np.uint8)
        if not srtp.send_rtp(self.memory.record, 0, slot, len(packet), index):
            return None
        self.memory.thread["tx_count"] = 0
        return bytes(self.memory.table("tx")[slot][: self.memory.table("tx_size")[slot]])


@pytest.fixture(scope="module")
def shared() -> Sender:
    """For examples by the dozen: each has a gigabyte of address space."""
    return Sender()


def rtp(index: int, payload: bytes = b"payload", ssrc: int = SSRC, csrcs: int = 0, extension: bytes = b"") -> bytes:
    first = 0x80 | csrcs | (0x10 if extension else 0)
    head = struct.pack("!BBHII", first, 96, index & 0xFFFF, 1234, ssrc) + bytes(range(4 * csrcs))
    if extension:
        head += struct.pack("!HH", 0xBEDE, len(extension) // 4) + extension
    return head + payload


def test_keys_are_derived_as_in_the_example_of_rfc_3711() -> None:
    master_key = bytes.fromhex("E1F97A0D3E018BE0D64FA32C06DE4139")
    master_salt = bytes.fromhex("0EC675AD498AFEEBB6960B3AABE6")
    key, salt = derive(master_key, master_salt)
    assert key == bytes.fromhex("C61E7A93744F39EE10734AFE3FF7A087")
    assert salt == bytes.fromhex("30CBBC08863D8C85D49DB34A9AE1")[:12]


def test_packet_is_encrypted_as_in_the_example_of_rfc_7714() -> None:
    sender = Sender()
    sender.use(SendingCipher(bytes(range(16)), bytes.fromhex("517569642070726f2071756f")))
    packet = bytes.fromhex("8040f17b8041f8d35501a0b2") + b"Gallia est omnis divisa in partes tres"
    assert sender.send(packet, 0xF17B) == bytes.fromhex(
        "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27be"
        "b16a9152cf765ee4390cce"
    )


@pytest.mark.parametrize("profile", MASTERS)
@pytest.mark.parametrize("csrcs", [0, 3])
@pytest.mark.parametrize("extension", [b"", b"\x10\x01\x00\x00", bytes(40)])
def test_libsrtp_decrypts_whatever_the_header_has(profile: int, csrcs: int, extension: bytes) -> None:
    sender, packet = Sender(profile), rtp(7, csrcs=csrcs, extension=extension)
    sent = sender.send(packet, 7)
    assert sent is not None
    assert len(sent) == len(packet) + GCM_TAG_BYTES
    assert sender.peer.unprotect(sent) == packet


def test_the_rollover_counter_counts_and_late_packets_have_the_old_one() -> None:
    sender = Sender()
    for index in (65_000, 65_535, 65_537, 65_536, 65_534, 90_000, 120_000, 2 * 65_536 + 3):
        sent = sender.send(rtp(index), index)
        assert sent is not None
        assert sender.peer.unprotect(sent) == rtp(index)


@pytest.mark.parametrize("index", [0xFFFF_0001, 0x1_0000_0000, 0xABCD_EF01_2345, srtp.MAX_INDEX])
def test_large_indices_make_the_nonce_of_the_rfc(index: int) -> None:
    """As AESGCM has it, because libsrtp cannot be told a rollover counter."""
    sender = Sender()
    key, salt = derive(*MASTERS[AES_128])
    packet = rtp(index)
    nonce = bytes(a ^ b for a, b in zip(bytes(2) + SSRC.to_bytes(4) + index.to_bytes(6), salt, strict=True))
    assert sender.send(packet, index) == packet[:12] + AESGCM(key).encrypt(nonce, packet[12:], packet[:12])


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=12, max_size=12), st.integers(0, 0xFFFFFFFF))
@settings(max_examples=30)
def test_any_key_salt_and_ssrc(shared: Sender, key: bytes, salt: bytes, ssrc: int) -> None:
    shared.use(SendingCipher(*derive(key, salt)))
    peer = Session(Policy(key=key + salt, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=AES_128))
    sent = shared.send(rtp(30_000, ssrc=ssrc), 30_000)
    assert sent is not None
    assert peer.unprotect(sent) == rtp(30_000, ssrc=ssrc)


def test_streams_of_one_transport_do_not_disturb_each_other() -> None:
    sender = Sender()
    for index in range(100, 120):
        for ssrc in (SSRC, 5):
            sent = sender.send(rtp(index, ssrc=ssrc), index)
            assert sent is not None
            assert sender.peer.unprotect(sent) == rtp(index, ssrc=ssrc)


def test_every_bit_is_authenticated() -> None:
    sender = Sender()
    sent = sender.send(rtp(9, extension=bytes(4)), 9)
    assert sent is not None
    for at in range(len(sent)):
        with pytest.raises(SrtpError):
            sender.peer.unprotect(sent[:at] + bytes([sent[at] ^ 1]) + sent[at + 1 :])
    sender.peer.unprotect(sent)


@pytest.mark.parametrize(
    ("packet", "index"),
    [
        (rtp(1, payload=b""), 1),
        (rtp(1)[:2] + bytes(3), 1),
        (b"\x90" + rtp(1, payload=b"\xff" * 40)[1:], 1),  # an extension that is longer than the packet
        (rtp(1), -1),
        (rtp(1), srtp.MAX_INDEX + 1),
        (rtp(1, payload=bytes(TX_BYTES - 12 - GCM_TAG_BYTES + 1)), 1),
    ],
)
def test_what_cannot_be_protected_is_counted_and_does_not_leave(packet: bytes, index: int) -> None:
    sender = Sender()
    assert sender.send(packet, index) is None
    assert drop_counts(sender.memory) == {"protect_failed": 1}
    assert sender.memory.thread["tx_count"] == 0
    assert sender.send(rtp(2), 2) is not None


def test_the_largest_packet_fits() -> None:
    sender = Sender()
    packet = rtp(1, payload=bytes(TX_BYTES - 12 - GCM_TAG_BYTES))
    sent = sender.send(packet, 1)
    assert sent is not None
    assert len(sent) == TX_BYTES


def test_without_a_cipher_libsrtp_protects() -> None:
    sender = Sender()
    sender.row["cipher"] = 0
    sent = sender.send(rtp(3), 3)
    assert sent is not None
    assert sender.peer.unprotect(sent) == rtp(3)
    assert sender.send(rtp(3), 3) is None  # the same index twice
    assert drop_counts(sender.memory) == {"protect_failed": 1}


def test_transport_without_a_path_sends_nothing() -> None:
    memory = Memory()
    memory.table("transports")[0]["path"] = -1
    assert not srtp.send_rtp(memory.record, 0, 0, 100, 1)
    assert not srtp.send_rtcp(memory.record, 0, 0, 100)
    assert drop_counts(memory) == {"not_ready": 2}
    assert memory.thread["tx_count"] == 0


@given(
    st.lists(
        st.integers(0, 200) | st.integers(0, 1500) | st.integers(srtp.MAX_INDEX - 100, srtp.MAX_INDEX + 5), max_size=60
    )
)
def test_an_index_is_claimed_once(indices: list[int]) -> None:
    subscription: Any = np.zeros(1, subscription_t)
    subscription["index_highest"] = -1
    claimed: set[int] = set()
    for index in indices:
        highest = max(claimed, default=-1)
        expected = index <= srtp.MAX_INDEX and index not in claimed and highest - index < WINDOW
        assert srtp.claim_index(subscription[0], index) == expected
        if expected:
            claimed.add(index)
