"""To which of its addresses a client is sent: where its own newest authentic packets come from.

Clients are plain sockets with libsrtp through turns of the loop; the clock is driven by hand.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from aiortc import rtp
from pylibsrtp import Policy, Session

from sfu.control.rows import Tables
from sfu.control.security.srtp_keys import SendingCipher
from sfu.media.net.following import COMPARE_NS
from sfu.media.net.paths import FOLLOW_NS, SILENT_NS
from sfu.media.rtcp.incoming import _srtcp_index
from sfu.schema.capacities import PATHS
from sfu.schema.codes import Command, NoticeKind
from sfu.schema.memory import Memory
from tests.sfu.media.test_media_path import SSRC, Call
from tests.sfu.support.ice import PASSWORD, SECOND, binding_request, notices, ufrag_number
from tests.sfu.support.publisher import MS, VP8_DELTA, packet

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

UFRAG = "publishe"
REPORTER = 99


class Moving:
    """A call whose publisher has a second socket. `old` is the first; both have passed a check, `old` is selected."""

    def __init__(self) -> None:
        self.call = Call()
        self.old = self.call.publisher.socket
        self.new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.new.bind(("127.0.0.1", 0))
        self.new.setblocking(False)
        self.number = 100
        self.check(self.new, priority=1)
        self.turn(SECOND)

    def close(self) -> None:
        self.new.close()
        self.call.close()

    def turn(self, pass_ns: int = MS) -> None:
        self.call.turn(pass_ns)

    def send(self, via: socket.socket, data: bytes) -> None:
        """One datagram from a socket, and a turn."""
        via.sendto(data, ("127.0.0.1", self.call.sockets.port))
        self.turn()

    def check(self, via: socket.socket, *, priority: int = 100, ufrag: str = UFRAG, nominate: bool = True) -> None:
        self.send(via, binding_request(ufrag=ufrag, nominate=nominate, priority=priority))

    def rtp(self, ssrc: int = SSRC) -> bytes:
        """The next packet of the track, protected."""
        self.number += 1
        data = packet(self.number, ssrc=ssrc, payload=VP8_DELTA, timestamp=3000 * self.number, mid="v0")
        return bytes(self.call.publisher.outgoing.protect(data))

    def rtcp(self, ssrc: int = REPORTER) -> bytes:
        return bytes(self.call.publisher.outgoing.protect_rtcp(bytes(rtp.RtcpRrPacket(ssrc=ssrc))))

    def is_sent_to(self, via: socket.socket) -> bool:
        """Whether this socket is the one that is sent to."""
        return self.path() == self.path_of(via)

    def path(self) -> int:
        return int(self.call.memory.table("transports")[self.call.publisher.row]["path"])

    def path_of(self, via: socket.socket) -> int:
        port = via.getsockname()[1].to_bytes(2, "big")
        paths = self.call.memory.table("paths")
        return next(row for row in range(10) if paths[row]["state"] and bytes(paths[row]["address"][2:4]) == port)


@pytest.fixture
def moving() -> Iterator[Moving]:
    with contextlib.closing(Moving()) as moving:
        yield moving


@pytest.mark.parametrize("kind", ["rtp", "rtcp"])
def test_a_client_that_moves_is_followed_with_its_first_packet(moving: Moving, kind: str) -> None:
    make = moving.rtp if kind == "rtp" else moving.rtcp
    moving.send(moving.old, make())
    assert moving.is_sent_to(moving.old)
    moving.turn(SECOND)
    moving.check(moving.old)  # the old pair is still checked, and has the higher priority
    moving.check(moving.new, priority=1)
    assert moving.is_sent_to(moving.old)
    moving.send(moving.new, make())
    assert moving.is_sent_to(moving.new)
    moving.check(moving.old)
    assert moving.is_sent_to(moving.new), "checks say nothing against it"


def test_the_first_packet_of_all_says_where_the_client_is(moving: Moving) -> None:
    moving.send(moving.new, moving.rtp())
    assert moving.is_sent_to(moving.new)
    moving.check(moving.old, priority=999)
    assert moving.is_sent_to(moving.new)


@pytest.mark.parametrize("kind", ["rtp", "rtcp"])
def test_older_and_repeated_packets_are_not_followed(moving: Moving, kind: str) -> None:
    make = moving.rtp if kind == "rtp" else moving.rtcp
    packets = [make() for _ in range(4)]
    for at in (0, 2, 3):
        moving.send(moving.old, packets[at])
    moving.turn(SECOND)
    moving.send(moving.new, packets[1])  # was overtaken
    moving.send(moving.new, packets[3])  # somebody repeats it
    assert moving.is_sent_to(moving.old)


def test_what_is_not_authentic_is_not_followed(moving: Moving) -> None:
    moving.send(moving.old, moving.rtp())
    moving.turn(SECOND)
    forged = moving.rtp()
    moving.send(moving.new, forged[:-1] + bytes([forged[-1] ^ 1]))
    report = moving.rtcp()
    moving.send(moving.new, report[:12] + bytes([report[12] ^ 1]) + report[13:])
    moving.send(moving.new, b"\x16" + bytes(99))
    assert moving.is_sent_to(moving.old)


def test_packets_of_an_ssrc_that_belongs_to_no_stream_are_not_followed(moving: Moving) -> None:
    moving.send(moving.old, moving.rtp())
    moving.turn(SECOND)
    moving.number += 1
    stray = packet(moving.number, ssrc=5555, payload=VP8_DELTA, mid="none")
    moving.send(moving.new, moving.call.publisher.outgoing.protect(stray))
    assert moving.is_sent_to(moving.old)


def test_each_ssrc_has_a_newest_packet_of_its_own(moving: Moving) -> None:
    for _ in range(5):
        moving.send(moving.old, moving.rtcp())
    moving.turn(SECOND)
    moving.send(moving.new, moving.rtcp(REPORTER + 1))  # its index is 1, and the highest of this sender
    assert moving.is_sent_to(moving.new)


def test_two_that_alternate_change_the_selection_a_few_times_a_second(moving: Moving) -> None:
    selections = set[int]()
    moves, before, step = 0, moving.path(), COMPARE_NS + MS
    for n in range(4 * FOLLOW_NS // step):
        moving.send((moving.new, moving.old)[n % 2], moving.rtp())
        moves, before = moves + (moving.path() != before), moving.path()
        selections.add(before)
        moving.turn(step - MS)
    assert len(selections) == 2
    assert moves <= 4


def test_checks_that_flip_the_selection_are_one_notice(moving: Moving) -> None:
    notices(moving.call.memory)
    flips, before = 0, moving.path()
    for n in range(50):
        moving.check((moving.new, moving.old)[n % 2], priority=1000 + n)
        moving.turn(FOLLOW_NS)
        flips, before = flips + (moving.path() != before), moving.path()
    assert flips == 50
    assert notices(moving.call.memory) == [(NoticeKind.PATH_SELECTED, moving.call.publisher.row, moving.path())]


def test_media_is_a_sign_of_life_of_its_pair(moving: Moving) -> None:
    moving.send(moving.old, moving.rtp())
    for _ in range(2 * SILENT_NS // SECOND):
        moving.turn(SECOND)
        moving.check(moving.new)
        moving.send(moving.old, moving.rtp())
    assert moving.is_sent_to(moving.old)
    for _ in range(SILENT_NS // SECOND + 2):
        moving.turn(SECOND)
        moving.check(moving.new)
    assert moving.is_sent_to(moving.new), "neither checks nor media"


def test_after_an_ice_restart_the_pairs_of_before_are_not_followed(moving: Moving) -> None:
    moving.send(moving.old, moving.rtp())
    transport = moving.call.memory.table("transports")[moving.call.publisher.row]
    transport["next_ufrag"] = ufrag_number("newerNEW")
    transport["next_password"] = list(PASSWORD.encode())
    moving.call.command(Command.NEW_CREDENTIALS, moving.call.publisher.row, moving.call.publisher.generation)
    moving.turn(SECOND)
    moving.check(moving.new, ufrag="newerNEW", priority=1, nominate=False)
    assert moving.is_sent_to(moving.old)
    moving.check(moving.new, ufrag="newerNEW", priority=1)
    assert moving.is_sent_to(moving.new)
    moving.turn(SECOND)
    moving.send(moving.old, moving.rtp())
    assert moving.is_sent_to(moving.new)


class TestCommand:
    """FOLLOW_PATH, which the control thread sends for DTLS."""

    def follow(self, moving: Moving, path: int, generation: int = 0) -> None:
        publisher = moving.call.publisher
        moving.call.command(Command.FOLLOW_PATH, publisher.row, generation or publisher.generation, other_row=path)
        moving.turn()

    def test_moves(self, moving: Moving) -> None:
        self.follow(moving, moving.path_of(moving.new))
        assert moving.is_sent_to(moving.new)
        moving.check(moving.old, priority=999)
        assert moving.is_sent_to(moving.new)

    def test_not_to_paths_of_others_or_to_none(self, moving: Moving) -> None:
        free = PATHS - 2
        for path in (moving.path_of(moving.call.subscriber.socket), free, -1, PATHS, (1 << 31) - 1):
            self.follow(moving, path)
            assert moving.is_sent_to(moving.old)
        self.follow(moving, moving.path_of(moving.new), moving.call.publisher.generation + 1)
        assert moving.is_sent_to(moving.old)

    def test_at_most_once_in_a_while(self, moving: Moving) -> None:
        self.follow(moving, moving.path_of(moving.new))
        self.follow(moving, moving.path_of(moving.old))
        assert moving.is_sent_to(moving.new)
        moving.turn(FOLLOW_NS)
        self.follow(moving, moving.path_of(moving.old))
        assert moving.is_sent_to(moving.old)


def test_a_client_that_turns_to_another_address_of_ours_from_the_same_port_is_followed() -> None:
    with contextlib.closing(Call(host="0.0.0.0")) as call:
        publisher, port = call.publisher, call.sockets.port
        publisher.socket.sendto(binding_request(ufrag=UFRAG, nominate=True, priority=1), ("127.0.0.2", port))
        call.turn()

        def local() -> list[int]:
            path = call.memory.table("transports")[publisher.row]["path"]
            return list(call.memory.table("paths")[path]["local"][:4])

        def send(number: int, to: str) -> None:
            data = packet(number, ssrc=SSRC, payload=VP8_DELTA, timestamp=3000 * number, mid="v0")
            publisher.socket.sendto(publisher.outgoing.protect(data), (to, port))
            call.turn(SECOND)

        send(1, "127.0.0.1")
        assert local() == [127, 0, 0, 1]
        send(2, "127.0.0.2")
        assert local() == [127, 0, 0, 2]
        send(3, "127.0.0.1")
        assert local() == [127, 0, 0, 1]


@pytest.mark.parametrize(
    ("profile", "has_cipher"),
    [
        (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, True),
        (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, True),
        (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, False),
    ],
)
def test_the_index_of_an_srtcp_packet_is_read_with_every_profile(profile: int, has_cipher: bool) -> None:
    memory = Memory()
    row: Any = memory.table("transports")[:1].view(np.recarray)[0]
    Tables(memory).write_cipher(0, SendingCipher(bytes(16), bytes(12)) if has_cipher else None)
    key = bytes(44 if profile == Policy.SRTP_PROFILE_AEAD_AES_256_GCM else 30)
    sender = Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
    for index in range(1, 4):
        data = sender.protect_rtcp(bytes(rtp.RtcpRrPacket(ssrc=7)))
        memory.table("rx")[0][: len(data)] = list(data)
        assert _srtcp_index.py_func(row, memory.table("rx")[0], len(data)) == index
