"""Who a participant is and how its client takes part, whatever way it came.

Values without behaviour: they are made once and not changed. What a participant says about itself later is its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from livekit.protocol.models import ClientInfo, ParticipantInfo, ParticipantPermission


def _everything() -> ParticipantPermission:
    return ParticipantPermission(can_subscribe=True, can_publish=True, can_publish_data=True)


@dataclass(frozen=True, slots=True)
class Profile:
    """Who a participant is when it comes."""

    identity: str
    name: str = ""
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    permission: ParticipantPermission = field(default_factory=_everything)
    """What it may do; LiveKit's default is to publish, to subscribe and to send data."""
    kind: ParticipantInfo.Kind = ParticipantInfo.STANDARD


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a participant's client takes part."""

    info: ClientInfo = field(default_factory=ClientInfo)
    """SDK, version and protocol, as the client says."""
    single_pc: bool = True
    """One peer connection for both directions, on which only the client offers."""
    auto_subscribe: bool = True
    """Tracks without an explicit choice are wanted."""
    adaptive_stream: bool = False
    """The client will say how large it shows tracks."""
