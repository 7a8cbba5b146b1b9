"""The `ParticipantInfo` that describes a participant to others: making it, and changing its texts."""

import time

from livekit.protocol.models import ClientInfo, ParticipantInfo
from livekit.protocol.rtc import RequestResponse

from signaling import identifiers
from signaling.errors import RequestRefused
from signaling.http.join import MAX_ATTRIBUTES_BYTES, MAX_METADATA_BYTES, MAX_NAME_LENGTH
from signaling.limits import MAX_CAPABILITIES
from signaling.profile import Profile


def describe(profile: Profile, client: ClientInfo) -> ParticipantInfo:
    """Describe a participant that joins now, under a new sid."""
    now = time.time()
    return ParticipantInfo(
        sid=identifiers.participant_sid(),
        identity=profile.identity,
        name=profile.name,
        metadata=profile.metadata,
        attributes=profile.attributes,
        kind=profile.kind,
        permission=profile.permission,
        joined_at=int(now),
        joined_at_ms=int(now * 1000),
        client_protocol=client.client_protocol,
        capabilities=list(dict.fromkeys(client.capabilities))[:MAX_CAPABILITIES],
        version=1,
    )


def set_texts(info: ParticipantInfo, name: str, metadata: str, attributes: dict[str, str]) -> None:
    """Change name, metadata and attributes. Empty texts change nothing; empty attributes are deleted.

    Raises:
        RequestRefused: LIMIT_EXCEEDED; nothing was changed.
    """
    merged = {**info.attributes, **attributes}
    merged = {key: value for key, value in merged.items() if value}
    if (
        len(name.encode()) > MAX_NAME_LENGTH
        or len(metadata.encode()) > MAX_METADATA_BYTES
        or sum(len(key.encode()) + len(value.encode()) for key, value in merged.items()) > MAX_ATTRIBUTES_BYTES
    ):
        raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, "name, metadata or attributes are too long")
    info.name = name or info.name
    info.metadata = metadata or info.metadata
    info.attributes.clear()
    info.attributes.update(merged)
