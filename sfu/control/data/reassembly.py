"""Messages out of SCTP's DATA chunks (RFC 9260 section 6.9). A chunk costs the same however many others are held.

aiortc's own walks over everything that is held for each chunk that comes.
"""

from collections.abc import Iterator

from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    DataChunk,
    InboundStream,
)

from sfu.errors import TransportFailure

WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
MAX_STREAM_CHUNKS = 1536
"""Fragments and early messages that one stream holds: all that an association takes beyond a gap
(`association.MAX_MISORDERED`), and the largest message in fragments of 512 bytes."""
_TSN, _SEQUENCE = (1 << 32) - 1, (1 << 16) - 1

Received = tuple[int, int, bytes]
"""Stream, payload protocol, payload."""


class Held:
    """What all streams of an association hold together."""

    def __init__(self) -> None:
        self.chunks = self.size = 0


class Stream(InboundStream):
    """One incoming stream. A run is a row of consecutive fragments of one message."""

    def __init__(self, held: Held) -> None:
        super().__init__()  # of which only sequence_number is used: the next one of ordered messages
        self._held = held
        self._chunks: dict[int, DataChunk] = {}
        self._runs: dict[int, int] = {}
        """First TSN of each run -> its last one."""
        self._growing: dict[int, int] = {}
        """Last TSN -> first TSN of the runs whose last fragment has not come."""
        self._early: dict[int, int] = {}
        """Stream sequence number -> first TSN of whole messages whose turn has not come."""

    def __len__(self) -> int:
        return len(self._chunks)

    def take(self, chunk: DataChunk) -> list[Received]:
        """Take a chunk that was not received before; returns the messages that are now whole and due, in order.

        Raises:
            TransportFailure: too much is held, or two messages have one sequence number.
        """
        if chunk.flags & WHOLE == WHOLE:
            ahead = 0 if chunk.flags & SCTP_DATA_UNORDERED else self._ahead(chunk.stream_seq)
            if ahead <= 0:
                message = (chunk.stream_id, chunk.protocol, chunk.user_data)
                return [message, *self._after(chunk)]
        if chunk.tsn in self._chunks:
            return []
        if len(self._chunks) >= MAX_STREAM_CHUNKS:
            raise TransportFailure("data: message without end")
        self._hold(chunk)
        first, last = self._run_with(chunk)
        head = self._chunks[first]
        if not (head.flags & SCTP_DATA_FIRST_FRAG and self._chunks[last].flags & SCTP_DATA_LAST_FRAG):
            return []
        if not head.flags & SCTP_DATA_UNORDERED and self._ahead(head.stream_seq) > 0:
            if head.stream_seq in self._early:
                raise TransportFailure("data: two messages with one sequence number")
            self._early[head.stream_seq] = first
            return []
        return [self._join(first), *self._after(head)]

    def pop_messages(self) -> Iterator[Received]:
        """The messages that a FORWARD TSN has made due, by moving `sequence_number` (RFC 3758 section 3.6)."""
        for sequence in sorted((each for each in self._early if self._ahead(each) < 0), key=self._ahead):
            yield self._join(self._early.pop(sequence))
        yield from self._following()

    def prune_chunks(self, tsn: int) -> int:
        """Forget what can never become whole when everything up to a TSN counts as received; returns the bytes."""
        before = self._held.size
        for first, last in list(self._runs.items()):
            rest = _signed(last - tsn)
            begins = self._chunks[first].flags & SCTP_DATA_FIRST_FRAG
            goes_on = rest > 0 or (rest == 0 and last in self._growing)
            if _signed(first - tsn) <= 0 and not (begins and goes_on):
                sequence = self._chunks[first].stream_seq
                if self._early.get(sequence) == first:
                    del self._early[sequence]
                self._forget(first)
        return before - self._held.size

    def clear(self) -> None:
        """Forget everything that is held."""
        for first in list(self._runs):
            self._forget(first)
        self._early.clear()

    def _ahead(self, sequence: int) -> int:
        """How far a stream sequence number is ahead of the one that is due (RFC 1982)."""
        return ((sequence - self.sequence_number + 0x8000) & _SEQUENCE) - 0x8000

    def _after(self, head: DataChunk) -> Iterator[Received]:
        """Count a message that is due, given its first chunk, and return those that it has kept waiting."""
        if not head.flags & SCTP_DATA_UNORDERED and head.stream_seq == self.sequence_number:
            self.sequence_number = (self.sequence_number + 1) & _SEQUENCE
            if self._early:
                yield from self._following()

    def _following(self) -> Iterator[Received]:
        while (first := self._early.pop(self.sequence_number, None)) is not None:
            self.sequence_number = (self.sequence_number + 1) & _SEQUENCE
            yield self._join(first)

    def _hold(self, chunk: DataChunk) -> None:
        self._chunks[chunk.tsn] = chunk
        self._held.chunks += 1
        self._held.size += len(chunk.user_data)

    def _run_with(self, chunk: DataChunk) -> tuple[int, int]:
        """Join a held chunk with the runs before and behind it; returns the run that it now belongs to."""
        first = last = chunk.tsn
        if not chunk.flags & SCTP_DATA_FIRST_FRAG:
            first = self._growing.pop((chunk.tsn - 1) & _TSN, chunk.tsn)
        if not chunk.flags & SCTP_DATA_LAST_FRAG:
            behind = (chunk.tsn + 1) & _TSN
            if behind in self._runs and not self._chunks[behind].flags & SCTP_DATA_FIRST_FRAG:
                last = self._runs.pop(behind)
        self._runs[first] = last
        if not self._chunks[last].flags & SCTP_DATA_LAST_FRAG:
            self._growing[last] = first
        return first, last

    def _join(self, first: int) -> Received:
        head = self._chunks[first]
        return head.stream_id, head.protocol, b"".join(self._forget(first))

    def _forget(self, first: int) -> list[bytes]:
        """Let go of a run; returns what it carried."""
        last = self._runs.pop(first)
        self._growing.pop(last, None)
        parts = [self._chunks.pop((first + k) & _TSN).user_data for k in range(((last - first) & _TSN) + 1)]
        self._held.chunks -= len(parts)
        self._held.size -= sum(map(len, parts))
        return parts


def _signed(difference: int) -> int:
    """A difference of TSNs as serial arithmetic has it (RFC 1982): negative when the first one is older."""
    return ((difference + (1 << 31)) & _TSN) - (1 << 31)
