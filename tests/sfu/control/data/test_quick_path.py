"""The quick way of ordinary messages and SACKs: it does what aiortc would do, byte for byte, with fewer calls."""

import asyncio
import itertools
from collections import Counter

import pytest
from aiortc import rtcsctptransport
from aiortc.rtcsctptransport import DataChunk, SackChunk, parse_packet, serialize_packet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfu.control.data.association import Association
from sfu.control.data.backlog import Message
from sfu.control.data.sctp_fence import is_bare_sack
from sfu.control.data.sctp_packets import SentChunk, common_header, data_packet, read_bare_sack
from sfu.parameters import Channel, DtlsRole
from tests.counting import calls_of
from tests.sfu.support.data_ends import End, association_of, exchange, joined, packet_to

Step = tuple[str, int]
"""What happens next, and a number for what it needs."""

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("reliable", "lossy", "carry", "carry", "carry back", "carry back", "lose", "lose back", "swap")
        )
        | st.just("expire"),
        st.sampled_from((0, 1, 2, 3, 5, 900, 1160, 1161, 5000)),
    ),
    max_size=60,
)


def take_step(ours: End, peer: End, step: Step, heard: list[bytes]) -> None:
    """One step of a conversation in which packets get lost, late and out of order. What arrives at our end is noted."""
    what, size = step
    association = association_of(ours)
    if what in ("reliable", "lossy"):
        ours.send(Channel.RELIABLE if what == "reliable" else Channel.LOSSY, bytes(size))
    elif what == "carry" and ours.outbox:
        heard.append(ours.outbox[0])
        peer.data.receive(ours.outbox.popleft())
    elif what == "carry back" and peer.outbox:
        ours.data.receive(peer.outbox.popleft())
    elif what == "lose" and ours.outbox:
        heard.append(ours.outbox.popleft())
    elif what == "lose back" and peer.outbox:
        peer.outbox.popleft()
    elif what == "swap":
        ours.outbox.rotate(1)
        peer.outbox.rotate(1)
    elif what == "expire" and association._t3_handle is not None:
        association._t3_expired()


