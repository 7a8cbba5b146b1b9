"""All state that a packet touches: one record of nested tables, one row per transport, stream, subscription, ...

Each media thread has a state of its own; only `relays` and `relay_entries` of it are written by the other ones.

Read this file first. A kernel takes `state` (one record of `state_t`) and `arena` (bytes of the packet caches) and
writes `state.transports[i].packets_in += 1`; Python reads and writes the same bytes through `Memory.table`. Every
column names its one writing thread (`columns.Writer`). Everything the control thread changes on an open row goes
through a command, and what the media thread has to say is a counter in `noticed` that moves on (`notices`).

Times are nanoseconds of CLOCK_MONOTONIC unless they say otherwise. Sizes are bytes. A row number of -1 means none.
"""

from sfu.parameters import GROUPS, MAX_THREADS
from sfu.schema.allocation_tables import DEMAND, MAX_SHARED, MEASURED_LAYERS, TARGET_STREAMS
from sfu.schema.capacities import (
    ARRIVALS,
    BATCH,
    COMMANDS,
    CONNECTIONS,
    DROPS,
    EPOLL_EVENTS,
    FLUSHES,
    FRAME_QUEUE_BYTES,
    FRAME_SLOTS,
    FRAMES_AT_ONCE,
    HALF_FRAME_BYTES,
    HISTORY,
    MEDIA_PER_TRANSPORT,
    NOTICE_BLOCKS,
    NOTICE_SLOTS,
    OUTGOING_SLOTS,
    PACKETS,
    PATH_SLOTS,
    PATHS,
    RELAY_SLOTS,
    RX_BYTES,
    RX_CONTROL_BYTES,
    RX_SLOTS,
    SCRATCH_WORDS,
    SENT_PACKETS,
    SLOW_SLOTS,
    SOCKETS,
    SOURCE_SLOTS,
    SOURCES,
    STREAM_BYTES,
    STREAMS,
    SUBSCRIPTIONS,
    TRACKS,
    TRANSPORTS,
    TX_BYTES,
    TX_CONTROL_BYTES,
    TX_SLOTS,
    UFRAG_SLOTS,
)
from sfu.schema.columns import CONTROL, MEDIA, ROWS, Column, RowType
from sfu.schema.connection_tables import CONNECTION, EVENT_WORDS, FRAME
from sfu.schema.estimate_tables import ESTIMATE
from sfu.schema.layout import Layout
from sfu.schema.packet_tables import DEPENDENCY, HEADER, PACKET
from sfu.schema.queue_tables import COMMAND, QUEUE, RELAY, SLOW
from sfu.schema.send_log_tables import SEND_LOG
from sfu.schema.subscription_tables import ARRIVAL, HISTORY_ENTRY, SUBSCRIPTION
from sfu.schema.thread_tables import SOCKET, THREAD, iovec_t, mmsghdr_t, pollfd_t
from sfu.schema.track_tables import STREAM, TRACK
from sfu.schema.transport_tables import ARRIVAL_LOG, MEDIA_MAP, PATH, SOURCE, TRANSPORT

