"""Numbers with a meaning: what kernels compare and count, and Python names in logs and statistics.

A kernel takes a member as the constant that it is. A number that goes the other way, out of a column, is an `int`.
"""

from enum import IntEnum


class RowState(IntEnum):
    """Whether a row is in use by the media thread, which writes it."""

    FREE = 0
    OPEN = 1


class MediaKind(IntEnum):
    """What a track carries."""

    AUDIO = 0
    VIDEO = 1


class PathKind(IntEnum):
    """How packets go over a path."""

    UDP = 0
    """As datagrams over a row of `sockets`."""
    TCP = 1
    """In frames (RFC 4571) over a row of `connections`."""


class Command(IntEnum):
    """What the control thread asks of the media thread, with the fields of `COMMAND_FIELDS`.

    Those of transports come first, then those of tracks, then those of subscriptions, then those of TCP connections.
    """

    OPEN_TRANSPORT = 1
    START_SRTP = 2
    """cipher, salt and salt_end are written before it."""
    NEW_CREDENTIALS = 3
    """next_ufrag and next_password are written before it."""
    SET_MEDIA = 4
    """Another row of `media` is in force."""
    FOLLOW_PATH = 5
    """DTLS came over a path that was authentic and newer than all before."""
    CLOSE_TRANSPORT = 6
    OPEN_TRACK = 7
    CLOSE_TRACK = 8
    REQUEST_KEY_FRAME = 9
    CHANGE_CACHE = 10
    SET_CODECS = 11
    SET_RESTING = 12
    ADD_MIRROR = 13
    REMOVE_MIRROR = 14
    OPEN_SUBSCRIPTION = 15
    CLOSE_SUBSCRIPTION = 16
    SET_LAYERS = 17
    SET_PAUSED = 18
    OPEN_CONNECTION = 19
    """Read and write a TCP connection whose first frame has come. Nothing else closes it from the control thread."""


class NoticeKind(IntEnum):
    """What the media thread tells the control thread of a row: one counter each in `noticed`.

    Those of subscriptions come first, then those of streams, of tracks, of transports, of TCP connections.
    """

    SUBSCRIPTION_STARTED = 0
    """The subscription's first packet was sent."""
    ALLOWANCE_CHANGED = 1
    """The subscription was paused for lack of bandwidth, or goes on."""
    CLOSED_SUBSCRIPTION = 2
    """The subscription's row is the control thread's again."""
    STREAM_STARTED = 3
    """A source was assigned to the stream, see `announced`."""
    CACHE_REQUESTED = 4
    """The stream's packet cache should have `requested_bytes`."""
    CACHE_LEFT = 5
    """The stream uses the packet cache of the last CHANGE_CACHE, and no longer the one before."""
    LAYERS_CHANGED = 6
    """`live` of the track changed."""
    CLOSED_TRACK = 7
    """The rows of the track and its streams are the control thread's again."""
    PATH_SELECTED = 8
    """`path` of the transport changed."""
    CONSENT_EXPIRED = 9
    """No valid check for CONSENT_TIMEOUT_NS."""
    TRANSPORT_BROKEN = 10
    """An exception in a kernel while a packet of the transport was in hand."""
    CLOSED_TRANSPORT = 11
    """The transport's row is the control thread's again, and its SRTP sessions may be freed."""
    CLOSED_CONNECTION = 12
    """The connection's row is the control thread's again, and its descriptor may be closed."""


class Consent(IntEnum):
    """Whether a transport's peer consents to be sent to (RFC 7675)."""

    NONE = 0
    """No valid check came yet."""
    RUNNING = 1
    EXPIRED = 2
    """The notice CONSENT_EXPIRED was given."""


class Scratch(IntEnum):
    """Words of `scratch`, each for one use; where a use takes several, its first."""

    LENGTH = 0
    """Where libsrtp reads and writes a length."""
    INITIALISATION_VECTOR = 2
    """Two words, where OpenSSL reads 12 bytes."""
    TIME = 4
    """Two words: what clock_gettime writes."""
    TIMEOUT = 6
    """Two words: how long ppoll may wait."""
    EVENT = 8
    """What is written to and read from our eventfds."""
    THEIR_EVENT = 9
    """What is written to another media thread's eventfd."""
    DIGEST = 10
    """Three words: an HMAC-SHA1."""
    EPOLL = 13
    """Two words: what epoll_ctl reads."""


