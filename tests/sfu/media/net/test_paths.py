"""Which address pairs a transport has, and on which it sends. Checks come through the STUN kernel, as from the net."""

import socket
from typing import Any

import numpy as np
import pytest

from sfu.media.net import paths, stun
from sfu.media.net.lookup import find_path, insert_ufrag, remove_ufrag
from sfu.schema.capacities import PATHS_PER_TRANSPORT, STAGING_PATH
from sfu.schema.codes import NoticeKind, RowState
from sfu.schema.memory import Memory
from tests.sfu.support.ice import (
    PASSWORD,
    SECOND,
    UFRAG,
    binding_request,
    drop_counts,
    fill_slot,
    notices,
    sent,
    socket_address,
    write_credentials,
)

NOW = 100 * SECOND
ROW, OTHER = 3, 9
OTHER_UFRAG = "otherOTH"
A = socket_address("192.0.2.1", 1000)
B = socket_address("192.0.2.2", 2000)
C = socket_address("2001:db8::3", 3000)
NEW_UFRAG, NEW_PASSWORD = "newerNEW", "n" * 24


def open_transport(memory: Memory, row: int, ufrag: str) -> None:
    write_credentials(memory, row, ufrag)
    transport = memory.table("transports")[row]
    transport["state"] = RowState.OPEN
    transport["path"] = transport["first_path"] = transport["nominated_generation"] = -1
    insert_ufrag(memory.record, row, 0)
    memory.thread["transport_end"] = max(int(memory.thread["transport_end"]), row + 1)


@pytest.fixture
def memory() -> Memory:
    memory = Memory()
    memory.table("sockets")["fd"] = -1
    open_transport(memory, ROW, UFRAG)
    open_transport(memory, OTHER, OTHER_UFRAG)
    return memory


def check(
    memory: Memory,
    address: bytes = A,
    *,
    at: int = NOW,
    nominate: bool = False,
    priority: int = 100,
    ufrag: str = UFRAG,
    password: str = PASSWORD,
) -> bool:
    """One check from an address; whether it was answered."""
    memory.thread["tx_count"] = 0
    data = binding_request(ufrag=ufrag, password=password, nominate=nominate, priority=priority)
    stun.handle_stun(memory.record, 0, fill_slot(memory, 0, data, address), 0, -1, at)
    return len(sent(memory)) == 1


def selected(memory: Memory, row: int = ROW) -> bytes:
    """The peer's address on which a transport sends; empty: none."""
    path = int(memory.table("transports")[row]["path"])
    if path < 0:
        return b""
    entry = memory.table("paths")[path]
    return bytes(entry["address"][: entry["address_bytes"]].tobytes())


def addresses(memory: Memory, row: int = ROW) -> list[bytes]:
    """Peer addresses of a transport's paths, newest first."""
    found, at = [], int(memory.table("transports")[row]["first_path"])
    while at >= 0:
        entry = memory.table("paths")[at]
        found.append(bytes(entry["address"][: entry["address_bytes"]].tobytes()))
        at = int(entry["next"])
    assert len(found) == memory.table("transports")[row]["path_count"]
    return found


def owner(memory: Memory, address: bytes) -> int:
    """Transport row that an address belongs to, -1: nobody."""
    path = find_path(memory.record, np.frombuffer(address, np.uint8), len(address), 0)
    return int(memory.table("paths")[path]["transport"]) if path >= 0 else -1


def free_paths(memory: Memory) -> int:
    count, at = 0, int(memory.thread["free_path"])
    while at >= 0:
        assert at != STAGING_PATH
        count, at = count + 1, int(memory.table("paths")[at]["next"])
    return count


def restart(memory: Memory) -> None:
    """What NEW_CREDENTIALS does, without the rest of the kernels."""
    transport = memory.table("transports")[ROW]
    if transport["ufrag"][1]:
        remove_ufrag(memory.record, ROW, 1)
    remove_ufrag(memory.record, ROW, 0)
    transport["ufrag"][1] = transport["ufrag"][0]
    transport["password"][1] = transport["password"][0]
    write_credentials(memory, ROW, NEW_UFRAG, NEW_PASSWORD)
    insert_ufrag(memory.record, ROW, 0)
    insert_ufrag(memory.record, ROW, 1)
    transport["ice_generation"] += 1


