"""Transports: the paths to their peers, what was negotiated, their keys, and the SSRCs that arrive."""

from sfu.schema.capacities import ARRIVALS, EXTENSION_IDS, EXTENSION_KINDS, RTCP_SENDERS, SEQUENCE_START, VOICES
from sfu.schema.columns import CONTROL, HANDED, MEDIA, Column, RowType
from sfu.schema.layout import Layout

PATH = RowType(
    "path",
    "One pair of addresses over which a transport's peer was checked.",
    (
        # what sending needs: the first line
        Column("family", "u1", MEDIA, "4 or 6."),
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("socket", "i2", MEDIA, "Index into state.sockets."),
        Column(
            "address",
            "u1",
            MEDIA,
            "Sockaddr_in or sockaddr_in6 of the peer, as the kernel gave it (flow info zeroed).",
            shape=28,
        ),
        Column("address_bytes", "u4", MEDIA, "How many bytes of `address` are used."),
        Column("local", "u1", MEDIA, "The address of ours that the peer reached (4 or 16 bytes used).", shape=16),
        Column("local_interface", "i4", MEDIA, "Number of the network interface on which the peer reached us."),
        Column("single_until_ns", "i8", MEDIA, "It refused UDP_SEGMENT: until then packets leave one by one."),
        # what checks need
        Column("transport", "i4", MEDIA, "Whose path it is."),
        Column("next", "i4", MEDIA, "Next path of the transport, or of the free list."),
        Column("priority", "u4", MEDIA, "Of the nominated pair, from the check."),
        Column("nominated", "u1", MEDIA, "The peer nominated the pair."),
        Column("shared", "u1", MEDIA, "Another path of the transport has the same address of the peer."),
        Column("ice_generation", "i4", MEDIA, "Of the credentials with which it was checked last."),
        Column("checked_ns", "i8", MEDIA, "Last valid check."),
    ),
    layout=Layout.WHOLE_LINES,
)
path_t = PATH.dtype

