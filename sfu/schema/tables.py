"""All state that a packet touches: one record of nested tables, one row per transport, stream, subscription, ...

Each media thread has a state of its own; only `relays` and `relay_entries` of it are written by the other ones.

Read this file first. A kernel takes `state` (one record of `state_t`) and `arena` (bytes of the packet rings) and
writes `state.transports[i].packets_in += 1`; Python keeps column views made by `views`. Every column names its one
writing thread: (m) the media thread, (c) the control thread while the row is not open, that is before its OPEN
command and after its CLOSED notice. Everything the control thread changes on an open row goes through a command, and
what the media thread has to say is a counter in `noticed` that moves on (`notices`).

Times are nanoseconds of CLOCK_MONOTONIC unless they say otherwise. Sizes are bytes. A row number of -1 means none.
Extended sequence numbers count from `SEQUENCE_START` so that they never go below zero when packets come late.
"""

import mmap
from typing import Any

import numpy as np

from sfu.parameters import GROUPS, MAX_THREADS
from sfu.schema.layout import in_lines

# --- capacities: part of the type, so changing one compiles the kernels again ---------------------------------------
TRANSPORTS = 4096
PATHS_PER_TRANSPORT = 8
PATHS = TRANSPORTS * PATHS_PER_TRANSPORT + 1
"""Every transport can have all of its paths, whatever the others do; one more row is for staging."""
TRACKS = 4096
"""Receivers: one published m-section each."""
STREAMS = 4096
"""Layers of receivers: one primary SSRC each."""
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
MISSING = 128
"""Sequence numbers of a stream that are being asked for; a larger gap asks for a key frame."""
ARRIVALS = 512
"""Transport-cc arrivals between two feedback packets."""
TEMPLATES = 64
DECODE_TARGETS = 32
SCRATCH_DEPENDENCY = STREAMS
"""Row of `dependencies` into which a structure is parsed before it is believed."""
EXTENSION_IDS = 256
COPIED = 7
"""Extension kinds 1 to 6 are copied from publisher to subscriber (see parameters.Extension)."""
EXTENSION_KINDS = 12
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
UNBOUND_PER_TRANSPORT = 64
MAX_UNBOUND = SOURCES // 2
"""Sources without a stream, of all transports together; the other half is for those that have one."""
CROWDED_UNBOUND = MAX_UNBOUND // TRANSPORTS
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
"""Datagrams of one transport that wait for the control thread, in the ring and beside it. The SCTP window that is
announced follows from it (`association.WINDOW_BYTES`)."""
CROWDED_SLOW, CROWDED_SLOW_PER_TRANSPORT = SLOW_SLOTS // 4 * 3, 16
"""With so many datagrams in the ring, a transport may have so few of them: a handshake goes on when others flood it."""
COMMANDS = 16_384
RELAY_SLOTS = 512
"""Packets on their way from one media thread to another; a thread that is so far behind loses the newest."""

ARENA_BYTES = 1 << 30
"""Address space for packet rings; a page costs memory when it is first written."""
RING_BYTES = {"audio": 1 << 14, "low": 1 << 16, "mid": 1 << 17, "high": 1 << 18}
"""What a stream begins with; its bit rate decides what it gets (`ring_size`)."""
MIN_RING_BYTES, MAX_RING_BYTES = 1 << 13, 1 << 21

SEQUENCE_START = 1 << 16

# --- enumerations shared by kernels and Python ------------------------------------------------------------------------
AUDIO, VIDEO = 0, 1

FREE, OPEN, CLOSING = 0, 1, 2
"""Row states (m)."""

# commands: control thread -> media thread (fields a and b in brackets)
OPEN_TRANSPORT, START_SRTP, NEW_CREDENTIALS, SET_MEDIA, FOLLOW_PATH, CLOSE_TRANSPORT = 1, 2, 3, 4, 5, 6
# START_SRTP: [a: address of the receiving srtp_t, b: of the sending one]; cipher, salt and salt_end are written by the
# control thread before it. NEW_CREDENTIALS: so are next_ufrag, next_password. SET_MEDIA: [a: row in `media`, new maps]
# FOLLOW_PATH: [a: path row over which DTLS came that was authentic and newer than all before]
OPEN_TRACK, CLOSE_TRACK, REQUEST_KEY_FRAME = 7, 8, 9
CHANGE_RING, SET_CODECS, ADD_MIRROR, REMOVE_MIRROR = 10, 11, 12, 13
OPEN_SUBSCRIPTION, CLOSE_SUBSCRIPTION, SET_LAYERS, SET_PAUSED = 14, 15, 16, 17
# CHANGE_RING: [a: layer | bytes << 8, b: offset into the arena]
# SET_CODECS: [a: new value of tracks.codecs]
# OPEN_TRANSPORT: [a: 1 for one that stands for a publisher of another media thread]
# ADD_MIRROR: [a: media thread | row there << 8, b: generation there]. REMOVE_MIRROR: [a: media thread]
# OPEN_SUBSCRIPTION: [a: OPEN_PAUSED | OPEN_SILENT, b: spatial + 1 | temporal + 1 << 8, 0: everything]
# SET_LAYERS: [a: spatial, b: temporal]. SET_PAUSED: [a: 0 or 1]
OPEN_PAUSED, OPEN_SILENT = 1, 2