async def converse(steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> tuple[list[object], int]:
    """What an end sent and how it stood after each step, in the same conversation each time; and how often the quick
    way was taken."""
    numbers = itertools.count(0xFFFFFFF0, 7)  # TSNs wrap around soon
    quick: list[bool] = []
    with monkeypatch.context() as patched:
        patched.setattr(rtcsctptransport, "random32", lambda: next(numbers) % (1 << 32))
        take = Association.take_bare_sack

        def watched(association: Association, packet: bytes) -> bool:
            quick.append(take(association, packet))
            return quick[-1]

        patched.setattr(Association, "take_bare_sack", watched)
        async with joined() as (ours, peer):
            association = association_of(ours)
            seen: list[object] = []
            heard: list[bytes] = []
            for step in [*steps, ("expire", 0), *[("carry", 0), ("carry back", 0)] * 40]:
                take_step(ours, peer, step, heard)
                await asyncio.sleep(0)  # aiortc sends again in a task
                seen += heard
                heard.clear()
                seen.append(
                    (
                        [(chunk.tsn, chunk._sent_count, chunk._acked) for chunk in association._sent_queue],
                        (association._flight_size, association._cwnd, association._peer_window),
                        (association._local_tsn, association._last_sacked_tsn, association._advanced_peer_ack_tsn),
                        (dict(association._outbound_stream_seq), association._t3_handle is None),
                        (association._fast_recovery_exit, len(association._outbound_queue), list(ours.outbox)),
                    )
                )
            return [*seen, list(peer.messages), Counter(ours.drops)], sum(quick)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_every_conversation_goes_as_it_would_without_the_quick_way(
    steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    short, _ = await converse(steps, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(Association, "_is_calm", lambda association: False)
        long, quick = await converse(steps, monkeypatch)
    assert quick == 0
    assert short == long


async def test_ordinary_conversation_takes_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [("reliable", 900), ("carry", 0), ("carry back", 0), ("lossy", 5), ("carry", 0), ("carry back", 0)] * 10
    _, quick = await converse(steps, monkeypatch)
    assert quick >= 20


async def test_message_and_its_acknowledgement_cost_few_calls() -> None:
    async with joined() as (ours, peer):
        ours.send(Channel.RELIABLE, b"the first one")
        await exchange(ours, peer)
        message = Message(b"hello", ours.ledger, None)
        sending = calls_of(lambda: ours.data.send(Channel.RELIABLE, message))
        peer.data.receive(ours.outbox.popleft())
        sack = peer.outbox.popleft()
        taking = calls_of(lambda: ours.data.receive(sack))
        assert not association_of(ours)._sent_queue
        assert peer.messages[-1] == (Channel.RELIABLE, b"hello")
    assert sending <= 36, "by aiortc's way there are 52"
    assert taking <= 24, "by aiortc's way there are 51"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1160])
@pytest.mark.parametrize("flags", [3, 7])
def test_data_packets_are_those_of_aiortc(size: int, flags: int) -> None:
    data = bytes(range(256))[:size] * (size // 256 + 1)
    chunk = SentChunk(flags, 0xFFFFFFFF, 3, 65_535, 53, data, None, 0.0)
    theirs = DataChunk(flags)
    theirs.tsn, theirs.stream_id, theirs.stream_seq, theirs.protocol, theirs.user_data = 0xFFFFFFFF, 3, 65_535, 53, data
    header = common_header(5000, 6000, 0xCAFEBABE)
    assert data_packet(header, chunk) == serialize_packet(5000, 6000, 0xCAFEBABE, theirs)


def sack(tsn: int, window: int, *gaps: tuple[int, int]) -> SackChunk:
    chunk = SackChunk()
    chunk.cumulative_tsn, chunk.advertised_rwnd, chunk.gaps = tsn, window, list(gaps)
    return chunk


def test_sacks_are_read_as_aiortc_reads_them_and_never_with_a_wrong_checksum() -> None:
    packet = serialize_packet(5000, 6000, 0xCAFEBABE, sack(0xFFFFFFFE, 0xABCDEF01))
    assert is_bare_sack(packet)
    assert read_bare_sack(packet) == (0xCAFEBABE, 0xFFFFFFFE, 0xABCDEF01)
    for place in range(len(packet)):
        broken = bytearray(packet)
        broken[place] ^= 1
        assert not is_bare_sack(bytes(broken)) or read_bare_sack(bytes(broken)) is None
        with pytest.raises(ValueError, match="checksum"):
            parse_packet(bytes(broken))
    assert not is_bare_sack(serialize_packet(5000, 6000, 1, sack(1, 2, (3, 4))))
    assert not is_bare_sack(packet + bytes(4))
    assert not is_bare_sack(packet[:-1])


async def test_sack_of_a_stranger_or_of_what_was_never_sent_changes_nothing() -> None:
    async with joined() as (ours, peer):
        ours.send(Channel.RELIABLE, b"under way")
        association = association_of(ours)
        under_way, acknowledged = association._sent_queue[0].tsn, association._last_sacked_tsn
        stranger = serialize_packet(5000, 5000, association._local_verification_tag ^ 1, sack(under_way, 0))
        ours.data.receive(stranger)
        ours.data.receive(packet_to(ours, sack((acknowledged - 5) % (1 << 32), 0)))
        assert (len(association._sent_queue), association._last_sacked_tsn) == (1, acknowledged)
        assert association._peer_window > 0
        await exchange(ours, peer)
        assert peer.messages == [(Channel.RELIABLE, b"under way")]


async def test_channels_that_are_opened_and_closed_again_and_again_leave_nothing() -> None:
    async with joined() as (ours, peer):
        for number in range(5):
            ours.send(Channel.RELIABLE, b"%d" % number)
            await exchange(ours, peer)
            channel = peer.data._channels[Channel.RELIABLE]
            association_of(peer).close_channel(channel)
            await exchange(ours, peer)
            await exchange(ours, peer)
            assert len(association_of(ours)._outlets) <= 1
            peer.data._channels.pop(Channel.RELIABLE, None)
            peer.data.start(DtlsRole.CLIENT, 5000, 0, True)
            await exchange(ours, peer)
