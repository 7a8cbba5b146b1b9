"""The agents that are dispatched to a room. They are records: nobody serves them yet."""

import time
from collections import Counter
from collections.abc import Iterable

from livekit.protocol.agent_dispatch import (
    AgentDispatch,
    AgentDispatchState,
    CreateAgentDispatchRequest,
    RoomAgentDispatch,
)
from livekit.protocol.rtc import RequestResponse

from signaling import identifiers
from signaling.errors import RequestRefused
from signaling.limits import MAX_DISPATCHES
from signaling.records.kept_bytes import KeptBytesOfRoom


class Dispatches:
    """The dispatches of one room, oldest first."""

    def __init__(self, room: str, kept: KeptBytesOfRoom, dropped: Counter[str]) -> None:
        """`kept` accounts for their bytes. `dropped` counts those beyond `MAX_DISPATCHES`, as `agent_dispatches`."""
        self._room = room
        self._kept = kept
        self._dropped = dropped
        self._by_id: dict[str, AgentDispatch] = {}

    def add(self, wanted: CreateAgentDispatchRequest | RoomAgentDispatch) -> AgentDispatch:
        """Add a dispatch and return it.

        Raises:
            RequestRefused: LIMIT_EXCEEDED.
            TooMuchKept: rooms keep too much already.
        """
        if len(self._by_id) >= MAX_DISPATCHES:
            self._dropped["agent_dispatches"] += 1
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, f"more than {MAX_DISPATCHES} agents for one room")
        dispatch = AgentDispatch(
            id=identifiers.dispatch_id(),
            agent_name=wanted.agent_name,
            room=self._room,
            metadata=wanted.metadata,
            restart_policy=wanted.restart_policy,
            deployment=wanted.deployment,
            attributes=wanted.attributes,
            state=AgentDispatchState(created_at=time.time_ns()),
        )
        self._kept.replace(0, dispatch.ByteSize())
        self._by_id[dispatch.id] = dispatch
        return dispatch

    def find(self, dispatch_id: str) -> Iterable[AgentDispatch]:
        """Return the dispatch with this id, if there is one; all, if the id is empty."""
        if not dispatch_id:
            return self._by_id.values()
        found = self._by_id.get(dispatch_id)
        return () if found is None else (found,)

    def remove(self, dispatch_id: str) -> AgentDispatch:
        """Remove a dispatch and return it.

        Raises:
            RequestRefused: NOT_FOUND.
        """
        dispatch = self._by_id.pop(dispatch_id, None)
        if dispatch is None:
            raise RequestRefused(RequestResponse.NOT_FOUND, "dispatch ID not found")
        self._kept.replace(dispatch.ByteSize(), 0)
        dispatch.state.deleted_at = time.time_ns()
        return dispatch