# notices: media thread -> control thread, one counter each in `noticed` for every row that can have it
(
    SUBSCRIPTION_STARTED,  # subscription: its first packet left
    CLOSED_SUBSCRIPTION,  # subscription: its row is the control thread's again
    STREAM_STARTED,  # stream: an SSRC was bound to it, see `announced`
    RING_WANTED,  # stream: its packet ring should have `ring_wanted` bytes
    RING_LEFT,  # stream: it has the ring of the last CHANGE_RING, and no longer the one before
    LAYERS_CHANGED,  # track: `live` changed
    CLOSED_TRACK,  # track: its row and its streams' are the control thread's again
    PATH_SELECTED,  # transport: `path` changed
    CONSENT_EXPIRED,  # transport: no valid check for CONSENT_TIMEOUT_NS
    TRANSPORT_BROKEN,  # transport: an exception in a kernel while its packet was in hand
    CLOSED_TRANSPORT,  # transport: its row is the control thread's again, its SRTP sessions may go
) = range(11)
NOTICE_ROWS = (*2 * (SUBSCRIPTIONS,), *3 * (STREAMS,), *2 * (TRACKS,), *4 * (TRANSPORTS,))
"""Rows that can have a notice of this kind."""
NOTICE_FIRST = tuple(sum(NOTICE_ROWS[:kind]) for kind in range(len(NOTICE_ROWS)))
"""Place of row 0's counter in `noticed`, by kind."""
NOTICE_SLOTS = sum(NOTICE_ROWS)
NOTICE_BLOCK = 256
"""Counters that have a common one in `noticed_blocks`, so that few are looked at; divides the rows of all kinds."""
NOTICE_BLOCKS = NOTICE_SLOTS // NOTICE_BLOCK

# drop reasons: index into state.drops
(
    DROP_GARBAGE,
    DROP_TRUNCATED,
    DROP_UNKNOWN_ADDRESS,
    DROP_STUN_MALFORMED,
    DROP_STUN_UNKNOWN_UFRAG,
    DROP_STUN_INTEGRITY,
    DROP_STUN_PATHS_FULL,
    DROP_STUN_ADDRESS_TAKEN,
    DROP_DTLS_RING_FULL,
    DROP_DTLS_QUOTA,
    DROP_NOT_READY,
    DROP_SRTP_AUTH,
    DROP_SRTP_REPLAY,
    DROP_SRTCP,
    DROP_RTP_MALFORMED,
    DROP_UNKNOWN_PAYLOAD_TYPE,
    DROP_UNBOUND_SSRC,
    DROP_UNBOUND_FULL,
    DROP_DUPLICATE,
    DROP_TOO_OLD,
    DROP_RTCP_MALFORMED,
    DROP_SEND_FAILED,
    DROP_PROTECT_FAILED,
    DROP_RTX_EMPTY,
    DROP_RTX_UNKNOWN,
    DROP_TOO_LARGE,
    DROP_SOURCES_FULL,
    DROP_NACK_UNKNOWN,
    DROP_FOREIGN_SSRC,
    DROP_RELAY_FULL,
    DROP_RELAY_STALE,
    DROP_CODEC_CHANGED,
) = range(32)
DROPS = 64
DROP_NAMES = (
    "garbage",
    "truncated",
    "unknown_address",
    "stun_malformed",
    "stun_unknown_ufrag",
    "stun_integrity",
    "stun_paths_full",
    "stun_address_taken",
    "dtls_ring_full",
    "dtls_quota",
    "not_ready",
    "srtp_auth",
    "srtp_replay",
    "srtcp",
    "rtp_malformed",
    "unknown_payload_type",
    "unbound_ssrc",
    "unbound_full",
    "duplicate",
    "too_old",
    "rtcp_malformed",
    "send_failed",
    "protect_failed",
    "rtx_empty",
    "rtx_unknown",
    "too_large",
    "sources_full",
    "nack_unknown",
    "foreign_ssrc",
    "relay_full",
    "relay_stale",
    "codec_changed",
)

# packet flags (packet_t.flags)
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


# --- row types --------------------------------------------------------------------------------------------------------
path_t = in_lines(
    [
        # what sending needs: the first line
        ("family", "u1"),  # 4 or 6
        ("state", "u1"),
        ("socket", "i2"),  # index into state.sockets
        ("address", "u1", 28),  # sockaddr_in or sockaddr_in6 of the peer, as the kernel gave it (flow info zeroed)
        ("address_bytes", "u4"),
        ("local", "u1", 16),  # the address of ours that the peer reached (4 or 16 bytes used)
        ("local_interface", "i4"),
        ("single_until_ns", "i8"),  # it refused UDP_SEGMENT: until then packets leave one by one
        # what checks need
        ("transport", "i4"),
        ("next", "i4"),  # next path of the transport, or of the free list
        ("priority", "u4"),  # of the nominated pair, from the check
        ("nominated", "u1"),
        ("shared", "u1"),  # another path of the transport has the same address of the peer
        ("ice_generation", "i4"),
        ("checked_ns", "i8"),  # last valid check
    ]
)  # all (m)

