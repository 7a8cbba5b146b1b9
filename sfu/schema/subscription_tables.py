"""What is forwarded to whom, and what left."""

from sfu.schema.bandwidth_codes import Rung
from sfu.schema.capacities import MAX_SPATIAL_ID, MAX_TEMPORAL_ID, PAST_WORDS, VIEWER_SWITCHES
from sfu.schema.columns import CONTROL, MEDIA, Column, RowType
from sfu.schema.layout import Layout

EVERYTHING_SPATIAL, EVERYTHING_TEMPORAL = 2, 3
"""Layers of a new subscription."""
SUBSCRIPTION_LINES = 3
"""Cache lines at the beginning of a subscription's row that every packet needs."""

SUBSCRIPTION = RowType(
    "subscription",
    "One track forwarded to one transport.",
    (
        # what every packet needs: SUBSCRIPTION_LINES cache lines. Who, and which layer is forwarded
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("kind", "u1", CONTROL, "AUDIO or VIDEO."),
        Column("paused", "u1", MEDIA, "Whether nothing is sent: the subscriber paused it, or no layer is allowed."),
        Column("started", "u1", MEDIA, "Whether a packet was sent."),
        Column("payload_type", "u1", CONTROL, "Payload type with which packets are sent."),
        Column("mid_acknowledged", "u1", MEDIA, "A receiver report named the SSRC, so mid is no longer sent."),
        Column("last_marker", "u1", MEDIA, "Marker bit of the packet last sent; 1 once a gap was left behind it."),
        Column("layer", "i1", MEDIA, "Simulcast: layer being forwarded, -1: none; SVC: 0 once started.", initial=-1),
        Column("target_layer", "i1", MEDIA, "Simulcast: layer to forward, from its next key frame on."),
        Column("temporal", "u1", MEDIA, "Highest temporal layer being forwarded."),
        Column(
            "target_spatial",
            "u1",
            MEDIA,
            "Highest spatial layer to forward: the lower one of those preferred and allowed.",
            initial=EVERYTHING_SPATIAL,
        ),
        Column(
            "target_temporal",
            "u1",
            MEDIA,
            "Highest temporal layer to forward: the lower one of those preferred and allowed.",
            initial=EVERYTHING_TEMPORAL,
        ),
        Column(
            "red_payload_type",
            "i2",
            CONTROL,
            "Payload type with which RED is sent; -1: only its primary block is sent.",
        ),
        Column("history_use", "u2", CONTROL, "Number of this use of the history row, kept with each entry in `use`."),
        Column("generation", "i4", CONTROL, "Counts uses of the row."),
        Column("transport", "i4", CONTROL, "Transport row of the subscriber."),
        Column("next_of_track", "i4", MEDIA, "Next subscription of the track; -1: none.", initial=-1),
        Column("ssrc", "u4", CONTROL, "The SSRC with which packets are sent."),
        Column("rtx_ssrc", "u4", CONTROL, "The SSRC with which packets are sent again; 0: they are not."),
        Column(
            "stream",
            "i4",
            MEDIA,
            "Stream row that is or was last forwarded, to which the offsets belong; -1: none.",
            initial=-1,
        ),
        Column(
            "source_ssrc", "u4", MEDIA, "SSRC of `stream` then; another one means other timestamps and picture ids."
        ),
        Column("timestamp_offset", "u4", MEDIA, "Input timestamp minus output timestamp, modulo 2^32."),
        Column("track", "i4", CONTROL, "Track row that is forwarded."),
        Column("history", "i4", CONTROL, "Row of `history` that the subscription uses."),
        # rewriting; out = in - offset
        Column("in_highest", "i8", MEDIA, "Highest extended input sequence decided on, of the current layer."),
        Column("out_highest", "i8", MEDIA, "Last extended output sequence; starts random below 32768."),
        Column(
            "dropped",
            "u8",
            MEDIA,
            "Bit mask of the 64 input numbers around `in_highest`, by number & 63: dropped on purpose.",
        ),
        Column(
            "sent",
            "u8",
            MEDIA,
            "Bit mask of the 64 input numbers around `in_highest`: sent, or dropped after being skipped.",
        ),
        Column("packets", "i8", MEDIA, "RTP packets sent, without retransmissions."),
        Column("octets", "i8", MEDIA, "RTP payload bytes sent, for sender reports."),
        Column("last_ns", "i8", MEDIA, "When `last_timestamp` was sent."),
        Column("last_timestamp", "u4", MEDIA, "Highest output timestamp."),
        Column("picture_timestamp", "u4", MEDIA, "Input timestamp of the newest picture decided on."),
        # pictures and scalable layers
        Column("picture_offset", "i4", MEDIA, "Input picture id minus output picture id, modulo 2^15."),
        Column("tl0_offset", "i4", MEDIA, "Input TL0PICIDX minus output TL0PICIDX, modulo 2^8."),
        Column("last_picture", "i4", MEDIA, "Output picture id of `picture_highest`; -1: none yet.", initial=-1),
        Column("last_tl0", "i4", MEDIA, "Last output TL0PICIDX; -1: none yet.", initial=-1),
        Column("picture_highest", "i4", MEDIA, "Highest input picture id decided on, counted on beyond its width."),
        Column(
            "pictures_dropped",
            "u8",
            MEDIA,
            "Bit mask of the 64 pictures around `picture_highest`, by number & 63: dropped.",
        ),
        Column(
            "switch_sequence",
            "i8",
            MEDIA,
            "Extended input sequence of the switch: older packets of the layer are not sent.",
        ),
        Column("index_highest", "i8", MEDIA, "Highest SRTP packet index used; -1: none.", initial=-1),
        Column("indices", "u8", MEDIA, "Bit mask of the 64 indices around `index_highest`, by index & 63: used."),
        Column("spatial", "i1", MEDIA, "SVC: highest spatial layer being forwarded."),
        Column(
            "decode_target",
            "i1",
            MEDIA,
            "SVC with dependency descriptors: target of (spatial, temporal); -1: unknown.",
            initial=-1,
        ),
        Column("held", "u1", MEDIA, "What is left out of the layer being forwarded: `Held`."),
        Column(
            "unwrapped", "u1", MEDIA, "Audio: whether RED is sent as its primary block only, for lack of bandwidth."
        ),
        Column(
            "targets", "u4", MEDIA, "SVC: active decode target mask to write; 0: descriptors are copied as they are."
        ),
        Column("produced_targets", "u4", MEDIA, "SVC: active targets of the encoder when decode_target was chosen."),
        # what the subscriber prefers and what may be sent: `renew_target` of sfu/media/subscriptions.py reads both
        Column("pause_requested", "u1", MEDIA, "Whether the subscriber has paused it, by command."),
        Column(
            "preferred_spatial",
            "i1",
            MEDIA,
            "Highest spatial layer that the subscriber prefers, by command.",
            initial=EVERYTHING_SPATIAL,
        ),
        Column(
            "preferred_temporal",
            "i1",
            MEDIA,
            "Highest temporal layer that the subscriber prefers, by command.",
            initial=EVERYTHING_TEMPORAL,
        ),
        Column(
            "allowed_spatial",
            "i1",
            MEDIA,
            "Highest spatial layer that may be sent; -1: nothing may.",
            initial=MAX_SPATIAL_ID,
        ),
        Column("allowed_temporal", "i1", MEDIA, "Highest temporal layer that may be sent.", initial=MAX_TEMPORAL_ID),
        # how its transport's bandwidth is shared out: sfu/media/sharing.py
        Column(
            "priority",
            "i4",
            MEDIA,
            "The subscriber's priority for the track, by command: 1 is the highest, 0 means none.",
            kept="the command that opens it says it",
        ),
        Column(
            "pixels",
            "i4",
            MEDIA,
            "Width times height at which the client shows the video, by command; 0: unknown.",
            kept="the command that opens it says it",
        ),
        Column(
            "primary_bps",
            "i4",
            MEDIA,
            "Audio: bit/s of the track without what RED repeats, when bandwidth was last shared out; 0: not heard.",
        ),
        Column("redundant_bps", "i4", MEDIA, "Audio: bit/s of what RED repeated then."),
        Column("rung", "i1", MEDIA, "The `Rung` that was allocated.", initial=int(Rung.NONE)),
        Column("reason", "u1", MEDIA, "The `Reason` why no higher rung was allocated."),
        Column(
            "by_bandwidth",
            "u1",
            MEDIA,
            "Whether another layer is waited for because of bandwidth, not because of what is preferred.",
        ),
        Column(
            "switches_ns",
            "i8",
            MEDIA,
            "When each of the last key frames was requested because of bandwidth, newest first; 0: never.",
            shape=VIEWER_SWITCHES,
        ),
        Column(
            "failures",
            "i4",
            MEDIA,
            "Upgrades in a row that had to be taken back soon.",
            kept="`rung` says whether it is valid",
        ),
        Column(
            "raised_ns",
            "i8",
            MEDIA,
            "When the subscription was last given a higher rung than before; 0: never.",
            kept="`rung` says whether it is valid",
        ),
        Column(
            "raised_bps",
            "i8",
            MEDIA,
            "What the path was believed to carry at `raised_ns`.",
            kept="`rung` says whether it is valid",
        ),
        Column(
            "failed_ns",
            "i8",
            MEDIA,
            "When a higher rung last had to be taken back soon after it was given; 0: never.",
            kept="`rung` says whether it is valid",
        ),
        Column(
            "failed_bps",
            "i8",
            MEDIA,
            "What the path was believed to carry when the rung that failed was given.",
            kept="`rung` says whether it is valid",
        ),
        Column(
            "overdrawn_ns",
            "i8",
            MEDIA,
            "For a screen, when it last began to exceed the budget; 0: never.",
            kept="`rung` says whether it is valid",
        ),
        # what waits for its path: sfu/media/pacing/
        Column(
            "waits_at",
            "i8",
            MEDIA,
            "Position in the track's log from which on nothing has been sent yet; -1: nothing waits.",
            initial=-1,
        ),
        Column(
            "repairs_from",
            "i8",
            MEDIA,
            "Lowest output sequence that waits to be repeated; 0: none does.",
            kept="it is 0 when a subscription has closed",
        ),
        Column("queued", "u1", MEDIA, "Whether the subscription is in its transport's list of `first_waiting`."),
        Column("behind", "u1", MEDIA, "Whether what waits is so old that upper temporal layers are left out."),
        Column(
            "comes_last",
            "u1",
            MEDIA,
            "Whether the subscription is the least important in that list, because its key frames never end.",
        ),
        Column(
            "keys_since_ns",
            "i8",
            MEDIA,
            "For a video of which only key frames are sent, when it began to wait for its path; 0: never.",
        ),
        Column("key_left_ns", "i8", MEDIA, "When the last packet of a key frame that had waited was sent; 0: never."),
        Column("lost_keys", "u1", MEDIA, "How often in a row what waited was lost before a picture was sent whole."),
        Column("lost_ns", "i8", MEDIA, "When what waited was last lost; 0: never."),
        Column(
            "lost_bps",
            "i8",
            MEDIA,
            "Most that the path was believed to carry when `lost_keys` were lost; 0: nothing limited them.",
            kept="`lost_keys` says whether it is valid",
        ),
        Column(
            "waits_next",
            "i4",
            MEDIA,
            "Next subscription in the list of `first_waiting`, + 1; 0: none.",
            kept="`queued` says whether it is valid",
        ),
        Column(
            "waits_before",
            "i4",
            MEDIA,
            "Subscription before this one in the list of `first_waiting`, + 1; 0: none.",
            kept="`queued` says whether it is valid",
        ),
        # retransmission, feedback and reports
        Column("next_of_transport", "i4", MEDIA, "Next subscription towards the transport; -1: none.", initial=-1),
        Column("rtx_payload_type", "i2", CONTROL, "Payload type with which packets are sent again; -1: none."),
        Column(
            "codec",
            "u1",
            CONTROL,
            "Codec that the payload type was negotiated for; NONE: packets of any codec are sent.",
        ),
        Column(
            "playout_delay",
            "u4",
            CONTROL,
            "For video, the 24 bits of the playout-delay extension; 0: the publisher's are copied.",
        ),
        Column("mid", "u1", CONTROL, "The m-section's mid, padded with zeros.", shape=16),
        Column("mid_bytes", "u1", CONTROL, "How many bytes of `mid` are used."),
        Column(
            "rtx_mid_acknowledged",
            "u1",
            MEDIA,
            "A receiver report named the RTX SSRC, so mid is no longer sent with it.",
        ),
        Column("cname", "u1", CONTROL, "The RTCP CNAME, padded with zeros.", shape=32),
        Column("cname_bytes", "u1", CONTROL, "How many bytes of `cname` are used."),
        Column("silent_packets", "u1", MEDIA, "Packets of silence that are still to be sent before media come."),
        Column("rtx_sequence", "i8", MEDIA, "SRTP packet index of the last retransmission."),
        Column("retransmitted", "i8", MEDIA, "Packets sent again because the subscriber asked for them."),
        Column("retransmitted_bytes", "i8", MEDIA, "RTP header and payload bytes of the packets sent again."),
        Column("report_ns", "i8", MEDIA, "When the last sender report was sent."),
        Column("lost", "i4", MEDIA, "Cumulative number of packets lost, from the last receiver report."),
        Column("jitter", "u4", MEDIA, "Interarrival jitter from the last receiver report, in clock ticks."),
        Column(
            "reported_ns",
            "i8",
            MEDIA,
            "When the last receiver report came.",
            kept="`mid_acknowledged` says whether one did",
        ),
        Column(
            "reported_packets",
            "i8",
            MEDIA,
            "`packets` when the last receiver report came.",
            kept="`mid_acknowledged` says whether it is valid",
        ),
        Column(
            "first_highest",
            "i8",
            MEDIA,
            "`out_highest` when the subscription opened: the number before its first one.",
            kept="it is written when the row opens",
        ),
        Column(
            "block_highest",
            "i8",
            MEDIA,
            "Highest output number that a receiver report spoke of.",
            kept="it is written when the row opens",
        ),
        Column("block_packets", "i8", MEDIA, "`packets` when the last receiver report was counted."),
        Column("block_late", "i8", MEDIA, "`late` when the last receiver report was counted."),
        Column(
            "block_missing",
            "i8",
            MEDIA,
            "Packets that the subscriber had lost up to `block_highest`; numbers without one do not count.",
        ),
        Column(
            "late", "i8", MEDIA, "Packets sent whose number lay below the highest, because the publisher's came late."
        ),
        Column("own_lost", "i8", MEDIA, "Packets lost on the path to the subscriber, before repair, as it reported."),
        Column("own_fraction", "u1", MEDIA, "Share of packets that the last report added to `own_lost`, in 256ths."),
        Column(
            "counted_bytes", "i8", MEDIA, "Bytes on the wire that had been sent when receiver reports last decided."
        ),
        Column("silent_next", "i4", MEDIA, "Next subscription with `silent_packets`, + 1; 0: none."),
        Column("silent_before", "i4", MEDIA, "Subscription with `silent_packets` before this one, + 1; 0: none."),
        Column("bytes_at_check", "i8", MEDIA, "`octets` at the last bit rate pass."),
        Column("bitrate_bps", "i8", MEDIA, "Bit rate of the last pass, in bit/s."),
        # what `dropped`, `sent`, `indices` and `pictures_dropped` say about earlier numbers: for late packets
        Column("dropped_past", "u8", MEDIA, "What `dropped` said about earlier numbers.", shape=PAST_WORDS),
        Column("sent_past", "u8", MEDIA, "What `sent` said about earlier numbers.", shape=PAST_WORDS),
        Column("indices_past", "u8", MEDIA, "What `indices` said about earlier indices.", shape=PAST_WORDS),
        Column("pictures_past", "u8", MEDIA, "What `pictures_dropped` said about earlier pictures.", shape=PAST_WORDS),
    ),
    layout=Layout.WHOLE_LINES,
)
subscription_t = SUBSCRIPTION.dtype

