"""What is forwarded to whom, and what left."""

from sfu.schema.bandwidth_codes import Rung
from sfu.schema.capacities import MAX_SPATIAL_ID, MAX_TEMPORAL_ID, PAST_WORDS
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
        Column("paused", "u1", MEDIA, "Nothing is sent: the subscriber paused it, or no layer is allowed."),
        Column("started", "u1", MEDIA, "A packet left."),
        Column("payload_type", "u1", CONTROL, "What it is sent with."),
        Column("mid_acknowledged", "u1", MEDIA, "An RR named the SSRC: mid is no longer sent."),
        Column("last_marker", "u1", MEDIA, "Marker bit of the packet last sent."),
        Column("layer", "i1", MEDIA, "Simulcast: layer being forwarded, -1 none; SVC: 0 once started.", initial=-1),
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
        Column("red_payload_type", "i2", CONTROL, "-1: unwrap."),
        Column("history_use", "u2", CONTROL, "Tells what is remembered for it from what was for others."),
        Column("generation", "i4", CONTROL, "Counts uses of the row."),
        Column("transport", "i4", CONTROL, "The subscriber's."),
        Column("next_of_track", "i4", MEDIA, "Next subscription of the track; -1: none.", initial=-1),
        Column("ssrc", "u4", CONTROL, "Ours for media."),
        Column("rtx_ssrc", "u4", CONTROL, "0: none."),
        Column(
            "stream",
            "i4",
            MEDIA,
            "Stream row being or last forwarded, to which the offsets belong; -1 none.",
            initial=-1,
        ),
        Column(
            "source_ssrc", "u4", MEDIA, "SSRC of that stream then; another one means other timestamps and picture ids."
        ),
        Column("timestamp_offset", "u4", MEDIA, "In - out."),
        Column("track", "i4", CONTROL, "What is forwarded."),
        Column("history", "i4", CONTROL, "Row of history."),
        # rewriting; out = in - offset
        Column("in_highest", "i8", MEDIA, "Highest extended input sequence decided on, of the current layer."),
        Column("out_highest", "i8", MEDIA, "Last extended output sequence; starts random below 32768."),
        Column(
            "dropped", "u8", MEDIA, "Of the 64 input numbers around in_highest, by number & 63: dropped on purpose."
        ),
        Column(
            "sent",
            "u8",
            MEDIA,
            "Of the 64 input numbers around in_highest, by number & 63: sent, or dropped after being skipped.",
        ),
        Column("packets", "i8", MEDIA, "RTP packets sent, without retransmissions."),
        Column("octets", "i8", MEDIA, "RTP payload, for sender reports."),
        Column("last_ns", "i8", MEDIA, "When last_timestamp was sent."),
        Column("last_timestamp", "u4", MEDIA, "Highest output timestamp."),
        Column("picture_timestamp", "u4", MEDIA, "Input timestamp of the newest picture decided on."),
        # pictures and scalable layers
        Column("picture_offset", "i4", MEDIA, "Modulo 2^15."),
        Column("tl0_offset", "i4", MEDIA, "Modulo 2^8."),
        Column("last_picture", "i4", MEDIA, "Output picture id of picture_highest; -1: none yet.", initial=-1),
        Column("last_tl0", "i4", MEDIA, "Last output TL0PICIDX; -1: none yet.", initial=-1),
        Column("picture_highest", "i4", MEDIA, "Highest input picture id decided on, counted on beyond its width."),
        Column("pictures_dropped", "u8", MEDIA, "Of the 64 pictures around picture_highest, by number & 63: dropped."),
        Column(
            "switch_sequence",
            "i8",
            MEDIA,
            "Extended input sequence of the switch: older packets of the layer are not sent.",
        ),
        Column("index_highest", "i8", MEDIA, "Highest SRTP packet index used; -1: none.", initial=-1),
        Column("indices", "u8", MEDIA, "Of the 64 indices around index_highest, by index & 63: used."),
        Column("spatial", "i1", MEDIA, "SVC: highest spatial layer being forwarded."),
        Column(
            "decode_target",
            "i1",
            MEDIA,
            "SVC with dependency descriptors: target of (spatial, temporal); -1 unknown.",
            initial=-1,
        ),
        Column("held", "u1", MEDIA, "What is not sent of the layer being forwarded: `Held`."),
        Column("unwrapped", "u1", MEDIA, "Audio: of RED only the primary block is sent, for lack of bandwidth."),
        Column(
            "targets", "u4", MEDIA, "SVC: active decode target mask to write; 0: descriptors are copied as they are."
        ),
        Column("produced_targets", "u4", MEDIA, "SVC: active targets of the encoder when decode_target was chosen."),
        # what the subscriber prefers and what may be sent: `renew_target` of sfu/media/subscriptions.py reads both
        Column("pause_requested", "u1", MEDIA, "The subscriber wants nothing for now, by command."),
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
            "The client's, by command: 1 is the highest; 0: none.",
            kept="the command that opens it says it",
        ),
        Column(
            "pixels",
            "i4",
            MEDIA,
            "Width times height that the client shows, by command; 0: not known.",
            kept="the command that opens it says it",
        ),
        Column("rung", "i1", MEDIA, "`Rung` that was allocated.", initial=int(Rung.NONE)),
        Column("reason", "u1", MEDIA, "`Reason` why it is not more."),
        Column("by_bandwidth", "u1", MEDIA, "Another layer is waited for because of bandwidth, not of a wish."),
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
            "When it was last given more than before; 0: never.",
            kept="`rung` says whether it is valid",
        ),
        Column(
            "raised_bps",
            "i8",
            MEDIA,
            "What its path was believed to carry then.",
            kept="`rung` says whether it is valid",
        ),
        Column(
            "failed_ns",
            "i8",
            MEDIA,
            "When it last had to give that back soon; 0: never.",
            kept="`rung` says whether it is valid",
        ),
        Column(
            "failed_bps",
            "i8",
            MEDIA,
            "What its path had been believed to carry when that was given.",
            kept="`rung` says whether it is valid",
        ),
        Column(
            "overdrawn_ns",
            "i8",
            MEDIA,
            "A screen: when it last began to exceed the budget; 0: never.",
            kept="`rung` says whether it is valid",
        ),
        # what waits for its path: sfu/media/send/pacer.py
        Column(
            "waits_at",
            "i8",
            MEDIA,
            "Position in its track's log from which on nothing has been sent yet; -1: nothing waits.",
            initial=-1,
        ),
        Column(
            "repairs_from",
            "i8",
            MEDIA,
            "Lowest output sequence that waits to be repeated; 0: none does.",
            kept="it is 0 when a subscription has closed",
        ),
        Column("queued", "u1", MEDIA, "It is in the list of its transport that begins with `first_waiting`."),
        Column("behind", "u1", MEDIA, "What waits is so old that upper temporal layers are left out."),
        Column("waits_next", "i4", MEDIA, "Next in that list, + 1; 0: none.", kept="`queued` says whether it is valid"),
        Column("waits_before", "i4", MEDIA, "The one before, + 1; 0: none.", kept="`queued` says whether it is valid"),
        # retransmission, feedback and reports
        Column("next_of_transport", "i4", MEDIA, "Next subscription towards the transport; -1: none.", initial=-1),
        Column("rtx_payload_type", "i2", CONTROL, "-1: none."),
        Column("codec", "u1", CONTROL, "That it was negotiated for; NONE: any."),
        Column("playout_delay", "u4", CONTROL, "Of video, the extension's 24 bits; 0: the publisher's is copied."),
        Column("mid", "u1", CONTROL, "Padded with zeros.", shape=16),
        Column("mid_bytes", "u1", CONTROL, "How many bytes of `mid` are used."),
        Column("rtx_mid_acknowledged", "u1", MEDIA, "An RR named the RTX SSRC: mid is no longer sent with it."),
        Column("cname", "u1", CONTROL, "Padded with zeros.", shape=32),
        Column("cname_bytes", "u1", CONTROL, "How many bytes of `cname` are used."),
        Column("silent_packets", "u1", MEDIA, "That are still to be sent before media come."),
        Column("rtx_sequence", "i8", MEDIA, "SRTP packet index of the last retransmission."),
        Column("retransmitted", "i8", MEDIA, "Packets sent again because the subscriber asked for them."),
        Column("report_ns", "i8", MEDIA, "Last sender report sent."),
        Column("fraction_lost", "u1", MEDIA, "From the last receiver report."),
        Column("lost", "i4", MEDIA, "Cumulative, from the last receiver report."),
        Column("jitter", "u4", MEDIA, "In clock ticks, from the last receiver report."),
        Column("reported_ns", "i8", MEDIA, "When that came.", kept="`mid_acknowledged` says whether one did"),
        Column("reported_packets", "i8", MEDIA, "`packets` then.", kept="`mid_acknowledged` says whether it is valid"),
        Column(
            "reported_highest",
            "i8",
            MEDIA,
            "`out_highest` then: more than its packets, where numbers had none.",
            kept="`mid_acknowledged` says whether it is valid",
        ),
        Column(
            "first_highest",
            "i8",
            MEDIA,
            "`out_highest` when it opened: the number before the first one.",
            kept="it is written when the row opens",
        ),
        Column(
            "heard_highest",
            "i8",
            MEDIA,
            "Highest output number that a receiver report spoke of.",
            kept="it is written when the row opens",
        ),
        Column("heard_holes", "i8", MEDIA, "Numbers that no packet had been given then."),
        Column("heard_missing", "i8", MEDIA, "Packets that the subscriber had lost then, without those numbers."),
        Column("silent_next", "i4", MEDIA, "Next subscription with silent_packets, + 1; 0: none."),
        Column("silent_before", "i4", MEDIA, "The one before it, + 1; 0: none."),
        Column("pli_ns", "i8", MEDIA, "When the subscriber last requested a key frame (PLI or FIR)."),
        Column("bytes_at_check", "i8", MEDIA, "`octets` at the last bit rate pass."),
        Column("bitrate_bps", "i8", MEDIA, "As measured last."),
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
        Column("out_sequence", "u4", MEDIA, "The low 32 bits of the extended one."),
        Column("in_sequence", "u4", MEDIA, "The low 32 bits of the extended one, in `stream`."),
        Column("stream", "i4", MEDIA, "Stream row that it came from."),
        Column("timestamp", "u4", MEDIA, "As sent."),
        Column("targets", "u4", MEDIA, "Active decode target mask written into the descriptor; 0: not rewritten."),
        Column("resent_us", "u4", MEDIA, "Low 32 bits of when it was last resent, to ignore NACKs that crossed it."),
        Column("picture_id", "i2", MEDIA, "As sent, 15 bits; -1: not rewritten."),
        Column("tl0", "i2", MEDIA, "As sent; -1: not rewritten."),
        Column("use", "u2", MEDIA, "History_use of the subscription: rows are not cleared when they are used again."),
        Column("marker", "u1", MEDIA, "As sent."),
        Column("resent", "u1", MEDIA, "Times; with the bit WANTED (128) while it waits to be sent again."),
    ),
)
history_t = HISTORY_ENTRY.dtype

ARRIVAL = RowType(
    "arrival",
    "One new packet of the track that egress is working on.",
    (
        Column("position", "i8", MEDIA, "In the track's log."),
        Column("stream", "i4", MEDIA, "Stream row."),
        Column("index", "i4", MEDIA, "Into packets[stream]."),
        Column("layer", "u1", MEDIA, "Of the track."),
        Column("key_start", "u1", MEDIA, "First packet of a key frame."),
        Column("padding", "u1", MEDIA, "Bytes that make it as large as what follows."),
    ),
)