media_t = in_lines(
    [
        # what one SDP negotiation says about numbers; written (c) into a free row, applied by SET_MEDIA
        ("id_of_extension", "u1", EXTENSION_KINDS),  # kind -> id, 0: not negotiated; what sending needs
        ("mixed_extensions", "u1"),  # the same
        ("extension_of_id", "u1", EXTENSION_IDS),  # id -> kind
        ("codec_of_pt", "u1", 128),
        ("associated_pt", "i2", 128),  # RTX: apt; RED: the Opus payload type
        ("nack_of_pt", "u1", 128),
        ("clock_of_pt", "u4", 128),
    ]
)

transport_t = in_lines(
    [
        # what sending needs: the first line
        ("state", "u1"),
        ("secure", "u1"),  # (m) SRTP is running
        ("relayed", "u1"),  # (m) it stands for a publisher whose transport another media thread has
        ("twcc_sequence", "u2"),  # (m) next transport-wide sequence number that we send
        ("generation", "i4"),  # (c) counts uses of the row
        ("path", "i4"),  # (m) selected path
        ("media", "i4"),  # (m) row of media in use
        ("salt_end", "u4"),  # (c) before START_SRTP: last 4 bytes of GCM's salt, little endian
        ("srtp_out", "u8"),
        ("packets_out", "i8"),
        ("bytes_out", "i8"),
        ("cipher", "u8"),  # (c) before START_SRTP: EVP_CIPHER_CTX for the RTP that we send; 0: libsrtp protects it
        ("salt", "u8"),  # (c) the salt's first 8 bytes
        # connectivity, reception, reports
        ("ufrag", "u8", 2),  # (c, then m) current and previous local ufrag: 8 ASCII bytes, little endian; 0: none
        ("password", "u1", (2, 24)),  # (c, then m) 24 ASCII characters each
        ("next_ufrag", "u8"),  # (c) before NEW_CREDENTIALS
        ("next_password", "u1", 24),
        ("ice_generation", "i4"),  # (m) counts restarts
        ("nominated_generation", "i4"),  # (m) newest ice_generation that got a nominated check; -1: none
        ("consent", "u1"),  # (m) NO_CONSENT, CONSENT_RUNNING, CONSENT_GONE of paths.py
        ("first_path", "i4"),  # (m)
        ("path_count", "i4"),  # (m)
        ("checked_ns", "i8"),  # (m) last valid check on any path; set at OPEN_TRANSPORT; consent runs from first check
        ("first_track", "i4"),  # (m) tracks published on this transport
        ("first_subscription", "i4"),  # (m) subscriptions towards this transport, by next_of_transport
        ("first_source", "i4"),  # (m)
        ("unbound", "i4"),  # (m) sources of this transport without a stream
        ("rtcp_senders", "u4", RTCP_SENDERS),  # (m) SSRCs that sent RTCP but are no source, oldest overwritten
        ("rtcp_indices", "i8", RTCP_SENDERS),  # (m) highest SRTCP index of each, + 1; 0: none yet
        ("rtcp_sender_next", "u1"),
        ("srtp_in", "u8"),  # (m) srtp_t addresses
        ("srtcp_tag_bytes", "u1"),  # (c) before START_SRTP: what follows the index in an SRTCP packet
        ("ssrc", "u4"),  # (c) our SSRC for receiver reports and feedback
        ("remb_bps", "i8"),  # (m) last REMB from the peer
        ("remb_ns", "i8"),
        ("rtt_ns", "i8"),  # (m) from receiver reports, or the peer's answers to ours; 0 unknown
        ("repair_ns", "i8"),  # (m) from a NACK to the packet asked for; 0 unknown
        ("ntp_shift_ns", "i8"),  # (m) our wall clock minus this publisher's, slewed; the same for all its streams
        ("ntp_sampled_ns", "i8"),  # (m) arrival of the newest sender report in ntp_shift_ns; 0: none yet
        ("reported_ns", "i8"),  # (m) last RR/SR compound sent
        ("slow_pushed", "i8"),  # (m) datagrams put into the slow ring
        ("slow_taken", "i8"),  # (c) handled
        ("packets_in", "i8"),
        ("bytes_in", "i8"),
        ("heard_ns", "i8"),  # (m) last authentic and new packet on the selected path; 0: none yet
        ("compared_ns", "i8"),  # (m) when one on another path was last looked at
        ("followed_ns", "i8"),  # (m) when one on another path last changed the selection
    ]
)

arrivals_t = np.dtype(
    [
        # transport-cc receive log of one transport (m)
        ("first", "i8"),  # extended transport-wide sequence: base of the next feedback
        ("highest", "i8"),  # highest seen; 0: none yet
        ("count", "i8"),  # arrivals since the last feedback
        ("feedback_count", "u1"),
        ("media_ssrc", "u4"),  # any SSRC of the transport, for the header
        ("sent_ns", "i8"),  # when the last feedback left
        ("arrival_ns", "i8", ARRIVALS),  # by sequence & (ARRIVALS - 1); 0: not received
    ],
    align=True,
)

source_t = np.dtype(
    [
        # one SSRC that a publisher sends (m)
        ("state", "u1"),
        ("rtx", "u1"),
        ("transport", "i4"),
        ("ssrc", "u4"),
        ("stream", "i4"),  # -1: unbound
        ("next", "i4"),  # next source of the transport, or of the free list
        ("seen_ns", "i8"),
        ("displaced_ns", "i8"),  # when it lost its stream to another SSRC or by BYE; 0: never
        ("ended", "u1"),  # by BYE
        ("newest", "i4"),  # sequence number of the packet with the highest SRTP index; -1: none yet
        ("rtcp_index", "i8"),  # highest SRTCP index, + 1; 0: none yet
    ],
    align=True,
)

