"""RTCP's packet types, formats and header sizes (RFC 3550 section 6, RFC 3611, RFC 4585, RFC 5104), the form of
transport-cc feedback, and NTP time."""

import numpy as np
from numba import njit

from sfu.media.wire.numbers import put_u16, put_u32

SENDER_REPORT, RECEIVER_REPORT, SOURCE_DESCRIPTION, BYE = 200, 201, 202, 203
RTP_FEEDBACK, PAYLOAD_FEEDBACK, EXTENDED_REPORT = 205, 206, 207
NACK, TRANSPORT_CC = 1, 15
"""Formats of RTP_FEEDBACK."""
PLI, FIR, REMB = 1, 4, 15
"""Formats of PAYLOAD_FEEDBACK; 15 is any application's own, of which REMB is one."""
REFERENCE_TIME, LAST_REFERENCE_TIME = 4, 5
"""Block types of an extended report (RFC 3611 sections 4.4 and 4.5)."""

EMPTY_REPORT_BYTES = 8
"""A receiver report without blocks."""
SENDER_INFO_BYTES = 20
REPORT_BLOCK_BYTES = 24
FEEDBACK_HEADER_BYTES = 12

DATAGRAM_BYTES = 1150
"""A compound of ours is no larger before protection."""

TICK_NS = 250_000
"""Unit of transport-cc receive deltas (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.5)."""
TICKS_PER_REFERENCE = 256
"""Ticks in one unit of the reference time, which is 64 ms."""
NOT_RECEIVED, SMALL, LARGE = 0, 1, 2
"""Packet statuses (section 3.1.1); the number is how many bytes its receive delta has."""
ONE_BIT_STATUSES, TWO_BIT_STATUSES = 14, 7
"""Statuses in a vector chunk (section 3.1.4)."""
MAX_RUN = 0x1FFF
"""Statuses in a run length chunk (section 3.1.3)."""

NTP_EPOCH_S = 2_208_988_800
"""1970-01-01 in NTP seconds, which count from 1900."""

_SECOND = 1_000_000_000


@njit(cache=True)
def put_ntp(data, at, wall):
    """Write ns since 1970 as the 64 bits of an NTP timestamp (RFC 3550 section 4)."""
    put_u32(data, at, wall // _SECOND + NTP_EPOCH_S)
    put_u32(data, at + 4, ((wall % _SECOND) << 32) // _SECOND)


@njit(cache=True)
def ntp_to_ns(ntp):
    """32.32 fixed point seconds since 1900 (u8) to ns since 1970."""
    seconds = np.int64(ntp >> np.uint64(32)) - NTP_EPOCH_S
    return seconds * _SECOND + (np.int64(ntp & np.uint64(0xFFFFFFFF)) * _SECOND >> 32)


@njit(cache=True)
def middle_ntp(wall):
    """The middle 32 bits of the NTP time of ns since 1970: 1/65536 s, as in LSR."""
    seconds, rest = wall // _SECOND + NTP_EPOCH_S, wall % _SECOND
    return (seconds & 0xFFFF) << 16 | (rest << 16) // _SECOND


@njit(cache=True)
def begin_compound(data, ssrc):
    """Start a compound with an empty receiver report of `ssrc` (RFC 3550 section 6.1); returns the offset behind it."""
    data[0] = 0x80
    data[1] = RECEIVER_REPORT
    put_u16(data, 2, 1)
    put_u32(data, 4, ssrc)
    return EMPTY_REPORT_BYTES
