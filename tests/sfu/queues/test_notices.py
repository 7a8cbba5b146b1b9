"""What the media thread tells: each fact of each row once until it is heard, and none lost for what others say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.queues.notices import notice, take_notices
from sfu.schema.capacities import (
    NOTICE_BLOCK,
    NOTICE_BLOCKS,
    NOTICE_FIRST,
    NOTICE_ROWS,
    STREAMS,
    SUBSCRIPTIONS,
    TRANSPORTS,
)
from sfu.schema.codes import NoticeKind
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import notice_t

MANY_MORE_THAN_A_QUEUE_HOLDS = 100_000


@pytest.fixture
def memory() -> Memory:
    return Memory()


def taken(memory: Memory, room: int = 8 * NOTICE_BLOCK) -> list[tuple[int, int, int, int, int]]:
    """(kind, row, generation, value, extra) of one taking."""
    out = np.zeros(room, notice_t)
    count = take_notices(memory.record, out)
    taken: list[tuple[int, int, int, int, int]] = out[:count].tolist()
    return taken


def test_every_kind_has_counters_of_its_own_in_whole_blocks() -> None:
    assert len(NOTICE_ROWS) == len(NOTICE_FIRST) == NoticeKind.CLOSED_CONNECTION + 1
    assert all(rows % NOTICE_BLOCK == 0 for rows in NOTICE_ROWS)
    assert tuple(np.cumsum([0, *NOTICE_ROWS])[:-1]) == NOTICE_FIRST
    assert sum(NOTICE_ROWS) == NOTICE_BLOCKS * NOTICE_BLOCK


def test_a_notice_says_whose_it_is_and_what_the_row_says_when_it_is_taken(memory: Memory) -> None:
    memory.table("transports")["generation"][TRANSPORTS - 1] = 3
    memory.table("subscriptions")["generation"][5] = 4
    track, stream = memory.table("tracks")[7], memory.table("streams")[9]
    track["generation"], track["live"] = 6, 0b101
    stream["track"], stream["layer"], stream["announced"], stream["requested_bytes"] = 7, 2, 10 | 3 << 32, 1 << 20
    for kind, row in (
        (NoticeKind.CLOSED_TRANSPORT, TRANSPORTS - 1),
        (NoticeKind.PATH_SELECTED, TRANSPORTS - 1),
        (NoticeKind.SUBSCRIPTION_STARTED, 5),
        (NoticeKind.ALLOWANCE_CHANGED, 5),
        (NoticeKind.STREAM_STARTED, 9),
        (NoticeKind.CACHE_REQUESTED, 9),
        (NoticeKind.CACHE_LEFT, 9),
        (NoticeKind.LAYERS_CHANGED, 7),
        (NoticeKind.CLOSED_TRACK, 7),
    ):
        notice(memory.record, kind, row)
    memory.table("transports")["path"][TRANSPORTS - 1] = 11
    assert taken(memory) == [
        (NoticeKind.SUBSCRIPTION_STARTED, 5, 4, 0, 0),
        (NoticeKind.ALLOWANCE_CHANGED, 5, 4, 1, 0),
        (NoticeKind.STREAM_STARTED, 7, 6, 2, 10 | 3 << 32),
        (NoticeKind.CACHE_REQUESTED, 7, 6, 2, 1 << 20),
        (NoticeKind.CACHE_LEFT, 7, 6, 2, 0),
        (NoticeKind.LAYERS_CHANGED, 7, 6, 0b101, 0),
        (NoticeKind.CLOSED_TRACK, 7, 6, 0, 0),
        (NoticeKind.PATH_SELECTED, TRANSPORTS - 1, 3, 11, 0),
        (NoticeKind.CLOSED_TRANSPORT, TRANSPORTS - 1, 3, 0, 0),
    ]
    assert taken(memory) == []
    assert memory.thread["notify"] == 1


def test_what_one_client_repeats_is_one_notice_and_takes_none_from_others(memory: Memory) -> None:
    notice(memory.record, NoticeKind.CLOSED_SUBSCRIPTION, SUBSCRIPTIONS - 1)
    for _ in range(MANY_MORE_THAN_A_QUEUE_HOLDS):
        notice(memory.record, NoticeKind.PATH_SELECTED, 1)
    notice(memory.record, NoticeKind.STREAM_STARTED, 3)
    assert [(kind, row) for kind, row, *_ in taken(memory)] == [
        (NoticeKind.CLOSED_SUBSCRIPTION, SUBSCRIPTIONS - 1),
        (NoticeKind.STREAM_STARTED, 0),
        (NoticeKind.PATH_SELECTED, 1),
    ]


def test_all_rows_of_all_tables_may_have_everything_to_say_at_once(memory: Memory) -> None:
    for kind, rows in enumerate(NOTICE_ROWS):
        for row in range(rows):
            notice(memory.record, kind, row)
    found: list[tuple[int, int]] = []
    while batch := taken(memory, 3 * NOTICE_BLOCK + 5):
        found += [(kind, row) for kind, row, *_ in batch]
    assert len(found) == sum(NOTICE_ROWS)
    for closed in (NoticeKind.CLOSED_SUBSCRIPTION, NoticeKind.CLOSED_TRACK, NoticeKind.CLOSED_TRANSPORT):
        assert [row for kind, row in found if kind == closed] == list(range(NOTICE_ROWS[closed]))


def test_rows_that_always_have_something_to_say_keep_nobody_waiting(memory: Memory) -> None:
    notice(memory.record, NoticeKind.CLOSED_TRANSPORT, 0)
    calls = 0
    while NoticeKind.CLOSED_TRANSPORT not in {kind for kind, *_ in taken(memory, NOTICE_BLOCK)}:
        for row in range(3 * NOTICE_BLOCK):
            notice(memory.record, NoticeKind.SUBSCRIPTION_STARTED, row)
        calls += 1
        assert calls < 10


def test_a_counter_that_comes_round_still_differs(memory: Memory) -> None:
    memory.table("noticed")[NOTICE_FIRST[NoticeKind.PATH_SELECTED]] = 0xFFFFFFFF
    memory.table("taken")[NOTICE_FIRST[NoticeKind.PATH_SELECTED]] = 0xFFFFFFFF
    notice(memory.record, NoticeKind.PATH_SELECTED, 0)
    assert [kind for kind, *_ in taken(memory)] == [NoticeKind.PATH_SELECTED]
    assert memory.table("noticed")[NOTICE_FIRST[NoticeKind.PATH_SELECTED]] == 0


NOTICES = st.tuples(st.integers(0, len(NOTICE_ROWS) - 1), st.integers(0, 600))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(NOTICES, st.none()), max_size=80))
def test_each_taking_gives_the_set_of_what_was_told_since_the_last(steps: list[tuple[int, int] | None]) -> None:
    memory = Memory()
    memory.table("streams")["track"] = np.arange(STREAMS)  # so that a notice of a stream names its row
    told: set[tuple[int, int]] = set()
    for step in [*steps, None]:
        if step is None:
            assert sorted((kind, row) for kind, row, *_ in taken(memory, 100 * NOTICE_BLOCK)) == sorted(told)
            told.clear()
        else:
            notice(memory.record, *step)
            told.add(step)