track_t = np.dtype(
    [
        ("state", "u1"),
        ("kind", "u1"),  # (c) AUDIO or VIDEO
        ("svc", "u1"),  # (c)
        ("layer_count", "u1"),  # (c)
        ("codecs", "u4"),  # (c, then m) bit mask of what the m-section may carry; 0: whatever the transport knows
        ("generation", "i4"),  # (c)
        ("transport", "i4"),  # (c)
        ("mid", "u1", 16),  # (c) padded with zeros
        ("mid_bytes", "u1"),  # (c)
        ("streams", "i4", LAYERS),  # (c) stream rows, lowest layer first; -1 beyond layer_count
        ("next", "i4"),  # (m) next track of the transport
        ("first_subscription", "i4"),  # (m) by next_of_track
        ("subscription_count", "i4"),  # (m)
        ("live", "u1"),  # (m) bit mask of layers that advance
        ("dirty_next", "i4"),  # (m) list of tracks with unread arrivals; -2: not in it
        ("log", "u4", TRACK_LOG),  # (m) layer << 16 | index into packets; written by ingress, read by egress
        ("log_written", "i8"),  # (m)
        ("log_read", "i8"),  # (m) cursor of egress
        # audio of which only the loudest of a group is forwarded: sfu/media/stream/loudest.py
        ("group", "i4"),  # (c) 0: none
        ("group_limit", "i4"),  # (c) how many of them
        ("group_next", "i4"),  # (m) next track of the group; -1: none
        ("owner", "i4"),  # (c) who speaks, the same number for all tracks of one publisher; 0: nobody else has one
        ("loudness", "i4"),  # (m)
        ("level", "i4"),  # (m) of the newest packet, -dBov
        ("unmoved", "i4"),  # (m) packets in a row with this level
        ("loud", "u1"),  # (m) it is forwarded
        ("heard_ns", "i8"),  # (m) arrival of the newest level
        # a track that has subscribers in other media threads has a mirror in each of them
        ("mirrors", "i4"),  # (m) how many
        ("mirror", "i4", MAX_THREADS),  # (m) track row in that thread; -1: none
        ("mirror_generation", "i4", MAX_THREADS),  # (m)
        ("source_thread", "i4"),  # (c) a mirror: the thread of its publisher; -1: it is none
        ("source_row", "i4"),  # (c) track row there
        ("source_generation", "i4"),  # (c)
    ],
    align=True,
)

missing_t = np.dtype([("sequence", "i8"), ("noticed_ns", "i8"), ("asked_ns", "i8"), ("tries", "i4")], align=True)

stream_t = np.dtype(
    [
        ("state", "u1"),
        ("layer", "u1"),  # (c)
        ("kind", "u1"),  # (c)
        ("codec", "u1"),  # (m) of the last packet's payload type
        ("payload_type", "u1"),  # (m)
        ("nack", "u1"),  # (m) from the payload type
        ("started", "u1"),  # (m) first packet seen
        ("codec_ns", "i8"),  # (m) arrival of the packet that last changed the codec; 0: none has
        ("acknowledged", "u1"),  # (m) a report block was sent for it
        ("track", "i4"),  # (c)
        ("transport", "i4"),  # (c)
        ("rid", "u1", 16),  # (c) padded with zeros
        ("rid_bytes", "u1"),  # (c)
        ("ssrc", "u4"),  # (c) from SDP or 0, then (m)
        ("rtx_ssrc", "u4"),  # (c) from SDP or 0, then (m)
        ("clock_rate", "u4"),  # (m) from the payload type
        ("announced", "u8"),  # (m) of the last STREAM_STARTED: SSRC, codec << 32, payload type << 40
        ("source", "i4"),  # (m) row of the source bound to it; -1: none
        ("rtx_source", "i4"),  # (m)
        ("sequence_shift", "i8"),  # (m) extended sequence = the wire's (extended) + this; changes with the SSRC
        ("ring_start", "i8"),  # (c, then m) offset into the arena
        ("ring_bytes", "i8"),  # (c, then m) power of two
        ("ring_oldest", "i8"),  # (m) what was written before is not there: the ring was another one
        ("ring_wanted", "i8"),  # (m) bytes, of the last RING_WANTED
        ("small_checks", "i4"),  # (m) how often in a row the ring was found too large
        ("peak_checks", "i4"),  # (m) checks since peak_bytes began anew
        ("peak_bytes", "i8"),  # (m) the largest ring that was needed since then
        ("peak_before", "i8"),  # (m) and in the period before
        ("burst_start", "i8"),  # (m) ring_written, and arrival, at the beginning of the burst that is watched
        ("burst_ns", "i8"),
        ("ring_asked", "i8"),  # (m) bytes that a burst has asked for already
        ("ring_written", "i8"),  # (m) bytes ever written, monotonic; a packet never wraps around the end
        # reception, RFC 3550 appendix A (m)
        ("base", "i8"),  # first extended sequence
        ("highest", "i8"),  # highest extended sequence; < 0: none
        ("received", "i8"),
        ("bytes", "i8"),  # RTP payload and header
        ("expected_prior", "i8"),
        ("received_prior", "i8"),
        ("lost", "i8"),
        ("transit", "i8"),  # last relative transit in clock ticks
        ("jitter", "i8"),  # in 1/16 clock ticks
        ("last_ns", "i8"),  # arrival of the last packet
        ("last_timestamp", "u4"),
        ("frames", "i8"),  # frames started
        # whether the layer lives: sfu/media/send/selection.py (m)
        ("frames_at_check", "i8"),
        ("written_at_check", "i8"),  # ring_written
        ("idle_frames", "i8"),  # frames of siblings since this layer's last packet
        ("silent_checks", "i4"),  # checks since its last packet
        ("frame_checks", "i4"),  # checks since its last frame start
        ("usual_checks", "i4"),  # quarters of a check that usually pass between frame starts; 0: not known
        ("revived_frames", "i4"),  # frames since it was found dead, or since its last long silence after that
        ("dead", "u1"),  # it lived and was found dead
        ("bytes_at_check", "i8"),  # for the bit rate pass
        ("bitrate_bps", "i8"),
        # sender reports from the publisher (m)
        ("report_ntp", "u8"),  # 0: none yet
        ("report_timestamp", "u4"),
        ("report_ns", "i8"),  # arrival
        # key frames (m)
        ("key_sequence", "i8"),  # extended sequence of the first packet of the last key frame; -1: none
        ("key_ns", "i8"),
        ("key_wanted", "u1"),
        ("key_asked_ns", "i8"),  # last PLI sent
        ("fir_sequence", "u1"),
        ("sets_sequence", "i8"),  # H.264: of the last packet with parameter sets; 0: the sender leaves them out
        # speech (m)
        ("level_loudest", "i4"),  # -dBov, smallest in the window (127 silence)
        ("level_active_ms", "i4"),
        ("level_packets", "i4"),
        ("level_smoothed", "f4"),  # 0..1
        ("level", "f4"),  # the same, 0 while not speaking; what signalling reads
        # what is missing (m)
        ("missing_count", "i4"),
        ("missing", missing_t, MISSING),
    ],
    align=True,
)

