"""Access tokens: JSON Web Tokens (RFC 7519) in LiveKit's shape, signed with HS256 under an API key's secret.

Who calls it: `join.py` verifies a token once per connection, rooms sign the refreshed ones, the command line creates
them. Grants are read leniently (absent and null mean LiveKit's default); signature and times are read strictly.
"""

import base64
import hashlib
import hmac
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import jwt
from jwt.warnings import InsecureKeyLengthWarning
from livekit.protocol import models
from pydantic import SecretStr

from signaling.config.api_keys import Keys
from signaling.texts import encodable

ALGORITHM = "HS256"
CLOCK_LEEWAY_S = 60
"""Accepted clock difference for `exp` and `nbf`: one minute, as livekit-server accepts."""
REFRESHED_TOKEN_TTL_S = 600
"""Least validity of a refreshed token; rooms send a new one every five minutes."""
MAX_TOKEN_BYTES = 832 * 1024
"""Bytes of a token that the server sends: enough for the largest metadata and attributes of ordinary text, and 192 KiB
less than a request may have (`http_protocol.MAX_REQUEST_HEAD_BYTES`), for what else a client sends with it."""
LARGE_TOKEN_BYTES = 16 * 1024
"""Bytes above which a token's JSON is parsed only after its signature was verified."""
DEFAULT_TTL_S = 6 * 3600
"""Validity of a token made by `create`, LiveKit's default."""
BODY_TTL_S = 300
"""Validity of the signature of a body, as livekit-server gives its webhooks."""


_HEADER = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
"""`{"alg":"HS256","typ":"JWT"}` in base64url, the header of every token that is signed here."""
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
"""Writes no escapes, which take up to three times as many bytes as the same text in UTF-8."""

# The length of a secret is judged once, when the configuration is read, and not again for each token.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)


class TokenError(Exception):
    """A token is not valid. The text tells its holder why (HTTP status 401)."""


class TokenTooLong(Exception):
    """A refreshed token would be too long for a request."""


@dataclass(frozen=True, slots=True)
class VideoGrant:
    """The `video` claim with LiveKit's defaults filled in."""

    room: str = ""
    room_join: bool = False
    room_create: bool = False
    room_list: bool = False
    room_record: bool = False
    room_admin: bool = False
    ingress_admin: bool = False
    can_publish: bool = True
    can_subscribe: bool = True
    can_publish_data: bool = True
    can_publish_sources: tuple[models.TrackSource, ...] = ()
    """If not empty, the only sources that may be published. A name that LiveKit does not know becomes UNKNOWN."""
    can_update_own_metadata: bool = False
    can_subscribe_metrics: bool = False
    can_manage_agent_session: bool = False
    hidden: bool = False
    recorder: bool = False
    agent: bool = False
    destination_room: str = ""

    def may_publish(self, source: models.TrackSource) -> bool:
        """Tell whether a track of this source may be published."""
        return self.can_publish and (not self.can_publish_sources or source in self.can_publish_sources)

    def permission(self) -> models.ParticipantPermission:
        """Return the grant as the permission of a participant."""
        return models.ParticipantPermission(
            can_subscribe=self.can_subscribe,
            can_publish=self.can_publish,
            can_publish_data=self.can_publish_data,
            can_publish_sources=self.can_publish_sources,
            hidden=self.hidden,
            recorder=self.recorder,
            can_update_metadata=self.can_update_own_metadata,
            agent=self.agent,
            can_subscribe_metrics=self.can_subscribe_metrics,
            can_manage_agent_session=self.can_manage_agent_session,
        )


@dataclass(frozen=True, slots=True)
class Claims:
    """Everything that a verified token says."""

    identity: str
    name: str
    metadata: str
    attributes: dict[str, str]
    kind: models.ParticipantInfo.Kind
    video: VideoGrant
    """The video grant. A token without a `video` claim has one without `room_join`."""
    api_key: str
    expires_at: int
    """Unix time in seconds."""
    raw: dict[str, Any] = field(repr=False)
    """All claims as they came, for a refreshed token."""

    @property
    def who(self) -> tuple[str, str]:
        """The API key and the identity, which together say whose token it is."""
        return self.api_key, self.identity

    @property
    def not_before(self) -> int:
        """The Unix time in seconds from which the token is valid, which a refreshed one keeps; 0: it names none."""
        value = self.raw.get("nbf")
        return int(value) if isinstance(value, int | float) else 0

    @property
    def body_hash(self) -> str:
        """The base64 SHA-256 of the only request body for which the token is good; empty: it is good for every one."""
        return _text(self.raw.get("sha256"))

    @property
    def room_preset(self) -> str:
        """The name of the configured settings that a room gets when its bearer joins; empty: none."""
        return _text(self.raw.get("roomPreset"))

    @property
    def room_config(self) -> dict[str, Any]:
        """The settings that a room gets when its bearer joins, as protojson of `RoomConfiguration`."""
        return _mapping(self.raw.get("roomConfig"))

    def has_sip_grant(self, name: str) -> bool:
        """Tell whether the token has a SIP grant of this name, `admin` or `call`."""
        return _mapping(self.raw.get("sip")).get(name) is True