def test_first_validated_path_is_used_before_any_nomination(memory: Memory) -> None:
    assert check(memory, A)
    assert check(memory, B, priority=999)
    assert selected(memory) == A
    assert notices(memory) == [(NoticeKind.PATH_SELECTED, ROW, int(memory.table("transports")[ROW]["path"]))]


def test_repeated_checks_of_one_pair_take_one_row_and_give_one_notice(memory: Memory) -> None:
    for n in range(5):
        check(memory, A, nominate=True, at=NOW + n)
    assert addresses(memory) == [A]
    assert len(notices(memory)) == 1


def test_nominated_pair_wins_over_the_first_validated(memory: Memory) -> None:
    check(memory, A, priority=999)
    check(memory, B, nominate=True, priority=1)
    assert selected(memory) == B


def test_highest_priority_wins_among_nominated_pairs(memory: Memory) -> None:
    for n, (address, priority) in enumerate(((A, 10), (C, 30), (B, 20))):
        check(memory, address, nominate=True, priority=priority, at=NOW + n * paths.FOLLOW_NS)
    assert selected(memory) == C


def test_nominations_of_rising_priority_move_a_transport_a_few_times_a_second(memory: Memory) -> None:
    moves, before, step = 0, b"", paths.FOLLOW_NS // 25
    for n in range(100):
        assert check(memory, (A, B)[n % 2], nominate=True, priority=1000 + n, at=NOW + n * step)
        moves, before = moves + (selected(memory) != before), selected(memory)
    assert moves == 4, "at once, and after each quarter of a second"


def test_the_first_nomination_is_taken_at_once_and_a_better_one_that_soon_follows_within_a_pass(
    memory: Memory,
) -> None:
    check(memory, A)
    check(memory, B, nominate=True, priority=10, at=NOW + 1)
    assert selected(memory) == B
    check(memory, C, nominate=True, priority=20, at=NOW + 2)
    assert selected(memory) == B
    paths.consent_pass(memory.record, NOW + paths.FOLLOW_NS)
    assert selected(memory) == B
    paths.consent_pass(memory.record, NOW + 1 + paths.FOLLOW_NS)
    assert selected(memory) == C, "nobody has to check again"


def test_a_check_takes_the_better_pair_that_had_to_wait(memory: Memory) -> None:
    check(memory, A, nominate=True, priority=10)
    check(memory, B, nominate=True, priority=20, at=NOW + 1)
    assert selected(memory) == A
    check(memory, A, nominate=True, priority=10, at=NOW + paths.FOLLOW_NS)
    assert selected(memory) == B


def test_after_a_restart_the_first_nomination_is_taken_at_once_and_the_best_one_in_the_end(memory: Memory) -> None:
    check(memory, A, nominate=True, priority=10)
    restart(memory)
    new: dict[str, Any] = {"ufrag": NEW_UFRAG, "password": NEW_PASSWORD, "nominate": True}
    check(memory, B, priority=10, at=NOW + 1, **new)
    assert selected(memory) == B
    check(memory, C, priority=20, at=NOW + 2, **new)
    assert selected(memory) == B
    paths.consent_pass(memory.record, NOW + 1 + paths.FOLLOW_NS)
    assert selected(memory) == C


def test_a_better_pair_does_not_wait_where_the_nominated_one_is_silent(memory: Memory) -> None:
    check(memory, A, nominate=True, priority=10)
    at = NOW + paths.SILENT_NS
    check(memory, B, nominate=True, priority=10, at=at)
    assert selected(memory) == B


def test_before_media_lower_priority_takes_over_only_when_the_selected_pair_was_silent(memory: Memory) -> None:
    check(memory, A, nominate=True, priority=20)
    check(memory, B, nominate=True, priority=10, at=NOW + paths.SILENT_NS - 1)
    assert selected(memory) == A
    check(memory, B, nominate=True, priority=10, at=NOW + paths.SILENT_NS)
    assert selected(memory) == B
    check(memory, A, nominate=True, priority=20, at=NOW + paths.SILENT_NS + paths.FOLLOW_NS)
    assert selected(memory) == A, "it came back"