packet_t = np.dtype(
    [
        # one stored packet and its description (m); valid while sequence matches and the ring has not passed start
        ("sequence", "i8"),  # extended; 0: never used
        ("start", "i8"),  # ring_written before it was stored (its place is start & (ring_bytes - 1))
        ("arrival_ns", "i8"),
        ("timestamp", "u4"),
        ("size", "u2"),  # whole plaintext RTP packet as stored
        ("payload_at", "u2"),  # offset of the payload in it
        ("payload_type", "u1"),
        ("codec", "u1"),
        ("marker", "u1"),
        ("flags", "u1"),
        ("padding", "u1"),  # padding bytes at the end (included in size)
        ("spatial", "u1"),
        ("temporal", "u1"),
        ("tl0_at", "u1"),  # offset from payload_at of TL0PICIDX; 0: none
        ("picture_at", "u1"),  # offset from payload_at of the picture id; 0: none
        ("picture_bytes", "u1"),  # 1 or 2
        ("tl0", "u1"),
        ("primary_at", "u2"),  # RED: offset from payload_at of the primary block's data
        ("picture_id", "i4"),  # -1: none
        ("frame_number", "i4"),  # from the dependency descriptor; -1: none
        ("template", "u1"),  # dependency descriptor: template index after subtracting the structure's offset
        ("indications", "u8"),  # dependency descriptor: decode target indications, 2 bits each, target 0 lowest
        ("extension_at", "u2", COPIED),  # offset of the data of extension kind k in the stored packet; 0: absent
        ("extension_bytes", "u1", COPIED),
    ],
    align=True,
)

header_t = np.dtype(
    [
        # what only ingress needs of the RTP header in hand; the rest is in packet_t (m)
        ("ssrc", "u4"),
        ("sequence", "u2"),
        ("at", "u2", EXTENSION_KINDS),  # offset of the data of extension kind k; 0: absent
        ("bytes", "u1", EXTENSION_KINDS),
    ],
    align=True,
)

dependency_t = np.dtype(
    [
        # template structure of a stream's dependency descriptors (m)
        ("valid", "u1"),
        ("structure_offset", "u1"),  # template_id_offset
        ("template_count", "u1"),
        ("target_count", "u1"),
        ("chain_count", "u1"),
        ("active_targets", "u4"),  # mask in force
        ("template_spatial", "u1", TEMPLATES),
        ("template_temporal", "u1", TEMPLATES),
        ("template_indications", "u8", TEMPLATES),
        ("target_spatial", "u1", DECODE_TARGETS),  # highest layers of a decode target; 255: no frame belongs to it
        ("target_temporal", "u1", DECODE_TARGETS),
        ("structure_frame", "i4"),  # frame number and timestamp of the key frame that brought the structure
        ("structure_timestamp", "u4"),
        ("structure_sequence", "i8"),  # extended RTP sequence that brought the structure: older ones do not replace it
        ("targets_sequence", "i8"),  # the same for active_targets
        ("enterable", "u4"),  # decode targets that a receiver of fewer temporal layers may enter with the next frame
    ],
    align=True,
)

