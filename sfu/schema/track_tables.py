"""What is published: tracks and their layers."""

from sfu.parameters import MAX_THREADS
from sfu.schema.allocation_tables import MEASURED_LAYERS
from sfu.schema.capacities import LAYERS, MISSING, TRACK_LOG
from sfu.schema.columns import CONTROL, HANDED, MEDIA, Column, RowType

NOT_LISTED = -2
"""dirty_next of a track without unread arrivals."""

TRACK = RowType(
    "track",
    "One published m-section.",
    (
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("kind", "u1", CONTROL, "AUDIO or VIDEO."),
        Column("layer_count", "u1", CONTROL, "How many layers it has."),
        Column("screen", "u1", CONTROL, "It is a shared screen."),
        Column("codecs", "u4", HANDED, "Bit mask of what the m-section may carry; 0: whatever the transport knows."),
        Column("generation", "i4", CONTROL, "Counts uses of the row."),
        Column("transport", "i4", CONTROL, "The publisher's."),
        Column("mid", "u1", CONTROL, "Padded with zeros.", shape=16),
        Column("mid_bytes", "u1", CONTROL, "How many bytes of `mid` are used."),
        Column("streams", "i4", CONTROL, "Stream rows, lowest layer first; -1 beyond layer_count.", shape=LAYERS),
        Column("next", "i4", MEDIA, "Next track of the transport.", initial=-1),
        Column("first_subscription", "i4", MEDIA, "By next_of_track.", initial=-1),
        Column("subscription_count", "i4", MEDIA, "How many subscriptions it has."),
        Column("live", "u1", MEDIA, "Bit mask of layers that advance."),
        Column("dirty_next", "i4", MEDIA, "List of tracks with unread arrivals; -2: not in it.", initial=NOT_LISTED),
        Column(
            "log",
            "u4",
            MEDIA,
            "Layer << 16 | index into packets; written by ingress, read by egress.",
            shape=TRACK_LOG,
            kept="`log_written` and `log_read` say what is valid",
        ),
        Column("log_written", "i8", MEDIA, "Entries ever written to `log`."),
        Column("log_read", "i8", MEDIA, "Cursor of egress."),
        Column("switch_request_ns", "i8", MEDIA, "When a key frame was last requested because bandwidth changed."),
        Column(
            "switch_credit_ns", "i8", MEDIA, "When all requests of that kind would be paid for, one in SWITCH_EVERY_NS."
        ),
        # audio of which only the loudest of a group is forwarded: sfu/media/stream/loudest.py
        Column("group", "i4", CONTROL, "0: none."),
        Column("group_limit", "i4", CONTROL, "How many of them."),
        Column("group_next", "i4", MEDIA, "Next track of the group; -1: none.", initial=-1),
        Column(
            "owner",
            "i4",
            CONTROL,
            "Who speaks: one number for all tracks of a publisher, which no other publisher has; 0: nobody.",
        ),
        Column("loudness", "i4", MEDIA, "Smoothed, of which the largest are forwarded."),
        Column("level", "i4", MEDIA, "Of the newest packet, -dBov.", initial=127),
        Column("unmoved", "i4", MEDIA, "Packets in a row with this level."),
        Column("loud", "u1", MEDIA, "It is forwarded."),
        Column("level_ns", "i8", MEDIA, "Arrival of the newest level."),
        # a track that has subscribers in other media threads has a mirror in each of them
        Column("mirrors", "i4", MEDIA, "How many."),
        Column("mirror", "i4", MEDIA, "Track row in that thread; -1: none.", shape=MAX_THREADS, initial=-1),
        Column(
            "mirror_generation",
            "i4",
            MEDIA,
            "Of the track row in that thread.",
            shape=MAX_THREADS,
        ),
        Column("source_thread", "i4", CONTROL, "Of a mirror: the thread of its publisher; -1: it is none."),
        Column("source_row", "i4", CONTROL, "Of a mirror: the track row there."),
        Column("source_generation", "i4", CONTROL, "Of that row."),
    ),
)
track_t = TRACK.dtype

MISSING_NUMBER = RowType(
    "missing",
    "One sequence number that is being asked for.",
    (
        Column("sequence", "i8", MEDIA, "Extended sequence number."),
        Column("noticed_ns", "i8", MEDIA, "When the gap was seen."),
        Column("asked_ns", "i8", MEDIA, "When it was last asked for."),
        Column("tries", "i4", MEDIA, "How often it was asked for."),
    ),
)
missing_t = MISSING_NUMBER.dtype