def test_consent_pass_leaves_a_silent_pair_for_a_live_one(memory: Memory) -> None:
    check(memory, A, nominate=True, priority=20)
    check(memory, B, nominate=True, priority=10, at=NOW + 3 * SECOND)
    paths.consent_pass(memory.record, NOW + 6 * SECOND)
    assert selected(memory) == B


def test_silence_everywhere_changes_nothing(memory: Memory) -> None:
    check(memory, A, nominate=True, priority=10)
    check(memory, B, nominate=True, priority=20, at=NOW + SECOND)
    paths.consent_pass(memory.record, NOW + 14 * SECOND)
    assert selected(memory) == B


def test_old_path_works_until_a_nominated_check_with_the_new_credentials(memory: Memory) -> None:
    check(memory, A, nominate=True, priority=999)
    restart(memory)
    assert check(memory, A, nominate=True, priority=999), "the old credentials are still answered"
    assert check(memory, B, ufrag=NEW_UFRAG, password=NEW_PASSWORD, priority=1)
    assert selected(memory) == A
    check(memory, B, ufrag=NEW_UFRAG, password=NEW_PASSWORD, priority=1, nominate=True)
    assert selected(memory) == B
    check(memory, A, nominate=True, priority=999)
    check(memory, C, nominate=True, priority=999)
    assert selected(memory) == B, "pairs of the old generation are not selected again"


def test_same_pair_carries_on_in_the_new_generation(memory: Memory) -> None:
    check(memory, A, nominate=True, priority=999)
    check(memory, B, nominate=True, priority=500)
    restart(memory)
    check(memory, B, ufrag=NEW_UFRAG, password=NEW_PASSWORD, nominate=True, priority=7)
    assert selected(memory) == B
    entry = memory.table("paths")[memory.table("transports")[ROW]["path"]]
    assert (entry["priority"], entry["ice_generation"]) == (7, 1)


def test_a_second_restart_forgets_the_oldest_credentials(memory: Memory) -> None:
    restart(memory)
    memory.table("transports")[ROW]["password"][0] = np.frombuffer(NEW_PASSWORD.encode(), np.uint8)
    remove_ufrag(memory.record, ROW, 1)
    memory.table("transports")[ROW]["ufrag"][1] = 0
    assert not check(memory, A)
    assert drop_counts(memory) == {"stun_unknown_ufrag": 1}


def test_paths_of_a_transport_are_bounded_and_the_oldest_unselected_one_gives_way(memory: Memory) -> None:
    free = free_paths(memory)
    many = [socket_address("192.0.2.1", 1000 + n) for n in range(PATHS_PER_TRANSPORT + 3)]
    for n, address in enumerate(many):
        assert check(memory, address, at=NOW + n, nominate=n == 0)
    assert selected(memory) == many[0]
    assert addresses(memory) == [*reversed(many[4:]), many[0]]
    assert owner(memory, many[1]) == -1
    assert free_paths(memory) == free - PATHS_PER_TRANSPORT


def test_address_of_a_live_owner_is_not_rebound(memory: Memory) -> None:
    check(memory, A)
    assert not check(memory, A, ufrag=OTHER_UFRAG, at=NOW + paths.ABANDONED_NS - 1)
    assert drop_counts(memory) == {"stun_address_taken": 1}
    assert owner(memory, A) == ROW
    assert addresses(memory, OTHER) == []


def test_address_of_an_owner_that_vanished_is_rebound_after_seconds(memory: Memory) -> None:
    check(memory, A)
    assert paths.ABANDONED_NS < paths.CONSENT_TIMEOUT_NS // 2
    assert check(memory, A, ufrag=OTHER_UFRAG, at=NOW + paths.ABANDONED_NS)
    assert owner(memory, A) == OTHER
    assert selected(memory, OTHER) == A
    assert selected(memory, ROW) == b""
    assert addresses(memory, ROW) == []


def test_address_over_which_media_still_comes_is_not_rebound(memory: Memory) -> None:
    check(memory, A)
    later = NOW + 2 * paths.CONSENT_TIMEOUT_NS
    memory.table("transports")[ROW]["last_packet_ns"] = later - paths.ABANDONED_NS + 1
    assert not check(memory, A, ufrag=OTHER_UFRAG, at=later)
    assert owner(memory, A) == ROW