MEDIA_MAP = RowType(
    "media",
    "What one SDP negotiation says about numbers; written into a free row, put in force by SET_MEDIA.",
    (
        Column("id_of_extension", "u1", CONTROL, "Kind -> id, 0: not negotiated.", shape=EXTENSION_KINDS),
        Column(
            "numbered",
            "u1",
            CONTROL,
            "Whether packets of a `MediaKind` take transport-wide numbers: its m-sections negotiated them.",
            shape=2,
        ),
        Column("mixed_extensions", "u1", CONTROL, "One-byte and two-byte header extensions may be mixed."),
        Column("extension_of_id", "u1", CONTROL, "Id -> kind.", shape=EXTENSION_IDS),
        Column("codec_of_pt", "u1", CONTROL, "Payload type -> codec; NONE: not negotiated.", shape=128),
        Column("associated_pt", "i2", CONTROL, "RTX: apt; RED: the Opus payload type.", shape=128),
        Column("nack_of_pt", "u1", CONTROL, "Payload type -> whether NACK was negotiated.", shape=128),
        Column("clock_of_pt", "u4", CONTROL, "Payload type -> clock rate in Hz.", shape=128),
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
        Column("secure", "u1", MEDIA, "SRTP is running."),
        Column("relayed", "u1", MEDIA, "It stands for a publisher whose transport another media thread has."),
        Column("probe_cluster", "u1", MEDIA, "Number of the probe cluster that runs; 0: none."),
        Column("generation", "i4", CONTROL, "Counts uses of the row."),
        Column("path", "i4", HANDED, "Selected path."),
        Column("media", "i4", HANDED, "Row of media in use."),
        Column("salt_end", "u4", CONTROL, "Before START_SRTP: last 4 bytes of GCM's salt, little endian."),
        Column("estimated", "u1", MEDIA, "Its row of `estimates` has begun."),
        Column("logged", "u1", MEDIA, "Its row of `send_logs` has begun."),
        Column("srtp_out", "u8", MEDIA, "Address of the srtp_t for what we send; 0: none."),
        Column(
            "cipher",
            "u8",
            CONTROL,
            "Before START_SRTP: EVP_CIPHER_CTX for the RTP that we send; 0: libsrtp protects it.",
        ),
        Column("salt", "u8", CONTROL, "The salt's first 8 bytes."),
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
        Column("password", "u1", HANDED, "24 ASCII characters each.", shape=(2, 24)),
        Column("next_ufrag", "u8", CONTROL, "Before NEW_CREDENTIALS."),
        Column("next_password", "u1", CONTROL, "Before NEW_CREDENTIALS.", shape=24),
        Column("ice_generation", "i4", MEDIA, "Counts restarts."),
        Column(
            "nominated_generation",
            "i4",
            MEDIA,
            "Newest ice_generation that got a nominated check; -1: none.",
            initial=-1,
        ),
        Column("consent", "u1", MEDIA, "Which `Consent`."),
        Column("first_path", "i4", MEDIA, "First of its paths, by `next`; -1: none.", initial=-1),
        Column("path_count", "i4", MEDIA, "How many paths it has."),
        Column(
            "checked_ns",
            "i8",
            MEDIA,
            "Last valid check on any path; set at OPEN_TRANSPORT; consent runs from first check.",
        ),
        Column("first_track", "i4", MEDIA, "Tracks published on this transport.", initial=-1),
        Column(
            "first_subscription", "i4", MEDIA, "Subscriptions towards this transport, by next_of_transport.", initial=-1
        ),
        Column("first_source", "i4", MEDIA, "First SSRC that the peer sends, by `next`; -1: none.", initial=-1),
        Column("unassigned", "i4", MEDIA, "Sources of this transport that are assigned to no stream."),
        Column(
            "rtcp_senders",
            "u4",
            MEDIA,
            "SSRCs that sent RTCP but are no source, oldest overwritten.",
            shape=RTCP_SENDERS,
        ),
        Column("rtcp_indices", "i8", MEDIA, "Highest SRTCP index of each, + 1; 0: none yet.", shape=RTCP_SENDERS),
        Column("rtcp_sender_next", "u1", MEDIA, "Where the next SSRC is written in `rtcp_senders`."),
        Column("srtp_in", "u8", MEDIA, "Srtp_t addresses."),
        Column("srtcp_tag_bytes", "u1", CONTROL, "Before START_SRTP: what follows the index in an SRTCP packet."),
        Column("ssrc", "u4", CONTROL, "Our SSRC for receiver reports and feedback."),
        Column("remb_bps", "i8", MEDIA, "Last REMB from the peer."),
        Column("remb_ns", "i8", MEDIA, "When that REMB came; 0: never."),
        Column("rtt_ns", "i8", MEDIA, "From receiver reports, or the peer's answers to ours; 0 unknown."),
        Column("repair_ns", "i8", MEDIA, "From a NACK to the packet asked for; 0 unknown."),
        Column("ntp_shift_ns", "i8", MEDIA, "Our wall clock minus this publisher's, slewed; for all its streams."),
        Column("ntp_sampled_ns", "i8", MEDIA, "Arrival of the newest sender report in ntp_shift_ns; 0: none yet."),
        Column("reported_ns", "i8", MEDIA, "Last RR/SR compound sent."),
        # how much of that a client may be sent: sfu/media/net/report_share.py
        Column("beside", "i4", CONTROL, "The transport on which its client publishes, + 1; 0: it is the only one."),
        Column("downlink", "i4", MEDIA, "Where that is this one: the transport on which its client receives, + 1."),
        Column("receiver_reports_bytes", "i4", MEDIA, "What the last receiver reports took on the wire."),
        Column("sender_reports_bytes", "i4", MEDIA, "What sender reports for all its subscriptions take."),
        Column(
            "slow_pushed", "i8", MEDIA, "Datagrams put into the slow queue.", kept="it goes on, as `slow_taken` does"
        ),
        Column("slow_taken", "i8", CONTROL, "Handled."),
        # what its subscriptions share: sfu/media/sharing.py
        Column("may_pause", "u1", CONTROL, "A video may be sent nothing at all when not even key frames fit."),
        Column("unreported", "u1", MEDIA, "Its peer sends no transport-cc feedback, although it was negotiated."),
        Column("limited", "u1", MEDIA, "It is sent less than it wishes."),
        Column("plain_audio", "u1", MEDIA, "Of RED it is sent only the primary block."),
        Column("voices_only", "u1", MEDIA, "Of all microphones it is sent the loudest VOICES."),
        Column("voices_ns", "i8", MEDIA, "When `voices_only` last changed; 0: never."),
        Column(
            "voices",
            "i4",
            MEDIA,
            "Of the microphones that are sent meanwhile: row of the subscription + 1; 0: none.",
            shape=VOICES,
        ),
        Column("estimate_bps", "i8", MEDIA, "What its path carries; 0: nothing that came of its peer limits it."),
        Column("shared_bps", "i8", MEDIA, "`estimate_bps` when it was last shared out."),
        Column("wish_bps", "i8", MEDIA, "What everything that it wishes would cost, then."),
        Column("allocated_bps", "i8", MEDIA, "What everything that may be sent to it costs, then."),
        Column("allocated_ns", "i8", MEDIA, "When that was; 0: never."),
        Column("returned_ns", "i8", MEDIA, "When its feedback came back after it had stopped; 0: never."),
        Column("allocation_urgent", "u1", MEDIA, "It is to be shared out at once."),
        Column("allocation_listed", "u1", MEDIA, "It is to be shared out.", kept="the list may still hold the row"),
        Column(
            "allocation_next", "i4", MEDIA, "Next such transport; -1: none.", kept="the list may still hold the row"
        ),
        # what its peer's receiver reports say, and what it knew before: sfu/media/bandwidth/
        Column("resumed_bps", "i8", CONTROL, "What its client's last path was known to carry; 0: not known."),
        Column("heard_ns", "i8", MEDIA, "Since when the reports are added up; 0: it never had a subscription."),
        Column("heard_packets", "i8", MEDIA, "Packets of ours that they spoke of since then."),
        Column("heard_lost", "i8", MEDIA, "Those of them that the peer lost."),
        Column("heard_bytes", "i8", MEDIA, "What had been sent to it before, on the wire."),
        # what waits for its path: sfu/media/send/pacer.py
        Column("first_waiting", "i4", MEDIA, "First subscription with something that waits, + 1; 0: none."),
        Column("pace_listed", "u1", MEDIA, "It is to be sent what waits.", kept="a list may still hold the row"),
        Column("pace_next", "i4", MEDIA, "Next such transport, + 1; 0: none.", kept="a list may still hold the row"),
        Column("packets_in", "i8", MEDIA, "Authentic SRTP and SRTCP packets received."),
        Column("bytes_in", "i8", MEDIA, "Bytes of them."),
        Column("last_packet_ns", "i8", MEDIA, "Last authentic and new packet on the selected path; 0: none yet."),
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
        Column("first", "i8", MEDIA, "Extended transport-wide sequence: base of the next feedback."),
        Column("highest", "i8", MEDIA, "Highest seen; 0: none yet."),
        Column("count", "i8", MEDIA, "Arrivals since the last feedback."),
        Column("feedback_count", "u1", MEDIA, "Number of the next feedback packet."),
        Column("media_ssrc", "u4", MEDIA, "Any SSRC of the transport, for the header."),
        Column("sent_ns", "i8", MEDIA, "When the last feedback left."),
        Column("sent_bytes", "i8", MEDIA, "What it took on the wire."),
        Column("arrival_ns", "i8", MEDIA, "By sequence & (ARRIVALS - 1); 0: not received.", shape=ARRIVALS),
    ),
)
arrivals_t = ARRIVAL_LOG.dtype

SOURCE = RowType(
    "source",
    "One SSRC that a publisher sends.",
    (
        Column("state", "u1", MEDIA, "FREE or OPEN."),
        Column("rtx", "u1", MEDIA, "It repeats packets of another SSRC."),
        Column("transport", "i4", MEDIA, "Whose peer sends it."),
        Column("ssrc", "u4", MEDIA, "The SSRC."),
        Column("stream", "i4", MEDIA, "Stream row that it is assigned to; -1: none.", initial=-1),
        Column("next", "i4", MEDIA, "Next source of the transport, or of the free list."),
        Column("seen_ns", "i8", MEDIA, "Arrival of its last packet."),
        Column("displaced_ns", "i8", MEDIA, "When it lost its stream to another SSRC or by BYE; 0: never."),
        Column("ended", "u1", MEDIA, "By BYE."),
        Column(
            "newest",
            "i4",
            MEDIA,
            "Sequence number of the packet with the highest SRTP index; -1: none yet.",
            initial=-1,
        ),
        Column("rtcp_index", "i8", MEDIA, "Highest SRTCP index, + 1; 0: none yet."),
    ),
)
source_t = SOURCE.dtype
