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
        Column("flush", "u4", MEDIA, "Low 32 bits of the thread's `flushes` when the packet leaves."),
        Column("size", "u2", MEDIA, "Bytes on the wire, with the headers of UDP and IP."),
        Column("cluster", "u1", MEDIA, "Probe cluster that the packet belongs to; 0: none."),
        Column("state", "u1", MEDIA, "What is known of the packet: `SentState`."),
    ),
)

SEND_LOG = RowType(
    "send_log",
    "The newest SENT_PACKETS numbered packets of one transport.",
    (
        Column("bytes", "i8", MEDIA, "Bytes of all numbered packets sent, on the wire."),
        Column("count", "i8", MEDIA, "How many numbered packets were sent."),
        Column("reference", "i8", MEDIA, "Reference time of the newest feedback, counted on beyond 24 bits."),
        Column("feedbacks", "i8", MEDIA, "Transport-cc feedback packets taken."),
        Column(
            "reported_lost",
            "i8",
            MEDIA,
            "Packets that feedback reported missing and has not reported as received since.",
        ),
        Column("path", "i4", MEDIA, "Path row that the estimate is about; -1: none yet.", initial=-1),
        Column(
            "path_number",
            "i8",
            MEDIA,
            "Transport-wide numbers below this left over another path and say nothing of this one.",
        ),
        Column(
            "resumed_number",
            "i8",
            MEDIA,
            "Lost packets with numbers below this left while no feedback came: they are no sign of congestion.",
        ),
        Column("probed_ns", "i8", MEDIA, "Until when the probe cluster that runs has been sent; 0: it begins."),
        Column("carrier", "i4", MEDIA, "Subscription that carries the probe's packets; -1: none can.", initial=-1),
        Column("probe_credit", "i8", MEDIA, "Bytes that may yet be sent for nothing but probing."),
        Column("credited_bytes", "i8", MEDIA, "`bytes` when `probe_credit` was last added to."),
        Column("probed_bytes", "i8", MEDIA, "`bytes` when the running probe was last looked at."),
        Column("probed_count", "i8", MEDIA, "`count` when the running probe was last looked at."),
        Column("repair_bytes", "f8", MEDIA, "Bytes that may be sent again now."),
        Column("repair_ns", "i8", MEDIA, "The time up to which `repair_bytes` has been counted."),
        # the pacer's budget: sfu/media/send/budget.py
        Column("pace_bytes", "i8", MEDIA, "Packets that can wait leave while `bytes` is below this."),
        Column("paced_ns", "i8", MEDIA, "The time up to which `pace_bytes` has been counted; 0: never."),
        Column(
            "key_waits", "u1", MEDIA, "Whether the packets that wait belong to a key frame that has begun to leave."
        ),
        Column(
            "overdrawn_ns",
            "i8",
            MEDIA,
            "When a key frame last began to leave faster than the pacing rate of other media; 0: never.",
        ),
        Column(
            "newest_reported", "i8", MEDIA, "Highest transport-wide number that feedback reported as received; 0: none."
        ),
        # bursts that the path has taken
        Column("burst_most", "i8", MEDIA, "Packets that may leave in one flush.", initial=AT_ONCE),
        Column("burst_flush", "u4", MEDIA, "Flush of the packet that feedback named last, by its number."),
        Column("burst_packets", "i8", MEDIA, "Packets of the flush `burst_flush` that were received."),
        Column(
            "entries",
            SENT_PACKET,
            MEDIA,
            "Numbered packets, by transport-wide number & (SENT_PACKETS - 1).",
            shape=SENT_PACKETS,
            kept="a number is looked up only after it was given to a packet",
        ),
        Column(
            "copies",
            "u4",
            MEDIA,
            "For each of `entries`, what is sent again: subscription << 16 | low 16 bits of output number; 0: none.",
            shape=SENT_PACKETS,
            kept="a number is looked up only after it was given to a packet",
        ),
    ),
    layout=Layout.WHOLE_LINES,
)
