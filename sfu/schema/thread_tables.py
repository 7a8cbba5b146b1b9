"""The media thread itself, and what it and the operating system exchange."""

import numpy as np

from sfu.parameters import MAX_THREADS
from sfu.schema.columns import CONTROL, MEDIA, Column, RowType

FORWARDING_DELAYS_NS = (
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
)
"""Bounds of the histogram of forwarding delays."""
DELAY_BUCKETS = len(FORWARDING_DELAYS_NS) + 1

THREAD = RowType(
    "thread",
    "The media thread itself.",
    (
        Column("stop", "u4", CONTROL, "Whether the media loop is to end."),
        Column("idle", "u4", MEDIA, "Whether the media thread is about to wait."),
        Column("turns", "i8", MEDIA, "Passes of the media loop so far."),
        Column("now_ns", "i8", MEDIA, "CLOCK_MONOTONIC at the beginning of this turn."),
        Column("wall_offset_ns", "i8", MEDIA, "CLOCK_REALTIME minus CLOCK_MONOTONIC."),
        Column("wake_fd", "i4", CONTROL, "Eventfd with which the control thread wakes the media thread."),
        Column("control_fd", "i4", CONTROL, "Eventfd with which the media thread wakes the control thread."),
        Column(
            "notify",
            "u4",
            MEDIA,
            "A notice was given or a datagram put into slow: write control_fd at the end of the turn.",
        ),
        Column("notices", "i8", MEDIA, "Notices given so far."),
        Column(
            "unlimited", "u4", CONTROL, "Whether subscribers are sent what they prefer, whatever their paths carry."
        ),
        Column("loss_proxying", "u4", CONTROL, "Whether publishers of audio are told what their subscribers lose."),
        Column("socket_count", "i4", CONTROL, "How many rows of `sockets` are used."),
        Column("open_transports", "i4", MEDIA, "How many transports are open."),
        Column("open_connections", "i4", MEDIA, "How many TCP connections are open."),
        Column("epoll_fd", "i4", CONTROL, "Epoll descriptor of the TCP connections."),
        Column("row_in_hand", "i4", MEDIA, "Transport that is being worked for; -1: none.", initial=-1),
        Column(
            "path_in_hand",
            "i4",
            MEDIA,
            "Path of the packet in hand, or one that shares its address; -1: none.",
            initial=-1,
        ),
        Column("relay_in_hand", "i4", MEDIA, "Media thread whose relayed entry is being taken; -1: none.", initial=-1),
        Column(
            "first_dirty_track", "i4", MEDIA, "First track with unread arrivals, by `dirty_next`; -1: none.", initial=-1
        ),
        Column("first_due", "i4", MEDIA, "First transport whose bandwidth is to be shared out; -1: none.", initial=-1),
        Column(
            "last_due",
            "i4",
            MEDIA,
            "Last transport whose bandwidth is to be shared out; valid while `first_due` is not -1.",
        ),
        Column("first_silent", "i4", MEDIA, "First subscription with silent_packets, + 1; 0: none."),
        Column("silence_turn", "i4", MEDIA, "Passes of silence_pass so far."),
        Column(
            "transport_end",
            "i4",
            MEDIA,
            "One more than the highest row of `transports` ever opened; passes stop there.",
        ),
        Column("track_end", "i4", MEDIA, "One more than the highest row of `tracks` ever opened."),
        Column("stream_end", "i4", MEDIA, "One more than the highest row of `streams` ever opened."),
        Column("subscription_end", "i4", MEDIA, "One more than the highest row of `subscriptions` ever opened."),
        Column("free_path", "i4", MEDIA, "First free row of `paths`, by `next`; -1: none."),
        Column("free_source", "i4", MEDIA, "First free row of `sources`, by `next`; -1: none."),
        Column("unassigned", "i4", MEDIA, "Sources that are assigned to no stream, of all transports."),
        Column("segment_offload", "u1", CONTROL, "Whether the operating system takes UDP_SEGMENT."),
        Column("tx_count", "i4", MEDIA, "Slots of `tx` filled since the last flush."),
        Column("numbered", "u1", MEDIA, "Whether the packet just written carries a transport-wide number."),
        Column("copy", "u4", MEDIA, "What `send_logs.copies` is to say of the packet just written."),
        Column(
            "clock_runs",
            "u1",
            MEDIA,
            "Whether the media loop runs; if not, all that is done in a turn happens at `now_ns`.",
        ),
        Column("flushes", "i8", MEDIA, "How often queued packets were sent; the number of the next flush."),
        Column("send_time", "u4", MEDIA, "The abs-send-time that egress writes into packets now."),
        Column("messages_sent", "i8", MEDIA, "Datagrams, or runs of them, that the operating system took."),
        Column("packets_sent", "i8", MEDIA, "Datagrams sent."),
        # what peers sent, and feedback: for metrics
        Column("packets_received", "i8", MEDIA, "Authentic SRTP and SRTCP datagrams received."),
        Column(
            "bytes_received",
            "i8",
            MEDIA,
            "Bytes of authentic SRTP and SRTCP datagrams received, without the headers of UDP and IP.",
        ),
        Column("retransmissions_received", "i8", MEDIA, "RTX packets received, padding included."),
        Column(
            "retransmission_bytes_received", "i8", MEDIA, "RTP header and payload bytes of the RTX packets received."
        ),
        Column("nacks_received", "i8", MEDIA, "Packets that subscribers asked for again."),
        Column("plis_received", "i8", MEDIA, "Picture loss indications from subscribers."),
        Column("firs_received", "i8", MEDIA, "Full intra requests from subscribers."),
        Column("nacks_sent", "i8", MEDIA, "Packets that publishers were asked for again."),
        Column("plis_sent", "i8", MEDIA, "Picture loss indications sent to publishers."),
        Column("retransmissions_sent", "i8", MEDIA, "RTX packets sent, those of probes included."),
        Column("retransmission_bytes_sent", "i8", MEDIA, "RTP header and payload bytes of the RTX packets sent."),
        # how long packets are here: sfu/media/loop.py
        Column(
            "delays",
            "i8",
            MEDIA,
            "Forwarding delays sampled, by upper bound in FORWARDING_DELAYS_NS; the last counts all above.",
            shape=DELAY_BUCKETS,
        ),
        Column("delay_sum_ns", "i8", MEDIA, "Sum of all forwarding delays sampled."),
        # timers
        Column("feedback_ns", "i8", MEDIA, "When transport-cc feedback is next due."),
        Column("reports_ns", "i8", MEDIA, "When RTCP reports are next due."),
        Column("levels_ns", "i8", MEDIA, "When audio levels are next computed."),
        Column("liveness_ns", "i8", MEDIA, "When streams are next checked for layers that stopped or came back."),
        Column("consent_ns", "i8", MEDIA, "When consent to send is next checked (RFC 7675)."),
        Column("bandwidth_ns", "i8", MEDIA, "When bandwidth estimates are next updated."),
        Column("probes_ns", "i8", MEDIA, "When the next packets of probe clusters are due."),
        Column("probing", "i4", MEDIA, "How many transports have a probe cluster that is being sent."),
        Column("probe_bytes", "i8", MEDIA, "Bytes sent for nothing but probing, on the wire."),
        Column("probe_credit", "i8", MEDIA, "Bytes that may yet be sent for nothing but probing."),
        Column("credited_bytes", "i8", MEDIA, "`bytes_sent` when `probe_credit` was last added to."),
        Column("credited_ns", "i8", MEDIA, "When `probe_credit` was last added to; 0: never."),
        Column("first_fresh", "i4", MEDIA, "First transport that has begun to wait in this turn, + 1; 0: none."),
        Column("first_paced", "i4", MEDIA, "First transport that goes on waiting, + 1; 0: none."),
        Column(
            "last_paced", "i4", MEDIA, "Last transport that goes on waiting, + 1; valid while `first_paced` is not 0."
        ),
        Column("pace_ns", "i8", MEDIA, "When the transports in the list of `first_paced` are next sent something."),
        Column("pace_work", "i8", MEDIA, "What the pass of the pacer has cost so far, in log entries looked at."),
        Column("bytes_sent", "i8", MEDIA, "Bytes of all datagrams sent, without the headers of UDP and IP."),
        Column("rates_ns", "i8", MEDIA, "When bit rates were last computed."),
        # addresses of parts of this very state and of the arena: for system calls and libsrtp only
        Column("state_at", "u8", CONTROL, "Address of this state."),
        Column("arena_at", "u8", CONTROL, "Address of the arena, in which packet caches lie."),
        Column("rx_at", "u8", CONTROL, "Address of `rx`."),
        Column("rx_messages_at", "u8", CONTROL, "Address of `rx_messages`."),
        Column("tx_at", "u8", CONTROL, "Address of `tx`."),
        Column("tx_messages_at", "u8", CONTROL, "Address of `tx_messages`."),
        Column("tx_iov_at", "u8", CONTROL, "Address of `tx_iov`."),
        Column("tx_control_at", "u8", CONTROL, "Address of `tx_control`."),
        Column("scratch_at", "u8", CONTROL, "Address of `scratch`."),
        Column("poll_at", "u8", CONTROL, "Address of `poll`."),
        Column("paths_at", "u8", CONTROL, "Address of `paths`."),
        Column("epoll_events_at", "u8", CONTROL, "Address of `epoll_events`."),
        Column("stream_at", "u8", CONTROL, "Address of `stream`."),
        Column("half_frames_at", "u8", CONTROL, "Address of `half_frames`."),
        Column("frame_queues_at", "u8", CONTROL, "Address of `frame_queues`."),
        Column("frame_message_at", "u8", CONTROL, "Address of `frame_message`."),
        # the media threads of this process
        Column("number", "i4", CONTROL, "The number of this media thread, from 0."),
        Column("thread_count", "i4", CONTROL, "How many media threads there are."),
        Column(
            "states_at", "u8", CONTROL, "Addresses of the states of all media threads, by number.", shape=MAX_THREADS
        ),
    ),
)

SOCKET = RowType(
    "socket",
    "One UDP socket.",
    (
        Column("fd", "i4", CONTROL, "File descriptor of the socket."),
        Column("family", "i4", CONTROL, "IP version of the socket: 4 or 6."),
        Column(
            "wildcard",
            "i4",
            CONTROL,
            "Whether the socket is bound to all addresses; each datagram tells to which it was sent.",
        ),
    ),
)

# What the operating system takes: iovec, mmsghdr and pollfd of 64-bit Linux
iovec_t = np.dtype([("base", "u8"), ("bytes", "u8")])
mmsghdr_t = np.dtype(
    [
        ("name", "u8"),
        ("name_bytes", "u4"),
        ("_1", "u4"),
        ("iov", "u8"),
        ("iov_count", "u8"),
        ("control", "u8"),
        ("control_bytes", "u8"),
        ("flags", "i4"),
        ("_2", "u4"),
        ("bytes", "u4"),
        ("_3", "u4"),
    ]
)
pollfd_t = np.dtype([("fd", "i4"), ("events", "i2"), ("revents", "i2")])
