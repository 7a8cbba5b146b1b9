"""What lies in the queues between threads."""

from sfu.schema.capacities import RX_BYTES, SLOW_BYTES
from sfu.schema.codes import Command
from sfu.schema.columns import CONTROL, ENDS, MEDIA, Column, RowType

COMMAND = RowType(
    "command",
    "What the control thread asks of the media thread.",
    (
        Column("kind", "u1", CONTROL, "Which `Command`; the columns after `generation` are of some commands only."),
        Column("relayed", "u1", CONTROL, "The transport stands for a publisher of another media thread."),
        Column("paused", "u1", CONTROL, "The subscriber wants nothing for now."),
        Column("silent", "u1", CONTROL, "Send silence until media come."),
        Column("layer", "u1", CONTROL, "Whose packet cache it is."),
        Column("thread", "u1", CONTROL, "Number of another media thread."),
        Column("row", "i4", CONTROL, "Of the table that the command is about."),
        Column("generation", "i4", CONTROL, "Of the row: the command is ignored when the row is another one by now."),
        Column("spatial", "i4", CONTROL, "Highest spatial layer that the subscriber prefers."),
        Column("temporal", "i4", CONTROL, "Highest temporal layer that the subscriber prefers."),
        Column("priority", "i4", CONTROL, "Of the subscription; 1 is the highest, 0: none."),
        Column("pixels", "i4", CONTROL, "Width times height that is shown; 0: not known."),
        Column("codecs", "u4", CONTROL, "New value of `codecs` of the track."),
        Column("other_row", "i4", CONTROL, "Of `media`, of `paths`, or of `tracks` of the other media thread."),
        Column("other_generation", "i4", CONTROL, "Of that row."),
        Column("cache_bytes", "u4", CONTROL, "Size of the new packet cache."),
        Column("cache_start", "u4", CONTROL, "Its offset into the arena."),
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
        Column("row", "i4", CONTROL, "Of the table that the notice is about; of a stream, its track's."),
        Column("generation", "i4", CONTROL, "Of that row."),
        Column("value", "i8", CONTROL, "Of a stream, its layer; else what changed."),
        Column("extra", "i8", CONTROL, "Of a stream, what changed."),
    ),
)
notice_t = NOTICE.dtype

SLOW = RowType(
    "slow",
    "A datagram for the control thread.",
    (
        Column("transport", "i4", MEDIA, "Whose it is."),
        Column("generation", "i4", MEDIA, "Of that row."),
        Column("size", "i4", MEDIA, "Bytes of `data`."),
        Column("path", "i4", MEDIA, "Path row by which it came."),
        Column("data", "u1", MEDIA, "As it came.", shape=SLOW_BYTES),
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
        Column("track", "i4", MEDIA, "Row at the receiving thread."),
        Column("generation", "i4", MEDIA, "Of that row."),
        Column("layer", "i4", MEDIA, "Of the track."),
        Column("fraction_lost", "i4", MEDIA, "Subscriber's loss: 0 to 255."),
        Column("size", "i4", MEDIA, "Packet: bytes of data."),
        Column("ssrc", "u4", MEDIA, "Packet: of the publisher's stream."),
        Column("timestamp", "u4", MEDIA, "Report: RTP timestamp."),
        Column("ntp", "u8", MEDIA, "Report: NTP time."),
        Column("sequence", "i8", MEDIA, "Packet: extended sequence number."),
        Column("arrival_ns", "i8", MEDIA, "Packet, report: when it came."),
        Column("data", "u1", MEDIA, "Packet: plaintext RTP.", shape=RX_BYTES),
    ),
)
relay_t = RELAY.dtype
