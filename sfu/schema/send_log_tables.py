"""What left for a transport, and when: what its feedback is compared with."""

from sfu.schema.capacities import SENT_PACKETS
from sfu.schema.columns import MEDIA, Column, RowType
from sfu.schema.layout import Layout

AT_ONCE = 10
"""Packets that leave at once for a path that has not shown that it takes more."""

SENT_PACKET = RowType(
    "sent_packet",
    "One packet with a transport-wide number.",
    (
        Column("flush", "u4", MEDIA, "In which flush it leaves: the low 32 bits of the thread's `flushes`."),
        Column("size", "u2", MEDIA, "Bytes on the wire, with the headers of UDP and IP."),
        Column("cluster", "u1", MEDIA, "Probe cluster that it belongs to; 0: none."),
        Column("state", "u1", MEDIA, "Of `SentState`."),
    ),
)

SEND_LOG = RowType(
    "send_log",
    "The newest SENT_PACKETS numbered packets of one transport.",
    (
        Column("bytes", "i8", MEDIA, "Of all numbered packets, on the wire."),
        Column("count", "i8", MEDIA, "Of those packets."),
        Column("reference", "i8", MEDIA, "Reference time of the newest feedback, counted on beyond 24 bits."),
        Column("feedbacks", "i8", MEDIA, "Transport-cc feedback packets taken."),
        Column("reported_lost", "i8", MEDIA, "Packets that feedback reported missing, and never as received since."),
        Column("path", "i4", MEDIA, "Path that the estimate is of; -1: none yet.", initial=-1),
        Column("path_number", "i8", MEDIA, "Numbers below left over another path, and say nothing of this one."),
        Column(
            "heard_number", "i8", MEDIA, "Numbers below, if lost, left while the peer was not heard: no loss counts."
        ),
        Column("probed_ns", "i8", MEDIA, "Until when the probe cluster that runs has been sent; 0: it begins."),
        Column("carrier", "i4", MEDIA, "Subscription on which it is sent; -1: none can carry it.", initial=-1),
        Column("probe_credit", "i8", MEDIA, "Bytes that may yet be sent for nothing but probing."),
        Column("credited_bytes", "i8", MEDIA, "`bytes` when that was last added to."),
        Column("probed_bytes", "i8", MEDIA, "`bytes` then."),
        Column("probed_count", "i8", MEDIA, "`count` then."),
        Column("repair_bytes", "f8", MEDIA, "How much may be repeated now."),
        Column("repair_ns", "i8", MEDIA, "Until when that was counted."),
        # the pacer's budget: sfu/media/send/budget.py
        Column("pace_bytes", "i8", MEDIA, "What `bytes` may come to before what may wait waits."),
        Column("paced_ns", "i8", MEDIA, "Until when that was counted; 0: never."),
        Column("key_waits", "u1", MEDIA, "What waits is a key frame that has begun to leave."),
        Column("overdrawn_ns", "i8", MEDIA, "When a key frame last began to leave faster than media do; 0: never."),
        Column("newest_reported", "i8", MEDIA, "Highest number that feedback reported as received; 0: none."),
        # bursts that the path has taken
        Column("burst_most", "i8", MEDIA, "Packets that may leave in one flush.", initial=AT_ONCE),
        Column("burst_flush", "u4", MEDIA, "Flush of the packet that feedback named last."),
        Column("burst_packets", "i8", MEDIA, "Packets of that flush that were received."),
        Column(
            "entries",
            SENT_PACKET,
            MEDIA,
            "By transport-wide number & (SENT_PACKETS - 1).",
            shape=SENT_PACKETS,
            kept="a number is looked up only after it was given to a packet",
        ),
    ),
    layout=Layout.WHOLE_LINES,
)
