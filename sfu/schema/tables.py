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
    DROPS,
    FLUSHES,
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
        Column("queues", QUEUE, ROWS, "COMMAND_QUEUE and SLOW_QUEUE.", shape=2),
        Column("commands", COMMAND, ROWS, "Control thread -> media thread.", shape=COMMANDS),
        Column(
            "noticed", "u4", MEDIA, "How often a notice was given, by NOTICE_FIRST[kind] + row.", shape=NOTICE_SLOTS
        ),
        Column("noticed_blocks", "u4", MEDIA, "How often a notice of a block was given.", shape=NOTICE_BLOCKS),
        Column("taken", "u4", CONTROL, "What `noticed` said when the notice was last taken.", shape=NOTICE_SLOTS),
        Column("taken_blocks", "u4", CONTROL, "What `noticed_blocks` said then.", shape=NOTICE_BLOCKS),
        Column("next_block", "i4", CONTROL, "Block where taking goes on.", shape=1),
        Column("slow", SLOW, ROWS, "Datagrams for the control thread.", shape=SLOW_SLOTS),
        Column("sockets", SOCKET, ROWS, "UDP sockets.", shape=SOCKETS),
        Column("poll", pollfd_t, MEDIA, "What ppoll waits for: the sockets and wake_fd.", shape=SOCKETS + 1),
        Column(
            "scratch",
            "i8",
            MEDIA,
            "Words that system calls and libsrtp read and write, by `Scratch`.",
            shape=SCRATCH_WORDS,
        ),
        Column("header", HEADER, ROWS, "Of the RTP packet in hand.", shape=1),
        Column("incoming", PACKET, ROWS, "Its description, copied to `packets` when it is stored.", shape=1),
        Column("nothing", PACKET, ROWS, "Never written: a packet without header extensions.", shape=1),
        Column("symbols", "u1", MEDIA, "Transport-cc packet statuses of the feedback being written.", shape=ARRIVALS),
        Column("rx", "u1", MEDIA, "Received datagrams.", shape=(RX_SLOTS, RX_BYTES)),
        Column("rx_iov", iovec_t, CONTROL, "Where recvmmsg puts each.", shape=RX_SLOTS),
        Column("rx_messages", mmsghdr_t, MEDIA, "What recvmmsg takes and tells.", shape=RX_SLOTS),
        Column("rx_names", "u1", MEDIA, "Addresses of the senders.", shape=(RX_SLOTS, 28)),
        Column("rx_control", "u8", MEDIA, "Control messages: our address.", shape=(RX_SLOTS, RX_CONTROL_BYTES // 8)),
        Column("tx", "u1", MEDIA, "Datagrams to send.", shape=(TX_SLOTS, TX_BYTES)),
        Column("tx_path", "i4", MEDIA, "Path row of each.", shape=TX_SLOTS),
        Column("tx_size", "i4", MEDIA, "Bytes of each.", shape=TX_SLOTS),
        Column("tx_log", "i4", MEDIA, "Transport * SENT_PACKETS + place in its send log; -1: none.", shape=TX_SLOTS),
        Column("flush_ns", "i8", MEDIA, "When each flush began, by number & (FLUSHES - 1).", shape=FLUSHES),
        Column("tx_iov", iovec_t, MEDIA, "Where sendmmsg finds each.", shape=TX_SLOTS),
        Column("tx_messages", mmsghdr_t, MEDIA, "What sendmmsg takes: one or several datagrams each.", shape=TX_SLOTS),
        Column("tx_message_first", "i4", MEDIA, "First slot of each message.", shape=TX_SLOTS),
        Column("tx_control", "u8", MEDIA, "Control messages: our address.", shape=(TX_SLOTS, TX_CONTROL_BYTES // 8)),
        # hash tables: row + 1, 0 empty, -1 deleted
        Column("path_slots", "i4", MEDIA, "Hash table of paths: row + 1; 0: empty, -1: deleted.", shape=PATH_SLOTS),
        Column(
            "source_slots", "i4", MEDIA, "Hash table of sources: row + 1; 0: empty, -1: deleted.", shape=SOURCE_SLOTS
        ),
        Column("outgoing_slots", "i4", MEDIA, "Hash table: subscription * 2 + rtx + 1.", shape=OUTGOING_SLOTS),
        Column("ufrag_slots", "i4", MEDIA, "Hash table: transport * 2 + which + 1.", shape=UFRAG_SLOTS),
        Column("paths", PATH, ROWS, "Address pairs of all transports; the last row is STAGING_PATH.", shape=PATHS),
        Column("media", MEDIA_MAP, ROWS, "Negotiation results.", shape=MEDIA_PER_TRANSPORT * TRANSPORTS),
        Column("transports", TRANSPORT, ROWS, "Peers.", shape=TRANSPORTS),
        Column("arrivals", ARRIVAL_LOG, ROWS, "Transport-cc receive logs, by transport.", shape=TRANSPORTS),
        Column("estimates", ESTIMATE, ROWS, "What the path to each transport carries.", shape=TRANSPORTS),
        Column("send_logs", SEND_LOG, ROWS, "What left, by transport.", shape=TRANSPORTS),
        Column("statuses", "u1", MEDIA, "Transport-cc packet statuses of the feedback in hand.", shape=SENT_PACKETS),
        Column("sources", SOURCE, ROWS, "SSRCs that publishers send.", shape=SOURCES),
        Column("tracks", TRACK, ROWS, "Published m-sections.", shape=TRACKS),
        Column("streams", STREAM, ROWS, "Layers of tracks.", shape=STREAMS),
        Column("dependencies", DEPENDENCY, ROWS, "By stream; the last row is SCRATCH_DEPENDENCY.", shape=STREAMS + 1),
        Column("packets", PACKET, ROWS, "Of each stream, by sequence & (PACKETS - 1).", shape=(STREAMS, PACKETS)),
        Column("subscriptions", SUBSCRIPTION, ROWS, "Tracks forwarded to transports.", shape=SUBSCRIPTIONS),
        Column(
            "history",
            HISTORY_ENTRY,
            ROWS,
            "Packets that left, by `subscriptions.history`; the last row is SCRATCH_HISTORY.",
            shape=(SUBSCRIPTIONS + 1, HISTORY),
        ),
        Column("batch", ARRIVAL, ROWS, "Arrivals that egress is working on.", shape=BATCH),
        Column("demands", DEMAND, ROWS, "Of the transport whose bandwidth is being shared out.", shape=MAX_SHARED),
        Column(
            "targets",
            "i8",
            MEDIA,
            "Kbit/s of each layer of each stream of the allocation of video layers in hand.",
            shape=(TARGET_STREAMS, MEASURED_LAYERS),
        ),
        Column("groups", "i4", MEDIA, "First track of each group + 1; 0: none.", shape=GROUPS),
        Column("relays", QUEUE, ROWS, "Queues from other media threads, by sending thread.", shape=MAX_THREADS),
        Column("relay_entries", RELAY, ROWS, "What lies in them.", shape=(MAX_THREADS, RELAY_SLOTS)),
    ),
    layout=Layout.OWN_LINES,
)
state_t = STATE.dtype
