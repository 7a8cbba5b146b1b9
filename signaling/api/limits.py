"""The operator's limits on texts in requests, with LiveKit's errors.

The bounds on whole requests are in `bodies.py` and `signaling/http/bounds.py`.
"""

from collections.abc import Mapping

from livekit.protocol.agent_dispatch import CreateAgentDispatchRequest, RoomAgentDispatch

from signaling.api.errors import exceeds
from signaling.config.options import LimitOptions

MAX_AGENT_NAME_BYTES, MAX_DEPLOYMENT_BYTES = 256, 64
"""UTF-8 bytes of an agent's name, and of the name of its deployment."""


def check_name(name: str, limits: LimitOptions) -> None:
    """Check the length of a participant's name.

    Raises:
        ApiError: it is too long.
    """
    if not limits.hold_name(name):
        raise exceeds("name length exceeds limits", limits.name_bytes)


def check_room_name(name: str, limits: LimitOptions) -> None:
    """Check the length of a room's name.

    Raises:
        ApiError: it is too long.
    """
    if not limits.hold_room_name(name):
        raise exceeds("room name length exceeds limits", limits.room_name_bytes)


def check_metadata(metadata: str, limits: LimitOptions) -> None:
    """Check the length of a room's, participant's or agent's metadata.

    Raises:
        ApiError: it is too long.
    """
    if not limits.hold_metadata(metadata):
        raise exceeds("metadata size exceeds limits", limits.metadata_bytes)


def check_attributes(attributes: Mapping[str, str], limits: LimitOptions) -> None:
    """Check the length of all attributes together.

    Raises:
        ApiError: they are too long.
    """
    if not limits.hold_attributes(attributes):
        raise exceeds("attribute size exceeds limits", limits.attributes_bytes)


def check_agent(agent: RoomAgentDispatch | CreateAgentDispatchRequest, limits: LimitOptions) -> None:
    """Check the texts of an agent's dispatch.

    Raises:
        ApiError: one is too long.
    """
    check_metadata(agent.metadata, limits)
    check_attributes(agent.attributes, limits)
    if len(agent.agent_name.encode()) > MAX_AGENT_NAME_BYTES:
        raise exceeds("agent name length exceeds limits", MAX_AGENT_NAME_BYTES)
    if len(agent.deployment.encode()) > MAX_DEPLOYMENT_BYTES:
        raise exceeds("deployment length exceeds limits", MAX_DEPLOYMENT_BYTES)
