"""Rows of the tables, seen from the control thread: which are free, and what is written into them before they open.

A row is taken, its CONTROL and HANDED columns are written, then an OPEN command publishes it; it comes back with the
CLOSED notice and not before. The lowest free row goes first, so that passes over a table stay short.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sfu.control.cache_space import CacheSpace
from sfu.control.security.srtp_keys import SendingCipher
from sfu.errors import EngineError, TableFull
from sfu.media.wire.overhead import SHA1_80_TAG_BYTES
from sfu.parameters import (
    Codec,
    Encoding,
    IceCredentials,
    Kind,
    MediaParameters,
    PublishParameters,
    SubscribeParameters,
)
from sfu.schema.capacities import (
    CONNECTIONS,
    EXTENSION_IDS,
    LAYERS,
    MEDIA_PER_TRANSPORT,
    NOTICE_FIRST,
    SCRATCH_HISTORY,
    STREAMS,
    SUBSCRIPTIONS,
    TRACKS,
    TRANSPORTS,
)
from sfu.schema.codes import MediaKind, NoticeKind
from sfu.schema.estimate_tables import MAX_BPS
from sfu.schema.memory import Memory

KINDS = {Kind.AUDIO: MediaKind.AUDIO, Kind.VIDEO: MediaKind.VIDEO}
MAX_GENERATION = 0x7FFFFFFF
MAX_USE = 0xFFFF
NO_SOURCE = (-1, -1, 0)
PLAYOUT_UNIT_MS, MAX_PLAYOUT = 10, (1 << 12) - 1
STREAM_NOTICES = (NoticeKind.STREAM_STARTED, NoticeKind.CACHE_REQUESTED, NoticeKind.CACHE_LEFT)


class Rows:
    """Free rows of one table; `used` counts those that are taken."""

    def __init__(self, name: str, capacity: int) -> None:
        self._name = name
        self._capacity = capacity
        self._fresh = 0
        self._returned: list[int] = []
        self.used = 0

    def take(self) -> int:
        """The lowest free row.

        Raises:
            TableFull: no row is free.
        """
        if self._returned:
            row = heapq.heappop(self._returned)
        elif self._fresh < self._capacity:
            row, self._fresh = self._fresh, self._fresh + 1
        else:
            raise TableFull(f"no free row in {self._name}")
        self.used += 1
        return row

    def give_back(self, row: int) -> None:
        """Take a row back, which is free again."""
        heapq.heappush(self._returned, row)
        self.used -= 1


@dataclass(slots=True)
class StreamRow:
    """One layer's row and its piece of the arena."""

    row: int
    cache_start: int
    cache_bytes: int
    old_cache: tuple[int, int] | None = None
    """Start and bytes of the one before, until the media thread has left it."""