class Drop(IntEnum):
    """Why something was dropped: index into `drops`. The names, in lower case, are those of the statistics."""

    GARBAGE = 0
    TRUNCATED = 1
    UNKNOWN_ADDRESS = 2
    STUN_MALFORMED = 3
    STUN_UNKNOWN_UFRAG = 4
    STUN_INTEGRITY = 5
    STUN_PATHS_FULL = 6
    STUN_ADDRESS_TAKEN = 7
    DTLS_QUEUE_FULL = 8
    DTLS_QUOTA = 9
    NOT_READY = 10
    SRTP_AUTH = 11
    SRTP_REPLAY = 12
    SRTCP = 13
    RTP_MALFORMED = 14
    UNKNOWN_PAYLOAD_TYPE = 15
    UNASSIGNED_SSRC = 16
    UNASSIGNED_FULL = 17
    DUPLICATE = 18
    TOO_OLD = 19
    RTCP_MALFORMED = 20
    SEND_FAILED = 21
    PROTECT_FAILED = 22
    RTX_EMPTY = 23
    RTX_UNKNOWN = 24
    TOO_LARGE = 25
    SOURCES_FULL = 26
    NACK_UNKNOWN = 27
    FOREIGN_SSRC = 28
    RELAY_FULL = 29
    RELAY_STALE = 30
    CODEC_CHANGED = 31
    FEEDBACK_UNKNOWN = 32
    REPAIR_SHARE = 33
    ALLOCATION_FULL = 34
    PACER_TEMPORAL = 35
    PACER_OLD = 36
    PACER_OVERTAKEN = 37
    PACER_REPAIR = 38
    LOG_OVERWRITTEN = 39
    TCP_UNPROVEN = 40
    TCP_FRAME_TOO_LONG = 41
    TCP_QUEUE_FULL = 42


class SentState(IntEnum):
    """What is known of a numbered packet that was queued."""

    SENT = 0
    UNSENT = 1
    """The socket refused it: nobody lost it."""
    RECEIVED = 2
    LOST = 3
    """The newest feedback about it says that it did not arrive."""


class Relayed(IntEnum):
    """What a media thread tells another about a track that both have."""

    PACKET = 1
    REPORT = 2
    KEY_FRAME_REQUEST = 3
    SUBSCRIBER_LOSS = 4
    SWITCH_DOWN_REQUEST = 5
    """A key frame, as `KeyFrameRequest.SWITCH_DOWN`."""
    SWITCH_UP_REQUEST = 6
    """A key frame, as `KeyFrameRequest.SWITCH_UP`."""


class KeyFrameRequest(IntEnum):
    """Why a key frame of a stream is requested."""

    NONE = 0
    NEEDED = 1
    """Somebody begins with it or cannot go on without it, or its track's thread has granted a switch."""
    SWITCH_DOWN = 2
    """For a mirror: a viewer's bandwidth takes a lower layer. The thread that has the publisher decides."""
    SWITCH_UP = 3
    """For a mirror: a viewer's bandwidth permits a higher layer. The thread that has the publisher decides."""
    ORDERED = 4
    """The control thread asked for it, whether anybody is to be sent it or not."""


class PacketFlag(IntEnum):
    """Bits of `packets.flags`."""

    KEY_FRAME = 1
    """The packet belongs to a key frame (simulcast) or to a frame with which a receiver can start (SVC: base of it)."""
    FRAME_START = 2
    FRAME_END = 4
    """Last packet of the frame (of the spatial layer, with SVC)."""
    SWITCH_UP = 8
    """A receiver of lower temporal layers may go up to this packet's one here (VP8 Y, VP9 U, DD switch indication)."""
    STRUCTURE = 16
    """A dependency descriptor with a template structure is attached."""
    NOT_REFERENCE = 32
    """Nothing depends on the frame (VP8 N)."""
    RESTORED = 64
    """Not received itself: made from the redundancy of a later packet (RED)."""
