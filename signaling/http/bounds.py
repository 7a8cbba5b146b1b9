"""Bounds on the entries of repeated fields in clients' messages, checked before anything loops over them.

Who calls it: `handlers.answer` for every request, `join.parse_join` for a join request, `connection.decode_request` for
JSON before it is read, and the server API for the requests of its calls. A frame of 2 MiB can hold a million empty
entries.
"""

import re
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from livekit.protocol import rtc
from livekit.protocol.room import RoomConfiguration

from signaling.limits import (
    MAX_ATTRIBUTES,
    MAX_CAPABILITIES,
    MAX_DATA_CHANNELS,
    MAX_DISPATCHES,
    MAX_FEATURES,
    MAX_JOIN_TRACKS,
    MAX_JSON_CHARACTERS,
    MAX_JSON_ENTRIES,
    MAX_LAYERS,
    MAX_REGIONS,
    MAX_REQUEST_ENTRIES,
    MAX_REQUEST_SIDS,
    MAX_TRACK_CODECS,
    MAX_TRACK_PERMISSIONS,
    MAX_TRACKS,
)
from signaling.sdp.parsing import MAX_SECTIONS

MAX_ENTRIES: dict[str, int] = {
    "SessionDescription.mid_to_track_id": MAX_SECTIONS,
    "AddTrackRequest.layers": MAX_LAYERS,
    "AddTrackRequest.simulcast_codecs": MAX_TRACK_CODECS,
    "AddTrackRequest.audio_features": MAX_FEATURES,
    "AddTrackRequest.packet_trailer_features": MAX_FEATURES,
    "SimulcastCodec.layers": MAX_LAYERS,
    "UpdateSubscription.track_sids": MAX_REQUEST_SIDS,
    "UpdateSubscription.participant_tracks": MAX_REQUEST_SIDS,
    "ParticipantTracks.track_sids": MAX_REQUEST_SIDS,
    "UpdateTrackSettings.track_sids": MAX_REQUEST_SIDS,
    "RegionSettings.regions": MAX_REGIONS,
    "UpdateVideoLayers.layers": MAX_LAYERS,
    "SubscriptionPermission.track_permissions": MAX_TRACK_PERMISSIONS,
    "TrackPermission.track_sids": MAX_TRACKS,
    "SyncState.publish_tracks": MAX_TRACKS,
    "SyncState.data_channels": MAX_DATA_CHANNELS,
    "SyncState.track_sids_disabled": MAX_REQUEST_SIDS,
    "SyncState.datachannel_receive_states": MAX_REQUEST_SIDS,
    "SyncState.publish_data_tracks": MAX_TRACKS,
    "TrackInfo.layers": MAX_LAYERS,
    "TrackInfo.codecs": MAX_TRACK_CODECS,
    "TrackInfo.audio_features": MAX_FEATURES,
    "TrackInfo.packet_trailer_features": MAX_FEATURES,
    "SimulcastCodecInfo.layers": MAX_LAYERS,
    "UpdateDataSubscription.updates": MAX_REQUEST_SIDS,
    "UpdateParticipantMetadata.attributes": MAX_ATTRIBUTES,
    "UpdateLocalAudioTrack.features": MAX_FEATURES,
    "ClientInfo.capabilities": MAX_CAPABILITIES,
    "JoinRequest.participant_attributes": MAX_ATTRIBUTES,
    "JoinRequest.add_track_requests": MAX_JOIN_TRACKS,
}
"""Message.field -> entries in one message. A test fails if a repeated field is missing here."""