HISTORY_ENTRY = RowType(
    "history",
    "One packet that left on a subscription, by output sequence & (HISTORY - 1): two share a cache line.",
    (
        Column("out_sequence", "u4", MEDIA, "Low 32 bits of the extended output sequence number."),
        Column("in_sequence", "u4", MEDIA, "Low 32 bits of the extended sequence number in `stream`."),
        Column("stream", "i4", MEDIA, "Stream row that the packet came from."),
        Column("timestamp", "u4", MEDIA, "RTP timestamp as sent."),
        Column("targets", "u4", MEDIA, "Active decode target mask written into the descriptor; 0: not rewritten."),
        Column(
            "resent_us", "u4", MEDIA, "Low 32 bits of when the packet was last resent, to ignore NACKs that crossed it."
        ),
        Column("picture_id", "i2", MEDIA, "Picture id as sent, 15 bits; -1: not rewritten."),
        Column("tl0", "i2", MEDIA, "TL0PICIDX as sent; -1: not rewritten."),
        Column(
            "use", "u2", MEDIA, "The subscription's `history_use`: an entry with another number is of an earlier use."
        ),
        Column("marker", "u1", MEDIA, "Marker bit as sent."),
        Column(
            "resent",
            "u1",
            MEDIA,
            "How often the packet was sent again; with the bit WAITS (128) while it waits to be.",
        ),
    ),
)
history_t = HISTORY_ENTRY.dtype

ARRIVAL = RowType(
    "arrival",
    "One new packet of the track that egress is working on.",
    (
        Column("position", "i8", MEDIA, "Position of the packet in the track's log."),
        Column("stream", "i4", MEDIA, "Stream row that the packet came on."),
        Column("index", "i4", MEDIA, "Index of the packet in its row of `packets`."),
        Column("layer", "u1", MEDIA, "Layer of the track that the packet belongs to."),
        Column("key_start", "u1", MEDIA, "Whether the packet is the first one of a key frame."),
        Column("padding", "u1", MEDIA, "Padding bytes that make the packet as large as the one that follows."),
    ),
)
