"""TCP connections over which paths go (RFC 6544), and what waits in them: frames of RFC 4571."""

import platform

from sfu.schema.capacities import SLOW_BYTES
from sfu.schema.columns import CONTROL, MEDIA, Column, RowType
from sfu.schema.layout import Layout

CONNECTION = RowType(
    "connection",
    "One TCP connection from a peer, which carries packets in frames.",
    (
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column(
            "congested", "u1", MEDIA, "Whether the operating system takes no more bytes, and is to tell when it does."
        ),
        Column(
            "stalled",
            "u1",
            MEDIA,
            "Whether what waited was dropped because it was old, and no byte has left since: nothing more is queued.",
        ),
        Column("family", "u1", CONTROL, "IP version of the addresses: 4 or 6."),
        Column("address", "u1", CONTROL, "Sockaddr_in or sockaddr_in6 of the peer (flow info zeroed).", shape=28),
        Column("address_bytes", "u4", CONTROL, "How many bytes of `address` are used."),
        Column("generation", "i4", CONTROL, "Counts uses of the row."),
        Column("fd", "i4", CONTROL, "File descriptor, which is the control thread's to close after CLOSED_CONNECTION."),
        Column("path", "i4", MEDIA, "Path that a valid check over the connection made; -1: none came.", initial=-1),
        Column("half_bytes", "i4", MEDIA, "Bytes of the row of `half_frames`: of a frame whose rest has not come."),
        Column("first", "i4", MEDIA, "Where in the row of `frame_queues` the oldest frame lies that has not left."),
        Column("end", "i4", MEDIA, "Where in the row of `frame_queues` the next frame is written."),
        Column("begun", "i4", MEDIA, "Bytes of the oldest frame that have left."),
        Column("count", "i4", MEDIA, "Frames that have not left."),
    ),
    layout=Layout.WHOLE_LINES,
)

FRAME = RowType(
    "frame",
    "A datagram of the control thread for a TCP connection, into which only the media thread writes.",
    (
        Column("transport", "i4", CONTROL, "Transport row that the datagram is sent to."),
        Column("generation", "i4", CONTROL, "Generation of the transport row."),
        Column("path", "i4", CONTROL, "Path row over which the datagram is sent."),
        Column("size", "i4", CONTROL, "Bytes of `data`."),
        Column("data", "u1", CONTROL, "The datagram.", shape=SLOW_BYTES),
    ),
)
frame_t = FRAME.dtype

EVENT_WORDS, EVENT_DATA_WORD = (3, 1) if platform.machine() in ("x86_64", "AMD64") else (4, 2)
"""The u4 words of an epoll_event, and which of them holds a connection's row: on x86-64 the structure is packed."""
