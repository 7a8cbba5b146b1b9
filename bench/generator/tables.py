"""The load generator's state: one record of tables, which its kernels take as their argument.

The generator's thread writes it, except the columns marked (c). Those belong to the control thread, which fills a row
before it raises `endpoint_end` or `send_end`, or clears `active`.
"""

import mmap
import platform
from typing import Any

import numpy as np

from bench.generator.histogram import BUCKETS
from sfu.schema.capacities import ARRIVALS
from sfu.schema.thread_tables import iovec_t, mmsghdr_t, pollfd_t
from sfu.schema.transport_tables import arrivals_t

ENDPOINTS = 4096
SENDS = 16_384
SOURCES = 1 << 17
SOURCE_SLOTS = 1 << 18
DESCRIPTORS = 1 << 16
"""File descriptors are below this."""
SLOTS = 64
"""Datagrams in one recvmmsg or sendmmsg."""
SLOT_BYTES = 2048
CONTROL_WORDS = 8
EVENT_SLOTS = 256
EVENT_WORDS = 3 if platform.machine() == "x86_64" else 4
"""32-bit words of an epoll_event: packed on x86-64 only."""
DATA_WORD = 1 if EVENT_WORDS == 3 else 2
HEADER_BYTES = 64
"""Room for an RTP header with its extensions."""
CHECK_BYTES = 192
MISSING = 32
"""Sequence numbers of one source that are requested again at a time."""
PATTERN_PACKETS = 16_384
"""Packets in the patterns of all streams together."""
AUDIO, VIDEO = 0, 1

packet_t = np.dtype(
    [
        ("bytes", "i8"),  # plaintext RTP packet
        ("first", "u1"),  # of its frame
        ("last", "u1"),  # of its frame
        ("key", "u1"),  # belongs to a key frame
    ],
    align=True,
)
"""One packet of a pattern, which is sent over and over. A pattern consists of whole frames."""

endpoint_t = np.dtype(
    [
        ("fd", "i4"),  # c
        ("active", "u1"),  # c
        ("counted", "u1"),  # c; 0: what reaches it is in no figure of the measured window
        ("incoming", "u8"),  # c; srtp_t address, 0: in the clear
        ("outgoing", "u8"),  # c
        ("ssrc", "u4"),  # c; of its receiver reports
        ("transport_cc_id", "i4"),  # c; of what it receives
        ("check_bytes", "i4"),  # c
        ("check", "u1", CHECK_BYTES),  # c; the STUN request that keeps consent
        ("first_send", "i4"),  # c; -1: none
        ("transport_sequence", "i8"),
        ("first_source", "i4"),  # row + 1
        ("missing", "i4"),  # numbers waited for in its sources
        ("nack_now", "u1"),  # a source noticed new ones
        ("check_ns", "i8"),
        ("report_ns", "i8"),
        ("first_media_ns", "i8"),  # kernel time of its first RTP packet
        ("received", "i8"),  # RTP packets
    ],
    align=True,
)

send_t = np.dtype(
    [
        ("endpoint", "i4"),  # c
        ("active", "u1"),  # c
        ("muted", "u1"),  # c
        ("kind", "u1"),  # c
        ("simulcast", "u1"),  # c
        ("next", "i4"),  # c; of the same endpoint, -1: none
        ("ssrc", "u4"),  # c
        ("packet_bytes", "i4"),  # c; plaintext
        ("rate", "f8"),  # c; packets a second at full load
        ("frames_per_second", "f8"),  # c; 0: evenly spread packets
        ("clock_rate", "i8"),  # c
        ("header", "u1", HEADER_BYTES),  # c; as sent, but for marker, sequence, time and transport-cc
        ("header_bytes", "i4"),  # c
        ("transport_cc_at", "i4"),  # c; in the header, 0: none
        ("due_ns", "i8"),  # c for the first, then the kernel's
        ("credit", "f8"),  # packets that are due and were less than one
        ("frame", "i8"),
        ("key_frame", "i8"),  # number of the latest one
        ("index", "i8"),  # packets sent; carried in the payload
        ("octets", "i8"),
        ("report_ns", "i8"),
        ("key_requested", "u1"),
        ("timestamp", "i8"),  # of the frame that is being sent
        # of a stream whose packets stand in a table; the columns about frames and their sizes are then without effect
        ("pattern_first", "i4"),  # c
        ("pattern_packets", "i4"),  # c; 0: it has no pattern
        ("per_burst", "i4"),  # c; packets that leave back to back, 0: a frame
        ("pattern_at", "i4"),  # the next one, counted from pattern_first
        # of the measured window
        ("offered", "i8"),
    ],
    align=True,
)

source_t = np.dtype(
    [
        # one SSRC that one endpoint receives
        ("endpoint", "i4"),
        ("ssrc", "u4"),
        ("next", "i4"),  # row + 1
        ("repair", "u1"),  # it is an RTX stream
        ("clock_rate", "i8"),
        ("first_ns", "i8"),  # arrival of its first packet
        ("send", "i4"),  # row of what it carries now
        ("highest", "i8"),  # extended sequence number
        ("base", "i8"),
        ("received", "i8"),
        ("expected_prior", "i8"),
        ("received_prior", "i8"),
        ("transit", "i8"),
        ("jitter", "i8"),  # times 16
        ("report_middle", "i8"),  # of the last sender report's NTP time
        ("report_ns", "i8"),
        # of the measured window
        ("runs", "i8"),  # stretches on one layer
        ("run_first", "i8"),  # index of its first packet
        ("run_highest", "i8"),
        ("expected", "i8"),  # of the runs that ended
        ("delivered", "i8"),
        # what is asked for again
        ("missing_count", "i4"),
        ("missing", "i8", MISSING),
        ("missing_tries", "u1", MISSING),
    ],
    align=True,
)