subscription_t = in_lines(
    [
        # what every packet needs: SUBSCRIPTION_LINES cache lines. Who, and which layer is forwarded
        ("state", "u1"),
        ("kind", "u1"),  # (c)
        ("paused", "u1"),  # (m) by command
        ("started", "u1"),  # (m) a packet left
        ("payload_type", "u1"),  # (c)
        ("mid_acknowledged", "u1"),  # (m) an RR named the SSRC: mid is no longer sent
        ("last_marker", "u1"),
        ("layer", "i1"),  # simulcast: layer being forwarded, -1 none; SVC: 0 once started
        ("wanted_layer", "i1"),  # simulcast: layer waited for
        ("temporal", "u1"),  # highest temporal layer being forwarded
        ("target_spatial", "u1"),  # by command
        ("target_temporal", "u1"),
        ("red_payload_type", "i2"),  # (c) -1: unwrap
        ("history_use", "u2"),  # (c) tells what is remembered for it from what was for others
        ("generation", "i4"),  # (c)
        ("transport", "i4"),  # (c) the subscriber's
        ("next_of_track", "i4"),  # (m)
        ("ssrc", "u4"),  # (c)
        ("rtx_ssrc", "u4"),  # (c) 0: none
        ("stream", "i4"),  # stream row being or last forwarded, to which the offsets belong; -1 none
        ("source_ssrc", "u4"),  # SSRC of that stream then; another one means other timestamps and picture ids
        ("timestamp_offset", "u4"),  # in - out
        ("track", "i4"),  # (c)
        ("history", "i4"),  # (c) row of history
        # rewriting (m); out = in - offset
        ("in_highest", "i8"),  # highest extended input sequence decided on, of the current layer
        ("out_highest", "i8"),  # last extended output sequence; starts random below 32768
        ("dropped", "u8"),  # of the 64 input numbers around in_highest, by number & 63: dropped on purpose
        ("sent", "u8"),  # the same: sent, or dropped after its number had been skipped
        ("packets", "i8"),
        ("octets", "i8"),  # RTP payload, for sender reports
        ("last_ns", "i8"),  # when last_timestamp was sent
        ("last_timestamp", "u4"),  # highest output timestamp
        ("picture_timestamp", "u4"),  # input timestamp of the newest picture decided on
        # pictures and scalable layers (m)
        ("picture_offset", "i4"),  # modulo 2^15
        ("tl0_offset", "i4"),  # modulo 2^8
        ("last_picture", "i4"),  # output picture id of picture_highest; -1: none yet
        ("last_tl0", "i4"),  # last output TL0PICIDX; -1: none yet
        ("picture_highest", "i4"),  # highest input picture id decided on, counted on beyond its width
        ("pictures_dropped", "u8"),  # of the 64 pictures around picture_highest, by number & 63: dropped
        ("switch_sequence", "i8"),  # extended input sequence of the switch: older packets of the layer are not sent
        ("index_highest", "i8"),  # highest SRTP packet index used; -1: none
        ("indices", "u8"),  # of the 64 indices around index_highest, by index & 63: used
        ("spatial", "i1"),  # SVC: highest spatial layer being forwarded
        ("decode_target", "i1"),  # SVC with dependency descriptors: target of (spatial, temporal); -1 unknown
        ("targets", "u4"),  # SVC: active decode target mask to write; 0: descriptors are copied as they are
        ("produced_targets", "u4"),  # SVC: active targets of the encoder when decode_target was chosen
        # retransmission, feedback and reports
        ("next_of_transport", "i4"),  # (m)
        ("rtx_payload_type", "i2"),  # (c) -1: none
        ("codec", "u1"),  # (c) that it was negotiated for; NONE: any
        ("mid", "u1", 16),  # (c)
        ("mid_bytes", "u1"),  # (c)
        ("rtx_mid_acknowledged", "u1"),  # (m)
        ("cname", "u1", 32),  # (c)
        ("cname_bytes", "u1"),  # (c)
        ("silent_packets", "u1"),  # (m) that are still to be sent before media come: sfu/media/send/silence.py
        ("rtx_sequence", "i8"),  # (m) SRTP packet index of the last retransmission
        ("retransmitted", "i8"),
        ("report_ns", "i8"),  # last sender report sent
        ("fraction_lost", "u1"),  # from the last receiver report
        ("lost", "i4"),
        ("jitter", "u4"),
        ("silent_next", "i4"),  # (m) next subscription with silent_packets, + 1; 0: none
        ("silent_before", "i4"),  # (m) the one before it, + 1
        ("heard_ns", "i8"),  # arrival of the last receiver report
        ("key_asked_ns", "i8"),  # when the subscriber last asked for a key frame
        ("bytes_at_check", "i8"),
        ("bitrate_bps", "i8"),
        # what `dropped`, `sent`, `indices` and `pictures_dropped` say about earlier numbers: for late packets (m)
        ("dropped_past", "u8", PAST_WORDS),
        ("sent_past", "u8", PAST_WORDS),
        ("indices_past", "u8", PAST_WORDS),
        ("pictures_past", "u8", PAST_WORDS),
    ]
)
SUBSCRIPTION_LINES = 3
"""Cache lines at the beginning of a subscription's row that every packet needs."""

