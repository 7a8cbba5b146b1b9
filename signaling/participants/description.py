"""The `ParticipantInfo` that describes a participant to others: making it, and changing its texts."""

import time

from livekit.protocol.models import ClientInfo, ParticipantInfo
from livekit.protocol.rtc import RequestResponse

from signaling import identifiers
from signaling.config.options import LimitOptions
from signaling.errors import RequestRefused
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


def set_texts(
    info: ParticipantInfo, name: str, metadata: str, attributes: dict[str, str], limits: LimitOptions
) -> None:
    """Change name, metadata and attributes within `limits`. Empty texts change nothing; empty attributes are deleted.

    Raises:
        RequestRefused: LIMIT_EXCEEDED; nothing was changed.
    """
    merged = {**info.attributes, **attributes}
    merged = {key: value for key, value in merged.items() if value}
    if not (limits.hold_name(name) and limits.hold_metadata(metadata) and limits.hold_attributes(merged)):
        raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, "name, metadata or attributes are too long")
    info.name = name or info.name
    info.metadata = metadata or info.metadata
    info.attributes.clear()
    info.attributes.update(merged)
