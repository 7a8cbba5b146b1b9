"""LiveKit's AgentDispatchService: which agents are dispatched to a room. They are records of the room."""

from collections.abc import Mapping

from livekit.protocol import agent_dispatch

from signaling.api.encoding import Listing
from signaling.api.grants import may_manage_room
from signaling.api.limits import check_agent
from signaling.api.registry import Registry, create_room, find_room
from signaling.api.twirp import Method


class DispatchService:
    """The calls of the service, over the rooms of this process."""

    def __init__(self, rooms: Registry) -> None:
        """`rooms` are those that the calls are about."""
        self._rooms = rooms

    def methods(self) -> Mapping[str, Method]:
        """Return all calls by name."""
        create, delete = agent_dispatch.CreateAgentDispatchRequest, agent_dispatch.DeleteAgentDispatchRequest
        return {
            "CreateDispatch": Method(create, may_manage_room, self.create_dispatch, creates=True),
            "DeleteDispatch": Method(delete, may_manage_room, self.delete_dispatch),
            "ListDispatch": Method(agent_dispatch.ListAgentDispatchRequest, may_manage_room, self.list_dispatch),
        }

    def create_dispatch(self, request: agent_dispatch.CreateAgentDispatchRequest) -> agent_dispatch.AgentDispatch:
        """Dispatch an agent to a room, which is created if it is missing and a join would create it."""
        config = self._rooms.node.config
        check_agent(request, config.limits)
        find = create_room if config.auto_create else find_room
        return find(self._rooms, request.room).dispatches.add(request)

    def delete_dispatch(self, request: agent_dispatch.DeleteAgentDispatchRequest) -> agent_dispatch.AgentDispatch:
        """Take a dispatch back."""
        return find_room(self._rooms, request.room).dispatches.remove(request.dispatch_id)

    def list_dispatch(self, request: agent_dispatch.ListAgentDispatchRequest) -> Listing:
        """List the dispatches to a room, or the one that is named."""
        found = find_room(self._rooms, request.room).dispatches.find(request.dispatch_id)
        return Listing(agent_dispatch.ListAgentDispatchResponse, tuple(found))