def test_address_left_silent_by_an_owner_that_lives_elsewhere_is_rebound_later(memory: Memory) -> None:
    check(memory, A)
    later = NOW + paths.CONSENT_TIMEOUT_NS
    check(memory, B, at=later - 1)
    assert not check(memory, A, ufrag=OTHER_UFRAG, at=later - 1)
    assert check(memory, A, ufrag=OTHER_UFRAG, at=later)
    assert owner(memory, A) == OTHER
    assert selected(memory, OTHER) == A
    assert selected(memory, ROW) == B


def test_owner_that_loses_its_only_address_has_no_path(memory: Memory) -> None:
    check(memory, A)
    check(memory, A, ufrag=OTHER_UFRAG, at=NOW + paths.CONSENT_TIMEOUT_NS)
    assert selected(memory, ROW) == b""
    assert check(memory, B, at=NOW + paths.CONSENT_TIMEOUT_NS)
    assert selected(memory, ROW) == B


def test_address_of_a_closed_transport_is_free_at_once(memory: Memory) -> None:
    free = free_paths(memory)
    check(memory, A)
    check(memory, B)
    paths.close_paths(memory.record, ROW)
    assert free_paths(memory) == free
    assert owner(memory, A) == owner(memory, B) == -1
    assert check(memory, A, ufrag=OTHER_UFRAG, at=NOW + 1)
    assert owner(memory, A) == OTHER


def test_check_replayed_from_another_address_does_not_take_the_media_away(memory: Memory) -> None:
    check(memory, A, nominate=True)
    check(memory, B, nominate=True)
    assert selected(memory) == A


def _reach(memory: Memory, local: str) -> None:
    """Control data of receive slot 0: the datagram was sent to this address of ours."""
    control = memory.table("rx_control")[0]
    control[:4] = [28, socket.IPPROTO_IP | 8 << 32, int.from_bytes(socket.inet_aton(local), "little") << 32, 0]
    memory.table("rx_messages")[0]["control_bytes"] = 32


def test_two_addresses_of_ours_reached_from_one_port_are_two_pairs(memory: Memory) -> None:
    memory.table("sockets")[0]["wildcard"] = 1
    _reach(memory, "198.51.100.1")
    check(memory, A, nominate=True, priority=10)
    _reach(memory, "198.51.100.2")
    check(memory, A, priority=20)
    assert addresses(memory) == [A, A]
    entry = memory.table("paths")[memory.table("transports")[ROW]["path"]]
    assert entry["local"][:4].tolist() == [198, 51, 100, 1], "media stays on the nominated pair"
    answered = memory.table("paths")[sent(memory)[0][0]]
    assert answered["local"][:4].tolist() == [198, 51, 100, 2], "the answer leaves from the address that was asked"
    paths.close_paths(memory.record, ROW)
    assert owner(memory, A) == -1


def test_consent_expires_once_and_only_after_the_first_check(memory: Memory) -> None:
    paths.consent_pass(memory.record, NOW)
    assert notices(memory) == []
    check(memory, A)
    notices(memory)
    paths.consent_pass(memory.record, NOW + paths.CONSENT_TIMEOUT_NS - 1)
    assert notices(memory) == []
    for n in range(3):
        paths.consent_pass(memory.record, NOW + paths.CONSENT_TIMEOUT_NS + n * SECOND)
    assert notices(memory) == [(NoticeKind.CONSENT_EXPIRED, ROW, 0)]


def test_a_check_renews_consent(memory: Memory) -> None:
    for n in range(4):
        check(memory, A, at=NOW + 10 * n * SECOND)
        paths.consent_pass(memory.record, NOW + 10 * n * SECOND + 9 * SECOND)
    assert [kind for kind, _, _ in notices(memory)] == [NoticeKind.PATH_SELECTED]


def test_full_table_of_paths_drops_the_check_and_counts(memory: Memory) -> None:
    memory.thread["free_path"] = -1
    assert not check(memory, A)
    assert drop_counts(memory) == {"stun_paths_full": 1}