STREAM = RowType(
    "stream",
    "One layer of a track: one primary SSRC, its packet cache, its reception.",
    (
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("layer", "u1", CONTROL, "Which layer of its track."),
        Column("kind", "u1", CONTROL, "AUDIO or VIDEO."),
        Column("codec", "u1", MEDIA, "Of the last packet's payload type."),
        Column("payload_type", "u1", MEDIA, "Of the last packet."),
        Column("nack", "u1", MEDIA, "From the payload type."),
        Column("codec_ns", "i8", MEDIA, "Arrival of the packet that last changed the codec; 0: none has."),
        Column("acknowledged", "u1", MEDIA, "A report block was sent for it."),
        Column("track", "i4", CONTROL, "Whose layer it is."),
        Column("transport", "i4", CONTROL, "The publisher's."),
        Column("rid", "u1", CONTROL, "Padded with zeros.", shape=16),
        Column("rid_bytes", "u1", CONTROL, "How many bytes of `rid` are used."),
        Column("ssrc", "u4", HANDED, "From SDP or 0, then of the source assigned to it."),
        Column("rtx_ssrc", "u4", HANDED, "From SDP or 0, then of the RTX source assigned to it."),
        Column("clock_rate", "u4", MEDIA, "From the payload type."),
        Column("announced", "u8", MEDIA, "Of the last STREAM_STARTED: SSRC, codec << 32, payload type << 40."),
        Column("source", "i4", MEDIA, "Row of the source assigned to it; -1: none.", initial=-1),
        Column("rtx_source", "i4", MEDIA, "Row of the RTX source assigned to it; -1: none.", initial=-1),
        Column(
            "sequence_shift", "i8", MEDIA, "Extended sequence = the wire's (extended) + this; changes with the SSRC."
        ),
        Column("cache_start", "i8", HANDED, "Offset into the arena."),
        Column("cache_bytes", "i8", HANDED, "Power of two."),
        Column("cache_oldest", "i8", MEDIA, "What was written before this is not there: the cache was another one."),
        Column("requested_bytes", "i8", MEDIA, "Bytes that the last CACHE_REQUESTED asked for."),
        Column("small_checks", "i4", MEDIA, "How often in a row the cache was found too large."),
        Column("peak_checks", "i4", MEDIA, "Checks since peak_bytes began anew."),
        Column("peak_bytes", "i8", MEDIA, "The largest cache that was needed since then."),
        Column("peak_before", "i8", MEDIA, "The largest cache that was needed in the period before."),
        Column("burst_start", "i8", MEDIA, "`cache_written` at the beginning of the burst that is watched."),
        Column("burst_ns", "i8", MEDIA, "Arrival at the beginning of that burst."),
        Column("burst_requested", "i8", MEDIA, "Bytes that a burst has requested since the last check."),
        Column("cache_written", "i8", MEDIA, "Bytes ever written, monotonic; a packet never wraps around the end."),
        # reception, RFC 3550 appendix A
        Column("base", "i8", MEDIA, "First extended sequence."),
        Column("highest", "i8", MEDIA, "Highest extended sequence; < 0: none.", initial=-1),
        Column("received", "i8", MEDIA, "Packets received."),
        Column("bytes", "i8", MEDIA, "RTP payload and header."),
        Column("expected_prior", "i8", MEDIA, "Packets expected at the last report."),
        Column("received_prior", "i8", MEDIA, "Packets received at the last report."),
        Column("lost", "i8", MEDIA, "Packets lost, for the next report block."),
        Column("transit", "i8", MEDIA, "Last relative transit in clock ticks."),
        Column("jitter", "i8", MEDIA, "In 1/16 clock ticks."),
        Column("last_ns", "i8", MEDIA, "Arrival of the last packet."),
        Column("last_timestamp", "u4", MEDIA, "RTP timestamp of the last packet."),
        Column("frames", "i8", MEDIA, "Frames started."),
        # whether the layer lives: sfu/media/send/selection.py
        Column("frames_at_check", "i8", MEDIA, "`frames` at the last check."),
        Column("written_at_check", "i8", MEDIA, "`cache_written` at the last check."),
        Column("idle_frames", "i8", MEDIA, "Frames of siblings since this layer's last packet."),
        Column("silent_checks", "i4", MEDIA, "Checks since its last packet."),
        Column("frame_checks", "i4", MEDIA, "Checks since its last frame start."),
        Column(
            "usual_checks", "i4", MEDIA, "Quarters of a check that usually pass between frame starts; 0: not known."
        ),
        Column(
            "revived_frames", "i4", MEDIA, "Frames since it was found dead, or since its last long silence after that."
        ),
        Column("dead", "u1", MEDIA, "It lived and was found dead."),
        Column("bytes_at_check", "i8", MEDIA, "`bytes` at the last bit rate pass."),
        Column("bitrate_bps", "i8", MEDIA, "As measured last."),
        # what each spatial and temporal layer in it sends: sfu/media/allocation/measure.py
        Column(
            "layer_traffic",
            "i8",
            MEDIA,
            "Ever sent: packets << 40 | bytes.",
            shape=MEASURED_LAYERS,
            kept="`layer_checked` says what was there before",
        ),
        Column(
            "layer_checked",
            "i8",
            MEDIA,
            "`layer_traffic` at the last pass.",
            shape=MEASURED_LAYERS,
            kept="it is set when the stream opens",
        ),
        Column(
            "layer_bytes",
            "i4",
            MEDIA,
            "Mean per second; 0: none came yet, -1: not measured yet.",
            shape=MEASURED_LAYERS,
        ),
        Column("layer_packets", "i4", MEDIA, "Mean per second.", shape=MEASURED_LAYERS),
        Column("quiet_checks", "u1", MEDIA, "0: packets come; 1: none came just before a pass; 2: it has stopped."),
        Column("announced_bps", "i8", CONTROL, "What its publisher announced that it will take; 0: unknown."),
        Column(
            "target_kbps",
            "u2",
            MEDIA,
            "What its publisher means to send up to each layer; 0: unknown.",
            shape=MEASURED_LAYERS,
        ),
        Column("rate_told", "i8", MEDIA, "Sum of `layer_bytes` for which bandwidth was last shared out."),
        # sender reports from the publisher
        Column("report_ntp", "u8", MEDIA, "0: none yet."),
        Column("key_frame_retry_ns", "i8", CONTROL, "Between two requests for key frames; 0: KEY_FRAME_RETRY_NS."),
        # of audio, what its publisher is told of its subscribers: sfu/media/stream/subscriber_loss.py
        Column("subscriber_loss", "u1", MEDIA, "Largest fraction that one of them lost, in 256ths."),
        Column("subscriber_loss_before", "u1", MEDIA, "In the time before."),
        Column("subscriber_loss_ns", "i8", MEDIA, "Since when `subscriber_loss` counts; 0: none was reported."),
        Column("report_timestamp", "u4", MEDIA, "RTP timestamp of that report."),
        Column("report_ns", "i8", MEDIA, "Arrival."),
        # key frames
        Column(
            "key_sequence",
            "i8",
            MEDIA,
            "Extended sequence of the first packet of the last key frame; -1: none.",
            initial=-1,
        ),
        Column("key_ns", "i8", MEDIA, "Arrival of that packet."),
        Column("key_position", "i8", MEDIA, "Where that packet stands in its track's log."),
        Column(
            "key_frame_requested",
            "u1",
            MEDIA,
            "A key frame is requested, and none has come since.",
        ),
        Column(
            "pli_ns",
            "i8",
            MEDIA,
            "Last PLI sent, or request to the publisher's thread.",
        ),
        Column(
            "sets_sequence",
            "i8",
            MEDIA,
            "H.264: of the last packet with parameter sets; 0: the sender leaves them out.",
        ),
        # speech
        Column("level_loudest", "i4", MEDIA, "-dBov, smallest in the window (127 silence).", initial=127),
        Column("level_active_ms", "i4", MEDIA, "Milliseconds in the window that were loud enough."),
        Column("level_packets", "i4", MEDIA, "Packets in the window."),
        Column("level_smoothed", "f4", MEDIA, "0 to 1."),
        Column("level", "f4", MEDIA, "As `level_smoothed`, but 0 while nobody speaks; what signalling reads."),
        # what is missing
        Column("missing_count", "i4", MEDIA, "How many entries of `missing` are valid."),
        Column(
            "missing",
            missing_t,
            MEDIA,
            "Sequence numbers that are being asked for.",
            shape=MISSING,
            kept="`missing_count` says what is valid",
        ),
    ),
)
