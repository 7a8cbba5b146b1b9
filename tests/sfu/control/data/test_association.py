"""The SCTP association against peers that misbehave, and the window that it announces."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import pytest
from aiortc.rtcsctptransport import USERDATA_MAX_LENGTH, DataChunk, InitChunk, SackChunk, parse_packet, serialize_packet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfu.control.data import association, reassembly, sctp
from sfu.control.data.association import Association
from sfu.errors import TransportFailure
from sfu.parameters import Channel, DtlsRole
from sfu.schema.capacities import SLOW_PER_TRANSPORT, SLOW_SLOTS
from tests.deadline import deadline
from tests.sfu.support.data_ends import (
    FIRST,
    LAST,
    UNORDERED,
    End,
    association_of,
    exchange,
    fragment,
    joined,
    packet_to,
)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    """(ours, which opens the channels; the peer's), connected."""
    async with joined() as both:
        yield both


def announced(end: End) -> int:
    """The receive window in the last SACK that an end has sent."""
    packets = [parse_packet(packet)[3] for packet in end.outbox]
    return int([chunk.advertised_rwnd for chunks in packets for chunk in chunks if isinstance(chunk, SackChunk)][-1])


async def test_window_that_is_announced_is_less_what_has_not_reached_its_receivers(ends: tuple[End, End]) -> None:
    ours, _ = ends
    ours.data.hold_window(300_000)
    ours.data.receive(fragment(ours, 1, FIRST, bytes(1000)))
    assert announced(ours) == association.WINDOW_BYTES - 301_000
    ours.data.hold_window(association.WINDOW_BYTES)
    ours.data.receive(fragment(ours, 1, LAST, bytes(1000)))
    assert announced(ours) == 0
    assert len(ours.messages) == 1, "what comes within the window announced before is taken"
    more = (association.WINDOW_BYTES - association_of(ours)._arrived) // 1000
    for _ in range(more):
        ours.data.receive(fragment(ours, 1, FIRST | LAST, bytes(1000)))
    assert (len(ours.messages), sum(ours.drops.values())) == (1 + more, 0)
    ours.data.receive(fragment(ours, 1, FIRST | LAST, bytes(1000)))
    assert (len(ours.messages), ours.drops["sctp_beyond_window"]) == (1 + more, 1)


async def test_window_that_opens_again_is_told_without_being_asked(ends: tuple[End, End]) -> None:
    ours, _ = ends
    ours.data.hold_window(association.WINDOW_BYTES)
    ours.data.receive(fragment(ours, 1, FIRST | LAST))
    assert announced(ours) == 0
    ours.outbox.clear()
    ours.data.release_window(association.WINDOW_BYTES // 8)
    assert not ours.outbox, "a little is not worth a packet"
    ours.data.release_window(association.WINDOW_BYTES // 8)
    assert announced(ours) == association.WINDOW_BYTES // 4


async def test_peer_that_does_not_heed_the_window_sends_again_and_loses_nothing(ends: tuple[End, End]) -> None:
    ours, peer = ends
    ours.data.hold_window(association.MAX_UNREAD_BYTES + 1)
    peer.send(Channel.RELIABLE, b"too early")
    await exchange(ours, peer)
    assert (ours.messages, ours.drops["sctp_beyond_window"]) == ([], 1)
    ours.data.release_window(association.MAX_UNREAD_BYTES + 1)
    association_of(peer)._t3_expired()
    await exchange(ours, peer)
    assert ours.messages == [(Channel.RELIABLE, b"too early")]


async def test_whole_window_fits_into_the_quota_of_datagrams() -> None:
    assert association.WINDOW_BYTES == 1 << 20
    assert association.WINDOW_BYTES // USERDATA_MAX_LENGTH + 1 <= SLOW_PER_TRANSPORT <= SLOW_SLOTS // 4


def receive_fragments(end: End, count: int, flags: int, data: bytes) -> None:
    for _ in range(count):
        end.data.receive(fragment(end, 1, flags, data))


async def test_message_without_end_costs_the_transport(ends: tuple[End, End]) -> None:
    ours, _ = ends
    receive_fragments(ours, reassembly.MAX_STREAM_CHUNKS, UNORDERED, b"x")
    with pytest.raises(TransportFailure, match="without end"):
        receive_fragments(ours, 1, UNORDERED, b"x")


async def test_messages_without_end_are_counted_over_all_streams(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = ends
    monkeypatch.setattr(association, "MAX_HELD_CHUNKS", 20)

    def hold(fragments: range) -> None:
        for k in fragments:
            ours.data.receive(fragment(ours, 1, FIRST | UNORDERED, stream=10 + k))
            ours.data.receive(fragment(ours, 1, FIRST | LAST | UNORDERED, stream=1))  # whole: nothing of it is held

    hold(range(20))
    with pytest.raises(TransportFailure, match="without end"):
        hold(range(20, 21))


async def test_message_without_end_is_bounded_in_bytes_too(ends: tuple[End, End]) -> None:
    ours, _ = ends
    large = bytes(1400)
    most = association.MAX_HELD_BYTES // len(large)
    assert most < reassembly.MAX_STREAM_CHUNKS, "another bound would come first"
    receive_fragments(ours, most, 0, large)
    with pytest.raises(TransportFailure, match="without end"):
        receive_fragments(ours, 1, 0, large)


async def test_data_beyond_a_gap_is_bounded(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for ahead in range(2, 2 * association.MAX_MISORDERED):
        ours.data.receive(fragment(ours, ahead, FIRST | LAST))
    assert len(association_of(ours)._sack_misordered) == association.MAX_MISORDERED
    assert ours.drops["sctp_beyond_gap"] == association.MAX_MISORDERED - 2
    peer.outbox.clear()


async def test_lost_fragment_before_as_much_as_is_taken_beyond_a_gap_costs_nothing(ends: tuple[End, End]) -> None:
    ours, _ = ends
    due = association_of(ours)._get_inbound_stream(1).sequence_number
    for ahead in range(3, association.MAX_MISORDERED + 10):
        ours.data.receive(fragment(ours, ahead, FIRST | LAST, sequence=due + ahead - 2))
    ours.data.receive(fragment(ours, 1, FIRST, b"a", sequence=due))
    ours.data.receive(fragment(ours, 1, LAST, b"b", sequence=due))
    assert [payload for _, payload in ours.messages] == [b"ab"] + [b"x"] * association.MAX_MISORDERED


async def test_stream_number_out_of_range_costs_the_transport(ends: tuple[End, End]) -> None:
    ours, _ = ends
    with pytest.raises(TransportFailure, match="out of range"):
        ours.data.receive(fragment(ours, 1, FIRST | LAST, stream=association.MAX_STREAMS))


async def test_sack_that_acknowledges_what_was_never_sent_is_ignored(ends: tuple[End, End]) -> None:
    ours, peer = ends
    sack = SackChunk()
    sack.cumulative_tsn = association_of(ours)._last_sacked_tsn
    sack.advertised_rwnd = 1 << 20
    sack.gaps = [(1, 65_535)] * 250
    ours.data.receive(packet_to(ours, sack))
    ours.send(Channel.RELIABLE, b"still alive")
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"still alive")]


class Searched(deque[DataChunk]):
    """What is under way, counting how many chunks are looked at one by one in search of one."""

    looked_at = 0

    def index(self, chunk: DataChunk, *bounds: int) -> int:
        found = super().index(chunk, *bounds)
        self.looked_at += found + 1
        return found


def without_losses(end: End) -> Association:
    """The association of an end whose congestion window many acknowledgements have opened."""
    grown = association_of(end)
    grown._cwnd = grown._ssthresh = association.MAX_CONGESTION_BYTES
    return grown


async def test_small_messages_under_way_are_bounded_and_none_is_lost(ends: tuple[End, End]) -> None:
    ours, peer = ends
    sending = without_losses(ours)
    payloads = [b"%d" % number for number in range(3 * association.MAX_UNDER_WAY)]
    for payload in payloads:
        ours.send(Channel.RELIABLE, payload)
        assert len(sending._sent_queue) <= association.MAX_UNDER_WAY
    assert len(ours.outbox) == association.MAX_UNDER_WAY
    await exchange(ours, peer)
    assert [payload for _, payload in peer.messages] == payloads


async def test_message_of_many_chunks_goes_on_where_the_bound_stopped_it(ends: tuple[End, End]) -> None:
    ours, peer = ends
    sending = without_losses(ours)
    for _ in range(association.MAX_UNDER_WAY - 3):
        ours.send(Channel.RELIABLE, b"x")
    ours.send(Channel.RELIABLE, bytes(60_000))
    chunks = -(-60_000 // USERDATA_MAX_LENGTH)
    assert (len(sending._sent_queue), len(sending._outbound_queue)) == (association.MAX_UNDER_WAY, chunks - 3)
    await exchange(ours, peer)
    assert peer.messages[-1] == (Channel.RELIABLE, bytes(60_000))
    assert not sending._sent_queue


async def test_giving_up_lossy_messages_searches_for_none_of_them(ends: tuple[End, End]) -> None:
    ours, peer = ends
    sending = without_losses(ours)
    sending._sent_queue = under_way = Searched()
    for _ in range(2 * association.MAX_UNDER_WAY):
        ours.send(Channel.LOSSY, b"x")
    assert len(under_way) == association.MAX_UNDER_WAY
    ours.outbox.clear()
    sending._t3_expired()
    assert (len(sending._sent_queue), under_way.looked_at) == (0, 0)
    await exchange(ours, peer)
    ours.send(Channel.LOSSY, b"last")
    await exchange(ours, peer)
    assert peer.messages[-1] == (Channel.LOSSY, b"last")


def beginning(end: End, tsn: int) -> bytes:
    """An INIT that lets the peer's TSNs begin with `tsn`."""
    init = InitChunk()
    init.initiate_tag, init.advertised_rwnd, init.initial_tsn = 1, 1 << 20, tsn % (1 << 32)
    init.outbound_streams = init.inbound_streams = 10
    return serialize_packet(5000, 5000, 0, init)


async def test_beginning_that_comes_late_changes_nothing(ends: tuple[End, End]) -> None:
    ours, peer = ends
    received = association_of(ours)._last_received_tsn
    assert received is not None
    ours.data.receive(fragment(ours, 5, FIRST | LAST))
    ours.data.receive(beginning(ours, received + (1 << 30)))
    assert (association_of(ours)._last_received_tsn, ours.drops["sctp_refused"]) == (received, 1)
    ours.data.hold_window(association.WINDOW_BYTES)
    ours.data.receive(fragment(ours, 1, FIRST | LAST))
    ours.data.release_window(association.WINDOW_BYTES)  # in the turn of whoever has been waited for
    assert announced(ours) == association.WINDOW_BYTES
    peer.send(Channel.LOSSY, b"x")


async def test_second_beginning_forgets_what_lay_beyond_a_gap() -> None:
    ours = End()
    ours.data.start(DtlsRole.CLIENT, 5000, 0, False)
    ours.data.receive(beginning(ours, 1000))
    ours.data.receive(fragment(ours, 5, FIRST | LAST))
    ours.data.receive(beginning(ours, 1 << 30))
    ours.data.receive(fragment(ours, 1, FIRST | LAST))
    ours.data.receive(fragment(ours, 3, FIRST | LAST))
    assert ours.drops["sctp_error"] == 0
    sack = [chunk for packet in ours.outbox for chunk in parse_packet(packet)[3] if isinstance(chunk, SackChunk)][-1]
    assert (sack.cumulative_tsn, sack.gaps) == (1 << 30, [(3, 3)])
    ours.data.close()


def not_utf8(end: End) -> bytes:
    """A string message that aiortc cannot decode."""
    return fragment(end, 1, FIRST | LAST | UNORDERED, b"\xff", protocol=51)


async def test_stack_that_chokes_on_a_packet_goes_on_and_is_given_up_after_many(ends: tuple[End, End]) -> None:
    ours, peer = ends
    for _ in range(sctp.MAX_ERRORS):
        ours.data.receive(not_utf8(ours))
    ours.send(Channel.RELIABLE, b"still alive")
    await exchange(ours, peer)
    assert peer.messages == [(Channel.RELIABLE, b"still alive")]
    with pytest.raises(TransportFailure, match="too many bad packets"):
        ours.data.receive(not_utf8(ours))
    assert ours.drops["sctp_error"] == sctp.MAX_ERRORS + 1


async def test_tsn_that_a_sack_has_no_words_for_is_not_taken(ends: tuple[End, End]) -> None:
    ours, peer = ends
    ours.data.receive(fragment(ours, association.MAX_TSN_AHEAD + 1, FIRST | LAST))
    assert ours.drops["sctp_beyond_gap"] == 1
    peer.send(Channel.RELIABLE, b"still alive")
    await exchange(ours, peer)
    assert ours.messages == [(Channel.RELIABLE, b"still alive")]


async def test_gaps_and_repeats_of_one_sack_fit_into_a_datagram(ends: tuple[End, End]) -> None:
    ours, _ = ends
    for ahead in range(3, 1200, 2):
        for _ in range(2):
            ours.data.receive(fragment(ours, ahead, FIRST | LAST))
    sacks = [chunk for packet in ours.outbox for chunk in parse_packet(packet)[3] if isinstance(chunk, SackChunk)]
    assert max(len(sack.gaps) for sack in sacks) == association.MAX_GAPS
    assert max(len(packet) for packet in ours.outbox) < 1200
    assert sacks[-1].gaps[:2] == [(3, 3), (5, 5)]


async def test_one_packet_is_answered_a_few_times_at_most(ends: tuple[End, End]) -> None:
    ours, _ = ends
    beat, request = bytes.fromhex("0400000c 00010008 01020304"), bytes.fromhex("00110008 00000001")
    reset = b"\x82\0" + (4 + 2 * len(request)).to_bytes(2, "big") + 2 * request
    for many in (beat * 100, reset * 70, beat * 340):
        ours.data.receive(raw_packet(ours, many))
        assert not ours.outbox
    ours.data.receive(raw_packet(ours, beat))
    assert len(ours.outbox) == 1
    assert ours.drops["sctp_refused"] == 3


def raw_packet(end: End, chunks: bytes) -> bytes:
    """A packet with these chunks that the stack of `end` takes for its peer's."""

    class Raw(SackChunk):
        def __bytes__(self) -> bytes:
            return chunks

    return packet_to(end, Raw())


async def test_packet_that_names_a_parameter_of_no_length_is_dropped(ends: tuple[End, End]) -> None:
    ours, peer = ends
    with deadline(1):
        ours.data.receive(bytes.fromhex("13881388000000008e7a664f0400000800000000"))
        for kind in (1, 2, 4, 5, 6, 9, 130):
            body = bytes(16 if kind in (1, 2) else 0) + bytes(4)
            ours.data.receive(raw_packet(ours, bytes([kind, 0, 0, 4 + len(body)]) + body))
    assert ours.drops["sctp_refused"] == 8
    peer.send(Channel.RELIABLE, b"still alive")
    await exchange(ours, peer)
    assert ours.messages == [(Channel.RELIABLE, b"still alive")]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=100), kind=st.sampled_from([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 14, 130, 192]))
async def test_any_chunk_raises_nothing_but_transport_failure(body: bytes, kind: int) -> None:
    end = End()
    end.data.start(DtlsRole.SERVER, 5000, 0, True)
    association = end.data._association
    assert association is not None
    chunk = SackChunk()

    class AnyChunk(SackChunk):
        def __bytes__(self) -> bytes:
            raw = bytes([kind, 3]) + (len(body) + 4).to_bytes(2, "big") + body
            return raw + bytes(-len(raw) % 4)

    chunk = AnyChunk()
    tag = 0 if kind == 1 else association._local_verification_tag
    try:
        with deadline(1):
            end.data.receive(serialize_packet(5000, 5000, tag, chunk))
    except TransportFailure:
        pass
    finally:
        end.data.close()
        await asyncio.sleep(0)
