"""ICE over TCP through turns of the loop: frames in and out over real connections of loopback."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from aioice import stun as aioice_stun

from sfu.media.frames import MAX_FRAMES, SERVED_AT_ONCE
from sfu.schema.capacities import PATHS_PER_TRANSPORT, RX_BYTES, STREAM_BYTES
from sfu.schema.codes import Command, Drop, NoticeKind, PathKind, RowState
from tests.sfu.support.ice import PASSWORD, SECOND, binding_request, drop_counts, notices
from tests.sfu.support.tcp_end import framed
from tests.sfu.support.tcp_node import NOW, OTHER, OTHER_UFRAG, ROW, TcpNode

DTLS = b"\x16" + bytes(99)
PATIENCE_S = 10.0


@pytest.fixture
def node() -> Iterator[TcpNode]:
    with contextlib.closing(TcpNode()) as node:
        yield node


def test_check_over_a_connection_is_answered_and_makes_its_path(node: TcpNode) -> None:
    end = node.connect()
    end.send(binding_request(nominate=True))
    node.turn()
    (answer,) = end.packets()
    response = aioice_stun.parse_message(answer)
    assert response.check_message_integrity(PASSWORD.encode())
    assert response.attributes["XOR-MAPPED-ADDRESS"] == end.socket.getsockname()
    path = node.selected()
    assert path is not None
    assert (path["kind"], path["connection"], path["socket"]) == (PathKind.TCP, end.row, -1)
    assert (NoticeKind.PATH_SELECTED, ROW, int(node.memory.table("transports")[ROW]["path"])) in notices(node.memory)


def test_frames_may_come_in_any_pieces(node: TcpNode) -> None:
    end = node.connect()
    data = framed(binding_request(nominate=True), DTLS, DTLS)
    for k in range(len(data)):
        end.socket.sendall(data[k : k + 1])
        node.turn()
    assert len(end.packets()) == 1
    assert node.datagrams() == [DTLS, DTLS]
    for piece in (data, data + framed(DTLS)[:50], framed(DTLS)[50:]):
        end.socket.sendall(piece)
        node.turn()
    assert len(end.packets()) == 2
    assert node.datagrams() == 5 * [DTLS]
    assert drop_counts(node.memory) == {}


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (binding_request(password="w" * 24), "stun_integrity"),
        (binding_request(ufrag="nobodyNO"), "stun_unknown_ufrag"),
        (DTLS, "unknown_address"),
        (b"", "garbage"),
        (b"\x80\x60" + bytes(98), "unknown_address"),
    ],
)
def test_connection_that_does_not_begin_with_a_valid_check_is_closed(node: TcpNode, first: bytes, reason: str) -> None:
    end = node.connect()
    end.send(first, binding_request(nominate=True))
    node.turn()
    assert end.packets() == []
    end.wait_for_end()
    assert drop_counts(node.memory) == {reason: 1, "tcp_unproven": 1}
    assert notices(node.memory) == [(NoticeKind.CLOSED_CONNECTION, end.row, 0)]
    assert node.memory.thread["open_connections"] == 0
    assert node.selected() is None


def test_tiny_frames_of_many_connections_take_several_turns(node: TcpNode) -> None:
    ends = [node.proven() for _ in range(PATHS_PER_TRANSPORT)]
    tiny = STREAM_BYTES // 3
    assert tiny > MAX_FRAMES
    for end in ends:
        end.socket.sendall(tiny * framed(b"\x40"))
    for turns in range(1, PATHS_PER_TRANSPORT // SERVED_AT_ONCE + 1):
        node.turn()
        assert drop_counts(node.memory) == {"garbage": turns * SERVED_AT_ONCE * tiny}
    assert node.memory.thread["open_connections"] == PATHS_PER_TRANSPORT


def test_frame_longer_than_the_buffer_closes_the_connection_and_not_the_transport(node: TcpNode) -> None:
    end = node.proven()
    end.socket.sendall((RX_BYTES + 1).to_bytes(2))
    node.turn()
    end.wait_for_end()
    assert drop_counts(node.memory) == {"tcp_frame_too_long": 1}
    assert node.memory.table("transports")[ROW]["state"] == RowState.OPEN
    assert node.selected() is None


def test_the_longest_frame_is_taken(node: TcpNode) -> None:
    end = node.proven()
    end.send(b"\x16" + bytes(RX_BYTES - 1), DTLS)
    node.turn()
    node.turn()
    assert node.datagrams() == [DTLS]  # the first is longer than what the control thread takes
    assert drop_counts(node.memory) == {"dtls_queue_full": 1}


def test_control_thread_sends_over_the_connection(node: TcpNode) -> None:
    end = node.proven()
    node.send(DTLS)
    assert end.packets() == [DTLS]


def test_what_the_control_thread_sends_over_a_path_that_is_gone_is_dropped(node: TcpNode) -> None:
    end = node.proven()
    end.socket.close()
    node.turn()
    node.turn()
    assert node.selected() is None
    node.send(DTLS)
    assert node.memory.table("drops")[Drop.NOT_READY] == 1


def test_connection_that_ends_takes_its_path_and_another_one_goes_on(node: TcpNode) -> None:
    first, second = node.proven(), node.proven()
    notices(node.memory)
    first.socket.close()
    node.turn()
    path = node.selected()
    assert path is not None
    assert path["connection"] == second.row
    assert (NoticeKind.CLOSED_CONNECTION, first.row, 0) in notices(node.memory)
    assert not node.memory.table("transports")[ROW]["interrupted"]
    second.socket.close()
    node.turn()
    assert node.selected() is None
    assert node.memory.table("transports")[ROW]["interrupted"]
    third = node.proven()
    path = node.selected()
    assert path is not None
    assert path["connection"] == third.row


def test_udp_goes_on_when_the_connection_ends(node: TcpNode) -> None:
    end = node.proven()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(binding_request(nominate=True, priority=1), ("127.0.0.1", node.sockets.port))
        node.turn()
        end.socket.close()
        node.turn()
        path = node.selected()
        assert path is not None
        assert path["kind"] == PathKind.UDP
        assert path["transport"] == ROW


def test_pair_that_was_not_checked_for_long_does_not_take_over(node: TcpNode) -> None:
    transport = node.memory.table("transports")[ROW]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(binding_request(nominate=True), ("127.0.0.1", node.sockets.port))
        node.turn()
    later = NOW + 60 * SECOND
    end = node.proven(later)
    path = node.selected()
    assert path is not None
    assert path["kind"] == PathKind.TCP
    end.socket.close()
    node.turn(later)
    assert node.selected() is None
    assert transport["interrupted"]
    again = node.proven(later)
    path = node.selected()
    assert path is not None
    assert path["connection"] == again.row


def test_connection_belongs_to_one_transport(node: TcpNode) -> None:
    end = node.proven()
    end.send(binding_request(ufrag=OTHER_UFRAG))
    node.turn()
    assert end.packets() == []
    assert drop_counts(node.memory) == {"stun_address_taken": 1}
    assert node.selected(OTHER) is None
    assert node.selected() is not None


def test_transport_has_a_bounded_number_of_connections(node: TcpNode) -> None:
    ends = [node.proven(NOW + k) for k in range(PATHS_PER_TRANSPORT + 1)]
    ends[1].wait_for_end()  # the first one is selected
    for end in (ends[0], *ends[2:]):
        end.send(binding_request())
    node.turn()
    assert [len(end.packets()) for end in (ends[0], *ends[2:])] == PATHS_PER_TRANSPORT * [1]
    assert node.memory.thread["open_connections"] == PATHS_PER_TRANSPORT


def test_closing_a_transport_closes_its_connections_after_its_last_words(node: TcpNode) -> None:
    end = node.proven()
    node.push(DTLS)
    node.command(Command.CLOSE_TRANSPORT)
    node.turn()
    assert end.packets() == [DTLS]
    end.wait_for_end()
    assert (NoticeKind.CLOSED_CONNECTION, end.row, 0) in notices(node.memory)


def test_ice_restart_goes_on_over_the_same_connection(node: TcpNode) -> None:
    end = node.proven()
    transport = node.memory.table("transports")[ROW]
    transport["next_ufrag"] = int.from_bytes(b"newerNEW", "little")
    transport["next_password"] = list(b"n" * 24)
    node.command(Command.NEW_CREDENTIALS)
    end.send(binding_request(ufrag="newerNEW", password="n" * 24, nominate=True))
    node.turn()
    assert len(end.packets()) == 1
    assert transport["path_count"] == 1


def test_peer_that_never_reads_costs_a_bounded_queue_and_no_time(node: TcpNode) -> None:
    end = node.proven(buffer_bytes=4096)
    connection = node.memory.table("connections")[end.row]
    began, sent, deadline = time.thread_time(), 0, time.monotonic() + PATIENCE_S
    while sent < 2000 or not connection["stalled"]:  # the operating system may take some more at any time
        assert time.monotonic() < deadline
        node.send(DTLS, NOW + sent * 1_000_000)
        sent += 1
    assert time.thread_time() - began < 5
    assert connection["congested"]
    assert connection["count"] == (connection["begun"] > 0), "what waited has become old"
    assert drop_counts(node.memory).keys() == {"tcp_queue_full"}
    came, dropped, later = end.packets(), drop_counts(node.memory)["tcp_queue_full"], NOW + sent * 1_000_000
    while len(came) + dropped < sent or connection["congested"]:
        assert time.monotonic() < deadline
        node.turn(later)  # epoll tells that it can be written again
        came += end.packets()
    assert set(came) == {DTLS}
    assert len(came) + dropped == sent
    assert connection["count"] == 0
    assert not connection["congested"]
    assert not connection["stalled"]


def test_half_frame_in_a_dead_connection_leaves_with_it(node: TcpNode) -> None:
    end = node.proven()
    end.socket.sendall(framed(DTLS)[:40])
    node.turn()
    end.close()
    node.turn()
    again = node.proven()
    again.send(DTLS)
    node.turn()
    assert node.datagrams() == [DTLS]