STATE = RowType(
    "state",
    "Everything of one media thread: the tables, and where packets and messages lie while they are worked on.",
    (
        Column("thread", THREAD, ROWS, "The media thread itself.", shape=1),
        Column("drops", "i8", MEDIA, "How much was dropped, by `Drop`.", shape=DROPS),
        Column("queues", QUEUE, ROWS, "Counters of COMMAND_QUEUE, SLOW_QUEUE and FRAME_QUEUE.", shape=3),
        Column(
            "commands",
            COMMAND,
            ROWS,
            "Commands of the control thread to the media thread, by place in COMMAND_QUEUE.",
            shape=COMMANDS,
        ),
        Column(
            "noticed", "u4", MEDIA, "How often a notice was given, by NOTICE_FIRST[kind] + row.", shape=NOTICE_SLOTS
        ),
        Column("noticed_blocks", "u4", MEDIA, "How often a notice of a block was given.", shape=NOTICE_BLOCKS),
        Column("taken", "u4", CONTROL, "What `noticed` said when the notice was last taken.", shape=NOTICE_SLOTS),
        Column(
            "taken_blocks",
            "u4",
            CONTROL,
            "What `noticed_blocks` said when notices of the block were last taken.",
            shape=NOTICE_BLOCKS,
        ),
        Column("next_block", "i4", CONTROL, "The block of notices at which the control thread goes on.", shape=1),
        Column("slow", SLOW, ROWS, "Datagrams for the control thread, by place in SLOW_QUEUE.", shape=SLOW_SLOTS),
        Column("sockets", SOCKET, ROWS, "The UDP sockets of this media thread.", shape=SOCKETS),
        Column("poll", pollfd_t, MEDIA, "What ppoll waits for: the sockets, wake_fd and epoll_fd.", shape=SOCKETS + 2),
        Column(
            "scratch",
            "i8",
            MEDIA,
            "Words that system calls and libsrtp read and write, by `Scratch`.",
            shape=SCRATCH_WORDS,
        ),
        Column("header", HEADER, ROWS, "What only ingress needs of the RTP packet in hand.", shape=1),
        Column(
            "incoming",
            PACKET,
            ROWS,
            "Description of the RTP packet in hand, copied to `packets` when the packet is stored.",
            shape=1,
        ),
        Column("nothing", PACKET, ROWS, "A packet without header extensions, which is never written.", shape=1),
        Column("symbols", "u1", MEDIA, "Transport-cc packet statuses of the feedback being written.", shape=ARRIVALS),
        Column("rx", "u1", MEDIA, "Received datagrams.", shape=(RX_SLOTS, RX_BYTES)),
        Column("rx_iov", iovec_t, CONTROL, "Where recvmmsg puts each datagram of `rx`.", shape=RX_SLOTS),
        Column(
            "rx_messages",
            mmsghdr_t,
            MEDIA,
            "Arguments and results of recvmmsg, one message for each datagram of `rx`.",
            shape=RX_SLOTS,
        ),
        Column("rx_names", "u1", MEDIA, "Addresses of the senders of the datagrams in `rx`.", shape=(RX_SLOTS, 28)),
        Column(
            "rx_control",
            "u8",
            MEDIA,
            "Control messages of recvmmsg: which of our addresses each datagram was sent to.",
            shape=(RX_SLOTS, RX_CONTROL_BYTES // 8),
        ),
        Column("tx", "u1", MEDIA, "Datagrams to send.", shape=(TX_SLOTS, TX_BYTES)),
        Column("tx_path", "i4", MEDIA, "Path row over which each datagram of `tx` leaves.", shape=TX_SLOTS),
        Column("tx_size", "i4", MEDIA, "Size of each datagram of `tx` in bytes.", shape=TX_SLOTS),
        Column(
            "tx_log",
            "i4",
            MEDIA,
            "For each datagram of `tx`: transport * SENT_PACKETS + place in its send log; -1: not logged.",
            shape=TX_SLOTS,
        ),
        Column("flush_ns", "i8", MEDIA, "When each flush began, by number & (FLUSHES - 1).", shape=FLUSHES),
        Column("tx_iov", iovec_t, MEDIA, "Where sendmmsg finds each datagram of `tx`.", shape=TX_SLOTS),
        Column(
            "tx_messages",
            mmsghdr_t,
            MEDIA,
            "Arguments of sendmmsg: each message is one datagram or a run of them.",
            shape=TX_SLOTS,
        ),
        Column(
            "tx_message_first",
            "i4",
            MEDIA,
            "The slot of `tx` at which each message of `tx_messages` begins.",
            shape=TX_SLOTS,
        ),
        Column(
            "tx_control",
            "u8",
            MEDIA,
            "Control messages of sendmmsg: from which of our addresses each message leaves.",
            shape=(TX_SLOTS, TX_CONTROL_BYTES // 8),
        ),
        # hash tables: row + 1, 0 empty, -1 deleted
        Column("path_slots", "i4", MEDIA, "Hash table of paths: row + 1; 0: empty, -1: deleted.", shape=PATH_SLOTS),
        Column(
            "source_slots", "i4", MEDIA, "Hash table of sources: row + 1; 0: empty, -1: deleted.", shape=SOURCE_SLOTS
        ),
        Column(
            "outgoing_slots",
            "i4",
            MEDIA,
            "Hash table of outgoing SSRCs: subscription * 2 + rtx + 1; 0: empty, -1: deleted.",
            shape=OUTGOING_SLOTS,
        ),
        Column(
            "ufrag_slots",
            "i4",
            MEDIA,
            "Hash table of local ufrags: transport * 2 + which + 1; 0: empty, -1: deleted.",
            shape=UFRAG_SLOTS,
        ),
        Column("paths", PATH, ROWS, "Address pairs of all transports; the last row is STAGING_PATH.", shape=PATHS),
        Column(
            "media",
            MEDIA_MAP,
            ROWS,
            "Results of SDP negotiations, MEDIA_PER_TRANSPORT for each transport.",
            shape=MEDIA_PER_TRANSPORT * TRANSPORTS,
        ),
        Column("transports", TRANSPORT, ROWS, "Peer connections, one row each.", shape=TRANSPORTS),
        Column("arrivals", ARRIVAL_LOG, ROWS, "Transport-cc receive logs, by transport.", shape=TRANSPORTS),
        Column("estimates", ESTIMATE, ROWS, "Bandwidth estimates, by transport.", shape=TRANSPORTS),
        Column("send_logs", SEND_LOG, ROWS, "What was sent to each transport, by transport.", shape=TRANSPORTS),
        Column("statuses", "u1", MEDIA, "Transport-cc packet statuses of the feedback in hand.", shape=SENT_PACKETS),
        Column("sources", SOURCE, ROWS, "SSRCs that publishers send.", shape=SOURCES),
        Column("tracks", TRACK, ROWS, "Published m-sections.", shape=TRACKS),
        Column("streams", STREAM, ROWS, "Layers of tracks.", shape=STREAMS),
        Column(
            "dependencies",
            DEPENDENCY,
            ROWS,
            "Dependency descriptor structures, by stream; the last row is SCRATCH_DEPENDENCY.",
            shape=STREAMS + 1,
        ),
        Column(
            "packets",
            PACKET,
            ROWS,
            "Stored packets of each stream, by sequence & (PACKETS - 1).",
            shape=(STREAMS, PACKETS),
        ),
        Column("subscriptions", SUBSCRIPTION, ROWS, "Tracks forwarded to transports.", shape=SUBSCRIPTIONS),
        Column(
            "history",
            HISTORY_ENTRY,
            ROWS,
            "Packets that left, by `subscriptions.history`; the last row is SCRATCH_HISTORY.",
            shape=(SUBSCRIPTIONS + 1, HISTORY),
        ),
        Column("batch", ARRIVAL, ROWS, "Arrivals that egress is working on.", shape=BATCH),
        Column(
            "demands",
            DEMAND,
            ROWS,
            "Video subscriptions of the transport whose bandwidth is being shared out.",
            shape=MAX_SHARED,
        ),
        Column(
            "targets",
            "i8",
            MEDIA,
            "Kbit/s of each layer of each stream that the video layers allocation in hand names.",
            shape=(TARGET_STREAMS, MEASURED_LAYERS),
        ),
        # TCP
        Column("connections", CONNECTION, ROWS, "TCP connections over which paths go.", shape=CONNECTIONS),
        Column("frames", FRAME, ROWS, "Datagrams of the control thread, by place in FRAME_QUEUE.", shape=FRAME_SLOTS),
        Column(
            "epoll_events",
            "u4",
            MEDIA,
            "What epoll_wait tells, EVENT_WORDS of each: which connections can be read or written.",
            shape=EPOLL_EVENTS * EVENT_WORDS,
        ),
        Column("stream", "u1", MEDIA, "Bytes just read from a TCP connection.", shape=STREAM_BYTES),
        Column(
            "half_frames",
            "u1",
            MEDIA,
            "The beginning of a frame whose rest has not come, by connection.",
            shape=(CONNECTIONS, HALF_FRAME_BYTES),
        ),
        Column(
            "frame_queues",
            "u1",
            MEDIA,
            "Frames that have not left, by connection, as `sfu.media.net.frame_queue` lays them out.",
            shape=(CONNECTIONS, FRAME_QUEUE_BYTES),
        ),
        Column("frame_iov", iovec_t, MEDIA, "Where sendmmsg finds each frame.", shape=FRAMES_AT_ONCE),
        Column("frame_message", mmsghdr_t, MEDIA, "Argument of sendmmsg: the frames of `frame_iov`.", shape=1),
        Column("groups", "i4", MEDIA, "First track of each group + 1; 0: none.", shape=GROUPS),
        Column("relays", QUEUE, ROWS, "Queues from other media threads, by sending thread.", shape=MAX_THREADS),
        Column(
            "relay_entries",
            RELAY,
            ROWS,
            "Entries of the queues in `relays`, by sending thread.",
            shape=(MAX_THREADS, RELAY_SLOTS),
        ),
    ),
    layout=Layout.OWN_LINES,
)
state_t = STATE.dtype
