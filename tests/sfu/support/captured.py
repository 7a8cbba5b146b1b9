"""Reads the recordings in `captures/` and has the kernels describe them, without the rest of ingress."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sfu.media.wire.describe import describe
from sfu.media.wire.numbers import extend16
from sfu.media.wire.rtp import parse_header
from sfu.parameters import EXTENSION_URIS, Codec, Extension
from sfu.schema.capacities import PACKETS, SEQUENCE_START
from sfu.schema.codes import MediaKind, PacketFlag
from sfu.schema.memory import Memory

CAPTURES = Path(__file__).parent / "captures"
CODECS = {name: Codec[name.upper()] for name in ("VP8", "VP9", "H264", "AV1", "opus", "red")}
MEDIA_ROW = 0
COLUMNS = (
    "flags", "spatial", "temporal", "picture_id", "tl0", "frame_number", "template", "indications", "marker",
    "timestamp", "primary_at", "payload_at", "picture_at", "picture_bytes", "tl0_at", "size",
)  # fmt: skip


@dataclass(frozen=True)
class Described:
    """One recorded packet after `describe`: its bytes (payload cut, then zeros), its SSRC, and the packet's columns."""

    ssrc: int
    sequence: int
    data: bytes
    columns: dict[str, int]
    descriptor: bytes

    def __getattr__(self, name: str) -> int:
        return self.columns[name]

    def has(self, flag: int) -> bool:
        return bool(self.columns["flags"] & flag)


@cache
def recorded(name: str) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """The legend and the packets of a recording, each filled up with zeros to the size it had on the wire."""
    head, _, rest = (CAPTURES / f"{name}.bin").read_bytes().partition(b"\n")
    packets, at = [], 0
    while at < len(rest):
        _, size, kept = struct.unpack_from("!IHH", rest, at)
        packets.append(rest[at + 8 : at + 8 + kept].ljust(size, b"\0"))
        at += 8 + kept
    return json.loads(head), tuple(packets)


def set_media(memory: Memory, legend: dict[str, Any], without: frozenset[Extension] = frozenset()) -> None:
    """Fill the media row 0 with what was negotiated, except for the extensions in `without`."""
    media = memory.table("media")[MEDIA_ROW]
    for number, (name, clock) in legend["codecs"].items():
        media["codec_of_pt"][int(number)] = CODECS.get(name, Codec.NONE)
        media["clock_of_pt"][int(number)] = clock
    for number, uri in legend["extensions"].items():
        kind = EXTENSION_URIS.get(uri, Extension.NONE)
        media["extension_of_id"][int(number)] = Extension.NONE if kind in without else kind


class Describer:
    """Describes packets one by one as ingress does: one stream row per SSRC, packets stored at their index."""

    def __init__(self, legend: dict[str, Any], without: frozenset[Extension] = frozenset()) -> None:
        self.memory = Memory()
        set_media(self.memory, legend, without)
        self.rows: dict[int, int] = {}

    def row_of(self, ssrc: int) -> int:
        if ssrc not in self.rows:
            self.rows[ssrc] = len(self.rows)
            stream = self.memory.table("streams")[self.rows[ssrc]]
            stream["highest"] = stream["key_sequence"] = -1
            stream["kind"] = MediaKind.VIDEO
        return self.rows[ssrc]

    def take(self, data: bytes) -> Described:
        memory = self.memory
        buffer = np.frombuffer(data, np.uint8)
        scratch = memory.table("packets")[-1, 0]
        assert parse_header(memory.record, MEDIA_ROW, buffer, len(data), scratch)
        header = memory.table("header")[0]
        ssrc = int(header["ssrc"])
        row = self.row_of(ssrc)
        stream = memory.table("streams")[row]
        sequence = extend16(int(header["sequence"]), int(stream["highest"]))
        index = row, sequence & (PACKETS - 1)
        memory.table("packets")[index] = scratch
        packet = memory.table("packets")[index]
        packet["sequence"] = sequence
        packet["codec"] = memory.table("media")[MEDIA_ROW]["codec_of_pt"][int(packet["payload_type"])]
        if packet["codec"] in (Codec.OPUS, Codec.RED):
            stream["kind"] = MediaKind.AUDIO
        describe(memory.record, row, packet, buffer)
        stream["highest"] = max(sequence, int(stream["highest"]))
        if (
            packet["flags"] & (PacketFlag.KEY_FRAME | PacketFlag.FRAME_START)
            == PacketFlag.KEY_FRAME | PacketFlag.FRAME_START
        ):
            stream["key_sequence"] = sequence
        at, size = (int(packet[f"extension_{part}"][Extension.DEPENDENCY]) for part in ("at", "bytes"))
        columns = {name: int(packet[name]) for name in COLUMNS}
        return Described(ssrc, sequence - SEQUENCE_START, data, columns, data[at : at + size] if at else b"")


def described(name: str, without: frozenset[Extension] = frozenset()) -> Iterator[Described]:
    """Every packet of a recording, described in the order of arrival."""
    legend, packets = recorded(name)
    describer = Describer(legend, without)
    for data in packets:
        yield describer.take(data)
