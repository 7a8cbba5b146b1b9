"""Transports: the paths to their peers, what was negotiated, their keys, and the SSRCs that arrive."""

from sfu.schema.capacities import ARRIVALS, EXTENSION_IDS, EXTENSION_KINDS, RTCP_SENDERS, SEQUENCE_START, VOICES
from sfu.schema.columns import CONTROL, HANDED, MEDIA, Column, RowType
from sfu.schema.layout import Layout

PATH = RowType(
    "path",
    "One pair of addresses over which a transport's peer was checked.",
    (
        # what sending needs: the first line
        Column("family", "u1", MEDIA, "IP version of the addresses: 4 or 6."),
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("kind", "u1", MEDIA, "Which `PathKind`."),
        Column("address_bytes", "u1", MEDIA, "How many bytes of `address` are used."),
        Column("socket", "i4", MEDIA, "Row of `sockets` over which the path goes; -1: none, it goes over TCP."),
        Column(
            "address",
            "u1",
            MEDIA,
            "Sockaddr_in or sockaddr_in6 of the peer, as the kernel gave it (flow info zeroed).",
            shape=28,
        ),
        Column("local", "u1", MEDIA, "The address of ours that the peer reached (4 or 16 bytes used).", shape=16),
        Column("local_interface", "i4", MEDIA, "Number of the network interface on which the peer reached us."),
        Column("single_until_ns", "i8", MEDIA, "The path refused UDP_SEGMENT: packets leave one by one until then."),
        # what checks need
        Column("transport", "i4", MEDIA, "Transport row that the path belongs to."),
        Column("connection", "i4", MEDIA, "Row of `connections` over which the path goes; -1: none, it goes over UDP."),
        Column("next", "i4", MEDIA, "Next path of the transport, or of the free list."),
        Column("priority", "u4", MEDIA, "Priority of the candidate pair, from the peer's check."),
        Column("nominated", "u1", MEDIA, "Whether the peer nominated the pair."),
        Column("shared", "u1", MEDIA, "Whether another path of the transport has the same address of the peer."),
        Column("ice_generation", "i4", MEDIA, "The transport's `ice_generation` when the path was last checked."),
        Column("checked_ns", "i8", MEDIA, "When the last valid check came over the path."),
    ),
    layout=Layout.WHOLE_LINES,
)
path_t = PATH.dtype

MEDIA_MAP = RowType(
    "media",
    "What one SDP negotiation says about numbers; written into a free row, put in force by SET_MEDIA.",
    (
        Column(
            "id_of_extension",
            "u1",
            CONTROL,
            "Header extension id of each extension kind; 0: not negotiated.",
            shape=EXTENSION_KINDS,
        ),
        Column(
            "numbered",
            "u1",
            CONTROL,
            "Whether packets of a `MediaKind` take transport-wide numbers: its m-sections negotiated them.",
            shape=2,
        ),
        Column("mixed_extensions", "u1", CONTROL, "Whether one-byte and two-byte header extensions may be mixed."),
        Column(
            "extension_of_id",
            "u1",
            CONTROL,
            "Extension kind of each header extension id; 0: not negotiated.",
            shape=EXTENSION_IDS,
        ),
        Column("codec_of_pt", "u1", CONTROL, "Codec of each payload type; NONE: not negotiated.", shape=128),
        Column(
            "associated_pt",
            "i2",
            CONTROL,
            "Payload type that RTX repeats (apt), or of the Opus that RED carries, by payload type.",
            shape=128,
        ),
        Column("nack_of_pt", "u1", CONTROL, "Whether NACK was negotiated for each payload type.", shape=128),
        Column("clock_of_pt", "u4", CONTROL, "Clock rate of each payload type in Hz.", shape=128),
    ),
    layout=Layout.WHOLE_LINES,
)
media_t = MEDIA_MAP.dtype

