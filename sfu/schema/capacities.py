"""How many rows, slots and bytes there are: part of the types, so changing one compiles the kernels again."""

TRANSPORTS = 4096
PATHS_PER_TRANSPORT = 8
PATHS = TRANSPORTS * PATHS_PER_TRANSPORT + 1
"""Every transport can have all of its paths, whatever the others do; one more row is for staging."""
TRACKS = 4096
"""One published m-section each."""
STREAMS = 4096
"""Layers of tracks: one primary SSRC each."""
SUBSCRIPTIONS = 65_536
PACKETS = 512
"""Index entries per stream: how far back a packet can be asked for. At 300 packets/s that is 1.7 s."""
PAST_WORDS = PACKETS // 64
"""Words in which a subscription remembers numbers so far back (`sfu.media.wire.windows`)."""
HISTORY = 512
"""Remembered outgoing packets per subscription with retransmission."""
SCRATCH_HISTORY = SUBSCRIPTIONS
"""Row of `history` for all subscriptions without: a packet is described there only while it is written."""
TRACK_LOG = 512
"""Arrivals of a track that egress has not read yet; the loop drains it at least every RX_SLOTS packets."""
BATCH = 64
"""Arrivals of one track that egress forwards subscriber by subscriber in one go."""
LAYERS = 3
TRACK_SWITCHES, VIEWER_SWITCHES = 6, 3
"""Requests for key frames because of bandwidth that a track, and a viewer of it, remember."""
MISSING = 128
"""Sequence numbers of a stream that are being asked for; a larger gap asks for a key frame."""
ARRIVALS = 512
"""Transport-cc arrivals between two feedback packets."""
SENT_PACKETS = 1024
"""Numbered packets of a transport that feedback can still be about: a second of 1,000 packets/s."""
FLUSHES = 1 << 16
"""Flushes whose times are remembered: more than any packet of `SENT_PACKETS` waits for its feedback."""
TEMPLATES = 64
DECODE_TARGETS = 32
SCRATCH_DEPENDENCY = STREAMS
"""Row of `dependencies` into which a structure is parsed before it is believed."""
MAX_SPATIAL_ID, MAX_TEMPORAL_ID = 3, 7
"""Highest layers that a dependency descriptor can name."""
EXTENSION_IDS = 256
COPIED = 7
"""Extension kinds 1 to 6 are copied from publisher to subscriber (see parameters.Extension)."""
EXTENSION_KINDS = 13
VOICES = 3
"""Microphones that a subscriber is sent whose path does not carry more."""
MEDIA_PER_TRANSPORT = 4
"""Negotiation results take turns in rows 4 * transport to 4 * transport + 3, so the one in use is never written."""

PATH_SLOTS = 4 * TRANSPORTS * PATHS_PER_TRANSPORT
SOURCE_SLOTS = 65_536
OUTGOING_SLOTS = 4 * SUBSCRIPTIONS
UFRAG_SLOTS = 4 * TRANSPORTS
SOURCES = 16_384
"""SSRCs that publishers send, RTX ones included."""
STAGING_PATH = PATHS - 1
"""Not handed out: holds the address pair of the STUN message being worked on, before it is known whose it is."""
UNASSIGNED_PER_TRANSPORT = 64
MAX_UNASSIGNED = SOURCES // 2
"""Sources without a stream, of all transports together; the other half is for those that have one."""
CROWDED_UNASSIGNED = MAX_UNASSIGNED // TRANSPORTS
"""How many of them a transport may have when there are so many."""
RTCP_SENDERS = 8
"""SSRCs per transport that send RTCP and no RTP; libsrtp forgets older ones, so its list stays short."""

RX_SLOTS = 64
RX_BYTES = 2048
RX_CONTROL_BYTES = 128
TX_SLOTS = 256
TX_BYTES = 2048
TX_CONTROL_BYTES = 64
SOCKETS = 16
SLOW_SLOTS = 4096
SLOW_BYTES = 2000
SLOW_PER_TRANSPORT = 1024
"""Datagrams of one transport that wait for the control thread, in the queue and beside it. The SCTP window that is
announced follows from it (`association.WINDOW_BYTES`)."""
CROWDED_SLOW, CROWDED_SLOW_PER_TRANSPORT = SLOW_SLOTS // 4 * 3, 16
"""With so many datagrams in the queue, a transport may have so few of them: handshakes go on when others flood it."""
COMMANDS = 16_384
CONNECTIONS = 4096
"""TCP connections of one media thread over which paths go. A transport has at most PATHS_PER_TRANSPORT of them."""
FRAME_QUEUE_BYTES = 1 << 16
"""Frames that have not left over one TCP connection: more than the packets that leave for a client at once. A page
costs memory when it is first written, and none any more when the connection ends."""
FRAMES_AT_ONCE = 64
"""Frames that are handed to the operating system at once."""
HALF_FRAME_BYTES = RX_BYTES + 2
STREAM_BYTES = 1 << 14
"""What is read from one TCP connection at once, with what came before of an unfinished frame."""
EPOLL_EVENTS = 32
"""TCP connections that are served in one turn; the next turn goes on with others."""
FRAME_SLOTS = 512
"""Datagrams of the control thread for TCP connections, which the media thread takes in its next turn."""
RELAY_SLOTS = 512
"""Packets on their way from one media thread to another; a thread that is so far behind loses the newest."""

ARENA_BYTES = 1 << 30
"""Address space for packet caches; a page costs memory when it is first written."""
CACHE_BYTES = {"audio": 1 << 14, "low": 1 << 16, "mid": 1 << 17, "high": 1 << 18}
"""What a stream begins with; its bit rate decides what it gets (`cache_size`)."""
MIN_CACHE_BYTES, MAX_CACHE_BYTES = 1 << 13, 1 << 21

SEQUENCE_START = 1 << 16
"""Extended sequence numbers count from here, so that they never go below zero when packets come late."""

SCRATCH_WORDS = 16
"""More than `Scratch` names."""

DROPS = 64
"""Counters of `drops`; `Drop` has fewer reasons."""

COMMAND_QUEUE, SLOW_QUEUE, FRAME_QUEUE = 0, 1, 2
"""Rows of `queues`."""

NOTICE_ROWS = (*3 * (SUBSCRIPTIONS,), *3 * (STREAMS,), *2 * (TRACKS,), *4 * (TRANSPORTS,), CONNECTIONS)
"""Rows that can have a notice, by `NoticeKind`."""
NOTICE_FIRST = tuple(sum(NOTICE_ROWS[:kind]) for kind in range(len(NOTICE_ROWS)))
"""Place of row 0's counter in `noticed`, by `NoticeKind`."""
NOTICE_SLOTS = sum(NOTICE_ROWS)
NOTICE_BLOCK = 256
"""Counters that have a common one in `noticed_blocks`, so that few are looked at; divides the rows of all kinds."""
NOTICE_BLOCKS = NOTICE_SLOTS // NOTICE_BLOCK
