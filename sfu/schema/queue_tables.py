"""What lies in the queues between threads."""

from sfu.schema.capacities import RX_BYTES, SLOW_BYTES
from sfu.schema.codes import Command
from sfu.schema.columns import CONTROL, ENDS, MEDIA, Column, RowType

COMMAND = RowType(
    "command",
    "What the control thread asks of the media thread.",
    (
        Column("kind", "u1", CONTROL, "Which `Command`; the columns after `generation` are of some commands only."),
        Column("relayed", "u1", CONTROL, "Whether the transport stands for a publisher of another media thread."),
        Column("paused", "u1", CONTROL, "Whether the subscriber pauses it."),
        Column("silent", "u1", CONTROL, "Whether silence is sent until media come."),
        Column("layer", "u1", CONTROL, "The layer of the track whose packet cache changes."),
        Column("layers", "u1", CONTROL, "New value of the track's `resting`."),
        Column("thread", "u1", CONTROL, "Number of another media thread."),
        Column("row", "i4", CONTROL, "Row of the transport, track or subscription that the command is about."),
        Column("generation", "i4", CONTROL, "Generation of `row`: a command for an earlier use of the row is ignored."),
        Column("spatial", "i4", CONTROL, "Highest spatial layer that the subscriber prefers."),
        Column("temporal", "i4", CONTROL, "Highest temporal layer that the subscriber prefers."),
        Column("priority", "i4", CONTROL, "Priority of the subscription; 1 is the highest, 0 means none."),
        Column("pixels", "i4", CONTROL, "Width times height at which the client shows the video; 0: unknown."),
        Column("codecs", "u4", CONTROL, "New value of the track's `codecs`."),
        Column("other_row", "i4", CONTROL, "A row of `media`, of `paths`, or of `tracks` in the other media thread."),
        Column("other_generation", "i4", CONTROL, "Generation of the track row in the other media thread."),
        Column("cache_bytes", "u4", CONTROL, "Size of the new packet cache in bytes."),
        Column("cache_start", "u4", CONTROL, "Offset of the new packet cache into the arena."),
        Column("srtp_in", "u8", CONTROL, "Address of the receiving srtp_t."),
        Column("srtp_out", "u8", CONTROL, "Address of the sending srtp_t."),
    ),
)
command_t = COMMAND.dtype
COMMAND_FIELDS = dict.fromkeys(Command, frozenset[str]()) | {
    Command.OPEN_TRANSPORT: frozenset(("relayed",)),
    Command.START_SRTP: frozenset(("srtp_in", "srtp_out")),
    Command.SET_MEDIA: frozenset(("other_row",)),
    Command.FOLLOW_PATH: frozenset(("other_row",)),
    Command.CHANGE_CACHE: frozenset(("layer", "cache_bytes", "cache_start")),
    Command.SET_CODECS: frozenset(("codecs",)),
    Command.SET_RESTING: frozenset(("layers",)),
    Command.ADD_MIRROR: frozenset(("thread", "other_row", "other_generation")),
    Command.REMOVE_MIRROR: frozenset(("thread",)),
    Command.OPEN_SUBSCRIPTION: frozenset(("paused", "silent", "spatial", "temporal", "priority", "pixels")),
    Command.SET_LAYERS: frozenset(("spatial", "temporal", "priority", "pixels")),
    Command.SET_PAUSED: frozenset(("paused",)),
}
"""What a command says beside its row and generation."""

NOTICE = RowType(
    "notice",
    "What the media thread tells of a row, as the control thread takes it.",
    (
        Column("kind", "i4", CONTROL, "Which `NoticeKind`."),
        Column("row", "i4", CONTROL, "Row that the notice is about; for a stream, the row of its track."),
        Column("generation", "i4", CONTROL, "Generation of `row`."),
        Column("value", "i8", CONTROL, "For a stream, its layer in the track; else what changed."),
        Column("extra", "i8", CONTROL, "For a stream, what changed; else 0."),
    ),
)
notice_t = NOTICE.dtype

SLOW = RowType(
    "slow",
    "A datagram for the control thread.",
    (
        Column("transport", "i4", MEDIA, "Transport row for which the datagram came."),
        Column("generation", "i4", MEDIA, "Generation of the transport row."),
        Column("size", "i4", MEDIA, "Bytes of `data`."),
        Column("path", "i4", MEDIA, "Path row by which the datagram came."),
        Column("data", "u1", MEDIA, "The datagram as it was received.", shape=SLOW_BYTES),
    ),
)
slow_t = SLOW.dtype

QUEUE = RowType(
    "queue",
    "How far a queue is written and read; the words of its two ends lie on cache lines of their own.",
    (
        Column("written", "i8", ENDS, "Entries ever written."),
        Column("dropped", "i8", ENDS, "Entries that found no room."),
        Column("_1", "u1", ENDS, "Unused.", shape=48),
        Column("read", "i8", ENDS, "Entries ever read."),
        Column("_2", "u1", ENDS, "Unused.", shape=56),
    ),
)

RELAY = RowType(
    "relay",
    "What one media thread tells another about a track that both have; written by the sender.",
    (
        Column("kind", "i4", MEDIA, "Which `Relayed`."),
        Column("track", "i4", MEDIA, "Track row in the receiving thread."),
        Column("generation", "i4", MEDIA, "Generation of the track row."),
        Column("layer", "i4", MEDIA, "Layer of the track that the entry is about."),
        Column("fraction_lost", "i4", MEDIA, "Subscriber loss: the largest fraction lost, from 0 to 255."),
        Column("size", "i4", MEDIA, "Packet: size of `data` in bytes."),
        Column("ssrc", "u4", MEDIA, "Packet: SSRC of the publisher's stream."),
        Column("timestamp", "u4", MEDIA, "Report: RTP timestamp of the publisher's sender report."),
        Column("ntp", "u8", MEDIA, "Report: NTP time of the publisher's sender report."),
        Column("sequence", "i8", MEDIA, "Packet: extended sequence number."),
        Column("arrival_ns", "i8", MEDIA, "Packet or report: when it came."),
        Column("data", "u1", MEDIA, "Packet: plaintext RTP.", shape=RX_BYTES),
    ),
)
relay_t = RELAY.dtype