def verify(token: str, keys: Keys) -> Claims:
    """Check signature and times of `token` against the secrets of `keys`. Every text of the result can be encoded.

    Raises:
        TokenError: the token is malformed, not signed by a known key, expired, not yet valid, or has no expiry.
    """
    if len(token) > LARGE_TOKEN_BYTES and not _is_signed(token, keys):
        raise TokenError("invalid authorization token: Signature verification failed")
    payload = _payload(token)
    api_key = _issuer(payload)
    secret = keys.get(api_key)
    if secret is None:
        raise TokenError("invalid API key")
    try:
        raw = jwt.decode(
            token,
            secret.get_secret_value(),
            algorithms=[ALGORITHM],
            leeway=CLOCK_LEEWAY_S,
            # `iat` and `jti` carry no decision here, so that an odd value in them is no reason to refuse.
            options={"require": ["exp"], "verify_aud": False, "verify_iat": False, "verify_jti": False},
        )
        return _claims(raw if _has_only_whole_characters(payload) else encodable(raw), api_key)
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise TokenError(f"invalid authorization token: {error}") from error


def create(
    api_key: str,
    secret: SecretStr,
    *,
    identity: str,
    video: Mapping[str, Any],
    name: str = "",
    metadata: str = "",
    attributes: Mapping[str, str] | None = None,
    ttl_s: int = DEFAULT_TTL_S,
) -> str:
    """Sign a token. `video` is the claim with LiveKit's camelCase names."""
    claims: dict[str, Any] = {"sub": identity, "name": name, "video": dict(video)}
    if metadata:
        claims["metadata"] = metadata
    if attributes:
        claims["attributes"] = dict(attributes)
    return _sign(encodable(claims), api_key, secret, int(time.time()) + ttl_s)


def hash_body(body: bytes) -> str:
    """Return the hash of a request's body as the claim `sha256` has it."""
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def sign_body(api_key: str, secret: SecretStr, body: bytes) -> str:
    """Sign the body of a request: a token with its hash (`sha256`), which grants nothing."""
    return _sign({"sha256": hash_body(body)}, api_key, secret, int(time.time()) + BODY_TTL_S)


def refresh(
    claims: Claims,
    keys: Keys,
    *,
    name: str | None = None,
    metadata: str | None = None,
    attributes: Mapping[str, str] | None = None,
    permission: models.ParticipantPermission | None = None,
) -> str:
    """Sign `claims` again with what has changed (None: unchanged), under the key that signed the original.

    The new token is valid for `REFRESHED_TOKEN_TTL_S`, or as long as the original if that is longer. Claims that this
    server does not read are kept, and so is `nbf`, so that revoking the original revokes it too.

    Raises:
        TokenError: the key is no longer configured.
        TokenTooLong: the token would have more than `MAX_TOKEN_BYTES`.
    """
    secret = keys.get(claims.api_key)
    if secret is None:
        raise TokenError("invalid API key")
    fresh = dict(claims.raw)
    fresh["sub"] = claims.identity
    fresh["nbf"] = claims.not_before
    if name is not None:
        fresh["name"] = name
    if metadata is not None:
        fresh["metadata"] = metadata
    if attributes is not None:
        fresh["attributes"] = dict(attributes)
    if permission is not None:
        fresh["video"] = _mapping(fresh.get("video")) | _video_claim(permission)
    token = _sign(fresh, claims.api_key, secret, max(int(time.time()) + REFRESHED_TOKEN_TTL_S, claims.expires_at))
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenTooLong(f"a token of {len(token)} bytes")
    return token


def _sign(claims: dict[str, Any], api_key: str, secret: SecretStr, expires_at: int) -> str:
    """Sign claims, all of whose texts can be encoded, as RFC 7515 section 5.1 says."""
    # A new `nbf` lies in the past by the leeway, for verifiers whose clock is behind and who allow none.
    not_before = claims.get("nbf", int(time.time()) - CLOCK_LEEWAY_S)
    payload = _JSON.encode(claims | {"iss": api_key, "nbf": not_before, "exp": expires_at})
    signed = f"{_HEADER}.{_base64url(payload.encode())}"
    signature = hmac.digest(secret.get_secret_value().encode(), signed.encode(), "sha256")
    return f"{signed}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _is_signed(token: str, keys: Keys) -> bool:
    """Tell whether one of the secrets signed `token`, without parsing it: hashing costs a tenth of that."""
    signed, _, signature = token.rpartition(".")
    try:
        given = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        text = signed.encode()
    except ValueError:
        return False
    secrets = (secret.get_secret_value().encode() for secret in keys.values())
    return any(hmac.compare_digest(hmac.digest(secret, text, "sha256"), given) for secret in secrets)


