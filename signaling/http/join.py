"""Reads a join from the query of the request, before the WebSocket upgrade.

A query has single parameters (`/rtc`), or one `join_request`, which is a base64url `WrappedJoinRequest` (`/rtc/v1`; it
is accepted on both paths). These are pure functions, some of which other requests need as well. Every refusal is a
`JoinError` with its HTTP status.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc
from livekit.protocol.room import RoomConfiguration
from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection

from signaling.config.api_keys import Keys
from signaling.config.options import LimitOptions
from signaling.http.bounds import TooManyEntries, check_join_request, check_room_config
from signaling.http.json_text import JSON_ERRORS
from signaling.http.tokens import Claims, TokenError, VideoGrant, verify
from signaling.profile import ClientSettings, Profile, is_person
from signaling.texts import encodable

MAX_JOIN_REQUEST_BYTES = 1024 * 1024
"""Bytes of an unpacked join request, as in livekit-server."""
MAX_NAME_LENGTH = 256
"""UTF-8 bytes of the name of a track or of a demo room. Those of rooms and participants are the operator's limits."""
MAX_QUERY_PARAMETERS = 100
"""Parameters of one query. Clients send about twenty; a query of a MiB could hold half a million, which take half a
second, and whoever sends it need not have a token."""
MAX_QUERY_ESCAPES = 20_000
"""`%` in a query. Base64 needs no or few escapes, and each costs a tenth of a microsecond."""
GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
"""zlib's code for a gzip header and any window size."""


class JoinError(Exception):
    """A refusal before the upgrade: `status` is the HTTP status, `text` the body that clients show."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class JoinParameters:
    """Everything known about a connection before its WebSocket is accepted."""

    claims: Claims
    room: str
    single_pc: bool
    """One peer connection for both directions, on which only the client offers."""
    auto_subscribe: bool
    adaptive_stream: bool
    reconnect: bool
    reconnect_reason: int
    participant_sid: str
    """With `reconnect`, the sid of the participant to resume."""
    client_info: models.ClientInfo
    publisher_offer: rtc.SessionDescription | None
    add_track_requests: tuple[rtc.AddTrackRequest, ...]
    sync_state: rtc.SyncState | None
    metadata: str
    """The participant's metadata: the request's if it has some and the token allows that, else the token's."""
    attributes: dict[str, str]
    """The token's attributes, replaced by those of the request if the token allows that."""
    auto_subscribe_data: bool = False
    """Data tracks are subscribed to without being chosen."""
    allow_pause: bool | None = None
    """A video may be paused for lack of bandwidth; None: as the configuration says."""
    room_config: RoomConfiguration | None = None
    """The settings of the room, as the token has them."""

    @property
    def profile(self) -> Profile:
        """The profile of the participant that joins."""
        claims = self.claims
        permission = self.video.permission()
        return Profile(claims.identity, claims.name, self.metadata, self.attributes, permission, claims.kind)

    @property
    def settings(self) -> ClientSettings:
        """The settings of its client."""
        return ClientSettings(
            self.client_info,
            self.single_pc,
            self.auto_subscribe,
            self.adaptive_stream,
            self.allow_pause,
            self.auto_subscribe_data,
        )

    @property
    def is_person(self) -> bool:
        """Whether the participant counts as a person, and not as an agent or recorder."""
        return is_person(self.claims.kind, self.video.agent, self.video.recorder)

    @property
    def video(self) -> VideoGrant:
        """The token's video grant."""
        return self.claims.video


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The parts of an HTTP request that matter here."""

    query: Mapping[str, str]
    authorization: str
    """The header's value; empty when absent."""
    address: str
    """The client's address, as far as the proxies in front are trusted."""
    single_pc: bool
    """True on `/rtc/v1`, where the client has one peer connection. That holds also if it sends the parameters of `/rtc`
    instead of a `join_request`, which a client that speaks JSON cannot build."""


