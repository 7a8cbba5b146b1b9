"""What is published: tracks and their layers."""

from sfu.parameters import MAX_THREADS
from sfu.schema.allocation_tables import MEASURED_LAYERS
from sfu.schema.capacities import LAYERS, MISSING, TRACK_LOG, TRACK_SWITCHES
from sfu.schema.columns import CONTROL, HANDED, MEDIA, Column, RowType

NOT_LISTED = -2
"""dirty_next of a track without unread arrivals."""

TRACK = RowType(
    "track",
    "One published m-section.",
    (
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("kind", "u1", CONTROL, "AUDIO or VIDEO."),
        Column("layer_count", "u1", CONTROL, "How many layers the track has."),
        Column("screen", "u1", CONTROL, "Whether the track is a shared screen."),
        Column(
            "codecs",
            "u4",
            HANDED,
            "Bit mask of the codecs that the m-section may carry; 0: all that the transport negotiated.",
        ),
        Column("generation", "i4", CONTROL, "Counts uses of the row."),
        Column("transport", "i4", CONTROL, "Transport row of the publisher."),
        Column("mid", "u1", CONTROL, "The m-section's mid, padded with zeros.", shape=16),
        Column("mid_bytes", "u1", CONTROL, "How many bytes of `mid` are used."),
        Column("streams", "i4", CONTROL, "Stream rows, lowest layer first; -1 beyond layer_count.", shape=LAYERS),
        Column("next", "i4", MEDIA, "Next track of the transport; -1: none.", initial=-1),
        Column(
            "first_subscription",
            "i4",
            MEDIA,
            "First subscription of the track, by `next_of_track`; -1: none.",
            initial=-1,
        ),
        Column("live", "u1", MEDIA, "Bit mask of the layers that packets come for."),
        Column(
            "dirty_next",
            "i4",
            MEDIA,
            "Next track with unread arrivals; -1: the last one, -2: the track has none.",
            initial=NOT_LISTED,
        ),
        Column(
            "log",
            "u4",
            MEDIA,
            "Layer << 16 | low 16 bits of the sequence number; written by ingress, read by egress.",
            shape=TRACK_LOG,
            kept="`log_written` and `log_read` say what is valid",
        ),
        Column("log_written", "i8", MEDIA, "Entries ever written to `log`."),
        Column("log_read", "i8", MEDIA, "Entries of `log` that egress has read."),
        Column("switch_request_ns", "i8", MEDIA, "When a key frame was last requested because bandwidth changed."),
        Column(
            "switches_ns",
            "i8",
            MEDIA,
            "When each of the last key frames was requested because of bandwidth, newest first; 0: never.",
            shape=TRACK_SWITCHES,
        ),
        Column(
            "resting",
            "u1",
            MEDIA,
            "Bit mask of layers that the publisher was told to stop because nobody prefers them, by command.",
        ),
        # audio of which only the loudest of a group is forwarded: sfu/media/stream/loudest.py
        Column("group", "i4", CONTROL, "Group of which only the loudest tracks are forwarded; 0: none."),
        Column("group_limit", "i4", CONTROL, "How many tracks of the group are forwarded."),
        Column("group_next", "i4", MEDIA, "Next track of the group; -1: none.", initial=-1),
        Column(
            "owner",
            "i4",
            CONTROL,
            "A number that all tracks of a publisher have and no other publisher's; 0: no publisher.",
        ),
        Column("loudness", "i4", MEDIA, "Smoothed loudness; the loudest tracks of a group are forwarded."),
        Column("level", "i4", MEDIA, "Audio level of the newest packet, in -dBov.", initial=127),
        Column("unmoved", "i4", MEDIA, "Packets in a row that had the level `level`."),
        Column("loud", "u1", MEDIA, "Whether the track is among those of its group that are forwarded."),
        Column("level_ns", "i8", MEDIA, "Arrival of the newest packet with an audio level."),
        # a track that has subscribers in other media threads has a mirror in each of them
        Column("mirrors", "i4", MEDIA, "How many media threads have a mirror of the track."),
        Column(
            "mirror",
            "i4",
            MEDIA,
            "Track row of the mirror in each media thread; -1: none.",
            shape=MAX_THREADS,
            initial=-1,
        ),
        Column(
            "mirror_generation",
            "i4",
            MEDIA,
            "Generation of the mirror's track row in each media thread.",
            shape=MAX_THREADS,
        ),
        Column(
            "source_thread",
            "i4",
            CONTROL,
            "For a mirror, the media thread of the publisher; -1: the track is no mirror.",
        ),
        Column("source_row", "i4", CONTROL, "For a mirror, the track row in the publisher's media thread."),
        Column("source_generation", "i4", CONTROL, "For a mirror, the generation of `source_row`."),
    ),
)
track_t = TRACK.dtype

