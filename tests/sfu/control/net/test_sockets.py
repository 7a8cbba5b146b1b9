"""Sockets as the kernels need them, and the candidates that follow from addresses."""

import errno
import socket
import struct

import pytest

from sfu.addresses import machine_addresses
from sfu.control.net.sockets import SO_TIMESTAMPNS, Sockets, candidates, socket_name, source_control
from sfu.schema.memory import Memory
from tests.sfu.support.ice import socket_address
from tests.sfu.support.table_sockets import port_of


@pytest.fixture
def memory() -> Memory:
    return Memory()


def test_all_addresses_share_one_free_port(memory: Memory) -> None:
    sockets = Sockets(memory, 0, ())
    try:
        rows = memory.table("sockets")[: int(memory.thread["socket_count"])]
        assert sockets.port > 0
        assert {port_of(memory, index) for index in range(len(rows))} == {sockets.port}
        assert set(rows["family"].tolist()) == sockets.families
        assert all(rows["wildcard"])
        assert sockets.local_addresses() == sorted(machine_addresses(), key=lambda text: ":" in text)
    finally:
        sockets.close()
    assert memory.thread["socket_count"] == 0


def test_sockets_are_set_up_for_batches_with_arrival_time_and_local_address(memory: Memory) -> None:
    sockets = Sockets(memory, 0, ("127.0.0.1",))
    try:
        (opened,) = sockets._sockets
        assert not opened.getblocking()
        assert opened.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS)
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 212_992  # Linux's default
        assert memory.table("sockets")[0]["wildcard"] == 0
        assert sockets.local_addresses() == ["127.0.0.1"]
    finally:
        sockets.close()


@pytest.mark.parametrize("bind", [(), ("127.0.0.1",)])
def test_port_in_use_is_an_os_error_and_leaves_nothing_open(memory: Memory, bind: tuple[str, ...]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use") as caught:
            Sockets(memory, taken.getsockname()[1], bind)
    assert caught.value.errno == errno.EADDRINUSE
    assert memory.thread["socket_count"] == 0


def test_address_of_another_machine_cannot_be_bound(memory: Memory) -> None:
    with pytest.raises(OSError, match="assign"):
        Sockets(memory, 0, ("203.0.113.9",))


def test_control_thread_sends_to_a_path_from_the_address_that_was_reached(memory: Memory) -> None:
    sockets = Sockets(memory, 0, ())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        row = memory.table("paths")[3]
        row["family"] = 4
        row["address"] = list(socket_address(*peer.getsockname()).ljust(28, b"\0"))
        row["local"][:4] = [127, 0, 0, 9]
        try:
            assert sockets.send(3, b"hello")
            assert peer.recvfrom(100) == (b"hello", ("127.0.0.9", sockets.port))
            row["socket"] = 99
            assert not sockets.send(3, b"hello")
        finally:
            sockets.close()


def test_row_that_leads_elsewhere_now_is_not_sent_to_the_old_address(memory: Memory) -> None:
    sockets = Sockets(memory, 0, ("127.0.0.1",))
    row = memory.table("paths")[3]
    row["family"] = 4
    for message in (b"one", b"two"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(5)
            row["address"] = list(socket_address(*peer.getsockname()).ljust(28, b"\0"))
            assert sockets.send(3, message)
            assert peer.recvfrom(100) == (message, ("127.0.0.1", sockets.port))
    sockets.close()
    assert not sockets.send(3, b"after the end")


def test_addresses_are_translated_for_both_families() -> None:
    assert socket_name(socket.AF_INET, socket_address("192.0.2.7", 700).ljust(28, b"\0")) == ("192.0.2.7", 700)
    scoped = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", 700, 0)
    scoped += socket.inet_pton(socket.AF_INET6, "fe80::1") + struct.pack("=I", 4)
    assert socket_name(socket.AF_INET6, scoped) == ("fe80::1", 700, 0, 4)


def test_source_is_left_to_the_system_when_unknown(memory: Memory) -> None:
    row = memory.table("paths")[0]
    row["family"] = 4
    assert source_control(row) == []
    row["family"] = 6
    row["local"] = range(16)
    row["local_interface"] = 7
    ((level, kind, data),) = source_control(row)
    assert (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
    assert data == bytes(range(16)) + (7).to_bytes(4, "little")


def test_candidates_have_distinct_priorities_and_foundations() -> None:
    made = candidates(["192.0.2.1", "192.0.2.2", "2001:db8::1"], {4, 6}, 7882)
    assert [each.address for each in made] == ["2001:db8::1", "192.0.2.1", "192.0.2.2"]
    priorities = [each.priority for each in made]
    assert priorities == sorted(priorities, reverse=True)
    assert len(set(priorities)) == len({each.foundation for each in made}) == 3
    assert priorities[0] == 2_130_706_431  # RFC 8445 section 5.1.2.1 for a host candidate of the highest preference
    assert {each.port for each in made} == {7882}


def test_addresses_of_a_family_without_socket_are_not_advertised() -> None:
    assert [each.address for each in candidates(["192.0.2.1", "2001:db8::1"], {4}, 1)] == ["192.0.2.1"]


def test_number_of_candidates_is_bounded() -> None:
    assert len(candidates([f"192.0.2.{k}" for k in range(100)], {4}, 1)) == 16


def test_machine_addresses_are_loopback_only_or_not_at_all() -> None:
    found = machine_addresses()
    assert found
    loopback = {text for text in found if text.startswith("127.") or text == "::1"}
    assert loopback in (set(), set(found))
    assert not any(text.startswith("fe80") for text in found)
