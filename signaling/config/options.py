"""Groups of settings that the rest of the server is given, checked and with defaults filled in.

`configuration.py` makes them; they never change, and a configuration that is read again has new ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from livekit.protocol.models import DataTrackFrameEncoding, DataTrackSchemaEncoding

MAX_METADATA_BYTES, MAX_ATTRIBUTES_BYTES = 512 * 1024, 64 * 1024
"""Bytes of metadata and of all attributes where the operator says nothing, as in livekit-server."""
MAX_TEXT_BYTES, MAX_NAME_BYTES = 1024 * 1024, 8 * 1024
"""Bytes of metadata or attributes, and of a name, where the operator wants no limit: no more fits into requests."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """The files with which the main port speaks TLS, in PEM."""

    cert_file: str
    """The certificate and those that certify it, the server's own first."""
    key_file: str
    """The private key of that certificate, without a password."""


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """Where webhooks go, and which (LiveKit's `webhook`)."""

    urls: tuple[str, ...] = ()
    """Each gets every message; none: there are no webhooks."""
    api_key: str = ""
    """The API key that signs them. With `urls` it is one of the configuration's."""
    include: frozenset[str] = frozenset()
    """If not empty, the only events that are told."""
    exclude: frozenset[str] = frozenset()
    """Events that are not told; of no effect with `include`, as in livekit-server."""
    max_age_s: float = 30.0
    """Older messages are dropped."""
    max_depth: int = 200
    """The most messages of one room that wait for one URL."""
    full_room: bool = False
    """Messages about tracks describe the whole room, and not only its sid and name."""

    def allows(self, event: str) -> bool:
        """Tell whether an event of this name is told."""
        return event in self.include if self.include else event not in self.exclude


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """The most that participants and the server may have (LiveKit's `limit`)."""

    tracks: int = 0
    """Tracks that this server receives and forwards. Beyond it, rooms take nobody in. 0: no limit."""
    bytes_per_s: float = 0.0
    """Bytes a second that this server receives and sends. Beyond it, rooms take nobody in. 0: no limit."""
    video_subscriptions: int = 0
    """Videos that one participant is sent at a time; further ones wait until one of them ends. 0: no limit."""
    audio_subscriptions: int = 0
    metadata_bytes: int = MAX_METADATA_BYTES
    """UTF-8 bytes of the metadata of a participant or room."""
    attributes_bytes: int = MAX_ATTRIBUTES_BYTES
    """UTF-8 bytes of all attributes of a participant, keys and values."""
    room_name_bytes: int = 256
    identity_bytes: int = 256
    name_bytes: int = 256
    blob_key_bytes: int = 256
    """Bytes of the key of a data blob."""
    blobs_bytes: int = 64_000
    """Bytes of all data blobs of a participant, keys and contents."""
    encoding_bytes: int = 32
    """UTF-8 bytes of a name that a client gives to an encoding of its own, of frames or of a schema."""

    def hold_metadata(self, metadata: str) -> bool:
        """Tell whether a participant or a room may have this metadata."""
        return len(metadata.encode()) <= self.metadata_bytes

    def hold_attributes(self, attributes: Mapping[str, str]) -> bool:
        """Tell whether a participant may have all of `attributes`."""
        size = sum(len(key.encode()) + len(value.encode()) for key, value in attributes.items())
        return size <= self.attributes_bytes

    def hold_encoding(self, encoding: DataTrackFrameEncoding | DataTrackSchemaEncoding) -> bool:
        """Tell whether an encoding is one of LiveKit's, none, or has a name that it may have."""
        return encoding.WhichOneof("value") != "custom" or 0 < len(encoding.custom.encode()) <= self.encoding_bytes

    def hold_name(self, name: str) -> bool:
        """Tell whether a participant may have this name."""
        return len(name.encode()) <= self.name_bytes

    def hold_identity(self, identity: str) -> bool:
        """Tell whether a participant may have this identity."""
        return len(identity.encode()) <= self.identity_bytes

    def hold_room_name(self, name: str) -> bool:
        """Tell whether a room may have this name."""
        return len(name.encode()) <= self.room_name_bytes