API_ENTRIES: dict[str, int] = {
    "ParticipantPermission.can_publish_sources": MAX_FEATURES,
    "UpdateParticipantRequest.attributes": MAX_ATTRIBUTES,
    "CreateAgentDispatchRequest.attributes": MAX_ATTRIBUTES,
    "RoomAgentDispatch.attributes": MAX_ATTRIBUTES,
    "CreateRoomRequest.agents": MAX_DISPATCHES,
    "RoomConfiguration.agents": MAX_DISPATCHES,
}
"""Message.field of the server API -> entries in one message. Where a field is missing, `MAX_REQUEST_SIDS` holds."""

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""Matches a JSON string, also one that never ends, in one pass."""
_LONG_JSON = frozenset(("offer", "answer", "syncState", "sync_state", "updateMetadata", "update_metadata"))
"""Requests that hold SDP or metadata, in both spellings."""


class TooManyEntries(ValueError):
    """A message has too many entries. The text names the field and the bound."""


@dataclass(slots=True)
class _Field:
    """A field that is repeated or holds repeated fields."""

    name: str
    maximum: int
    """The bound on its entries; 0: it holds one message."""
    inner: "list[_Field]"
    """The fields to check in each entry."""


def _fields(message: Any, around: tuple[Any, ...] = ()) -> list[_Field]:
    return [field for each in message.fields if (field := _field(each, (*around, message))) is not None]


def _field(field: FieldDescriptor, around: tuple[Any, ...]) -> _Field | None:
    of = field.message_type
    is_map = of is not None and of.GetOptions().map_entry
    inner = _fields(of, around) if of is not None and of not in around and not is_map else []
    if field.is_repeated:
        name = f"{around[-1].name}.{field.name}"
        return _Field(field.name, MAX_ENTRIES.get(name) or API_ENTRIES.get(name, MAX_REQUEST_SIDS), inner)
    return _Field(field.name, 0, inner) if inner else None


class Entries:
    """The bounds on the entries of one kind of message, which are found once."""

    def __init__(self, kind: type[Message]) -> None:
        """Find the repeated fields of a kind of message."""
        self._fields = _fields(kind.DESCRIPTOR)

    def check(self, message: Message) -> None:
        """Check a message of this kind.

        Raises:
            TooManyEntries: one repeated field, or all of them together, have too many.
        """
        _count(message, self._fields, MAX_REQUEST_ENTRIES)


_REQUESTS = {field.name: field.inner for field in _fields(rtc.SignalRequest.DESCRIPTOR)}
_REPEATED = {name: inner for name, inner in _REQUESTS.items() if inner}
_ROOM_CONFIG = Entries(RoomConfiguration)
_JOIN = _fields(rtc.JoinRequest.DESCRIPTOR)


def check_request(name: str, message: Any) -> None:
    """Check the request `name` of a `SignalRequest`.

    Raises:
        TooManyEntries: one repeated field, or all of them together, have more than they may.
    """
    fields = _REPEATED.get(name)
    if fields is not None:
        _count(message, fields, MAX_REQUEST_ENTRIES)


def check_room_config(message: RoomConfiguration) -> None:
    """Check the settings of a room that a token has.

    Raises:
        TooManyEntries: one repeated field, or all of them together, have too many.
    """
    _ROOM_CONFIG.check(message)


def check_join_request(message: rtc.JoinRequest) -> None:
    """Check a join request.

    Raises:
        TooManyEntries: one repeated field, or all of them together, have too many.
    """
    _count(message, _JOIN, MAX_REQUEST_ENTRIES)


def _count(message: Message, fields: list[_Field], left: int) -> int:
    """Return how many of the `left` entries remain for what comes after this message."""
    for field in fields:
        if not field.maximum:
            if message.HasField(field.name):
                left = _count(getattr(message, field.name), field.inner, left)
            continue
        entries = getattr(message, field.name)
        left -= len(entries)
        if len(entries) > field.maximum:
            raise TooManyEntries(f"more than {field.maximum} entries in {field.name}")
        if left < 0:
            raise TooManyEntries(f"more than {MAX_REQUEST_ENTRIES} entries in one request")
        if field.inner:
            for entry in entries:
                left = _count(entry, field.inner, left)
    return left


def check_json_text(text: str) -> None:
    """Check a JSON message before it is parsed, by the brackets and commas of its lists and objects.

    Raises:
        TooManyEntries: there are more than `MAX_JSON_ENTRIES`.
    """
    if _entries(text) > MAX_JSON_ENTRIES and _entries(_STRING.sub("", text)) > MAX_JSON_ENTRIES:
        raise TooManyEntries(f"more than {MAX_JSON_ENTRIES} entries in one message")


def _entries(text: str) -> int:
    return text.count(",") + text.count("{") + text.count("[")


def check_json_kind(text: str, value: dict[str, Any]) -> None:
    """Check the length of a JSON message: only kinds that hold SDP or metadata may be as long as a frame.

    Raises:
        TooManyEntries: another kind has more than `MAX_JSON_CHARACTERS`.
    """
    if len(text) > MAX_JSON_CHARACTERS and not _LONG_JSON & value.keys():
        raise TooManyEntries(f"more than {MAX_JSON_CHARACTERS} characters in a request without SDP or metadata")
