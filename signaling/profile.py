"""Who a participant is, and the settings of its client, independent of how it joins.

These values do not change. A participant that changes its name, metadata or attributes later keeps them itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from livekit.protocol.models import ClientInfo, ParticipantInfo, ParticipantPermission

HELPERS = frozenset((ParticipantInfo.AGENT, ParticipantInfo.EGRESS))
"""Kinds of participants that are there for others: they neither fill a room nor keep it open."""


def is_person(kind: ParticipantInfo.Kind, agent: bool, recorder: bool) -> bool:
    """Tell whether a participant counts as a person, by its kind and the grants `agent` and `recorder`."""
    return not (kind in HELPERS or agent or recorder)


def _everything() -> ParticipantPermission:
    return ParticipantPermission(can_subscribe=True, can_publish=True, can_publish_data=True)


@dataclass(frozen=True, slots=True)
class Profile:
    """Who a participant is when it joins."""

    identity: str
    name: str = ""
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    permission: ParticipantPermission = field(default_factory=_everything)
    """What it may do. By default it may publish, subscribe and send data, as with LiveKit."""
    kind: ParticipantInfo.Kind = ParticipantInfo.STANDARD


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The settings of a participant's client."""

    info: ClientInfo = field(default_factory=ClientInfo)
    """SDK, version and protocol, as the client gives them."""
    single_pc: bool = True
    """One peer connection for both directions, on which only the client offers."""
    auto_subscribe: bool = True
    """Tracks without an explicit choice are wanted."""
    adaptive_stream: bool = False
    """The client will say how large it shows tracks."""
    allow_pause: bool | None = None
    """A video of which not even key frames fit may be paused; None: the client does not say."""
    auto_subscribe_data: bool = False
    """Data tracks without an explicit choice are wanted."""
    signals: bool = True
    """Whether it has a WebSocket, or may come back on one. False: it joined by one HTTP request, and is told nothing
    else."""

    def may_pause(self, configured: bool) -> bool:
        """Whether its videos may be paused for lack of bandwidth: what the client says, else what is configured."""
        return configured if self.allow_pause is None else self.allow_pause