class Tables:
    """Takes rows, fills them in, takes them back. `generation` of a row counts its uses."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.caches = CacheSpace()
        self.key_frame_retry_ms = (0, 0, 0)
        """`EngineOptions.key_frame_retry_ms`, by layer, for streams that are taken from now on."""
        self.transports = Rows("transports", TRANSPORTS)
        self.tracks = Rows("tracks", TRACKS)
        self.streams = Rows("streams", STREAMS)
        self.subscriptions = Rows("subscriptions", SUBSCRIPTIONS)
        self.connections = Rows("connections", CONNECTIONS)
        self._histories = Rows("history", SUBSCRIPTIONS)
        self._noticed, self._taken = memory.table("noticed"), memory.table("taken")
        self._history_uses = 0

    def take_transport(
        self, ice: IceCredentials, ssrc: int, may_pause: bool = False, resumed_bps: int = 0, beside: int = -1
    ) -> tuple[int, int]:
        """Row and generation of a transport with these local credentials. ssrc: ours for RTCP; may_pause: of a video
        nothing at all may be sent when not even key frames fit; resumed_bps: what its client's path was last known to
        carry, 0: not known; beside: row of the transport on which its client publishes, -1: it is the only one."""
        row = self.transports.take()
        self._forget_notices(row, (NoticeKind.PATH_SELECTED, NoticeKind.CONSENT_EXPIRED, NoticeKind.TRANSPORT_BROKEN))
        record = self._memory.table("transports")[row]
        record["ufrag"][0] = pack_ufrag(ice.ufrag)
        record["ufrag"][1] = 0
        record["password"][0] = list(ice.password.encode())
        record["ssrc"] = ssrc
        record["may_pause"] = may_pause
        record["beside"] = beside + 1
        record["resumed_bps"] = min(max(resumed_bps, 0), MAX_BPS)
        record["cipher"] = record["srtcp_tag_bytes"] = 0
        # The media thread's, but the control thread reads them, maybe before the OPEN command is applied.
        record["path"] = -1
        record["media"] = row * MEDIA_PER_TRANSPORT
        return row, _next_generation(record)

    def write_cipher(self, row: int, cipher: SendingCipher | None) -> None:
        """What START_SRTP will put in force for the RTP that a transport sends. None: libsrtp protects it, under the
        one profile that is not GCM."""
        record = self._memory.table("transports")[row]
        record["salt"], record["salt_end"] = (0, 0) if cipher is None else cipher.salt_words
        record["cipher"] = 0 if cipher is None else cipher.address
        record["srtcp_tag_bytes"] = (
            SHA1_80_TAG_BYTES if cipher is None else 0
        )  # RFC 3711 section 3.4, RFC 7714 section 9

    def write_credentials(self, row: int, ice: IceCredentials) -> None:
        """What the next NEW_CREDENTIALS command of a transport will put in force."""
        record = self._memory.table("transports")[row]
        record["next_ufrag"] = pack_ufrag(ice.ufrag)
        record["next_password"] = list(ice.password.encode())

    def write_media(self, row: int, media: MediaParameters) -> None:
        """Fill row `row` of `media`, which must not be in use.

        Raises:
            EngineError: a number is out of range.
        """
        check_media(media)
        record = self._memory.table("media")[row]
        for name in ("extension_of_id", "id_of_extension", "codec_of_pt", "nack_of_pt", "clock_of_pt"):
            record[name] = 0
        record["associated_pt"] = -1
        for number, extension in media.extensions.items():
            record["extension_of_id"][number] = extension
            record["id_of_extension"][extension] = number
        for number, payload_type in media.payload_types.items():
            record["codec_of_pt"][number] = payload_type.codec
            record["associated_pt"][number] = payload_type.associated
            record["nack_of_pt"][number] = payload_type.nack
            record["clock_of_pt"][number] = payload_type.clock_rate
        record["mixed_extensions"] = media.mixed_extensions
        for kind, number in KINDS.items():
            record["numbered"][number] = kind not in media.unnumbered

    def take_track(
        self, transport: int, parameters: PublishParameters, source: tuple[int, int, int] = NO_SOURCE
    ) -> tuple[int, int, tuple[StreamRow, ...]]:
        """Row and generation of a track on transport row `transport`, and its layers' rows.

        source: of a mirror, (media thread, track row, generation) of what it mirrors.

        Raises:
            TableFull: no row is free.
            EngineError: a parameter is out of range.
        """
        if not 1 <= len(parameters.encodings) <= LAYERS:
            raise EngineError(f"a track has 1 to {LAYERS} encodings, not {len(parameters.encodings)}")
        for ssrc in (each for encoding in parameters.encodings for each in (encoding.ssrc, encoding.rtx_ssrc)):
            if not 0 <= ssrc < 1 << 32:
                raise EngineError(f"SSRC {ssrc} is out of range")
        mid = _text(parameters.mid, 16, "mid")
        rids = [_text(encoding.rid, 16, "rid") for encoding in parameters.encodings]
        streams = self._take_streams(KINDS[parameters.kind], len(parameters.encodings))
        try:
            row = self.tracks.take()
        except TableFull:
            self.give_back_streams(streams)
            raise
        self._forget_notices(row, (NoticeKind.LAYERS_CHANGED,))
        for stream in streams:
            self._forget_notices(stream.row, STREAM_NOTICES)
        record = self._memory.table("tracks")[row]
        record["kind"] = KINDS[parameters.kind]
        record["codecs"] = 0 if source != NO_SOURCE else codec_mask(parameters.codecs)
        record["layer_count"] = len(streams)
        record["screen"] = parameters.screen
        record["transport"] = transport
        _write_text(record, "mid", mid)
        record["group"], record["group_limit"] = parameters.group, parameters.group_limit
        record["owner"] = transport + 1
        record["source_thread"], record["source_row"], record["source_generation"] = source
        record["streams"] = -1
        for layer, (stream, encoding) in enumerate(zip(streams, parameters.encodings, strict=True)):
            record["streams"][layer] = stream.row
            self._write_stream(stream, layer, record, row, encoding, rids[layer])
        return row, _next_generation(record), streams

    def give_back_track(self, row: int, streams: Iterable[StreamRow]) -> None:
        """Take the rows of a track and its layers back, and their packet caches."""
        self.tracks.give_back(row)
        self.give_back_streams(streams)

    def give_back_streams(self, streams: Iterable[StreamRow]) -> None:
        """Take the layers' rows and packet caches back."""
        for stream in streams:
            self.streams.give_back(stream.row)
            self.caches.give_back(stream.cache_start, stream.cache_bytes)
            self.cache_left(stream)

    def change_cache(self, stream: StreamRow, size: int, in_use: int) -> bool:
        """Take another packet cache for a layer. False: there is no space, or the last change is still on its way.

        in_use: bytes of all packet caches of its transport, which decide whether it grows when space is scarce.
        """
        if stream.old_cache is not None or (size > stream.cache_bytes and not self.caches.may_grow(size, in_use)):
            return False
        start = self.caches.take(size)
        if start < 0:
            return False
        stream.old_cache = stream.cache_start, stream.cache_bytes
        stream.cache_start, stream.cache_bytes = start, size
        return True

    def cache_left(self, stream: StreamRow) -> None:
        """Take back the packet cache before the last change, if there is one."""
        if stream.old_cache is not None:
            self.caches.give_back(*stream.old_cache)
            stream.old_cache = None

    def take_subscription(
        self, track: int, transport: int, kind: Kind, ssrcs: tuple[int, int], parameters: SubscribeParameters
    ) -> tuple[int, int]:
        """Row and generation of track row `track` forwarded to transport row `transport`. ssrcs: ours for media and
        for RTX (0: none).

        Raises:
            TableFull: no row is free.
            EngineError: a parameter is out of range.
        """
        mid = _text(parameters.mid, 16, "mid")
        cname = _text(parameters.cname, 32, "cname")
        if not 0 <= parameters.payload_type < 128:
            raise EngineError(f"payload type {parameters.payload_type} is out of range")
        for number in (parameters.rtx_payload_type, parameters.red_payload_type):
            if not -1 <= number < 128:
                raise EngineError(f"payload type {number} is out of range")
        row = self.subscriptions.take()
        self._forget_notices(row, (NoticeKind.SUBSCRIPTION_STARTED, NoticeKind.ALLOWANCE_CHANGED))
        record = self._memory.table("subscriptions")[row]
        # as many rows as subscriptions, so there is one
        record["history"] = self._histories.take() if ssrcs[1] else SCRATCH_HISTORY
        self._history_uses = record["history_use"] = self._history_uses % MAX_USE + 1
        record["kind"] = KINDS[kind]
        record["track"] = track
        record["transport"] = transport
        record["ssrc"], record["rtx_ssrc"] = ssrcs
        record["payload_type"] = parameters.payload_type
        record["rtx_payload_type"] = parameters.rtx_payload_type
        record["codec"] = parameters.codec
        record["red_payload_type"] = parameters.red_payload_type
        record["playout_delay"] = pack_playout_delay(parameters.playout_delay_ms)
        _write_text(record, "mid", mid)
        _write_text(record, "cname", cname)
        return row, _next_generation(record)

    def give_back_subscription(self, row: int) -> None:
        """Take the row of a subscription back, and its row of `history`."""
        self.subscriptions.give_back(row)
        history = int(self._memory.table("subscriptions")[row]["history"])
        if history != SCRATCH_HISTORY:
            self._histories.give_back(history)

    def take_connection(self, address: bytes, fd: int) -> tuple[int, int]:
        """Row and generation of a TCP connection. address: its peer's sockaddr; fd: its descriptor.

        Raises:
            TableFull: no row is free.
        """
        row = self.connections.take()
        record = self._memory.table("connections")[row]
        record["family"] = 4 if len(address) == 16 else 6
        record["address"] = list(address.ljust(28, b"\0"))
        record["address_bytes"] = len(address)
        record["fd"] = fd
        return row, _next_generation(record)

    def _forget_notices(self, row: int, kinds: Iterable[int]) -> None:
        """Skip the notices that were given of a free row and not taken yet: they concern its last use."""
        for kind in kinds:
            slot = NOTICE_FIRST[kind] + row
            self._taken[slot] = self._noticed[slot]

    def _take_streams(self, kind: int, count: int) -> tuple[StreamRow, ...]:
        taken: list[StreamRow] = []
        for layer in range(count):
            size = CacheSpace.size_for(kind, layer, count)
            start = self.caches.take(size)
            if start < 0:
                self.give_back_streams(taken)
                raise TableFull("no space for another packet cache")
            try:
                taken.append(StreamRow(self.streams.take(), start, size))
            except TableFull:
                self.caches.give_back(start, size)
                self.give_back_streams(taken)
                raise
        return tuple(taken)

    def _write_stream(
        self, stream: StreamRow, layer: int, track: Any, track_row: int, encoding: Encoding, rid: bytes
    ) -> None:
        record = self._memory.table("streams")[stream.row]
        record["layer"] = layer
        record["key_frame_retry_ns"] = 1_000_000 * self.key_frame_retry_ms[layer]
        record["kind"] = track["kind"]
        record["track"] = track_row
        record["transport"] = track["transport"]
        _write_text(record, "rid", rid)
        record["ssrc"] = encoding.ssrc
        record["rtx_ssrc"] = encoding.rtx_ssrc
        record["announced_bps"] = max(encoding.bitrate_bps, 0)
        record["cache_start"] = stream.cache_start
        record["cache_bytes"] = stream.cache_bytes


