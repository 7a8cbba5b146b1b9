"""Queues between the control thread and the media thread: order, fullness, wraparound."""

import numpy as np
import pytest

from sfu.queues import control
from sfu.schema.capacities import (
    COMMAND_QUEUE,
    COMMANDS,
    CROWDED_SLOW,
    CROWDED_SLOW_PER_TRANSPORT,
    SLOW_BYTES,
    SLOW_PER_TRANSPORT,
    SLOW_QUEUE,
    SLOW_SLOTS,
    TRANSPORTS,
)
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import slow_t
from tests.sfu.support.commands import push_command
from tests.sfu.support.ice import drop_counts


@pytest.fixture
def memory() -> Memory:
    return Memory()


def take_slow(memory: Memory) -> tuple[int, bytes] | None:
    """(transport, datagram) of the next slow entry."""
    out = np.zeros(1, slow_t)
    if not control.take_slow(memory.record, out):
        return None
    return int(out[0]["transport"]), bytes(out[0]["data"][: out[0]["size"]].tobytes())


def test_commands_are_written_in_order_and_a_full_queue_says_so(memory: Memory) -> None:
    for n in range(COMMANDS):
        assert push_command(memory, 1, n, 2, spatial=-n, srtp_out=n << 40)
    assert not push_command(memory, 1, 0, 0)
    commands = memory.table("commands")
    assert commands["row"].tolist() == list(range(COMMANDS))
    assert [int(commands[5][name]) for name in ("kind", "row", "generation", "spatial", "srtp_out", "srtp_in")] == [
        *(1, 5, 2, -5, 5 << 40, 0)
    ]
    memory.table("queues")[COMMAND_QUEUE]["read"] = 1
    assert push_command(memory, 9, 0, 0)
    assert commands[0]["kind"] == 9


def test_slow_datagrams_keep_their_bytes_and_their_transport(memory: Memory) -> None:
    memory.table("transports")["generation"][7] = 3
    memory.table("rx")[2][:5] = np.frombuffer(b"hello", np.uint8)
    control.push_slow(memory.record, 7, 11, 2, 5)
    out = np.zeros(1, slow_t)
    assert control.take_slow(memory.record, out) == 1
    assert out[0][["transport", "generation", "path", "size"]].tolist() == (7, 3, 11, 5)
    assert out[0]["data"][:5].tobytes() == b"hello"
    assert control.take_slow(memory.record, out) == 0


def test_slow_datagrams_are_taken_in_order_as_many_as_fit_and_around_the_end_of_the_queue(memory: Memory) -> None:
    memory.table("queues")[SLOW_QUEUE]["read"] = memory.table("queues")[SLOW_QUEUE]["written"] = SLOW_SLOTS - 3
    for n in range(10):
        memory.table("rx")[0][: n + 1] = n
        control.push_slow(memory.record, n, 0, 0, n + 1)
    out, taken = np.zeros(4, slow_t), []
    for count in (4, 4, 2, 0):
        assert control.take_slow(memory.record, out) == count
        taken += [(int(each["transport"]), each["data"][: each["size"]].tobytes()) for each in out[:count]]
    assert taken == [(n, bytes([n]) * (n + 1)) for n in range(10)]


def test_one_transport_has_a_quota_and_others_keep_their_room(memory: Memory) -> None:
    for _ in range(SLOW_PER_TRANSPORT + 5):
        control.push_slow(memory.record, 7, 0, 0, 10)
    control.push_slow(memory.record, 8, 0, 0, 10)
    assert drop_counts(memory) == {"dtls_quota": 5}
    assert take_slow(memory) == (7, bytes(10))
    control.push_slow(memory.record, 7, 0, 0, 10)
    assert drop_counts(memory) == {"dtls_quota": 6}, "what was taken waits elsewhere"
    memory.table("transports")["slow_taken"][7] += 1
    control.push_slow(memory.record, 7, 0, 0, 10)
    assert drop_counts(memory) == {"dtls_quota": 6}, "what was handled makes room"


def test_full_slow_queue_drops_and_counts(memory: Memory) -> None:
    for n in range(SLOW_SLOTS + 3):
        control.push_slow(memory.record, n % TRANSPORTS, 0, 0, 1)
    assert drop_counts(memory) == {"dtls_queue_full": 3}
    assert memory.table("queues")[SLOW_QUEUE]["dropped"] == 3


def test_flooded_slow_queue_takes_a_few_datagrams_of_everybody(memory: Memory) -> None:
    for row in range(SLOW_SLOTS // SLOW_PER_TRANSPORT):
        for _ in range(SLOW_PER_TRANSPORT):
            control.push_slow(memory.record, row, 0, 0, 10)
    waiting = CROWDED_SLOW + CROWDED_SLOW_PER_TRANSPORT
    assert memory.table("queues")[SLOW_QUEUE]["written"] == waiting
    assert "dtls_queue_full" not in drop_counts(memory)
    for _ in range(CROWDED_SLOW_PER_TRANSPORT + 1):
        control.push_slow(memory.record, 99, 0, 0, 10)
    assert memory.table("transports")["slow_pushed"][99] == CROWDED_SLOW_PER_TRANSPORT
    assert drop_counts(memory) == {"dtls_quota": SLOW_SLOTS - waiting + 1}


def test_oversized_datagram_is_not_taken(memory: Memory) -> None:
    control.push_slow(memory.record, 0, 0, 0, SLOW_BYTES)
    control.push_slow(memory.record, 0, 0, 0, SLOW_BYTES + 1)
    assert drop_counts(memory) == {"dtls_queue_full": 1}
    assert take_slow(memory) == (0, bytes(SLOW_BYTES))
    assert take_slow(memory) is None