MISSING_NUMBER = RowType(
    "missing",
    "One sequence number that is being asked for.",
    (
        Column("sequence", "i8", MEDIA, "Extended sequence number."),
        Column("noticed_ns", "i8", MEDIA, "When the gap was seen."),
        Column("asked_ns", "i8", MEDIA, "When the number was last asked for."),
        Column("tries", "i4", MEDIA, "How often the number was asked for."),
    ),
)
missing_t = MISSING_NUMBER.dtype

STREAM = RowType(
    "stream",
    "One layer of a track: one primary SSRC, its packet cache, its reception.",
    (
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("layer", "u1", CONTROL, "Number of the layer in its track; 0 is the lowest."),
        Column("kind", "u1", CONTROL, "AUDIO or VIDEO."),
        Column("codec", "u1", MEDIA, "Codec of the last packet's payload type."),
        Column("payload_type", "u1", MEDIA, "Payload type of the last packet."),
        Column("nack", "u1", MEDIA, "Whether NACK was negotiated for the payload type."),
        Column("codec_ns", "i8", MEDIA, "Arrival of the packet that last changed the codec; 0: none has."),
        Column("acknowledged", "u1", MEDIA, "Whether a report block was sent for the stream."),
        Column("track", "i4", CONTROL, "Track row that the layer belongs to."),
        Column("transport", "i4", CONTROL, "Transport row of the publisher."),
        Column("rid", "u1", CONTROL, "The layer's rid, padded with zeros.", shape=16),
        Column("rid_bytes", "u1", CONTROL, "How many bytes of `rid` are used."),
        Column("ssrc", "u4", HANDED, "SSRC of the source assigned to it; before that, the SSRC from SDP or 0."),
        Column("rtx_ssrc", "u4", HANDED, "SSRC of the RTX source assigned to it; before that, the SSRC from SDP or 0."),
        Column("clock_rate", "u4", MEDIA, "Clock rate of the payload type in Hz."),
        Column("announced", "u8", MEDIA, "What the last STREAM_STARTED said: SSRC | codec << 32 | payload type << 40."),
        Column("source", "i4", MEDIA, "Source row assigned to the stream; -1: none.", initial=-1),
        Column("rtx_source", "i4", MEDIA, "RTX source row assigned to the stream; -1: none.", initial=-1),
        Column(
            "sequence_shift",
            "i8",
            MEDIA,
            "Added to the extended number on the wire to get `sequence`; changes with the SSRC.",
        ),
        Column("cache_start", "i8", HANDED, "Offset of the packet cache into the arena."),
        Column("cache_bytes", "i8", HANDED, "Size of the packet cache in bytes, a power of two."),
        Column(
            "cache_oldest",
            "i8",
            MEDIA,
            "`cache_written` when the packet cache was last replaced: older packets are not in it.",
        ),
        Column("requested_bytes", "i8", MEDIA, "Bytes that the last CACHE_REQUESTED asked for."),
        Column("small_checks", "i4", MEDIA, "How often in a row the cache was found too large."),
        Column("peak_checks", "i4", MEDIA, "Checks since `peak_bytes` began anew."),
        Column(
            "peak_bytes", "i8", MEDIA, "The largest cache that was needed since `peak_checks` began anew, in bytes."
        ),
        Column("peak_before", "i8", MEDIA, "The largest cache that was needed in the period before, in bytes."),
        Column("burst_start", "i8", MEDIA, "`cache_written` at the beginning of the burst that is watched."),
        Column("burst_ns", "i8", MEDIA, "Arrival at the beginning of that burst."),
        Column("burst_requested", "i8", MEDIA, "Bytes that a burst has requested since the last check."),
        Column(
            "cache_written", "i8", MEDIA, "Bytes ever written to the packet cache; a packet never wraps around the end."
        ),
        # reception, RFC 3550 appendix A
        Column("base", "i8", MEDIA, "First extended sequence number received."),
        Column("highest", "i8", MEDIA, "Highest extended sequence number received; below 0: none.", initial=-1),
        Column("received", "i8", MEDIA, "Packets received."),
        Column("bytes", "i8", MEDIA, "RTP header and payload bytes received."),
        Column("expected_prior", "i8", MEDIA, "Packets expected at the last report."),
        Column("received_prior", "i8", MEDIA, "Packets received at the last report."),
        Column("lost", "i8", MEDIA, "Packets lost, for the next report block."),
        Column("transit", "i8", MEDIA, "Last relative transit in clock ticks."),
        Column("jitter", "i8", MEDIA, "Interarrival jitter in 1/16 clock ticks."),
        Column("last_ns", "i8", MEDIA, "Arrival of the last packet."),
        Column("last_timestamp", "u4", MEDIA, "RTP timestamp of the last packet."),
        Column("frames", "i8", MEDIA, "Frames that began so far."),
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
        Column("dead", "u1", MEDIA, "Whether the layer was live and then stopped."),
        Column("bytes_at_check", "i8", MEDIA, "`bytes` at the last bit rate pass."),
        Column("bitrate_bps", "i8", MEDIA, "Bit rate of the last pass, in bit/s."),
        # what each spatial and temporal layer in it sends: sfu/media/allocation/measure.py
        Column(
            "layer_traffic",
            "i8",
            MEDIA,
            "What each layer ever sent: packets << 40 | bytes.",
            shape=MEASURED_LAYERS,
            kept="`layer_checked` says what was there before",
        ),
        Column(
            "layer_checked",
            "i8",
            MEDIA,
            "`layer_traffic` at the last bit rate pass.",
            shape=MEASURED_LAYERS,
            kept="it is set when the stream opens",
        ),
        Column(
            "layer_bytes",
            "i4",
            MEDIA,
            "Mean bytes per second of each layer; 0: none came yet, -1: not measured yet.",
            shape=MEASURED_LAYERS,
        ),
        Column("layer_packets", "i4", MEDIA, "Mean packets per second of each layer.", shape=MEASURED_LAYERS),
        Column(
            "quiet_checks",
            "u1",
            MEDIA,
            "Bit rate passes without packets: 0 packets come, 1 none came, 2 the stream has stopped.",
        ),
        Column("announced_bps", "i8", CONTROL, "The bit rate that the publisher announced for the stream; 0: unknown."),
        Column(
            "target_kbps",
            "u2",
            MEDIA,
            "The bit rate that the publisher means to send up to each layer; 0: unknown.",
            shape=MEASURED_LAYERS,
        ),
        Column("rate_told", "i8", MEDIA, "Sum of `layer_bytes` for which bandwidth was last shared out."),
        # sender reports from the publisher
        Column("report_ntp", "u8", MEDIA, "NTP time of the publisher's last sender report; 0: none yet."),
        Column(
            "key_frame_retry_ns",
            "i8",
            CONTROL,
            "Least time between two requests for key frames; 0: KEY_FRAME_RETRY_NS.",
        ),
        # of audio, what its publisher is told of its subscribers: sfu/media/stream/subscriber_loss.py
        Column(
            "subscriber_loss",
            "u1",
            MEDIA,
            "For audio, the largest loss of a subscriber since `subscriber_loss_ns`, in 256ths.",
        ),
        Column("subscriber_loss_before", "u1", MEDIA, "`subscriber_loss` of the period before."),
        Column("subscriber_loss_ns", "i8", MEDIA, "Since when `subscriber_loss` counts; 0: none was reported."),
        Column(
            "subscriber_loss_told",
            "u1",
            MEDIA,
            "For a mirror, the subscriber loss that the publisher's thread was last told.",
        ),
        Column(
            "subscriber_loss_told_ns",
            "i8",
            MEDIA,
            "For a mirror, when the publisher's thread was last told of subscriber loss.",
        ),
        Column("report_timestamp", "u4", MEDIA, "RTP timestamp of the publisher's last sender report."),
        Column("report_ns", "i8", MEDIA, "Arrival of the publisher's last sender report."),
        # key frames
        Column(
            "key_sequence",
            "i8",
            MEDIA,
            "Extended sequence of the first packet of the last key frame; -1: none.",
            initial=-1,
        ),
        Column("key_ns", "i8", MEDIA, "Arrival of the first packet of the last key frame."),
        Column("key_position", "i8", MEDIA, "Position of the last key frame's first packet in the track's log."),
        Column(
            "key_frame_requested",
            "u1",
            MEDIA,
            "`KeyFrameRequest`: why a key frame is requested, of which none has come since.",
        ),
        Column(
            "pli_ns",
            "i8",
            MEDIA,
            "When the last PLI was sent, or the publisher's thread was last asked.",
        ),
        Column(
            "sets_sequence",
            "i8",
            MEDIA,
            "H.264: sequence of the last packet with parameter sets; 0: the sender leaves them out.",
        ),
        # speech
        Column(
            "level_loudest", "i4", MEDIA, "Loudest audio level in the window, in -dBov (127 is silence).", initial=127
        ),
        Column("level_active_ms", "i4", MEDIA, "Milliseconds in the window that were loud enough."),
        Column("level_packets", "i4", MEDIA, "Packets with an audio level in the window."),
        Column("level_smoothed", "f4", MEDIA, "Smoothed audio level, from 0 to 1."),
        Column("level", "f4", MEDIA, "`level_smoothed` while somebody speaks, else 0; what signalling reads."),
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
