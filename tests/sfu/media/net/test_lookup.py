"""Hash tables against dictionaries, through long random histories."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfu.media.net import lookup
from sfu.schema.memory import Memory
from tests.sfu.support.ice import socket_address

ROWS = 24


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


def _clear(memory: Memory) -> None:
    for name in ("path_slots", "source_slots", "outgoing_slots", "ufrag_slots"):
        memory.table(name)[:] = 0


# Few keys and few rows, so that histories meet the same slots again and again.
history = st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, 11)), max_size=150)
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@quick
@given(history)
def test_sources_are_found_by_transport_and_ssrc(memory: Memory, steps: list[tuple[int, int]]) -> None:
    _clear(memory)
    sources, held = memory.table("sources"), dict[int, tuple[int, int]]()
    for row, key in steps:
        identity = key % 3, 0xFFFFFFF0 + key
        if row in held:
            lookup.remove_source(memory.record, row)
            del held[row]
        elif identity not in held.values():
            sources[row]["transport"], sources[row]["ssrc"] = identity
            lookup.insert_source(memory.record, row)
            held[row] = identity
        found = {row: lookup.find_source(memory.record, *identity) for row, identity in held.items()}
        assert found == {row: row for row in held}
        assert lookup.find_source(memory.record, 5, 1) == -1


@quick
@given(history)
def test_outgoing_ssrcs_lead_to_the_subscription_and_say_which_is_rtx(
    memory: Memory, steps: list[tuple[int, int]]
) -> None:
    _clear(memory)
    subscriptions, held = memory.table("subscriptions"), set[int]()
    for row, transport in steps:
        if row in held:
            for rtx in (0, 1):
                lookup.remove_outgoing(memory.record, row, rtx)
            held.remove(row)
        else:
            subscriptions[row]["transport"] = transport
            subscriptions[row]["ssrc"], subscriptions[row]["rtx_ssrc"] = 1000 + row, 2000 + row
            for rtx in (0, 1):
                lookup.insert_outgoing(memory.record, row, rtx)
            held.add(row)
        for other in range(ROWS):
            on = int(subscriptions[other]["transport"])
            expected = (2 * other, 2 * other + 1) if other in held else (-1, -1)
            found = tuple(lookup.find_outgoing(memory.record, on, base + other) for base in (1000, 2000))
            assert found == expected


@quick
@given(history)
def test_paths_are_found_by_socket_and_address(memory: Memory, steps: list[tuple[int, int]]) -> None:
    _clear(memory)
    paths, held = memory.table("paths"), dict[int, tuple[int, bytes]]()
    for row, key in steps:
        host = f"10.0.0.{key}" if key % 2 else f"fe80::{key}"
        pair = row % 2, socket_address(host, 4000, scope=0 if key % 2 else row % 2)
        if row in held:
            lookup.remove_path(memory.record, row)
            del held[row]
        elif pair not in held.values():
            paths[row]["socket"] = pair[0]
            paths[row]["address"][: len(pair[1])] = np.frombuffer(pair[1], np.uint8)
            paths[row]["address_bytes"] = len(pair[1])
            lookup.insert_path(memory.record, row)
            held[row] = pair
        for held_row, (socket, address) in held.items():
            data = np.frombuffer(address, np.uint8)
            assert lookup.find_path(memory.record, data, len(address), socket) == held_row
            assert lookup.find_path(memory.record, data, len(address), 5) == -1


def test_ufrags_lead_to_the_transport_and_to_which_of_its_credentials(memory: Memory) -> None:
    _clear(memory)
    transports = memory.table("transports")
    for row in range(ROWS):
        transports[row]["ufrag"] = np.array([row + 1, (row + 1) << 56], np.uint64)
        for which in (0, 1):
            lookup.insert_ufrag(memory.record, row, which)
    for row in range(ROWS):
        assert lookup.find_ufrag(memory.record, np.uint64(row + 1)) == 2 * row
        assert lookup.find_ufrag(memory.record, np.uint64((row + 1) << 56)) == 2 * row + 1
    for row in range(0, ROWS, 2):
        lookup.remove_ufrag(memory.record, row, 0)
    found = [lookup.find_ufrag(memory.record, np.uint64(row + 1)) for row in range(ROWS)]
    assert found == [-1 if row % 2 == 0 else 2 * row for row in range(ROWS)]
    assert lookup.find_ufrag(memory.record, np.uint64(0)) == -1


def test_removing_everything_leaves_no_deleted_marks_that_probes_must_pass(memory: Memory) -> None:
    _clear(memory)
    sources = memory.table("sources")
    for row in range(2000):
        sources[row]["transport"], sources[row]["ssrc"] = 1, row * 7919
        lookup.insert_source(memory.record, row)
    for row in range(2000):
        lookup.remove_source(memory.record, row)
    assert not memory.table("source_slots").any()


def test_find_in_a_table_full_of_deleted_marks_ends(memory: Memory) -> None:
    _clear(memory)
    memory.table("source_slots")[:] = -1
    assert lookup.find_source(memory.record, 1, 2) == -1