def parse_join(request: RequestFacts, keys: Keys, limits: LimitOptions) -> JoinParameters:
    """Read token and parameters of a connecting client, whose texts must be within `limits`.

    Raises:
        JoinError: 401: the token does not allow the join; 400: the parameters cannot be used.
    """
    claims = authenticate(request.query, request.authorization, keys)
    video = claims.video
    if not video.room_join:
        raise JoinError(401, "permissions denied")
    if not claims.identity:
        raise JoinError(400, "identity cannot be empty")
    room = video.room or request.query.get("room", "")
    if not room:
        raise JoinError(400, "no room name")
    for what, value, limit in (
        ("room name", room, limits.room_name_bytes),
        ("identity", claims.identity, limits.identity_bytes),
        ("name", claims.name, limits.name_bytes),
    ):
        if len(value.encode()) > limit:
            raise JoinError(400, f"{what} exceeds {limit} bytes")

    wrapped = request.query.get("join_request", "")
    message = unwrap_join_request(wrapped) if wrapped else _request_from_query(request.query)
    message.client_info.address = request.address
    try:
        check_join_request(message)
    except TooManyEntries as error:
        raise JoinError(400, f"join_request has {error}") from error
    metadata, attributes = _participant_data(message, claims, video, limits)
    return JoinParameters(
        claims=claims,
        room=room,
        single_pc=bool(wrapped) or request.single_pc,
        auto_subscribe=message.connection_settings.auto_subscribe,
        adaptive_stream=message.connection_settings.adaptive_stream,
        auto_subscribe_data=message.connection_settings.auto_subscribe_data_track,
        reconnect=message.reconnect,
        reconnect_reason=message.reconnect_reason,
        participant_sid=message.participant_sid,
        client_info=message.client_info,
        publisher_offer=message.publisher_offer if message.HasField("publisher_offer") else None,
        add_track_requests=tuple(message.add_track_requests),
        sync_state=message.sync_state if message.HasField("sync_state") else None,
        metadata=metadata,
        attributes=attributes,
        allow_pause=(
            message.connection_settings.subscriber_allow_pause
            if message.connection_settings.HasField("subscriber_allow_pause")
            else None
        ),
        room_config=_room_config(claims, limits),
    )


def unwrap_join_request(text: str) -> rtc.JoinRequest:
    """Decode the `join_request` parameter: base64url (padded or not) of a `WrappedJoinRequest`, gzip or plain.

    Raises:
        JoinError: 400; the text names the first encoding that could not be read.
    """
    try:
        wrapped = rtc.WrappedJoinRequest.FromString(_decode_base64url(text))
    except (binascii.Error, ValueError, DecodeError) as error:
        raise JoinError(400, "cannot decode wrapped join_request") from error
    body = wrapped.join_request
    if wrapped.compression == rtc.WrappedJoinRequest.GZIP:
        body = _inflate(body)
    elif wrapped.compression != rtc.WrappedJoinRequest.NONE:
        raise JoinError(400, "unknown compression of join_request")
    if len(body) > MAX_JOIN_REQUEST_BYTES:
        raise JoinError(400, "join_request too large")
    try:
        return rtc.JoinRequest.FromString(body)
    except DecodeError as error:
        raise JoinError(400, "cannot decode join_request") from error


def query_of(connection: HTTPConnection) -> QueryParams:
    """Return the query of a request. All code that reads one gets it here.

    Raises:
        JoinError: 400: it has too many parameters or escapes.
    """
    query = connection.scope["query_string"]
    if query.count(b"&") >= MAX_QUERY_PARAMETERS or query.count(b"%") > MAX_QUERY_ESCAPES:
        raise JoinError(400, "too many parameters")
    return connection.query_params


def authenticate(query: Mapping[str, str], authorization: str, keys: Keys) -> Claims:
    """Return the claims of the token in the header `Authorization`, else of the one in the query.

    Raises:
        JoinError: 401: there is none, or it is not valid. The text does not repeat it.
    """
    token = query.get("access_token", "")
    if authorization:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise JoinError(401, "invalid authorization header, it must start with Bearer")
    if not token:
        raise JoinError(401, "permissions denied: no access token")
    try:
        return verify(token.strip(), keys)
    except TokenError as error:
        raise JoinError(401, str(error)) from error


def _decode_base64url(text: str) -> bytes:
    # Some clients pad and some do not; a query that was not percent-encoded turned "+" of plain base64 into spaces.
    bare = text.rstrip("=").replace("+", "-").replace(" ", "-").replace("/", "_")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=GZIP_WINDOW_BITS)
    try:
        inflated = inflater.decompress(body, MAX_JOIN_REQUEST_BYTES + 1)
    except zlib.error as error:
        raise JoinError(400, "cannot decompress join_request") from error
    if len(inflated) > MAX_JOIN_REQUEST_BYTES:
        raise JoinError(400, "join_request too large")
    if not inflater.eof:
        raise JoinError(400, "cannot decompress join_request: truncated")
    return inflated