history_t = np.dtype(
    [
        # one packet that left on a subscription, by output sequence & (HISTORY - 1) (m): two share a cache line
        ("out_sequence", "u4"),  # the low 32 bits of the extended one
        ("in_sequence", "u4"),  # the same, in `stream`
        ("stream", "i4"),
        ("timestamp", "u4"),  # as sent
        ("targets", "u4"),  # active decode target mask written into the descriptor; 0: not rewritten
        ("resent_us", "u4"),  # low 32 bits of when it was last resent, to ignore NACKs that crossed it
        ("picture_id", "i2"),  # as sent, 15 bits; -1: not rewritten
        ("tl0", "i2"),  # as sent; -1
        ("use", "u2"),  # history_use of the subscription: rows are not cleared when they are used again
        ("marker", "u1"),
        ("resent", "u1"),  # times
    ],
    align=True,
)

arrival_t = np.dtype(
    [
        # one new packet of the track that egress is working on (m)
        ("stream", "i4"),
        ("index", "i4"),  # into packets[stream]
        ("layer", "u1"),
        ("key_start", "u1"),  # first packet of a key frame
        ("padding", "u1"),  # bytes that make it as large as what follows
    ],
    align=True,
)

command_t = np.dtype(
    [("kind", "i4"), ("row", "i4"), ("generation", "i4"), ("_1", "i4"), ("a", "i8"), ("b", "i8")], align=True
)
notice_t = np.dtype(
    # as the control thread takes it: of a stream, row is its track's and value its layer
    [("kind", "i4"), ("row", "i4"), ("generation", "i4"), ("_1", "i4"), ("value", "i8"), ("extra", "i8")],
    align=True,
)
slow_t = np.dtype(
    [("transport", "i4"), ("generation", "i4"), ("size", "i4"), ("path", "i4"), ("data", "u1", SLOW_BYTES)], align=True
)
relay_t = np.dtype(
    [
        # what one media thread tells another about a track that both have; written by the sender
        ("kind", "i4"),  # RELAYED_PACKET, RELAYED_REPORT, RELAYED_WISH
        ("track", "i4"),  # row at the receiving thread
        ("generation", "i4"),
        ("layer", "i4"),
        ("size", "i4"),  # packet: bytes of data
        ("ssrc", "u4"),  # packet: of the publisher's stream
        ("timestamp", "u4"),  # report
        ("ntp", "u8"),  # report
        ("sequence", "i8"),  # packet: extended
        ("arrival_ns", "i8"),  # packet, report
        ("data", "u1", RX_BYTES),  # packet: plaintext RTP
    ],
    align=True,
)
RELAYED_PACKET, RELAYED_REPORT, RELAYED_WISH = 1, 2, 3

ring_t = np.dtype(
    # producer's and consumer's words on cache lines of their own
    [("written", "i8"), ("dropped", "i8"), ("_1", "u1", 48), ("read", "i8"), ("_2", "u1", 56)]
)
socket_t = np.dtype([("fd", "i4"), ("family", "i4"), ("port", "i4"), ("wildcard", "i4")], align=True)

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

thread_t = np.dtype(
    [
        # the media thread itself
        ("stop", "u4"),  # (c)
        ("idle", "u4"),  # (m) about to wait
        ("turns", "i8"),  # (m)
        ("now_ns", "i8"),  # (m) CLOCK_MONOTONIC of this turn
        ("wall_offset_ns", "i8"),  # (m) CLOCK_REALTIME minus CLOCK_MONOTONIC
        ("wake_fd", "i4"),  # (c) eventfd: control -> media
        ("control_fd", "i4"),  # (c) eventfd: media -> control
        ("notify", "u4"),  # (m) a notice was given or a datagram put into slow: write control_fd at the end of the turn
        ("notices", "i8"),  # (m) how many were given
        ("socket_count", "i4"),  # (c)
        ("open_transports", "i4"),  # (m)
        ("row_in_hand", "i4"),  # (m) transport that is being worked for; -1 none
        ("path_in_hand", "i4"),  # (m) path of the packet in hand, or one that shares its address; -1 none
        ("relay_in_hand", "i4"),  # (m) media thread whose entry is being taken; -1 none
        ("first_dirty_track", "i4"),  # (m)
        ("first_silent", "i4"),  # (m) first subscription with silent_packets, + 1; 0: none
        ("silence_turn", "i4"),  # (m) passes of silence_pass
        ("transport_end", "i4"),  # (m) rows at or beyond were never opened; passes stop there
        ("track_end", "i4"),  # (m)
        ("stream_end", "i4"),  # (m)
        ("subscription_end", "i4"),  # (m)
        ("free_path", "i4"),  # (m)
        ("free_source", "i4"),  # (m)
        ("unbound", "i4"),  # (m) sources without a stream, of all transports
        ("segment_offload", "u1"),  # (c) UDP_SEGMENT works here
        ("tx_count", "i4"),  # (m) slots filled since the last flush
        ("send_time", "u4"),  # (m) abs-send-time of what egress writes now
        ("messages_sent", "i8"),  # (m)
        ("packets_sent", "i8"),  # (m)
        ("packets_received", "i8"),  # (m)
        # timers (m)
        ("feedback_ns", "i8"),
        ("reports_ns", "i8"),
        ("levels_ns", "i8"),
        ("liveness_ns", "i8"),
        ("consent_ns", "i8"),
        ("rates_ns", "i8"),  # when bit rates were last computed
        # addresses of parts of this very state and of the arena (c): for system calls and libsrtp only
        ("state_at", "u8"),
        ("arena_at", "u8"),
        ("rx_at", "u8"),
        ("rx_messages_at", "u8"),
        ("tx_at", "u8"),
        ("tx_messages_at", "u8"),
        ("tx_iov_at", "u8"),
        ("tx_control_at", "u8"),
        ("scratch_at", "u8"),
        ("poll_at", "u8"),
        ("paths_at", "u8"),
        # the media threads of this process (c)
        ("number", "i4"),
        ("thread_count", "i4"),
        ("peers_at", "u8", MAX_THREADS),  # the states of all of them
    ],
    align=True,
)