TRANSPORT = RowType(
    "transport",
    "One peer: its keys, its paths, what hangs on it.",
    (
        # what sending needs: the first line
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("secure", "u1", MEDIA, "Whether SRTP is running."),
        Column(
            "relayed", "u1", MEDIA, "Whether the row stands for a publisher whose transport another media thread has."
        ),
        Column("probe_cluster", "u1", MEDIA, "Number of the probe cluster that runs; 0: none."),
        Column("generation", "i4", CONTROL, "Counts uses of the row."),
        Column("path", "i4", HANDED, "Path row over which packets are sent; -1: none selected yet."),
        Column("media", "i4", HANDED, "Row of `media` that is in force."),
        Column("salt_end", "u4", CONTROL, "Before START_SRTP: last 4 bytes of GCM's salt, little endian."),
        Column("estimated", "u1", MEDIA, "Whether the transport's row of `estimates` has begun."),
        Column("logged", "u1", MEDIA, "Whether the transport's row of `send_logs` has begun."),
        Column("srtp_out", "u8", MEDIA, "Address of the srtp_t for what we send; 0: none."),
        Column(
            "cipher",
            "u8",
            CONTROL,
            "Before START_SRTP: EVP_CIPHER_CTX for the RTP that we send; 0: libsrtp protects it.",
        ),
        Column("salt", "u8", CONTROL, "Before START_SRTP: first 8 bytes of GCM's salt, little endian."),
        Column(
            "next_number",
            "i8",
            MEDIA,
            "Next transport-wide number that we send, beyond 16 bits.",
            initial=SEQUENCE_START,
        ),
        Column(
            "free_number",
            "i8",
            MEDIA,
            "Video may leave at once up to this transport-wide number; 0: the pacer is asked; UNLIMITED: not paced.",
        ),
        # connectivity, reception, reports
        Column(
            "ufrag", "u8", HANDED, "Current and previous local ufrag: 8 ASCII bytes, little endian; 0: none.", shape=2
        ),
        Column(
            "password",
            "u1",
            HANDED,
            "Passwords that belong to the two ufrags, 24 ASCII characters each.",
            shape=(2, 24),
        ),
        Column("next_ufrag", "u8", CONTROL, "Before NEW_CREDENTIALS: the new local ufrag, as in `ufrag`."),
        Column(
            "next_password",
            "u1",
            CONTROL,
            "Before NEW_CREDENTIALS: the password that belongs to `next_ufrag`.",
            shape=24,
        ),
        Column("ice_generation", "i4", MEDIA, "Counts ICE restarts."),
        Column(
            "nominated_generation",
            "i4",
            MEDIA,
            "Newest `ice_generation` that got a nominated check; -1: none.",
            initial=-1,
        ),
        Column("consent", "u1", MEDIA, "Which `Consent`."),
        Column("first_path", "i4", MEDIA, "First path of the transport, by the paths' `next`; -1: none.", initial=-1),
        Column("path_count", "i4", MEDIA, "How many paths the transport has."),
        Column(
            "checked_ns",
            "i8",
            MEDIA,
            "When the last valid check came on any path; OPEN_TRANSPORT sets it as well.",
        ),
        Column(
            "first_track",
            "i4",
            MEDIA,
            "First track that the peer publishes, by the tracks' `next`; -1: none.",
            initial=-1,
        ),
        Column(
            "first_subscription",
            "i4",
            MEDIA,
            "First subscription of the peer, by `next_of_transport`; -1: none.",
            initial=-1,
        ),
        Column(
            "first_source", "i4", MEDIA, "First SSRC that the peer sends, by the sources' `next`; -1: none.", initial=-1
        ),
        Column("unassigned", "i4", MEDIA, "Sources of this transport that are assigned to no stream."),
        Column(
            "rtcp_senders",
            "u4",
            MEDIA,
            "SSRCs that sent RTCP but are no source; the oldest is overwritten.",
            shape=RTCP_SENDERS,
        ),
        Column(
            "rtcp_indices",
            "i8",
            MEDIA,
            "Highest SRTCP index of each of `rtcp_senders`, + 1; 0: none yet.",
            shape=RTCP_SENDERS,
        ),
        Column("rtcp_sender_next", "u1", MEDIA, "Where the next SSRC is written in `rtcp_senders`."),
        Column("srtp_in", "u8", MEDIA, "Address of the srtp_t for what we receive; 0: none."),
        Column("srtcp_tag_bytes", "u1", CONTROL, "Before START_SRTP: what follows the index in an SRTCP packet."),
        Column("ssrc", "u4", CONTROL, "Our SSRC for receiver reports and feedback."),
        Column("remb_bps", "i8", MEDIA, "The peer's last REMB; 0: none came."),
        Column(
            "rtt_ns", "i8", MEDIA, "Round trip from receiver reports, or from the peer's answers to ours; 0: unknown."
        ),
        Column("repair_ns", "i8", MEDIA, "Time from a NACK to the packet that it asked for; 0: unknown."),
        Column(
            "ntp_shift_ns",
            "i8",
            MEDIA,
            "Our wall clock minus this publisher's, slewed, for all of the publisher's streams.",
        ),
        Column(
            "ntp_sampled_ns",
            "i8",
            MEDIA,
            "Arrival of the newest sender report that `ntp_shift_ns` counts; 0: none yet.",
        ),
        Column("reported_ns", "i8", MEDIA, "When the last compound with reports was sent."),
        Column(
            "interrupted",
            "u1",
            MEDIA,
            "Whether packets were lost on our side of the path, so that every video begins anew with a key frame.",
        ),
        # how much of that a client may be sent: sfu/media/net/report_share.py
        Column(
            "beside", "i4", CONTROL, "The transport on which the same client publishes, + 1; 0: this is its only one."
        ),
        Column(
            "downlink",
            "i4",
            MEDIA,
            "For a publishing transport, the one on which the same client receives, + 1; 0: none.",
        ),
        Column("receiver_reports_bytes", "i4", MEDIA, "Bytes that the last receiver reports took on the wire."),
        Column(
            "sender_reports_bytes",
            "i4",
            MEDIA,
            "Bytes on the wire of one sender report for each of the transport's subscriptions.",
        ),
        Column(
            "slow_pushed",
            "i8",
            MEDIA,
            "Datagrams of the transport put into the slow queue.",
            kept="it goes on, as `slow_taken` does",
        ),
        Column("slow_taken", "i8", CONTROL, "Datagrams of the transport that the control thread has handled."),
        # what its subscriptions share: sfu/media/sharing.py
        Column(
            "may_pause", "u1", CONTROL, "Whether a video may be sent nothing at all when not even its key frames fit."
        ),
        Column(
            "unreported", "u1", MEDIA, "Whether the peer sends no transport-cc feedback although it was negotiated."
        ),
        Column("limited", "u1", MEDIA, "Whether bandwidth keeps the transport from what its subscriptions prefer."),
        Column("plain_audio", "u1", MEDIA, "Whether RED is sent as its primary block only, for lack of bandwidth."),
        Column(
            "voices_only", "u1", MEDIA, "Whether only the VOICES loudest microphones are sent, for lack of bandwidth."
        ),
        Column("voices_ns", "i8", MEDIA, "When `voices_only` last changed; 0: never."),
        Column(
            "voices",
            "i4",
            MEDIA,
            "While `voices_only` holds, the subscriptions that are sent, + 1 each; 0: a free place.",
            shape=VOICES,
        ),
        Column(
            "estimate_bps",
            "i8",
            MEDIA,
            "What the path to the peer carries; 0: nothing that the peer reported limits it.",
        ),
        Column("shared_bps", "i8", MEDIA, "`estimate_bps` when it was last shared out."),
        Column(
            "preferred_bps",
            "i8",
            MEDIA,
            "What everything that its subscriptions prefer would have cost when it was last shared out.",
        ),
        Column(
            "allocated_bps", "i8", MEDIA, "What everything that may be sent cost when bandwidth was last shared out."
        ),
        Column("allocated_ns", "i8", MEDIA, "When bandwidth was last shared out; 0: never."),
        Column("returned_ns", "i8", MEDIA, "When transport-cc feedback came back after it had stopped; 0: never."),
        Column("allocation_urgent", "u1", MEDIA, "Whether bandwidth is to be shared out at once."),
        Column(
            "allocation_listed",
            "u1",
            MEDIA,
            "Whether the row is in the list of transports whose bandwidth is to be shared out.",
            kept="the list may still hold the row",
        ),
        Column(
            "allocation_next",
            "i4",
            MEDIA,
            "Next transport in the list of `first_due`; -1: none.",
            kept="the list may still hold the row",
        ),
        # what its peer's receiver reports say, and what it knew before: sfu/media/bandwidth/
        Column(
            "resumed_bps", "i8", CONTROL, "What the path of its client's last transport was known to carry; 0: unknown."
        ),
        Column(
            "interval_ns",
            "i8",
            MEDIA,
            "Since when `interval_packets` and `interval_lost` are counted; 0: it never had a subscription.",
        ),
        Column("interval_packets", "i8", MEDIA, "Packets that receiver reports have spoken of since `interval_ns`."),
        Column("interval_lost", "i8", MEDIA, "Packets of `interval_packets` that the peer lost."),
        Column(
            "interval_bytes",
            "i8",
            MEDIA,
            "Bytes on the wire sent since `interval_ns` on subscriptions that have closed.",
        ),
        # what waits for its path: sfu/media/pacing/
        Column("first_waiting", "i4", MEDIA, "First subscription with packets that wait for the pacer, + 1; 0: none."),
        Column(
            "pace_listed",
            "u1",
            MEDIA,
            "Whether the row is in a list of transports that the pacer is to send for.",
            kept="a list may still hold the row",
        ),
        Column(
            "pace_next",
            "i4",
            MEDIA,
            "Next transport in that list of the pacer, + 1; 0: none.",
            kept="a list may still hold the row",
        ),
        Column("packets_in", "i8", MEDIA, "Authentic SRTP and SRTCP packets received."),
        Column("bytes_in", "i8", MEDIA, "Bytes of authentic SRTP and SRTCP packets received."),
        Column(
            "last_packet_ns",
            "i8",
            MEDIA,
            "When the last authentic and new packet came over the selected path; 0: none yet.",
        ),
        Column("compared_ns", "i8", MEDIA, "When a packet on another path was last looked at."),
        Column("followed_ns", "i8", MEDIA, "When a packet on another path last changed the selection."),
    ),
    layout=Layout.WHOLE_LINES,
)
transport_t = TRANSPORT.dtype

