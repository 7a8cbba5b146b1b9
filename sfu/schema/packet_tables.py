"""Packets that were stored, and what tells their meaning."""

from sfu.schema.capacities import COPIED, DECODE_TARGETS, EXTENSION_KINDS, TEMPLATES
from sfu.schema.columns import MEDIA, Column, RowType

PACKET = RowType(
    "packet",
    "One stored packet and its description; valid while `sequence` matches and the cache has not passed `start`.",
    (
        Column("sequence", "i8", MEDIA, "Extended sequence number; 0: this place was never used."),
        Column("start", "i8", MEDIA, "`cache_written` before it was stored (its place is start & (cache_bytes - 1))."),
        Column("arrival_ns", "i8", MEDIA, "When the packet came."),
        Column("timestamp", "u4", MEDIA, "RTP timestamp."),
        Column("size", "u2", MEDIA, "Size of the whole plaintext RTP packet as stored, in bytes."),
        Column("payload_at", "u2", MEDIA, "Offset of the payload in the stored packet."),
        Column("payload_type", "u1", MEDIA, "The payload type as received."),
        Column("codec", "u1", MEDIA, "The codec that the payload type stands for."),
        Column("marker", "u1", MEDIA, "The RTP marker bit."),
        Column("flags", "u1", MEDIA, "Bits of `PacketFlag`."),
        Column("padding", "u1", MEDIA, "Padding bytes at the end of the packet, which `size` includes."),
        Column("spatial", "u1", MEDIA, "Spatial layer of the packet."),
        Column("temporal", "u1", MEDIA, "Temporal layer of the packet."),
        Column("tl0_at", "u1", MEDIA, "Offset from payload_at of TL0PICIDX; 0: none."),
        Column("picture_at", "u1", MEDIA, "Offset from payload_at of the picture id; 0: none."),
        Column("picture_bytes", "u1", MEDIA, "Size of the picture id in the payload: 1 or 2 bytes."),
        Column("tl0", "u1", MEDIA, "TL0PICIDX of the payload descriptor."),
        Column("primary_at", "u2", MEDIA, "RED: offset from payload_at of the primary block's data."),
        Column("picture_id", "i4", MEDIA, "Picture id of the payload descriptor; -1: none."),
        Column("frame_number", "i4", MEDIA, "Frame number of the dependency descriptor; -1: none."),
        Column(
            "template", "u1", MEDIA, "Dependency descriptor: template index after subtracting the structure's offset."
        ),
        Column(
            "indications",
            "u8",
            MEDIA,
            "Dependency descriptor: decode target indications, 2 bits each, target 0 lowest.",
        ),
        Column(
            "extension_at",
            "u2",
            MEDIA,
            "Offset of the data of extension kind k in the stored packet; 0: absent.",
            shape=COPIED,
        ),
        Column("extension_bytes", "u1", MEDIA, "Size of the data of extension kind k in bytes.", shape=COPIED),
    ),
)
packet_t = PACKET.dtype

HEADER = RowType(
    "header",
    "What only ingress needs of the RTP header in hand; the rest is in `packet`.",
    (
        Column("ssrc", "u4", MEDIA, "The SSRC as received."),
        Column("sequence", "u2", MEDIA, "The 16-bit sequence number as received."),
        Column("at", "u2", MEDIA, "Offset of the data of extension kind k; 0: absent.", shape=EXTENSION_KINDS),
        Column("bytes", "u1", MEDIA, "Size of the data of extension kind k in bytes.", shape=EXTENSION_KINDS),
    ),
)

DEPENDENCY = RowType(
    "dependency",
    "The template structure of a stream's dependency descriptors.",
    (
        Column("valid", "u1", MEDIA, "Whether a structure was received."),
        Column("structure_offset", "u1", MEDIA, "The structure's template_id_offset."),
        Column("template_count", "u1", MEDIA, "Templates of the structure."),
        Column("target_count", "u1", MEDIA, "Decode targets of the structure."),
        Column("active_targets", "u4", MEDIA, "Mask of the decode targets that are active now."),
        Column("template_spatial", "u1", MEDIA, "Spatial layer of each template.", shape=TEMPLATES),
        Column("template_temporal", "u1", MEDIA, "Temporal layer of each template.", shape=TEMPLATES),
        Column(
            "template_indications",
            "u8",
            MEDIA,
            "Decode target indications of each template, 2 bits each, target 0 lowest.",
            shape=TEMPLATES,
        ),
        Column(
            "target_spatial",
            "u1",
            MEDIA,
            "Highest spatial layer of a decode target; 255: no frame belongs to it.",
            shape=DECODE_TARGETS,
        ),
        Column("target_temporal", "u1", MEDIA, "Highest temporal layer of a decode target.", shape=DECODE_TARGETS),
        Column("structure_frame", "i4", MEDIA, "Frame number of the key frame that brought the structure."),
        Column("structure_timestamp", "u4", MEDIA, "RTP timestamp of the key frame that brought the structure."),
        Column(
            "structure_sequence",
            "i8",
            MEDIA,
            "Extended RTP sequence that brought the structure: older ones do not replace it.",
        ),
        Column(
            "targets_sequence",
            "i8",
            MEDIA,
            "Extended RTP sequence that brought `active_targets`: older ones do not replace it.",
        ),
        Column(
            "enterable",
            "u4",
            MEDIA,
            "Decode targets that a receiver of fewer temporal layers may enter with the next frame.",
        ),
    ),
)