def codec_mask(codecs: Iterable[Codec]) -> int:
    """The bit mask by which `tracks.codecs` holds these codecs."""
    return sum({1 << codec for codec in codecs})


def check_media(media: MediaParameters) -> None:
    """Check what negotiation says about payload types and header extensions.

    Raises:
        EngineError: a payload type, an extension id or a clock rate is out of range.
    """
    for number, payload_type in media.payload_types.items():
        if not (0 <= number < 128 and -1 <= payload_type.associated < 128):
            raise EngineError(f"payload type {number} (of {payload_type.associated}) is out of range")
        if not 0 <= payload_type.clock_rate < 1 << 32:
            raise EngineError(f"clock rate {payload_type.clock_rate} is out of range")
    for number in media.extensions:
        if not 0 < number < EXTENSION_IDS:
            raise EngineError(f"header extension id {number} is out of range")


def pack_ufrag(ufrag: str) -> int:
    """A ufrag of 8 ASCII characters as the tables hold it."""
    return int.from_bytes(ufrag.encode(), "little")


def pack_playout_delay(milliseconds: tuple[int, int] | None) -> int:
    """The 24 bits of the playout-delay extension: twice 12 bits in units of 10 ms, the least and the most; 0 stands
    for None, since the most is never 0: it is rounded to one unit at least. A least above the most counts as the most.

    Raises:
        EngineError: a delay is below 0.
    """
    if milliseconds is None:
        return 0
    if min(milliseconds) < 0:
        raise EngineError(f"a playout delay of {milliseconds} ms cannot be")
    least, most = (min((each + PLAYOUT_UNIT_MS // 2) // PLAYOUT_UNIT_MS, MAX_PLAYOUT) for each in milliseconds)
    most = max(most, 1)
    return min(least, most) << 12 | most


def _next_generation(record: Any) -> int:
    generation = int(record["generation"]) % MAX_GENERATION + 1
    record["generation"] = generation
    return generation


def _text(value: str, limit: int, name: str) -> bytes:
    encoded = value.encode()
    if len(encoded) > limit or not value.isascii():
        raise EngineError(f"{name} {value!r} is longer than {limit} ASCII characters")
    return encoded


def _write_text(record: Any, name: str, value: bytes) -> None:
    """Zero-padded bytes in column `name`, their number in `<name>_bytes`."""
    record[name] = 0
    record[name][: len(value)] = list(value)
    record[f"{name}_bytes"] = len(value)