ARRIVAL_LOG = RowType(
    "arrivals",
    "The transport-cc receive log of one transport.",
    (
        Column("first", "i8", MEDIA, "Extended transport-wide number with which the next feedback begins."),
        Column("highest", "i8", MEDIA, "Highest extended transport-wide number received; 0: none yet."),
        Column("count", "i8", MEDIA, "Arrivals since the last feedback."),
        Column("feedback_count", "u1", MEDIA, "Number of the next feedback packet."),
        Column("media_ssrc", "u4", MEDIA, "Any SSRC of the peer, for the feedback's header."),
        Column("sent_ns", "i8", MEDIA, "When the last feedback left."),
        Column("sent_bytes", "i8", MEDIA, "Bytes that the last feedback took on the wire, in all its packets."),
        Column(
            "arrival_ns",
            "i8",
            MEDIA,
            "Arrival of each packet, by transport-wide number & (ARRIVALS - 1); 0: not received.",
            shape=ARRIVALS,
        ),
    ),
)
arrivals_t = ARRIVAL_LOG.dtype

SOURCE = RowType(
    "source",
    "One SSRC that a publisher sends.",
    (
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("rtx", "u1", MEDIA, "Whether the SSRC repeats packets of another SSRC."),
        Column("transport", "i4", MEDIA, "Transport row whose peer sends the SSRC."),
        Column("ssrc", "u4", MEDIA, "The SSRC of the source."),
        Column("stream", "i4", MEDIA, "Stream row that the source is assigned to; -1: none.", initial=-1),
        Column("next", "i4", MEDIA, "Next source of the transport, or of the free list."),
        Column("seen_ns", "i8", MEDIA, "Arrival of the source's last packet."),
        Column("displaced_ns", "i8", MEDIA, "When the source lost its stream to another SSRC or by BYE; 0: never."),
        Column("ended", "u1", MEDIA, "Whether the peer ended the source by RTCP BYE."),
        Column(
            "newest",
            "i4",
            MEDIA,
            "Sequence number of the packet with the highest SRTP index; -1: none yet.",
            initial=-1,
        ),
        Column("rtcp_index", "i8", MEDIA, "Highest SRTCP index that the source used, + 1; 0: none yet."),
    ),
)
source_t = SOURCE.dtype