control_t = np.dtype(
    [
        ("stop", "u1"),  # c
        ("endpoint_end", "i8"),  # c
        ("send_end", "i8"),  # c
        ("measure_ns", "i8"),  # c; what is sent from here on is measured
        ("end_ns", "i8"),  # c; and no longer from here on
        ("load", "f8"),  # c; times every stream's rate
        ("loss", "f8"),  # c; share of arriving RTP packets that are thrown away unread
        ("key_interval", "i8"),  # c; frames from one key frame to the next
        ("report_interval_ns", "i8"),  # c
        ("paused", "u1"),  # c; nothing is sent, and what would have been due is not made up for
        ("sleepless", "u1"),  # c; does not sleep: over loopback the server would pay for each time that it wakes us up
        ("pattern_end", "i8"),  # c
        ("epoll_fd", "i4"),  # c
        ("turns", "i8"),
        ("adopted", "i8"),  # sends taken into the schedule
        ("random", "u8"),
        ("wall_offset_ns", "i8"),
        ("tick_ns", "i8"),
        ("tick", "i8"),
        ("source_end", "i8"),
        ("scheduled", "i8"),
        # counted from the start
        ("received", "i8"),
        ("rejected", "i8"),  # did not authenticate
        ("stranger", "i8"),  # RTP without our mark: probes, padding
        ("rtcp", "i8"),
        ("unsent", "i8"),  # refused by our own socket
        ("thrown", "i8"),  # by `loss`
        ("nacked", "i8"),
        ("repaired", "i8"),
        ("key_requests", "i8"),
        ("sources_full", "i8"),
        # of the measured window
        ("delivered", "i8"),
        ("late_ns", "i8"),  # worst delay of our own schedule
        ("busy_ns", "i8"),  # of a sleepless one: in turns that sent or received something
        # addresses of the tables below
        ("rx_at", "u8"),
        ("rx_messages_at", "u8"),
        ("tx_at", "u8"),
        ("tx_messages_at", "u8"),
        ("events_at", "u8"),
        ("poll_at", "u8"),
        ("scratch_at", "u8"),
        ("endpoints_at", "u8"),
    ],
    align=True,
)

generator_t = np.dtype(
    [
        ("control", control_t, 1),
        ("scratch", "i8", 16),  # words 0-1: clock, 2-3: timeout, 4: length for libsrtp
        ("poll", pollfd_t, 1),
        ("transports", endpoint_t, ENDPOINTS),  # named as `sfu.media.receive.transport_cc` knows it, whose log we use
        ("arrivals", arrivals_t, ENDPOINTS),
        ("symbols", "u1", ARRIVALS),
        ("sends", send_t, SENDS),
        ("patterns", packet_t, PATTERN_PACKETS),  # c
        ("sources", source_t, SOURCES),
        ("source_slots", "i4", SOURCE_SLOTS),  # row + 1, 0: empty
        ("endpoint_of_fd", "i4", DESCRIPTORS),  # c; row + 1
        ("heap_due", "i8", SENDS),
        ("heap_row", "i4", SENDS),
        ("histogram", "i8", BUCKETS),
        ("events", "i4", EVENT_SLOTS * 4),
        ("rx", "u1", (SLOTS, SLOT_BYTES)),
        ("rx_iov", iovec_t, SLOTS),
        ("rx_messages", mmsghdr_t, SLOTS),
        ("rx_control", "u8", (SLOTS, CONTROL_WORDS)),
        ("tx", "u1", (SLOTS, SLOT_BYTES)),
        ("tx_iov", iovec_t, SLOTS),
        ("tx_messages", mmsghdr_t, SLOTS),
    ],
    align=True,
)


class GeneratorRecord(np.void):  # type: ignore[misc]  # final for numpy's stubs only
    """The record with `data` replaced; `sfu.schema.memory` gives the reason."""

    data: memoryview = memoryview(b"")


_GENERATOR_RECORD_T = np.dtype((GeneratorRecord, generator_t))


class Tables:
    """The generator's memory. Kernels take `record`; `table(name)` gives a view of the same bytes."""

    def __init__(self) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.state: Any = np.frombuffer(mmap.mmap(-1, generator_t.itemsize, flags), generator_t, 1)
        self.record: Any = self.state.view(_GENERATOR_RECORD_T)[0]
        everything: Any = self.state.view(np.uint8)
        self.record.data = memoryview(everything)
        for name in ("rx", "rx_messages", "tx", "tx_messages", "events", "poll", "scratch"):
            self.control[f"{name}_at"] = self._address(name)
        self.control["endpoints_at"] = self._address("transports")
        numbers = np.arange(SLOTS, dtype=np.uint64)
        for side in ("rx", "tx"):
            iov, messages = self.table(f"{side}_iov"), self.table(f"{side}_messages")
            iov["base"] = self._address(side) + numbers * SLOT_BYTES
            iov["bytes"] = SLOT_BYTES
            messages["iov"] = self._address(f"{side}_iov") + numbers * 16
            messages["iov_count"] = 1
        self.table("rx_messages")["control"] = self._address("rx_control") + numbers * CONTROL_WORDS * 8

    def table(self, name: str) -> Any:
        """Return a view of one table."""
        return self.state[name][0]

    @property
    def control(self) -> Any:
        """The one row of `control`."""
        return self.state["control"][0][0]

    def _address(self, name: str) -> int:
        fields = generator_t.fields
        assert fields is not None
        return int(self.state.ctypes.data) + int(fields[name][1])