def _payload(token: str) -> bytes:
    """Return the JSON of a token whose signature need not be good."""
    parts = token.split(".", 3)
    try:
        if len(parts) != 3:
            raise ValueError("not three parts")
        return base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except ValueError as error:
        raise TokenError("invalid authorization token") from error


def _issuer(payload: bytes) -> str:
    """Return the API key that a token names, before it is known whether that key signed it."""
    try:
        issuer = json.loads(payload)["iss"]
    except KeyError:
        issuer = None
    except (ValueError, TypeError, RecursionError) as error:
        raise TokenError("invalid authorization token") from error
    if not isinstance(issuer, str):
        raise TokenError("invalid authorization token: no issuer")
    return issuer


def _has_only_whole_characters(payload: bytes) -> bool:
    """Tell, at a fraction of the cost of `encodable`, that it would change nothing in this JSON.

    Half a character needs an escape, or bytes that are not ASCII; JSON in UTF-16 or UTF-32, which Python reads as well,
    needs zeros or such bytes.
    """
    return payload.isascii() and b"\\u" not in payload and b"\0" not in payload


def _claims(raw: dict[str, Any], api_key: str) -> Claims:
    return Claims(
        identity=_text(raw.get("sub")) or _text(raw.get("jti")),
        name=_text(raw.get("name")),
        metadata=_text(raw.get("metadata")),
        attributes={key: _text(value) for key, value in _mapping(raw.get("attributes")).items()},
        kind=_kind(raw.get("kind")),
        video=_video_grant(_mapping(raw.get("video"))),
        api_key=api_key,
        expires_at=int(raw["exp"]),
        raw=raw,
    )


def _video_grant(video: Mapping[str, Any]) -> VideoGrant:
    def flag(name: str, absent: bool = False) -> bool:
        value = video.get(name)
        return absent if value is None else value is True

    can_publish = flag("canPublish", absent=True)
    sources = video.get("canPublishSources")
    return VideoGrant(
        room=_text(video.get("room")),
        room_join=flag("roomJoin"),
        room_create=flag("roomCreate"),
        room_list=flag("roomList"),
        room_record=flag("roomRecord"),
        room_admin=flag("roomAdmin"),
        ingress_admin=flag("ingressAdmin"),
        can_publish=can_publish,
        can_subscribe=flag("canSubscribe", absent=True),
        can_publish_data=flag("canPublishData", absent=can_publish),
        can_publish_sources=tuple(_source(name) for name in sources) if isinstance(sources, list) else (),
        can_update_own_metadata=flag("canUpdateOwnMetadata"),
        can_subscribe_metrics=flag("canSubscribeMetrics"),
        can_manage_agent_session=flag("canManageAgentSession"),
        hidden=flag("hidden"),
        recorder=flag("recorder"),
        agent=flag("agent"),
        destination_room=_text(video.get("destinationRoom")),
    )


def _video_claim(permission: models.ParticipantPermission) -> dict[str, Any]:
    return {
        "canPublish": permission.can_publish,
        "canSubscribe": permission.can_subscribe,
        "canPublishData": permission.can_publish_data,
        "canPublishSources": [source_name(each).lower() for each in permission.can_publish_sources],
        "canUpdateOwnMetadata": permission.can_update_metadata,
        "canSubscribeMetrics": permission.can_subscribe_metrics,
        "canManageAgentSession": permission.can_manage_agent_session,
        "hidden": permission.hidden,
        "recorder": permission.recorder,
        "agent": permission.agent,
    }


def source_name(source: models.TrackSource) -> str:
    """Return the name of a source. One that this server does not know, which protobuf keeps, is UNKNOWN."""
    return models.TrackSource.Name(source if source in models.TrackSource.values() else models.TrackSource.UNKNOWN)


def _source(name: object) -> models.TrackSource:
    try:
        number = models.TrackSource.Value(name.upper() if isinstance(name, str) else "")
    except ValueError:
        return models.TrackSource.UNKNOWN
    return cast("models.TrackSource", number)


def _kind(name: object) -> models.ParticipantInfo.Kind:
    try:
        number = models.ParticipantInfo.Kind.Value(name.upper() if isinstance(name, str) else "")
    except ValueError:
        return models.ParticipantInfo.Kind.STANDARD
    return cast("models.ParticipantInfo.Kind", number)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