def _request_from_query(query: Mapping[str, str]) -> rtc.JoinRequest:
    auto_subscribe, allow_pause = query.get("auto_subscribe", ""), query.get("subscriber_allow_pause", "")
    return rtc.JoinRequest(
        client_info=_client_info(query),
        connection_settings=rtc.ConnectionSettings(
            auto_subscribe=_boolean(auto_subscribe) if auto_subscribe else True,
            adaptive_stream=_boolean(query.get("adaptive_stream", "")),
            auto_subscribe_data_track=_boolean(query.get("auto_subscribe_data_track", "")),
            subscriber_allow_pause=_boolean(allow_pause) if allow_pause else None,  # type: ignore[arg-type]  # not set
        ),
        participant_attributes=_query_attributes(query.get("attributes", "")),
        reconnect=_boolean(query.get("reconnect", "")),
        reconnect_reason=_int32(query.get("reconnect_reason", "")),  # type: ignore[arg-type]  # an open enum
        participant_sid=query.get("sid", ""),
    )


def _client_info(query: Mapping[str, str]) -> models.ClientInfo:
    names = ("version", "os", "os_version", "device_model", "browser", "browser_version", "network")
    info = models.ClientInfo(
        protocol=_int32(query.get("protocol", "")),
        client_protocol=_int32(query.get("client_protocol", "")),
        **{name: query.get(name, "") for name in names},
    )
    sdk = query.get("sdk", "").upper()
    # Spellings of the query that are not the enum's.
    sdk = {"IOS": "SWIFT", "REACTNATIVE": "REACT_NATIVE", "UNITYWEB": "UNITY_WEB"}.get(sdk, sdk)
    if sdk in models.ClientInfo.SDK.DESCRIPTOR.values_by_name:
        info.sdk = cast("models.ClientInfo.SDK", models.ClientInfo.SDK.Value(sdk))
    wanted = {name.strip() for name in query.get("capabilities", "").split(",")}
    # SDKs write the names or the numbers.
    known = [number for name, number in models.ClientInfo.Capability.items() if {name, str(number)} & wanted]
    info.capabilities.extend(cast("list[models.ClientInfo.Capability]", sorted(known)))
    return info


def _query_attributes(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        decoded = encodable(json.loads(_decode_base64url(text)))
    except (ValueError, RecursionError) as error:
        raise JoinError(400, "cannot decode attributes") from error
    if not isinstance(decoded, dict) or not all(isinstance(value, str) for value in decoded.values()):
        raise JoinError(400, "cannot decode attributes")
    return decoded


def _participant_data(
    message: rtc.JoinRequest, claims: Claims, video: VideoGrant, limits: LimitOptions
) -> tuple[str, dict[str, str]]:
    if (message.metadata or message.participant_attributes) and not video.can_update_own_metadata:
        raise JoinError(401, "permissions denied: the token does not allow own metadata or attributes")
    # An empty value would delete an attribute that the token set.
    own = {key: value for key, value in message.participant_attributes.items() if value}
    metadata, attributes = message.metadata or claims.metadata, claims.attributes | own
    if not limits.hold_metadata(metadata):
        raise JoinError(400, f"metadata exceeds {limits.metadata_bytes} bytes")
    if not limits.hold_attributes(attributes):
        raise JoinError(400, f"attributes exceed {limits.attributes_bytes} bytes")
    return metadata, attributes


def _room_config(claims: Claims, limits: LimitOptions) -> RoomConfiguration | None:
    if not claims.room_config:
        return None
    config = RoomConfiguration()
    try:
        json_format.ParseDict(claims.room_config, config, ignore_unknown_fields=True)
        check_room_config(config)
    except JSON_ERRORS as error:
        raise JoinError(400, f"roomConfig of the token: {error}") from error
    texts = (config.metadata, *(agent.metadata for agent in config.agents))
    if not all(map(limits.hold_metadata, texts)):
        raise JoinError(400, f"metadata in roomConfig exceeds {limits.metadata_bytes} bytes")
    return config


def _boolean(text: str) -> bool:
    return text.lower() in ("1", "true")


def _int32(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        return 0
    return value if -(2**31) <= value < 2**31 else 0