state_t = in_lines(
    [
        ("thread", thread_t, 1),
        ("drops", "i8", DROPS),
        ("rings", ring_t, 2),  # 0 commands, 1 slow
        ("commands", command_t, COMMANDS),
        ("noticed", "u4", NOTICE_SLOTS),  # (m) how often a notice was given, by NOTICE_FIRST[kind] + row
        ("noticed_blocks", "u4", NOTICE_BLOCKS),  # (m) how often one of a block was
        ("heard", "u4", NOTICE_SLOTS),  # (c) what `noticed` said when the notice was last taken
        ("heard_blocks", "u4", NOTICE_BLOCKS),  # (c)
        ("heard_next", "i4", 1),  # (c) block where taking goes on
        ("slow", slow_t, SLOW_SLOTS),
        ("sockets", socket_t, SOCKETS),
        ("poll", pollfd_t, SOCKETS + 1),
        ("scratch", "i8", 64),  # words 40: length for libsrtp, 42-43: IV, 48-51: times, 52: eventfd, 56-58: HMAC digest
        ("header", header_t, 1),  # of the RTP packet in hand
        ("incoming", packet_t, 1),  # its description, copied to `packets` when it is stored
        ("nothing", packet_t, 1),  # never written: a packet without header extensions
        ("symbols", "u1", ARRIVALS),  # transport-cc packet statuses of the feedback being written
        ("rx", "u1", (RX_SLOTS, RX_BYTES)),
        ("rx_iov", iovec_t, RX_SLOTS),
        ("rx_messages", mmsghdr_t, RX_SLOTS),
        ("rx_names", "u1", (RX_SLOTS, 28)),
        ("rx_control", "u8", (RX_SLOTS, RX_CONTROL_BYTES // 8)),
        ("tx", "u1", (TX_SLOTS, TX_BYTES)),
        ("tx_path", "i4", TX_SLOTS),
        ("tx_size", "i4", TX_SLOTS),
        ("tx_iov", iovec_t, TX_SLOTS),
        ("tx_messages", mmsghdr_t, TX_SLOTS),
        ("tx_message_first", "i4", TX_SLOTS),  # first slot of each message
        ("tx_control", "u8", (TX_SLOTS, TX_CONTROL_BYTES // 8)),
        ("path_slots", "i4", PATH_SLOTS),  # hash tables: row + 1, 0 empty, -1 deleted
        ("source_slots", "i4", SOURCE_SLOTS),
        ("outgoing_slots", "i4", OUTGOING_SLOTS),  # subscription * 2 + rtx + 1
        ("ufrag_slots", "i4", UFRAG_SLOTS),  # transport * 2 + which + 1
        ("paths", path_t, PATHS),
        ("media", media_t, MEDIA_PER_TRANSPORT * TRANSPORTS),
        ("transports", transport_t, TRANSPORTS),
        ("arrivals", arrivals_t, TRANSPORTS),
        ("sources", source_t, SOURCES),
        ("tracks", track_t, TRACKS),
        ("streams", stream_t, STREAMS),
        ("dependencies", dependency_t, STREAMS + 1),  # the last row is SCRATCH_DEPENDENCY
        ("packets", packet_t, (STREAMS, PACKETS)),
        ("subscriptions", subscription_t, SUBSCRIPTIONS),
        ("history", history_t, (SUBSCRIPTIONS + 1, HISTORY)),  # the last row is SCRATCH_HISTORY
        ("batch", arrival_t, BATCH),
        ("groups", "i4", GROUPS),  # first track of each group + 1; 0: none
        ("relays", ring_t, MAX_THREADS),  # by sending thread
        ("relay_entries", relay_t, (MAX_THREADS, RELAY_SLOTS)),
    ],
    whole_rows=False,
)

COMMAND_RING, SLOW_RING = 0, 1


def allocate() -> tuple[Any, Any]:
    """The state (shape (1,), `state_t`) and the arena (shape (ARENA_BYTES,), u1), zeroed and untouched.

    Anonymous maps and not `np.zeros`: numpy asks for huge pages, and then one byte written costs 2 MiB.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # private: reading an untouched page costs no memory
    state = np.frombuffer(mmap.mmap(-1, state_t.itemsize, flags), state_t, 1)
    arena = np.frombuffer(mmap.mmap(-1, ARENA_BYTES, flags), np.uint8, ARENA_BYTES)
    return state, arena
