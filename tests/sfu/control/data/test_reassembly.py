"""Messages cut into DATA chunks, in any order of arrival, and what each chunk costs."""

import random

import pytest
from aiortc.rtcsctptransport import DataChunk
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.control.data import reassembly
from sfu.control.data.reassembly import MAX_STREAM_CHUNKS, Held, Stream
from sfu.errors import TransportFailure

FIRST, LAST, UNORDERED = 2, 1, 4
MODULUS = 1 << 32


def chunk(tsn: int, flags: int, data: bytes = b"x", sequence: int = 0) -> DataChunk:
    made = DataChunk(flags=flags)
    made.tsn, made.stream_id, made.stream_seq = tsn % MODULUS, 1, sequence
    made.protocol, made.user_data = 53, data
    return made


def cut(messages: list[tuple[int, bool]], tsn: int, sequence: int) -> tuple[list[DataChunk], list[bytes], list[bytes]]:
    """(fragments, ordered),... -> chunks in TSN order, ordered and unordered payloads."""
    chunks: list[DataChunk] = []
    ordered: list[bytes] = []
    unordered: list[bytes] = []
    for number, (fragments, in_order) in enumerate(messages):
        parts = [b"%d.%d;" % (number, part) for part in range(fragments)]
        for part, data in enumerate(parts):
            flags = (
                (FIRST if part == 0 else 0) | (LAST if part == fragments - 1 else 0) | (0 if in_order else UNORDERED)
            )
            chunks.append(chunk(tsn, flags, data, sequence if in_order else 0))
            tsn += 1
        if in_order:
            sequence = (sequence + 1) % (1 << 16)
        (ordered if in_order else unordered).append(b"".join(parts))
    return chunks, ordered, unordered


@settings(max_examples=200, deadline=None)
@given(
    messages=st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=12),
    seed=st.integers(0, 1000),
    tsn=st.sampled_from([5, MODULUS - 7]),
    sequence=st.sampled_from([0, (1 << 16) - 3]),
)
def test_messages_come_whole_and_in_order_however_the_chunks_come(
    messages: list[tuple[int, bool]], seed: int, tsn: int, sequence: int
) -> None:
    chunks, ordered, unordered = cut(messages, tsn, sequence)
    random.Random(seed).shuffle(chunks)
    held = Held()
    stream = Stream(held)
    stream.sequence_number = sequence
    taken = []
    for each in chunks:
        taken += [payload for _, _, payload in stream.take(each)]
    assert [payload for payload in taken if payload in ordered] == ordered
    assert sorted(payload for payload in taken if payload in unordered) == sorted(unordered)
    assert (len(stream), held.chunks, held.size) == (0, 0, 0)
    assert stream.sequence_number == (sequence + len(ordered)) % (1 << 16)


@settings(max_examples=200, deadline=None)
@given(
    messages=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=8),
    lost=st.sets(st.integers(0, 31), max_size=6),
    upto=st.integers(0, 31),
)
def test_what_a_forward_tsn_skips_is_forgotten(messages: list[tuple[int, bool]], lost: set[int], upto: int) -> None:
    chunks, _, _ = cut(messages, 100, 0)
    held = Held()
    stream = Stream(held)
    for number, each in enumerate(chunks):
        if number not in lost:
            stream.take(each)
    stream.prune_chunks(100 + upto)
    for first, last in stream._runs.items():
        assert last > 100 + upto or (last == 100 + upto and last in stream._growing)
        assert first > 100 + upto or stream._chunks[first].flags & FIRST
    assert held.chunks == len(stream) == sum(last - first + 1 for first, last in stream._runs.items())
    assert held.size == sum(len(each.user_data) for each in stream._chunks.values())
    stream.clear()
    assert (held.chunks, held.size) == (0, 0)


def test_messages_that_waited_for_a_skipped_one_are_due() -> None:
    stream = Stream(Held())
    assert stream.take(chunk(12, FIRST | LAST, b"second", 1)) == []
    assert stream.take(chunk(13, FIRST | LAST, b"third", 2)) == []
    stream.sequence_number = 1
    assert [payload for _, _, payload in stream.pop_messages()] == [b"second", b"third"]


def test_two_messages_with_one_sequence_number_end_the_transport() -> None:
    stream = Stream(Held())
    stream.take(chunk(12, FIRST | LAST, b"a", 3))
    with pytest.raises(TransportFailure, match="one sequence number"):
        stream.take(chunk(14, FIRST | LAST, b"b", 3))


class Watched(dict[int, DataChunk]):
    """Counts the chunks that are looked at."""

    looks = 0

    def __getitem__(self, key: int) -> DataChunk:
        self.looks += 1
        return super().__getitem__(key)

    def values(self) -> object:  # type: ignore[override]
        raise AssertionError("a walk over everything that is held")

    __iter__ = items = values  # type: ignore[assignment]


@pytest.mark.parametrize("flags", [UNORDERED, 0])
@pytest.mark.parametrize("step", [1, 2])
def test_a_chunk_costs_the_same_however_many_are_held(flags: int, step: int) -> None:
    stream = Stream(Held())
    stream._chunks = watched = Watched()
    for number in range(MAX_STREAM_CHUNKS):
        before = watched.looks
        assert stream.take(chunk(step * number, flags)) == []
        assert watched.looks - before <= 6
    with pytest.raises(TransportFailure, match="without end"):
        stream.take(chunk(5 * MAX_STREAM_CHUNKS, flags))


def test_whole_message_is_taken_while_a_stream_holds_all_that_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassembly, "MAX_STREAM_CHUNKS", 3)
    stream = Stream(Held())
    for tsn in (10, 20, 30):
        stream.take(chunk(tsn, UNORDERED))
    assert stream.take(chunk(40, FIRST | LAST | UNORDERED, b"whole")) == [(1, 53, b"whole")]
